//! The stream that keeps results.

use std::time::Duration;

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info};
use async_nats::jetstream::{Context, ErrorCode};
use tracing::info;

use crate::platform::replicas::Replication;

/// The stream's name.
pub const STREAM: &str = "SATELLITE_RESULTS";

/// The stream's only subject.
pub const SUBJECT: &str = "satellite.result";

/// How long, and up to how many bytes, a stream that a pod makes keeps results. Consumers are minutes behind
/// at worst, and results never end.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_STREAM_BYTES: i64 = 256 * 1024 * 1024;

/// How long the stream recognises a message id: longer than a publish is retried.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(5 * 60);

/// Makes the stream if it does not exist. A stream made by an operator is used as it is, if it has the
/// subject.
pub(super) async fn ensure(
    jetstream: &Context,
    replication: &mut Replication,
) -> anyhow::Result<Info> {
    match jetstream.get_stream(STREAM).await {
        Ok(stream) => {
            let info = stream.cached_info();
            anyhow::ensure!(
                info.config.subjects.iter().any(|subject| subject == SUBJECT),
                "it exists without the subject {SUBJECT}: add it"
            );
            return Ok(info.clone());
        }
        Err(error)
            if !matches!(error.kind(), GetStreamErrorKind::JetStream(error)
            if error.error_code() == ErrorCode::STREAM_NOT_FOUND) =>
        {
            anyhow::bail!("{error}");
        }
        Err(_) => {}
    }
    let config = Config {
        subjects: vec![SUBJECT.to_owned()],
        description: Some("Results of checks, as satellites reported them".to_owned()),
        max_age: MAX_AGE,
        max_bytes: MAX_STREAM_BYTES,
        discard: DiscardPolicy::Old,
        duplicate_window: DUPLICATE_WINDOW,
        ..Config::default()
    };
    let stream = replication.make(jetstream, config).await?;
    info!("made the stream {STREAM}");
    Ok(stream.cached_info().clone())
}

/// The largest message that the stream takes.
pub(super) fn largest_message(stream: &Info) -> usize {
    // None and -1 both mean no limit.
    match usize::try_from(stream.config.max_message_size) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(largest) => largest,
    }
}
