//! The tally of a simulation: counted while it runs, reported at the end.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::cost::{self, Cost};
use crate::clients::agent::Happening;

/// The most waits that are kept for the summary's percentiles.
const MAX_WAITS: usize = 1_000_000;

/// The counts so far.
pub(super) struct Tally {
    satellites: usize,
    began: Instant,
    all_online: OnceLock<Duration>,
    online: AtomicI64,
    authenticated: AtomicU64,
    disconnected: AtomicU64,
    refused: AtomicU64,
    shut_down: AtomicU64,
    heartbeats: AtomicU64,
    orders: AtomicU64,
    /// Milliseconds from connecting to authenticated.
    waits: Mutex<Vec<f64>>,
}

impl Tally {
    pub fn new(satellites: usize) -> Tally {
        Tally {
            satellites,
            began: Instant::now(),
            all_online: OnceLock::new(),
            online: AtomicI64::new(0),
            authenticated: AtomicU64::new(0),
            disconnected: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            shut_down: AtomicU64::new(0),
            heartbeats: AtomicU64::new(0),
            orders: AtomicU64::new(0),
            waits: Mutex::new(Vec::new()),
        }
    }

    /// Counts what happened to a satellite. `online` is whether the satellite believes that it is
    /// online.
    pub fn note(&self, online: &mut bool, happening: &Happening) {
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        let mut leave = || {
            if std::mem::take(online) {
                self.online.fetch_sub(1, Ordering::Relaxed);
            }
        };
        match happening {
            Happening::Authenticated(wait) => {
                count(&self.authenticated);
                let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
                if waits.len() < MAX_WAITS {
                    waits.push(wait.as_secs_f64() * 1e3);
                }
                drop(waits);
                if !std::mem::replace(online, true)
                    && self.online.fetch_add(1, Ordering::Relaxed) + 1 == self.satellites as i64
                {
                    self.all_online.get_or_init(|| self.began.elapsed());
                }
            }
            Happening::Heartbeat => {
                count(&self.heartbeats);
            }
            Happening::Refused(_) => {
                count(&self.refused);
                leave();
            }
            Happening::Shutdown(_) => {
                count(&self.shut_down);
                leave();
            }
            Happening::Disconnected(_) => {
                count(&self.disconnected);
                leave();
            }
            Happening::Pausing(_) => leave(),
        }
    }

    /// Counts an order to flap.
    pub fn ordered(&self) {
        self.orders.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            satellites: self.satellites,
            online: self.online.load(Ordering::Relaxed),
            connects: read(&self.authenticated),
            disconnects: read(&self.disconnected),
            shutdowns: read(&self.shut_down),
            refused: read(&self.refused),
            heartbeats: read(&self.heartbeats),
            flaps_ordered: read(&self.orders),
        }
    }

    /// The whole summary.
    pub fn summary(&self) -> Summary {
        Summary {
            counts: self.counts(),
            seconds: self.began.elapsed().as_secs_f64(),
            all_online_after_seconds: self.all_online.get().map(Duration::as_secs_f64),
            connecting: Waits::of(&self.waits.lock().unwrap_or_else(PoisonError::into_inner)),
            own: cost::own(),
        }
    }
}

/// How often each thing happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// The number of satellites.
    pub satellites: usize,
    /// How many of them believe that they are online.
    pub online: i64,
    /// How often a satellite was authenticated.
    pub connects: u64,
    /// How often a connection ended or could not be opened.
    pub disconnects: u64,
    /// How often a satellite received a `shutdown`.
    pub shutdowns: u64,
    /// How often a satellite was refused.
    pub refused: u64,
    /// Heartbeats sent.
    pub heartbeats: u64,
    /// Orders to leave, to drop the connection or to fall silent.
    pub flaps_ordered: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{} online · {} connects · {} disconnects · {} shutdowns · {} refused · {} heartbeats",
            self.online,
            self.satellites,
            self.connects,
            self.disconnects,
            self.shutdowns,
            self.refused,
            self.heartbeats,
        )
    }
}

/// The result of a simulation.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// How often each thing happened.
    #[serde(flatten)]
    pub counts: Counts,
    /// How long it took, without registering and removing.
    pub seconds: f64,
    /// After how long all of them were online for the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_online_after_seconds: Option<f64>,
    /// From connecting to authenticated.
    pub connecting: Waits,
    /// What the simulator itself cost, if the system says so. It is no part of the pods' cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own: Option<Cost>,
}

/// Waits in milliseconds; 0 if there was none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waits {
    /// The median.
    pub p50_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// The longest.
    pub most_ms: f64,
}

impl Waits {
    fn of(waits: &[f64]) -> Waits {
        let mut waits = waits.to_vec();
        waits.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let last = waits.len().saturating_sub(1);
            waits.get((last as f64 * share) as usize).copied().unwrap_or(0.0)
        };
        Waits { p50_ms: at(0.5), p99_ms: at(0.99), most_ms: at(1.0) }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} in {:.1} s", self.counts, self.seconds)?;
        let Waits { p50_ms, p99_ms, most_ms } = self.connecting;
        write!(f, "flaps ordered: {} · connecting took ", self.counts.flaps_ordered)?;
        write!(f, "p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, most {most_ms:.1} ms")?;
        if let Some(after) = self.all_online_after_seconds {
            write!(f, " · all online after {after:.2} s")?;
        }
        if let Some(own) = self.own {
            let cores = own.cpu_seconds / self.seconds.max(0.001) * 100.0;
            let memory = own.peak_resident_bytes as f64 / f64::from(1 << 20);
            write!(f, "\nthe simulator itself: {cores:.0} % of a core, at most {memory:.0} MiB")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_satellite_counts_as_online_once_however_often_it_is_told() {
        let (tally, mut online) = (Tally::new(1), false);
        let online_after = |happening: Happening, online: &mut bool| {
            tally.note(online, &happening);
            tally.online.load(Ordering::Relaxed)
        };
        let here = Happening::Authenticated(Duration::from_millis(3));
        assert_eq!(online_after(here.clone(), &mut online), 1);
        assert_eq!(online_after(here, &mut online), 1);
        assert_eq!(online_after(Happening::Shutdown(String::new()), &mut online), 0);
        assert_eq!(online_after(Happening::Disconnected(String::new()), &mut online), 0);
        assert_eq!(online_after(Happening::Pausing(Duration::ZERO), &mut online), 0);
        assert!(tally.summary().all_online_after_seconds.is_some());
        assert!(tally.summary().to_string().contains("p50 3.0 ms"));
    }
}
