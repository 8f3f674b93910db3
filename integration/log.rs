//! The log: what is in it, what was, and what becomes of it when its database is in trouble.

mod append_only;
mod as_of;
mod audit_retention;
mod audit_seals;
mod compromised_pod;
mod disk_full;
mod failover;
mod locked_rows;
mod log_lock;
mod long_transactions;
mod many_at_once;
mod marks;
mod outage;
mod read_only;
mod reads;
mod rebuild;
mod retention;
mod retention_at_size;
mod seals;
#[cfg(feature = "failpoints")]
mod stalled_append;
mod stats;
mod strangers;
mod unknown_outcome;
