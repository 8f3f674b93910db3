//! `/console/session`: signing in with a token, asking as whom, signing out.
//!
//! A wrong token or code is answered, counted, slowed down and logged as a wrong bearer token is. Who signs in, and who is
//! refused, is in the audit.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use tracing::info;

use super::Console;
use crate::api::access::{Access, Shut};
use crate::api::caller::{Caller, Credential};
use crate::api::noted::somebody;
use crate::api::problem::Problem;
use crate::api::{authorization, cookie};
use crate::domain::access::Role;
use crate::ingress::arrival::Arrival;

/// The largest body: a token is much shorter.
pub(super) const MAX_BODY_BYTES: usize = 4 * 1024;

/// The route, for the log.
const PATH: &str = "/console/session";

/// The same for the audit: where a session is opened, and where it is asked for, which is all that a person whom a proxy
/// names does.
const ROUTE: &str = "POST /console/session";
const ROUTE_OF_SHOWN: &str = "GET /console/session";

/// Why a named token may sign nobody in.
const NO_TOKEN_OF_SETTINGS: &str = "Named tokens sign in only where the pods have GROUNDSTATION_ADMIN_TOKEN, the same on \
    each of them: it signs their sessions too.";

/// What a person signs in with: one of the two.
#[derive(Deserialize)]
pub(super) struct Given {
    token: Option<SecretString>,
    code: Option<SecretString>,
}

/// A session, as the page may know it.
#[derive(Serialize)]
struct Shown {
    role: &'static str,
    /// What the token is called, where it has a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Whether the token reaches only a part of the fleet.
    #[serde(rename = "isBounded", skip_serializing_if = "std::ops::Not::not")]
    is_bounded: bool,
    /// By whom the person is named, where it is one: `provider`, or `proxy`, with which nobody signs out here.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'static str>,
}

/// How people can sign in here, beside with a token.
#[derive(Serialize)]
pub(super) struct Ways {
    /// What the identity provider is called, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    oidc: Option<String>,
}

/// POST: opens a session.
pub(super) async fn begin(
    State(console): State<Arc<Console>>,
    Extension(arrival): Extension<Arrival>,
    headers: HeaderMap,
    given: Result<Json<Given>, JsonRejection>,
) -> Result<Response, Problem> {
    // A page of another origin could otherwise put its own session in the place of the person's.
    if headers.contains_key(header::ORIGIN) {
        authorization::check_page(&headers, &Method::POST, &arrival)?;
    }
    let Json(given) = given?;
    let access = &console.api.access;
    let known: Result<Caller, Shut> = match (&given.token, &given.code) {
        (Some(token), None) => access.of(token.expose_secret()),
        // The session is one of the first admin token, and ends with it.
        (None, Some(code)) if console.code.take(code.expose_secret()) => {
            let first = access.settings().admin.first().cloned();
            let first = first.map(|token| Credential::Setting(Role::Admin, token).into());
            first.ok_or(Shut::Unknown)
        }
        (None, Some(_)) => Err(Shut::Unknown),
        _ => return Err(Problem::invalid("Send either a token or a code.")),
    };
    let caller = match known {
        Ok(caller) => caller,
        Err(Shut::Unknown) => {
            return Err(console.api.refuse_token(&arrival, &Method::POST, PATH).await);
        }
        Err(Shut::NotKnownNow) => return Err(Problem::token_not_known_now()),
    };
    let caller = caller.at(arrival.client);
    let refused = |why: &str| {
        let with = json!({"status": 403, "why": why});
        console.api.sign_in_refused(caller.author(), ROUTE, with);
        Problem::forbidden(why)
    };
    if caller.role() == Role::Enrol {
        return Err(refused("A token for enrolment signs nobody in."));
    }
    let is_named = matches!(caller.credential(), Credential::Named(_));
    if is_named && access.settings().admin.is_empty() {
        return Err(refused(NO_TOKEN_OF_SETTINGS));
    }
    let cookies = cookies(access, &caller, &headers, arrival.is_https)?;
    let (role, name) = (caller.role().as_str(), caller.name());
    info!(address = %arrival.client, role, name, "somebody signed in at the page");
    let by = if given.code.is_some() { "code" } else { "token" };
    console.api.signed_in(&caller, ROUTE, json!({"role": role, "by": by}));
    Ok(with_cookies(cookies))
}

/// The cookies of a new session. One session at a time: it would be open which of them counts.
pub(super) fn cookies(
    access: &Access,
    caller: &Caller,
    headers: &HeaderMap,
    is_https: bool,
) -> anyhow::Result<Vec<String>> {
    let now = OffsetDateTime::now_utc();
    let new = cookie::issue(caller, access, now, is_https)?;
    let is_other = |old: &String| old.split('=').next() != new.split('=').next();
    let mut cookies = cookie::clear(headers, access, now, is_https);
    cookies.retain(is_other);
    cookies.push(new);
    Ok(cookies)
}

/// GET `/console/session/ways`: how people can sign in.
pub(super) async fn ways(State(console): State<Arc<Console>>) -> Json<Ways> {
    Json(Ways { oidc: console.oidc.as_ref().map(|oidc| oidc.name().to_owned()) })
}

/// GET: what the token of the session may do, as of now.
pub(super) async fn show(
    State(console): State<Arc<Console>>,
    Extension(arrival): Extension<Arrival>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let nobody = "Sign in: there is no session.";
    let caller = console.api.session(&headers, &arrival, nobody).inspect_err(|problem| {
        // A proxy names somebody who may not come in.
        if problem.is_forbidden() {
            let with = json!({"status": problem.code(), "why": problem.detail()});
            let author = somebody(None, arrival.client);
            console.api.sign_in_refused(author, ROUTE_OF_SHOWN, with);
        }
    })?;
    let caller = caller.at(arrival.client);
    let (role, name) = (caller.role().as_str(), caller.name().map(str::to_owned));
    let is_bounded = caller.selector().is_bounded();
    let by = match caller.credential() {
        Credential::Person(person) if person.session.is_some() => Some("provider"),
        Credential::Person(_) => {
            let with = json!({"role": role, "by": "proxy"});
            console.api.named_by_proxy(&caller, ROUTE_OF_SHOWN, with);
            Some("proxy")
        }
        Credential::Setting(..) | Credential::Named(_) => None,
    };
    Ok(Json(Shown { role, name, is_bounded, by }).into_response())
}

/// DELETE: takes the cookie away. The session of a person is over then, wherever a copy of the cookie is; where that
/// cannot be kept, the cookie stays too, so that the person can try again.
pub(super) async fn end(
    State(console): State<Arc<Console>>,
    Extension(arrival): Extension<Arrival>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    authorization::check_page(&headers, &Method::DELETE, &arrival)?;
    let (access, now) = (&console.api.access, OffsetDateTime::now_utc());
    // Before it ends: by then its cookie opens nothing, and would not be found.
    let gone = cookie::clear(&headers, access, now, arrival.is_https);
    if let Ok(caller) = cookie::caller(&headers, access, now, arrival.is_https)
        && let Credential::Person(person) = caller.credential()
    {
        access.end_session(person).await?;
        console.api.changed.tell();
    }
    Ok(with_cookies(gone))
}

fn with_cookies(cookies: Vec<String>) -> Response {
    let set = cookies.into_iter().map(|cookie| (header::SET_COOKIE, cookie));
    (StatusCode::NO_CONTENT, AppendHeaders(set)).into_response()
}
