//! New tokens, and the one before, which a rotation may leave valid for a while.
//!
//! Owns the table `previous_tokens`. Two tokens of a satellite are valid at most: the present one, and the one right
//! before it until its time is over, by the database's clock. From that moment it opens nothing. A pod then deletes it
//! ([`end_previous`]), which is a change of the satellite like a rotation: each pod reads the satellite again and ends a
//! session that came in with it.

use std::ops::RangeInclusive;
use std::time::Duration;

use deadpool_postgres::{GenericClient, Object};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use time::OffsetDateTime;
use tokio_postgres::Error;
use tokio_postgres::types::{Json, ToSql};

use super::ending;
use super::satellites::Invalid;
use crate::contract::audit::AuditAction;
use crate::contract::wire::Timestamp;
use crate::domain::lifecycle::{SatelliteId, Session};
use crate::log;
use crate::log::audit::{self, Entry};
use crate::log::within;
use crate::platform::token;
use crate::registry::authority::Authority;

/// The shortest and longest times for which the token before may stay valid. Whoever needs longer is not rotating.
const OVERLAPS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 60 * 60);

/// Previous tokens that are deleted in one statement.
const MAX_ENDED: i64 = 1_000;

/// Parses an overlap such as `1h`.
pub fn overlap(text: &str) -> Result<Duration, Invalid> {
    let overlap = humantime::parse_duration(text).ok();
    overlap.filter(|overlap| OVERLAPS.contains(overlap)).ok_or_else(|| Invalid {
        field: "overlap".to_owned(),
        rule: "must be a duration such as 1h, from 1s to 30days".to_owned(),
    })
}

const LOCK: &str =
    "select token_version from satellites where id = $1 and {within} for no key update";

/// The token before that one is void at once, whatever time it had.
const KEEP: &str = "
    insert into previous_tokens (satellite_id, token_hash, token_version, ends_at)
    select id, token_hash, token_version,
           date_trunc('milliseconds', clock_timestamp()) + make_interval(secs => $2)
      from satellites where id = $1
        on conflict (satellite_id) do update
       set token_hash = excluded.token_hash, token_version = excluded.token_version, ends_at = excluded.ends_at
    returning ends_at";

const VOID: &str = "delete from previous_tokens where satellite_id = $1";

/// Who did it is kept; of the tokens only their numbers, and how long the one before is valid.
const ROTATE: &str = "
    with rotated as (
        update satellites set token_hash = $2, token_version = token_version + 1 where id = $1
        returning token_version
    )
    insert into registry_changes
           (position, changed_at, satellite_id, action, actor_type, actor_id, before, after)
    select $3, $4, $1, 'token_rotated', $5, $6, jsonb_build_object('tokenVersion', $7::bigint),
           jsonb_build_object('tokenVersion', rotated.token_version) || $8::jsonb
      from rotated";

/// A new token.
pub struct Rotated {
    /// Shown this once.
    pub token: SecretString,
    /// The session that was let in with an earlier one, has not ended and is to end now.
    pub session: Option<Session>,
    /// Until when the one before is valid too.
    pub previous_ends_at: Option<OffsetDateTime>,
}

/// Replaces a satellite's token. Without an overlap every earlier one opens nothing from the commit on, and with one every
/// earlier one but the last. `None` for a satellite that is unknown, or out of reach.
pub async fn rotate(
    client: &mut Object,
    id: SatelliteId,
    overlap: Option<Duration>,
    Authority { author, selector }: &Authority,
) -> anyhow::Result<Option<Rotated>> {
    let token = token::generate()?;
    let digest = token::Digest::of(token.expose_secret()).to_stored();
    let transaction = client.transaction().await?;
    let statement = transaction.prepare_cached(ROTATE).await?;
    // The row before the log, as the appender does; and what may wait for another pod before the log too.
    let lock = LOCK.replace("{within}", &within::of_row(2));
    let row = transaction.query_opt(&lock, &[&id, &within::bound(selector)]).await?;
    let Some(row) = row else { return Ok(None) };
    let before: i64 = row.try_get("token_version")?;
    let previous_ends_at = match overlap {
        Some(overlap) => {
            let row = transaction.query_one(KEEP, &[&id, &overlap.as_secs_f64()]).await?;
            Some(row.try_get::<_, OffsetDateTime>(0)?)
        }
        None => {
            transaction.execute(VOID, &[&id]).await?;
            None
        }
    };
    let ends = match previous_ends_at {
        Some(at) => json!({"previousTokenEndsAt": Timestamp::new(at)}),
        None => json!({}),
    };
    let (head, now) = log::transaction::lock_head(&transaction).await?;
    let after = {
        let mut after = ends.clone();
        after["tokenVersion"] = json!(before + 1);
        after
    };
    let ends = Json(&ends);
    let parameters: [&(dyn ToSql + Sync); 8] =
        [&id, &digest, &head, &now, &author.actor.kind.as_str(), &author.actor.id, &before, &ends];
    transaction.execute(&statement, &parameters).await?;
    let action = AuditAction::SatelliteTokenRotated;
    let was = json!({"tokenVersion": before});
    let entry = Entry::of_satellite(author, action, id, Some(was), Some(after));
    audit::append(&transaction, &[entry]).await?;
    transaction.commit().await?;
    // With an overlap the session's pod knows whether it came in with a token that is still valid.
    let session = match overlap {
        Some(_) => None,
        // In a later statement: a connect that the update waited for is seen.
        None => ending::live_session(client, id).await?.flatten().map(|live| live.session),
    };
    Ok(Some(Rotated { token, session, previous_ends_at }))
}

/// The moment of the statement, because an index serves it.
const ANY_OVER: &str =
    "select exists (select from previous_tokens where ends_at <= statement_timestamp())";

/// Another pod may be at it: what it has locked is left to it.
const END: &str = "
    with over as (
        select satellite_id from previous_tokens
         where ends_at <= statement_timestamp()
         order by ends_at limit $1
           for update skip locked
    ), gone as (
        delete from previous_tokens p using over where p.satellite_id = over.satellite_id
        returning p.satellite_id
    )
    select note_satellite_change(satellite_id) from gone";

/// Deletes the previous tokens whose time is over, and returns how many.
pub async fn end_previous(client: &impl GenericClient) -> Result<usize, Error> {
    let any = client.prepare_cached(ANY_OVER).await?;
    if !client.query_one(&any, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(0);
    }
    let mut all = 0;
    loop {
        let ended = client.query(END, &[&MAX_ENDED]).await?.len();
        all += ended;
        if (ended as i64) < MAX_ENDED {
            return Ok(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlap_is_a_duration_from_a_second_to_thirty_days() {
        assert_eq!(overlap("1h"), Ok(Duration::from_secs(3_600)));
        assert_eq!(overlap("1day 12h"), Ok(Duration::from_secs(36 * 3_600)));
        assert!(overlap("1s").is_ok() && overlap("30d").is_ok());
        for text in ["", "1", "999ms", "31days", "-1h", "tomorrow", "30d 1s"] {
            let invalid = overlap(text).expect_err(text).to_string();
            assert_eq!(invalid, "overlap must be a duration such as 1h, from 1s to 30days");
        }
    }
}
