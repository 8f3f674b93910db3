//! A line for each request, where that is asked for: who asked what, and how it was answered.
//!
//! Never a header and never a query: tokens and what people look for are nobody's to keep.

use std::net::IpAddr;

use axum::http::{Method, Request, StatusCode};
use clap::ValueEnum;
use tokio::time::Instant;
use tracing::info;

use super::arrival::Arrival;

/// Whether there are such lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccessLog {
    /// None.
    Off,
    /// One for each request, at level info and with the target `access`.
    On,
}

impl AccessLog {
    /// Whether there are.
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
    /// It has come.
    pub fn begin<B>(request: &Request<B>, arrival: &Arrival) -> Access {
        Access {
            client: arrival.client,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            begun: Instant::now(),
        }
    }

    /// It is answered; of a long answer, the beginning is.
    pub fn answered(self, status: StatusCode) {
        let Access { client, method, path, begun } = self;
        let took_ms = begun.elapsed().as_millis() as u64;
        info!(target: "access", %client, %method, path, status = status.as_u16(), took_ms, "request");
    }
}
