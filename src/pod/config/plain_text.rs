//! Warnings about passwords, tokens and secrets that would travel in plain text to or from another
//! machine.
//!
//! Nothing is refused for it: a network may be trusted, or a proxy may do the TLS. The pod warns
//! once, at the start.

use crate::pod::config::Config;

/// One line for each connection on which others could read a secret.
pub fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(host) = config.database.in_plain_text() {
        warnings.push(format!(
            "DATABASE_URL: the password can travel in plain text to {host}: add sslmode=verify-full"
        ));
    }
    if let Some(host) = config.nats.in_plain_text() {
        warnings.push(format!(
            "NATS_URL: credentials, secrets and results can travel in plain text to {host}: use tls://, or \
             set NATS_CA"
        ));
    }
    if !config.listen.ip().is_loopback() && config.door.tls.is_none() {
        warnings.push(format!(
            "GROUNDSTATION_LISTEN: tokens and secrets travel in plain text to {}, unless a proxy before it \
             speaks TLS: set GROUNDSTATION_TLS_CERT and GROUNDSTATION_TLS_KEY",
            config.listen
        ));
    }
    warnings
}
