//! Reading the audit, in the order of positions.

use deadpool_postgres::GenericClient;
use tokio_postgres::types::{Json, ToSql};
use tokio_postgres::{Error, Row};

use crate::contract::audit::{AuditAction, AuditEntryJson, TargetJson};
use crate::contract::wire::{Actor, Timestamp};

/// The most entries one read returns.
pub const MAX_LIMIT: i64 = 1_000;

/// Which entries to read; all of them by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only of this actor, by its id.
    pub actor: Option<String>,
    /// Only this action.
    pub action: Option<AuditAction>,
    /// Only of this target, by its id.
    pub target: Option<String>,
    /// Recorded at or after.
    pub since: Option<Timestamp>,
    /// Recorded before.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Whether an entry is one of those to read.
    pub fn takes(&self, entry: &AuditEntryJson) -> bool {
        self.actor.as_ref().is_none_or(|actor| *actor == entry.actor.id)
            && self.action.is_none_or(|action| entry.action == action)
            && self.target.as_ref().is_none_or(|target| *target == entry.target.id)
            && self.since.is_none_or(|since| entry.recorded_at >= since)
            && self.until.is_none_or(|until| entry.recorded_at < until)
    }
}

/// Where the audit begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The newest position that was given out.
    pub head: i64,
    /// Up to here retention has dropped the entries.
    pub horizon: i64,
}

const ENDS: &str = "
    select head.position as head, horizon.position as horizon from audit_head head, audit_horizon horizon";

/// Where it begins and ends now.
pub async fn ends(client: &impl GenericClient) -> Result<Ends, Error> {
    let row = client.query_one(ENDS, &[]).await?;
    Ok(Ends { head: row.try_get("head")?, horizon: row.try_get("horizon")? })
}

const READ: &str = "
    select position, recorded_at, actor_type, actor_id, address, action, target_kind, target_id, before, after
      from audit_entries
     where position {behind} $1
       and ($3::text is null or actor_id = $3) and ($4::text is null or action = $4)
       and ($5::text is null or target_id = $5)
       and ($6::timestamptz is null or recorded_at >= $6) and ($7::timestamptz is null or recorded_at < $7)
     order by position {order}
     limit $2";

/// The entries behind a position.
pub async fn after(
    client: &impl GenericClient,
    position: i64,
    limit: i64,
    filter: &Filter,
) -> Result<Vec<AuditEntryJson>, Error> {
    read(client, &READ.replace("{behind}", ">").replace("{order}", "asc"), position, limit, filter)
        .await
}

/// The newest entries, or those before a position; the newest first.
pub async fn newest(
    client: &impl GenericClient,
    before: Option<i64>,
    limit: i64,
    filter: &Filter,
) -> Result<Vec<AuditEntryJson>, Error> {
    let statement = READ.replace("{behind}", "<").replace("{order}", "desc");
    read(client, &statement, before.unwrap_or(i64::MAX), limit, filter).await
}

async fn read(
    client: &impl GenericClient,
    statement: &str,
    position: i64,
    limit: i64,
    filter: &Filter,
) -> Result<Vec<AuditEntryJson>, Error> {
    let Filter { actor, action, target, since, until } = filter;
    let limit = limit.clamp(1, MAX_LIMIT);
    let action = action.map(AuditAction::as_str);
    let (since, until) = (since.map(Timestamp::moment), until.map(Timestamp::moment));
    // Not prepared: which index serves depends on what is asked for.
    let parameters: [&(dyn ToSql + Sync); 7] =
        [&position, &limit, actor, &action, target, &since, &until];
    client.query(statement, &parameters).await?.iter().map(from_row).collect()
}

fn from_row(row: &Row) -> Result<AuditEntryJson, Error> {
    let address: Option<&str> = row.try_get("address")?;
    let value = |name| Ok::<_, Error>(row.try_get::<_, Option<Json<_>>>(name)?.map(|Json(it)| it));
    Ok(AuditEntryJson {
        position: row.try_get("position")?,
        recorded_at: Timestamp::new(row.try_get("recorded_at")?),
        actor: Actor { kind: row.try_get("actor_type")?, id: row.try_get("actor_id")? },
        address: address.and_then(|address| address.parse().ok()),
        action: row.try_get("action")?,
        target: TargetJson { kind: row.try_get("target_kind")?, id: row.try_get("target_id")? },
        before: value("before")?,
        after: value("after")?,
    })
}
