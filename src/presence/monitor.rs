//! The monitor finds satellites that went silent, and declares them lost.
//!
//! Each pod knows when it last heard each session it holds, so it finds its own losses in memory. The
//! sessions of a pod that has fallen silent itself are found by every other pod in the stored rows, through
//! an index. So no pod's death goes unnoticed, and a sweep costs nothing for satellites that are online.
//! Every third of a threshold a pod also reads the stored rows of its own sessions, and those of sessions
//! without a pod: this finds sessions that are in no pod's memory (memory is not the truth).
//!
//! The sweep only proposes losses. The append decides under the satellite's lock: there it sees a heartbeat
//! that came in between, it does not count time in which no pod could hear, and a second pod's proposal
//! changes nothing. So each loss is declared once, however many pods sweep.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::Object;
use fail::fail_point;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::domain::brown_out::{Guard, Lateness, Rules};
use crate::domain::lifecycle::{Reason, SatelliteId, SessionKey, Signal};
use crate::log::append::Log;
use crate::log::request::Outcome;
use crate::log::watermark::{self, MAX_BROUGHT_BACK, PodNumber, SILENT_AFTER, blind_after};
use crate::platform::database::Database;
use crate::platform::health::{BrownOut, Health};
use crate::platform::metrics::Metrics;
use crate::presence::left_behind::{self, LeftBehind, Silent, Vouched};
use crate::sessions::table::{Look, SessionTable};

/// Losses that one sweep takes from each source. If it declared any, the next sweep follows at once.
const MAX_DUE: usize = 10_000;

/// How long the sockets are read between two looks at this pod's sessions: what they hold is a few heartbeats each.
/// A loss is found so much later.
const READING: Duration = Duration::from_millis(100);

/// The most such pauses before one look counts, so that a pod that is always slow finds its losses too.
const MAX_READINGS: u32 = 20;

/// Ended sessions taken from silent pods at a time.
const MAX_LET_GO: u64 = 1_000;

/// The task that sweeps.
pub struct Monitor {
    /// This pod's number.
    pub pod: PodNumber,
    /// Where stored rows are read.
    pub database: Database,
    /// The sessions of this pod.
    pub sessions: Arc<SessionTable>,
    /// Where losses are declared.
    pub log: Log,
    /// The interval of sweeps.
    pub interval: Duration,
    /// The default offline threshold.
    pub default_threshold: Duration,
    /// How often satellites send a heartbeat.
    pub heartbeat_interval: Duration,
    /// When losses are held.
    pub brown_out: Rules,
    /// Told when losses are held.
    pub health: Arc<Health>,
    /// The pod's metrics.
    pub metrics: Metrics,
}

/// Sessions that are guarded together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Group {
    /// All sessions.
    Fleet,
    /// The sessions of one pod.
    Pod(PodNumber),
}

/// A session that looks lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    key: SessionKey,
    reason: Reason,
    pod: Option<PodNumber>,
}

impl Due {
    fn from_row(row: &Row) -> Result<Due, tokio_postgres::Error> {
        let is_dead: bool = row.try_get("is_dead")?;
        Ok(Due {
            key: SessionKey {
                satellite: row.try_get("satellite_id")?,
                session: row.try_get("session")?,
            },
            reason: if is_dead { Reason::PodLost } else { Reason::HeartbeatTimeout },
            pod: row.try_get("pod")?,
        })
    }
}

fn count(row: &Row, column: &str) -> Result<u64, tokio_postgres::Error> {
    Ok(u64::try_from(row.try_get::<_, i64>(column)?).unwrap_or(0))
}

/// What one sweep remembers for the next.
struct Memory {
    swept_at: Instant,
    /// Until then this pod, which was asleep, first reads what came meanwhile.
    deaf_until: Instant,
    /// When the stored rows of its own sessions are read again.
    look_through_at: Instant,
    guards: HashMap<Group, Guard>,
    /// The last count of what silent pods had vouched for.
    vouched: Vouched,
    /// Where the next read of each source goes on.
    turns: Turns,
}

/// Where to go on among the due sessions of each source.
///
/// A loss that was found may not be declared: it may be held, its row may be locked, or a session that was
/// declared lost may still have a socket. Sessions that stay due must not hide others. So if there are more
/// than one read takes, the next read takes those that come after.
#[derive(Default)]
struct Turns {
    own: Option<SatelliteId>,
    stored: Option<SatelliteId>,
    orphans: Option<SatelliteId>,
}

/// Cuts a read that found too many, and notes where the next one goes on. `due` is in the order of ids, from
/// `turn` on.
fn cut(due: &mut Vec<Due>, turn: &mut Option<SatelliteId>, max: usize) {
    let is_all = due.len() <= max;
    due.truncate(max);
    *turn = if is_all { None } else { due.last().map(|due| due.key.satellite) };
}

/// [`MAX_DUE`], except in a test of what happens beyond it.
fn max_due() -> usize {
    fail_point!("monitor::max_due", |max| max.and_then(|max| max.parse().ok()).unwrap_or(MAX_DUE));
    MAX_DUE
}

impl Monitor {
    /// Sweeps until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let now = Instant::now();
        let mut memory = Memory {
            swept_at: now,
            deaf_until: now,
            look_through_at: now,
            guards: HashMap::new(),
            vouched: Vouched::default(),
            turns: Turns::default(),
        };
        let mut failing = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            let swept = tokio::select! {
                swept = self.sweep(&mut memory) => swept,
                () = stop.cancelled() => return,
            };
            match swept {
                Ok(goes_on) => {
                    failing = false;
                    if goes_on {
                        ticks.reset_immediately();
                    }
                }
                Err(error) => {
                    self.metrics.sweep_failures.inc();
                    if !failing {
                        warn!(error = %format!("{error:#}"), "cannot look for silent satellites");
                    }
                    failing = true;
                }
            }
        }
    }

    /// Returns whether there is more to declare.
    async fn sweep(&self, memory: &mut Memory) -> anyhow::Result<bool> {
        let started = Instant::now();
        let lapse = blind_after(self.default_threshold);
        if started.duration_since(memory.swept_at) > self.interval + lapse {
            memory.deaf_until = started + lapse;
        }
        memory.swept_at = started;

        let look = self.look_until_read().await;
        let find = async |client: &mut Object| self.find(client, memory, &look, started).await;
        let found = self.database.run(find).await?;
        self.metrics.sweep_seconds.observe(started.elapsed().as_secs_f64());
        self.guard(memory, &found, started);
        let (held, due): (Vec<Due>, Vec<Due>) =
            found.due.into_iter().partition(|due| memory.is_held(due));
        self.metrics.brown_out_held.set(i64::try_from(held.len()).unwrap_or(i64::MAX));
        let is_all = due.len() < max_due();
        let declared = self.declare(due).await?;
        Ok(!is_all && declared > 0)
    }

    /// The state of this pod's sessions. A process that stood still finds heartbeats of that time in its sockets,
    /// and its timers run out before it has read them. So a session is due only if it still is after pauses in which
    /// the sockets are read.
    async fn look_until_read(&self) -> Look {
        let look =
            || self.sessions.look(Instant::now(), self.default_threshold, self.heartbeat_interval);
        let first = look();
        if first.due.is_empty() {
            return first;
        }
        let mut due: HashSet<SessionKey> = first.due.into_iter().collect();
        let mut rounds = 1..MAX_READINGS;
        loop {
            let began = Instant::now();
            tokio::time::sleep(READING).await;
            let mut again = look();
            again.due.retain(|key| due.contains(key));
            // A pause that found heartbeats may find more; one that took too long was another stand-still.
            let is_read = again.due.len() == due.len() && began.elapsed() < READING * 2;
            if is_read || again.due.is_empty() || rounds.next().is_none() {
                return again;
            }
            due = again.due.into_iter().collect();
        }
    }

    /// Reads every source.
    async fn find(
        &self,
        client: &Object,
        memory: &mut Memory,
        look: &Look,
        now: Instant,
    ) -> Result<Found, tokio_postgres::Error> {
        let own = Lateness { sessions: look.sessions, late: look.late };
        let mut found = Found::default();
        if now >= memory.deaf_until {
            found.due = self.own(&look.due, &mut memory.turns.own);
        }
        let silent = self.account(client, own, &mut found.lateness).await?;
        if !silent.is_empty() {
            let (written, vouched) =
                self.count_late_of_silent_pods(client, &silent, memory, now).await?;
            for left in written.iter().chain(vouched) {
                found.left_behind(left);
            }
            let vouched_are_due = vouched.iter().any(|left| left.due > 0);
            if vouched_are_due || written.iter().any(|left| left.due > 0) {
                let turn = &mut memory.turns.stored;
                found.due.extend(self.stored(client, &silent.pods, vouched_are_due, turn).await?);
            }
        }
        let silent = silent.pods;
        if now >= memory.look_through_at {
            let pods = [&silent[..], &[self.pod]].concat();
            let brought_back = watermark::bring_back(client, &pods).await?;
            let over = self.release_ended(client, &silent).await?;
            let turn = &mut memory.turns.orphans;
            let mut orphans = self.find_orphans(client, turn).await?;
            // While there are more of them, the next sweep reads again.
            if over < MAX_LET_GO && brought_back < MAX_BROUGHT_BACK && turn.is_none() {
                memory.look_through_at = now + self.default_threshold / 3;
            }
            orphans.retain(|due| !self.sessions.holds(due.key));
            found.due.extend(orphans);
        }
        Ok(found)
    }

    /// Tells the other pods the state of this pod's sessions, and reads theirs. Returns the pods that have
    /// fallen silent.
    async fn account(
        &self,
        client: &deadpool_postgres::Object,
        own: Lateness,
        groups: &mut HashMap<Group, Lateness>,
    ) -> Result<Silent, tokio_postgres::Error> {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let statement = client.prepare_cached(ACCOUNT).await?;
        let silent_after = SILENT_AFTER.as_secs_f64();
        let (sessions, late) = (number(own.sessions), number(own.late));
        let rows = client.query(&statement, &[&self.pod, &sessions, &late, &silent_after]).await?;
        let (mut fleet, mut silent) = (own, Silent::default());
        groups.insert(Group::Pod(self.pod), own);
        for row in rows {
            let pod = row.try_get("number")?;
            let of_pod =
                Lateness { sessions: count(&row, "sessions")?, late: count(&row, "late")? };
            if row.try_get("is_silent")? {
                groups.insert(Group::Pod(pod), Lateness { late: 0, ..of_pod });
                silent.pods.push(pod);
                silent.watermark = row.try_get("observed_at")?;
                silent.change = row.try_get("change")?;
            } else {
                // That pod guards its own sessions by itself.
                fleet = fleet + of_pod;
            }
        }
        groups.insert(Group::Fleet, fleet);
        Ok(silent)
    }

    /// Counts the late and due sessions of silent pods: those with written times in each sweep, and those
    /// that were vouched for when their count can have changed.
    async fn count_late_of_silent_pods<'m>(
        &self,
        client: &Object,
        silent: &Silent,
        memory: &'m mut Memory,
        now: Instant,
    ) -> Result<(Vec<LeftBehind>, &'m [LeftBehind]), tokio_postgres::Error> {
        let (pods, default, interval) =
            (&silent.pods, self.default_threshold, self.heartbeat_interval);
        let written = left_behind::count(client, pods, false, default, interval).await?;
        let held = memory.guards.values().any(|guard| guard.holds());
        if memory.vouched.is_to_be_looked_at(silent, held, now) {
            let began = Instant::now();
            let vouched = left_behind::count(client, pods, true, default, interval).await?;
            memory.vouched = Vouched::seen(silent, vouched, now, began.elapsed());
        }
        Ok((written, memory.vouched.left_behind()))
    }

    /// The due sessions of this pod that are declared now.
    fn own(&self, sessions: &[SessionKey], turn: &mut Option<SatelliteId>) -> Vec<Due> {
        let after = |key: &&SessionKey| Some(key.satellite) > *turn;
        let due = |key: &SessionKey| Due {
            key: *key,
            reason: Reason::HeartbeatTimeout,
            pod: Some(self.pod),
        };
        let mut due: Vec<Due> = sessions.iter().filter(after).map(due).collect();
        due.sort_unstable_by_key(|due| due.key);
        cut(&mut due, turn, max_due());
        due
    }

    /// The due sessions of silent pods, according to their stored rows.
    async fn stored(
        &self,
        client: &deadpool_postgres::Object,
        silent: &[PodNumber],
        with_vouched: bool,
        turn: &mut Option<SatelliteId>,
    ) -> Result<Vec<Due>, tokio_postgres::Error> {
        self.look(client, STORED, &silent, with_vouched, turn).await
    }

    /// Reads stored rows, from where the last read had to stop.
    async fn look(
        &self,
        client: &deadpool_postgres::Object,
        statement: &str,
        pods: &(dyn ToSql + Sync),
        with_vouched: bool,
        turn: &mut Option<SatelliteId>,
    ) -> Result<Vec<Due>, tokio_postgres::Error> {
        let max = max_due();
        let limit = i64::try_from(max).unwrap_or(i64::MAX).saturating_add(1);
        let after = turn.map(|satellite| satellite.0);
        let rows = client
            .query(statement, &[pods, &self.default_ms(), &limit, &after, &with_vouched])
            .await?;
        let mut due = rows.iter().map(Due::from_row).collect::<Result<Vec<Due>, _>>()?;
        cut(&mut due, turn, max);
        Ok(due)
    }

    /// Takes ended sessions from the silent pods, so that sweeps need not skip them again and again. Returns
    /// how many.
    async fn release_ended(
        &self,
        client: &deadpool_postgres::Object,
        silent: &[PodNumber],
    ) -> Result<u64, tokio_postgres::Error> {
        let limit = i64::try_from(MAX_LET_GO).unwrap_or(i64::MAX);
        client.execute(LET_GO, &[&silent, &limit]).await
    }

    /// The due sessions without a known pod, and those whose row names this pod.
    async fn find_orphans(
        &self,
        client: &deadpool_postgres::Object,
        turn: &mut Option<SatelliteId>,
    ) -> Result<Vec<Due>, tokio_postgres::Error> {
        self.look(client, UNHELD, &self.pod, false, turn).await
    }

    fn default_ms(&self) -> i64 {
        i64::try_from(self.default_threshold.as_millis()).unwrap_or(i64::MAX)
    }

    /// Judges each group again and logs what has changed.
    fn guard(&self, memory: &mut Memory, found: &Found, now: Instant) {
        let mut guards = HashMap::with_capacity(found.lateness.len());
        for (group, lateness) in &found.lateness {
            let before = memory.guards.get(group).copied().unwrap_or_default();
            let after = before.judge(*lateness, now, &self.brown_out);
            let Lateness { sessions, late } = *lateness;
            match (before.holds(), after) {
                (false, Guard::Holding { .. }) => warn!(
                    ?group, sessions, late, hold = ?self.brown_out.hold,
                    "brown-out: a large part went silent together, losses are held"
                ),
                (true, Guard::Spent) => {
                    warn!(
                        ?group,
                        sessions, late, "brown-out: held long enough, losses are declared"
                    );
                }
                (true, Guard::Calm) => info!(?group, sessions, late, "brown-out is over"),
                _ => {}
            }
            guards.insert(*group, after);
        }
        memory.guards = guards;
        let report: Vec<BrownOut> = memory
            .guards
            .iter()
            .filter(|(_, guard)| guard.holds())
            .filter_map(|(group, _)| Some(self.report(*group, found.lateness.get(group)?)))
            .collect();
        self.metrics.brown_out.set(i64::from(!report.is_empty()));
        self.health.brown_out(report);
    }

    fn report(&self, group: Group, lateness: &Lateness) -> BrownOut {
        let scope = match group {
            Group::Fleet => "the fleet".to_owned(),
            Group::Pod(pod) if pod == self.pod => "this pod".to_owned(),
            Group::Pod(pod) => format!("pod number {pod}"),
        };
        BrownOut { scope, sessions: lateness.sessions, late: lateness.late }
    }

    /// Returns how many were declared.
    async fn declare(&self, due: Vec<Due>) -> anyhow::Result<usize> {
        if due.is_empty() {
            return Ok(0);
        }
        let edges = due
            .iter()
            .map(|due| {
                (due.key.satellite, Signal::Lost { session: due.key.session, reason: due.reason })
            })
            .collect();
        let outcomes = self.log.append_all(edges).await?;
        let locked = outcomes.iter().filter(|outcome| **outcome == Outcome::Locked).count();
        self.metrics.losses_locked.inc_by(locked as u64);
        let declared =
            outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Appended { .. })).count();
        if declared > 0 {
            info!(due = due.len(), declared, "satellites went silent");
        }
        Ok(declared)
    }
}

impl Memory {
    fn is_held(&self, due: &Due) -> bool {
        let holds = |group| self.guards.get(&group).is_some_and(|guard| guard.holds());
        holds(Group::Fleet) || due.pod.is_some_and(|pod| holds(Group::Pod(pod)))
    }
}

/// The result of a sweep.
#[derive(Default)]
struct Found {
    due: Vec<Due>,
    lateness: HashMap<Group, Lateness>,
}

impl Found {
    /// Counts the late sessions of a silent pod. Its other sessions have been taken over, and count at their
    /// new pod.
    fn left_behind(&mut self, left: &LeftBehind) {
        self.lateness.entry(Group::Pod(left.pod)).or_default().late += left.late;
        let fleet = self.lateness.entry(Group::Fleet).or_default();
        *fleet = *fleet + Lateness { sessions: left.late, late: left.late };
    }
}

const ACCOUNT: &str = "
    with mine as (
        update pods set sessions = $2, late = $3 where number = $1
    )
    select p.number, p.sessions, p.late,
           coalesce(p.seen_at, p.started_at) < watermark.observed_at - make_interval(secs => $4::float8) as is_silent,
           watermark.observed_at,
           (select coalesce(max(change), 0) from satellite_changes) as change
      from watermark, pods p where p.number <> $1";

/// Finds the due sessions of silent pods, from one id on. It selects them by pod and then sorts: otherwise
/// Postgres might walk all rows in the order of ids.
pub const STORED: &str = "
    with watermark as materialized (select * from watermark), due as materialized (
        select c.satellite_id, c.session, c.pod, p.left_at is null as is_dead
          from watermark, satellite_connections c
          join satellites s on s.id = c.satellite_id
          join pods p on p.number = c.pod
         where c.pod = any($1) and c.last_event = 'connected'
           and (not c.vouched or $5)
           and ($4::uuid is null or c.satellite_id > $4)
           and status_as_of(watermark.observed_at, p.seen_at)
               > online_until(heard_at(c.last_heartbeat_at, c.vouched, p.seen_at), s.offline_threshold_ms, $2,
                              watermark.judged_at, watermark.resumed_at)
    )
    select * from due order by satellite_id limit $3";

/// Waits for no row: a locked row has an edge on its way.
const LET_GO: &str = "
    with over as (
        select satellite_id from satellite_connections
         where (pod = any($1) or pod is null) and last_event <> 'connected'
         limit $2 for no key update skip locked
    )
    update satellite_connections c set pod = 0 from over where c.satellite_id = over.satellite_id";

/// Only sessions that were not heard for a whole interval between two reads can be due: most rows are skipped
/// before their satellites are read.
const UNHELD: &str = "
    with due as materialized (
        select c.satellite_id, c.session, c.pod, false as is_dead
          from watermark, satellite_connections c join satellites s on s.id = c.satellite_id
         where (c.pod = $1 or c.pod is null) and c.last_event = 'connected'
           and (not c.vouched or $5)
           and ($4::uuid is null or c.satellite_id > $4)
           and c.last_heartbeat_at < watermark.observed_at - interval '1 millisecond' * ($2::bigint / 3)
           and watermark.observed_at
               > online_until(c.last_heartbeat_at, s.offline_threshold_ms, $2, watermark.judged_at, watermark.resumed_at)
    )
    select * from due order by satellite_id limit $3";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::lifecycle::Session;
    use uuid::Uuid;

    /// Reads as often as it takes to see all of `due`; returns what each read found.
    fn looks(due: &[u128], max: usize, times: usize) -> Vec<Vec<u128>> {
        let mut turn = None;
        let mut look = || {
            let is_next = |id: &&u128| Some(SatelliteId(Uuid::from_u128(**id))) > turn;
            let mut found: Vec<Due> = due.iter().filter(is_next).map(|id| of(*id)).collect();
            cut(&mut found, &mut turn, max);
            found.iter().map(|due| due.key.satellite.0.as_u128()).collect()
        };
        (0..times).map(|_| look()).collect()
    }

    fn of(id: u128) -> Due {
        let satellite = SatelliteId(Uuid::from_u128(id));
        let key = SessionKey { satellite, session: Session(1) };
        Due { key, reason: Reason::HeartbeatTimeout, pod: None }
    }

    #[test]
    fn those_that_stay_due_keep_no_other_from_being_found() {
        assert_eq!(looks(&[1, 2, 3], 3, 2), [[1, 2, 3], [1, 2, 3]]);
        assert_eq!(looks(&[1, 2, 3, 4, 5], 2, 4), [vec![1, 2], vec![3, 4], vec![5], vec![1, 2]]);
        assert_eq!(looks(&[1, 2, 3, 4], 2, 3), [[1, 2], [3, 4], [1, 2]]);
        assert_eq!(looks(&[], 2, 2), [[0; 0]; 2]);
    }
}
