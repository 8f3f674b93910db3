//! `GET /v1/audit/stream`: the audit as it grows, as server-sent events.
//!
//! Each event is an entry with its position as `id`. Positions are given out under a lock that is held to the commit: they
//! become visible in order and without a gap, whichever transaction takes how long. So a stream that reads what follows on
//! the last position misses nothing, and whoever comes back with the last id it has, to any pod, has each entry once. What
//! bounds it is in [`live`].

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use deadpool_postgres::Object;
use serde::Deserialize;
use tokio::time::sleep;
use tracing::debug;
use utoipa::{IntoParams, ToSchema};

use crate::api::Api;
use crate::api::caller::Caller;
use crate::api::live::{self, End, Reader, Streams};
use crate::api::problem::{Problem, ProblemJson};
use crate::contract::audit::AuditEntryJson;
use crate::ingress::arrival::ConnectionAbort;
use crate::log::audit::read::{self, Ends, Filter};
use crate::platform::database::{Database, Failed};

/// Entries read at once.
const PAGE: i64 = 200;

/// How often the audit is read. Administrators do little, so nothing wakes a stream in between.
const POLL: Duration = Duration::from_millis(500);

/// What a reader may ask for.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditStreamQuery {
    /// Go on behind this position; without it, and without the header Last-Event-ID, with what happens from now on
    #[param(minimum = 0)]
    after: Option<i64>,
    /// Only of this actor, by its id
    actor: Option<String>,
    /// Only this action, such as `satellite.created`
    action: Option<String>,
    /// Only of this satellite or token, by its id
    target: Option<String>,
}

/// One event of the stream.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape for the API's description; axum's `Event` is what is sent")]
pub struct AuditStreamEvent {
    /// The position.
    id: String,
    /// An `AuditEntry`, as text.
    #[schema(content_media_type = "application/json")]
    data: String,
}

/// Follow the audit
///
/// Server-sent events: `id` is the position, `data` an entry as JSON. The header Last-Event-ID, which a browser sends by
/// itself when it comes back, goes before `after`. The first event has an id and no data: it tells a reader of the present
/// where it begins. With filters such events come later too: they tell, once a second at most, how far the audit has been
/// looked through. A stream ends after a while, when its pod does, or when its reader does not read: come back with the last
/// id.
#[utoipa::path(
    get, operation_id = "followAudit",
    path = "/v1/audit/stream",
    tag = "audit",
    params(
        AuditStreamQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The last position you have"),
    ),
    responses(
        (status = 200, description = "Events, one for each entry",
         body = AuditStreamEvent, content_type = "text/event-stream"),
        (status = 410, description = "What follows this position has been dropped",
         body = ProblemJson, content_type = "application/problem+json"),
    )
)]
pub async fn follow(
    State(api): State<Arc<Api>>,
    Extension(abort): Extension<ConnectionAbort>,
    caller: Caller,
    headers: HeaderMap,
    query: Result<Query<AuditStreamQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let asked = live::after(&headers, query.after)?;
    let wanted = super::filter(query.actor, query.action.as_deref(), query.target)?;
    let streams = api.streams.clone();
    let open = streams.open()?;
    let position = begin(&streams.database, asked).await?;
    Ok(open.serve(&api, caller, abort, move |reader| {
        Follower { streams, wanted, position, newest: None, reader }.follow()
    }))
}

/// Behind which position the stream begins.
async fn begin(database: &Database, asked: Option<i64>) -> Result<i64, Problem> {
    let ends = async |client: &mut Object| read::ends(client).await;
    let Ends { head, horizon } = database.run(ends).await?;
    live::begin(asked, head, horizon, Problem::ahead_of_audit)
}

/// One stream, from the audit to its reader.
struct Follower {
    streams: Arc<Streams>,
    wanted: Filter,
    /// Everything up to this is sent or passed over.
    position: i64,
    /// What is there, once known.
    newest: Option<AuditEntryJson>,
    reader: Reader,
}

impl Follower {
    async fn follow(mut self) -> End {
        if let Err(end) = self.reader.begin(self.position).await {
            return end;
        }
        loop {
            let entries = match self.read().await {
                Ok(entries) => entries,
                // The probe tells that the database is away; a stream goes on when it is back.
                Err(error) => {
                    debug!(%error, "a live stream cannot read the audit");
                    sleep(POLL).await;
                    continue;
                }
            };
            let is_full = entries.len() as i64 > PAGE;
            if let Err(end) = self.tell_all(entries).await {
                return end;
            }
            if !is_full {
                sleep(POLL).await;
            }
        }
    }

    /// What is at the position and follows it. All of it is read: what is not wanted moves the position on too.
    async fn read(&self) -> Result<Vec<AuditEntryJson>, Failed> {
        let before = (self.position - 1).max(0);
        let read = async |client: &mut Object| {
            read::after(client, before, PAGE + 1, &Filter::default()).await
        };
        self.streams.database.run(read).await
    }

    async fn tell_all(&mut self, mut entries: Vec<AuditEntryJson>) -> Result<(), End> {
        // A database that went back to an earlier point gives positions out a second time: what follows there does not
        // follow on what was sent.
        let newest = entries.first().filter(|entry| entry.position == self.position).cloned();
        if self.newest.is_some() && self.newest != newest {
            return Err(End::Over);
        }
        if newest.is_some() {
            entries.remove(0);
        }
        self.newest = newest;
        for entry in entries {
            self.tell(entry).await?;
        }
        self.reader.tell_how_far(self.position).await
    }

    async fn tell(&mut self, entry: AuditEntryJson) -> Result<(), End> {
        // Retention has overtaken a slow reader: who comes back is told so.
        if entry.position != self.position + 1 {
            return Err(End::Over);
        }
        if self.wanted.takes(&entry) {
            self.reader.tell(entry.position, &entry).await?;
        }
        (self.position, self.newest) = (entry.position, Some(entry));
        Ok(())
    }
}
