//! Which pods observe the satellites, and when none did.
//!
//! Owns the tables `pods` (one row for each life of a pod) and `blind_spans`. A pod reports again and again up to
//! when it has written everything it heard ([`observe`]). The newest such moment of all pods is the watermark:
//! satellites can be judged up to there. If the watermark lags behind by more than [`blind_after`], because of an
//! outage of the database or because no pod ran, the time in between is a blind span: stored once, never changed, and
//! counted against no satellite (see [`crate::domain::liveness`]).
//!
//! Only the database's clock counts; a pod contributes the age of what it reports. That clock can step. A step ahead
//! is a blind span. A step back leaves moments later than now: `observe`, in `schema/`, brings back the pods' reports
//! and the spans, and notes by how much; [`bring_back`] does it for heartbeats.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use postgres_types::{FromSql, ToSql};
use time::OffsetDateTime;
use tokio_postgres::Error;

use crate::domain::liveness::{Resumption, Watermark};

/// One life of a pod. In `satellite_connections`, 0 means unowned: the session has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, FromSql, ToSql)]
#[postgres(transparent)]
pub struct PodNumber(pub i32);

impl std::fmt::Display for PodNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The longest silence of all pods that is not yet blind time.
const LONGEST_LAPSE: Duration = Duration::from_secs(2);

/// A pod that has reported nothing for this long no longer holds its sessions, as far as others can tell.
/// (`status_as_of`, in `schema/`, says what that means for a status.)
pub const SILENT_AFTER: Duration = Duration::from_secs(2);

/// A silence of all pods longer than this is blind time. It is short enough that the rest of a threshold suffices for
/// the next heartbeat.
pub fn blind_after(default_threshold: Duration) -> Duration {
    LONGEST_LAPSE.min(default_threshold / 3)
}

const SIGN_ON: &str = "
    with forgotten as (
        delete from pods p
         where coalesce(p.seen_at, p.started_at) < (select long_ago(interval '1 day'))
           and p.seen_at is distinct from (select max(seen_at) from pods)
           and not exists (select 1 from satellite_connections c
                            where c.pod = p.number and c.last_event = 'connected')
    )
    insert into pods (name, started_at, vouch_window)
    values ($1, clock_timestamp(), make_interval(secs => $2::float8)) returning number";

/// Gives this life of a pod its number. `window` is its vouch window, if it vouches.
pub async fn sign_on(
    client: &impl GenericClient,
    name: &str,
    window: Option<Duration>,
) -> Result<PodNumber, Error> {
    let window = window.map(|window| window.as_secs_f64());
    client.query_one(SIGN_ON, &[&name, &window]).await?.try_get(0)
}

const SIGN_OFF: &str = "update pods set left_at = clock_timestamp() where number = $1";

/// Records that the pod has ended as it should.
pub async fn sign_off(client: &impl GenericClient, pod: PodNumber) -> Result<(), Error> {
    client.execute(SIGN_OFF, &[&pod]).await.map(drop)
}

const PROVE: &str = "
    insert into pods (number, name, started_at, vouch_window) overriding system value
    values ($1, $2, clock_timestamp(), make_interval(secs => $3::float8))
    on conflict (number) do update set probed_at = clock_timestamp()";

/// Proves that the database is writable and has the pod's row (a restored database does not know it).
pub async fn prove(
    client: &impl GenericClient,
    pod: PodNumber,
    name: &str,
    window: Option<Duration>,
) -> Result<(), Error> {
    let window = window.map(|window| window.as_secs_f64());
    client.execute(PROVE, &[&pod, &name, &window]).await.map(drop)
}

const OBSERVE: &str = "
    select observe($1, $2, $3, make_interval(secs => $4::float8), make_interval(secs => $5::float8))";

/// Reports that everything the pod had heard by `heard` is written, `since` after its previous report. A moment and
/// not an age: a statement that is held up on its way would claim too much. Returns the length of the blind time that
/// ends with this report, if any.
pub async fn observe(
    client: &impl GenericClient,
    pod: PodNumber,
    heard: OffsetDateTime,
    since: Option<Duration>,
    default_threshold: Duration,
) -> Result<Option<Duration>, Error> {
    let statement = client.prepare_cached(OBSERVE).await?;
    let seconds = |duration: Duration| duration.as_secs_f64();
    let since = since.map(seconds);
    let (blind_after, grace) =
        (seconds(blind_after(default_threshold)), seconds(default_threshold));
    let row = client.query_one(&statement, &[&pod, &heard, &since, &blind_after, &grace]).await?;
    let blind: Option<f64> = row.try_get(0)?;
    Ok(blind.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
}

/// Rows that one statement brings back; the next statement goes on.
pub const MAX_BROUGHT_BACK: u64 = 10_000;

/// Waits for no row: a locked row is tried again.
const BRING_BACK: &str = "
    with step as (
        select went_back from blind_spans where went_back is not null order by number desc limit 1
    ), ahead as (
        select satellite_id from satellite_connections
         where (pod = any($1) or pod is null) and last_event = 'connected'
           and greatest(last_heartbeat_at, recent_edges[cardinality(recent_edges)])
               > clock_timestamp() + interval '1 second'
         limit $2 for no key update skip locked
    )
    update satellite_connections c
       set last_heartbeat_at = brought_back(c.last_heartbeat_at, step.went_back, now.moment),
           recent_edges = array(select brought_back(edge, step.went_back, now.moment)
                                  from unnest(c.recent_edges) edge order by 1),
           flapping_until = case when c.recent_edges[cardinality(c.recent_edges)]
                                      > clock_timestamp() + interval '1 second'
                                 then c.flapping_until - step.went_back else c.flapping_until end
      from ahead, step, (select date_trunc('milliseconds', clock_timestamp()) as moment) now
     where c.satellite_id = ahead.satellite_id";

/// Brings back heartbeats that are later than now because the database's clock has gone back: those of these pods'
/// sessions and of sessions whose pod is unknown. Otherwise a silent satellite would be online until the clock has
/// come that far again. Returns how many, at most [`MAX_BROUGHT_BACK`].
pub async fn bring_back(client: &impl GenericClient, pods: &[PodNumber]) -> Result<u64, Error> {
    let statement = client.prepare_cached(BRING_BACK).await?;
    let limit = i64::try_from(MAX_BROUGHT_BACK).unwrap_or(i64::MAX);
    client.execute(&statement, &[&pods, &limit]).await
}

const WATERMARK: &str =
    "select clock_timestamp() as now, observed_at, judged_at, resumed_at from watermark";

/// The database's time, and the watermark at that time.
pub async fn read(
    client: &impl GenericClient,
    default_threshold: Duration,
) -> Result<(OffsetDateTime, Watermark), Error> {
    let statement = client.prepare_cached(WATERMARK).await?;
    let row = client.query_one(&statement, &[]).await?;
    Ok((row.try_get("now")?, from_row(&row, default_threshold)?))
}

/// Reads the watermark from a row with the columns of the view.
pub fn from_row(
    row: &tokio_postgres::Row,
    default_threshold: Duration,
) -> Result<Watermark, Error> {
    let judged_at: Option<OffsetDateTime> = row.try_get("judged_at")?;
    let resumed_at: Option<OffsetDateTime> = row.try_get("resumed_at")?;
    let resumption = judged_at
        .zip(resumed_at)
        .map(|(judged_at, resumed_at)| Resumption { judged_at, resumed_at });
    Ok(Watermark { observed_at: row.try_get("observed_at")?, resumption, grace: default_threshold })
}

const BLIND: &str = "
    select greatest(from_at, $1) as from_at, least(to_at, $2) as to_at from blind_time
     where to_at > $1 and from_at < $2
    union all
    select greatest(observed_at, $1), $2 from watermark where observed_at < $2 - make_interval(secs => $3::float8)
     order by 1";

/// The blind time within a window, oldest first, including a span that is still open.
pub async fn blind_spans(
    client: &impl GenericClient,
    from: OffsetDateTime,
    to: OffsetDateTime,
    default_threshold: Duration,
) -> Result<Vec<(OffsetDateTime, OffsetDateTime)>, Error> {
    let lapse = blind_after(default_threshold).as_secs_f64();
    let rows = client.query(BLIND, &[&from, &to, &lapse]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}
