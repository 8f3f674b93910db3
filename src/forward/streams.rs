//! The forwarders' own streams: made where they are missing, and never changed.

use anyhow::bail;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{Config, Stream};
use async_nats::jetstream::{Context, ErrorCode};

use crate::platform::replicas::{Replicas, Replication};

/// The stream of this name, which is made with this configuration if it does not exist.
pub async fn ensure(
    jetstream: &Context,
    name: &'static str,
    config: Config,
    replicas: Replicas,
) -> anyhow::Result<Stream> {
    match find(jetstream, name).await? {
        Some(stream) => Ok(stream),
        None => Replication::of(name, replicas).make(jetstream, config).await,
    }
}

/// The stream of this name, if it exists.
pub async fn find(jetstream: &Context, name: &str) -> anyhow::Result<Option<Stream>> {
    match jetstream.get_stream(name).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(told)
                if told.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(None)
            }
            _ => bail!("cannot reach the stream {name}: {error}"),
        },
    }
}
