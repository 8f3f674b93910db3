//! Changes of what the registry says of a satellite.

use std::collections::BTreeMap;
use std::time::Duration;

use deadpool_postgres::Object;
use serde::{Deserialize, Deserializer};
use tokio_postgres::types::{Json, ToSql};
use utoipa::ToSchema;

use super::{Invalid, NewSatellite, Shown, shown};
use crate::contract::audit::AuditAction;
use crate::domain::lifecycle::SatelliteId;
use crate::log;
use crate::log::audit::{self, Entry};
use crate::log::within;
use crate::registry::authority::Authority;
use crate::registry::in_force;
use crate::registry::precondition::Precondition;

/// A change of a satellite; absent fields stay as they are.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// A new name.
    #[schema(min_length = 1, max_length = 200)]
    pub name: Option<String>,
    /// A new region.
    #[schema(min_length = 1, max_length = 200)]
    pub region: Option<String>,
    /// All tags, in place of the present ones.
    pub tags: Option<BTreeMap<String, String>>,
    /// A new offline threshold of its own; null removes it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 604_800_000)]
    pub offline_threshold_ms: Option<Option<i64>>,
}

/// Tells `null` from an absent field.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<i64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Change {
    /// The fields that can be changed.
    pub const FIELDS: [&str; 4] = ["name", "region", "tags", "offlineThresholdMs"];

    /// Whether the change names nothing.
    fn is_empty(&self) -> bool {
        let Change { name, region, tags, offline_threshold_ms } = self;
        name.is_none() && region.is_none() && tags.is_none() && offline_threshold_ms.is_none()
    }

    fn of(self, before: &NewSatellite) -> NewSatellite {
        NewSatellite {
            name: self.name.unwrap_or_else(|| before.name.clone()),
            region: self.region.unwrap_or_else(|| before.region.clone()),
            tags: self.tags.unwrap_or_else(|| before.tags.clone()),
            offline_threshold_ms: self.offline_threshold_ms.unwrap_or(before.offline_threshold_ms),
        }
    }
}

/// The result of a change.
pub enum Changed {
    /// The satellite after the change.
    To(Box<Shown>),
    /// The change breaks a limit: nothing was changed.
    Invalid(Invalid),
    /// The change names nothing that can be changed.
    NothingNamed,
    /// There is no such satellite, or it is out of reach.
    Unknown,
    /// The present version was not the expected one: nothing was changed.
    Unexpected,
}

const LOCK: &str = "
    select name, region, tags, offline_threshold_ms from satellites where id = $1 and {within}
       for no key update";

/// In a statement after the one that waited for the row: its last holder may have changed the version.
const VERSION: &str = "
    select coalesce(max(change), 0) from registry_changes
     where satellite_id = $1 and action in ('created', 'updated')";

/// The registry's history keeps the satellite as it was and as it is.
const CHANGE: &str = "
    with before as (
        select jsonb_build_object('name', name, 'region', region, 'tags', tags,
                                  'offlineThresholdMs', offline_threshold_ms) as described
          from satellites where id = $1
    ), changed as (
        update satellites set name = $2, region = $3, tags = $4, offline_threshold_ms = $5
         where id = $1
    )
    insert into registry_changes
           (position, changed_at, satellite_id, action, actor_type, actor_id, before, after)
    select $6, $7, $1, 'updated', $8, $9, before.described,
           jsonb_build_object('name', $2::text, 'region', $3::text, 'tags', $4::jsonb,
                              'offlineThresholdMs', $5::bigint)
      from before";

/// Changes a satellite. A new threshold counts at once in every read, and within a second for the session, on any
/// pod.
pub async fn change(
    client: &mut Object,
    id: SatelliteId,
    change: Change,
    precondition: Option<&Precondition>,
    Authority { author, selector }: &Authority,
    default: Duration,
) -> anyhow::Result<Changed> {
    let transaction = client.transaction().await?;
    let statement = transaction.prepare_cached(CHANGE).await?;
    // The row before the log's lock, as in the appender.
    let lock = LOCK.replace("{within}", &within::of_row(2));
    let Some(row) = transaction.query_opt(&lock, &[&id, &within::bound(selector)]).await? else {
        return Ok(Changed::Unknown);
    };
    if change.is_empty() {
        return Ok(Changed::NothingNamed);
    }
    if let Some(precondition) = precondition {
        let version = transaction.query_one(VERSION, &[&id]).await?.try_get(0)?;
        if !precondition.allows(version) {
            return Ok(Changed::Unexpected);
        }
    }
    let Json(tags) = row.try_get("tags")?;
    let before = NewSatellite {
        name: row.try_get("name")?,
        region: row.try_get("region")?,
        tags,
        offline_threshold_ms: row.try_get("offline_threshold_ms")?,
    };
    let after = change.of(&before);
    if let Err(invalid) = after.check_after(&before) {
        return Ok(Changed::Invalid(invalid));
    }
    if after != before {
        let (head, now) = log::transaction::lock_head(&transaction).await?;
        let tags = Json(&after.tags);
        let parameters: [&(dyn ToSql + Sync); 9] = [
            &id,
            &after.name,
            &after.region,
            &tags,
            &after.offline_threshold_ms,
            &head,
            &now,
            &author.actor.kind.as_str(),
            &author.actor.id,
        ];
        transaction.execute(&statement, &parameters).await?;
        // In another region, or with other tags, other sets are for it.
        let field = match after.region == before.region {
            true => "tags",
            false => "region",
        };
        let is_moved = (&after.region, &after.tags) != (&before.region, &before.tags);
        if is_moved && let Err(invalid) = in_force::check_length(&transaction, id, field).await? {
            return Ok(Changed::Invalid(invalid));
        }
        let (was, is) = audit::changed(&before.described(), &after.described());
        let action = AuditAction::SatelliteUpdated;
        let entry = Entry::of_satellite(author, action, id, Some(was), Some(is));
        audit::append(&transaction, &[entry]).await?;
    }
    transaction.commit().await?;
    let satellite = shown(client, id, default).await?;
    Ok(satellite.map_or(Changed::Unknown, |satellite| Changed::To(Box::new(satellite))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_stays_and_null_takes_the_threshold_away() {
        let before = NewSatellite {
            name: "edge".to_owned(),
            region: "eu".to_owned(),
            tags: BTreeMap::new(),
            offline_threshold_ms: Some(1_000),
        };
        let after = |json| serde_json::from_str::<Change>(json).expect("a change").of(&before);
        assert_eq!(after("{}"), before);
        assert_eq!(after(r#"{"region":"us"}"#).region, "us");
        assert_eq!(after(r#"{"offlineThresholdMs":null}"#).offline_threshold_ms, None);
        assert_eq!(after(r#"{"offlineThresholdMs":5}"#).offline_threshold_ms, Some(5));
    }
}
