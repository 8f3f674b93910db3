//! What must be true after every test, whatever it did.

use std::collections::BTreeMap;
use std::str::FromStr;

use groundstation::contract::wire::StateJson;
use groundstation::domain::lifecycle::{
    self, Connection, Event, Reason, Revision, SatelliteId, Session, State, Transition,
};
use groundstation::domain::marks::Marks;
use time::OffsetDateTime;
use tokio_postgres::{Client, GenericClient, IsolationLevel, types::Json};
use uuid::Uuid;

use super::fleet::Fleet;
use super::log_and_stream::{differences, read_log, read_stream};
use super::wait::as_long_as_it_gets_further;

impl Fleet {
    /// Checks all invariants. Needs a pod that relays, or a relay that has caught up.
    pub async fn check(&self) {
        let mut sql = self.sql().await;
        let nats = self.nats().await;
        as_long_as_it_gets_further("the stream to equal the log", async || {
            let (log, stream) = (read_log(&sql).await, read_stream(&nats).await);
            let found = differences(&log, &stream);
            if found.is_empty() { Ok(()) } else { Err((stream.len(), found.join("\n"))) }
        })
        .await;
        self.check_rows(&mut sql).await;
    }

    /// Checks the current rows against the log.
    pub async fn check_rows(&self, sql: &mut Client) {
        let snapshot = sql.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
        let snapshot = snapshot.start().await.expect("a snapshot");
        self.check_that_who_is_online_was_connected(&snapshot).await;
        check_that_the_projection_is_the_fold_of_the_log(&snapshot).await;
    }

    async fn check_that_who_is_online_was_connected(&self, sql: &impl GenericClient) {
        // A loss leaves the heartbeat as it was, also where the clock by which it was heard went back since.
        const LIARS: &str = "
            select c.satellite_id, c.last_event
              from watermark, satellite_connections c join satellites s on s.id = c.satellite_id
             where watermark.observed_at <= online_until(c.last_heartbeat_at, s.offline_threshold_ms, $1, null, null)
               and c.last_heartbeat_at <= watermark.observed_at
               and c.last_event <> 'connected'";
        let threshold = self.timing.threshold.as_millis() as i64;
        let liars = sql.query(LIARS, &[&threshold]).await.expect("the query runs");
        assert!(liars.is_empty(), "online, and their last edge is not `connected`: {liars:?}");
    }
}

/// A row of the projection, without heartbeats.
#[derive(Debug, PartialEq)]
struct Row {
    session: i64,
    revision: i64,
    last_event: String,
}

async fn check_that_the_projection_is_the_fold_of_the_log(sql: &impl GenericClient) {
    let rows = sql.query("select * from entity_transitions order by position", &[]).await;
    let mut folded: BTreeMap<Uuid, Connection> = BTreeMap::new();
    for row in rows.expect("the log can be read") {
        let transition = transition(&row);
        let id = transition.satellite.0;
        let after =
            lifecycle::project(folded.get(&id), &transition).expect("revisions follow each other");
        folded.insert(id, after);
    }
    let folded: BTreeMap<Uuid, Row> = folded
        .into_iter()
        .map(|(id, connection)| {
            let row = Row {
                session: connection.session.0,
                revision: connection.revision.0,
                last_event: connection.last_event.as_str().to_owned(),
            };
            (id, row)
        })
        .collect();
    let stored = sql.query("select * from satellite_connections", &[]).await;
    let stored: BTreeMap<Uuid, Row> = stored
        .expect("the projection can be read")
        .iter()
        .map(|row| {
            let id = row.get("satellite_id");
            let row = Row {
                session: row.get("session"),
                revision: row.get("revision"),
                last_event: row.get("last_event"),
            };
            (id, row)
        })
        .collect();
    assert_eq!(stored, folded, "the projection is not what the log folds to");
}

fn transition(row: &tokio_postgres::Row) -> Transition {
    let state = |column| {
        let json: Option<Json<StateJson>> = row.get(column);
        json.map(|Json(json)| State::from(json))
    };
    Transition {
        satellite: SatelliteId(row.get("entity_id")),
        revision: Revision(row.get("revision")),
        event: Event::from_str(row.get("event")).expect("a known event"),
        reason: Reason::from_str(row.get("reason")).expect("a known reason"),
        session: Session(row.get("session")),
        prev: state("prev"),
        next: state("next"),
        occurred_at: row.get::<_, OffsetDateTime>("occurred_at"),
        marks: Marks::default(),
    }
}
