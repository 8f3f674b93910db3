//! `groundstation agent`: one satellite, with credentials that it was given or that it enrols for.

use std::path::PathBuf;
use std::pin::pin;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};
use uuid::Uuid;

use super::credentials_file::{CredentialsFile, Kept};
use super::exit::wrong_usage;
use super::{api, tags, token_file};
use crate::clients::agent::{self, Identity};
use crate::clients::client::{Client, Created, Enrol, Refused, Unreachable};
use crate::platform::{shutdown, units};

/// The path of the satellites' WebSocket at a pod.
const WEBSOCKET: &str = "/api/ws/satellite";

/// Where the credentials are kept unless it is said.
const CREDENTIALS: &str = "satellite.json";

/// The arguments with which credentials are kept in a file; without all of them they are given.
const KEEPS_CREDENTIALS: [&str; 3] = ["credentials", "enrol", "enrol_file"];

/// The longest pause that a pod may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(5 * 60);

/// What a pod says of a key that it knows of another request.
const KEY_OF_ANOTHER: &str = "urn:groundstation:problem:key-of-another-request";
const KEY_OF_CONNECTED: &str = "urn:groundstation:problem:key-of-connected-satellite";

#[derive(Args)]
pub struct AgentArgs {
    /// A pod's address (http:// or https://), or the satellites' WebSocket there
    #[arg(
        long,
        env = "GROUNDSTATION_WS_URL",
        default_value = "ws://127.0.0.1:8080/api/ws/satellite"
    )]
    url: String,
    /// The satellite's id
    #[arg(long, env = "SATELLITE_CLIENT_ID", value_name = "UUID",
          required_unless_present_any = KEEPS_CREDENTIALS, conflicts_with_all = KEEPS_CREDENTIALS)]
    client_id: Option<Uuid>,
    /// The satellite's token
    #[arg(long, env = "SATELLITE_TOKEN", hide_env_values = true, value_name = "TOKEN",
          required_unless_present_any = KEEPS_CREDENTIALS, conflicts_with_all = KEEPS_CREDENTIALS)]
    token: Option<SecretString>,
    /// A file that holds id and token, of mode 0600; where there is none yet the agent enrols, and writes it [default with
    /// --enrol or --enrol-file: satellite.json]
    #[arg(long, env = "SATELLITE_CREDENTIALS", value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// The token to enrol with, of the role enrol; others on this machine can read it here
    #[arg(
        long,
        env = "GROUNDSTATION_ENROL_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        conflicts_with = "enrol_file"
    )]
    enrol: Option<SecretString>,
    /// A file that holds the token to enrol with
    #[arg(long, env = "GROUNDSTATION_ENROL_TOKEN_FILE", value_name = "FILE")]
    enrol_file: Option<PathBuf>,
    /// The name under which it enrols
    #[arg(long, env = "SATELLITE_NAME", conflicts_with = "client_id")]
    name: Option<String>,
    /// The region in which it enrols [default: that of the token]
    #[arg(long, env = "SATELLITE_REGION", conflicts_with = "client_id")]
    region: Option<String>,
    /// A tag with which it enrols, beside those of the token; may be given several times
    #[arg(long = "tag", value_name = "NAME:VALUE", conflicts_with = "client_id")]
    tags: Vec<String>,
    /// A capability that it reports; may be given several times
    #[arg(long = "capability", value_name = "WORD")]
    capabilities: Vec<String>,
    /// How often it sends a heartbeat
    #[arg(
        long,
        env = "GROUNDSTATION_HEARTBEAT_INTERVAL",
        default_value = "15s",
        value_name = "DURATION"
    )]
    heartbeat_interval: String,
}

/// Runs `groundstation agent`.
pub async fn run(args: AgentArgs) -> anyhow::Result<()> {
    let heartbeat_interval =
        units::duration("--heartbeat-interval", &args.heartbeat_interval).map_err(wrong_usage)?;
    let url = websocket(&args.url)?;
    let mut interrupted = pin!(shutdown::signal()?);
    let (id, token) = tokio::select! {
        credentials = args.credentials() => credentials?,
        () = &mut interrupted => return Ok(()),
    };
    let identity = Identity {
        url,
        id,
        token,
        heartbeat_interval,
        longest_pause: agent::LONGEST_PAUSE,
        capabilities: args.capabilities,
        from: None,
    };
    // Dropping the sender of orders makes the agent say goodbye.
    let (orders, told) = mpsc::channel(1);
    let mut orders = Some(orders);
    let mut life = pin!(agent::run(identity, told, |happening| {
        info!(?happening, "satellite");
    }));
    loop {
        tokio::select! {
            () = &mut life => return Ok(()),
            () = &mut interrupted, if orders.is_some() => orders = None,
        }
    }
}

impl AgentArgs {
    /// Those that were given or kept; or else it enrols.
    async fn credentials(&self) -> anyhow::Result<(Uuid, SecretString)> {
        if let (Some(id), Some(token)) = (self.client_id, &self.token) {
            return Ok((id, token.clone()));
        }
        let path = self.credentials.clone().unwrap_or_else(|| CREDENTIALS.into());
        let service = service(&self.url)?;
        let file = CredentialsFile::new(path, &service);
        match file.read()? {
            Some(Kept::Credentials(id, token)) => Ok((id, token)),
            begun => self.enrol(&file, &service, begun).await,
        }
    }

    async fn enrol(
        &self,
        file: &CredentialsFile,
        service: &str,
        begun: Option<Kept>,
    ) -> anyhow::Result<(Uuid, SecretString)> {
        let shown = file.path().display();
        let needed = |what: &str| {
            wrong_usage(anyhow!("there are no credentials in {shown} yet: to enrol give {what}"))
        };
        let token = match (&self.enrol, &self.enrol_file) {
            (Some(token), _) => token.clone(),
            (None, Some(file)) => token_file::read(file).map_err(wrong_usage)?,
            (None, None) => return Err(needed("--enrol-file (or --enrol)")),
        };
        let enrol = Enrol {
            name: self.name.clone().ok_or_else(|| needed("--name"))?,
            region: self.region.clone(),
            tags: tags::parse("--tag", &self.tags)?,
        };
        let client = api::client(service, token)?;
        // Before it is asked for, so that whoever begins again asks for the same one.
        let kept = begun.map_or_else(|| file.begin(), Ok)?;
        let key = match kept {
            Kept::Key(key) => key,
            Kept::Credentials(id, token) => return Ok((id, token)),
        };
        let made = until_answered(&client, &enrol, &key).await.map_err(|error| {
            let is_key = |kind: &str| [KEY_OF_ANOTHER, KEY_OF_CONNECTED].contains(&kind);
            match error.downcast_ref::<Refused>() {
                Some(refused) if is_key(&refused.kind) => {
                    let begun = format!(
                        "{shown} holds an enrolment that was begun: remove it to enrol anew"
                    );
                    error.context(begun)
                }
                _ => error,
            }
        })?;
        let (satellite, token) = (made.satellite, SecretString::from(made.token));
        file.keep(satellite.id, &token)?;
        info!(
            satellite = %satellite.id,
            name = satellite.name,
            region = satellite.region,
            file = %file.path().display(),
            "enrolled"
        );
        Ok((satellite.id, token))
    }
}

/// Asks until a pod has answered; it tries again what may succeed later.
async fn until_answered(
    client: &Client,
    enrol: &Enrol,
    key: &SecretString,
) -> anyhow::Result<Created> {
    let mut tries = 0;
    loop {
        let error = match ask(client.clone(), enrol.clone(), key.clone()).await {
            Ok(made) => return Ok(made),
            Err(error) => error,
        };
        let Some(least) = least_pause(&error) else { return Err(error) };
        // Beyond what the pod asks for, or all that were told so come at once.
        let pause = least + agent::backoff(tries, agent::LONGEST_PAUSE, fastrand::f64());
        warn!(error = %format!("{error:#}"), ?pause, "cannot enrol yet");
        tokio::time::sleep(pause).await;
        tries += 1;
    }
}

/// How long to wait at least before the same is asked again; none where that is of no use.
fn least_pause(error: &anyhow::Error) -> Option<Duration> {
    if error.is::<Unreachable>() {
        return Some(Duration::ZERO);
    }
    let refused = error.downcast_ref::<Refused>()?;
    let is_transient = refused.status == 429 || refused.status >= 500;
    is_transient.then(|| refused.retry_after.unwrap_or_default().min(LONGEST_ASKED))
}

/// A call of the client, which blocks, in a thread of its own: nobody waits for it who is told to end.
async fn ask(client: Client, enrol: Enrol, key: SecretString) -> anyhow::Result<Created> {
    let (tell, told) = oneshot::channel();
    thread::spawn(move || tell.send(client.enrol(&enrol, key.expose_secret())).ok());
    told.await.context("the call ended without an answer")?
}

/// The WebSocket of a pod at this address.
fn websocket(url: &str) -> anyhow::Result<String> {
    match url.split_once("://") {
        Some(("ws" | "wss", rest)) if !rest.is_empty() => Ok(url.to_owned()),
        // http becomes ws, and https wss.
        Some(("http" | "https", rest)) if !rest.is_empty() => {
            let rest = url.trim_end_matches('/').trim_start_matches("http");
            Ok(format!("ws{rest}{WEBSOCKET}"))
        }
        _ => Err(wrong_usage(anyhow!(
            "--url is {url:?}, it must begin with http://, https://, ws:// or wss://"
        ))),
    }
}

/// The address of a pod that has this WebSocket.
fn service(url: &str) -> anyhow::Result<String> {
    let url = url.trim_end_matches('/');
    if url.starts_with("http") {
        return Ok(url.to_owned());
    }
    let base = url.strip_suffix(WEBSOCKET).and_then(|base| base.strip_prefix("ws"));
    let base = base.map(|rest| format!("http{rest}"));
    base.ok_or_else(|| {
        wrong_usage(anyhow!(
            "--url is {url:?}: with --credentials it is a pod's address, or its WebSocket, which ends with {WEBSOCKET}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_named_by_its_address_or_by_its_websocket() {
        for (url, socket, base) in [
            ("ws://pod:8080/api/ws/satellite", "ws://pod:8080/api/ws/satellite", "http://pod:8080"),
            (
                "wss://pod/base/api/ws/satellite",
                "wss://pod/base/api/ws/satellite",
                "https://pod/base",
            ),
            ("http://pod:8080/", "ws://pod:8080/api/ws/satellite", "http://pod:8080"),
            ("https://pod/base", "wss://pod/base/api/ws/satellite", "https://pod/base"),
        ] {
            assert_eq!(websocket(url).expect("an address"), socket);
            assert_eq!(service(url).expect("an address"), base);
        }
        for wrong in ["pod:8080", "ftp://pod", "http://", "ws://"] {
            assert!(websocket(wrong).is_err(), "{wrong}");
        }
        assert!(service("ws://pod/elsewhere").is_err());
    }

    #[test]
    fn only_what_may_succeed_later_is_tried_again_and_not_before_the_pod_says() {
        let refused = |status, seconds: Option<u64>| {
            anyhow::Error::from(Refused {
                title: "t".to_owned(),
                status,
                detail: String::new(),
                kind: String::new(),
                retry_after: seconds.map(Duration::from_secs),
            })
        };
        for status in [400, 401, 403, 404, 409, 422] {
            assert_eq!(least_pause(&refused(status, Some(5))), None, "{status}");
        }
        for status in [429, 500, 502, 503, 504] {
            assert_eq!(least_pause(&refused(status, None)), Some(Duration::ZERO), "{status}");
        }
        assert_eq!(least_pause(&refused(503, Some(5))), Some(Duration::from_secs(5)));
        assert_eq!(least_pause(&refused(503, Some(86_400))), Some(LONGEST_ASKED));
        assert_eq!(least_pause(&anyhow!("the answer is odd")), None);
    }
}
