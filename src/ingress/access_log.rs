//! A log line for each request, if it is switched on: client, path and answer.
//!
//! Headers and queries are never logged: they hold tokens and what people search for.

use std::net::IpAddr;

use axum::http::{Method, Request, StatusCode};
use clap::ValueEnum;
use tokio::time::Instant;
use tracing::info;

use super::arrival::Arrival;

/// Whether requests are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccessLog {
    /// No lines.
    Off,
    /// One for each request, at level info and with the target `access`.
    On,
}

impl AccessLog {
    /// Whether it is on.
    pub fn is_on(self) -> bool {
        self == AccessLog::On
    }
}

/// A request that is being answered.
pub struct Access {
    client: IpAddr,
    method: Method,
    path: String,
    begun: Instant,
}

impl Access {
    /// Begins with the request's arrival.
    pub fn begin<B>(request: &Request<B>, arrival: &Arrival) -> Access {
        Access {
            client: arrival.client,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            begun: Instant::now(),
        }
    }

    /// Logs the answer; a long answer when it begins.
    pub fn answered(self, status: StatusCode) {
        let Access { client, method, path, begun } = self;
        let took_ms = begun.elapsed().as_millis() as u64;
        info!(target: "access", %client, %method, path, status = status.as_u16(), took_ms, "request");
    }
}
