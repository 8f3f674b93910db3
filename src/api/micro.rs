//! Asking over NATS: a micro service (ADR-32) whose endpoints answer what the HTTP routes answer,
//! by the same functions.
//!
//! All pods share one queue group, so each request is answered by one of them, and by another when
//! one is gone. It only reads: who may publish on `groundstation.v1.>` is a matter of the account's
//! permissions. A request is an object of JSON, or nothing where nothing has to be said; an error is
//! the two headers of ADR-32 and `Groundstation-Problem`, the stable type.

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::service::endpoint::Endpoint;
use async_nats::service::{Request, Service, ServiceExt, error};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use strum::{EnumCount, EnumIter, IntoEnumIterator, IntoStaticStr};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

use super::problem::Problem;
use super::{Api, MAX_BODY_BYTES, query};

mod fleet;
mod satellites;
mod transitions;
mod triggers;

/// The service's name.
const NAME: &str = "groundstation";

/// What all its subjects begin with.
const PREFIX: &str = "groundstation.v1";

/// The queue group of all pods.
const QUEUE_GROUP: &str = "q";

/// The stable type of a problem.
const PROBLEM: &str = "Groundstation-Problem";

/// Requests of one pod that are under way; more are told to come again. Few of them have a connection
/// to the database at a time: they wait for one with whoever asks over HTTP.
const UNDER_WAY: usize = 256;

/// How long a request may take, waiting included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may take until no question comes any more when the pod ends.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the last replies may take to leave when the pod ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The most characters of an error's text in a header.
const MAX_ERROR_CHARACTERS: usize = 500;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumCount, EnumIter, IntoStaticStr)]
enum Question {
    #[strum(serialize = "satellites.list")]
    SatellitesList,
    #[strum(serialize = "satellites.get")]
    SatellitesGet,
    #[strum(serialize = "satellites.online")]
    SatellitesOnline,
    #[strum(serialize = "satellites.states")]
    SatellitesStates,
    #[strum(serialize = "satellites.stats")]
    SatellitesStats,
    #[strum(serialize = "satellites.intervals")]
    SatellitesIntervals,
    #[strum(serialize = "fleet.counts")]
    FleetCounts,
    #[strum(serialize = "fleet.timeline")]
    FleetTimeline,
    #[strum(serialize = "transitions.list")]
    TransitionsList,
    #[strum(serialize = "triggers.list")]
    TriggersList,
}

impl Question {
    /// The rest of the subject.
    fn subject(self) -> &'static str {
        self.into()
    }

    /// The route that takes the same.
    fn route(self) -> &'static str {
        match self {
            Question::SatellitesList | Question::SatellitesOnline => "/v1/satellites",
            Question::SatellitesGet => "/v1/satellites/{id}",
            Question::SatellitesStats => "/v1/satellites/{id}/stats",
            // Of it the ids.
            Question::SatellitesStates | Question::SatellitesIntervals => "/v1/intervals",
            Question::FleetCounts => "/v1/fleet",
            Question::FleetTimeline => "/v1/fleet/timeline",
            Question::TransitionsList => "/v1/transitions",
            Question::TriggersList => "/v1/triggers",
        }
    }

    /// What cannot be left out.
    fn needs(self) -> Option<&'static str> {
        match self {
            Question::SatellitesGet | Question::SatellitesStats => Some("id"),
            Question::SatellitesStates | Question::SatellitesIntervals => Some("ids"),
            _ => None,
        }
    }

    /// What it takes, for whoever discovers it.
    fn takes(self) -> &'static str {
        match self {
            Question::SatellitesList => concat!(
                r#"{"status"?,"region"?,"tag"?:"n:v"|["n:v",…],"q"?,"lastEvent"?,"flapping"?,"version"?,"#,
                r#""neverConnected"?,"inactiveFor"?,"at"?,"position"?,"sort"?,"limit"?,"cursor"?,"offset"?}"#
            ),
            Question::SatellitesGet => r#"{"id"}"#,
            Question::SatellitesOnline => concat!(
                r#"{"region"?,"tag"?:"n:v"|["n:v",…],"q"?,"flapping"?,"version"?,"sort"?,"limit"?,"#,
                r#""cursor"?,"offset"?}"#
            ),
            Question::SatellitesStates => r#"{"ids":["…"]}"#,
            Question::SatellitesStats => r#"{"id","field"?,"window"?}"#,
            Question::SatellitesIntervals => r#"{"ids":["…"],"since"?,"until"?}"#,
            Question::FleetCounts => concat!(
                r#"{"status"?,"region"?,"tag"?:"n:v"|["n:v",…],"q"?,"lastEvent"?,"flapping"?,"version"?,"#,
                r#""neverConnected"?,"inactiveFor"?,"at"?,"position"?}"#
            ),
            Question::FleetTimeline => r#"{"since"?,"until"?,"step"?}"#,
            Question::TransitionsList => concat!(
                r#"{"id"?,"after"?,"order"?,"before"?,"limit"?,"event"?,"region"?,"since"?,"#,
                r#""until"?}"#
            ),
            Question::TriggersList => "{}",
        }
    }
}

/// The task.
pub struct Micro {
    /// Where the answers are.
    pub api: Arc<Api>,
    /// Where the questions come from.
    pub nats: Client,
    /// This pod's name, for whoever discovers it.
    pub pod: String,
}

impl Micro {
    /// Answers until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        match self.begin().await {
            Ok((service, endpoints)) => self.answer_all(service, endpoints, stop).await,
            Err(error) => {
                error!(%error, "cannot answer on NATS: ask over HTTP");
                stop.cancelled().await;
            }
        }
    }

    /// Signs on; NATS need not be there yet.
    async fn begin(&self) -> Result<(Service, Vec<(Question, Endpoint)>), async_nats::Error> {
        let metadata = [("pod".to_owned(), self.pod.clone())].into();
        let service = self
            .nats
            .service_builder()
            .description("Who of the fleet is there, and what happened")
            .metadata(metadata)
            .queue_group(QUEUE_GROUP)
            .start(NAME, env!("CARGO_PKG_VERSION"))
            .await?;
        let group = service.group(PREFIX);
        let mut endpoints = Vec::with_capacity(Question::COUNT);
        for question in Question::iter() {
            // A name has no dots; the subject has.
            let name = question.subject().replace('.', "-");
            let metadata = [("request".to_owned(), question.takes().to_owned())].into();
            let endpoint = group.endpoint_builder().name(name).metadata(metadata);
            endpoints.push((question, endpoint.add(question.subject()).await?));
        }
        Ok((service, endpoints))
    }

    async fn answer_all(
        self,
        service: Service,
        endpoints: Vec<(Question, Endpoint)>,
        stop: CancellationToken,
    ) {
        let of_each = |(question, endpoint): (Question, Endpoint)| {
            endpoint.map(move |request| (question, request))
        };
        let mut requests = stream::select_all(endpoints.into_iter().map(of_each));
        let nats = self.nats.clone();
        let answers = Arc::new(Answers {
            api: self.api,
            nats: self.nats,
            under_way: Arc::new(Semaphore::new(UNDER_WAY)),
        });
        let answering = TaskTracker::new();
        let mut service = Some(service);
        let mut end_by = None;
        loop {
            tokio::select! {
                asked = requests.next() => match asked {
                    Some((question, request)) => {
                        answers.clone().take(question, request, &answering).await;
                    }
                    None => break,
                },
                // Then the endpoints end, when what they have taken is taken from them. While NATS is away they
                // do not, and nobody asks.
                () = stop.cancelled(), if service.is_some() => {
                    let Some(service) = service.take() else { continue };
                    if let Err(error) = service.stop().await {
                        debug!(%error, "the service did not stop");
                    }
                    if nats.connection_state() != State::Connected {
                        break;
                    }
                    end_by = Some(Instant::now() + END_TIMEOUT);
                }
                () = sleep_until(end_by.unwrap_or_else(Instant::now)), if end_by.is_some() => break,
            }
        }
        answering.close();
        answering.wait().await;
        if nats.connection_state() != State::Connected {
            return;
        }
        match tokio::time::timeout(FLUSH_TIMEOUT, nats.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => debug!("the last replies may not have left"),
        }
    }
}

/// Subjects on which a message means something: to the server, to subscribers of ours, to other backends.
const MEANINGFUL: [&str; 6] =
    ["$", "satellite.", "groundstation.", "script-packages.", "secrets.", "replay."];

/// Whether an answer may go to this subject. It goes with the pod's rights, and the question comes from somebody
/// who has others: on `$JS.API.STREAM.PURGE…` it would be an order.
fn may_be_answered(reply: &str) -> bool {
    !MEANINGFUL.iter().any(|prefix| reply.starts_with(prefix))
}

/// What answering needs.
struct Answers {
    api: Arc<Api>,
    nats: Client,
    under_way: Arc<Semaphore>,
}

impl Answers {
    /// Answers beside what else is answered; whoever is one too many is told so at once.
    async fn take(self: Arc<Self>, question: Question, request: Request, tasks: &TaskTracker) {
        match self.under_way.clone().try_acquire_owned() {
            Ok(place) => drop(tasks.spawn(async move {
                let answering = self.look_up(question, &request.message.payload);
                let answered = tokio::time::timeout(ANSWER_TIMEOUT, answering).await;
                let late = |_| Err(Problem::unavailable("It takes too long; try again."));
                self.reply(question, &request, answered.unwrap_or_else(late)).await;
                drop(place);
            })),
            Err(_) => {
                let busy = Problem::unavailable("Too many questions at once; try again.");
                self.reply(question, &request, Err(busy)).await;
            }
        }
    }

    async fn reply(&self, question: Question, request: &Request, answered: Result<Bytes, Problem>) {
        let Some(reply) = request.message.reply.as_deref() else {
            debug!(question = question.subject(), "a question without a subject for its answer");
            return;
        };
        if !may_be_answered(reply) {
            debug!(
                question = question.subject(),
                ?reply,
                "a question whose answer would be an order"
            );
            return;
        }
        let sent = match answered.and_then(|answer| self.fitting(answer)) {
            Ok(answer) => request.respond(Ok(answer)).await,
            Err(problem) => {
                let mut headers = HeaderMap::new();
                headers.insert(PROBLEM, problem.urn());
                request.respond_with_headers(Err(told(&problem)), headers).await
            }
        };
        if let Err(error) = sent {
            warn!(question = question.subject(), %error, "a reply could not be sent");
        }
    }

    async fn look_up(&self, question: Question, body: &[u8]) -> Result<Bytes, Problem> {
        let api = &*self.api;
        match question {
            Question::SatellitesList => json(&satellites::list(api, asked(question, body)?).await?),
            Question::SatellitesGet => json(&satellites::get(api, asked(question, body)?).await?),
            Question::SatellitesOnline => {
                json(&satellites::online(api, asked(question, body)?).await?)
            }
            Question::SatellitesStates => {
                json(&satellites::states(api, asked(question, body)?).await?)
            }
            Question::SatellitesStats => {
                json(&satellites::stats(api, asked(question, body)?).await?)
            }
            Question::SatellitesIntervals => {
                json(&satellites::intervals(api, asked(question, body)?).await?)
            }
            Question::FleetCounts => json(&fleet::counts(api, asked(question, body)?).await?),
            Question::FleetTimeline => json(&fleet::timeline(api, asked(question, body)?).await?),
            Question::TransitionsList => {
                json(&transitions::list(api, asked(question, body)?).await?)
            }
            Question::TriggersList => json(triggers::list()),
        }
    }

    /// What the server would not carry is not sent: the client would be cut off for it.
    fn fitting(&self, answer: Bytes) -> Result<Bytes, Problem> {
        let most = self.nats.server_info().max_payload;
        if answer.len() <= most {
            return Ok(answer);
        }
        Err(Problem::too_large(format!(
            "The answer has {} bytes and NATS carries {most}: ask for fewer (limit, ids).",
            answer.len()
        )))
    }
}

/// Reads a request; one without a body asks for nothing in particular.
fn asked<T: DeserializeOwned>(question: Question, body: &[u8]) -> Result<T, Problem> {
    if body.len() > MAX_BODY_BYTES {
        return Err(Problem::too_large(format!("A request has at most {MAX_BODY_BYTES} bytes.")));
    }
    let body = if body.is_empty() { b"{}" } else { body };
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Problem::not_json(format!("A request is an object of JSON: {error}.")))?;
    let object = value.as_object();
    let object = object.ok_or_else(|| Problem::invalid("A request is an object of JSON."))?;
    query::check_fields(question.route(), object)?;
    if let Some(name) = question.needs()
        && object.get(name).is_none_or(Value::is_null)
    {
        return Err(Problem::wrong_parameter(name, "must be given"));
    }
    if object.get("id").is_some_and(|id| !id.is_string() && !id.is_null()) {
        return Err(Problem::wrong_parameter("id", "must be a text"));
    }
    // What is left to go wrong is a fault of ours, and said all the same.
    serde_json::from_value(value).map_err(|error| Problem::invalid(format!("{error}.")))
}

fn json(answer: &impl Serialize) -> Result<Bytes, Problem> {
    Ok(serde_json::to_vec(answer).map_err(anyhow::Error::from)?.into())
}

/// An error's text goes into a header, and may hold what the asker wrote: a line break there would
/// end the header.
fn told(problem: &Problem) -> error::Error {
    let fits = |c: char| if c.is_control() { ' ' } else { c };
    let status = problem.detail().chars().take(MAX_ERROR_CHARACTERS).map(fits).collect();
    error::Error { status, code: usize::from(problem.code()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_asker_wrote_cannot_break_a_header() {
        let told = told(&Problem::invalid(format!("a\r\nb{}", "x".repeat(1_000))));
        assert!(told.status.starts_with("a  bxx") && told.status.len() == MAX_ERROR_CHARACTERS);
        assert_eq!(told.code, 422);
    }

    #[test]
    fn an_answer_goes_to_an_inbox_and_is_never_an_order() {
        for inbox in ["_INBOX.x.1", "_INBOX_automation.x", "mine.x", "satellites.answers"] {
            assert!(may_be_answered(inbox), "{inbox}");
        }
        for order in [
            "$JS.API.STREAM.PURGE.SATELLITE_TRANSITIONS",
            "$JS.ACK.x",
            "$KV.b.k",
            "satellite.connected",
            "groundstation.pods.look",
            "secrets.resolve",
            "script-packages.changed",
        ] {
            assert!(!may_be_answered(order), "{order}");
        }
    }

    #[test]
    fn a_request_is_an_object_of_bounded_size_or_nothing() {
        #[derive(Debug, serde::Deserialize)]
        struct Asked {
            limit: Option<i64>,
        }
        let code = |body: &[u8]| {
            asked::<Asked>(Question::SatellitesList, body)
                .map(|asked| asked.limit)
                .map_err(|p| p.code())
        };
        let long = format!("{{\"x\":\"{}\"}}", "x".repeat(MAX_BODY_BYTES));
        let cases: [(&[u8], _); 6] = [
            (b"", Ok(None)),
            (b"{\"limit\":7,\"unknown\":1}", Ok(Some(7))),
            (b"{\"limit\":\"7\"}", Err(422)),
            (b"7", Err(422)),
            (b"{", Err(400)),
            (long.as_bytes(), Err(413)),
        ];
        for (body, expected) in cases {
            assert_eq!(code(body), expected, "{:?}", String::from_utf8_lossy(body));
        }
    }
}
