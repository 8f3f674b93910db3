//! The secrets in force. Where they are in a file, another content counts without a restart.

use std::sync::{Arc, PoisonError, RwLock};

use tracing::{info, warn};

use super::signature::Secrets;

/// Reads the secrets anew. Blocking.
type Read = Box<dyn Fn() -> anyhow::Result<Secrets> + Send + Sync>;

/// See the module.
pub struct Signing {
    current: RwLock<Arc<Secrets>>,
    read: Option<Read>,
}

impl Signing {
    /// These, for ever.
    pub fn fixed(secrets: Secrets) -> Signing {
        Signing { current: RwLock::new(Arc::new(secrets)), read: None }
    }

    /// What this reads, now and later.
    pub fn followed(read: Read) -> anyhow::Result<Signing> {
        Ok(Signing { current: RwLock::new(Arc::new(read()?)), read: Some(read) })
    }

    /// Those in force.
    pub fn secrets(&self) -> Arc<Secrets> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads them anew. Where that fails those before stay in force. Blocking.
    pub fn refresh(&self) {
        let Some(read) = &self.read else { return };
        match read() {
            Ok(secrets) if secrets.are(&self.secrets()) => {}
            Ok(secrets) => {
                let count = secrets.count();
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(secrets);
                info!(count, "other secrets sign from now on");
            }
            Err(error) => {
                let error = format!("{error:#}");
                warn!(error, "the secrets before go on signing");
            }
        }
    }
}
