//! Sessions that administrators end, and satellites that they have refused.
//!
//! A disabled satellite is not let in. It is said in its row, so a session that authenticates meanwhile finds it in its
//! desired state: see [`crate::registry::desired`].

use deadpool_postgres::{GenericClient, Object, Transaction};
use serde_json::json;
use tokio_postgres::Error;
use tokio_postgres::types::ToSql;

use crate::contract::audit::AuditAction;
use crate::domain::lifecycle::{SatelliteId, Session};
use crate::log;
use crate::log::audit::{self, Author, Entry};
use crate::log::within;
use crate::registry::authority::Authority;

/// A session that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// Its number.
    pub session: Session,
    /// It was not given up.
    pub is_connected: bool,
}

const LIVE_SESSION: &str = "
    select c.session, c.last_event = 'connected' as is_connected
      from satellites s
      left join satellite_connections c
             on c.satellite_id = s.id and c.last_event not in ('disconnected', 'removed')
     where s.id = $1";

/// A satellite's newest session, unless it has ended. `None` for an unknown satellite.
pub async fn live_session(
    client: &impl GenericClient,
    id: SatelliteId,
) -> Result<Option<Option<Live>>, Error> {
    let Some(row) = client.query_opt(LIVE_SESSION, &[&id]).await? else { return Ok(None) };
    let Some(session) = row.try_get("session")? else { return Ok(Some(None)) };
    Ok(Some(Some(Live { session, is_connected: row.try_get("is_connected")? })))
}

const END: &str = "
    update satellites set ended_session = greatest(ended_session, $2) where id = $1";

/// Notes that an administrator has ended a session: its pod, whichever that is, ends its socket.
pub async fn end(
    client: &impl GenericClient,
    id: SatelliteId,
    session: Session,
) -> Result<(), Error> {
    client.execute(END, &[&id, &session]).await.map(drop)
}

const LOCK: &str = "
    select coalesce(disabled, false) from satellites where id = $1 and {within} for no key update";

async fn lock(
    transaction: &Transaction<'_>,
    id: SatelliteId,
    Authority { selector, .. }: &Authority,
) -> Result<Option<bool>, Error> {
    let lock = LOCK.replace("{within}", &within::of_row(2));
    let row = transaction.query_opt(&lock, &[&id, &within::bound(selector)]).await?;
    row.map(|row| row.try_get(0)).transpose()
}

/// Disables a satellite; one that is disabled already stays so, and no change is noted. Returns its session that has not
/// ended, if there is one; `None` for a satellite that is unknown, or out of reach.
pub async fn disable(
    client: &mut Object,
    id: SatelliteId,
    by: &Authority,
) -> Result<Option<Option<Live>>, Error> {
    let transaction = client.transaction().await?;
    let Some(is_disabled) = lock(&transaction, id, by).await? else { return Ok(None) };
    // In a later statement than the lock. No session begins or ends under it.
    let live = live_session(&transaction, id).await?.flatten();
    match (is_disabled, live.map(|live| live.session)) {
        (false, session) => set(&transaction, id, true, session, &by.author).await?,
        (true, Some(session)) => end(&transaction, id, session).await?,
        (true, None) => {}
    }
    transaction.commit().await?;
    Ok(Some(live))
}

/// Lets a satellite in again; false for one that is unknown, or out of reach.
pub async fn enable(client: &mut Object, id: SatelliteId, by: &Authority) -> Result<bool, Error> {
    let transaction = client.transaction().await?;
    let Some(is_disabled) = lock(&transaction, id, by).await? else { return Ok(false) };
    if is_disabled {
        set(&transaction, id, false, None, &by.author).await?;
    }
    transaction.commit().await?;
    Ok(true)
}

/// The registry's history keeps who did it. The session is noted too: pods may first hear of it when the satellite is
/// enabled again.
const SET: &str = "
    with set as (
        update satellites set disabled = $2, ended_session = greatest(ended_session, $3) where id = $1
    )
    insert into registry_changes
           (position, changed_at, satellite_id, action, actor_type, actor_id, before, after)
    values ($4, $5, $1, case when $2 then 'disabled' else 'enabled' end, $6, $7,
            jsonb_build_object('disabled', not $2::boolean), jsonb_build_object('disabled', $2::boolean))";

async fn set(
    transaction: &Transaction<'_>,
    id: SatelliteId,
    disabled: bool,
    session: Option<Session>,
    author: &Author,
) -> Result<(), Error> {
    let statement = transaction.prepare_cached(SET).await?;
    let (head, now) = log::transaction::lock_head(transaction).await?;
    let parameters: [&(dyn ToSql + Sync); 7] =
        [&id, &disabled, &session, &head, &now, &author.actor.kind.as_str(), &author.actor.id];
    transaction.execute(&statement, &parameters).await?;
    let action =
        if disabled { AuditAction::SatelliteDisabled } else { AuditAction::SatelliteEnabled };
    let (was, is) = (json!({"disabled": !disabled}), json!({"disabled": disabled}));
    let entry = Entry::of_satellite(author, action, id, Some(was), Some(is));
    audit::append(transaction, &[entry]).await
}
