//! The sessions of this pod, fenced: an entry is replaced only by a newer session, and removed only by its
//! own session.
//!
//! The table is local to a pod; it serves to reach the pod's sockets. Only the log decides which session is
//! current. A session is in the table from [`SessionTable::enter`] until its [`SessionGuard`] is dropped, in
//! whatever way: a panic leaves no entry behind.
//!
//! A session learns its satellite's desired state from two sides: it reads the state itself after it entered,
//! and the task that follows the changes reads it too. The later one changes nothing: only a newer desired
//! state replaces another. The satellite's own threshold is part of it, so the monitor never uses an older
//! one.

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::domain::lifecycle::{SatelliteId, Session, SessionKey};
use crate::domain::liveness;
use crate::platform::database_clock::Moment;
use crate::platform::metrics::{Counted, Metrics};
use crate::registry::desired::DesiredState;
use crate::registry::satellites::AgentInfo;
use crate::sessions::heartbeats::Heartbeats;
use crate::sessions::vouching::{self, Recorded};

/// A command to a session's socket from another task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// End: a newer session, here or on another pod, has taken over.
    Superseded,
    /// End: the satellite is no longer registered.
    Removed,
    /// End: the satellite has a new token, and this one is not valid any more.
    TokenRotated,
    /// End: an administrator ended the session.
    Kicked,
    /// End: the satellite is not let in any more.
    Disabled,
}

/// Commands that wait for one socket: each ends it, so one is enough.
const COMMANDS: usize = 1;

/// The desired state that a session knows; none before the first read.
pub type Told = Option<Arc<DesiredState>>;

struct Entry {
    session: Session,
    commands: mpsc::Sender<Command>,
    desired_state: watch::Sender<Told>,
    /// When it was last heard, by the pod's monotonic clock.
    heard_at: Instant,
    /// The same by the clock that goes on while the machine sleeps: this one is written to its row.
    heard: Moment,
    /// What its row says about when it was heard.
    recorded: Recorded,
}

impl Entry {
    /// How long it may be silent. Before the first read it has just been heard, so the default is enough.
    fn threshold(&self, default: Duration) -> Duration {
        let own_ms = self
            .desired_state
            .borrow()
            .as_ref()
            .and_then(|desired_state| desired_state.threshold_ms);
        liveness::threshold(own_ms, default)
    }

    /// Whether the pod can vouch for it: not before its threshold is known.
    fn can_be_vouched(&self, window: Duration, default: Duration) -> bool {
        self.desired_state.borrow().is_some()
            && vouching::can_vouch(self.threshold(default), window)
    }

    /// A socket with a waiting command is ending already; a closed channel means that it has ended.
    fn tell(&self, command: Command) {
        match self.commands.try_send(command) {
            Ok(())
            | Err(mpsc::error::TrySendError::Full(_) | mpsc::error::TrySendError::Closed(_)) => {}
        }
    }
}

/// The state of this pod's sessions at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// How many there are.
    pub sessions: u64,
    /// How many have missed a heartbeat: the next missed one makes them due.
    pub late: u64,
    /// Those that were not heard within their threshold.
    pub due: Vec<SessionKey>,
}

/// The result of [`SessionTable::exceptions`].
#[derive(Debug, Default)]
pub struct Exceptions {
    /// How many sessions the pod still vouches for.
    pub kept: u64,
    /// For how many it vouched until now.
    pub taken_back: u64,
}

/// The sessions a pod holds, each satellite's newest.
pub struct SessionTable {
    sessions: Mutex<HashMap<SatelliteId, Entry>>,
    /// The waiting heartbeat of a session is removed with its entry.
    heartbeats: Arc<Heartbeats>,
    metrics: Metrics,
}

/// Keeps a counted session in the table; dropping it removes the session.
pub struct SessionGuard {
    table: Arc<SessionTable>,
    key: SessionKey,
    _counted: Counted,
}

/// What a session receives from the rest of its pod.
pub struct Inbox {
    /// Commands to end.
    pub commands: mpsc::Receiver<Command>,
    /// The satellite's desired state.
    pub desired_state: watch::Receiver<Told>,
}

impl SessionTable {
    /// An empty table.
    pub fn new(heartbeats: Arc<Heartbeats>, metrics: Metrics) -> Arc<SessionTable> {
        Arc::new(SessionTable { sessions: Mutex::default(), heartbeats, metrics })
    }

    /// Enters a session. An older session of the same satellite is told to end. None if a newer one is here
    /// already: then the caller must end. A session enters before it reads its desired state, so that later
    /// changes are told to it.
    pub fn enter(self: &Arc<Self>, key: SessionKey) -> Option<(SessionGuard, Inbox)> {
        let SessionKey { satellite, session } = key;
        let (commands, ordered) = mpsc::channel(COMMANDS);
        let (desired_state, told) = watch::channel(None);
        let (heard_at, heard) = (Instant::now(), Moment::now());
        let recorded = Recorded::Exact;
        let entry = Entry { session, commands, desired_state, heard_at, heard, recorded };
        match self.lock().entry(satellite) {
            Slot::Vacant(slot) => {
                slot.insert(entry);
            }
            Slot::Occupied(mut slot) if slot.get().session < session => {
                slot.get().tell(Command::Superseded);
                slot.insert(entry);
            }
            Slot::Occupied(_) => return None,
        }
        let counted = Counted::on(&self.metrics.sessions);
        let guard = SessionGuard { table: self.clone(), key, _counted: counted };
        Some((guard, Inbox { commands: ordered, desired_state: told }))
    }

    /// Tells a session to end, if it is here.
    pub fn end(&self, key: SessionKey, command: Command) {
        if let Some(entry) = self.lock().get(&key.satellite)
            && entry.session == key.session
        {
            entry.tell(command);
        }
    }

    /// Tells a satellite's session its desired state, if the session is here and knows an older one.
    pub fn tell(&self, satellite: SatelliteId, desired_state: DesiredState) {
        if let Some(entry) = self.lock().get(&satellite) {
            entry.desired_state.send_if_modified(|told| {
                let news = told.as_ref().is_none_or(|told| told.change < desired_state.change);
                if news {
                    *told = Some(Arc::new(desired_state));
                }
                news
            });
        }
    }

    /// Calls `then` only if the session is here, and keeps it here meanwhile. `then` must not block.
    pub fn while_live(&self, key: SessionKey, then: impl FnOnce()) {
        let sessions = self.lock();
        if sessions.get(&key.satellite).is_some_and(|entry| entry.session == key.session) {
            then();
        }
    }

    /// Notes that a session was heard at `now`, and returns whether that must be written. It need not be if
    /// the pod vouches for the session, or if the session is not here.
    pub fn heard(&self, key: SessionKey, now: Moment) -> bool {
        match self.lock().get_mut(&key.satellite) {
            Some(entry) if entry.session == key.session => {
                (entry.heard_at, entry.heard) = (Instant::now(), now);
                entry.recorded.needs_heartbeats()
            }
            _ => false,
        }
    }

    /// Stops vouching for sessions that were not heard within the window before `began`, or whose threshold
    /// has become too short. Their last heartbeats are queued, also for sessions whose vouching is not yet
    /// confirmed.
    pub fn exceptions(
        &self,
        began: Moment,
        window: Duration,
        default_threshold: Duration,
    ) -> Exceptions {
        let mut found = Exceptions::default();
        for (satellite, entry) in self.lock().iter_mut() {
            if !entry.recorded.may_be_vouched() {
                continue;
            }
            let holds = vouching::is_within(window, entry.heard, began)
                && entry.can_be_vouched(window, default_threshold);
            if holds {
                found.kept += u64::from(entry.recorded == Recorded::Vouched);
            } else {
                found.taken_back += u64::from(entry.recorded == Recorded::Vouched);
                entry.recorded = Recorded::Unknown;
                let key = SessionKey { satellite: *satellite, session: entry.session };
                self.heartbeats.beat(key, entry.heard, AgentInfo::default());
            }
        }
        found
    }

    /// Which of these sessions the pod can vouch for. What their rows say is unknown from now on.
    pub fn begin_vouching(
        &self,
        keys: impl Iterator<Item = SessionKey>,
        window: Duration,
        default_threshold: Duration,
    ) -> HashSet<SessionKey> {
        let mut sessions = self.lock();
        let mut can = |key: &SessionKey| match sessions.get_mut(&key.satellite) {
            Some(entry) if entry.session == key.session => {
                let can = entry.can_be_vouched(window, default_threshold);
                if can {
                    entry.recorded = Recorded::Unknown;
                }
                can
            }
            _ => false,
        };
        keys.filter(|key| can(key)).collect()
    }

    /// Notes what the rows of these sessions say.
    pub fn recorded(&self, rows: impl Iterator<Item = (SessionKey, Recorded)>) {
        let mut sessions = self.lock();
        for (key, recorded) in rows {
            if let Some(entry) = sessions.get_mut(&key.satellite)
                && entry.session == key.session
            {
                entry.recorded = recorded;
            }
        }
    }

    /// The sessions whose rows may say that they are vouched for.
    pub fn vouched(&self) -> HashSet<SessionKey> {
        let sessions = self.lock();
        let vouched = sessions.iter().filter(|(_, entry)| entry.recorded.may_be_vouched());
        vouched.map(|(id, entry)| SessionKey { satellite: *id, session: entry.session }).collect()
    }

    /// Notes that it is unknown what the rows of these sessions say, and queues their last heartbeats.
    pub fn doubt(&self, keys: impl Iterator<Item = SessionKey>) {
        let mut sessions = self.lock();
        for key in keys {
            if let Some(entry) = sessions.get_mut(&key.satellite)
                && entry.session == key.session
            {
                entry.recorded = Recorded::Unknown;
                self.heartbeats.beat(key, entry.heard, AgentInfo::default());
            }
        }
    }

    /// The state of the sessions at `now`. A session is late if less than a heartbeat's interval is left of
    /// its threshold, or less than half of the threshold if that is shorter than two intervals.
    pub fn look(&self, now: Instant, default_threshold: Duration, interval: Duration) -> Look {
        let sessions = self.lock();
        let mut look = Look { sessions: sessions.len() as u64, ..Look::default() };
        for (satellite, entry) in sessions.iter() {
            let threshold = entry.threshold(default_threshold);
            let silence = now.saturating_duration_since(entry.heard_at);
            if silence + interval.min(threshold / 2) > threshold {
                look.late += 1;
            }
            if silence > threshold {
                look.due.push(SessionKey { satellite: *satellite, session: entry.session });
            }
        }
        look
    }

    /// Whether this session is here.
    pub fn holds(&self, key: SessionKey) -> bool {
        self.lock().get(&key.satellite).is_some_and(|entry| entry.session == key.session)
    }

    /// The sessions of these satellites that are here.
    pub fn held(&self, satellites: impl Iterator<Item = SatelliteId>) -> Vec<SessionKey> {
        let sessions = self.lock();
        let held =
            |satellite| Some(SessionKey { satellite, session: sessions.get(&satellite)?.session });
        satellites.filter_map(held).collect()
    }

    /// The satellites that are here, each with the version of the assignments that its session knows; none before its
    /// first read.
    pub fn assigned(&self) -> Vec<(SatelliteId, Option<i64>)> {
        let sessions = self.lock();
        let version = |entry: &Entry| {
            entry.desired_state.borrow().as_ref().map(|state| state.assigned.version)
        };
        sessions.iter().map(|(satellite, entry)| (*satellite, version(entry))).collect()
    }

    /// The map is valid after a panic elsewhere: every change to it is one call.
    fn lock(&self) -> MutexGuard<'_, HashMap<SatelliteId, Entry>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        let SessionGuard { table, key, .. } = self;
        let entry = match table.lock().entry(key.satellite) {
            Slot::Occupied(slot) if slot.get().session == key.session => Some(slot.remove()),
            _ => None,
        };
        // A heartbeat that waits is still written, and the pod no longer vouches for the session. Its end takes a
        // while to reach the log, or never does if the pod drains; until then its row must say when it was last
        // heard.
        if let Some(entry) = entry.filter(|entry| entry.recorded.may_be_vouched()) {
            table.heartbeats.beat(*key, entry.heard, AgentInfo::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::assignments::Assigned;
    use uuid::Uuid;

    const ID: SatelliteId = SatelliteId(Uuid::from_u128(1));

    fn key(satellite: SatelliteId, session: i64) -> SessionKey {
        SessionKey { satellite, session: Session(session) }
    }

    fn table() -> Arc<SessionTable> {
        SessionTable::new(Arc::default(), Metrics::new())
    }

    fn desired_state(change: i64, threshold_ms: Option<i64>) -> DesiredState {
        let assigned = Assigned::nothing().expect("a list");
        DesiredState {
            change,
            token_version: Some(1),
            previous_token: None,
            disabled: false,
            ended_session: None,
            label: String::new(),
            threshold_ms,
            assigned,
            sent_version: None,
        }
    }

    fn known(inbox: &Inbox) -> Option<i64> {
        inbox.desired_state.borrow().as_ref().map(|desired_state| desired_state.change)
    }

    #[test]
    fn a_newer_session_ends_the_older_one_and_never_the_other_way_round() {
        let table = table();
        let (_first, mut first_hears) = table.enter(key(ID, 1)).expect("entered");
        let (_second, mut second_hears) = table.enter(key(ID, 2)).expect("entered");
        assert_eq!(first_hears.commands.try_recv(), Ok(Command::Superseded));
        assert!(table.enter(key(ID, 1)).is_none());
        assert!(second_hears.commands.try_recv().is_err());
    }

    #[test]
    fn an_old_session_that_leaves_late_does_not_take_the_new_one_out() {
        let table = table();
        let (first, _) = table.enter(key(ID, 1)).expect("entered");
        let (second, _) = table.enter(key(ID, 2)).expect("entered");
        drop(first);
        assert_eq!(table.held([ID].into_iter()), [key(ID, 2)]);
        drop(second);
        assert!(table.held([ID].into_iter()).is_empty());
    }

    #[test]
    fn a_session_that_leaves_does_not_take_its_heartbeat_with_it() {
        let table = table();
        let (guard, _inbox) = table.enter(key(ID, 1)).expect("a place");
        let heard = Moment::now();
        assert!(table.heard(key(ID, 1), heard), "its row says when exactly");
        table.heartbeats.beat(key(ID, 1), heard, AgentInfo::default());
        drop(guard);
        let waiting = table.heartbeats.take();
        assert_eq!(waiting.first().map(|(_, beat)| beat.at), Some(Some(heard)));
    }

    #[test]
    fn a_session_that_panics_leaves_nothing_behind() {
        let table = table();
        let (entered, _inbox) = table.enter(key(ID, 1)).expect("entered");
        assert_eq!(table.metrics.sessions.get(), 1);
        std::thread::spawn(move || {
            let _entered = entered;
            panic!("a session panics");
        })
        .join()
        .expect_err("a panic");
        assert_eq!(table.metrics.sessions.get(), 0);
        let look = table.look(Instant::now(), Duration::ZERO, Duration::ZERO);
        assert_eq!(look, Look::default());
    }

    #[test]
    fn only_the_named_session_is_told_to_end() {
        let table = table();
        let (_entered, mut hears) = table.enter(key(ID, 2)).expect("entered");
        table.end(key(ID, 1), Command::Removed);
        assert!(hears.commands.try_recv().is_err());
        table.end(key(ID, 2), Command::Removed);
        assert_eq!(hears.commands.try_recv(), Ok(Command::Removed));
    }

    #[test]
    fn an_older_standing_that_comes_late_is_not_told_and_its_threshold_does_not_count() {
        let table = table();
        let (_entered, hears) = table.enter(key(ID, 1)).expect("entered");
        table.tell(ID, desired_state(5, Some(1_000)));
        table.tell(ID, desired_state(4, Some(60_000)));
        assert_eq!(known(&hears), Some(5));
        let in_two_seconds = Instant::now() + Duration::from_secs(2);
        let due = || table.look(in_two_seconds, Duration::from_secs(45), Duration::ZERO).due;
        assert_eq!(due(), [key(ID, 1)]);
        table.tell(ID, desired_state(6, Some(60_000)));
        assert_eq!(known(&hears), Some(6));
        assert!(due().is_empty());
    }

    #[test]
    fn only_the_newest_session_is_told_how_its_satellite_stands() {
        let table = table();
        let (_older, first) = table.enter(key(ID, 1)).expect("entered");
        let (_newer, second) = table.enter(key(ID, 2)).expect("entered");
        table.tell(ID, desired_state(1, None));
        assert_eq!((known(&first), known(&second)), (None, Some(1)));
    }

    #[test]
    fn who_is_late_and_who_is_due_follows_from_when_each_was_heard_and_its_threshold() {
        let table = table();
        let id = |n| SatelliteId(Uuid::from_u128(n));
        let _first = table.enter(key(id(1), 1)).expect("entered");
        let _second = table.enter(key(id(2), 1)).expect("entered");
        table.tell(id(2), desired_state(1, Some(10_000)));
        let entered = Instant::now();
        let look = |seconds| {
            let now = entered + Duration::from_secs(seconds);
            table.look(now, Duration::from_secs(45), Duration::from_secs(15))
        };
        let counts = |look: &Look| (look.sessions, look.late, look.due.len());
        assert_eq!(counts(&look(4)), (2, 0, 0));
        assert_eq!(counts(&look(6)), (2, 1, 0));
        assert_eq!(look(11).due, [key(id(2), 1)]);
        assert_eq!(counts(&look(31)), (2, 2, 1));
        assert_eq!(counts(&look(46)), (2, 2, 2));
        table.tell(id(2), desired_state(2, None));
        assert_eq!(counts(&look(11)), (2, 0, 0));
        table.heard(key(id(1), 2), Moment::now());
        assert_eq!(counts(&look(46)), (2, 2, 2), "another session was heard");
    }
}
