//! Errors as RFC 9457 problems, each with a stable type.

use std::sync::LazyLock;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;
use tracing::error;

use crate::domain::access::Outside;
use crate::ingress::listener::REFUSALS_TOLD;
use crate::ingress::problem;
pub use crate::ingress::problem::{PROBLEM_JSON, ProblemJson, no_method};
use crate::log::history::NoAnswer;
use crate::platform::database::Failed;
use crate::platform::log_gate::LogGate;
use crate::registry::maintenance::MAX_WINDOWS;
use crate::registry::satellites::Invalid;
use crate::registry::tokens::MAX_TOKENS;

/// What went wrong, for the caller.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    /// The last part of the type's URN; callers branch on it.
    kind: &'static str,
    title: &'static str,
    detail: String,
    /// Which field of the body, or which parameter, is wrong, where one is.
    path: Option<String>,
    /// When to try again, in seconds, where that helps.
    retry_after: u16,
}

/// When a request is sent again that may succeed then.
const AGAIN_AFTER: u16 = 1;

/// The same for an enrolment: thousands may have been told so.
const ENROL_AGAIN_AFTER: u16 = 5;

impl Problem {
    /// 401.
    pub fn unauthorized(detail: &str) -> Problem {
        Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "Who are you?", detail)
    }

    /// 403.
    pub fn forbidden(detail: &str) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail)
    }

    /// 403, for a satellite that would be outside of what the caller's token reaches.
    pub fn outside(outside: Outside<'_>) -> Problem {
        Problem::outside_in("", outside)
    }

    /// The same for what is said in this part of a body.
    pub fn outside_in(part: &str, outside: Outside<'_>) -> Problem {
        let (field, rule) = match outside {
            Outside::Region(region) => (format!("{part}region"), format!("must be {region:?}")),
            Outside::Tag(name, value) => {
                (format!("{part}tags.{name}"), format!("must be {value:?}"))
            }
        };
        let detail = format!("{field} {rule}: your token reaches no other satellites.");
        let problem = Problem::new(
            StatusCode::FORBIDDEN,
            "outside-of-selector",
            "Not within your reach",
            detail,
        );
        Problem { path: Some(field), ..problem }
    }

    /// 403, for a request with a session's cookie that another page may have made.
    pub fn foreign_page(detail: &str) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, "foreign-page", "Not from this page", detail)
    }

    /// 404, for a path that does not exist.
    pub fn no_route() -> Problem {
        let detail = "There is no such route; /openapi.json names those there are.";
        Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// 404, for a satellite.
    pub fn no_satellite(id: &str) -> Problem {
        let detail =
            format!("There is no satellite {id}; GET /v1/satellites lists those there are.");
        Problem::new(StatusCode::NOT_FOUND, "unknown-satellite", "Unknown satellite", detail)
    }

    /// 404, for a satellite without a single transition.
    pub fn no_history(id: &str) -> Problem {
        let detail = format!(
            "Satellite {id} has never connected: it has no history. Ask again once it has connected."
        );
        Problem::new(StatusCode::NOT_FOUND, "no-history", "No history", detail)
    }

    /// 404, for a named token.
    pub fn no_token(id: &str) -> Problem {
        let detail = format!("There is no token {id}; GET /v1/tokens lists those there are.");
        Problem::new(StatusCode::NOT_FOUND, "unknown-token", "Unknown token", detail)
    }

    /// 404, for a maintenance window.
    pub fn no_window(id: &str) -> Problem {
        let detail = format!(
            "There is no maintenance window {id:?}; GET /v1/maintenance lists those that your token is told of."
        );
        let (status, kind) = (StatusCode::NOT_FOUND, "unknown-maintenance");
        Problem::new(status, kind, "Unknown maintenance window", detail)
    }

    /// 409, where there are as many maintenance windows as there may be.
    pub fn too_many_windows() -> Problem {
        let detail = format!(
            "{MAX_WINDOWS} maintenance windows are planned or open, which is the most; end some first, or plan fewer for more satellites each."
        );
        let kind = "too-many-maintenance-windows";
        Problem::new(StatusCode::CONFLICT, kind, "Too many maintenance windows", detail)
    }

    /// 404, for a set of assignments.
    pub fn no_assignment_set(name: &str) -> Problem {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(100).collect();
        let detail = format!(
            "There is no set {shown:?}; GET /v1/assignment-sets lists those that your token reaches."
        );
        let (status, kind) = (StatusCode::NOT_FOUND, "unknown-assignment-set");
        Problem::new(status, kind, "Unknown set", detail)
    }

    /// 409, for a set that would be called as one is that the caller does not reach.
    pub fn set_name_taken() -> Problem {
        let detail =
            "Another set is called so, which your token does not reach; choose another name.";
        let (status, kind) = (StatusCode::CONFLICT, "assignment-set-name-taken");
        let problem = Problem::new(status, kind, "Name taken", detail);
        Problem { path: Some("name".to_owned()), ..problem }
    }

    /// 409, for a token that would be called as another is.
    pub fn token_name_taken() -> Problem {
        let detail = "Another token is called so; choose another name, or revoke that one first.";
        let problem = Problem::new(StatusCode::CONFLICT, "token-name-taken", "Name taken", detail);
        Problem { path: Some("name".to_owned()), ..problem }
    }

    /// 409, where there are as many tokens as there may be.
    pub fn too_many_tokens() -> Problem {
        let detail = format!(
            "There are {MAX_TOKENS} tokens, which is the most; revoke some first, such as those that have expired."
        );
        Problem::new(StatusCode::CONFLICT, "too-many-tokens", "Too many tokens", detail)
    }

    /// 409, for a key whose satellite is gone.
    pub fn key_of_removed(id: &str) -> Problem {
        let detail = format!(
            "This Idempotency-Key registered satellite {id}, which has been removed; \
             send another key to register a new one."
        );
        Problem::new(StatusCode::CONFLICT, "key-of-removed-satellite", "Key already used", detail)
    }

    /// 409, for a key of an enrolment that gives nothing out any more.
    pub fn key_of_connected(id: &str) -> Problem {
        let detail = format!(
            "This Idempotency-Key enrolled satellite {id}, which has connected since, or has another token by now: \
             send another key to enrol a new one."
        );
        Problem::new(StatusCode::CONFLICT, "key-of-connected-satellite", "Key already used", detail)
    }

    /// 401, for a token that was revoked, or over, when it was to be used.
    pub fn token_ended() -> Problem {
        Problem::unauthorized("The token was revoked, or is over.")
    }

    /// 403, for a token that has registered as many satellites as it may.
    pub fn token_used_up(name: &str) -> Problem {
        let detail = format!(
            "The token {name:?} has registered as many satellites as it may; an administrator makes another one."
        );
        Problem::new(StatusCode::FORBIDDEN, "token-used-up", "Token used up", detail)
    }

    /// 403, for an agent that chose a region or tags for which there is a set of assignments.
    pub fn chosen_set() -> Problem {
        let detail = "There is a set of assignments for this region and these tags: whoever enrols is in it only if its token \
                      for enrolment names them. An administrator makes such a token.";
        Problem::new(StatusCode::FORBIDDEN, "chosen-set", "Not allowed", detail)
    }

    /// 503, for an enrolment whose turn did not come.
    pub fn enrolments_busy() -> Problem {
        let detail =
            "This pod enrols as many satellites at once as it can; try again, or another pod.";
        let (status, kind) = (StatusCode::SERVICE_UNAVAILABLE, "busy");
        Problem { retry_after: ENROL_AGAIN_AFTER, ..Problem::new(status, kind, "Busy", detail) }
    }

    /// 422, for a key that was used for something else.
    pub fn key_of_another() -> Problem {
        let detail = "This Idempotency-Key was used for a registration with another body; \
                      send that body again, or another key.";
        let (status, kind) = (StatusCode::UNPROCESSABLE_ENTITY, "key-of-another-request");
        Problem::new(status, kind, "Key already used", detail)
    }

    /// 429, where as many keys as are kept were used within a day.
    pub fn too_many_keys() -> Problem {
        let detail = "As many Idempotency-Keys as are kept were used within a day; \
                      register without one, or wait until the oldest have expired.";
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-keys", "Too many keys", detail)
    }

    /// 412, where something was changed by somebody else.
    pub fn changed_meanwhile() -> Problem {
        let detail = "It was changed since you read it. GET it again, make your change to what is \
                      there now, and send that with its ETag as If-Match.";
        let (status, kind) = (StatusCode::PRECONDITION_FAILED, "changed-meanwhile");
        Problem::new(status, kind, "Changed meanwhile", detail)
    }

    /// 422, for a position that the log has not reached.
    pub fn ahead_of_log(after: i64, head: i64) -> Problem {
        Problem::ahead_of("Ahead of the log", ["log", "log"], after, head)
    }

    /// 422, for a position that the audit does not have.
    pub fn ahead_of_audit(after: i64, head: i64) -> Problem {
        Problem::ahead_of("Ahead of the audit", ["audit", "one"], after, head)
    }

    fn ahead_of(title: &'static str, [what, other]: [&str; 2], after: i64, head: i64) -> Problem {
        let detail = format!(
            "The {what} ends at position {head}, so nothing can go on behind {after}: it is of another \
             {other}, or of this one before it was restored to an earlier point."
        );
        let (status, kind) = (StatusCode::UNPROCESSABLE_ENTITY, "ahead-of-log");
        Problem::new(status, kind, title, detail)
    }

    /// 503, where as many streams are open as this pod takes.
    pub fn too_many_streams() -> Problem {
        let detail =
            "This pod has as many live streams open as it takes; try again, or another pod.";
        let (status, kind) = (StatusCode::SERVICE_UNAVAILABLE, "too-many-streams");
        Problem::new(status, kind, "Too many streams", detail)
    }

    /// 503, for a read whose turn did not come.
    pub fn busy() -> Problem {
        let detail =
            "This pod answers as many questions at once as it can; try again, or another pod.";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Busy", detail)
    }

    /// 422, for a field or parameter that breaks its limit.
    pub fn invalid(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "Invalid request", detail)
    }

    /// 422, for a parameter that breaks its rule, which is the end of a sentence.
    pub fn wrong_parameter(name: &str, rule: &str) -> Problem {
        Problem { path: Some(name.to_owned()), ..Problem::invalid(format!("{name} {rule}.")) }
    }

    /// 400, for a parameter that the route does not know: it would have answered another question.
    pub fn unknown_parameter(name: &str, known: &[&str]) -> Problem {
        let likeness = |known: &&&str| strsim::jaro_winkler(name, known);
        let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let detail = match nearest {
            Some(nearest) => format!(
                "This route has no parameter {name:?}; the nearest it knows is {nearest:?}, and all are: {}.",
                known.join(", ")
            ),
            None => format!("This route has no parameter {name:?}: it takes none."),
        };
        let (status, kind) = (StatusCode::BAD_REQUEST, "unknown-parameter");
        let problem = Problem::new(status, kind, "Unknown parameter", detail);
        Problem { path: Some(name.to_owned()), ..problem }
    }

    /// 400, for a parameter that the route knows of the present only.
    pub fn not_of_the_past(name: &str, why: &str) -> Problem {
        let detail = format!("{name} does not go with at and position: {why}.");
        let (status, kind) = (StatusCode::BAD_REQUEST, "not-of-the-past");
        let problem = Problem::new(status, kind, "Not known of the past", detail);
        Problem { path: Some(name.to_owned()), ..problem }
    }

    /// 400, for a parameter that comes more than once.
    pub fn parameter_twice(name: &str) -> Problem {
        let detail = format!("The parameter {name:?} comes more than once: send it once.");
        let (status, kind) = (StatusCode::BAD_REQUEST, "parameter-twice");
        let problem = Problem::new(status, kind, "Parameter given twice", detail);
        Problem { path: Some(name.to_owned()), ..problem }
    }

    /// 400, for a header that comes more than once and must not.
    pub fn header_twice(name: &str) -> Problem {
        let detail = format!("The header {name} comes more than once: send it once.");
        Problem::new(StatusCode::BAD_REQUEST, "header-twice", "Header given twice", detail)
    }

    /// 413, for a question or an answer that is larger than what it travels on allows.
    pub fn too_large(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large", detail)
    }

    /// 400, for a body that is not the JSON it should be.
    pub fn not_json(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "not-json", "Not JSON", detail)
    }

    /// Whether the caller may not do what it asks for.
    pub fn is_forbidden(&self) -> bool {
        self.status == StatusCode::FORBIDDEN
    }

    /// The status, which is also the code of an error on NATS.
    pub fn code(&self) -> u16 {
        self.status.as_u16()
    }

    /// The stable type.
    pub fn urn(&self) -> String {
        problem::urn(self.kind)
    }

    /// What to do about it.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// 503, while this pod cannot ask whether a named token was revoked.
    pub fn token_not_known_now() -> Problem {
        Problem::unavailable(
            "The database does not answer, so this pod cannot tell whether your token is still valid; \
             try again, or another pod.",
        )
    }

    /// 503.
    pub fn unavailable(detail: &str) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not now", detail)
    }

    fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Problem {
        Problem { status, kind, title, detail: detail.into(), path: None, retry_after: AGAIN_AFTER }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let problem = ProblemJson::new(self.status, self.kind, self.title, self.detail);
        let mut response = problem.about(self.path).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, self.retry_after.into());
        }
        response
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Problem {
        let detail = format!("{invalid}.");
        Problem { path: Some(invalid.field), ..Problem::invalid(detail) }
    }
}

impl From<NoAnswer> for Problem {
    fn from(reason: NoAnswer) -> Problem {
        match reason {
            NoAnswer::Future(_) => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "future",
                "Not past yet",
                format!("{reason}."),
            ),
            NoAnswer::Dropped(_) => {
                Problem::new(StatusCode::GONE, "dropped", "No longer known", format!("{reason}."))
            }
            NoAnswer::Refused(rule) => Problem::invalid(format!("{rule}.")),
            NoAnswer::Database(error) => Failed::from(error).into(),
        }
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Problem {
        let (kind, title) = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ("too-large", "Body too large"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => ("not-json", "Send application/json"),
            StatusCode::BAD_REQUEST => ("not-json", "Not JSON"),
            _ => ("invalid", "Invalid request"),
        };
        Problem::new(rejection.status(), kind, title, rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Problem {
        Problem::invalid(rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", rejection.body_text())
    }
}

/// Lines about requests that failed: all of them do while the database is away.
static FAILURES: LazyLock<LogGate> = LazyLock::new(|| LogGate::new(REFUSALS_TOLD));

/// The database did not do as asked: logged here, told to nobody in detail.
impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Problem {
        if let Some(left_out) = FAILURES.pass(Instant::now()) {
            error!(error = %format!("{error:#}"), left_out, "a request failed");
        }
        Problem::unavailable("The database does not answer; try again.")
    }
}

impl From<Failed> for Problem {
    fn from(failed: Failed) -> Problem {
        match failed {
            // Told by a metric: a line for each would be a flood.
            Failed::Busy(_) => Problem::busy(),
            failed => anyhow::Error::from(failed).into(),
        }
    }
}

/// Answers a path that does not exist.
pub async fn no_route() -> Problem {
    Problem::no_route()
}
