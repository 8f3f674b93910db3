//! A client of the HTTP API, for the command line. Blocking.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, anyhow};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::wire::SatelliteJson;

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// How long a pod may take to say whether it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(3);

/// A pod's API and a token for it.
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    base: String,
    token: SecretString,
}

/// What a registration, or a new token, answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Created {
    /// The satellite.
    pub satellite: SatelliteJson,
    /// Its token, shown this once.
    pub token: String,
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

/// What a satellite is to check.
#[derive(Debug, Serialize, Deserialize)]
pub struct Assignments {
    /// The change that made them.
    pub version: i64,
    /// All of them.
    pub assignments: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    satellites: Vec<SatelliteJson>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Problem {
    title: String,
    #[serde(default)]
    detail: String,
}

/// Asks a pod whether it is ready; its report, or an error that carries it.
pub fn ready(base: &str) -> anyhow::Result<String> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(READY_TIMEOUT))
        .http_status_as_error(false)
        .build();
    let url = format!("{}/readyz", base.trim_end_matches('/'));
    let mut answer = ureq::Agent::from(config)
        .get(&url)
        .call()
        .map_err(|error| anyhow!("{url} does not answer: {error}"))?;
    let report = answer.body_mut().read_to_string().context("cannot read the answer")?;
    if answer.status().is_success() { Ok(report) } else { Err(anyhow!("not ready: {report}")) }
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

    /// All satellites that pass the filters, which are query parameters of the API.
    pub fn list(&self, filters: &[(&str, &str)]) -> anyhow::Result<Vec<SatelliteJson>> {
        let mut satellites = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut request = self
                .agent
                .get(format!("{}/v1/satellites", self.base))
                .header("authorization", self.bearer())
                .query("limit", "1000")
                .query_pairs(filters.iter().copied());
            if let Some(cursor) = &cursor {
                request = request.query("cursor", cursor);
            }
            let page: Page = self.read(request.call())?;
            satellites.extend(page.satellites);
            match page.next_cursor {
                Some(next) => cursor = Some(next),
                None => return Ok(satellites),
            }
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

    /// Replaces a satellite's token: the old one is void.
    pub fn rotate_token(&self, id: Uuid) -> anyhow::Result<Created> {
        let request = self.agent.post(format!("{}/v1/satellites/{id}/token", self.base));
        self.read(request.header("authorization", self.bearer()).send_empty())
    }

    /// What a satellite is to check.
    pub fn assignments(&self, id: Uuid) -> anyhow::Result<Assignments> {
        let request = self.agent.get(format!("{}/v1/satellites/{id}/assignments", self.base));
        self.read(request.header("authorization", self.bearer()).call())
    }

    /// Replaces what a satellite is to check.
    pub fn assign(&self, id: Uuid, list: &serde_json::Value) -> anyhow::Result<Assignments> {
        let request = self.agent.put(format!("{}/v1/satellites/{id}/assignments", self.base));
        self.read(request.header("authorization", self.bearer()).send_json(list))
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
            anyhow!("cannot reach groundstation at {}: {error} (is `groundstation serve` running there?)", self.base)
        })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        Err(match answer.body_mut().read_json::<Problem>() {
            Ok(problem) => anyhow!("{} ({status}): {}", problem.title, problem.detail),
            Err(_) => anyhow!("{} answered {status}", self.base),
        })
    }
}
