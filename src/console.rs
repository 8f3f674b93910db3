//! The page at `/console/`: its files, which are in the program, and its sessions.
//!
//! A person signs in once, with a token ([`session`]) or at an identity provider ([`oidc`]), and gets a cookie; what the
//! page asks for is the API's. No script, style or connection but the server's own is allowed to it. Its routes belong to
//! the page and not to the API, so `/openapi.json` does not have them.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, Path};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

use crate::api::problem::Problem;
use crate::api::{self, Api, problem};

pub mod code;
pub mod files;
pub mod oidc;
mod session;

use code::{Code, OneTime};
use files::Files;
use oidc::Oidc;

/// Where the page is.
const HOME: &str = "/console/";

/// What a browser may do on behalf of the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; font-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'self'; \
    frame-ancestors 'none'";

/// The headers of every answer here.
const HEADERS: [(HeaderName, &str); 3] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// What the routes need.
struct Console {
    api: Arc<Api>,
    code: OneTime,
    oidc: Option<Oidc>,
}

/// The routes. `code` signs in once, where there is one; `provider` signs people in, where one is configured.
pub fn routes(
    api: Arc<Api>,
    code: Option<Code>,
    provider: Option<oidc::settings::Settings>,
) -> anyhow::Result<Router> {
    let sessions = Router::new()
        .route("/console/session", get(session::show).post(session::begin).delete(session::end))
        .route("/console/session/ways", get(session::ways))
        .route("/console/session/oidc", get(oidc::begin))
        .route(oidc::settings::CALLBACK, get(oidc::finish))
        .layer(DefaultBodyLimit::max(session::MAX_BODY_BYTES))
        .layer(middleware::map_response(api::not_to_be_stored));
    let oidc = provider.map(|provider| Oidc::new(provider, api.metrics.clone())).transpose()?;
    Ok(Router::new()
        .route("/", get(home))
        .route("/console", get(home))
        .route("/console/", get(index))
        .merge(sessions)
        .route("/console/{*path}", get(file))
        .method_not_allowed_fallback(problem::no_method)
        .layer(middleware::map_response(with_headers))
        .with_state(Arc::new(Console { api, code: OneTime::new(code), oidc })))
}

async fn with_headers(mut response: Response) -> Response {
    let headers = HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value)));
    response.headers_mut().extend(headers);
    response
}

/// Always to the same place: what the request says has no part in it.
async fn home() -> Redirect {
    Redirect::to(HOME)
}

async fn index(headers: HeaderMap) -> Response {
    Files::embedded().answer("", &headers)
}

async fn file(path: Result<Path<String>, PathRejection>, headers: HeaderMap) -> Response {
    match path {
        Ok(Path(path)) => Files::embedded().answer(&path, &headers),
        // Bytes that are no text name nothing.
        Err(_) => Problem::no_route().into_response(),
    }
}
