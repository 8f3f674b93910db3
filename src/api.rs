//! Asking and administering over HTTP, and asking over NATS ([`micro`]), by the same functions.
//!
//! `/livez`, `/readyz`, `/metrics`, `/openapi.json` and `/asyncapi.json` are open; everything under `/v1`
//! wants a bearer token: the admin token may do all, the read token only GET. Errors are RFC 9457 problems.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};

use crate::changes::Changed;
use crate::config::Access;
use crate::database::Database;
use crate::health::Health;
use crate::log::append::Log;
use crate::metrics::Metrics;

mod assignments;
pub mod asyncapi;
mod conditions;
pub mod micro;
mod openapi;
mod parameters;
mod past;
mod problem;
mod satellites;
mod status;
pub mod stream;
mod token;
mod traced;
mod transitions;
mod triggers;

use problem::Problem;
use stream::Streams;

/// The largest body of a request.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// How long a call may wait for the log before it is answered 503.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);

/// What the routes need.
pub struct Api {
    /// Where administrators change the fleet: a lane of the log's own connections.
    pub writes: Database,
    /// Where everybody else looks.
    pub reads: Database,
    /// The same, for what looks at many rows.
    pub scans: Database,
    /// Where removals go.
    pub log: Log,
    /// Who may do what.
    pub access: Access,
    /// The default offline threshold.
    pub default_threshold: Duration,
    /// What `/readyz` tells.
    pub health: Arc<Health>,
    /// Makes pods look at what was changed.
    pub changed: Changed,
    /// What `/metrics` tells.
    pub metrics: Metrics,
    /// The live streams of this pod.
    pub streams: Arc<Streams>,
}

/// All routes but the satellites' own.
pub fn routes(api: Arc<Api>) -> Router {
    let v1 = Router::new()
        .route("/satellites", get(satellites::list).post(satellites::create))
        .route(
            "/satellites/{id}",
            get(satellites::get).patch(satellites::change).delete(satellites::remove),
        )
        .route(
            "/satellites/{id}/assignments",
            get(assignments::get)
                .put(assignments::replace)
                .layer(DefaultBodyLimit::max(assignments::MAX_BODY_BYTES)),
        )
        .route("/satellites/{id}/token", post(token::rotate))
        .route("/satellites/{id}/stats", get(past::stats))
        .route("/satellites/{id}/transitions", get(transitions::of_satellite))
        .route("/transitions", get(transitions::all))
        .route("/transitions/stream", get(stream::follow))
        .route("/triggers", get(triggers::list))
        .route_layer(middleware::from_fn(traced::follow))
        .route_layer(middleware::from_fn_with_state(api.clone(), authorize));
    Router::new()
        .route("/livez", get(status::live))
        .route("/readyz", get(status::ready))
        .route("/metrics", get(status::metrics))
        .route("/openapi.json", get(openapi::document))
        .route("/asyncapi.json", get(asyncapi::get))
        .nest("/v1", v1)
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(api)
}

/// Lets a request through if its token allows the method.
async fn authorize(
    State(api): State<Arc<Api>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let token = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    let Some(token) = token else {
        return Err(Problem::unauthorized("Send the header Authorization: Bearer <token>."));
    };
    // All are compared in any case: the time tells nothing.
    let (admin, read) = (api.access.admin.matches(token), api.access.read.matches(token));
    if admin || (read && request.method() == Method::GET) {
        return Ok(next.run(request).await);
    }
    if read {
        return Err(Problem::forbidden("The read token may only GET; use the admin token."));
    }
    Err(Problem::unauthorized(
        "The token is not valid here: send one of those in this pod's GROUNDSTATION_ADMIN_TOKEN or, \
         to read, in its GROUNDSTATION_READ_TOKEN.",
    ))
}
