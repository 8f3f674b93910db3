//! A small model of pods that vouch; every run of it is checked. It has one satellite and two pods;
//! heartbeats, flushes in steps, statements that fail and may arrive late, answers that are lost, pods that
//! stall and die, takeovers, sockets that close, rows that another transaction has locked, and losses that
//! both pods propose.
//!
//! A tick is the longest time from one flush of a running pod to the next. All times are relative to [`NOW`],
//! so a run may be of any length; only faults are counted. Each rule that the protocol was found to need can
//! be left out ([`Fault`]); then a promise is broken.
//!
//! The promises, and what they allow for:
//! - (i) A heartbeat that a pod said was written (its watermark passed it and the row was not locked by
//!   another transaction) keeps the satellite online for a threshold, in reads and in losses, whatever
//!   becomes of the pod.
//! - (ii) A satellite is online for no longer than the threshold and the window after its last heartbeat. A
//!   running pod proposes the loss in the same tick; otherwise it is proposed when the pod is found silent.
//!   Not counted are the time in which the row is locked, and the one flush after that or after a recovery.
//! - (iii) A row claims no time at which its own session was not heard. That a takeover happens only once
//!   follows from the table of edges (`domain/lifecycle.rs`).
//! - (iv) A satellite that was declared lost and is heard on the same session has recovered at the end of the
//!   flush that covers the heartbeat, if the heartbeat is still young and the append is not held up.
//!
//! The model orders the statements about a session by their heartbeats. The pod numbers its flushes
//! (`satellite_connections.flushed`), which orders all statements.
//!
//! The model leaves out: blind time (one pod always runs), steps of the clock, a database that forgets
//! commits, thresholds that change, removals, and NATS, which reports a takeover sooner.

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model, Property};

/// The present. A time is a number up to it; what is at least that long ago is 0.
const NOW: u8 = 10;
/// The vouch window.
const WINDOW: u8 = 2;
/// How long the satellite may be silent.
const THRESHOLD: u8 = 4;
/// A pod whose watermark lags by more is silent to the other. After a longer gap between its own flushes a pod reads its
/// rows at once; after one as long as the window it also writes what it vouches for.
const SILENT: u8 = 1;
/// The interval at which a pod reads its rows.
const LOOK: u8 = 2;

type Time = u8;

/// What a pod knows of the row of a session it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Known {
    /// The row holds the exact time.
    Exact,
    /// The row is vouched for.
    Vouched,
    /// Either: a statement is under way, or failed.
    Unknown,
}

/// Whether a heartbeat must be written.
fn is_queued(known: Known) -> bool {
    known != Known::Vouched
}

/// Whether a row may be vouched for after this silence.
fn may_vouch(silence: u8, threshold: u8) -> bool {
    silence <= WINDOW && threshold >= 2 * WINDOW
}

/// Whether a flush writes a session without a waiting heartbeat: it is an exception from the watermark.
fn is_exception(known: Known, silence: u8, threshold: u8) -> bool {
    known != Known::Exact && !may_vouch(silence, threshold)
}

/// What the answer to a statement confirms.
fn known_after(is_vouched: bool) -> Known {
    if is_vouched { Known::Vouched } else { Known::Exact }
}

/// Up to when the satellite was heard, according to the row.
fn heard_at(at: Time, is_vouched: bool, watermark: Time) -> Time {
    if is_vouched { at.max(watermark) } else { at }
}

/// Whether a satellite counts as online.
fn is_online(heard_at: Time, threshold: u8, watermark: Time) -> bool {
    watermark <= heard_at + threshold
}

/// Whether a statement was decided after the one that wrote the row; if not, it moves nothing. Of two
/// statements about the same heartbeat the exception is the later.
fn is_later(at: Time, vouches: bool, row_at: Time) -> bool {
    if vouches { at > row_at } else { at >= row_at }
}

/// A rule that is left out of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The watermark is written before the exceptions.
    WatermarkFirst,
    /// A statement without an answer counts as written, and its rows as exact.
    FailureIsExact,
    /// Heartbeats that arrive while a statement is under way are not queued.
    DropsWhileUnderWay,
    /// A statement moves the row of any session.
    NoSessionFence,
    /// A loss is decided by the row's last heartbeat alone.
    LossByHeartbeat,
    /// Pods never read their rows.
    NoLook,
    /// An edge leaves the row vouched for.
    EdgeLeavesVouched,
    /// A late statement moves the row.
    LateStatementMoves,
    /// A read settles what a failed statement left open.
    LookIsBelieved,
    /// After a gap the pod still relies on what was vouched for before.
    GapIsForgotten,
    /// A heartbeat that recovers is not queued again.
    RecoveryDropsBeat,
    /// A session is forgotten when its socket closes, not when its end is in the log.
    ForgetsAtClose,
}

struct Protocol {
    faults: &'static [Fault],
    limits: Limits,
}

/// How many more faults of each kind may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Limits {
    failures: u8,
    stalls: u8,
    crashes: u8,
    locks: u8,
    takeovers: u8,
    closes: u8,
    /// Appends that take longer than a tick.
    delays: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Event {
    Connected,
    Disconnected,
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Row {
    session: u8,
    event: Event,
    at: Time,
    pod: usize,
    is_vouched: bool,
}

/// A session in a pod's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Held {
    session: u8,
    heard: Time,
    known: Known,
    /// Whether a heartbeat waits to be written.
    is_queued: bool,
    /// Whether its socket is open.
    is_open: bool,
}

/// What a flush writes about the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Write {
    session: u8,
    at: Time,
    vouches: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    /// The row belongs to the session and, as this tells, is vouched for or not.
    Holds(bool),
    /// Another transaction has locked the row.
    Locked,
    /// The session was declared lost.
    Lost,
    Superseded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Flush {
    Idle,
    Sent {
        began: Time,
        write: Write,
    },
    Answered {
        began: Time,
        write: Write,
        answer: Answer,
    },
    /// All is written except the watermark. `covers` is the session and the time that are covered.
    Written {
        began: Time,
        covers: Option<(u8, Time)>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Life {
    Up,
    Stalled,
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Look {
    Done,
    Due,
    Read(Row),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Pod {
    life: Life,
    held: Option<Held>,
    flush: Flush,
    /// Whether it has flushed in this tick.
    has_flushed: bool,
    /// Its own watermark, as far as it knows.
    marked: Time,
    look: Look,
    looked: Time,
    /// Edges on their way to the log: a recovery with its first and its newest heartbeat, and an end.
    recovery: Option<(u8, Time, Time)>,
    end: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Lock {
    Free,
    Foreign,
    /// A loss is decided and not yet committed: when the satellite was heard, according to it.
    Loss(Time),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    row: Row,
    lock: Lock,
    watermarks: [Time; 2],
    pods: [Pod; 2],
    /// Statements whose answers no pod awaits and that may still arrive.
    late: Vec<Write>,
    left: Limits,
    /// When the row's session was really last heard.
    heard: Time,
    /// The last heartbeat of it that its pod said was written.
    promised: Time,
    /// A flush passed over the locked row, or a recovery wrote it, and no statement has settled it since.
    is_unsettled: bool,
    /// Whether a loss was decided within the threshold.
    is_early: bool,
    /// Whether it was heard since its loss.
    is_back: bool,
    /// Ticks in which it counts as lost, although it was heard and that was said to be written.
    deaf: u8,
    /// Ticks in which a pod holds a session that a newer one has replaced.
    stale: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Tick,
    /// The satellite is heard on its socket at a pod.
    Beat(usize),
    /// The satellite connects with a new session.
    Connect(usize),
    /// Its socket at a pod closes.
    Close(usize),
    /// The end of a session reaches the log, or never will.
    End(usize),
    LoseEnd(usize),
    /// A flush begins and decides what it writes.
    Decide(usize),
    /// The flush's statement is executed.
    Arrive(usize),
    /// The statement is answered.
    Hear(usize),
    /// The statement gets no answer.
    Fail(usize),
    /// The watermark moves.
    Mark(usize),
    /// A statement whose answer no pod awaits is executed.
    ArriveLate(usize),
    /// A pod reads its rows.
    Read(usize),
    /// The pod compares its rows with its memory.
    Compare(usize),
    Recover(usize),
    /// A loss locks the row and is decided.
    Judge,
    /// The loss is committed.
    Lose,
    Lock,
    Unlock,
    Stall(usize),
    Wake(usize),
    Crash(usize),
}

impl World {
    fn watermark(&self) -> Time {
        self.watermarks[0].max(self.watermarks[1])
    }

    fn is_silent(&self, pod: usize) -> bool {
        self.watermarks[pod] + SILENT < self.watermark()
    }

    fn row_heard_at(&self) -> Time {
        heard_at(self.row.at, self.row.is_vouched, self.watermarks[self.row.pod])
    }

    fn is_connected(&self) -> bool {
        self.row.event == Event::Connected
    }

    fn is_online(&self) -> bool {
        self.is_connected() && is_online(self.row_heard_at(), THRESHOLD, self.watermark())
    }

    fn is_up(&self, pod: usize) -> bool {
        self.pods[pod].life == Life::Up
    }

    /// Whether a pod proposes a loss that the row confirms.
    fn is_due(&self, faults: &[Fault]) -> bool {
        let heard_at = match faults.contains(&Fault::LossByHeartbeat) {
            true => self.row.at,
            false => self.row_heard_at(),
        };
        let holder = self.row.pod;
        let by_holder = self.is_up(holder)
            && self.pods[holder]
                .held
                .filter(|held| held.session == self.row.session)
                .is_none_or(|held| held.heard + THRESHOLD < NOW);
        let by_other = self.is_up(1 - holder) && self.is_silent(holder);
        self.is_connected()
            && (by_holder || by_other)
            && !is_online(heard_at, THRESHOLD, self.watermark())
    }

    fn is_current(&self, session: u8) -> bool {
        session == self.row.session
    }

    /// Executes a statement.
    fn execute(&mut self, write: Write, faults: &[Fault]) -> Answer {
        if self.lock != Lock::Free {
            return Answer::Locked;
        }
        let is_fenced = !faults.contains(&Fault::NoSessionFence);
        if is_fenced && !self.is_current(write.session) {
            return Answer::Superseded;
        }
        match self.row.event {
            Event::Connected => {}
            Event::Lost => return Answer::Lost,
            Event::Disconnected => return Answer::Superseded,
        }
        let moves_late = faults.contains(&Fault::LateStatementMoves);
        if moves_late || is_later(write.at, write.vouches, self.row.at) {
            self.row.at = self.row.at.max(write.at);
            self.row.is_vouched = write.vouches;
        }
        Answer::Holds(self.row.is_vouched)
    }

    fn edge(&mut self, event: Event, faults: &[Fault]) {
        self.row.event = event;
        if !faults.contains(&Fault::EdgeLeavesVouched) {
            self.row.is_vouched = false;
        }
    }

    fn recover(&mut self, pod: usize, faults: &[Fault]) {
        let Some((session, first, newest)) = self.pods[pod].recovery.take() else { return };
        let is_lost = self.is_current(session) && self.row.event == Event::Lost;
        let young = [first, newest].into_iter().find(|at| at + THRESHOLD >= NOW);
        if let Some(at) = young.filter(|_| is_lost) {
            self.edge(Event::Connected, faults);
            self.row.at = at;
            self.row.pod = pod;
            self.promised = at;
            self.is_unsettled = true;
        }
    }

    fn end(&mut self, pod: usize, faults: &[Fault]) {
        let Some(session) = self.pods[pod].end.take() else { return };
        if self.is_current(session) && self.is_connected() {
            self.edge(Event::Disconnected, faults);
        }
        let is_over = |held: &Held| held.session == session && !held.is_open;
        if self.pods[pod].held.as_ref().is_some_and(is_over) {
            self.pods[pod].held = None;
        }
    }

    fn connect(&mut self, pod: usize, faults: &[Fault]) {
        self.edge(Event::Connected, faults);
        let session = self.row.session + 1;
        self.row = Row { session, at: NOW, pod, ..self.row };
        self.pods[pod].held = Some(Held {
            session,
            heard: NOW,
            known: Known::Exact,
            is_queued: false,
            is_open: true,
        });
        (self.heard, self.promised) = (NOW, NOW);
        (self.is_unsettled, self.is_back) = (false, false);
    }

    fn beat(&mut self, pod: usize, faults: &[Fault]) {
        let Some(held) = &mut self.pods[pod].held else { return };
        held.heard = NOW;
        let is_dropped =
            held.known == Known::Unknown && faults.contains(&Fault::DropsWhileUnderWay);
        held.is_queued |= is_queued(held.known) && !is_dropped;
        if held.session == self.row.session {
            self.heard = NOW;
            self.is_back = self.row.event == Event::Lost;
        }
    }

    fn decide(&mut self, n: usize, faults: &[Fault]) {
        let pod = &mut self.pods[n];
        let has_gap = NOW - pod.marked > SILENT;
        let has_long_gap = NOW - pod.marked >= WINDOW;
        let doubts = has_long_gap && !faults.contains(&Fault::GapIsForgotten);
        let looks = has_gap || pod.looked + LOOK <= NOW;
        if looks && !faults.contains(&Fault::NoLook) {
            pod.look = Look::Due;
        }
        let covers = pod.held.map(|held| (held.session, held.heard));
        pod.flush = Flush::Written { began: NOW, covers };
        if let Some(held) = &mut pod.held {
            if doubts && held.known == Known::Vouched {
                (held.known, held.is_queued) = (Known::Unknown, true);
            }
            let silence = NOW - held.heard;
            if held.is_queued || is_exception(held.known, silence, THRESHOLD) {
                let Held { session, heard, .. } = *held;
                let write = Write { session, at: heard, vouches: may_vouch(silence, THRESHOLD) };
                (held.known, held.is_queued) = (Known::Unknown, false);
                pod.flush = Flush::Sent { began: NOW, write };
            }
        }
        if faults.contains(&Fault::WatermarkFirst) {
            self.watermarks[n] = NOW;
        }
        // For a pod with nothing to write, the separate steps make no difference.
        if self.pods[n].held.is_none() {
            self.mark(n);
            if self.pods[n].look == Look::Due && self.row.pod != n {
                (self.pods[n].look, self.pods[n].looked) = (Look::Done, NOW);
            }
        }
    }

    fn hear(&mut self, n: usize, faults: &[Fault]) {
        let Flush::Answered { began, write, answer } = self.pods[n].flush else { return };
        let pod = &mut self.pods[n];
        let is_written = matches!(answer, Answer::Holds(_));
        let covers = is_written.then_some((write.session, write.at));
        pod.flush = Flush::Written { began, covers };
        if self.row.session == write.session && answer != Answer::Lost {
            self.is_unsettled = answer == Answer::Locked;
        }
        let Some(held) = pod.held.as_mut().filter(|held| held.session == write.session) else {
            return;
        };
        match answer {
            Answer::Holds(is_vouched) => {
                held.known = match faults.contains(&Fault::LateStatementMoves) {
                    true => known_after(write.vouches),
                    false => known_after(is_vouched),
                }
            }
            Answer::Locked => held.is_queued = true,
            Answer::Lost => {
                held.known = Known::Exact;
                let is_young = held.heard + THRESHOLD >= NOW;
                held.is_queued |= is_young && !faults.contains(&Fault::RecoveryDropsBeat);
                if is_young && held.is_open {
                    let first = pod.recovery.map_or(write.at, |(_, first, _)| first);
                    pod.recovery = Some((write.session, first, write.at));
                }
            }
            Answer::Superseded => pod.held = None,
        }
    }

    /// A flush that gets no answer.
    fn fail(&mut self, n: usize, faults: &[Fault]) {
        let pod = &mut self.pods[n];
        let write = match pod.flush {
            Flush::Sent { write, .. } => {
                self.late.push(write);
                Some(write)
            }
            Flush::Answered { write, .. } => Some(write),
            _ => None,
        };
        let of_write = |held: &&mut Held| write.is_some_and(|write| write.session == held.session);
        if let Some(held) = pod.held.as_mut().filter(of_write) {
            if faults.contains(&Fault::FailureIsExact) {
                held.known = Known::Exact;
            } else {
                (held.known, held.is_queued) = (Known::Unknown, true);
            }
        }
        (pod.flush, pod.has_flushed) = (Flush::Idle, true);
        if !faults.contains(&Fault::NoLook) {
            pod.look = Look::Due;
        }
    }

    fn mark(&mut self, n: usize) {
        let Flush::Written { began, covers } = self.pods[n].flush else { return };
        self.watermarks[n] = self.watermarks[n].max(began);
        let pod = &mut self.pods[n];
        (pod.flush, pod.has_flushed, pod.marked) = (Flush::Idle, true, self.watermarks[n]);
        if let Some((session, at)) = covers
            && session == self.row.session
        {
            self.promised = self.promised.max(at);
        }
    }

    fn compare(&mut self, n: usize, faults: &[Fault]) {
        let Look::Read(row) = self.pods[n].look else { return };
        let pod = &mut self.pods[n];
        (pod.look, pod.looked) = (Look::Done, NOW);
        let is_own = row.pod == n && row.event == Event::Connected;
        let Some(held) = &mut pod.held else {
            let is_orphan = is_own && row.is_vouched && row.session == self.row.session;
            if is_orphan && self.is_connected() && self.lock == Lock::Free {
                self.row.at = self.row.at.max(self.watermarks[n].saturating_sub(WINDOW));
                self.row.is_vouched = false;
            }
            return;
        };
        let believes = faults.contains(&Fault::LookIsBelieved);
        if row.session < held.session {
            // The session began after the read.
        } else if row.session > held.session || row.event == Event::Disconnected {
            pod.held = None;
        } else if row.event == Event::Lost || !is_own {
            if held.known == Known::Vouched {
                (held.known, held.is_queued) = (Known::Unknown, true);
            }
        } else if believes {
            held.known = known_after(row.is_vouched);
            held.is_queued &= !row.is_vouched;
        } else if held.known != Known::Unknown && held.known != known_after(row.is_vouched) {
            (held.known, held.is_queued) = (Known::Unknown, true);
        }
    }

    fn crash(&mut self, n: usize) {
        let pod = &mut self.pods[n];
        if let Flush::Sent { write, .. } = pod.flush {
            self.late.push(write);
        }
        *pod = Pod {
            life: Life::Dead,
            held: None,
            flush: Flush::Idle,
            has_flushed: false,
            marked: 0,
            look: Look::Done,
            looked: 0,
            recovery: None,
            end: None,
        };
    }

    /// Whether a pod has done its work of this tick.
    fn has_done(&self, n: usize) -> bool {
        let pod = &self.pods[n];
        pod.life != Life::Up
            || pod.has_flushed && pod.flush == Flush::Idle && pod.look == Look::Done
    }

    fn has_edges_under_way(&self) -> bool {
        let waits =
            |pod: &Pod| pod.life == Life::Up && (pod.recovery.is_some() || pod.end.is_some());
        matches!(self.lock, Lock::Loss(_)) || self.lock == Lock::Free && self.pods.iter().any(waits)
    }

    fn tick(&mut self) {
        if self.has_edges_under_way() {
            self.left.delays -= 1;
        }
        let is_deaf = self.row.event == Event::Lost
            && self.lock == Lock::Free
            && self.is_back
            && !self.is_unsettled
            && self.heard < NOW
            && self.watermarks[self.row.pod] == NOW
            && self.heard + THRESHOLD >= NOW
            && self.pods[self.row.pod].recovery.is_none()
            && self.is_up(self.row.pod)
            && self.pods[self.row.pod].held.is_some_and(|held| held.is_open);
        self.deaf = if is_deaf { self.deaf + 1 } else { 0 };
        let is_stale = |pod: &Pod| {
            pod.life == Life::Up && pod.held.is_some_and(|held| held.session < self.row.session)
        };
        self.stale = if self.pods.iter().any(is_stale) { self.stale + 1 } else { 0 };

        let older = |time: &mut Time| *time = time.saturating_sub(1);
        older(&mut self.row.at);
        if let Lock::Loss(at) = &mut self.lock {
            older(at);
        }
        older(&mut self.heard);
        older(&mut self.promised);
        self.watermarks.iter_mut().for_each(older);
        self.late.iter_mut().for_each(|write| older(&mut write.at));
        // No statement is under way for that long.
        self.late.retain(|write| write.at > 0);
        for pod in &mut self.pods {
            pod.has_flushed = false;
            older(&mut pod.marked);
            older(&mut pod.looked);
            pod.looked = pod.looked.max(NOW - LOOK);
            if let Some(held) = &mut pod.held {
                older(&mut held.heard);
            }
            if let Some((_, first, newest)) = &mut pod.recovery {
                older(first);
                older(newest);
            }
            if let Look::Read(row) = &mut pod.look {
                older(&mut row.at);
            }
            match &mut pod.flush {
                Flush::Idle => {}
                Flush::Sent { began, write } | Flush::Answered { began, write, .. } => {
                    older(began);
                    older(&mut write.at);
                }
                Flush::Written { began, covers } => {
                    older(began);
                    if let Some((_, at)) = covers {
                        older(at);
                    }
                }
            }
        }
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let pod = Pod {
            life: Life::Up,
            held: None,
            flush: Flush::Idle,
            has_flushed: false,
            marked: NOW,
            look: Look::Done,
            looked: NOW,
            recovery: None,
            end: None,
        };
        let mut world = World {
            row: Row { session: 0, event: Event::Disconnected, at: NOW, pod: 0, is_vouched: false },
            lock: Lock::Free,
            watermarks: [NOW; 2],
            pods: [pod; 2],
            late: Vec::new(),
            left: self.limits,
            heard: NOW,
            promised: NOW,
            is_unsettled: false,
            is_early: false,
            is_back: false,
            deaf: 0,
            stale: 0,
        };
        world.connect(0, self.faults);
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let is_free = world.lock == Lock::Free;
        let is_due = is_free && world.is_due(self.faults);
        let may_delay = !world.has_edges_under_way() || world.left.delays > 0;
        let is_any_up = world.pods.iter().any(|pod| pod.life == Life::Up);
        if is_any_up && may_delay && !is_due && (0..2).all(|n| world.has_done(n)) {
            actions.push(Action::Tick);
        }
        if is_due {
            actions.push(Action::Judge);
        }
        match world.lock {
            Lock::Loss(_) => actions.push(Action::Lose),
            Lock::Foreign => actions.push(Action::Unlock),
            Lock::Free if world.left.locks > 0 => actions.push(Action::Lock),
            Lock::Free => {}
        }
        if is_free {
            actions.extend((0..world.late.len()).map(Action::ArriveLate));
        }
        for (n, pod) in world.pods.iter().enumerate() {
            let is_holder = pod.held.is_some() || world.row.pod == n;
            match pod.life {
                Life::Dead => continue,
                Life::Stalled => actions.push(Action::Wake(n)),
                Life::Up => {
                    if world.left.stalls > 0 && is_holder {
                        actions.push(Action::Stall(n));
                    }
                }
            }
            if let Flush::Sent { .. } = pod.flush {
                actions.push(Action::Arrive(n));
            }
            if world.left.crashes > 0 && is_holder {
                actions.push(Action::Crash(n));
            }
            if pod.life != Life::Up {
                continue;
            }
            if let Some(held) = pod.held.filter(|held| held.is_open) {
                if held.heard < NOW || is_queued(held.known) && !held.is_queued {
                    actions.push(Action::Beat(n));
                }
                if world.left.closes > 0 && pod.end.is_none() {
                    actions.push(Action::Close(n));
                }
            }
            if is_free && world.left.takeovers > 0 {
                actions.push(Action::Connect(n));
            }
            match pod.flush {
                Flush::Idle if !pod.has_flushed => actions.push(Action::Decide(n)),
                Flush::Idle => match pod.look {
                    Look::Due => actions.push(Action::Read(n)),
                    Look::Read(_) => actions.push(Action::Compare(n)),
                    Look::Done => {}
                },
                Flush::Sent { .. } => {}
                Flush::Answered { .. } => actions.push(Action::Hear(n)),
                Flush::Written { .. } => actions.push(Action::Mark(n)),
            }
            if pod.flush != Flush::Idle && world.left.failures > 0 {
                actions.push(Action::Fail(n));
            }
            if is_free && pod.recovery.is_some() {
                actions.push(Action::Recover(n));
            }
            if is_free && pod.end.is_some() {
                actions.push(Action::End(n));
            }
            if pod.end.is_some() && world.left.failures > 0 {
                actions.push(Action::LoseEnd(n));
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut world = world.clone();
        let faults = self.faults;
        match action {
            Action::Tick => world.tick(),
            Action::Beat(n) => world.beat(n, faults),
            Action::Connect(n) => {
                world.left.takeovers -= 1;
                world.connect(n, faults);
            }
            Action::Close(n) => {
                world.left.closes -= 1;
                let pod = &mut world.pods[n];
                pod.end = pod.held.map(|held| held.session);
                match &mut pod.held {
                    Some(held) if !faults.contains(&Fault::ForgetsAtClose) => held.is_open = false,
                    held => *held = None,
                }
            }
            Action::End(n) => world.end(n, faults),
            Action::LoseEnd(n) => {
                world.left.failures -= 1;
                world.pods[n].end = None;
            }
            Action::Decide(n) => world.decide(n, faults),
            Action::Arrive(n) => {
                let Flush::Sent { began, write } = world.pods[n].flush else { return None };
                let answer = world.execute(write, faults);
                world.pods[n].flush = Flush::Answered { began, write, answer };
            }
            Action::Hear(n) => world.hear(n, faults),
            Action::Fail(n) => {
                world.left.failures -= 1;
                world.fail(n, faults);
            }
            Action::Mark(n) => world.mark(n),
            Action::ArriveLate(which) => {
                let write = world.late.remove(which);
                world.execute(write, faults);
            }
            Action::Read(n) => world.pods[n].look = Look::Read(world.row),
            Action::Compare(n) => world.compare(n, faults),
            Action::Recover(n) => world.recover(n, faults),
            Action::Judge => {
                let proven = world.watermarks[world.row.pod].saturating_sub(WINDOW);
                let at = if world.row.is_vouched { world.row.at.max(proven) } else { world.row.at };
                world.lock = Lock::Loss(at);
                world.is_early = is_online(world.promised, THRESHOLD, world.watermark());
            }
            Action::Lose => {
                let Lock::Loss(at) = world.lock else { return None };
                world.lock = Lock::Free;
                world.row.at = at;
                world.edge(Event::Lost, faults);
                world.is_back = false;
            }
            Action::Lock => {
                world.left.locks -= 1;
                world.lock = Lock::Foreign;
            }
            Action::Unlock => world.lock = Lock::Free,
            Action::Stall(n) => {
                world.left.stalls -= 1;
                world.pods[n].life = Life::Stalled;
            }
            Action::Wake(n) => world.pods[n].life = Life::Up,
            Action::Crash(n) => {
                world.left.crashes -= 1;
                world.crash(n);
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        vec![
            Property::always(MEANING, |_, world: &World| {
                let watermark = world.watermarks[world.row.pod];
                !world.is_connected()
                    || !world.row.is_vouched
                    || world.is_unsettled
                    || world.heard + WINDOW >= watermark
            }),
            Property::always(NOT_OFFLINE, |_, world: &World| {
                !world.is_connected()
                    || world.is_online()
                    || !is_online(world.promised, THRESHOLD, world.watermark())
            }),
            Property::always(NOT_LOST, |_, world: &World| !world.is_early),
            Property::always(NOT_ONLINE, |_, world: &World| {
                !world.is_online()
                    || world.is_unsettled
                    || world.heard + THRESHOLD + WINDOW >= world.watermark()
            }),
            Property::always(GIVEN_UP, |protocol: &Protocol, world: &World| {
                // A pod that stalls or dies is found silent that much later.
                let hidden = protocol.limits.stalls - world.left.stalls + protocol.limits.crashes
                    - world.left.crashes;
                let allowed = THRESHOLD + hidden * (SILENT + 1);
                // Time in which the row was locked is not counted either.
                let was_locked = world.left.locks < protocol.limits.locks && hidden > 0;
                !world.is_connected()
                    || world.is_unsettled
                    || was_locked
                    || world.lock != Lock::Free
                    || world.is_due(protocol.faults)
                    || is_online(world.heard.max(world.row_heard_at()), allowed, world.watermark())
            }),
            Property::always(FENCED, |_, world: &World| {
                world.row.at <= world.heard || world.is_unsettled
            }),
            Property::always(RECOVERED, |_, world: &World| world.deaf == 0),
            Property::always(TOLD, |_, world: &World| world.stale <= LOOK),
            Property::sometimes("online by the watermark alone", |_, world: &World| {
                world.is_online() && !is_online(world.row.at, THRESHOLD, world.watermark())
            }),
            Property::sometimes("lost, and recovered", |_, world: &World| {
                world.is_connected() && world.is_back
            }),
        ]
    }
}

const MEANING: &str = "a vouched row was heard within the window before its pod's watermark";
const NOT_OFFLINE: &str =
    "(i) never read as offline within a threshold of what its pod says it wrote";
const NOT_LOST: &str = "(i) never lost within a threshold of what its pod says it wrote";
const NOT_ONLINE: &str = "(ii) never online for longer than threshold and window";
const GIVEN_UP: &str = "(ii) a silent satellite is declared lost";
const FENCED: &str = "(iii) a row says nothing that its own session was not heard for";
const RECOVERED: &str = "(iv) a satellite that is heard again recovers at the flush that covers it";
const TOLD: &str = "a session that a newer one replaced ends at the next look";

const NONE: Limits =
    Limits { failures: 0, stalls: 0, crashes: 0, locks: 0, takeovers: 0, closes: 0, delays: 0 };

/// Checks every run with at most these faults.
fn keeps_its_promises(limits: Limits) {
    let checker = Protocol { faults: &[], limits }.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    assert!(checker.is_done());
    println!("{} states, {limits:?}", checker.unique_state_count());
}

#[test]
fn vouching_pods_keep_their_promises() {
    keeps_its_promises(Limits { stalls: 1, crashes: 1, ..NONE });
    keeps_its_promises(Limits { takeovers: 1, crashes: 1, ..NONE });
    keeps_its_promises(Limits { failures: 1, closes: 1, ..NONE });
    keeps_its_promises(Limits { locks: 1, ..NONE });
    keeps_its_promises(Limits { delays: 1, ..NONE });
}

#[test]
#[ignore = "some millions of states: minutes without optimisation"]
fn vouching_pods_keep_their_promises_whatever_comes_together() {
    keeps_its_promises(Limits { failures: 2, ..NONE });
    keeps_its_promises(Limits { failures: 1, stalls: 1, ..NONE });
    keeps_its_promises(Limits { failures: 1, locks: 1, ..NONE });
    keeps_its_promises(Limits { failures: 1, takeovers: 1, crashes: 1, ..NONE });
    keeps_its_promises(Limits { failures: 1, closes: 1, crashes: 1, ..NONE });
    keeps_its_promises(Limits { stalls: 1, locks: 1, ..NONE });
    keeps_its_promises(Limits { stalls: 1, takeovers: 1, ..NONE });
    keeps_its_promises(Limits { stalls: 1, closes: 1, ..NONE });
    keeps_its_promises(Limits { stalls: 1, delays: 1, ..NONE });
    keeps_its_promises(Limits { locks: 1, delays: 1, ..NONE });
    keeps_its_promises(Limits { locks: 1, crashes: 1, ..NONE });
}

/// Finds the shortest run in which a left-out rule breaks a promise.
fn breaks(faults: &'static [Fault], limits: Limits, promise: &'static str) {
    let found = HasDiscoveries::AnyOf(BTreeSet::from([promise]));
    let checker =
        Protocol { faults, limits }.checker().finish_when(found).threads(2).spawn_bfs().join();
    let run = checker.discovery(promise);
    let run = run.unwrap_or_else(|| panic!("{faults:?} breaks nothing"));
    println!("{faults:?}: {promise}: {:?}", run.into_actions());
}

#[test]
fn each_rule_left_out_breaks_a_promise() {
    use Fault::*;
    let failure = Limits { failures: 1, ..NONE };
    let stall = Limits { stalls: 1, ..NONE };
    let crash = Limits { crashes: 1, ..NONE };
    let takeover = Limits { takeovers: 1, ..NONE };
    let close = Limits { closes: 1, ..NONE };
    let delay = Limits { delays: 1, ..NONE };
    breaks(&[WatermarkFirst], crash, NOT_ONLINE);
    breaks(&[FailureIsExact], failure, NOT_ONLINE);
    breaks(&[DropsWhileUnderWay], NONE, NOT_LOST);
    breaks(&[NoSessionFence], takeover, FENCED);
    breaks(&[LossByHeartbeat], crash, NOT_LOST);
    breaks(&[NoLook], takeover, TOLD);
    breaks(&[EdgeLeavesVouched, NoLook], takeover, NOT_ONLINE);
    breaks(&[LateStatementMoves], failure, NOT_OFFLINE);
    breaks(&[LookIsBelieved, GapIsForgotten], failure, NOT_OFFLINE);
    breaks(&[GapIsForgotten], stall, RECOVERED);
    breaks(&[RecoveryDropsBeat], delay, NOT_OFFLINE);
    breaks(&[ForgetsAtClose], close, MEANING);
    breaks(&[ForgetsAtClose, NoLook], Limits { failures: 1, ..close }, NOT_ONLINE);
}
