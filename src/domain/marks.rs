//! What a transition belongs to beside its satellite: an outage, a maintenance window, a goodbye. Pure.
//!
//! Marks are for those who read. Nothing that follows from an edge depends on them, and no edge is withheld for one.

use std::time::Duration;

use postgres_types::{FromSql, ToSql};
use uuid::Uuid;

/// An outage: many losses with one cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, FromSql, ToSql)]
#[postgres(transparent)]
pub struct OutageId(pub Uuid);

/// A maintenance window that an administrator planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, FromSql, ToSql)]
#[postgres(transparent)]
pub struct MaintenanceId(pub Uuid);

/// What an agent said before it closed its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goodbye {
    /// Why it goes, at most [`Goodbye::MAX_REASON`] characters.
    pub reason: String,
    /// Within which time it means to be back, to the millisecond.
    pub back_within: Option<Duration>,
}

impl Goodbye {
    /// The most characters of a reason.
    pub const MAX_REASON: usize = 200;
}

/// The marks of a transition; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// The outage that the edge is part of.
    pub outage: Option<OutageId>,
    /// The maintenance window that its satellite was in.
    pub maintenance: Option<MaintenanceId>,
    /// What the agent said before.
    pub goodbye: Option<Goodbye>,
}
