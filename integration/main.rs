//! Promises, each held against real servers, real pods and real sockets: one file a promise, in the rooms of `src/`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod api;
mod cli;
mod clients;
mod console;
mod contract;
mod dev;
mod domain;
mod drills;
mod forward;
mod gateway;
mod harness;
mod ingress;
mod log;
mod nemesis;
mod platform;
mod pod;
mod presence;
mod project;
mod registry;
mod sessions;
mod stream;
