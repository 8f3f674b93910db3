//! The part of the fleet that a question is bounded to, by what the registry says of satellites now.
//!
//! Of the past nothing else would hold: a satellite that has moved out, or was removed, is outside with all its past.

use std::collections::HashSet;

use deadpool_postgres::GenericClient;
use serde_json::{Value, json};
use tokio_postgres::Error;
use tokio_postgres::types::Json;
use uuid::Uuid;

use crate::domain::access::Selector;

/// Whether the satellite of this id is inside, as a condition in SQL; `$n` is the [`bound`]. Without one, all are.
pub fn condition(id: &str, n: usize) -> String {
    format!(
        "(${n}::jsonb is null or exists (
             select from satellites inside
              where inside.id = {id} and inside.tags @> (${n}::jsonb->'tags')
                and inside.region = coalesce(${n}::jsonb->>'region', inside.region)))"
    )
}

/// The same for a statement that reads the satellite's row itself.
pub fn of_row(n: usize) -> String {
    format!(
        "(${n}::jsonb is null or (tags @> (${n}::jsonb->'tags') and region = coalesce(${n}::jsonb->>'region', region)))"
    )
}

/// The parameter of both.
pub fn bound(selector: &Selector) -> Option<Json<Value>> {
    let Selector { region, tags } = selector;
    selector.is_bounded().then(|| Json(json!({"region": region, "tags": tags})))
}

/// Those of these satellites that are inside.
pub async fn among(
    client: &impl GenericClient,
    satellites: &[Uuid],
    selector: &Selector,
) -> Result<HashSet<Uuid>, Error> {
    let Some(bound) = bound(selector) else { return Ok(satellites.iter().copied().collect()) };
    let inside =
        format!("select id from unnest($1::uuid[]) asked (id) where {}", condition("asked.id", 2));
    let statement = client.prepare_cached(&inside).await?;
    client
        .query(&statement, &[&satellites, &bound])
        .await?
        .iter()
        .map(|row| row.try_get(0))
        .collect()
}
