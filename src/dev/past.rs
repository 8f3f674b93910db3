//! The demonstration's past: a few hours in which its satellites came and went, so that there is something to see at
//! once. It is made before the first pod starts, in the demonstration's own database, and only if that is empty.
//!
//! The same past each time, but for the moment at which it ends.

use std::collections::HashMap;
use std::time::Duration;

use fastrand::Rng;
use time::OffsetDateTime;

use super::{HEARTBEAT_INTERVAL, Member, SATELLITES, THRESHOLD, new_satellite};
use crate::domain::lifecycle::{Profile, Reason, SatelliteId};
use crate::log::made_past::{self, Edge, Kind};
use crate::platform::database::Address;
use crate::platform::token::Digest;
use crate::registry::made_past::register;

/// How long it is.
const SPAN: Duration = minutes(6 * 60);

/// A region loses its network: which, when and for how long.
const OUTAGE: (&str, Duration, Duration) = ("eu-west", minutes(4 * 60 + 10), minutes(7));

/// A satellite on a bad line: which, from when on, how many drops, and how often.
const FLAPPING: (&str, Duration, u32, Duration) =
    ("mumbai-1", minutes(2 * 60 + 30), 14, Duration::from_secs(25));

/// How long a satellite that dropped stays away, when it comes back by itself.
const RECONNECT: Duration = Duration::from_secs(6);

/// How long a satellite is there at least: it was heard, and missed for its threshold.
const UP: Duration = Duration::from_secs(10);

const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

/// What takes a satellite away.
struct Incident {
    kind: Kind,
    /// When, since the past began.
    from: Duration,
    to: Duration,
}

/// Makes the past of these members, which are those of [`SATELLITES`] in order; nothing if the database is not empty.
/// Returns its last position.
pub fn make(address: &Address, members: &[Member]) -> anyhow::Result<i64> {
    let mut client = address.connect_blocking()?;
    let mut transaction = client.transaction()?;
    if !made_past::is_empty(&mut transaction)? {
        return Ok(0);
    }
    let now = "select date_trunc('milliseconds', clock_timestamp())";
    let now: OffsetDateTime = transaction.query_one(now, &[])?.try_get(0)?;
    let began = now - SPAN;
    let mut profiles = HashMap::new();
    for ((name, region), member) in SATELLITES.iter().zip(members) {
        let (id, new) = (SatelliteId(member.id), new_satellite(name, region));
        let token = Digest::of(&member.token);
        register(&mut transaction, id, &new, &token, began)?;
        profiles.insert(id, Profile { name: new.name, region: new.region, threshold: THRESHOLD });
    }
    let ids: Vec<SatelliteId> = members.iter().map(|member| SatelliteId(member.id)).collect();
    let edges = edges(&ids, began);
    made_past::write(&mut transaction, &profiles, &edges)?;
    transaction.commit()?;
    Ok(edges.len() as i64)
}

/// The edges of all satellites, in the order of their times.
fn edges(ids: &[SatelliteId], began: OffsetDateTime) -> Vec<Edge> {
    let mut rng = Rng::with_seed(12);
    let mut edges = Vec::new();
    for ((name, region), id) in SATELLITES.iter().zip(ids) {
        let mut up_since = upto(&mut rng, minutes(1));
        edges.push(edge(*id, Kind::Connect, up_since, began));
        for incident in incidents(name, region, &mut rng) {
            // Those that would meet the one before, or the end, did not happen.
            if incident.from < up_since + UP || incident.to + UP > SPAN {
                continue;
            }
            edges.push(edge(*id, incident.kind, incident.from, began));
            edges.push(edge(*id, Kind::Connect, incident.to, began));
            up_since = incident.to;
        }
        // The real satellites come a moment later.
        edges.push(edge(*id, Kind::Disconnect(Reason::ClientClose), SPAN, began));
    }
    edges.sort_by_key(|edge| edge.at);
    edges
}

/// A loss is found once the time of the last heartbeat is over.
fn edge(satellite: SatelliteId, kind: Kind, at: Duration, began: OffsetDateTime) -> Edge {
    let heard_before = if kind == Kind::Lost { THRESHOLD } else { HEARTBEAT_INTERVAL / 2 };
    let at = began + at;
    Edge { satellite, kind, heard: at - heard_before - Duration::from_millis(1), at }
}

/// What took a satellite away, in the order of time.
fn incidents(name: &str, region: &str, rng: &mut Rng) -> Vec<Incident> {
    let mut incidents = Vec::new();
    let (of, from, length) = OUTAGE;
    if of == region {
        let (from, to) = (from + upto(rng, THRESHOLD), from + length + upto(rng, minutes(1)));
        incidents.push(Incident { kind: Kind::Lost, from, to });
    }
    let (of, first, drops, every) = FLAPPING;
    if of == name {
        incidents.extend((0..drops).map(|n| {
            let from = first + every * n;
            let kind = Kind::Disconnect(Reason::ConnectionDropped);
            Incident { kind, from, to: from + RECONNECT }
        }));
    }
    let mut at = upto(rng, minutes(60));
    while at < SPAN {
        let (kind, away) = match rng.u32(..10) {
            0..4 => (Kind::Disconnect(Reason::ClientClose), minutes(2) + upto(rng, minutes(12))),
            4..7 => (Kind::Disconnect(Reason::ConnectionDropped), RECONNECT),
            _ => (Kind::Lost, minutes(1) + upto(rng, minutes(8))),
        };
        incidents.push(Incident { kind, from: at, to: at + away });
        at += away + minutes(10) + upto(rng, minutes(70));
    }
    incidents.sort_by_key(|incident| incident.from);
    incidents
}

/// A random time below this one, in whole milliseconds.
fn upto(rng: &mut Rng, most: Duration) -> Duration {
    Duration::from_millis(rng.u64(..most.as_millis() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn the_past_has_losses_an_outage_and_a_flapping_satellite_and_ends_with_all_away() {
        let ids: Vec<_> = (1..=12).map(|n| SatelliteId(Uuid::from_u128(n))).collect();
        let edges = edges(&ids, OffsetDateTime::UNIX_EPOCH);
        assert!(edges.is_sorted_by_key(|edge| edge.at));
        assert!((150..500).contains(&edges.len()), "{}", edges.len());
        let (of, from, length) = OUTAGE;
        let is_outage = |edge: &&Edge| {
            let at = edge.at - OffsetDateTime::UNIX_EPOCH;
            edge.kind == Kind::Lost && at >= from && at < from + length
        };
        let lost: Vec<_> = edges.iter().filter(is_outage).map(|edge| edge.satellite).collect();
        for ((_, region), id) in SATELLITES.iter().zip(&ids) {
            assert!(*region != of || lost.contains(id));
            let last = edges.iter().rfind(|edge| edge.satellite == *id).expect("edges");
            assert_eq!(last.kind, Kind::Disconnect(Reason::ClientClose));
        }
        let flapping = SATELLITES.iter().position(|(name, _)| *name == FLAPPING.0).expect("one");
        let its = edges.iter().filter(|edge| edge.satellite == ids[flapping]).count();
        assert!(its > 2 * FLAPPING.2 as usize, "{its}");
    }
}
