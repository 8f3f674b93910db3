//! `/v1/audit`: who changed what, who signed in and who was refused, from where; and [`stream`], which follows it. Only admin
//! tokens that reach the whole fleet get here.

use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use deadpool_postgres::Object;
use serde::Deserialize;
use strum::IntoEnumIterator;
use tokio_postgres::Error;
use utoipa::IntoParams;

use super::Api;
use super::paging::Paging;
use super::parameters::{limit, time};
use super::problem::Problem;
use crate::contract::audit::{AuditAction, AuditPageJson};
use crate::log::audit::read::{self, Filter, MAX_LIMIT};
use crate::log::history::NoAnswer;

pub(super) mod stream;

/// How many entries a page has unless told otherwise.
const DEFAULT_LIMIT: i64 = 100;

/// Which entries.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Behind this position; 0 is the beginning
    #[param(minimum = 0)]
    after: Option<i64>,
    /// `asc`, the order of positions (the default), or `desc`, the newest first
    #[param(pattern = "^(asc|desc)$")]
    order: Option<String>,
    /// With `order=desc`: only before this position; without it from the newest on
    #[param(minimum = 1)]
    before: Option<i64>,
    /// How many on a page
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<i64>,
    /// Only of this actor, by its id
    actor: Option<String>,
    /// Only this action, such as `satellite.created`; one that is none is refused with those there are
    action: Option<String>,
    /// Only of this satellite or token, by its id
    target: Option<String>,
    /// Recorded at or after this time
    #[param(format = DateTime)]
    since: Option<String>,
    /// Recorded before this time
    #[param(format = DateTime)]
    until: Option<String>,
}

/// What the list and the stream can be asked for alike.
fn filter(
    actor: Option<String>,
    action: Option<&str>,
    target: Option<String>,
) -> Result<Filter, Problem> {
    for (field, text) in [("actor", &actor), ("target", &target)] {
        if text.as_ref().is_some_and(|text| text.contains('\0')) {
            return Err(Problem::invalid(format!("{field} must not contain a NUL character.")));
        }
    }
    let action = action.map(|word| {
        AuditAction::from_str(word).map_err(|_| {
            let words: Vec<&str> = AuditAction::iter().map(AuditAction::as_str).collect();
            Problem::invalid(format!("action must be one of {}.", words.join(", ")))
        })
    });
    Ok(Filter { actor, action: action.transpose()?, target, ..Filter::default() })
}

/// Read the audit
///
/// Each change of satellites, assignments, sets and tokens has an entry, which was committed together with it. Sign-ins at
/// the page and refused requests have one a little later; so many of them that they have none are told as a number.
#[utoipa::path(get, operation_id = "readAudit", path = "/v1/audit", tag = "audit", params(AuditQuery),
    responses(
        (status = 200, description = "A page of it", body = AuditPageJson),
        (status = 410, description = "What follows this position has been dropped",
         body = super::problem::ProblemJson, content_type = "application/problem+json"),
    ))]
pub async fn read(
    State(api): State<Arc<Api>>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<AuditPageJson>, Problem> {
    let Query(query) = query?;
    let limit = limit(query.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    let paging = Paging::check(query.order.as_deref(), query.after, query.before, limit)?;
    let filter = Filter {
        since: query.since.as_deref().map(|text| time("since", text)).transpose()?,
        until: query.until.as_deref().map(|text| time("until", text)).transpose()?,
        ..filter(query.actor, query.action.as_deref(), query.target)?
    };
    let read = async |client: &mut Object| {
        let entries = match paging.is_newest_first {
            true => read::newest(client, paging.before, limit, &filter).await?,
            false => read::after(client, paging.after, limit, &filter).await?,
        };
        // After the entries: what is dropped stays dropped.
        Ok::<_, Error>((entries, read::ends(client).await?.horizon))
    };
    let (entries, horizon) = api.scans.run(read).await?;
    // Behind 0 is all there is; behind anything else that was dropped a gap would go unseen.
    if !paging.is_newest_first && paging.after > 0 && paging.after < horizon {
        return Err(NoAnswer::Dropped(horizon + 1).into());
    }
    let positions: Vec<i64> = entries.iter().map(|entry| entry.position).collect();
    let next = paging.next(&positions);
    Ok(Json(AuditPageJson { entries, next_after: next.after, next_before: next.before }))
}
