//! Asks another server over HTTP, with every bound: time, size, redirects, and questions at once.
//!
//! It is the program's own HTTP client, which blocks, on a thread for blocking work. It follows no redirect: whoever is
//! asked was named by an operator, or by a document of whom they named.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use ureq::http::{Request, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::client_tls;

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Beyond that a thread may be stuck where the client has no limit of its own, as in the system's names.
const GRACE: Duration = Duration::from_secs(1);

/// The largest answer.
pub const MAX_ANSWER_BYTES: u64 = 256 * 1024;

/// Questions at once; others wait for their turn, as long as for an answer.
const AT_ONCE: usize = 8;

/// The client.
pub struct Fetcher {
    agent: ureq::Agent,
    places: Arc<Semaphore>,
}

impl Fetcher {
    /// Trusts the certificates of the file that a setting names; without one, those of the system.
    pub fn new(setting: &str, roots: Option<&Path>) -> anyhow::Result<Fetcher> {
        let roots = client_tls::trusted(setting, roots)?;
        let roots: Vec<Certificate<'static>> =
            roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
        let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(roots))).build();
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(TIMEOUT))
            .tls_config(tls)
            .build();
        let agent = ureq::Agent::new_with_config(config);
        Ok(Fetcher { agent, places: Arc::new(Semaphore::new(AT_ONCE)) })
    }

    /// The status and the body of an answer. The error names neither header nor body.
    pub async fn ask(&self, request: Request<Vec<u8>>) -> anyhow::Result<(u16, Vec<u8>)> {
        let waiting = timeout(TIMEOUT, self.places.clone().acquire_owned()).await;
        let place = waiting.ok().and_then(Result::ok).context("too many wait for it")?;
        let agent = self.agent.clone();
        let asking = tokio::task::spawn_blocking(move || {
            // It is given back when the thread is free, not when nobody waits for it any more.
            let _place = place;
            ask(&agent, request)
        });
        match timeout(TIMEOUT + GRACE, asking).await {
            Ok(asked) => asked.context("the client ended")?,
            Err(_) => bail!("no answer within {} s", TIMEOUT.as_secs()),
        }
    }
}

fn ask(agent: &ureq::Agent, request: Request<Vec<u8>>) -> anyhow::Result<(u16, Vec<u8>)> {
    let mut answer = agent.run(request)?;
    let status = answer.status().as_u16();
    if (300..400).contains(&status) {
        bail!("it redirects elsewhere ({status}), which is not followed");
    }
    let body = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec()?;
    Ok((status, body))
}

/// Whether an address may be asked for something that has to be true: over TLS, or on this machine.
pub fn is_trustworthy(url: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else { return false };
    let Some(authority) = url.authority() else { return false };
    let is_bare = !authority.as_str().contains('@') && !authority.host().is_empty();
    match url.scheme_str() {
        Some("https") => is_bare,
        Some("http") => is_bare && client_tls::is_this_machine(authority.host()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_over_tls_or_on_this_machine_is_believed() {
        for (url, expected) in [
            ("https://id.example/realms/a", true),
            ("https://id.example:8443", true),
            ("http://127.0.0.1:5556/dex", true),
            ("http://[::1]:5556", true),
            ("http://localhost/dex", true),
            ("http://id.example", false),
            ("http://localhost@id.example", false),
            ("https://id.example@evil.example", false),
            ("ftp://id.example", false),
            ("id.example", false),
            ("/dex", false),
            ("", false),
        ] {
            assert_eq!(is_trustworthy(url), expected, "{url}");
        }
    }
}
