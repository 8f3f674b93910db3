//! The fleet in a pod's metrics: how many satellites of each region are how, as this pod last counted them.
//!
//! A scrape sees one count as a whole, and none once the pod has ceased to count.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;

/// The satellites of a region, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// The region's name.
    pub region: String,
    /// Online.
    pub online: i64,
    /// Offline; those that have never connected are among them.
    pub offline: i64,
    /// Never connected.
    pub never_connected: i64,
    /// Those that come and go too often.
    pub flapping: i64,
}

/// The newest count; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Census(Arc<Mutex<Option<Count>>>);

#[derive(Debug)]
struct Count {
    tallies: Vec<Tally>,
    at: SystemTime,
}

impl Census {
    /// Shows this count, made at this time, instead of the one before.
    pub fn show(&self, tallies: Vec<Tally>, at: SystemTime) {
        *self.count() = Some(Count { tallies, at });
    }

    /// Shows nothing: another pod counts.
    pub fn clear(&self) {
        *self.count() = None;
    }

    fn count(&self) -> MutexGuard<'_, Option<Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Census {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let count = self.count();
        let tallies = count.as_ref().map_or(&[][..], |count| &count.tallies);
        let by_status = tallies.iter().flat_map(|tally| {
            let region = tally.region.as_str();
            [("online", tally.online), ("offline", tally.offline)]
                .map(|(status, number)| ([("region", region), ("status", status)], number))
        });
        let of = |number: fn(&Tally) -> i64| {
            tallies.iter().map(move |tally| ([("region", tally.region.as_str())], number(tally)))
        };
        gauges(&mut encoder, "satellites", "Satellites, by region and status", by_status)?;
        let never_connected = of(|tally| tally.never_connected);
        gauges(
            &mut encoder,
            "satellites_never_connected",
            "Satellites that have never connected",
            never_connected,
        )?;
        let flapping = of(|tally| tally.flapping);
        gauges(&mut encoder, "satellites_flapping", "Satellites that come and go", flapping)?;
        let mut newest = encoder.encode_descriptor(
            "satellites_counted_timestamp_seconds",
            "When this pod last counted the satellites; absent where another pod counts",
            None,
            MetricType::Gauge,
        )?;
        count.iter().try_for_each(|count| newest.encode_gauge(&seconds(count.at)))
    }
}

/// Writes one family.
fn gauges<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    mut samples: impl Iterator<Item = (L, i64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    samples.try_for_each(|(labels, number)| family.encode_family(&labels)?.encode_gauge(&number))
}

/// Seconds since 1970.
fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
