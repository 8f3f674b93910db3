//! Who calls: by a bearer token, by the cookie of a session of the page, or as an authenticating proxy says
//! ([`super::trusted_headers`]). What it may do then is in [`rights`].
//!
//! A bearer token counts alone where there is one, and a session before a proxy's word. A browser adds the cookie to
//! whatever any page asks for, and a proxy its headers, so with both a request must also come from the server's own page:
//! `Sec-Fetch-Site` where the browser says it, and `Origin` for whatever changes something.
//!
//! Whoever is refused is in the audit: a token that is not valid here, and a caller that may not do what it asks for.

use std::sync::Arc;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{Extension, MatchedPath, RawPathParams, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::access::Shut;
use super::caller::{Caller, Credential};
use super::problem::Problem;
use super::{Api, SLOWED, cookie, late_body, rights};
use crate::contract::audit::AuditAction;
use crate::ingress::arrival::Arrival;
use crate::log::audit::Author;

/// Says how a browser's request relates to the page that made it. Old browsers, and all without TLS, do not send it.
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Lets a request through if its token, or its session, allows what it asks for, and tells its route the caller.
pub async fn authorize(
    State(api): State<Arc<Api>>,
    Extension(arrival): Extension<Arrival>,
    path: MatchedPath,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (headers, method, path) = (request.headers(), request.method().clone(), path.as_str());
    let refused = |author: Author, problem: Problem| {
        let with = json!({"status": problem.code(), "why": problem.detail()});
        api.notices.refused(author, AuditAction::ApiRefused, &format!("{method} {path}"), with);
        problem
    };
    let caller = match bearer(headers)? {
        Some(token) => match api.access.of(token) {
            Ok(caller) => caller,
            Err(Shut::Unknown) => {
                return Err(api.refuse_token(&arrival, &method, path).await);
            }
            Err(Shut::NotKnownNow) => return Err(Problem::token_not_known_now()),
        },
        None => {
            let nobody = "Send the header Authorization: Bearer <token>.";
            api.session(headers, &arrival, nobody).map_err(|problem| {
                // A proxy names somebody who may not come in. Who names nobody tries nothing.
                match problem.is_forbidden() {
                    true => refused(Author::unknown_at(arrival.client), problem),
                    false => problem,
                }
            })?
        }
    };
    let caller = caller.at(arrival.client);
    let author = caller.author();
    if bearer(headers)?.is_none() {
        let may = check_page(headers, &method, &arrival);
        may.map_err(|problem| refused(author.clone(), problem))?;
    }
    rights::check(&caller, &method, path).map_err(|problem| refused(author.clone(), problem))?;
    rights::reach(&api, &caller, path, parameters.as_ref().ok()).await?;
    let (mut request, ended) = late_body::watch(request, api.access.clone(), caller.clone());
    request.extensions_mut().insert(caller);
    let answer = next.run(request).await;
    if ended.is_void() {
        return Err(refused(author, Problem::token_ended()));
    }
    if answer.status() == StatusCode::FORBIDDEN {
        let with = json!({"status": answer.status().as_u16()});
        api.notices.refused(author, AuditAction::ApiRefused, &format!("{method} {path}"), with);
    }
    Ok(answer)
}

/// The bearer token of a request, if it has one.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (first, second) = (given.next(), given.next());
    if second.is_some() {
        // Nobody knows which of them a proxy has looked at.
        return Err(Problem::header_twice("Authorization"));
    }
    let value = first.and_then(|value| value.to_str().ok());
    let pair = value.and_then(|value| value.split_once(' '));
    Ok(pair
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim()))
}

impl Api {
    /// The caller whose session of the page a request belongs to, or whom a proxy names; `nobody` tells what to do where
    /// there is none.
    pub fn session(
        &self,
        headers: &HeaderMap,
        arrival: &Arrival,
        nobody: &str,
    ) -> Result<Caller, Problem> {
        let now = OffsetDateTime::now_utc();
        match cookie::caller(headers, &self.access, now, arrival.is_https) {
            Ok(caller) => Ok(caller),
            Err(Shut::NotKnownNow) => Err(Problem::token_not_known_now()),
            Err(Shut::Unknown) => {
                self.proxied(headers, arrival)?.ok_or_else(|| Problem::unauthorized(nobody))
            }
        }
    }

    /// The person whom a proxy names, if it may.
    fn proxied(&self, headers: &HeaderMap, arrival: &Arrival) -> Result<Option<Caller>, Problem> {
        let people = self.access.people();
        let Some(trusted) = &people.headers else { return Ok(None) };
        if !self.door.settings().proxies.trust(arrival.peer) {
            return Ok(None);
        }
        let person = trusted.person(headers, &people.groups)?;
        Ok(person.map(|person| Credential::Person(person.into()).into()))
    }

    /// Counts a wrong token, notes it for the audit, logs it, and delays the answer if too many came from there lately.
    pub async fn refuse_token(&self, arrival: &Arrival, method: &Method, path: &str) -> Problem {
        self.metrics.wrong_tokens.inc();
        let address = arrival.client;
        // Before the delay: whoever hangs up meanwhile was refused too.
        let (author, route) = (Author::unknown_at(address), format!("{method} {path}"));
        let action = match path.starts_with("/v1/") {
            true => AuditAction::ApiRefused,
            false => AuditAction::PageSignInRefused,
        };
        self.notices.refused(author, action, &route, json!({"status": 401}));
        if let Some(left_out) = self.wrong_tokens.pass(Instant::now()) {
            warn!(%address, %method, path, left_out, "a token came that is not valid here");
        }
        if !self.door.wrong_token(address) {
            sleep(SLOWED).await;
        }
        Problem::unauthorized(
            "The token is not valid here: send one of those in this pod's GROUNDSTATION_ADMIN_TOKEN or, \
             to read, in its GROUNDSTATION_READ_TOKEN, or one that POST /v1/tokens has made.",
        )
    }
}

/// Refuses a request that a browser makes with the cookie but not for this server's own page.
pub fn check_page(headers: &HeaderMap, method: &Method, arrival: &Arrival) -> Result<(), Problem> {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    // `none`: the person asked for it, by the address bar or a bookmark.
    if !sites.all(|site| site == "same-origin" || site == "none") {
        return Err(Problem::foreign_page("The request was made by a page of another origin."));
    }
    if rights::is_look(method) || is_own_origin(headers, arrival) {
        return Ok(());
    }
    Err(Problem::foreign_page(
        "Without a token the header Origin must be there once and name the host that the request is for \
         (a proxy must pass Host on). Programs send Authorization: Bearer <token> instead.",
    ))
}

/// Whether the one `Origin` is the host that the request is for. Where the client spoke TLS, so did its page.
fn is_own_origin(headers: &HeaderMap, arrival: &Arrival) -> bool {
    let one = |name| {
        let mut values = headers.get_all(name).iter();
        let first: Option<&str> = values.next().and_then(|value| value.to_str().ok());
        first.filter(|_| values.next().is_none())
    };
    let (Some(origin), Some(host)) = (one(header::ORIGIN), one(header::HOST)) else { return false };
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let port = match scheme {
        "https" => ":443",
        "http" if !arrival.is_https => ":80",
        _ => return false,
    };
    // Browsers leave the scheme's own port out; some proxies add it.
    let bare = |text: &str| text.strip_suffix(port).unwrap_or(text).to_ascii_lowercase();
    !host.is_empty() && bare(authority) == bare(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn arrival(is_https: bool) -> Arrival {
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        Arrival { peer: address, client: address, is_https, deadline: Instant::now() }
    }

    fn is_let_in(method: &Method, is_https: bool, lines: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let value = HeaderValue::from_str(value).expect("a value");
            headers.append(HeaderName::from_static(name), value);
        }
        check_page(&headers, method, &arrival(is_https)).is_ok()
    }

    #[test]
    fn a_write_with_the_cookie_names_its_own_host_as_origin() {
        let cases: [(&str, &str, bool, bool); 13] = [
            ("http://pod:8080", "pod:8080", false, true),
            ("http://POD:8080", "pod:8080", false, true),
            ("http://pod", "pod:80", false, true),
            ("https://pod", "pod:443", true, true),
            ("https://pod", "pod", false, true),
            ("http://pod", "pod", true, false),
            ("http://pod:8081", "pod:8080", false, false),
            ("http://pod.evil", "pod", false, false),
            ("http://evil", "pod", false, false),
            ("http://pod@evil", "pod", false, false),
            ("null", "pod", false, false),
            ("http://", "", false, false),
            ("ftp://pod", "pod", false, false),
        ];
        for (origin, host, is_https, expected) in cases {
            let lines = [("origin", origin), ("host", host)];
            assert_eq!(is_let_in(&Method::POST, is_https, &lines), expected, "{origin} {host}");
        }
        assert!(!is_let_in(&Method::DELETE, false, &[("host", "pod")]));
        let twice = [("host", "pod"), ("origin", "http://pod"), ("origin", "http://evil")];
        assert!(!is_let_in(&Method::PUT, false, &twice));
    }

    #[test]
    fn what_a_browser_says_of_another_page_is_believed_for_reads_too() {
        let own = [("host", "pod"), ("origin", "http://pod")];
        for (site, expected) in
            [("same-origin", true), ("none", true), ("same-site", false), ("cross-site", false)]
        {
            let lines = [own[0], own[1], ("sec-fetch-site", site)];
            assert_eq!(is_let_in(&Method::GET, false, &lines), expected, "{site}");
            assert_eq!(is_let_in(&Method::PATCH, false, &lines), expected, "{site}");
        }
        assert!(is_let_in(&Method::GET, false, &[("host", "pod")]));
    }
}
