//! Checks a satellite's token against the stored digest.
//!
//! Tokens made here are random and have a fast digest. Imported satellites have bcrypt digests, which are slow on
//! purpose. Those are verified off the runtime, a few at a time ([`SlowChecks`]), and stored in the fast form after
//! their first success. Where there is no place for one, the answer says nothing about a token, only that the door is
//! busy.

use std::sync::Arc;

use deadpool_postgres::Object;
use secrecy::{ExposeSecret, SecretString};
use tracing::{info, warn};

use crate::domain::lifecycle::{SatelliteId, Session};
use crate::platform::batch_loader::BatchLoader;
use crate::platform::database::Database;
use crate::platform::token;
use crate::registry::satellites::{self, Credential};
use crate::registry::slow_checks::{Asker, Place, SlowChecks};

/// Digests replaced at once. Each may wait for a satellite's row.
const REPLACED_AT_ONCE: usize = 1;

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The token is the satellite's.
    Right {
        /// Which of the satellite's tokens it is.
        token_version: i64,
        /// The satellite's newest session.
        session: Session,
    },
    /// The token is not the satellite's, or there is no such satellite.
    Wrong,
    /// The token was not checked: too many slow checks at once.
    Busy,
}

pub struct Credentials {
    replacing: Database,
    stored: BatchLoader<Credential>,
    slow: Arc<SlowChecks>,
}

impl Credentials {
    /// Checks tokens against this database.
    pub fn new(database: Database) -> Credentials {
        let stored = BatchLoader::new(&database);
        let replacing = database.lane(REPLACED_AT_ONCE);
        Credentials { replacing, stored, slow: Arc::default() }
    }

    /// Checks a token.
    pub async fn check(
        &self,
        id: SatelliteId,
        token: &SecretString,
        asker: Asker,
    ) -> anyhow::Result<Verdict> {
        let stored = self.stored.of(id).await?;
        let digest = stored.as_ref().map(|stored| stored.digest.expose_secret());
        let right = match digest {
            Some(digest) if token::is_bcrypt(digest) => {
                let Some(mut place) = self.slow.enter(id, asker) else {
                    return Ok(Verdict::Busy);
                };
                if !place.turn().await {
                    return Ok(Verdict::Busy);
                }
                let (right, _place) =
                    verify_slowly(place, digest.to_owned(), token.clone()).await?;
                if right {
                    self.store_fast(id, digest, token).await;
                }
                right
            }
            digest => token::verify(digest, token.expose_secret()),
        };
        Ok(match stored {
            Some(stored) if right => {
                let Credential { token_version, session, .. } = stored;
                Verdict::Right { token_version, session }
            }
            _ => Verdict::Wrong,
        })
    }

    /// If this fails, the next success tries again.
    async fn store_fast(&self, id: SatelliteId, stored: &str, token: &SecretString) {
        let fast = token::Digest::of(token.expose_secret());
        let store =
            async |client: &mut Object| satellites::replace_digest(client, id, stored, &fast).await;
        match self.replacing.run(store).await {
            Ok(true) => info!(satellite = %id, "its token is stored in the fast form from now on"),
            // The token was rotated meanwhile, and the new one counts.
            Ok(false) => {}
            Err(error) => {
                warn!(satellite = %id, %error, "cannot store a token in the fast form");
            }
        }
    }
}

/// The work itself holds the place: a caller that stops waiting does not free it.
async fn verify_slowly(
    place: Place,
    stored: String,
    token: SecretString,
) -> anyhow::Result<(bool, Place)> {
    let verify = move || {
        let right = token::verify_bcrypt(&stored, token.expose_secret());
        place.is_verified();
        (right, place)
    };
    Ok(tokio::task::spawn_blocking(verify).await?)
}
