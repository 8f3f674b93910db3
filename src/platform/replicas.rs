//! On how many servers of a cluster a stream is kept.
//!
//! A pod chooses this for a stream that it makes, and never changes a stream that is there: that is the operator's.
//! It says where a stream is on fewer servers than it should be, once, and as a metric.

use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind};
use async_nats::jetstream::stream::{Config, Info, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use tracing::warn;

use crate::platform::metrics::Metrics;

/// The replicas of a stream on a cluster that has as many servers: one may be lost.
const USUAL: usize = 3;

/// The most that nats-server takes.
const MOST: usize = 5;

/// How long the servers of a cluster that starts may take to find each other. After that a pod makes the stream on
/// those that are there.
const JOINING: Duration = Duration::from_secs(10);

/// How many servers are to keep a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replicas {
    /// As many as the cluster has, three at most.
    AsManyAsThereAre,
    /// So many; a stream is not made on fewer.
    Exactly(usize),
}

impl FromStr for Replicas {
    type Err = String;

    fn from_str(text: &str) -> Result<Replicas, String> {
        match text.parse::<usize>() {
            _ if text == "auto" => Ok(Replicas::AsManyAsThereAre),
            Ok(number) if (1..=MOST).contains(&number) => Ok(Replicas::Exactly(number)),
            _ => Err(format!("it must be auto or a number from 1 to {MOST}")),
        }
    }
}

/// Makes one stream, and looks at its replicas.
#[derive(Debug)]
pub struct Replication {
    stream: &'static str,
    wanted: Replicas,
    /// Since when the cluster has had too few servers to make the stream.
    short_since: Option<Instant>,
    /// The number of replicas that was told of.
    told: Option<usize>,
}

impl Replication {
    /// For the stream of this name.
    pub fn of(stream: &'static str, wanted: Replicas) -> Replication {
        Replication { stream, wanted, short_since: None, told: None }
    }

    /// Makes the stream. Where the cluster has fewer servers than usual, the first calls fail: more may be about to
    /// join.
    pub async fn make(&mut self, jetstream: &Context, config: Config) -> anyhow::Result<Stream> {
        let (fewest, most) = match self.wanted {
            Replicas::Exactly(number) => (number, number),
            Replicas::AsManyAsThereAre => (1, USUAL),
        };
        let stream = self.stream;
        for num_replicas in (fewest..=most).rev() {
            let name = stream.to_owned();
            let config = Config { name, num_replicas, ..config.clone() };
            let refusal = match jetstream.create_stream(config).await {
                Ok(stream) => return Ok(stream),
                Err(refusal) => refusal,
            };
            let fewer_may_do = num_replicas > fewest && is_too_many(&refusal);
            if !fewer_may_do || (lacks_servers(&refusal) && self.may_be_joining()) {
                return Err(refusal).with_context(|| {
                    format!("cannot create the stream {stream} on {num_replicas} servers")
                });
            }
        }
        anyhow::bail!("the stream {stream} can be made on no number of servers")
    }

    fn may_be_joining(&mut self) -> bool {
        self.short_since.get_or_insert_with(Instant::now).elapsed() < JOINING
    }

    /// Counts the stream's replicas, and says so where they are too few.
    pub fn look(&mut self, info: &Info, metrics: &Metrics) {
        let (stream, replicas) = (self.stream, info.config.num_replicas);
        metrics.stream_replicas(stream, replicas);
        let wanted = match self.wanted {
            Replicas::Exactly(number) => number,
            Replicas::AsManyAsThereAre if is_clustered(info) => USUAL,
            Replicas::AsManyAsThereAre => 1,
        };
        if replicas < wanted && self.told.replace(replicas) != Some(replicas) {
            warn!(
                replicas,
                wanted,
                "the stream {stream} is on fewer servers than it should be: `nats stream edit {stream} --replicas {wanted}`"
            );
        }
    }
}

fn is_clustered(info: &Info) -> bool {
    info.cluster.as_ref().is_some_and(|cluster| cluster.name.is_some())
}

/// Whether a stream with fewer replicas may be taken.
fn is_too_many(refusal: &CreateStreamError) -> bool {
    const TOO_MANY: [ErrorCode; 3] = [
        ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED,
        // The account has no room for as many, or none for streams with as many.
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ErrorCode::NO_LIMITS,
    ];
    lacks_servers(refusal) || code(refusal).is_some_and(|code| TOO_MANY.contains(&code))
}

/// Whether the cluster has too few servers at the moment.
fn lacks_servers(refusal: &CreateStreamError) -> bool {
    const FEW: [ErrorCode; 2] = [ErrorCode::CLUSTER_NO_PEERS, ErrorCode::INSUFFICIENT_RESOURCES];
    code(refusal).is_some_and(|code| FEW.contains(&code))
}

fn code(refusal: &CreateStreamError) -> Option<ErrorCode> {
    match refusal.kind() {
        CreateStreamErrorKind::JetStream(error) => Some(error.error_code()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_or_as_many_as_there_are() {
        for (text, replicas) in [
            ("auto", Ok(Replicas::AsManyAsThereAre)),
            ("1", Ok(Replicas::Exactly(1))),
            ("5", Ok(Replicas::Exactly(5))),
            ("0", Err(())),
            ("6", Err(())),
            ("-1", Err(())),
            ("", Err(())),
            ("three", Err(())),
        ] {
            assert_eq!(text.parse::<Replicas>().map_err(drop), replicas, "{text:?}");
        }
    }
}
