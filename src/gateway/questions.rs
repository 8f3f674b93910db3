//! What a satellite asks, and the answers it gets: each a future of its own, so that no socket waits
//! for anybody. Each ends within its backend's time-out, with an answer or without one: what a backend did
//! not say of script packages is not said for it.

use std::pin::Pin;
use std::sync::Arc;

use super::backends::Backends;
use super::protocol::{Environment, ToSatellite};
use crate::assignments;
use crate::lifecycle::{SatelliteId, Session};
use crate::packages::blobs::Blob;
use crate::run_secrets::{self, Denied};

/// Questions one session may have open at once.
pub const MAX_OF_SESSION: usize = 8;

/// A question.
#[derive(Debug)]
pub enum Question {
    /// What is in the packages of this hash?
    Manifest {
        /// The hash.
        lockfile_hash: String,
    },
    /// This package, please.
    Blob {
        /// Its hash.
        integrity: String,
    },
    /// The secrets of this run, please.
    RunSecrets {
        /// What the answer is to name.
        request_id: String,
        /// Which assignment's
        config_id: String,
        /// collector is to run.
        collector_id: String,
    },
}

/// An answer under way; none where nobody gives one.
pub type Answer = Pin<Box<dyn Future<Output = Option<ToSatellite>> + Send>>;

impl Question {
    /// The answer where nobody is asked, for there are too many questions.
    pub fn turned_away(self) -> Option<ToSatellite> {
        match self {
            Question::Manifest { .. } | Question::Blob { .. } => None,
            Question::RunSecrets { request_id, .. } => {
                Some(run_secrets_answer(request_id, Err(Denied::Busy)))
            }
        }
    }

    /// Asks whoever knows. Holds one of the pod's places until it is answered.
    pub fn ask(self, backends: &Arc<Backends>, satellite: SatelliteId, session: Session) -> Answer {
        let Ok(place) = backends.questions.clone().try_acquire_owned() else {
            return Box::pin(std::future::ready(self.turned_away()));
        };
        let backends = backends.clone();
        Box::pin(async move {
            let _place = place;
            match self {
                Question::Manifest { lockfile_hash } => {
                    let entries = backends.packages.manifest(&lockfile_hash).await?;
                    Some(ToSatellite::ScriptPackageManifest { lockfile_hash, entries })
                }
                Question::Blob { integrity } => {
                    Some(match backends.packages.blob(&integrity).await? {
                        Blob::Missing => ToSatellite::ScriptPackageBlob { integrity, data: None },
                        Blob::Message(message) => ToSatellite::Ready(message),
                    })
                }
                Question::RunSecrets { request_id, config_id, collector_id } => {
                    let of = (satellite, session);
                    let environment = resolve(&backends, of, &config_id, &collector_id).await;
                    Some(run_secrets_answer(request_id, environment))
                }
            }
        })
    }
}

fn run_secrets_answer(
    request_id: String,
    environment: Result<run_secrets::Environment, Denied>,
) -> ToSatellite {
    let (env, error) = match environment {
        Ok(environment) => (Some(Environment(environment)), None),
        Err(denied) => (None, Some(denied.to_string())),
    };
    ToSatellite::RunSecrets { request_id, env, error }
}

/// Reads what is stored, not what this pod remembers: a secret is not to be had a moment too long.
async fn resolve(
    backends: &Backends,
    (satellite, session): (SatelliteId, Session),
    config_id: &str,
    collector_id: &str,
) -> Result<run_secrets::Environment, Denied> {
    let read = async |client: &mut deadpool_postgres::Object| {
        assignments::of_session(client, satellite, session).await
    };
    let stored = match backends.database.run(read).await {
        Ok(stored) => stored,
        Err(error) => {
            tracing::warn!(%satellite, %error, "cannot read assignments");
            return Err(Denied::Unavailable);
        }
    };
    let stored = stored.ok_or_else(|| Denied::NoAssignment(config_id.to_owned()))?;
    let declared = run_secrets::declared(&stored, config_id, collector_id)?;
    let values = backends.secrets.resolve(declared.names()).await?;
    declared.fill(&values)
}
