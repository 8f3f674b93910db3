//! A durable consumer of the stream: it handles each transition once, in order, whatever happens to
//! the consumer, the stream or NATS. `consume.py` and `consume.ts` are the same in other languages.
//!
//! It remembers the last position it has handled, and its change id:
//!
//! - **A position up to that one** was handled before (redelivered, or the stream was built anew and
//!   says so in `Groundstation-Epoch`): the consumer skips it.
//! - **The same position with another change id**: the log was restored to an earlier time and went
//!   another way. The consumer stops: only a person can decide about the transitions it handled.
//! - **A gap**: the consumer asks the log for the missing positions, by
//!   `groundstation.v1.transitions.list`. Retention has dropped those that are not there either: read
//!   the fleet as it is now (`groundstation.v1.satellites.list`).
//!
//! Settings: `NATS_URL`, `STATE` (a file), `DURABLE` (the consumer's name), `COUNT` (end after so many).

use std::{env, fs};

use anyhow::{Context, bail};
use async_nats::jetstream::{self, consumer::pull};
use async_nats::{Client, ConnectOptions, HeaderMap, ServerAddr};
use futures_util::TryStreamExt;
use serde_json::{Value, json};

/// Transitions in one question.
const PAGE: i64 = 1_000;

/// What survives a restart. Stored in one transaction with the effects of [`handle`], each effect is
/// there exactly once. In a file of its own, as here, a crash between the two handles one again.
struct State {
    file: String,
    position: i64,
    change: String,
    epoch: i64,
}

impl State {
    fn load(file: String) -> State {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let known: Value = serde_json::from_str(&text).unwrap_or_default();
        State {
            file,
            position: known["position"].as_i64().unwrap_or(0),
            change: known["change"].as_str().unwrap_or_default().to_owned(),
            epoch: known["epoch"].as_i64().unwrap_or(1),
        }
    }

    /// Handles a transition and remembers it.
    fn take(&mut self, position: i64, change: &str, event: &str, id: &str) -> anyhow::Result<()> {
        handle(position, event, id);
        (self.position, self.change) = (position, change.to_owned());
        let known = json!({"position": position, "change": change, "epoch": self.epoch});
        let new = format!("{}.new", self.file);
        fs::write(&new, known.to_string()).and_then(|()| fs::rename(&new, &self.file))?;
        Ok(())
    }

    /// Asks the log for the missing transitions before a position; returns how many it handled.
    async fn fill(&mut self, client: &Client, position: i64) -> anyhow::Result<u64> {
        let mut filled = 0;
        while self.position + 1 < position {
            let until = (position - 1).min(self.position + PAGE);
            let asked = json!({"after": self.position, "limit": until - self.position});
            let subject = "groundstation.v1.transitions.list";
            let reply = client.request(subject, asked.to_string().into()).await?;
            if let Some(error) = reply.headers.as_ref().and_then(|h| h.get("Nats-Service-Error")) {
                bail!("the log does not answer: {error}");
            }
            let page: Value = serde_json::from_slice(&reply.payload)?;
            let page = page["transitions"].as_array().context("no transitions")?;
            for entry in
                page.iter().filter(|e| e["position"].as_i64().is_some_and(|p| p < position))
            {
                let word = |field: &str| entry[field].as_str().unwrap_or_default();
                let at = entry["position"].as_i64().context("no position")?;
                self.take(at, word("changeId"), word("event"), word("id"))?;
                filled += 1;
            }
            // The rest is missing: the log begins later.
            if self.position < until {
                break;
            }
        }
        if self.position + 1 < position && self.position > 0 {
            eprintln!("positions up to {} were dropped: read the fleet", position - 1);
        }
        Ok(filled)
    }
}

/// The work itself.
fn handle(position: i64, event: &str, satellite: &str) {
    println!("{}", json!({"position": position, "event": event, "satelliteId": satellite}));
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let setting = |name, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let client = connect(&setting("NATS_URL", "nats://127.0.0.1:4222")).await?;
    let durable = setting("DURABLE", "automation");
    let count: u64 = setting("COUNT", "0").parse().context("COUNT is a number")?;
    let mut state = State::load(setting("STATE", "consume.state"));

    let stream = jetstream::new(client.clone()).get_stream("SATELLITE_TRANSITIONS").await?;
    let config = pull::Config { durable_name: Some(durable.clone()), ..Default::default() };
    let consumer = stream.get_or_create_consumer(&durable, config).await?;
    let mut messages = consumer.messages().await?;
    let mut handled = 0;
    while let Some(message) = messages.try_next().await? {
        let headers = message.headers.clone().unwrap_or_default();
        // A foreign message has no position.
        if let Some(position) = number(&headers, "Groundstation-Position") {
            let change = headers.get("Nats-Msg-Id").map_or("", |value| value.as_str());
            let epoch = number(&headers, "Groundstation-Epoch").unwrap_or(1);
            if epoch > state.epoch {
                eprintln!("epoch {epoch}: the stream was built anew");
                state.epoch = epoch;
            }
            if position == state.position && change != state.change {
                bail!("position {position} is another change now: the log was restored");
            }
            if position > state.position {
                handled += state.fill(&client, position).await?;
                let body: Value = serde_json::from_slice(&message.payload)?;
                let event = message.subject.trim_start_matches("satellite.");
                let id = body["satelliteId"].as_str().context("no satelliteId")?;
                state.take(position, change, event, id)?;
                handled += 1;
            } else {
                eprintln!("position {position} was handled before");
            }
        }
        // Acknowledged only now: an unhandled message comes again.
        message.double_ack().await.map_err(|error| anyhow::anyhow!(error))?;
        if count > 0 && handled >= count {
            break;
        }
    }
    Ok(())
}

fn number(headers: &HeaderMap, name: &str) -> Option<i64> {
    headers.get(name)?.as_str().parse().ok()
}

/// The client ignores user and password in an address.
async fn connect(url: &str) -> anyhow::Result<Client> {
    let server: ServerAddr = url.parse().context("NATS_URL is no address")?;
    let options = match (server.username(), server.password()) {
        (Some(user), Some(password)) => {
            ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        }
        _ => ConnectOptions::new(),
    };
    Ok(options.connect(&server).await?)
}
