//! What becomes of the heartbeats of satellites that are fine: pods vouch for them, or write each.
//!
//! In every test pods vouch, as in the field. A test of what has to hold either way is named once more in
//! [`written`], which runs it with `GROUNDSTATION_VOUCH_WINDOW=0`.

use std::cell::Cell;
use std::time::Duration;

use super::fleet::{Fleet, Timing};
use super::pod::Pod;
use super::satellite::{Credentials, Satellite};
use super::wait::eventually;

thread_local! {
    /// A test makes its fleets on its own thread.
    static ARE_WRITTEN: Cell<bool> = const { Cell::new(false) };
    static FLEETS: Cell<u32> = const { Cell::new(0) };
}

/// Whether the fleet that is made now writes every heartbeat.
pub(super) fn are_written() -> bool {
    FLEETS.set(FLEETS.get() + 1);
    ARE_WRITTEN.get()
}

/// Runs a test whose fleets write every heartbeat.
pub fn run_written(test: fn()) {
    /// The next test may run on the same thread.
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            ARE_WRITTEN.set(false);
        }
    }
    let _reset = Reset;
    ARE_WRITTEN.set(true);
    FLEETS.set(0);
    test();
    assert!(FLEETS.get() > 0, "its fleet was made elsewhere: it is the same test twice");
}

/// Runs these tests of this file once more, with every heartbeat written.
macro_rules! written {
    ($($test:ident),+ $(,)?) => {
        mod written {
            $(
                #[test]
                fn $test() {
                    crate::harness::heartbeats::run_written(super::$test);
                }
            )+
        }
    };
}
pub(crate) use written;

impl Timing {
    /// For how long pods of tests vouch: longer than by default, so that a heartbeat that a busy machine
    /// holds up is no exception, and short enough that the threshold is.
    pub fn window(self) -> Duration {
        let window = (self.threshold / 4).min(Duration::from_millis(1_500));
        window.max(self.heartbeat * 4 / 3)
    }
}

impl Fleet {
    /// A satellite that beats on this pod, and the pod has done with its heartbeats what it does from now
    /// on: it vouches for it, or has written one.
    pub async fn beating(&self, pod: &Pod, credentials: &Credentials) -> Satellite {
        let mut one = self.all_beating(pod, std::slice::from_ref(credentials)).await;
        one.pop().expect("one")
    }

    /// The same of several.
    pub async fn all_beating(&self, pod: &Pod, all: &[Credentials]) -> Vec<Satellite> {
        let mut satellites = Vec::with_capacity(all.len());
        for credentials in all {
            let satellite = Satellite::connect(pod.address, credentials).await;
            satellite.beat_every(self.timing.heartbeat);
            satellites.push(satellite);
        }
        self.expect_heard(all).await;
        satellites
    }

    /// Waits until the rows of satellites that beat have said so, each in the way of this fleet.
    pub async fn expect_heard(&self, all: &[Credentials]) {
        const HEARD: &str = "
            select vouched, last_heartbeat_at > (
                       select max(occurred_at) from entity_transitions where entity_id = $1)
              from satellite_connections where satellite_id = $1";
        let sql = self.reader().await;
        for Credentials { id, .. } in all {
            eventually("a heartbeat to be vouched for or written", async || {
                let row = sql.query_one(HEARD, &[id]).await.expect("a row");
                let (is_vouched, is_newer): (bool, bool) = (row.get(0), row.get(1));
                let is_heard =
                    if self.is_vouching() { is_vouched } else { !is_vouched && is_newer };
                if is_heard { Ok(()) } else { Err(format!("{is_vouched}, {is_newer}")) }
            })
            .await;
        }
    }
}
