//! What becomes of the heartbeats of satellites that are fine: pods vouch for them, or write each ([`super::written`]).

use super::fleet::Fleet;
use super::pod::Pod;
use super::satellite::{Credentials, Satellite};
use super::wait::eventually;

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
