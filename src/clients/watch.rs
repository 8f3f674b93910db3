//! The triggers as they arrive on NATS, for people and for programs.
//!
//! It uses an ordered consumer: after a reconnect it continues without a gap.

use std::time::Duration;

use anyhow::{Context, bail};
use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::{self, Message};
use futures_util::{Stream, StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::printable::printable;
use crate::domain::lifecycle::Event;
use crate::stream::tail::NAME;

/// How long to wait for the stream. The first pod that relays makes it.
const STREAM_TIMEOUT: Duration = Duration::from_secs(30);

/// One trigger, as received.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// The trigger's id.
    pub subject: String,
    /// Its transition's position in the log.
    pub position: i64,
    /// Its transition's revision.
    pub revision: i64,
    /// Its transition's session.
    pub session: i64,
    /// Its transition's reason.
    pub reason: String,
    /// The change id.
    pub change_id: String,
    /// When it happened.
    pub time: String,
    /// The body.
    pub body: Value,
}

/// All triggers from now on.
pub async fn triggers(
    client: async_nats::Client,
) -> anyhow::Result<impl Stream<Item = anyhow::Result<Seen>>> {
    let context = jetstream::new(client);
    let stream = wait_for_stream(&context).await?;
    let consumer = stream
        .create_consumer(pull::OrderedConfig {
            deliver_policy: DeliverPolicy::New,
            ..pull::OrderedConfig::default()
        })
        .await
        .context("cannot subscribe")?;
    let messages = consumer.messages().await.context("cannot subscribe")?;
    Ok(messages
        .map_err(|error| anyhow::anyhow!("the subscription ended: {error}"))
        .map(|message| message.map(|message| seen(&message))))
}

async fn wait_for_stream(
    context: &jetstream::Context,
) -> anyhow::Result<jetstream::stream::Stream> {
    let give_up = Instant::now() + STREAM_TIMEOUT;
    loop {
        match context.get_stream(NAME).await {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() >= give_up => {
                bail!("there is no stream {NAME} ({error}): has a pod ever run here?")
            }
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

fn seen(message: &Message) -> Seen {
    let none = HeaderMap::new();
    let headers = message.headers.as_ref().unwrap_or(&none);
    let text = |name: &str| headers.get(name).map_or("", |value| value.as_str()).to_owned();
    let number = |name: &str| text(name).parse().unwrap_or(0);
    Seen {
        subject: message.subject.to_string(),
        position: number("Groundstation-Position"),
        revision: number("Groundstation-Revision"),
        session: number("Groundstation-Session"),
        reason: text("Groundstation-Reason"),
        change_id: text("Nats-Msg-Id"),
        time: text("ce-time"),
        body: serde_json::from_slice(&message.payload).unwrap_or(Value::Null),
    }
}

impl Seen {
    /// One line for people. `colour` marks the event. What others wrote in it steers no terminal.
    pub fn line(&self, colour: bool) -> String {
        let event = self.subject.strip_prefix("satellite.").unwrap_or(&self.subject);
        let code = match event.parse() {
            Ok(Event::Connected) => "32",
            Ok(Event::Disconnected) => "33",
            Ok(Event::HeartbeatLost) => "31",
            Ok(Event::Removed) | Err(_) => "35",
        };
        let padded = format!("{:<14}", printable(event));
        let event = if colour { format!("\x1b[{code}m{padded}\x1b[0m") } else { padded };
        // hh:mm:ss.mmm of the RFC 3339 time
        let time = self.time.get(11..23).unwrap_or(&self.time);
        let body = |name: &str| self.body[name].as_str().unwrap_or_default().to_owned();
        let who = match (body("name"), body("region")) {
            (name, region) if !name.is_empty() => format!("{name} ({region})"),
            _ => body("satelliteId"),
        };
        let (time, who, reason) = (printable(time), printable(&who), printable(&self.reason));
        format!(
            "{time}  {event}  {who:<28}  {reason:<18}  session {:<4}  position {}",
            self.session, self.position
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_says_when_what_who_and_why() {
        let seen = Seen {
            subject: "satellite.heartbeat_lost".to_owned(),
            position: 7,
            revision: 3,
            session: 2,
            reason: "heartbeat_timeout".to_owned(),
            change_id: String::new(),
            time: "2026-03-01T12:00:00.250Z".to_owned(),
            body: json!({"name": "edge", "region": "eu"}),
        };
        let line = seen.line(false);
        for part in
            ["12:00:00.250", "heartbeat_lost", "edge (eu)", "heartbeat_timeout", "position 7"]
        {
            assert!(line.contains(part), "{line}");
        }
        assert!(seen.line(true).contains("\x1b[31mheartbeat_lost\x1b[0m"));
    }
}
