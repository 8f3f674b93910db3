//! `GET /v1/transitions/stream`: the log as it grows, as server-sent events.
//!
//! Each event is a transition with its position as `id`. A stream reads the log with `position > p`
//! and sends positions without a gap, or ends: so whoever comes back with the last id it has, to any
//! pod, misses nothing and has nothing twice. The head's watch only wakes it sooner; polling alone is
//! already correct. What bounds it is in [`super::live`]. Of a token that reaches a part of the fleet it has only the
//! satellites that are inside when it reads.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use deadpool_postgres::Object;
use serde::Deserialize;
use tokio::time::sleep;
use tokio_postgres::Error;
use tracing::debug;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Api;
use super::caller::Caller;
use super::live::{self, End, Reader, Streams};
use super::parameters::event;
use super::problem::Problem;
use crate::domain::access::Selector;
use crate::domain::lifecycle::{self, Position, SatelliteId};
use crate::ingress::arrival::ConnectionAbort;
use crate::log::{self, ChangeId, Entry, read, within};
use crate::platform::database::{Database, Failed};

/// Transitions read at once.
const PAGE: i64 = 200;

/// How often the log is read where nothing wakes a stream.
const POLL: Duration = Duration::from_secs(1);

/// Between two reads of one stream: what comes in meanwhile is read together.
const PAUSE: Duration = Duration::from_millis(20);

impl Streams {
    /// What is at `position` and follows it, at most a page. Only a few read at once.
    async fn read(&self, position: Position, selector: &Selector) -> Result<Page, Failed> {
        let before = Position((position.0 - 1).max(0));
        let read = async |client: &mut Object| {
            let entries = read::after(client, before, PAGE + 1).await?;
            let of: Vec<Uuid> = entries.iter().map(|entry| entry.satellite.0).collect();
            let inside = match selector.is_bounded() {
                true => Some(within::among(client, &of, selector).await?),
                false => None,
            };
            Ok::<_, Error>(Page { entries, inside })
        };
        self.database.run(read).await
    }
}

/// What was read of the log.
struct Page {
    entries: Vec<Entry>,
    /// Which of its satellites the stream's token reaches; none where it reaches all.
    inside: Option<HashSet<Uuid>>,
}

/// What a reader may ask for.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StreamQuery {
    /// Go on behind this position; without it, and without the header Last-Event-ID, with what
    /// happens from now on
    #[param(minimum = 0)]
    after: Option<i64>,
    /// Only `connected`, `disconnected`, `heartbeat_lost` or `removed`
    #[param(pattern = "^(connected|disconnected|heartbeat_lost|removed)$")]
    event: Option<String>,
    /// Only of satellites that were in this region
    region: Option<String>,
    /// Only of this satellite
    #[param(format = Uuid)]
    satellite: Option<String>,
}

/// Which transitions a reader wants. All of them are read: what is passed over moves its position on too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Wanted {
    event: Option<lifecycle::Event>,
    region: Option<String>,
    satellite: Option<SatelliteId>,
}

impl Wanted {
    fn check(query: StreamQuery, selector: &Selector) -> Result<Wanted, Problem> {
        let satellite = query.satellite.map(|text| {
            let rule = "satellite must be a satellite's id, a UUID.";
            Uuid::try_parse(&text).map(SatelliteId).map_err(|_| Problem::invalid(rule))
        });
        if query.region.as_ref().is_some_and(|region| region.contains('\0')) {
            return Err(Problem::invalid("region must not contain a NUL character."));
        }
        Ok(Wanted {
            event: query.event.as_deref().map(event).transpose()?,
            region: selector.narrow(query.region),
            satellite: satellite.transpose()?,
        })
    }

    fn takes(&self, entry: &Entry) -> bool {
        let region = || {
            let state = entry.next.as_ref().or(entry.prev.as_ref());
            state.map(|state| &state.region)
        };
        self.event.is_none_or(|event| entry.event == event)
            && self.satellite.is_none_or(|satellite| entry.satellite == satellite)
            && (self.region.is_none() || self.region.as_ref() == region())
    }
}

/// One event of the stream.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape for the API's description; axum's `Event` is what is sent")]
pub struct StreamEvent {
    /// The position.
    id: String,
    /// A `TransitionJson`, as text.
    #[schema(content_media_type = "application/json")]
    data: String,
}

/// Follow the log
///
/// Server-sent events: `id` is the position, `data` a transition as JSON. The header Last-Event-ID,
/// which a browser sends by itself when it comes back, goes before `after`. The first event has an id
/// and no data: it tells a reader of the present where it begins. With filters such events come later too: they tell,
/// once a second at most, how far the log has been looked through. A stream ends after a while, when
/// its pod does, or when its reader does not read: come back with the last id.
#[utoipa::path(
    get, operation_id = "followTransitions",
    path = "/v1/transitions/stream",
    tag = "transitions",
    params(
        StreamQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The last position you have"),
    ),
    responses(
        (status = 200, description = "Events, one for each transition",
         body = StreamEvent, content_type = "text/event-stream"),
        (status = 410, description = "What follows this position has been dropped",
         body = super::problem::ProblemJson, content_type = "application/problem+json"),
    )
)]
pub async fn follow(
    State(api): State<Arc<Api>>,
    Extension(abort): Extension<ConnectionAbort>,
    caller: Caller,
    headers: HeaderMap,
    query: Result<Query<StreamQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let asked = live::after(&headers, query.after)?;
    let wanted = Wanted::check(query, caller.selector())?;
    let streams = api.streams.clone();
    let open = streams.open()?;
    let position = begin(&streams.database, asked).await?;
    let reach = caller.selector().clone();
    Ok(open.serve(&api, caller, abort, move |reader| {
        Follower { streams, reach, wanted, position, newest: None, reader }.follow()
    }))
}

/// Behind which position the stream begins.
async fn begin(database: &Database, asked: Option<i64>) -> Result<Position, Problem> {
    let ends = async |client: &mut Object| {
        Ok::<_, Error>((read::head(client).await?, log::horizon(client).await?))
    };
    let (head, horizon) = database.run(ends).await?;
    live::begin(asked, head.0, horizon.0, Problem::ahead_of_log).map(Position)
}

/// One stream, from the log to its reader.
struct Follower {
    streams: Arc<Streams>,
    /// What its token reaches.
    reach: Selector,
    wanted: Wanted,
    /// Everything up to this is sent or passed over.
    position: Position,
    /// Which change that was, once known.
    newest: Option<ChangeId>,
    reader: Reader,
}

impl Follower {
    async fn follow(mut self) -> End {
        let mut head = self.streams.head.clone();
        if let Err(end) = self.reader.begin(self.position.0).await {
            return end;
        }
        loop {
            // Before the read: a transition that comes after it wakes the stream again.
            head.mark_unchanged();
            let read = self.streams.read(self.position, &self.reach).await;
            let Page { mut entries, inside } = match read {
                Ok(page) => page,
                // The probe tells that the database is away; a stream goes on when it is back.
                Err(error) => {
                    debug!(%error, "a live stream cannot read the log");
                    sleep(POLL).await;
                    continue;
                }
            };
            // A database that went back to an earlier point gives positions out a second time: what
            // follows there does not follow on what was sent.
            let newest = entries.first().filter(|entry| entry.position == self.position);
            let newest = newest.map(|entry| entry.change);
            if self.newest.is_some() && self.newest != newest {
                return End::Over;
            }
            self.newest = newest;
            if newest.is_some() {
                entries.remove(0);
            }
            for entry in &entries {
                let is_inside = inside.as_ref().is_none_or(|ids| ids.contains(&entry.satellite.0));
                if let Err(end) = self.tell(entry, is_inside).await {
                    return end;
                }
            }
            if let Err(end) = self.reader.tell_how_far(self.position.0).await {
                return end;
            }
            if entries.len() < PAGE as usize {
                tokio::select! {
                    changed = head.changed() => match changed {
                        Ok(()) => sleep(PAUSE).await,
                        Err(_) => return End::Over,
                    },
                    () = sleep(POLL) => {}
                }
            }
        }
    }

    async fn tell(&mut self, entry: &Entry, is_inside: bool) -> Result<(), End> {
        // Retention has overtaken a slow reader: who comes back is told so.
        if entry.position.0 != self.position.0 + 1 {
            return Err(End::Over);
        }
        if is_inside && self.wanted.takes(entry) {
            self.reader.tell(entry.position.0, entry.to_json()).await?;
        }
        (self.position, self.newest) = (entry.position, Some(entry.change));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::history::runs::tests::life;

    #[test]
    fn a_transition_is_wanted_where_all_that_was_asked_for_holds() {
        use lifecycle::Event::{Connected, Removed};
        let lived = life(7, &[(1, Connected), (2, Removed)]);
        let wants = |json: serde_json::Value| {
            let query = serde_json::from_value(json).expect("a query");
            let wanted = Wanted::check(query, &Selector::default())
                .map_err(|problem| problem.detail().to_owned())?;
            Ok::<_, String>([0, 1].map(|n| wanted.takes(&lived[n])))
        };
        let (here, other) = (Uuid::from_u128(7), Uuid::from_u128(8));
        for (asked, taken) in [
            (serde_json::json!({}), [true, true]),
            (serde_json::json!({"event": "removed"}), [false, true]),
            // What was removed was in the region it was in.
            (serde_json::json!({"region": "eu"}), [true, true]),
            (serde_json::json!({"region": "us"}), [false, false]),
            (serde_json::json!({"satellite": here}), [true, true]),
            (serde_json::json!({"satellite": other}), [false, false]),
            (
                serde_json::json!({"satellite": here, "event": "connected", "region": "eu"}),
                [true, false],
            ),
        ] {
            assert_eq!(wants(asked.clone()), Ok(taken), "{asked}");
        }
        for (asked, word) in [
            (serde_json::json!({"event": "moved"}), "event must be one of"),
            (serde_json::json!({"satellite": "edge"}), "satellite must be"),
        ] {
            let why = wants(asked).expect_err("a problem");
            assert!(why.contains(word), "{why}");
        }
    }
}
