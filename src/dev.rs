//! A private Postgres and a private nats-server, and `groundstation dev`.

mod staging;
pub mod stores;
mod supervised;
pub mod tools;
