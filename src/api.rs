//! Reads and administration over HTTP, and the same reads over NATS ([`micro`]), by the same functions.
//!
//! `/livez`, `/readyz`, `/metrics`, `/openapi.json` and `/asyncapi.json` are open ([`ops_routes`]). Everything under
//! `/v1` wants a bearer token, or the cookie of a session of the page ([`authorization`]): of the settings, or a named one
//! ([`access`]), or of a person ([`person`]). What each may do is in [`rights`]. A route of `/v1` refuses parameters that
//! it does not describe ([`query`]). Errors are RFC 9457 problems.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, header};
use axum::middleware;
use axum::response::Response;
use axum::routing::{delete, get, post};

use crate::ingress::listener::Door;
use crate::log::append::Log;
use crate::log::audit::notices::Notices;
use crate::platform::database::Database;
use crate::platform::health::Health;
use crate::platform::log_gate::LogGate;
use crate::platform::metrics::Metrics;
use crate::sessions::changes::Changed;

pub(crate) mod access;
mod assignment_sets;
mod assignments;
pub mod asyncapi;
mod audit;
pub(crate) mod authorization;
pub(crate) mod caller;
mod conditions;
pub(crate) mod cookie;
mod discovery;
mod ending;
pub(crate) mod enrolment;
mod fleet;
mod late_body;
pub(crate) mod live;
mod maintenance;
pub(crate) mod micro;
pub(crate) mod noted;
pub mod openapi;
mod page;
mod paging;
mod parameters;
mod past;
pub(crate) mod people;
pub(crate) mod person;
pub(crate) mod problem;
mod query;
mod rights;
mod satellites;
mod selection;
mod status;
mod stream;
mod token;
mod tokens;
mod traced;
mod transitions;
mod triggers;
pub(crate) mod trusted_headers;
mod what_if;

use access::Access;
use enrolment::Enrolments;
use live::Streams;
pub use problem::no_route;

/// The largest body of a request.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// How long a call may wait for the log before it is answered 503.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the answer to a wrong token is delayed if too many came from its address lately.
const SLOWED: Duration = Duration::from_secs(1);

/// What the routes need.
pub struct Api {
    /// For changes by administrators: a bounded share of the log's own connections.
    pub writes: Database,
    /// For satellites that register themselves.
    pub enrolments: Enrolments,
    /// For reads.
    pub reads: Database,
    /// For reads that look at many rows.
    pub scans: Database,
    /// For removals and ends of sessions.
    pub log: Log,
    /// The tokens and their rights.
    pub access: Arc<Access>,
    /// Counts wrong tokens by address.
    pub door: Arc<Door>,
    /// Sign-ins and refusals on their way into the audit.
    pub notices: Arc<Notices>,
    /// Limits the log lines about wrong tokens.
    pub wrong_tokens: LogGate,
    /// The default offline threshold.
    pub default_threshold: Duration,
    /// How far the last heartbeat of an online satellite may be out.
    pub vouch_window: Duration,
    /// What `/readyz` reports.
    pub health: Arc<Health>,
    /// Makes pods look for changes.
    pub changed: Changed,
    /// What `/metrics` reports.
    pub metrics: Metrics,
    /// The live streams of this pod.
    pub streams: Arc<Streams>,
}

/// The open routes, for operators. They ignore all parameters: a load balancer or a collector may add some, no parameter
/// could change the answer, and a pod whose probe is refused is taken out of service.
pub fn ops_routes(api: Arc<Api>) -> Router {
    Router::new()
        .route("/livez", get(status::live))
        .route("/readyz", get(status::ready))
        .route("/metrics", get(status::metrics))
        .route("/openapi.json", get(openapi::document))
        .route("/asyncapi.json", get(asyncapi::get))
        .method_not_allowed_fallback(problem::no_method)
        .with_state(api)
}

/// All other routes but the satellites' own.
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
        .route("/satellites/{id}/assignments/effective", get(assignments::show_effective))
        .route("/assignment-sets", get(assignment_sets::list))
        .route(
            "/assignment-sets/{name}",
            get(assignment_sets::get)
                .put(assignment_sets::replace)
                .delete(assignment_sets::remove)
                .layer(DefaultBodyLimit::max(assignments::MAX_BODY_BYTES)),
        )
        .route("/enrol", post(enrolment::enrol))
        .route("/satellites/{id}/token", post(token::rotate))
        .route("/satellites/{id}/kick", post(ending::kick))
        .route("/satellites/{id}/disable", post(ending::disable))
        .route("/satellites/{id}/enable", post(ending::enable))
        .route("/satellites/{id}/stats", get(past::stats))
        .route("/satellites/{id}/transitions", get(transitions::of_satellite))
        .route("/transitions", get(transitions::all))
        .route("/transitions/stream", get(stream::follow))
        .route("/fleet", get(fleet::count))
        .route("/fleet/timeline", get(fleet::show_timeline))
        .route("/intervals", get(fleet::show_intervals))
        .route("/what-if", get(what_if::show))
        .route("/maintenance", get(maintenance::list).post(maintenance::plan))
        .route("/maintenance/{id}", delete(maintenance::end))
        .route("/prometheus/sd", get(discovery::targets))
        .route("/triggers", get(triggers::list))
        .route("/audit", get(audit::read))
        .route("/audit/stream", get(audit::stream::follow))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{id}", delete(tokens::revoke))
        .route_layer(middleware::from_fn(traced::follow))
        .route_layer(middleware::from_fn(query::check))
        .route_layer(middleware::from_fn_with_state(api.clone(), authorization::authorize))
        .layer(middleware::map_response(not_to_be_stored));
    Router::new()
        .nest("/v1", v1)
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(api)
}

/// Forbids storing an answer: it is true at this moment and for this caller only.
pub(crate) async fn not_to_be_stored(mut response: Response) -> Response {
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    response
}
