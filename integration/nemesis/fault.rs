//! The faults. Pure: the name of each, the resource it takes hold of, and what it hampers.
//!
//! To add a fault: a variant here, a topic with its draw in `plan`, its two halves in `inject`. Still
//! missing are a full disk (hampers [`Hampered::Postgres`]), the leader of a cluster of nats-servers that
//! steps down (hampers [`Hampered::NatsServer`]), and steps of the database's own clock. (The checker's
//! verdicts do not depend on that clock: they use no time that Postgres told.)

use std::fmt;

use super::windows::Hampered;

/// Pods of the world.
pub const PODS: usize = 3;

/// Satellites whose lives are judged.
pub const MEMBERS: usize = 40;

/// A fault and its target; a pod and a satellite are named by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The pod crashes and is started afterwards.
    KillPod(usize),
    /// The pod drains and is started afterwards.
    EndPod(usize),
    /// The pod's process is stopped and goes on afterwards.
    StopPod(usize),
    /// No connection between pod and database.
    CutDatabase(usize),
    /// No byte passes between pod and database; the connections stay open.
    StallDatabase(usize),
    /// The answers to some commits are lost.
    LoseCommits(usize),
    CutNats(usize),
    StallNats(usize),
    /// No connection between satellites and pod.
    CutLine(usize),
    StallLine(usize),
    KillPostgres,
    RestartPostgres,
    /// All processes of Postgres are stopped.
    StopPostgres,
    KillNats,
    RestartNats,
    StopNats,
    /// The nats-server comes back with the streams it had when the fault began.
    RestoreNats,
    /// A foreign program publishes on the service's subjects.
    Foreign,
    /// A foreign program publishes copies of the newest messages.
    Copies,
    /// A crowd of satellites comes and goes, again and again.
    Burst,
    /// An outside transaction holds a row of the registry.
    LockSatellite(usize),
    /// An outside transaction holds a row of the projection.
    LockConnection(usize),
    /// The relay's lease belongs to an unknown holder.
    StealLease,
    /// The newest messages are deleted from the stream: this many.
    LoseTail(u64),
    /// All messages are deleted from the stream.
    Purge,
    /// The pod's wall clock is this many seconds off.
    Clock(usize, i64),
    /// Readers of a pod's live stream that do not read.
    SlowReaders(usize),
    RotateToken(usize),
    /// The satellite is removed, and another takes its place.
    Remove(usize),
    /// The satellite gets this threshold, or none of its own.
    Threshold(usize, Option<u64>),
    /// The satellite gets a list of assignments.
    Assign(usize),
}

/// What two faults cannot take hold of at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    Process(usize),
    DatabaseLink(usize),
    NatsLink(usize),
    Line(usize),
    Postgres,
    NatsServer,
    Subjects,
    Crowd,
    Lease,
    Tail,
    Clock(usize),
    Readers(usize),
    Member(usize),
}

impl Fault {
    pub fn resource(self) -> Resource {
        use Fault::*;
        match self {
            KillPod(p) | EndPod(p) | StopPod(p) => Resource::Process(p),
            CutDatabase(p) | StallDatabase(p) | LoseCommits(p) => Resource::DatabaseLink(p),
            CutNats(p) | StallNats(p) => Resource::NatsLink(p),
            CutLine(p) | StallLine(p) => Resource::Line(p),
            KillPostgres | RestartPostgres | StopPostgres => Resource::Postgres,
            KillNats | RestartNats | StopNats | RestoreNats => Resource::NatsServer,
            Foreign | Copies => Resource::Subjects,
            Burst => Resource::Crowd,
            StealLease => Resource::Lease,
            LoseTail(_) | Purge => Resource::Tail,
            Clock(p, _) => Resource::Clock(p),
            SlowReaders(p) => Resource::Readers(p),
            LockSatellite(m) | LockConnection(m) => Resource::Member(m),
            RotateToken(m) | Remove(m) | Threshold(m, _) | Assign(m) => Resource::Member(m),
        }
    }

    /// What cannot be expected of the world while the fault lasts. A fault that hampers nothing must have no
    /// consequence at all.
    pub fn hampers(self) -> Option<Hampered> {
        use Fault::*;
        match self {
            KillPod(p) | EndPod(p) | StopPod(p) => Some(Hampered::Pod(p)),
            CutDatabase(p) | StallDatabase(p) | LoseCommits(p) => Some(Hampered::Database(p)),
            CutNats(p) | StallNats(p) => Some(Hampered::Nats(p)),
            CutLine(p) | StallLine(p) => Some(Hampered::Line(p)),
            KillPostgres | RestartPostgres | StopPostgres => Some(Hampered::Postgres),
            KillNats | RestartNats | StopNats | RestoreNats => Some(Hampered::NatsServer),
            StealLease => Some(Hampered::Lease),
            LockSatellite(m) | LockConnection(m) => Some(Hampered::Satellite(m)),
            RotateToken(m) | Remove(m) => Some(Hampered::Satellite(m)),
            Foreign | Copies | Burst | LoseTail(_) | Purge | Clock(..) | SlowReaders(_) => None,
            Threshold(..) | Assign(_) => None,
        }
    }
}

/// A pod's letter.
pub fn pod_name(pod: usize) -> &'static str {
    ["a", "b", "c"][pod]
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Fault::*;
        match *self {
            KillPod(p) => write!(f, "pod {} is killed", pod_name(p)),
            EndPod(p) => write!(f, "pod {} is told to end", pod_name(p)),
            StopPod(p) => write!(f, "pod {} stands still", pod_name(p)),
            CutDatabase(p) => write!(f, "pod {} is cut off from Postgres", pod_name(p)),
            StallDatabase(p) => write!(f, "no byte between pod {} and Postgres", pod_name(p)),
            LoseCommits(p) => write!(f, "answers to commits of pod {} are lost", pod_name(p)),
            CutNats(p) => write!(f, "pod {} is cut off from NATS", pod_name(p)),
            StallNats(p) => write!(f, "no byte between pod {} and NATS", pod_name(p)),
            CutLine(p) => write!(f, "satellites are cut off from pod {}", pod_name(p)),
            StallLine(p) => write!(f, "no byte between satellites and pod {}", pod_name(p)),
            KillPostgres => write!(f, "Postgres is killed"),
            RestartPostgres => write!(f, "Postgres is restarted"),
            StopPostgres => write!(f, "Postgres stands still"),
            KillNats => write!(f, "nats-server is killed"),
            RestartNats => write!(f, "nats-server is restarted"),
            StopNats => write!(f, "nats-server stands still"),
            RestoreNats => write!(f, "nats-server goes back to the streams of now"),
            Foreign => write!(f, "somebody else publishes on our subjects"),
            Copies => write!(f, "somebody publishes copies of our messages"),
            Burst => write!(f, "a crowd comes and goes"),
            LockSatellite(m) => write!(f, "the registry's row of satellite {m} is locked"),
            LockConnection(m) => write!(f, "the projection's row of satellite {m} is locked"),
            StealLease => write!(f, "the relay's lease is stolen"),
            LoseTail(n) => write!(f, "the newest {n} messages are deleted"),
            Purge => write!(f, "the stream is purged"),
            Clock(p, seconds) => write!(f, "the clock of pod {} is {seconds} s off", pod_name(p)),
            SlowReaders(p) => write!(f, "readers of pod {} do not read", pod_name(p)),
            RotateToken(m) => write!(f, "satellite {m} gets a new token"),
            Remove(m) => write!(f, "satellite {m} is removed"),
            Threshold(m, Some(ms)) => write!(f, "satellite {m} gets a threshold of {ms} ms"),
            Threshold(m, None) => write!(f, "satellite {m} gets the default threshold"),
            Assign(m) => write!(f, "satellite {m} gets assignments"),
        }
    }
}
