//! An authenticated socket, from its welcome to its end.
//!
//! One `select!` receives commands of the session table, the pod's drain, administrators' changes, new script
//! packages, answers to the satellite's questions, the satellite's messages, and time-outs. None of them
//! waits for another: messages to the satellite are written while it is read ([`DuplexSocket`]), and each
//! question to a backend is a future of its own ([`Questions`]). A satellite that is read slowly because it
//! sends too much is not silent, and neither is one of whose large message some has just arrived. A satellite
//! whose large message waits for room does not count as heard: the pod cannot know whether it is still there.
//!
//! What is pushed is read when the socket is free for it: always the newest, never a queue.

use std::sync::Arc;
use std::time::Duration;

use fail::fail_point;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::warn;

use super::Gateway;
use super::duplex_socket::{DuplexSocket, Happened};
use super::end::{self, End};
use super::protocol::{FromSatellite, Malformed, Said, ToSatellite, items_of, lockfile_hash};
use super::questions::{Question, Questions, TooMany};
use super::socket::{Broken, Message};
use crate::domain::lifecycle::{SatelliteId, SessionKey};
use crate::domain::liveness;
use crate::gateway::backends::body::{self, Source};
use crate::gateway::backends::packages::{Desired, Known};
use crate::gateway::backends::results::Finding;
use crate::gateway::backends::wanted::{CAPABILITY_STATUS, TELEMETRY_BATCH};
use crate::ingress::refusal::Refusal;
use crate::platform::database_clock::Moment;
use crate::platform::log_gate::Share;
use crate::registry::desired::DesiredState;
use crate::registry::satellites::AgentInfo;
use crate::sessions::table::{Command, Told};

/// How long the database may take to return a satellite's desired state for its welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause before the database is asked again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A satellite that sends nothing keeps its socket for this many default thresholds after it was due: time to
/// declare its loss and still to hear from it. A connection that died without a close is held no longer than
/// that.
const LINGER_THRESHOLDS: u32 = 3;

/// How often a satellite counts as heard while a large message of it arrives: as often as heartbeats are
/// written.
const COMING_INTERVAL: Duration = Duration::from_millis(250);

/// Replies to agents of later versions that ask for what no backend serves here.
const NO_CONFIG_SECRETS: &str = "Config secrets are not served here";
const NO_CAPABILITY_SECRETS: &str = "Capability secrets are not served here";

/// How much of an agent's complaint is logged.
const MAX_LOGGED: usize = 500;

pub struct ActiveSession<'a> {
    key: SessionKey,
    gateway: &'a Gateway,
    /// What the agent last said of itself; only what differs is passed on.
    agent_info: AgentInfo,
    /// The version of the satellite's token that it presented.
    token_version: i64,
    told: watch::Receiver<Told>,
    desired_state: Arc<DesiredState>,
    /// The version of the assignments that it was last sent.
    sent: i64,
    packages: watch::Receiver<Known>,
    /// The script packages that it was last told of.
    told_packages: Known,
    questions: Questions,
    /// When it last sent a heartbeat.
    beat_at: Instant,
    /// For how long it is to be left unread.
    rest: Duration,
    /// Bounds the log lines about its complaints.
    told_of: Share,
}

impl<'a> ActiveSession<'a> {
    /// Welcomes a satellite: reads its desired state and sends it. Later changes arrive by `told`, so the
    /// session must be in the table before this read.
    pub async fn welcome(
        gateway: &'a Gateway,
        socket: &mut DuplexSocket,
        key: SessionKey,
        (agent_info, token_version, told_of): (AgentInfo, i64, Share),
        mut told: watch::Receiver<Told>,
    ) -> Result<ActiveSession<'a>, End> {
        let packages = gateway.backends.packages.subscribe();
        let known = gateway.backends.packages.look();
        let (desired_state, told_packages) = tokio::join!(look(gateway, key.satellite), known);
        gateway.sessions.tell(key.satellite, desired_state.ok_or(End::Unavailable)?);
        // None if a newer session at this pod has already replaced this one.
        let desired_state = told.borrow_and_update().clone();
        let desired_state = desired_state.ok_or(End::Told(Command::Superseded))?;
        let mut questions = Questions::new(gateway.backends.clone(), key);
        questions.look_for_policy();
        socket.has_assignments(desired_state.assigned.count());
        let session = ActiveSession {
            key,
            gateway,
            agent_info,
            token_version,
            told,
            sent: desired_state.assigned.version,
            desired_state,
            packages,
            told_packages,
            questions,
            beat_at: Instant::now(),
            rest: Duration::ZERO,
            told_of,
        };
        session.may_stay()?;
        let welcome = ToSatellite::Authenticated {
            satellite_id: key.satellite.0,
            assignments: session.desired_state.assigned.list.clone(),
            script_packages_lockfile_hash: lockfile_hash(&session.told_packages.desired),
        };
        say(socket, &welcome)?;
        session.note_sent();
        Ok(session)
    }

    /// Holds the socket until it ends.
    pub async fn hold(
        &mut self,
        socket: &mut DuplexSocket,
        orders: &mut mpsc::Receiver<Command>,
    ) -> End {
        self.try_hold(socket, orders).await.unwrap_or_else(|end| end)
    }

    /// Says goodbye and hears on until the satellite answers it. What it had sent by then was not read, perhaps;
    /// to the satellite it is sent, and it does not send it again to another pod.
    pub async fn leave(&mut self, socket: &mut DuplexSocket, code: u16, words: &'static str) {
        let hear = |frame| {
            self.hear(frame);
        };
        socket.close(code, words, hear).await;
    }

    async fn try_hold(
        &mut self,
        socket: &mut DuplexSocket,
        orders: &mut mpsc::Receiver<Command>,
    ) -> Result<End, End> {
        let mut heard_at = Instant::now();
        let mut silent_at = self.silent_at(heard_at);
        let mut drained_at = None;
        let mut coming_at = None;
        loop {
            if socket.is_free() {
                self.say_news(socket)?;
            }
            let has_answers = socket.is_free() && !self.questions.is_empty();
            let stuck_at = socket.deadline();
            let give_up_at = stuck_at.map_or(silent_at, |at| at.min(silent_at));
            tokio::select! {
                biased;
                Some(command) = orders.recv() => return Ok(End::Told(command)),
                () = self.gateway.drain.cancelled(), if drained_at.is_none() => {
                    let spread = end::spread(self.key, self.gateway.drain_spread);
                    drained_at = Some(Instant::now() + spread);
                }
                () = sleep_until(drained_at.unwrap_or(silent_at)), if drained_at.is_some() => {
                    return Ok(End::Drain);
                }
                Ok(()) = self.told.changed() => {
                    let patience = self.patience();
                    if let Some(desired_state) = &*self.told.borrow_and_update() {
                        self.desired_state = desired_state.clone();
                    }
                    self.may_stay()?;
                    socket.has_assignments(self.desired_state.assigned.count());
                    if self.patience() != patience {
                        silent_at = self.silent_at(heard_at);
                    }
                }
                Ok(()) = self.packages.changed() => {}
                answer = self.questions.next(), if has_answers => say(socket, &answer)?,
                happened = socket.next() => match happened {
                    Happened::Heard(frame) => {
                        heard_at = Instant::now();
                        silent_at = self.silent_at(heard_at);
                        // Its heartbeats are among the messages that are not read yet.
                        if socket.is_slowed_down() {
                            self.beat(AgentInfo::default());
                        }
                        if let Some(end) = self.hear(frame) {
                            return Ok(end);
                        }
                        let rest = std::mem::take(&mut self.rest);
                        if !rest.is_zero() {
                            socket.rest(rest);
                        }
                    }
                    Happened::Coming => coming_at = Some(Instant::now()),
                    Happened::Written => {}
                    Happened::Broken(Broken::Violation(code)) => return Ok(End::Violation(code)),
                    Happened::Broken(Broken::Gone) => return Ok(End::Dropped),
                    Happened::Ended => return Ok(End::Dropped),
                },
                () = sleep_until(coming_at.unwrap_or(give_up_at)), if coming_at.is_some() => {
                    let coming = socket.is_coming();
                    coming_at = coming.map(|_| Instant::now() + COMING_INTERVAL);
                    if coming == Some(true) {
                        heard_at = Instant::now();
                        silent_at = self.silent_at(heard_at);
                        self.beat(AgentInfo::default());
                    }
                }
                () = sleep_until(give_up_at) => {
                    if stuck_at == Some(give_up_at) {
                        self.gateway.metrics.refused(Refusal::WriteTimeout);
                        return Ok(End::Stuck);
                    }
                    // The loss may be declared and taken back: it is this pod that does not read.
                    if socket.waits_for_room() {
                        silent_at = Instant::now() + self.gateway.default_threshold;
                        continue;
                    }
                    return Ok(End::Silent);
                }
            }
        }
    }

    /// How long the satellite may send nothing: its own threshold, but no less than the default.
    fn patience(&self) -> Duration {
        let default = self.gateway.default_threshold;
        liveness::threshold(self.desired_state.threshold_ms, default).max(default)
    }

    /// Until when a satellite that was last heard at `heard_at` keeps its socket. Where an administrator made
    /// its threshold shorter, it may be due already; its loss is then still to be declared.
    fn silent_at(&self, heard_at: Instant) -> Instant {
        let due_at = heard_at + self.patience();
        due_at.max(Instant::now()) + self.gateway.default_threshold * LINGER_THRESHOLDS
    }

    /// Sends one thing that the satellite does not know yet.
    fn say_news(&mut self, socket: &mut DuplexSocket) -> Result<(), End> {
        let packages = self.packages.borrow_and_update().clone();
        let new_packages = match &packages.desired {
            Desired::Hash(hash) if packages != self.told_packages => Some(hash.clone()),
            _ => None,
        };
        let assigned = &self.desired_state.assigned;
        // No message says that there are no packages any more; `config_updated` can.
        let is_newer = self.sent < assigned.version;
        let message = if is_newer || new_packages == Some(None) {
            self.sent = assigned.version;
            ToSatellite::ConfigUpdated {
                assignments: assigned.list.clone(),
                script_packages_lockfile_hash: lockfile_hash(&packages.desired),
            }
        } else if let Some(Some(hash)) = &new_packages {
            ToSatellite::RefreshScriptPackages { lockfile_hash: hash.to_string() }
        } else {
            return Ok(());
        };
        if new_packages.is_some() {
            self.told_packages = packages;
        }
        say(socket, &message)?;
        if is_newer {
            self.note_sent();
        }
        Ok(())
    }

    /// Has it written which list it was sent, unless that is known: a fleet that comes back costs no write.
    fn note_sent(&self) {
        if self.desired_state.sent_version.unwrap_or(0) < self.sent {
            let sent_version = Some(self.sent);
            let told = AgentInfo { sent_version, ..AgentInfo::default() };
            self.gateway.heartbeats.said(self.key, told);
        }
    }

    fn may_stay(&self) -> Result<(), End> {
        end::may_stay(&self.desired_state, self.key.session, self.token_version)
    }

    fn hear(&mut self, frame: Message) -> Option<End> {
        let text = match frame {
            Message::Text(text) => text,
            Message::Binary(_) => return self.drop_message(Malformed::Binary.as_str()),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return None,
            Message::Close(_) => return Some(End::ClientClose),
        };
        match FromSatellite::parse(&text) {
            Ok(FromSatellite::Heartbeat { version, uptime_seconds, capabilities }) => {
                self.gateway.metrics.heartbeats_received.inc();
                self.beat_at = Instant::now();
                fail_point!("session::heard_a_heartbeat");
                let version = self.understood("version", version);
                self.understood("uptime_seconds", uptime_seconds);
                let capabilities = self.understood("capabilities", capabilities);
                let agent_info = self.news(AgentInfo { version, capabilities, sent_version: None });
                self.beat(agent_info);
                None
            }
            // The contract: a second `authenticate` is ignored.
            Ok(FromSatellite::Authenticate { .. }) => None,
            Ok(FromSatellite::Result { config_id, system_id, .. }) => {
                self.offer_result(&text, config_id, system_id)
            }
            Ok(FromSatellite::StrategyError { strategy_id, message }) => {
                let complaints = &self.gateway.complaints;
                if let Some(left_out) = complaints.pass_within(&mut self.told_of, Instant::now()) {
                    let said: String = message.chars().take(MAX_LOGGED).collect();
                    warn!(satellite = %self.key.satellite, strategy = ?strategy_id, ?said, left_out,
                        "a satellite reports that a strategy failed");
                }
                self.pass_on("satellite.strategy_error", &text)
            }
            Ok(FromSatellite::ScriptPackageSyncState { .. }) => {
                self.pass_on("satellite.script_package_sync_state", &text)
            }
            Ok(FromSatellite::RequestScriptPackageManifest { lockfile_hash }) => {
                self.ask(Question::Manifest { lockfile_hash })
            }
            Ok(FromSatellite::RequestScriptPackageBlob { integrity }) => {
                self.ask(Question::Blob { integrity })
            }
            Ok(FromSatellite::RequestRunSecrets {
                request_id, config_id, collector_id, ..
            }) => self.ask(Question::RunSecrets { request_id, config_id, collector_id }),
            Ok(FromSatellite::RequestConfigSecrets { request_id, .. }) => {
                let error = NO_CONFIG_SECRETS;
                self.answer(ToSatellite::ConfigSecrets { request_id, error })
            }
            Ok(FromSatellite::CapabilitySecretRequest { request_id, .. }) => {
                let error = NO_CAPABILITY_SECRETS;
                self.answer(ToSatellite::CapabilitySecretResponse { request_id, error })
            }
            Ok(FromSatellite::TelemetryBatch { batch_id, .. }) => {
                let passed_on = self.pass_on_if_wanted(TELEMETRY_BATCH, &text);
                let items = items_of(&text);
                let (accepted, rejected) = if passed_on { (items, 0) } else { (0, items) };
                // A retry would fare no better, and an agent that keeps the batch for later would keep it for
                // ever.
                let retryable = false;
                self.answer(ToSatellite::TelemetryAck { batch_id, accepted, rejected, retryable })
            }
            Ok(FromSatellite::CapabilityStatus { .. }) => {
                self.pass_on_if_wanted(CAPABILITY_STATUS, &text);
                None
            }
            Err(malformed) => self.drop_message(malformed.as_str()),
        }
    }

    /// Notes that the satellite was heard.
    fn beat(&self, agent_info: AgentInfo) {
        let now = Moment::now();
        if self.gateway.sessions.heard(self.key, now) {
            self.gateway.heartbeats.beat(self.key, now, agent_info);
        } else {
            self.gateway.heartbeats.said(self.key, agent_info);
        }
    }

    /// Drops a result that is not assigned to the satellite. A result whose assignment was revoked a moment
    /// ago is dropped before it is published.
    fn offer_result(&mut self, text: &str, config_id: String, system_id: String) -> Option<End> {
        if !self.desired_state.assigned.allows(&config_id, &system_id) {
            self.gateway.metrics.result("not_assigned");
            return self.drop_message("not_assigned");
        }
        let results = &self.gateway.backends.results;
        let Ok(body) = body::of_result(text, self.source(), results.largest()) else {
            return self.drop_message(Malformed::Fields.as_str());
        };
        if body.truncated {
            results.was_truncated(self.key.satellite, text.len());
        }
        let (satellite, version) = (self.key.satellite, self.desired_state.assigned.version);
        let finding = Finding { satellite, config_id, system_id, version, body: body.bytes };
        let rest = results.offer(finding, text.len(), self.desired_state.assigned.count());
        // Its heartbeats are queued behind its results, so a satellite that was not heard for a while is read
        // on.
        let since_its_beat = self.beat_at.elapsed();
        self.rest = rest.min((self.gateway.default_threshold / 3).saturating_sub(since_its_beat));
        None
    }

    fn source(&self) -> Source<'_> {
        Source { id: self.key.satellite.0, label: &self.desired_state.label }
    }

    fn pass_on(&mut self, subject: &'static str, text: &str) -> Option<End> {
        match body::with_source(text, self.source()) {
            Ok(body) => {
                self.gateway.backends.pass_on(subject, body);
                None
            }
            Err(_) => self.drop_message(Malformed::Fields.as_str()),
        }
    }

    /// Passes on a message for whose subject a stream exists, and returns whether it was sent.
    fn pass_on_if_wanted(&self, subject: &'static str, text: &str) -> bool {
        let backends = &self.gateway.backends;
        if !backends.wanted.is(subject) {
            return false;
        }
        body::with_source(text, self.source()).is_ok_and(|body| backends.pass_on(subject, body))
    }

    fn ask(&mut self, question: Question) -> Option<End> {
        match self.questions.put(question) {
            Ok(()) => None,
            Err(TooMany) => self.drop_message("too_many_questions"),
        }
    }

    fn answer(&mut self, answer: ToSatellite) -> Option<End> {
        match self.questions.answer(answer) {
            Ok(()) => None,
            Err(TooMany) => self.drop_message("too_many_questions"),
        }
    }

    fn understood<T>(&mut self, field: &'static str, said: Option<Said<T>>) -> Option<T> {
        self.gateway.understood(&mut self.told_of, self.key.satellite, field, said)
    }

    fn drop_message(&mut self, why: &'static str) -> Option<End> {
        self.gateway.drop_message(&mut self.told_of, self.key.satellite, why);
        None
    }

    /// What of it is new.
    fn news(&mut self, said: AgentInfo) -> AgentInfo {
        let mut news = AgentInfo::default();
        if said.version.is_some() && said.version != self.agent_info.version {
            self.agent_info.version.clone_from(&said.version);
            news.version = said.version;
        }
        if said.capabilities.is_some() && said.capabilities != self.agent_info.capabilities {
            self.agent_info.capabilities.clone_from(&said.capabilities);
            news.capabilities = said.capabilities;
        }
        news
    }
}

/// The satellite's desired state. A database connection that breaks does not end the session: the read is
/// repeated until [`WELCOME_TIMEOUT`] is over.
async fn look(gateway: &Gateway, satellite: SatelliteId) -> Option<DesiredState> {
    let until = Instant::now() + WELCOME_TIMEOUT;
    loop {
        let why = match timeout_at(until, gateway.desired_state.of(satellite)).await {
            Ok(Ok(desired_state)) => return desired_state,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        if Instant::now() + LOOK_AGAIN >= until {
            if let Some(left_out) = gateway.complaints.pass(Instant::now()) {
                warn!(%satellite, error = %why, left_out, "cannot tell a satellite what it is to do");
            }
            return None;
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Every message can be written as JSON. One that cannot ends the session, rather than be left out.
fn say(socket: &mut DuplexSocket, message: &ToSatellite) -> Result<(), End> {
    socket.say(message).map_err(|error| {
        warn!(%error, "a message cannot be written");
        End::Unavailable
    })
}
