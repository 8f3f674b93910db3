//! A client of the HTTP API, for the command line. Blocking.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

use anyhow::{Context, anyhow};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::contract::assignments::{AssignmentSetJson, EffectiveAssignments};
use crate::contract::audit::AuditPageJson;
use crate::contract::fleet::{FleetCounts, Intervals, Timeline};
use crate::contract::maintenance::{MaintenanceSelectorJson, WindowJson, WindowsJson};
use crate::contract::tokens::{SelectorJson, TokenJson};
use crate::contract::what_if::WhatIf;
use crate::contract::wire::{SatelliteJson, Timestamp, TransitionJson};

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// How long a live stream may be silent, without even a comment, before it counts as dead.
const SILENCE: Duration = Duration::from_secs(45);

/// How long a pod may take to answer whether it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(3);

/// A pod's API and a token for it.
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    base: String,
    token: SecretString,
}

/// The answer to a registration, or to a request for a new token.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Created {
    /// The satellite.
    pub satellite: SatelliteJson,
    /// Its token, shown this once.
    pub token: String,
    /// Until when the token before is valid too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_token_ends_at: Option<Timestamp>,
}

/// The answer to a request that ends a session.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// The satellite.
    pub satellite: SatelliteJson,
    /// Whether it had one.
    pub session_ended: bool,
}

/// A satellite to register.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Create<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its region.
    pub region: &'a str,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its own offline threshold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline_threshold_ms: Option<i64>,
}

/// A satellite to enrol.
#[derive(Debug, Clone, Serialize)]
pub struct Enrol {
    /// Its name.
    pub name: String,
    /// Its region; without one that of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Its tags; those of the token are added.
    pub tags: BTreeMap<String, String>,
}

/// The answer to a registration with an idempotency key.
#[derive(Debug, Serialize, Deserialize)]
pub struct Registered {
    /// The satellite.
    pub satellite: SatelliteJson,
    /// Its token, shown this once; none if the registration was repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// The changes to a satellite. An absent field stays as it is.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Update {
    /// Another name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Another region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// All its new tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    /// Another offline threshold of its own, or none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline_threshold_ms: Option<Option<i64>>,
}

/// A page of the log.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transitions {
    /// In the order of the log.
    pub transitions: Vec<TransitionJson>,
    /// Where the next page begins.
    pub next_after: i64,
    /// Where it begins with the newest first; none where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_before: Option<i64>,
}

/// A named token to make.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewToken<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is for.
    pub role: &'a str,
    /// What it reaches; without one everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<SelectorJson>,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// How many satellites it registers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses: Option<i64>,
}

/// A maintenance window to plan.
#[derive(Debug, Serialize)]
pub struct NewWindow<'a> {
    /// Which satellites it is for; without one the whole fleet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<MaintenanceSelectorJson>,
    /// When it begins; without it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// When it ends.
    pub to: Timestamp,
    /// Why.
    pub reason: &'a str,
}

/// A named token that was made.
#[derive(Debug, Serialize, Deserialize)]
pub struct MadeToken {
    /// As it is listed.
    pub token: TokenJson,
    /// Itself, shown this once.
    pub secret: String,
}

#[derive(Deserialize)]
struct Tokens {
    tokens: Vec<TokenJson>,
}

/// A satellite's assignments.
#[derive(Debug, Serialize, Deserialize)]
pub struct Assignments {
    /// The number of the change that made them.
    pub version: i64,
    /// All of them.
    pub assignments: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Sets {
    sets: Vec<AssignmentSetJson>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    satellites: Vec<SatelliteJson>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "type", default)]
    kind: String,
    title: String,
    #[serde(default)]
    detail: String,
}

/// A pod's answer that reports a problem.
#[derive(Debug, Error)]
#[error("{title} ({status}): {detail}")]
pub struct Refused {
    /// The kind of problem.
    pub title: String,
    /// The answer's status.
    pub status: u16,
    /// What is wrong.
    pub detail: String,
    /// The stable type.
    pub kind: String,
    /// When to try again, where the pod says so.
    pub retry_after: Option<Duration>,
}

/// A pod that gave no answer, in one line.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Unreachable(String);

/// Asks a pod whether it is ready. Returns its report, or an error that carries it.
pub fn ready(base: &str) -> anyhow::Result<String> {
    match ask_ready(base)? {
        (200, report) => Ok(report),
        (404, _) => Err(anyhow!("no /readyz at {base}: ask at the pod's GROUNDSTATION_OPS_LISTEN")),
        (_, report) => Err(anyhow!("not ready: {report}")),
    }
}

/// A pod's report, ready or not; none if the pod serves it elsewhere.
pub fn report(base: &str) -> anyhow::Result<Option<serde_json::Value>> {
    let (status, report) = ask_ready(base)?;
    if status == 404 {
        return Ok(None);
    }
    let report = serde_json::from_str(&report);
    report.map(Some).context("the server's answer is not what it should be")
}

fn ask_ready(base: &str) -> anyhow::Result<(u16, String)> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(READY_TIMEOUT))
        .http_status_as_error(false)
        .build();
    let url = format!("{}/readyz", base.trim_end_matches('/'));
    let mut answer = ureq::Agent::from(config).get(&url).call().map_err(|error| {
        Unreachable(format!(
            "{url} does not answer: {error} (is `groundstation serve` running there?)"
        ))
    })?;
    let report = answer.body_mut().read_to_string().context("cannot read the answer")?;
    Ok((answer.status().as_u16(), report))
}

/// The route of a set. Its name is what was typed: it may be no name of a set, and must not lead to another route.
fn set_path(name: &str) -> String {
    let encoded = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    format!("/v1/assignment-sets/{encoded}")
}

impl Client {
    /// For the pod at `base`, for example `http://127.0.0.1:8080`.
    pub fn new(base: &str, token: SecretString) -> Client {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .build();
        Client { agent: config.into(), base: base.trim_end_matches('/').to_owned(), token }
    }

    /// Registers a satellite.
    pub fn create(&self, create: &Create<'_>) -> anyhow::Result<Created> {
        let request = self.agent.post(format!("{}/v1/satellites", self.base));
        self.read(request.header("authorization", self.bearer()).send_json(create))
    }

    /// Registers a satellite, once for one key.
    pub fn register(&self, create: &Create<'_>, key: Option<&str>) -> anyhow::Result<Registered> {
        let request = self.agent.post(format!("{}/v1/satellites", self.base));
        let request = request.header("authorization", self.bearer());
        let request = match key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        self.read(request.send_json(create))
    }

    /// Enrols a satellite, once for one key.
    pub fn enrol(&self, enrol: &Enrol, key: &str) -> anyhow::Result<Created> {
        let request = self.agent.post(format!("{}/v1/enrol", self.base));
        let request = request.header("authorization", self.bearer());
        self.read(request.header("idempotency-key", key).send_json(enrol))
    }

    /// Changes a satellite in the registry: with a version, only if it has that one still.
    pub fn update(
        &self,
        id: Uuid,
        update: &Update,
        version: Option<&str>,
    ) -> anyhow::Result<SatelliteJson> {
        let request = self.agent.patch(format!("{}/v1/satellites/{id}", self.base));
        let request = request.header("authorization", self.bearer());
        let request = match version {
            Some(version) => request.header("if-match", version),
            None => request,
        };
        self.read(request.send_json(update))
    }

    /// One satellite, and the version that [`Client::update`] takes.
    pub fn get_versioned(&self, id: Uuid) -> anyhow::Result<(SatelliteJson, String)> {
        let request = self.agent.get(format!("{}/v1/satellites/{id}", self.base));
        let mut answer = self.answer(request.header("authorization", self.bearer()).call())?;
        let version = answer.headers().get("etag").and_then(|tag| tag.to_str().ok());
        let version = version.context("the server's answer has no ETag")?.to_owned();
        let satellite = answer.body_mut().read_json();
        Ok((satellite.context("the server's answer is not what it should be")?, version))
    }

    /// A page of the log, or of one satellite's part of it; the filters are query parameters.
    pub fn transitions(
        &self,
        satellite: Option<Uuid>,
        filters: &[(&str, String)],
    ) -> anyhow::Result<Transitions> {
        let path = satellite
            .map_or("/v1/transitions".to_owned(), |id| format!("/v1/satellites/{id}/transitions"));
        let request = self.agent.get(format!("{}{path}", self.base));
        let filters = filters.iter().map(|(name, value)| (*name, value));
        let request = request.query_pairs(filters);
        self.read(request.header("authorization", self.bearer()).call())
    }

    /// A route's answer as it is.
    pub fn any(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        let request = self.agent.get(format!("{}{path}", self.base));
        self.read(request.header("authorization", self.bearer()).call())
    }

    /// A page of the audit; the filters are query parameters.
    pub fn audit(&self, filters: &[(&str, String)]) -> anyhow::Result<AuditPageJson> {
        self.ask("/v1/audit", filters)
    }

    /// Opens a live stream after a position, or at the present; the filters are query parameters.
    pub fn stream(
        &self,
        path: &str,
        after: Option<i64>,
        filters: &[(&str, String)],
    ) -> anyhow::Result<impl Read + use<>> {
        let request = self.agent.get(format!("{}{path}", self.base));
        let filters = filters.iter().map(|(name, value)| (*name, value));
        let request = request.query_pairs(filters).header("authorization", self.bearer());
        let request = match after {
            Some(after) => request.header("last-event-id", after.to_string()),
            None => request,
        };
        let unending = request.config().timeout_global(None).timeout_per_read(Some(SILENCE));
        Ok(self.answer(unending.build().call())?.into_body().into_reader())
    }

    /// How many satellites that pass the filters are how.
    pub fn fleet(&self, filters: &[(&str, String)]) -> anyhow::Result<FleetCounts> {
        self.ask("/v1/fleet", filters)
    }

    /// The fleet over a while.
    pub fn timeline(&self, parameters: &[(&str, String)]) -> anyhow::Result<Timeline> {
        self.ask("/v1/fleet/timeline", parameters)
    }

    /// How some satellites were.
    pub fn intervals(&self, parameters: &[(&str, String)]) -> anyhow::Result<Intervals> {
        self.ask("/v1/intervals", parameters)
    }

    /// What another threshold would have done.
    pub fn what_if(&self, parameters: &[(&str, String)]) -> anyhow::Result<WhatIf> {
        self.ask("/v1/what-if", parameters)
    }

    fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, String)],
    ) -> anyhow::Result<T> {
        let request = self.agent.get(format!("{}{path}", self.base));
        let request = request.query_pairs(parameters.iter().map(|(name, value)| (*name, value)));
        self.read(request.header("authorization", self.bearer()).call())
    }

    /// All satellites that pass the filters, which are query parameters of the API.
    pub fn list(&self, filters: &[(&str, String)]) -> anyhow::Result<Vec<SatelliteJson>> {
        self.all("/v1/satellites", filters, |page: Page| (page.satellites, page.next_cursor))
    }

    /// All of a list, page after page.
    fn all<P: DeserializeOwned, T>(
        &self,
        path: &str,
        filters: &[(&str, String)],
        split: fn(P) -> (Vec<T>, Option<String>),
    ) -> anyhow::Result<Vec<T>> {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let mut parameters = vec![("limit", "1000".to_owned())];
            parameters.extend_from_slice(filters);
            parameters.extend(cursor.map(|cursor| ("cursor", cursor)));
            let (page, next) = split(self.ask(path, &parameters)?);
            all.extend(page);
            cursor = match next {
                Some(next) => Some(next),
                None => return Ok(all),
            };
        }
    }

    /// One satellite.
    pub fn get(&self, id: Uuid) -> anyhow::Result<SatelliteJson> {
        let request = self.agent.get(format!("{}/v1/satellites/{id}", self.base));
        self.read(request.header("authorization", self.bearer()).call())
    }

    /// Removes a satellite.
    pub fn remove(&self, id: Uuid) -> anyhow::Result<()> {
        let request = self.agent.delete(format!("{}/v1/satellites/{id}", self.base));
        self.answer(request.header("authorization", self.bearer()).call()).map(drop)
    }

    /// Replaces a satellite's token: the old one becomes void, at once or after the overlap.
    pub fn rotate_token(&self, id: Uuid, overlap: Option<&str>) -> anyhow::Result<Created> {
        let request = self.agent.post(format!("{}/v1/satellites/{id}/token", self.base));
        let request = request.header("authorization", self.bearer());
        self.read(match overlap {
            Some(overlap) => request.send_json(serde_json::json!({"overlap": overlap})),
            None => request.send_empty(),
        })
    }

    /// Ends a satellite's session.
    pub fn kick(&self, id: Uuid) -> anyhow::Result<Ended> {
        self.order(id, "kick")
    }

    /// Ends a satellite's session and has it refused.
    pub fn disable(&self, id: Uuid) -> anyhow::Result<Ended> {
        self.order(id, "disable")
    }

    /// Lets a satellite in again.
    pub fn enable(&self, id: Uuid) -> anyhow::Result<SatelliteJson> {
        self.order(id, "enable")
    }

    fn order<T: DeserializeOwned>(&self, id: Uuid, order: &str) -> anyhow::Result<T> {
        let request = self.agent.post(format!("{}/v1/satellites/{id}/{order}", self.base));
        self.read(request.header("authorization", self.bearer()).send_empty())
    }

    /// Makes a named token.
    pub fn make_token(&self, new: &NewToken<'_>) -> anyhow::Result<MadeToken> {
        let request = self.agent.post(format!("{}/v1/tokens", self.base));
        self.read(request.header("authorization", self.bearer()).send_json(new))
    }

    /// All named tokens.
    pub fn tokens(&self) -> anyhow::Result<Vec<TokenJson>> {
        let Tokens { tokens } = self.ask("/v1/tokens", &[])?;
        Ok(tokens)
    }

    /// Revokes a named token.
    pub fn revoke_token(&self, id: Uuid) -> anyhow::Result<()> {
        let request = self.agent.delete(format!("{}/v1/tokens/{id}", self.base));
        self.answer(request.header("authorization", self.bearer()).call()).map(drop)
    }

    /// All maintenance windows that pass the filters, which are query parameters of the API.
    pub fn maintenance(&self, filters: &[(&str, String)]) -> anyhow::Result<Vec<WindowJson>> {
        self.all("/v1/maintenance", filters, |page: WindowsJson| (page.windows, page.next_cursor))
    }

    /// Plans a maintenance window.
    pub fn plan_maintenance(&self, new: &NewWindow<'_>) -> anyhow::Result<WindowJson> {
        let request = self.agent.post(format!("{}/v1/maintenance", self.base));
        self.read(request.header("authorization", self.bearer()).send_json(new))
    }

    /// Ends a maintenance window.
    pub fn end_maintenance(&self, id: Uuid) -> anyhow::Result<()> {
        let request = self.agent.delete(format!("{}/v1/maintenance/{id}", self.base));
        self.answer(request.header("authorization", self.bearer()).call()).map(drop)
    }

    /// A satellite's assignments.
    pub fn assignments(&self, id: Uuid) -> anyhow::Result<Assignments> {
        let request = self.agent.get(format!("{}/v1/satellites/{id}/assignments", self.base));
        self.read(request.header("authorization", self.bearer()).call())
    }

    /// Replaces a satellite's assignments.
    pub fn assign(&self, id: Uuid, list: &serde_json::Value) -> anyhow::Result<Assignments> {
        let request = self.agent.put(format!("{}/v1/satellites/{id}/assignments", self.base));
        self.read(request.header("authorization", self.bearer()).send_json(list))
    }

    /// All that a satellite is to check, of its own list and of sets.
    pub fn effective_assignments(&self, id: Uuid) -> anyhow::Result<EffectiveAssignments> {
        self.ask(&format!("/v1/satellites/{id}/assignments/effective"), &[])
    }

    /// All sets of assignments, without what is in them.
    pub fn assignment_sets(&self) -> anyhow::Result<Vec<AssignmentSetJson>> {
        let Sets { sets } = self.ask("/v1/assignment-sets", &[])?;
        Ok(sets)
    }

    /// A set of assignments.
    pub fn assignment_set(&self, name: &str) -> anyhow::Result<AssignmentSetJson> {
        self.ask(&set_path(name), &[])
    }

    /// Makes a set of assignments, or replaces it: with a version, only if it has that one still.
    pub fn replace_assignment_set(
        &self,
        name: &str,
        set: &serde_json::Value,
        version: Option<i64>,
    ) -> anyhow::Result<AssignmentSetJson> {
        let request = self.agent.put(format!("{}{}", self.base, set_path(name)));
        let request = request.header("authorization", self.bearer());
        let request = match version {
            Some(version) => request.header("if-match", format!("\"{version}\"")),
            None => request,
        };
        self.read(request.send_json(set))
    }

    /// Deletes a set of assignments: with a version, only if it has that one still.
    pub fn delete_assignment_set(&self, name: &str, version: Option<i64>) -> anyhow::Result<()> {
        let request = self.agent.delete(format!("{}{}", self.base, set_path(name)));
        let request = request.header("authorization", self.bearer());
        let request = match version {
            Some(version) => request.header("if-match", format!("\"{version}\"")),
            None => request,
        };
        self.answer(request.call()).map(drop)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token.expose_secret())
    }

    fn read<T: DeserializeOwned>(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<T> {
        let mut answer = self.answer(answer)?;
        answer.body_mut().read_json().context("the server's answer is not what it should be")
    }

    fn answer(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<ureq::http::Response<ureq::Body>> {
        let mut answer = answer.map_err(|error| {
            Unreachable(format!("cannot reach groundstation at {}: {error} (is `groundstation serve` running there?)", self.base))
        })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        let retry_after = answer.headers().get("retry-after").and_then(|text| text.to_str().ok());
        let retry_after = retry_after.and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let problem = answer.body_mut().read_json::<Problem>();
        let Problem { kind, title, detail } = problem.unwrap_or_else(|_| Problem {
            kind: String::new(),
            title: self.base.clone(),
            detail: "it gave no reason".to_owned(),
        });
        Err(Refused { title, status, detail, kind, retry_after }.into())
    }
}
