//! Promises, each held against real servers, real pods and real sockets: one file a promise.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod harness;

mod administrators_tokens;
mod an_edge_reaches_the_subscriber;
mod append_only;
mod as_of;
mod asking_commands;
mod assignments;
mod asyncapi;
mod audit;
mod authentication;
mod bad_frames;
mod blind_time;
mod brown_out;
mod checker;
#[cfg(target_os = "linux")]
mod clocks;
mod commands;
mod completeness;
mod compromised_pod;
mod conditions;
mod connect_budget;
mod cursors;
mod deploy;
mod dev_command;
mod disk_full;
mod door_addresses;
mod door_crowd;
mod door_deadline;
mod door_limits;
mod door_readers;
mod door_slow_reader;
mod door_tls;
mod drain;
mod event_schemas;
mod examples;
mod failover;
mod flapping;
mod fleet_commands;
mod fleet_filters;
mod fleet_timeline;
mod foreign_agent;
mod going_silent;
mod heartbeats;
mod held_back;
mod hostile_input;
mod http_api;
mod http_manners;
mod idempotency;
mod import_checkstack;
mod large_messages;
mod late_heartbeats;
mod least_privilege;
mod live_stream;
mod locked_rows;
mod log_lock;
mod long_transactions;
mod lookups;
mod many_at_once;
#[cfg(feature = "failpoints")]
mod many_due;
mod message_schemas;
mod metrics;
mod micro;
mod migrations;
mod nats_away;
mod nats_tls;
mod nemesis;
mod newer_agents;
mod newest_first;
mod openapi;
mod openapi_stays;
mod ops_listener;
mod outage;
mod packaging;
mod question_queue;
mod races;
mod read_only;
mod reads;
mod rebuild;
mod registry_history;
mod relay;
mod relay_among_others;
mod relay_cluster;
mod relay_contradictions;
mod relay_idle;
#[cfg(feature = "failpoints")]
mod relay_killed;
mod removal;
mod replay;
mod restore_drill;
mod results;
mod results_share;
mod retention;
mod rolling_restart;
mod rooms;
mod run_secrets;
mod script_packages;
mod seals;
mod secrets_stay_inside;
#[cfg(feature = "failpoints")]
mod session_panics;
mod settings_are_documented;
mod simulator;
mod slow_reader;
mod sql_agrees_with_rust;
#[cfg(feature = "failpoints")]
mod stale_relay;
#[cfg(feature = "failpoints")]
mod stalled_append;
mod starting;
mod stats;
mod storm;
mod strangers;
#[cfg(target_os = "linux")]
mod suspended_machine;
mod takeover;
mod thresholds;
mod token_life;
mod traces;
mod triggers;
mod unknown_outcome;
mod vouching;
