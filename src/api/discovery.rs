//! `/v1/prometheus/sd`: satellites as targets of Prometheus, by its HTTP service discovery.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use deadpool_postgres::Object;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::caller::Caller;
use super::problem::Problem;
use super::selection::{Asked, SelectionQuery, TagQuery};
use crate::contract::wire::SatelliteJson;
use crate::domain::selection::{Order, Place};
use crate::registry::satellites::{self, MAX_LIMIT};

/// The tag that holds a satellite's address unless another is named.
const DEFAULT_TARGET: &str = "prometheus-target";

/// The most targets of one answer, and the most satellites that are looked at for one. Prometheus asks each minute, or
/// as often as it is told to.
const MAX_TARGETS: usize = 10_000;
const MAX_LOOKED_AT: usize = 100_000;

/// Where the address of a target is.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TargetQuery {
    /// The tag whose value is a satellite's address, `host:port`; satellites without it are no targets
    /// [default: prometheus-target]
    target: Option<String>,
}

/// One satellite, as Prometheus takes it.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TargetGroup {
    /// Its address.
    targets: [String; 1],
    /// What relabelling can use: `__meta_groundstation_id`, `_name`, `_region`, `_status`, and `_tag_…` for each tag.
    labels: BTreeMap<String, String>,
}

/// List targets for Prometheus
///
/// For `http_sd_configs`, with a read token as its credentials. Takes the filters of the list, of the present. At most
/// 10,000 targets, found among 100,000 satellites: more are refused, because Prometheus would take a part for the whole and drop the others.
#[utoipa::path(get, operation_id = "discoverTargets", path = "/v1/prometheus/sd", tag = "fleet",
    params(SelectionQuery, TagQuery, TargetQuery), responses(
    (status = 200, description = "All of them", body = Vec<TargetGroup>),
))]
pub async fn targets(
    State(api): State<Arc<Api>>,
    caller: Caller,
    tags: TagQuery,
    query: Result<Query<SelectionQuery>, QueryRejection>,
    target: Result<Query<TargetQuery>, QueryRejection>,
) -> Result<Json<Vec<TargetGroup>>, Problem> {
    let (Query(query), Query(TargetQuery { target })) = (query?, target?);
    let target = target.unwrap_or_else(|| DEFAULT_TARGET.to_owned());
    let Asked::Now(filter) = query.check(tags, caller.selector())? else {
        let why = "targets are those of the present";
        return Err(Problem::invalid(format!("at and position are not possible here: {why}.")));
    };
    let order = Order::default();
    let mut groups = Vec::new();
    let (mut after, mut looked_at) = (None, 0);
    loop {
        let page = async |client: &mut Object| {
            let default = api.default_threshold;
            satellites::list(client, &filter, order, after.as_ref(), 0, MAX_LIMIT, default).await
        };
        let page = api.scans.run(page).await?;
        groups.extend(page.iter().filter_map(|satellite| group(satellite, &target)));
        looked_at += page.len();
        if groups.len() > MAX_TARGETS || looked_at > MAX_LOOKED_AT {
            return Err(Problem::invalid(format!(
                "There are more than {MAX_TARGETS} targets, or {MAX_LOOKED_AT} satellites to find them among: \
                 ask for a region or a tag."
            )));
        }
        match page.last() {
            Some(last) if page.len() as i64 == MAX_LIMIT => {
                let (name, id) = (last.name.clone(), last.id);
                after = Some(Place { key: None, name, id });
            }
            _ => return Ok(Json(groups)),
        }
    }
}

fn group(satellite: &SatelliteJson, target: &str) -> Option<TargetGroup> {
    let address = satellite.tags.get(target)?.clone();
    let own = [
        ("id", satellite.id.to_string()),
        ("name", satellite.name.clone()),
        ("region", satellite.region.clone()),
        ("status", satellite.status.to_string()),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value));
    let tags =
        satellite.tags.iter().map(|(name, value)| (format!("tag_{}", label(name)), value.clone()));
    let labels = own.into_iter().chain(tags);
    let labels = labels.map(|(name, value)| (format!("__meta_groundstation_{name}"), value));
    Some(TargetGroup { targets: [address], labels: labels.collect() })
}

/// A tag's name as a part of a label's: what Prometheus does not take there is an underscore, as for its own.
fn label(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}
