//! `/openapi.json`: what the routes take and answer, from their own types.
//!
//! Each route describes itself where it is written; here is what all of them have in common: the
//! bearer token, and the problems that any of them may answer.

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::problem::{PROBLEM_JSON, ProblemJson};
use super::{
    assignment_sets, assignments, asyncapi, audit, discovery, ending, enrolment, fleet,
    maintenance, past, satellites, status, stream, token, tokens, transitions, triggers, what_if,
};
use crate::contract::audit::AuditEntryJson;
use crate::contract::wire::TransitionJson;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Groundstation",
        description = "Who of a fleet of remote agents is connected, who left and who went silent."
    ),
    paths(
        status::live,
        status::ready,
        status::metrics,
        document,
        satellites::list,
        satellites::create,
        satellites::get,
        satellites::change,
        satellites::remove,
        enrolment::enrol,
        token::rotate,
        ending::kick,
        ending::disable,
        ending::enable,
        assignments::get,
        assignments::replace,
        assignments::show_effective,
        assignment_sets::list,
        assignment_sets::get,
        assignment_sets::replace,
        assignment_sets::remove,
        past::stats,
        fleet::count,
        fleet::show_timeline,
        fleet::show_intervals,
        what_if::show,
        maintenance::list,
        maintenance::plan,
        maintenance::end,
        discovery::targets,
        transitions::of_satellite,
        transitions::all,
        stream::follow,
        triggers::list,
        audit::read,
        audit::stream::follow,
        tokens::list,
        tokens::create,
        tokens::revoke,
        asyncapi::get,
    ),
    components(schemas(ProblemJson, TransitionJson, AuditEntryJson)),
    security(("bearer" = [])),
    modifiers(&InCommon)
)]
struct Document;

/// This document
#[utoipa::path(get, operation_id = "readOpenapi", path = "/openapi.json", tag = "pod", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
pub async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone())
}

/// Written once: it is large, and open to everybody.
static DOCUMENT: LazyLock<Bytes> =
    LazyLock::new(|| api().to_json().map(Bytes::from).unwrap_or_default());

/// What `/openapi.json` says.
pub fn api() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// The file that is checked in, by its name in `schema/`, with its text.
pub fn file() -> (&'static str, String) {
    let text = api().to_pretty_json().unwrap_or_default();
    ("openapi.json", text + "\n")
}

/// What any route under `/v1` may answer.
const OF_ALL: [(&str, &str); 6] = [
    ("400", "The body is no JSON, or there is no such parameter; the detail names the nearest"),
    ("401", "No token, or one that is not valid here"),
    ("403", "The token may not do this, or not to this satellite"),
    ("404", "There is no such satellite, for this token, or nothing is known of it"),
    ("422", "A field, parameter or header breaks its limit; the detail names both"),
    ("503", "The database does not answer; try again"),
];

/// What one that changes something may answer besides.
const OF_WRITES: [(&str, &str); 2] =
    [("413", "The body is too large"), ("415", "The body is not said to be JSON")];

struct InCommon;

impl Modify for InCommon {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        if let Some(components) = &mut document.components {
            components.add_security_scheme("bearer", bearer);
        }
        for (path, item) in &mut document.paths.paths {
            if !path.starts_with("/v1/") {
                continue;
            }
            let PathItem { get, put, post, patch, delete, .. } = item;
            for operation in [&mut *get, put, post, patch, delete].into_iter().flatten() {
                add(operation, &OF_ALL);
            }
            for operation in [put, post, patch, delete].into_iter().flatten() {
                add(operation, &OF_WRITES);
            }
        }
    }
}

fn add(operation: &mut Operation, problems: &[(&str, &str)]) {
    for (status, description) in problems {
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new().description(*description);
        let response = RefOr::T(response.content(PROBLEM_JSON, problem).build());
        operation.responses.responses.entry((*status).to_owned()).or_insert(response);
    }
}
