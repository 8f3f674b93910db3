//! What is asked from the log, by the pods' micro service.

use std::time::Duration;

use async_nats::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::Error;
use crate::fleet::{Fleet, Satellite};
use crate::transition::{Event, State, Transition};

/// Transitions, or satellites, in one answer.
const PAGE: i64 = 1_000;

/// How long an answer may take. A pod gives up after 10 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);

const COUNTS: &str = "groundstation.v1.fleet.counts";
const SATELLITES: &str = "groundstation.v1.satellites.list";
const TRANSITIONS: &str = "groundstation.v1.transitions.list";

/// The next transitions behind a position, at most so many.
pub(crate) async fn transitions(
    client: &Client,
    after: i64,
    limit: i64,
) -> Result<Vec<Transition>, Error> {
    let question = json!({"after": after, "limit": limit.clamp(1, PAGE)});
    let Transitions { transitions } = ask(client, TRANSITIONS, question).await?;
    Ok(transitions.into_iter().map(Entry::into).collect())
}

/// The fleet as of the newest position.
pub(crate) async fn fleet(client: &Client, after_a_gap: bool) -> Result<Fleet, Error> {
    let Counts { position } = ask(client, COUNTS, json!({})).await?;
    let mut satellites = Vec::new();
    if position == 0 {
        return Ok(Fleet { position, after_a_gap, satellites });
    }
    let mut cursor: Option<String> = None;
    loop {
        let mut question = json!({"position": position, "limit": PAGE});
        if let Some(cursor) = &cursor {
            question["cursor"] = Value::from(cursor.as_str());
        }
        let page: Satellites = ask(client, SATELLITES, question).await?;
        satellites.extend(page.satellites);
        let more = page.next_cursor.filter(|next| cursor.as_ref() != Some(next));
        match more {
            None => return Ok(Fleet { position, after_a_gap, satellites }),
            next => cursor = next,
        }
    }
}

async fn ask<T: DeserializeOwned>(
    client: &Client,
    subject: &'static str,
    question: Value,
) -> Result<T, Error> {
    let refused = |why: String| Error::Log { subject, why };
    let request = client.request(subject, question.to_string().into());
    let reply = match tokio::time::timeout(ANSWER_TIMEOUT, request).await {
        Ok(reply) => reply.map_err(|error| refused(error.to_string()))?,
        Err(_) => return Err(refused(format!("no answer within {ANSWER_TIMEOUT:?}"))),
    };
    if let Some(why) = reply.headers.as_ref().and_then(|h| h.get("Nats-Service-Error")) {
        return Err(refused(why.as_str().to_owned()));
    }
    serde_json::from_slice(&reply.payload).map_err(|error| Error::unreadable(subject, error))
}

#[derive(Deserialize)]
struct Counts {
    position: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Satellites {
    satellites: Vec<Satellite>,
    #[serde(default)]
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Transitions {
    transitions: Vec<Entry>,
}

/// A transition as the log tells it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    position: i64,
    revision: i64,
    change_id: Uuid,
    id: Uuid,
    event: String,
    reason: String,
    session: i64,
    next: Option<Next>,
    outage_id: Option<Uuid>,
    maintenance_id: Option<Uuid>,
    #[serde(with = "time::serde::rfc3339")]
    occurred_at: OffsetDateTime,
}

#[derive(Deserialize)]
struct Next {
    #[serde(flatten)]
    state: State,
    #[serde(default)]
    flapping: bool,
}

impl From<Entry> for Transition {
    fn from(entry: Entry) -> Transition {
        let Ok(event) = entry.event.parse::<Event>();
        let flapping = entry.next.as_ref().is_some_and(|next| next.flapping);
        Transition {
            position: entry.position,
            change: entry.change_id,
            revision: entry.revision,
            satellite: entry.id,
            event,
            reason: entry.reason,
            session: entry.session,
            occurred_at: entry.occurred_at,
            state: entry.next.map(|next| next.state),
            flapping,
            outage: entry.outage_id,
            maintenance: entry.maintenance_id,
        }
    }
}
