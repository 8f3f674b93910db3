//! Satellites, their tokens and their assignments, as administrators change them.

mod assignment_sets;
mod assignments;
mod enrolment;
mod idempotency;
mod import_checkstack;
mod kicked_and_disabled;
mod registry_history;
mod removal;
