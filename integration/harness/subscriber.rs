//! A subscriber as an outsider would write it: core NATS on `satellite.>`, and the contract.

use std::collections::BTreeMap;

use async_nats::{Client, Message};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::time::timeout;
use uuid::Uuid;

use super::schemas;
use super::wait::PATIENCE;

/// Collects what is published.
pub struct Subscriber {
    subscription: async_nats::Subscriber,
    waiting: Vec<Message>,
}

impl Subscriber {
    /// Subscribes to everything from now on.
    pub async fn new(client: &Client) -> Subscriber {
        let subscription = client.subscribe("satellite.>").await.expect("a subscription");
        // The server has the subscription when it has answered.
        client.flush().await.expect("NATS answers");
        Subscriber { subscription, waiting: Vec::new() }
    }

    /// Waits for the next message on this subject about this satellite; others stay for later.
    pub async fn expect(&mut self, subject: &str, satellite: Uuid) -> Message {
        let wanted = |message: &Message| {
            message.subject.as_str() == subject && about(message) == Some(satellite)
        };
        if let Some(index) = self.waiting.iter().position(wanted) {
            return self.waiting.remove(index);
        }
        let search = async {
            while let Some(message) = self.subscription.next().await {
                check(&message);
                if wanted(&message) {
                    return message;
                }
                self.waiting.push(message);
            }
            panic!("the subscription has ended");
        };
        match timeout(PATIENCE, search).await {
            Ok(message) => message,
            Err(_) => panic!("no {subject} of {satellite} within {PATIENCE:?}"),
        }
    }
}

impl Subscriber {
    /// Waits, as long as the caller does, for the next message on this subject; returns its satellite.
    pub async fn next(&mut self, subject: &str) -> Uuid {
        loop {
            let message = match self.waiting.pop() {
                Some(message) => message,
                None => {
                    let message = self.subscription.next().await;
                    let message = message.expect("the subscription goes on");
                    check(&message);
                    message
                }
            };
            if message.subject.as_str() == subject {
                return about(&message).expect("a satellite");
            }
        }
    }
}

/// Holds a transition's message against what is published of it; foreign messages are left alone.
fn check(message: &Message) {
    let Some(headers) = &message.headers else { return };
    let each = headers.iter().map(|(name, values)| (name.to_string(), values[0].to_string()));
    let headers: BTreeMap<String, String> = each.collect();
    if headers.contains_key("Groundstation-Position") {
        let fault = schemas::fault(message.subject.as_str(), &headers, &body(message));
        assert_eq!(fault, None, "a message that is not as it is published");
    }
}

/// The message's body.
pub fn body(message: &Message) -> Value {
    serde_json::from_slice(&message.payload).expect("a body of JSON")
}

fn about(message: &Message) -> Option<Uuid> {
    body(message)["satelliteId"].as_str()?.parse().ok()
}
