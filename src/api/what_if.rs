//! `/v1/what-if`: what another offline threshold would have done.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use deadpool_postgres::Object;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::caller::Caller;
use super::fleet::{DEFAULT_SPAN, bounds};
use super::parameters::span;
use super::past::{MAX_WINDOW, told};
use super::problem::Problem;
use crate::contract::what_if::WhatIf;
use crate::log::what_if::{self, Question};
use crate::log::window;

/// The longest threshold that can be asked about.
const MAX_THRESHOLD: Duration = Duration::from_secs(24 * 60 * 60);

/// Which threshold, and which losses.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WhatIfQuery {
    /// The other offline threshold, such as `90s`; at most 1 day
    #[param(example = "90s", pattern = "^[1-9][0-9]{0,4}(s|m|h|d)$")]
    threshold: String,
    /// Losses that were due from here on [default: 24 hours before until]; at most 366 days before it
    #[param(format = DateTime)]
    since: Option<String>,
    /// Until when [default: now]
    #[param(format = DateTime)]
    until: Option<String>,
    /// Only of satellites that were in this region
    region: Option<String>,
}

/// Ask what another threshold would have done
///
/// From the log alone: of the losses in a window, those that a longer threshold would have spared because the satellite
/// was heard again within it, and how much later the others would have been told; of a shorter one, how much earlier, and
/// what it would have added, as far as the log can tell. It holds the threshold against every satellite, whatever its own
/// was. `unknown` says in words what the log cannot know. Looks at no more than 1,000,000 transitions.
#[utoipa::path(get, operation_id = "askWhatIf", path = "/v1/what-if", tag = "fleet",
    params(WhatIfQuery), responses(
    (status = 200, description = "What would have been", body = WhatIf),
    (status = 410, description = "What was then was dropped in this moment: ask again",
     body = super::problem::ProblemJson, content_type = "application/problem+json"),
))]
pub async fn show(
    State(api): State<Arc<Api>>,
    caller: Caller,
    query: Result<Query<WhatIfQuery>, QueryRejection>,
) -> Result<Json<WhatIf>, Problem> {
    let Query(query) = query?;
    let (since, until) = bounds(query.since.as_deref(), query.until.as_deref())?;
    let threshold = span("threshold", &query.threshold, MAX_THRESHOLD)?;
    let region = query.region;
    let answer = async |client: &mut Object| {
        let answer = async {
            let window = window::asked(client, since, until, DEFAULT_SPAN, MAX_WINDOW).await?;
            let question = Question {
                threshold,
                region: region.clone(),
                selector: caller.selector().clone(),
                window,
            };
            what_if::answer(client, &question, api.vouch_window).await
        };
        told(answer.await)
    };
    Ok(Json(api.scans.run(answer).await??))
}
