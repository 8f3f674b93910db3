//! `satellites.list`, `.get`, `.online`, `.states`, `.stats` and `.intervals`.

use std::collections::BTreeMap;

use deadpool_postgres::Object;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::api::Api;
use crate::api::caller::EVERYTHING;
use crate::api::fleet::{self, Ids, IdsQuery, IntervalsQuery};
use crate::api::page::Page;
use crate::api::parameters::satellite_named;
use crate::api::past::{self, StatsQuery};
use crate::api::problem::Problem;
use crate::api::satellites::{self, PageQuery};
use crate::api::selection::{SelectionQuery, TagQuery};
use crate::contract::fleet::Intervals;
use crate::contract::wire::{SatelliteJson, StateJson};
use crate::domain::lifecycle::SatelliteId;
use crate::log::history::Stats;
use crate::registry::satellites::states::{self, MAX_NAMED};

/// Which page of the fleet.
#[derive(Deserialize)]
pub struct Listed {
    #[serde(flatten)]
    query: SelectionQuery,
    #[serde(flatten)]
    tags: TagQuery,
    #[serde(flatten)]
    page: PageQuery,
}

/// As `GET /v1/satellites`.
pub async fn list(api: &Api, asked: Listed) -> Result<Page, Problem> {
    satellites::page(api, &EVERYTHING, asked.query, asked.tags, asked.page).await
}

/// As `GET /v1/satellites?status=online`.
pub async fn online(api: &Api, asked: Listed) -> Result<Page, Problem> {
    satellites::page(api, &EVERYTHING, asked.query.online(), asked.tags, asked.page).await
}

/// Which satellite.
#[derive(Deserialize)]
pub struct One {
    id: String,
}

/// As `GET /v1/satellites/{id}`.
pub async fn get(api: &Api, asked: One) -> Result<SatelliteJson, Problem> {
    satellites::one(api, satellite_named(&asked.id)?).await
}

/// The state of each that has one.
#[derive(Serialize)]
pub struct States {
    states: BTreeMap<Uuid, StateJson>,
}

/// The batched read.
pub async fn states(api: &Api, asked: Ids) -> Result<States, Problem> {
    let IdsQuery { ids } = asked.try_into()?;
    if ids.len() > MAX_NAMED {
        return Err(Problem::invalid(format!("ids must be at most {MAX_NAMED}.")));
    }
    let satellites: Vec<SatelliteId> = ids.into_iter().map(SatelliteId).collect();
    let states = async |client: &mut Object| {
        states::states(client, &satellites, api.default_threshold).await
    };
    let states = api.reads.run(states).await?;
    Ok(States { states })
}

/// Which satellite, and what of its past.
#[derive(Deserialize)]
pub struct OnesStats {
    id: String,
    #[serde(flatten)]
    query: StatsQuery,
}

/// As `GET /v1/satellites/{id}/stats`.
pub async fn stats(api: &Api, asked: OnesStats) -> Result<Stats, Problem> {
    past::answer(api, satellite_named(&asked.id)?, asked.query).await
}

/// Which satellites, and when.
#[derive(Deserialize)]
pub struct Over {
    #[serde(flatten)]
    ids: Ids,
    #[serde(flatten)]
    query: IntervalsQuery,
}

/// As `GET /v1/intervals`.
pub async fn intervals(api: &Api, asked: Over) -> Result<Intervals, Problem> {
    fleet::intervals(api, &EVERYTHING, asked.ids.try_into()?, asked.query).await
}
