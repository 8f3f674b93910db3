//! The door, under those who mean harm.

mod door_addresses;
mod door_client_certificates;
mod door_crowd;
mod door_deadline;
mod door_limits;
mod door_readers;
mod door_slow_digests;
mod door_slow_reader;
mod door_tls;
mod hostile_input;
mod ops_listener;
