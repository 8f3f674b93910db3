//! `/v1/fleet`, `/v1/fleet/timeline` and `/v1/intervals`: the fleet counted, and how it was over a while.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::request::Parts;
use deadpool_postgres::Object;
use serde::Deserialize;
use tokio_postgres::{Error, IsolationLevel};
use utoipa::IntoParams;
use uuid::Uuid;

use super::Api;
use super::caller::Caller;
use super::parameters::{span, time};
use super::past::{MAX_WINDOW, told};
use super::problem::Problem;
use super::selection::{Asked, SelectionQuery, TagQuery, one_or_several};
use crate::contract::fleet::{FleetCounts, Intervals, Timeline};
use crate::contract::wire::Timestamp;
use crate::domain::access::Selector;
use crate::domain::lifecycle::Position;
use crate::domain::selection::Selection;
use crate::log::history::{self, At};
use crate::log::intervals::{self, MAX_NAMED};
use crate::log::timeline::{self, MAX_POINTS, Points};
use crate::log::window::{self, Window};
use crate::log::{fleet_then, read};
use crate::registry::satellites::{self, ListFilter};

/// How far back a window reaches unless told otherwise.
pub(super) const DEFAULT_SPAN: Duration = Duration::from_secs(24 * 60 * 60);

/// How many points a timeline has, at most, unless a step is asked for.
const DEFAULT_POINTS: u64 = 200;

/// Count the fleet
///
/// All numbers are of one moment. `total` is `online` and `offline` together; who has never connected is among the
/// offline, and who is in maintenance counts as what it is besides. Each number is how many satellites
/// `GET /v1/satellites` lists with the same parameters.
#[utoipa::path(get, operation_id = "countFleet", path = "/v1/fleet", tag = "fleet",
    params(SelectionQuery, TagQuery), responses(
    (status = 200, description = "How many satellites are how", body = FleetCounts),
    (status = 410, description = "What was then has been dropped",
     body = super::problem::ProblemJson, content_type = "application/problem+json"),
))]
pub async fn count(
    State(api): State<Arc<Api>>,
    caller: Caller,
    tags: TagQuery,
    query: Result<Query<SelectionQuery>, QueryRejection>,
) -> Result<Json<FleetCounts>, Problem> {
    let Query(query) = query?;
    counts(&api, caller.selector(), query, tags).await.map(Json)
}

/// The counts, whichever way they are asked for.
pub async fn counts(
    api: &Api,
    selector: &Selector,
    query: SelectionQuery,
    tags: TagQuery,
) -> Result<FleetCounts, Problem> {
    match query.check(tags, selector)? {
        Asked::Now(filter) => counts_now(api, &filter).await,
        Asked::Then(at, selection) => counts_then(api, at, &selection).await,
    }
}

async fn counts_now(api: &Api, filter: &ListFilter) -> Result<FleetCounts, Problem> {
    let count = async |client: &mut Object| {
        let transaction = client.build_transaction().read_only(true);
        let transaction = transaction.isolation_level(IsolationLevel::RepeatableRead);
        let transaction = transaction.start().await?;
        let regions = satellites::count(&transaction, filter, api.default_threshold).await?;
        let head = read::head(&transaction).await?;
        transaction.commit().await?;
        Ok::<_, Error>((regions, head))
    };
    let (regions, Position(head)) = api.scans.run(count).await?;
    Ok(FleetCounts::new(regions, head))
}

async fn counts_then(api: &Api, at: At, selection: &Selection) -> Result<FleetCounts, Problem> {
    let count = async |client: &mut Object| {
        let count = async {
            let as_of = history::resolve(client, at).await?;
            let regions = fleet_then::count(client, as_of, selection).await?;
            Ok(FleetCounts::new(regions, as_of.position.0))
        };
        told(count.await)
    };
    Ok(api.scans.run(count).await??)
}

/// Which points.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TimelineQuery {
    /// The first point [default: 24 hours before until]; at most 366 days before it
    #[param(format = DateTime)]
    since: Option<String>,
    /// No point is later [default: now]
    #[param(format = DateTime)]
    until: Option<String>,
    /// From one point to the next, such as `5m`, 1 s at least; so long that there are at most 1,000 points
    /// [default: such that there are about 200]
    #[param(example = "5m", pattern = "^[1-9][0-9]{0,4}(s|m|h|d)$")]
    step: Option<String>,
}

/// Show the fleet over a while
///
/// How many satellites were online, offline or unknown at each point, by the rule of `…/stats`: an edge counts from
/// when it happened, and time in which nobody could observe is unknown, as is what was before the log begins. Who has
/// not had its first edge by then, or was removed, is not counted. Looks at no more than 1,000,000 transitions.
#[utoipa::path(get, operation_id = "showFleetTimeline", path = "/v1/fleet/timeline", tag = "fleet",
    params(TimelineQuery), responses(
    (status = 200, description = "At most 1,000 points, the oldest first", body = Timeline),
    (status = 410, description = "What was then was dropped in this moment: ask again",
     body = super::problem::ProblemJson, content_type = "application/problem+json"),
))]
pub async fn show_timeline(
    State(api): State<Arc<Api>>,
    caller: Caller,
    query: Result<Query<TimelineQuery>, QueryRejection>,
) -> Result<Json<Timeline>, Problem> {
    let Query(query) = query?;
    timeline(&api, caller.selector(), query).await.map(Json)
}

/// The timeline, whichever way it is asked for.
pub async fn timeline(
    api: &Api,
    selector: &Selector,
    query: TimelineQuery,
) -> Result<Timeline, Problem> {
    let (since, until) = bounds(query.since.as_deref(), query.until.as_deref())?;
    let step = query.step.as_deref().map(|text| span("step", text, MAX_WINDOW)).transpose()?;
    if step.is_some_and(|step| step < Duration::from_secs(1)) {
        return Err(Problem::invalid("step must be a duration of 1s at least, such as 5m."));
    }
    let timeline = async |client: &mut Object| {
        let timeline = async {
            let window = window::asked(client, since, until, DEFAULT_SPAN, MAX_WINDOW).await?;
            let step = step.unwrap_or_else(|| default_step(window));
            let points = Points { from: window.from, to: window.to, step };
            if points.count() > MAX_POINTS {
                let rule = format!(
                    "step must be so long that there are at most {MAX_POINTS} points between since and until"
                );
                return Err(history::NoAnswer::Refused(rule));
            }
            timeline::timeline(client, points, selector, api.default_threshold).await
        };
        told(timeline.await)
    };
    Ok(api.scans.run(timeline).await??)
}

/// A whole number of seconds.
fn default_step(window: Window) -> Duration {
    let seconds = (window.to - window.from).whole_seconds().unsigned_abs();
    Duration::from_secs(seconds.div_ceil(DEFAULT_POINTS).max(1))
}

/// The two ends of a window, as far as they are given.
pub(super) fn bounds(
    since: Option<&str>,
    until: Option<&str>,
) -> Result<(Option<Timestamp>, Option<Timestamp>), Problem> {
    let since = since.map(|text| time("since", text)).transpose()?;
    Ok((since, until.map(|text| time("until", text)).transpose()?))
}

/// Which satellites, and when.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct IntervalsQuery {
    /// From when [default: 24 hours before until]; at most 366 days before it
    #[param(format = DateTime)]
    since: Option<String>,
    /// Until when [default: now]
    #[param(format = DateTime)]
    until: Option<String>,
}

/// Which satellites.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct IdsQuery {
    /// The satellites, 1 to 200 ids with commas between them; may be given several times
    #[param(style = Form, explode = false, min_items = 1, max_items = 200)]
    pub ids: Vec<Uuid>,
}

/// As they were written: they are checked later.
#[derive(Deserialize)]
pub struct Ids {
    #[serde(deserialize_with = "one_or_several")]
    ids: Vec<String>,
}

/// Other extractors of a query take each parameter once.
impl<S: Sync> FromRequestParts<S> for Ids {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Ids, Infallible> {
        let query = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let ids = query.filter(|(name, _)| name == "ids").map(|(_, ids)| ids.into_owned());
        let ids = ids.flat_map(|ids| ids.split(',').map(str::to_owned).collect::<Vec<_>>());
        Ok(Ids { ids: ids.collect() })
    }
}

impl TryFrom<Ids> for IdsQuery {
    type Error = Problem;

    fn try_from(Ids { ids }: Ids) -> Result<IdsQuery, Problem> {
        let read = |text: &String| {
            Uuid::try_parse(text).map_err(|_| {
                let shown: String = text.chars().take(64).collect();
                Problem::invalid(format!("ids must be UUIDs, and {shown:?} is none."))
            })
        };
        Ok(IdsQuery { ids: ids.iter().map(read).collect::<Result<_, _>>()? })
    }
}

/// Show how satellites were
///
/// Of each its states within the window, those alike run together and no time left out, by the rule of `…/stats`, whose
/// `upMs` and `downMs` are their sums. A satellite of which nothing is known is `unknown` all the while. Looks at no
/// more than 100,000 transitions.
#[utoipa::path(get, operation_id = "showIntervals", path = "/v1/intervals", tag = "fleet",
    params(IdsQuery, IntervalsQuery), responses(
    (status = 200, description = "The states of each, the oldest first", body = Intervals),
    (status = 410, description = "What was then has been dropped",
     body = super::problem::ProblemJson, content_type = "application/problem+json"),
))]
pub async fn show_intervals(
    State(api): State<Arc<Api>>,
    caller: Caller,
    ids: Ids,
    query: Result<Query<IntervalsQuery>, QueryRejection>,
) -> Result<Json<Intervals>, Problem> {
    let Query(query) = query?;
    intervals(&api, caller.selector(), ids.try_into()?, query).await.map(Json)
}

/// The intervals, whichever way they are asked for.
pub async fn intervals(
    api: &Api,
    selector: &Selector,
    IdsQuery { ids }: IdsQuery,
    query: IntervalsQuery,
) -> Result<Intervals, Problem> {
    let ids: BTreeSet<Uuid> = ids.into_iter().collect();
    if ids.is_empty() || ids.len() > MAX_NAMED {
        return Err(Problem::invalid(format!("ids must be 1 to {MAX_NAMED}.")));
    }
    let (since, until) = bounds(query.since.as_deref(), query.until.as_deref())?;
    let intervals = async |client: &mut Object| {
        let intervals = async {
            let window = window::asked(client, since, until, DEFAULT_SPAN, MAX_WINDOW).await?;
            intervals::intervals(client, &ids, selector, window, api.default_threshold).await
        };
        told(intervals.await)
    };
    Ok(api.scans.run(intervals).await??)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn a_timeline_without_a_step_has_about_two_hundred_points() {
        let to = datetime!(2026-03-01 12:00:00 UTC);
        for (minutes, seconds) in [(1, 1), (60, 18), (24 * 60, 432), (366 * 24 * 60, 158_112)] {
            let from = to - time::Duration::minutes(minutes);
            let step = default_step(Window { from, to });
            assert_eq!(step.as_secs(), seconds, "{minutes}");
            assert!(Points { from, to, step }.count() <= 201);
        }
    }

    #[test]
    fn ids_that_are_none_are_said_back() {
        let read = |ids: &[&str]| {
            let ids = Ids { ids: ids.iter().map(|id| (*id).to_owned()).collect() };
            IdsQuery::try_from(ids)
                .map(|query| query.ids)
                .map_err(|problem| problem.detail().to_owned())
        };
        let id = Uuid::from_u128(7);
        assert_eq!(read(&[&id.to_string()]), Ok(vec![id]));
        assert!(read(&["x"]).expect_err("a problem").contains("\"x\" is none"));
        assert!(read(&[""]).is_err());
    }
}
