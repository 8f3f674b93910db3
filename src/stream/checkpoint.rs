//! The table `relay`: the relay's checkpoint, its lease and the epoch it publishes under.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use tokio_postgres::Error;
use tokio_postgres::types::ToSql;

use super::message::Epoch;
use crate::domain::lifecycle::Position;

/// How long a lease lasts without being renewed. Another pod takes over within this and one standby
/// pause, which is less than the promised 10 s.
pub const LEASE: Duration = Duration::from_secs(5);

/// A place on the stream and the transition that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// The transition's position.
    pub position: Position,
    /// The stream's sequence: what the next message must follow.
    pub sequence: u64,
}

/// The relay's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// What is known to be on the stream.
    pub tail: Tail,
    /// The current epoch.
    pub epoch: Epoch,
    /// Whether a pod relays, or did a moment ago.
    pub is_led: bool,
}

const READ: &str = "
    select position, stream_sequence, epoch,
           holder is not null and lease_expires_at
               between clock_timestamp() and clock_timestamp() + make_interval(secs => $1) as is_led
      from relay";

/// Reads the relay's row.
pub async fn read(client: &impl GenericClient) -> Result<Checkpoint, Error> {
    let statement = client.prepare_cached(READ).await?;
    let row = client.query_one(&statement, &[&LEASE.as_secs_f64()]).await?;
    // The table refuses negative numbers.
    let sequence = row.try_get::<_, i64>("stream_sequence")?.unsigned_abs();
    Ok(Checkpoint {
        tail: Tail { position: row.try_get("position")?, sequence },
        epoch: row.try_get("epoch")?,
        is_led: row.try_get("is_led")?,
    })
}

/// A lease that ends later than any given out now comes from a clock that has gone back.
const TAKE: &str = "
    update relay
       set holder = $1, lease_expires_at = clock_timestamp() + make_interval(secs => $2)
     where holder is not distinct from $1
        or lease_expires_at not between clock_timestamp() and clock_timestamp() + make_interval(secs => $2)";

/// Takes or keeps the lease; false if another pod has it.
pub async fn take(client: &impl GenericClient, holder: &str) -> Result<bool, Error> {
    Ok(client.execute(TAKE, &[&holder, &LEASE.as_secs_f64()]).await? == 1)
}

const RENEW: &str = "
    update relay
       set lease_expires_at = clock_timestamp() + make_interval(secs => $2),
           position = $3, stream_sequence = $4
     where holder = $1 and epoch = $5";

/// Renews the lease and stores the checkpoint; false if another pod has the lease, or the epoch is
/// over.
pub async fn renew(
    client: &impl GenericClient,
    holder: &str,
    epoch: Epoch,
    tail: Tail,
) -> anyhow::Result<bool> {
    let sequence = i64::try_from(tail.sequence)?;
    let lease = LEASE.as_secs_f64();
    let statement = client.prepare_cached(RENEW).await?;
    let parameters: [&(dyn ToSql + Sync); 5] = [&holder, &lease, &tail.position, &sequence, &epoch];
    Ok(client.execute(&statement, &parameters).await? == 1)
}

const RELEASE: &str = "
    update relay set holder = null, lease_expires_at = '-infinity' where holder = $1";

/// Gives the lease back if `holder` has it.
pub async fn release(client: &impl GenericClient, holder: &str) -> Result<(), Error> {
    client.execute(RELEASE, &[&holder]).await?;
    Ok(())
}

const BEGIN_EPOCH: &str = "
    update relay
       set epoch = $2, position = $3, stream_sequence = $4,
           holder = $1, lease_expires_at = clock_timestamp() + make_interval(secs => $5)";

/// Begins an epoch after `tail`, and takes the lease from any holder. From here on nothing that an
/// earlier epoch put on the stream counts, however late it arrives.
pub async fn begin_epoch(
    client: &impl GenericClient,
    holder: &str,
    epoch: Epoch,
    tail: Tail,
) -> anyhow::Result<()> {
    let sequence = i64::try_from(tail.sequence)?;
    let lease = LEASE.as_secs_f64();
    client.execute(BEGIN_EPOCH, &[&holder, &epoch, &tail.position, &sequence, &lease]).await?;
    Ok(())
}
