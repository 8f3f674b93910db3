//! A task that looks at the fleet all the time and remembers satellites that were shown offline.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;

use super::fleet::Fleet;
use super::wait::blocking;

/// Pause between two looks at one pod.
const PAUSE: Duration = Duration::from_millis(50);

/// It looks until it is asked what it has seen.
pub struct Onlooker {
    stop: Arc<AtomicBool>,
    looking: Vec<JoinHandle<Sightings>>,
}

#[derive(Default)]
struct Sightings {
    looks: u64,
    /// How often each name was shown offline.
    offline: BTreeMap<String, u64>,
}

impl Onlooker {
    /// Looks at these pods. Missing and invalid answers are not counted.
    pub fn at(fleet: &Fleet, pods: &[SocketAddr]) -> Onlooker {
        let stop = Arc::new(AtomicBool::new(false));
        let look = |address: &SocketAddr| {
            let (address, token, stop) = (*address, fleet.read_token.clone(), stop.clone());
            tokio::spawn(blocking(move || {
                let mut sightings = Sightings::default();
                while !stop.load(Ordering::SeqCst) {
                    if let Some(page) = offline(address, &token) {
                        sightings.note(&page);
                    }
                    std::thread::sleep(PAUSE);
                }
                sightings
            }))
        };
        let looking = pods.iter().map(look).collect();
        Onlooker { stop, looking }
    }

    /// The satellites with this prefix that were ever shown offline, and how often.
    pub async fn saw_offline(mut self, prefix: &str) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        let mut seen = Vec::new();
        for looking in std::mem::take(&mut self.looking) {
            let sightings = looking.await.expect("an onlooker");
            assert!(sightings.looks > 0, "an onlooker that never saw anything");
            let named = sightings.offline.iter().filter(|(name, _)| name.starts_with(prefix));
            seen.extend(named.map(|(name, times)| format!("{name}: {times}")));
        }
        seen
    }
}

impl Drop for Onlooker {
    /// A failed test does not wait for tasks that still look.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

impl Sightings {
    fn note(&mut self, page: &Value) {
        self.looks += 1;
        for satellite in page["satellites"].as_array().into_iter().flatten() {
            let name = satellite["name"].as_str().unwrap_or_default().to_owned();
            *self.offline.entry(name).or_default() += 1;
        }
    }
}

fn offline(address: SocketAddr, token: &str) -> Option<Value> {
    let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).build();
    let agent = ureq::Agent::new_with_config(config);
    let url = format!("http://{address}/v1/satellites?status=offline&limit=1000");
    let mut answer =
        agent.get(url).header("Authorization", format!("Bearer {token}")).call().ok()?;
    serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()
}
