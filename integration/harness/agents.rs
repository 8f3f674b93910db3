//! Satellites as they are in the field: the project's own agent, which beats and reconnects by itself.
//! The harness knows what they really did, so that tests can hold it against what pods said of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use groundstation::clients::agent::{self, Happening, Identity, Order};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::fleet::Fleet;
use super::satellite::Credentials;
use super::wait::{PATIENCE, within};

/// Agents; dropping it breaks their connections.
pub struct Agents {
    pub credentials: Vec<Credentials>,
    orders: Vec<mpsc::Sender<Order>>,
    tasks: Vec<JoinHandle<()>>,
    truth: Arc<Truth>,
}

/// What the agents did.
#[derive(Default)]
struct Truth {
    connected: AtomicI64,
    authenticated: AtomicU64,
}

impl Agents {
    /// Starts agents that connect to this address again and again. They reconnect sooner than agents in the
    /// field, because their fleet's threshold is shorter.
    pub fn start(fleet: &Fleet, address: SocketAddr, credentials: Vec<Credentials>) -> Agents {
        let truth = Arc::new(Truth::default());
        let longest_pause = agent::LONGEST_PAUSE.min(fleet.timing.threshold / 4);
        let (mut orders, mut tasks) = (Vec::new(), Vec::new());
        for Credentials { id, token } in &credentials {
            let identity = Identity {
                url: format!("ws://{address}/api/ws/satellite"),
                id: *id,
                token: token.clone().into(),
                heartbeat_interval: fleet.timing.heartbeat,
                longest_pause,
                capabilities: Vec::new(),
                from: None,
            };
            let (order, told) = mpsc::channel(1);
            let (truth, mut here) = (truth.clone(), false);
            orders.push(order);
            tasks.push(tokio::spawn(agent::run(identity, told, move |happening| {
                truth.note(&mut here, &happening);
            })));
        }
        Agents { credentials, orders, tasks, truth }
    }

    /// Waits until all of them are connected at the same time.
    pub async fn expect_all(&self) {
        self.expect_all_within(PATIENCE).await;
    }

    /// Waits this long at most until all of them are connected at the same time.
    pub async fn expect_all_within(&self, patience: Duration) {
        let all = self.credentials.len() as i64;
        within(patience, &format!("all {all} agents to be connected"), async || {
            let connected = self.truth.connected.load(Ordering::SeqCst);
            if connected == all { Ok(()) } else { Err(connected.to_string()) }
        })
        .await;
    }

    /// How often a pod has let any of them in so far.
    pub fn authenticated(&self) -> u64 {
        self.truth.authenticated.load(Ordering::SeqCst)
    }

    /// Gives all agents an order at once.
    pub fn order(&self, order: Order) {
        for agent in &self.orders {
            agent.try_send(order).expect("an agent that has no other order");
        }
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Truth {
    fn note(&self, here: &mut bool, happening: &Happening) {
        match happening {
            Happening::Authenticated(_) => {
                self.authenticated.fetch_add(1, Ordering::SeqCst);
                if !std::mem::replace(here, true) {
                    self.connected.fetch_add(1, Ordering::SeqCst);
                }
            }
            Happening::Heartbeat => {}
            Happening::Refused(_)
            | Happening::Shutdown(_)
            | Happening::Disconnected(_)
            | Happening::Pausing(_) => {
                if std::mem::take(here) {
                    self.connected.fetch_sub(1, Ordering::SeqCst);
                }
            }
        }
    }
}
