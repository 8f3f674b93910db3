//! A pod: `groundstation serve` as a process of its own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::lines::Lines;
use super::program;
use super::satellite::Credentials;
use super::wait::{blocking, eventually};

/// How long a call may take before the pod counts as dead.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// A running pod. Dropping it kills it.
pub struct Pod {
    pub name: String,
    pub address: SocketAddr,
    child: Child,
    /// What it has written to standard error.
    lines: Lines,
    admin_token: String,
}

/// A named token of the administration API.
#[derive(Debug, Clone)]
pub struct NamedToken {
    pub id: uuid::Uuid,
    pub secret: String,
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub text: String,
}

impl Pod {
    /// Starts a pod and does not wait: it may die at once.
    pub fn launch(name: &str, environment: &[(String, String)], admin_token: &str) -> Pod {
        let mut command = program::command(environment);
        command.arg("serve").stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a pod starts");
        let lines = Lines::of(child.stderr.take().expect("piped"));
        Pod {
            name: name.to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            child,
            lines,
            admin_token: admin_token.to_owned(),
        }
    }

    /// Starts a pod and waits until it is ready.
    pub async fn start(name: &str, environment: &[(String, String)], admin_token: &str) -> Pod {
        let mut pod = Pod::launch(name, environment, admin_token);
        pod.address = eventually("the pod to listen", async || pod.listening()).await;
        pod.expect_ready().await;
        pod
    }

    /// Waits until it is ready.
    pub async fn expect_ready(&self) {
        eventually("the pod to be ready", async || {
            let answer = self.get("/readyz").await;
            if answer.status == 200 { Ok(()) } else { Err(answer.text) }
        })
        .await;
    }

    /// The address it listens on, once it has logged it.
    pub fn listening(&self) -> Result<SocketAddr, String> {
        let listening = self.logged("listening").ok_or("no line `listening`")?;
        let address = listening["address"].as_str().ok_or("no address")?;
        address.parse().map_err(|_| format!("{address} is no address"))
    }

    /// The first log line with this message, as JSON.
    pub fn logged(&self, message: &str) -> Option<Value> {
        let lines = self.lines.all();
        let mut lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["message"].as_str().is_some_and(|m| m.contains(message)))
    }

    /// How many log lines have this message.
    pub fn told(&self, words: &str) -> usize {
        self.lines.all().iter().filter(|line| line.contains(words)).count()
    }

    /// Waits for a log line.
    pub async fn expect_log(&self, message: &str) -> Value {
        eventually(&format!("{} to log {message:?}", self.name), async || {
            self.logged(message).ok_or_else(|| self.lines.tail())
        })
        .await
    }

    /// Everything it has written to standard error.
    pub fn log(&self) -> String {
        self.lines.all().join("\n")
    }

    /// Registers a satellite.
    pub async fn register(&self, name: &str, region: &str) -> Credentials {
        self.register_with(json!({"name": name, "region": region})).await
    }

    /// What the command line needs to talk to it as the administrator.
    pub fn variables(&self) -> Vec<(String, String)> {
        let url = format!("http://{}", self.address);
        let token = self.admin_token.clone();
        let variables = [("GROUNDSTATION_URL", url), ("GROUNDSTATION_ADMIN_TOKEN", token)];
        variables.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    /// Registers a satellite of this description.
    pub async fn register_with(&self, description: Value) -> Credentials {
        let answer = self.post("/v1/satellites", &description).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let created = answer.json();
        let id = created["satellite"]["id"].as_str().expect("an id").parse().expect("a UUID");
        Credentials { id, token: created["token"].as_str().expect("a token").to_owned() }
    }

    /// Makes a named token.
    pub async fn make_token(&self, described: &Value) -> NamedToken {
        let answer = self.post("/v1/tokens", described).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let made = answer.json();
        let id = made["token"]["id"].as_str().expect("an id").parse().expect("a UUID");
        NamedToken { id, secret: made["secret"].as_str().expect("a secret").to_owned() }
    }

    /// Enrols a satellite with this token, under a key if there is one.
    pub async fn enrol(&self, token: &str, key: Option<&str>, body: &Value) -> Answer {
        let header = key.map(|key| ("Idempotency-Key", key));
        let (headers, body) = (header.as_slice(), Some(body.to_string()));
        let token = Some(token);
        let answer =
            try_call_with(self.address, "POST", "/v1/enrol", token, headers, body, CALL_TIMEOUT);
        answer.await.unwrap_or_else(|error| panic!("POST /v1/enrol of {}: {error}", self.name))
    }

    /// Revokes a named token.
    pub async fn revoke(&self, token: &NamedToken) {
        let path = format!("/v1/tokens/{}", token.id);
        let answer = self.call("DELETE", &path, Some(&self.admin_token), None).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }

    /// The status of a call with this token, without a body.
    pub async fn status_with(&self, token: &str, path: &str) -> u16 {
        self.call("GET", path, Some(token), None).await.status
    }

    /// Calls as the administrator, without a body.
    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, Some(&self.admin_token), None).await
    }

    /// Asks for a satellite as the API shows it.
    pub async fn show(&self, id: uuid::Uuid) -> Value {
        let answer = self.get(&format!("/v1/satellites/{id}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Sends a body as the administrator.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, Some(&self.admin_token), Some(body.to_string())).await
    }

    /// Changes something as the administrator.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.call("PATCH", path, Some(&self.admin_token), Some(body.to_string())).await
    }

    /// Replaces a satellite's assignments; returns the new version.
    pub async fn assign(&self, id: uuid::Uuid, list: &Value) -> i64 {
        let path = format!("/v1/satellites/{id}/assignments");
        let answer = self.put(&path, &json!({"assignments": list})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["version"].as_i64().expect("a version")
    }

    /// Puts a body as the administrator.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call("PUT", path, Some(&self.admin_token), Some(body.to_string())).await
    }

    /// Deletes a satellite as the administrator.
    pub async fn remove(&self, id: uuid::Uuid) -> Answer {
        self.call("DELETE", &format!("/v1/satellites/{id}"), Some(&self.admin_token), None).await
    }

    /// A call of the administrator with more headers.
    pub async fn call_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Answer {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("Authorization", format!("Bearer {}", self.admin_token))
            .header("Content-Type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.unwrap_or_default()).expect("a request");
        let called = format!("{method} {path} of {}", self.name);
        let answer = blocking(move || send(request, CALL_TIMEOUT)).await;
        answer.unwrap_or_else(|error| panic!("{called}: {error}"))
    }

    /// Makes any call.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<String>,
    ) -> Answer {
        let called = format!("{method} {path} of {}", self.name);
        let answer = try_call(self.address, method, path, token, body, CALL_TIMEOUT).await;
        answer.unwrap_or_else(|error| panic!("{called}: {error}"))
    }

    /// The value of a metric, written with its labels as `/metrics` shows them; 0 where it is not
    /// there yet.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await.text;
        let values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        values.map(|value| value.parse::<f64>().expect("a number")).next().unwrap_or(0.0)
    }

    /// Waits until a metric is at least this.
    pub async fn expect_metric(&self, name: &str, least: f64) {
        eventually(&format!("{name} of {} to reach {least}", self.name), async || {
            let value = self.metric(name).await;
            if value >= least { Ok(()) } else { Err(value.to_string()) }
        })
        .await;
    }

    /// Waits until this pod is connected to NATS: it has not heard earlier announcements.
    pub async fn expect_nats(&self) {
        self.expect_metric("groundstation_nats_up", 1.0).await;
    }

    /// Waits until this pod has made `times` more sweeps for silent satellites.
    pub async fn sweeps(&self, times: u32) {
        const SWEEPS: &str = "groundstation_sweep_seconds_count";
        let now = self.metric(SWEEPS).await;
        self.expect_metric(SWEEPS, now + f64::from(times)).await;
    }

    /// The process' id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let pid = self.pid();
        let ps = Command::new("ps").args(["-o", "rss=", "-p", &pid.to_string()]).output();
        let said = String::from_utf8(ps.expect("ps runs").stdout).expect("text");
        said.trim().parse::<u64>().expect("a number of KiB") * 1024
    }

    /// Kills it, as in a crash.
    pub fn kill(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("the pod can be killed");
    }

    /// Stops the process wherever it is, like a suspended machine.
    pub fn suspend(&self) {
        signal(self.child.id(), "STOP");
    }

    /// Lets it go on.
    pub fn wake(&self) {
        signal(self.child.id(), "CONT");
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        signal(self.child.id(), "TERM");
    }

    /// The exit status, if it has ended and its whole log was read.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        let ended = self.child.try_wait().expect("a child");
        ended.filter(|_| self.lines.are_complete())
    }

    /// Waits until the process has ended and its whole log was read.
    pub async fn exit(&mut self) -> ExitStatus {
        eventually("the pod to end", async || self.has_ended().ok_or_else(|| self.lines.tail()))
            .await
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Fails only for a process that has ended.
        self.child.kill().and_then(|()| self.child.wait()).ok();
        if std::thread::panicking() {
            eprintln!("--- the last lines of pod {}:\n{}", self.name, self.lines.tail());
        }
    }
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
}

/// A call of a pod that may be away, or not answer in time.
pub async fn try_call(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<String>,
    limit: Duration,
) -> Result<Answer, String> {
    try_call_with(address, method, path, token, &[], body, limit).await
}

/// The same with more headers.
pub async fn try_call_with(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    headers: &[(&str, &str)],
    body: Option<String>,
    limit: Duration,
) -> Result<Answer, String> {
    let mut request =
        ureq::http::Request::builder().method(method).uri(format!("http://{address}{path}"));
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    if body.is_some() {
        request = request.header("Content-Type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.unwrap_or_default()).expect("a request");
    blocking(move || send(request, limit)).await.map_err(|error| error.to_string())
}

fn send(request: ureq::http::Request<String>, limit: Duration) -> Result<Answer, ureq::Error> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .timeout_global(Some(limit))
        .build();
    let mut response = ureq::Agent::new_with_config(config).run(request)?;
    let headers = response.headers().iter();
    let headers = headers
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
        .collect();
    let status = response.status().as_u16();
    Ok(Answer { status, headers, text: response.body_mut().read_to_string()? })
}

pub(super) fn signal(pid: u32, name: &str) {
    let kill = r#"kill -s "$1" "$2""#;
    let status =
        Command::new("/bin/sh").args(["-c", kill, "kill", name, &pid.to_string()]).status();
    assert!(status.expect("/bin/sh").success(), "cannot send {name} to {pid}");
}
