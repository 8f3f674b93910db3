//! Sessions of people that were ended before their time, because the person signed out.
//!
//! A session is nowhere but in its cookie, so that it has ended is what has to be kept. It is one more entry of
//! `token_changes`: every pod looks twice a second whether there is a new one, and the history says who signed out. The
//! entry is about no token, and says so.

use std::collections::HashSet;

use deadpool_postgres::{GenericClient, Object};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio_postgres::Error;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::tokens::{self, NOTE};
use crate::contract::wire::{Actor, Timestamp};
use crate::domain::access::{Role, Selector};

/// The most that a pod keeps in mind: the newest. Each takes a sign-in of somebody who may sign in.
const MAX_ENDED: i64 = 10_000;

/// Notes that a session has ended.
pub async fn end(
    client: &mut Object,
    session: Uuid,
    (role, selector): (Role, &Selector),
    ends_at: Option<OffsetDateTime>,
    actor: &Actor,
) -> Result<(), Error> {
    let ends_at = ends_at.map(Timestamp::new);
    let mut told = tokens::told(&actor.id, role.as_str(), selector, ends_at, None);
    if let Value::Object(told) = &mut told {
        told.insert("session".to_owned(), json!(true));
    }
    let transaction = client.transaction().await?;
    tokens::lock(&transaction).await?;
    let kind = actor.kind.as_str();
    transaction.execute(NOTE, &[&session, &kind, &actor.id, &Json(told)]).await?;
    transaction.commit().await
}

/// No session lasts longer than a day; an hour more is for clocks.
const ENDED: &str = "
    select token_id from token_changes
     where token ? 'session' and changed_at > clock_timestamp() - interval '25 hours'
     order by change desc limit $1";

/// The sessions that have ended, and might otherwise go on.
pub async fn ended(client: &impl GenericClient) -> Result<HashSet<Uuid>, Error> {
    client.query(ENDED, &[&MAX_ENDED]).await?.iter().map(|row| row.try_get(0)).collect()
}
