//! `transitions.list`.

use serde::Deserialize;

use crate::api::Api;
use crate::api::caller::EVERYTHING;
use crate::api::parameters::satellite_named;
use crate::api::problem::Problem;
use crate::api::transitions::{self, Page, TransitionsQuery};

/// Which transitions, and of which satellite if of one.
#[derive(Deserialize)]
pub struct Asked {
    id: Option<String>,
    #[serde(flatten)]
    query: TransitionsQuery,
}

/// As `GET /v1/transitions`; with an `id` as `GET /v1/satellites/{id}/transitions`.
pub async fn list(api: &Api, asked: Asked) -> Result<Page, Problem> {
    let satellite = asked.id.as_deref().map(satellite_named).transpose()?;
    transitions::page(api, &EVERYTHING, asked.query, satellite).await
}
