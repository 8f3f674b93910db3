//! The way in: accepting connections, admission, TLS, proxies, limits.

pub(crate) mod access_log;
pub(crate) mod admission;
pub(crate) mod arrival;
pub mod listener;
mod patient;
pub mod problem;
pub(crate) mod proxies;
pub(crate) mod proxy_protocol;
pub(crate) mod recent;
pub mod refusal;
pub mod settings;
pub(crate) mod tls;
