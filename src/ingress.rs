//! The way in: accepting connections, whom to let through, TLS, proxies, limits.

pub mod access_log;
pub mod admission;
pub mod arrival;
pub mod bucket;
pub mod listener;
pub mod log_gate;
mod patient;
pub mod proxies;
pub mod proxy_protocol;
pub mod recent;
pub mod refusal;
pub mod settings;
pub mod tls;
