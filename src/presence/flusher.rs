//! Writes heartbeats: bookkeeping, not transitions.
//!
//! A pod vouches for its sessions: a few times a second it says in its own row up to when it heard each of
//! them within its window ([`crate::sessions::vouching`]). What that does not cover is written row by row, in
//! one statement, before the pod says so the next time: the first heartbeat after an edge, the last heartbeat
//! of sessions that missed one, the heartbeats of sessions that are heard again, and those of satellites
//! whose threshold is too short. The pod's [`DatabaseClock`] tells when a session was heard. So no pod's wall
//! clock matters, and neither does the time that the statement takes to arrive or waits. The statement is
//! fenced: a heartbeat moves nothing if its session is not current or if the last edge is not `connected`; it
//! returns what is to be done instead ([`Verdict`]). While the database is away heartbeats wait, one for each
//! session.
//!
//! A row that another transaction has locked delays only its own satellite: that heartbeat stays in memory,
//! all others are written, and the pod says that it has observed. For the satellite left out that is not
//! true, and yet it causes no loss. While this pod lives no other pod declares its sessions lost, and this
//! pod knows when it heard them. The loss needs the same locked row. Once the row is free, the heartbeat is
//! written within [`FLUSH_INTERVAL`]. What remains: while the row is locked for longer than the threshold, a
//! read calls the satellite offline, or online if it was vouched for. [`LockedRows`] tells operators of it.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Object;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use crate::contract::wire::Timestamp;
use crate::contract::word::Word;
use crate::domain::lifecycle::{Event, Reason, SatelliteId, Session, SessionKey, Signal};
use crate::log::append::Log;
use crate::log::locked_rows::LockedRows;
use crate::log::read;
use crate::log::watermark::{self, PodNumber};
use crate::platform::database::Database;
use crate::platform::database_clock::{DatabaseClock, Moment};
use crate::platform::metrics::Metrics;
use crate::presence::reconciliation::Reconciliation;
use crate::registry::satellites::{self, AgentInfo};
use crate::sessions::heartbeats::{Beat, Heartbeats};
use crate::sessions::table::{Command, SessionTable};
use crate::sessions::vouching::{self, Recorded};

/// How often heartbeats are written: often enough that a read on another pod is at most this much behind,
/// seldom enough that a batch is worth its commit.
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);

/// Heartbeats in one statement.
const MAX_BATCH: usize = 1_000;

/// What a heartbeat that moved nothing means for its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The session was declared lost and is heard again.
    Recover,
    /// A newer session is current, or another part ended this one.
    Superseded,
    /// The satellite was removed.
    Removed,
    /// The session has a `disconnected` that its own socket did not append: an administrator ended it.
    Ended,
}

fn verdict(current: Session, last_event: Option<Event>, session: Session) -> Verdict {
    match last_event {
        Some(Event::Removed) => Verdict::Removed,
        Some(Event::HeartbeatLost) if current == session => Verdict::Recover,
        Some(Event::Disconnected) if current == session => Verdict::Ended,
        _ => Verdict::Superseded,
    }
}

/// How a session ends that an administrator has ended for this reason.
fn ended_for(reason: Option<Reason>) -> Command {
    match reason {
        Some(Reason::Kicked) => Command::Kicked,
        Some(Reason::Disabled) => Command::Disabled,
        _ => Command::TokenRotated,
    }
}

/// The satellites whose rows another transaction has locked.
struct Locked {
    connections: HashSet<SatelliteId>,
    registry: HashSet<SatelliteId>,
}

impl Locked {
    /// The part of a heartbeat that could not be written.
    fn part_of(&self, satellite: SatelliteId, beat: Beat) -> Option<Beat> {
        let connection = self.connections.contains(&satellite);
        let registry = self.registry.contains(&satellite);
        (connection || registry).then(|| Beat {
            session: beat.session,
            at: beat.at.filter(|_| connection),
            agent_info: if registry { beat.agent_info } else { AgentInfo::default() },
        })
    }
}

/// The task that writes heartbeats.
pub struct Flusher {
    /// This pod's number.
    pub pod: PodNumber,
    /// The default offline threshold: the measure of blind time.
    pub default_threshold: Duration,
    /// How long the pod vouches for a session that it heard; none if it writes every heartbeat.
    pub vouch_window: Option<Duration>,
    /// How often the pod compares what it vouches for with what is stored.
    pub reconcile_interval: Duration,
    /// The heartbeats to write.
    pub heartbeats: Arc<Heartbeats>,
    /// The sessions of this pod.
    pub sessions: Arc<SessionTable>,
    /// The database.
    pub database: Database,
    /// The log, for recoveries.
    pub log: Log,
    /// The pod's metrics.
    pub metrics: Metrics,
}

impl Flusher {
    /// Writes every [`FLUSH_INTERVAL`] until told to stop, then once more.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(FLUSH_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut locked = LockedRows::new("heartbeats", self.metrics.clone());
        let (mut failing, mut observed) = (false, None);
        let mut reconciliation = Reconciliation::new(self.pod, self.reconcile_interval);
        loop {
            let stopping = tokio::select! {
                _ = ticks.tick() => false,
                () = stop.cancelled() => true,
            };
            let flushed = match self.flush(&mut locked, &mut observed).await {
                Ok(since) if self.vouch_window.is_some() && reconciliation.is_due(since) => {
                    reconciliation.run(&self.database, &self.sessions).await
                }
                Ok(_) => Ok(()),
                Err(error) => {
                    reconciliation.demand();
                    Err(error)
                }
            };
            match flushed {
                Ok(()) => failing = false,
                Err(error) => {
                    self.metrics.heartbeat_failures.inc();
                    if !failing {
                        warn!(error = %format!("{error:#}"), "heartbeats cannot be written, they wait");
                    }
                    failing = true;
                }
            }
            if stopping {
                return;
            }
        }
    }

    /// Writes everything heard so far, except for locked rows, and then says so: only then has this pod
    /// observed. `observed` is when it last did so; returns how long ago that was.
    async fn flush(
        &self,
        locked: &mut LockedRows,
        observed: &mut Option<Moment>,
    ) -> anyhow::Result<Option<Duration>> {
        let began = Moment::now();
        if let (Some(window), Some(observed)) = (self.vouch_window, *observed)
            && began.since(observed) >= window
        {
            // The other pods may have declared its sessions lost, or be about to. Writing each heartbeat finds
            // out. Not after a shorter gap: a vouched session has two windows, and a database that takes long to
            // write all of them would make each flush the reason for the next.
            self.sessions.doubt(self.sessions.vouched().into_iter());
        }
        self.take_back(began);
        let mut beats = self.heartbeats.take();
        let mut left_out = Vec::new();
        while !beats.is_empty() {
            let batch = beats.split_off(beats.len().saturating_sub(MAX_BATCH));
            let locked = match self.write(&batch, began).await {
                Ok(locked) => locked,
                Err(error) => {
                    for (satellite, beat) in beats.into_iter().chain(batch) {
                        self.heartbeats.put(satellite, beat);
                    }
                    return Err(error);
                }
            };
            for (satellite, beat) in batch {
                if let Some(waits) = locked.part_of(satellite, beat) {
                    self.heartbeats.put(satellite, waits);
                    left_out.push(satellite);
                }
            }
        }
        locked.found(left_out.into_iter());
        let since = observed.map(|observed| began.since(observed));
        self.observe(began, since).await?;
        *observed = Some(began);
        Ok(since)
    }

    /// Stops vouching for sessions that were not heard within the window before `began`: their last
    /// heartbeats are written with the others.
    fn take_back(&self, began: Moment) {
        let Some(window) = self.vouch_window else { return };
        let found = self.sessions.exceptions(began, window, self.default_threshold);
        self.metrics.vouched_sessions.set(i64::try_from(found.kept).unwrap_or(i64::MAX));
        self.metrics.vouch_exceptions.inc_by(found.taken_back);
    }

    /// Which of the sessions in a batch this pod vouches for from now on.
    fn vouch(&self, batch: &[(SatelliteId, Beat)], began: Moment) -> HashSet<SessionKey> {
        let Some(window) = self.vouch_window else { return HashSet::new() };
        let is_within = |at| vouching::is_within(window, at, began);
        let young = batch.iter().filter(|(_, beat)| beat.at.is_some_and(is_within));
        let keys = young.map(|(id, beat)| SessionKey { satellite: *id, session: beat.session });
        self.sessions.begin_vouching(keys, window, self.default_threshold)
    }

    async fn observe(&self, began: Moment, since: Option<Duration>) -> anyhow::Result<()> {
        let observe = async |client: &mut Object| {
            // Heartbeats after `began` are not written yet, so the stated moment must not be later than
            // `began`.
            let now = look_at_clock(client, self.log.clock()).await?;
            let heard = self.log.clock().least_time_of(began).map_or(now, |least| least.min(now));
            watermark::observe(client, self.pod, heard, since, self.default_threshold).await
        };
        if let Some(blind) = self.database.run(observe).await? {
            self.metrics.blind_seconds.inc_by(blind.as_secs_f64());
            warn!(
                ?blind,
                "no pod could observe the satellites: this time counts against none of them"
            );
        }
        Ok(())
    }

    async fn write(&self, batch: &[(SatelliteId, Beat)], began: Moment) -> anyhow::Result<Locked> {
        let vouched = self.vouch(batch, began);
        let heard: HashMap<Uuid, (Session, Moment)> =
            batch.iter().filter_map(|(id, beat)| Some((id.0, (beat.session, beat.at?)))).collect();
        let ids: Vec<Uuid> = heard.keys().copied().collect();
        let sessions: Vec<i64> = heard.values().map(|(session, _)| session.0).collect();
        let key = |id: &Uuid, session: Session| SessionKey { satellite: SatelliteId(*id), session };
        let is_vouched =
            |(id, (session, _)): (&Uuid, &(Session, Moment))| vouched.contains(&key(id, *session));
        let vouches: Vec<bool> = heard.iter().map(is_vouched).collect();
        let flush = began.number();
        let news: Vec<(SatelliteId, AgentInfo)> = batch
            .iter()
            .filter(|(_, beat)| beat.agent_info != AgentInfo::default())
            .map(|(id, beat)| (*id, beat.agent_info.clone()))
            .collect();

        let write = async |client: &mut Object| {
            let mut rows = Vec::new();
            if !ids.is_empty() {
                let statement = client.prepare_cached(FLUSH).await?;
                // All of them were heard before this moment.
                let now = look_at_clock(client, self.log.clock()).await?;
                let time_of = |(_, at): &(Session, Moment)| self.log.clock().time_of(*at, now);
                let times: Vec<OffsetDateTime> =
                    heard.values().map(|beat| Timestamp::new(time_of(beat)).moment()).collect();
                rows =
                    client.query(&statement, &[&ids, &sessions, &times, &vouches, &flush]).await?;
            }
            let locked = match news.is_empty() {
                true => HashSet::new(),
                false => satellites::describe(client, &news).await?,
            };
            Ok::<_, tokio_postgres::Error>((rows, locked))
        };
        let (rows, registry) = self.database.run(write).await?;

        let moved = heard.len().saturating_sub(rows.len());
        self.metrics.heartbeats_flushed.inc_by(moved as u64);
        let mut locked = Locked { connections: HashSet::new(), registry };
        let mut unmoved = Vec::new();
        for row in &rows {
            let id: SatelliteId = row.try_get("satellite_id")?;
            let Some(current) = row.try_get::<_, Option<Session>>("current")? else {
                locked.connections.insert(id);
                continue;
            };
            let session: Session = row.try_get("session")?;
            let last_event = Event::from_str(row.try_get("last_event")?).ok();
            let at = heard.get(&id.0).map_or_else(Moment::now, |(_, at)| *at);
            unmoved.push((key(&id.0, session), verdict(current, last_event, session), at));
        }
        let reasons = self.reasons(&unmoved).await?;
        let written =
            heard.iter().filter(|(id, _)| !locked.connections.contains(&SatelliteId(**id)));
        self.sessions.recorded(written.map(|(id, (session, _))| {
            let key = key(id, *session);
            (key, if vouched.contains(&key) { Recorded::Vouched } else { Recorded::Exact })
        }));
        // A row that has moved on says nothing of these sessions any more.
        self.sessions.recorded(unmoved.iter().map(|(key, ..)| (*key, Recorded::Exact)));
        for (key, verdict, at) in unmoved {
            let reason = reasons.get(&key.satellite).and_then(Word::known);
            self.act(key, verdict, reason, at);
        }
        Ok(locked)
    }

    /// Why the sessions ended that an administrator has ended and this pod still holds.
    async fn reasons(
        &self,
        unmoved: &[(SessionKey, Verdict, Moment)],
    ) -> anyhow::Result<HashMap<SatelliteId, Word<Reason>>> {
        let ended = unmoved.iter().filter(|(_, verdict, _)| *verdict == Verdict::Ended);
        let ended = ended.filter(|(key, ..)| self.sessions.holds(*key));
        let ended: Vec<SatelliteId> = ended.map(|(key, ..)| key.satellite).collect();
        if ended.is_empty() {
            return Ok(HashMap::new());
        }
        Ok(self.database.run(async |client| read::last_reasons(client, &ended).await).await?)
    }

    fn act(&self, key: SessionKey, verdict: Verdict, reason: Option<Reason>, at: Moment) {
        let end = |command| {
            // A session that is not here has ended; only its last heartbeat was to be written.
            if self.sessions.holds(key) {
                self.metrics.heartbeats_stale.inc();
                self.sessions.end(key, command);
            }
        };
        match verdict {
            Verdict::Superseded => end(Command::Superseded),
            Verdict::Removed => end(Command::Removed),
            Verdict::Ended => end(ended_for(reason)),
            // Under the table's lock, so that a session that is ending queues its end after this, not before.
            Verdict::Recover => self.sessions.while_live(key, || {
                let recover = Signal::Recover { session: key.session };
                self.log.try_submit(key.satellite, recover, at);
            }),
        }
    }
}

/// The database's time, by a round trip that also adjusts the clock.
async fn look_at_clock(
    client: &Object,
    clock: &DatabaseClock,
) -> Result<OffsetDateTime, tokio_postgres::Error> {
    let statement = client.prepare_cached("select clock_timestamp()").await?;
    let sent = Moment::now();
    let now = client.query_one(&statement, &[]).await?.try_get(0)?;
    clock.note(sent, now, Moment::now());
    Ok(now)
}

/// Waits for no row. A statement that arrives after a later one has written the row moves nothing. Returns
/// the heartbeats that moved nothing; for a row that another transaction has locked, without a current
/// session.
const FLUSH: &str = "
    with beat as (
        select * from unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::bool[])
            as b (satellite_id, session, heard_at, vouched)
    ), locked as (
        select c.satellite_id, c.session as current, c.last_event, b.session, b.heard_at, b.vouched
          from satellite_connections c join beat b using (satellite_id)
         order by c.satellite_id
           for no key update of c skip locked
    ), moved as (
        update satellite_connections c
           set last_heartbeat_at = greatest(c.last_heartbeat_at, l.heard_at), vouched = l.vouched, flushed = $5
          from locked l
         where c.satellite_id = l.satellite_id and l.session = l.current and l.last_event = 'connected'
           and c.flushed < $5
    )
    select b.satellite_id, b.session, l.current, l.last_event
      from beat b left join locked l using (satellite_id)
     where l.session <> l.current or l.last_event <> 'connected'
        or (l.satellite_id is null
            and exists (select from satellite_connections c where c.satellite_id = b.satellite_id))";

#[cfg(test)]
mod tests {
    use super::*;

    const ID: SatelliteId = SatelliteId(Uuid::from_u128(1));

    #[test]
    fn of_a_heartbeat_only_what_is_locked_waits() {
        let agent_info = AgentInfo { version: Some("0.5".to_owned()), ..AgentInfo::default() };
        let of = |connection: bool, registry: bool| {
            let only = |locked| if locked { HashSet::from([ID]) } else { HashSet::new() };
            let locked = Locked { connections: only(connection), registry: only(registry) };
            let beat = Beat {
                session: Session(1),
                at: Some(Moment::now()),
                agent_info: agent_info.clone(),
            };
            locked.part_of(ID, beat).map(|beat| (beat.at.is_some(), beat.agent_info == agent_info))
        };
        assert_eq!(of(false, false), None);
        assert_eq!(of(true, false), Some((true, false)));
        assert_eq!(of(false, true), Some((false, true)));
        assert_eq!(of(true, true), Some((true, true)));
    }

    #[test]
    fn a_heartbeat_that_moved_nothing_recovers_or_ends_its_session() {
        let (one, two) = (Session(1), Session(2));
        let cases = [
            (one, Some(Event::HeartbeatLost), Verdict::Recover),
            (two, Some(Event::HeartbeatLost), Verdict::Superseded),
            (two, Some(Event::Connected), Verdict::Superseded),
            (one, Some(Event::Disconnected), Verdict::Ended),
            (two, Some(Event::Disconnected), Verdict::Superseded),
            (one, Some(Event::Removed), Verdict::Removed),
            (two, Some(Event::Removed), Verdict::Removed),
            (one, None, Verdict::Superseded),
        ];
        for (current, last_event, expected) in cases {
            assert_eq!(verdict(current, last_event, one), expected, "{current:?} {last_event:?}");
        }
    }

    #[test]
    fn a_session_that_an_administrator_ended_is_told_by_the_reason_in_the_log() {
        let cases = [
            (Some(Reason::TokenRotated), Command::TokenRotated),
            (Some(Reason::Kicked), Command::Kicked),
            (Some(Reason::Disabled), Command::Disabled),
            (None, Command::TokenRotated),
        ];
        for (reason, expected) in cases {
            assert_eq!(ended_for(reason), expected, "{reason:?}");
        }
    }
}
