//! `fleet.counts` and `fleet.timeline`.

use serde::Deserialize;

use crate::api::Api;
use crate::api::caller::EVERYTHING;
use crate::api::fleet::{self, TimelineQuery};
use crate::api::problem::Problem;
use crate::api::selection::{SelectionQuery, TagQuery};
use crate::contract::fleet::{FleetCounts, Timeline};

/// Which satellites, and of when.
#[derive(Deserialize)]
pub struct Counted {
    #[serde(flatten)]
    query: SelectionQuery,
    #[serde(flatten)]
    tags: TagQuery,
}

/// As `GET /v1/fleet`.
pub async fn counts(api: &Api, asked: Counted) -> Result<FleetCounts, Problem> {
    fleet::counts(api, &EVERYTHING, asked.query, asked.tags).await
}

/// As `GET /v1/fleet/timeline`.
pub async fn timeline(api: &Api, asked: TimelineQuery) -> Result<Timeline, Problem> {
    fleet::timeline(api, &EVERYTHING, asked).await
}
