//! What bounds the audit.

use std::time::Duration;

use anyhow::bail;
use clap::Args;

use super::span;
use crate::log::audit::retention::LEAST;

/// Keeps all of it.
const FOREVER: &str = "forever";

const NAME: &str = "GROUNDSTATION_AUDIT_RETENTION";

/// The settings of the audit.
#[derive(Args, Clone)]
pub struct AuditArgs {
    /// Drop entries of the audit once they are older than this and sealed; 30d at least, or `forever`
    #[arg(long, env = NAME, default_value = "400d", value_name = "SPAN")]
    audit_retention: String,
}

impl AuditArgs {
    /// The span that is kept; none where all of it is.
    pub(super) fn check(&self) -> anyhow::Result<Option<Duration>> {
        if self.audit_retention == FOREVER {
            return Ok(None);
        }
        let kept = span(NAME, &self.audit_retention)?;
        if kept < LEAST {
            bail!("{NAME} is {:?}: it must be 30d at least, or {FOREVER}", self.audit_retention);
        }
        Ok(Some(kept))
    }
}
