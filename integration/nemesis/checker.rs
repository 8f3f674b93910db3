//! The checker: holds what it sees against what is promised, during the run and at its end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::cast::Member;
use super::facts::{Facts, Row};
use super::fault::pod_name;
use super::timeline::Timeline;
use super::verdict;
use super::verdicts::{Promise, Verdicts};
use super::windows::{Hampered, Windows};
use super::world::World;
use crate::harness::Credentials;
use crate::harness::program;

/// Pause between two looks.
const TICK: Duration = Duration::from_millis(500);

/// Pause between two looks of an onlooker at a pod.
const LOOK: Duration = Duration::from_millis(300);

/// A task of this process that wakes this much too late means that the machine is busy.
const LATE: Duration = Duration::from_millis(500);

/// How long after that the machine may still be busy.
const BUSY: Duration = Duration::from_secs(3);

/// All parts of a run.
pub struct Run {
    pub seed: u64,
    pub world: World,
    pub cast: Vec<Arc<Member>>,
    /// Satellites that make bursts of edges, and are not judged.
    pub crowd: Vec<Credentials>,
    pub windows: Windows,
    pub timeline: Arc<Timeline>,
    pub verdicts: Arc<Verdicts>,
    /// Cancelled when no fault may begin any more and those that last must end.
    pub stop: CancellationToken,
    facts: Mutex<Facts>,
    /// When the newest finished look at the log began.
    polled: Mutex<Instant>,
    follows: AtomicI64,
}

impl Run {
    pub fn new(
        (seed, world, cast, crowd): (u64, World, Vec<Arc<Member>>, Vec<Credentials>),
        timeline: Arc<Timeline>,
        verdicts: Arc<Verdicts>,
        stop: CancellationToken,
    ) -> Run {
        let (windows, facts) = (Windows::default(), Mutex::default());
        let (polled, follows) = (Mutex::new(Instant::now()), AtomicI64::new(0));
        Run { seed, world, cast, crowd, windows, timeline, verdicts, stop, facts, polled, follows }
    }

    pub fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().expect("facts")
    }

    /// The log was read up to its head at this moment.
    pub fn polled(&self, began: Instant) {
        *self.polled.lock().expect("a moment") = began;
    }

    /// The live stream was read up to this position.
    pub fn follows(&self, position: i64) {
        self.follows.store(position, Ordering::SeqCst);
    }

    /// The position up to which the live stream was read.
    pub fn followed(&self) -> i64 {
        self.follows.load(Ordering::SeqCst)
    }

    fn member_of(&self, id: uuid::Uuid) -> Option<&Arc<Member>> {
        self.cast.iter().find(|member| member.id() == Some(id))
    }

    /// Takes a row of the log that came between these moments.
    pub fn row(&self, row: &Row, from: Instant, to: Instant) {
        let fault = self.facts().row(row, to);
        self.verdicts.judge(Promise::LogIsDense, fault);
        let Some(member) = self.member_of(row.satellite) else { return };
        let state = member.state();
        let what =
            format!("{} ({} {} at position {})", member.name, row.event, row.reason, row.position);
        match (row.event.as_str(), row.reason.as_str()) {
            ("heartbeat_lost", _) => {
                let heard = verdict::was_heard(member.number, &state.life, &self.windows, from, to);
                let fault = heard.then(|| format!("{what} was heard all the time"));
                self.verdicts.judge(Promise::NobodyHeardIsLost, fault);
                if !heard {
                    self.verdicts.kept(Promise::NobodyDeadStays);
                }
            }
            ("connected", "recovered") => {
                let age = verdict::is_too_old_to_recover(&state.life, &self.windows, from, to);
                let fault = age
                    .map(|age| format!("{what} had not been heard for {:.1} s", age.as_secs_f64()));
                self.verdicts.judge(Promise::NobodyDeadComesBack, fault);
            }
            _ => {}
        }
    }
}

/// Notes when this machine is too busy for verdicts.
pub async fn pulse(run: Arc<Run>) {
    const BEAT: Duration = Duration::from_millis(50);
    loop {
        let slept = Instant::now();
        sleep(BEAT).await;
        let late = slept.elapsed().saturating_sub(BEAT);
        if late > LATE {
            run.timeline.say(&format!("this machine is busy: {} ms late", late.as_millis()));
            run.windows.note(Hampered::Machine, slept, Instant::now() + BUSY);
        }
    }
}

/// Looks at the fleet as one pod shows it, again and again.
pub async fn onlooker(run: Arc<Run>, pod: usize) {
    loop {
        sleep(LOOK).await;
        let from = Instant::now();
        let page = run.world.posts[pod].call("GET", "/v1/satellites?limit=1000", None).await;
        let to = Instant::now();
        let Ok(page) = page else { continue };
        if page.status != 200 {
            continue;
        }
        for satellite in page.json()["satellites"].as_array().expect("a page") {
            let id = satellite["id"].as_str().expect("an id").parse().expect("a UUID");
            let Some(member) = run.member_of(id) else { continue };
            let latest = run.facts().latest.get(&id).cloned();
            let state = member.state();
            let (is_online, life) = (satellite["status"] == "online", &state.life);
            let told = || {
                let (name, pod) = (&member.name, pod_name(pod));
                format!("{name} is shown {} by pod {pod}: {satellite}", satellite["status"])
            };
            if verdict::was_heard(member.number, life, &run.windows, from, to) {
                let fault = (!is_online).then(told);
                run.verdicts.judge(Promise::NobodyHeardIsShownOffline, fault);
            } else if let Some(latest) = latest
                && verdict::must_be_offline(member.number, life, &run.windows, latest.seen, from)
            {
                let fault = is_online.then(told);
                run.verdicts.judge(Promise::NobodyDeadIsShownOnline, fault);
            }
        }
    }
}

/// Checks again and again what must have happened by now.
pub async fn watch(run: Arc<Run>) {
    let mut judged = HashMap::new();
    loop {
        sleep(TICK).await;
        let polled = *run.polled.lock().expect("a moment");
        for member in &run.cast {
            watch_member(&run, member, polled, &mut judged);
        }
        watch_feed(&run);
    }
}

/// What was judged of a satellite.
type Judged = HashMap<uuid::Uuid, Progress>;

#[derive(Default)]
struct Progress {
    /// The first attempt whose answer is not judged yet.
    begun: usize,
    /// The first attempt whose end is not judged yet.
    ended: usize,
    /// The number of attempts when an end or a death was found overdue, so that it is reported once.
    overdue: Option<usize>,
}

/// How long after an end the window of a fault that led to it may still begin.
const AFTERMATH: Duration = Duration::from_secs(3);

fn watch_member(run: &Run, member: &Member, polled: Instant, judged: &mut Judged) {
    let state = member.state();
    let Some(id) = state.credentials.as_ref().map(|credentials| credentials.id) else { return };
    let Progress { begun, ended, overdue } = judged.entry(id).or_default();
    while let Some(attempt) = state.life.attempts.get(*begun) {
        let is_decided = attempt.welcomed.is_some() || attempt.over.is_some();
        let now = Instant::now();
        let fault = verdict::fault_of_attempt(member.number, attempt, &run.windows, now);
        if !is_decided && fault.is_none() {
            break;
        }
        let fault =
            fault.map(|how| format!("{} on pod {}: {how}", member.name, pod_name(attempt.pod)));
        run.verdicts.judge(Promise::NoEdgeWaitsForOthers, fault);
        *begun += 1;
    }
    while let Some(attempt) = state.life.attempts.get(*ended)
        && attempt.over.as_ref().is_some_and(|(at, _)| at.elapsed() > AFTERMATH)
    {
        let fault = verdict::fault_of_end(member.number, &state.life, attempt, &run.windows);
        let fault =
            fault.map(|how| format!("{} on pod {}: {how}", member.name, pod_name(attempt.pod)));
        run.verdicts.judge(Promise::NobodyHeardIsCutOff, fault);
        *ended += 1;
    }
    let latest = run.facts().latest.get(&id).cloned();
    let Some(latest) = latest.filter(|latest| latest.event == "connected") else { return };
    let number = state.life.attempts.len();
    if *overdue == Some(number) {
        return;
    }
    if let Some(attempt) = state.life.attempts.last()
        && attempt.over.as_ref().is_some_and(|(at, _)| *at > latest.seen)
        && verdict::end_is_overdue(member.number, attempt, &run.windows, polled)
    {
        *overdue = Some(number);
        let how = format!("the end of {} is not in the log: {:?}", member.name, attempt.over);
        run.verdicts.broken(Promise::NoEdgeWaitsForOthers, &how);
    }
    if verdict::is_overdue(member.number, &state.life, &run.windows, latest.seen, polled) {
        *overdue = Some(number);
        let silence = state.life.last_sign().map(|sign| polled - sign);
        let how =
            format!("{} has said nothing for {silence:?} and counts as connected", member.name);
        run.verdicts.broken(Promise::NobodyDeadStays, &how);
    }
}

fn watch_feed(run: &Run) {
    let now = Instant::now();
    let mut facts = run.facts();
    let late = facts.missing.iter().find(|(_, missing)| {
        let free = verdict::feed_is_free_since(&run.windows, missing.since);
        free.is_some_and(|since| now.saturating_duration_since(since) > missing.bound)
    });
    let Some((&position, &missing)) = late else { return };
    let waited = (now - missing.since).as_secs_f64();
    // Once is enough.
    facts.missing.remove(&position);
    drop(facts);
    let how = format!("position {position} is not on the stream after {waited:.1} s");
    run.verdicts.broken(missing.promise(), &how);
}

/// Looks after the pods as an operator: starts a pod that ended by itself, which none may, and repairs
/// the stream where a relay halts because a fault spoilt it.
pub async fn operator(run: Arc<Run>) {
    loop {
        sleep(2 * TICK).await;
        for post in &run.world.posts {
            if let Ok(mut pod) = post.pod.try_lock()
                && let Some(status) = pod.has_ended()
            {
                let how = format!("pod {} ended by itself ({status})", pod.name);
                run.verdicts.broken(Promise::PodsGoOn, &how);
                post.start_again(&mut pod, &run.timeline).await;
            }
            let Ok(answer) = post.call("GET", "/readyz", None).await else { continue };
            let Ok(report) = serde_json::from_str::<serde_json::Value>(&answer.text) else {
                continue;
            };
            if report["relay"]["state"] == "halted" {
                halted(&run, &report["relay"]["reason"].to_string()).await;
            }
        }
    }
}

/// How long the stream may take to be built anew: faults go on meanwhile, and after half an hour the log has some
/// hundred thousand transitions.
const REPAIR: Duration = Duration::from_secs(600);

async fn halted(run: &Run, reason: &str) {
    run.timeline.say(&format!("a relay has halted: {reason}"));
    let is_tampered = run.facts().is_tampered;
    let fault = (!is_tampered).then(|| reason.to_owned());
    run.verdicts.judge(Promise::RelayHaltsForAReason, fault);
    let open = run.windows.begin(Hampered::Lease);
    let environment = [
        ("DATABASE_URL".to_owned(), run.world.fleet.database_url.clone()),
        ("NATS_URL".to_owned(), run.world.fleet.nats_url.clone()),
    ];
    let arguments = ["audit", "--repair", "--yes"];
    run.facts().is_paused = true;
    let (done, _, said) = program::ran_within(REPAIR, &arguments, &environment).await;
    let last = said.lines().last().unwrap_or_default();
    run.timeline.say(&format!("audit --repair: {} {last}", if done { "done" } else { "failed" }));
    run.facts().rebuilt();
    run.windows.end(open);
}
