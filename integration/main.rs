//! Promises, each held against real servers, real pods and real sockets: one file a promise.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod harness;

mod an_edge_reaches_the_subscriber;
mod as_of;
mod authentication;
mod bad_frames;
mod going_silent;
mod heartbeats;
mod rebuild;
mod removal;
mod stats;
mod takeover;
