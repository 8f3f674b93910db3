//! The uses of named tokens: when each was last used, and how many satellites one for enrolment registers yet.

use deadpool_postgres::{GenericClient, Transaction};
use tokio_postgres::Error;
use uuid::Uuid;

/// Waits for no row. Of several pods that say when a token was used, the latest use counts.
const USED: &str = "
    with said as (
        select u.id, date_trunc('milliseconds', clock_timestamp() - make_interval(secs => u.ago)) as used_at
          from unnest($1::uuid[], $2::float8[]) as u (id, ago)
    ), free as (
        select t.id, s.used_at from tokens t join said s using (id) order by t.id
           for no key update of t skip locked
    )
    update tokens t set last_used_at = greatest(t.last_used_at, f.used_at) from free f where t.id = f.id
    returning t.id";

/// Keeps how many seconds ago tokens were used last. Returns those of which that is kept.
pub async fn used(client: &impl GenericClient, uses: &[(Uuid, f64)]) -> Result<Vec<Uuid>, Error> {
    let (ids, ago): (Vec<Uuid>, Vec<f64>) = uses.iter().copied().unzip();
    let statement = client.prepare_cached(USED).await?;
    client.query(&statement, &[&ids, &ago]).await?.iter().map(|row| row.try_get(0)).collect()
}

/// Whether a token counts for one more satellite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    /// It does, and has one use fewer from the commit on, if anybody counts.
    One,
    /// It was revoked, or is over, by the database's clock.
    NoToken,
    /// It has registered as many as it may.
    UsedUp,
}

/// Whoever waited for the row finds it as its last holder left it: two pods never take the same use.
const SPEND: &str = "
    update tokens
       set uses_left = uses_left - 1,
           last_used_at = greatest(last_used_at, date_trunc('milliseconds', clock_timestamp()))
     where id = $1 and uses_left > 0 and coalesce(expires_at > clock_timestamp(), true)";

/// In a statement after the one that waited for the row.
const LOOK: &str = "
    select coalesce(expires_at <= clock_timestamp(), false) as is_over, coalesce(uses_left = 0, false) as is_used_up
      from tokens where id = $1";

/// Takes one use of a token, which counts if the transaction is committed.
pub async fn spend(transaction: &Transaction<'_>, id: Uuid) -> Result<Spent, Error> {
    let spend = transaction.prepare_cached(SPEND).await?;
    if transaction.execute(&spend, &[&id]).await? == 1 {
        return Ok(Spent::One);
    }
    let look = transaction.prepare_cached(LOOK).await?;
    let Some(row) = transaction.query_opt(&look, &[&id]).await? else {
        return Ok(Spent::NoToken);
    };
    let (is_over, is_used_up) = (row.try_get("is_over")?, row.try_get("is_used_up")?);
    Ok(match (is_over, is_used_up) {
        (true, _) => Spent::NoToken,
        (false, true) => Spent::UsedUp,
        (false, false) => Spent::One,
    })
}
