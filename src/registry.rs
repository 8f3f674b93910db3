//! The satellites: which there are, what they are to do, and their credentials.

pub mod assignment_sets;
pub mod assignments;
pub(crate) mod authority;
pub(crate) mod credentials;
pub mod desired;
pub(crate) mod ended_sessions;
pub(crate) mod ending;
pub(crate) mod enrolment;
pub(crate) mod import;
pub(crate) mod in_force;
pub(crate) mod made_past;
pub(crate) mod maintenance;
pub(crate) mod named;
pub(crate) mod precondition;
pub(crate) mod rotation;
pub mod satellites;
pub(crate) mod selector;
pub(crate) mod slow_checks;
pub(crate) mod tokens;
