//! Checks a satellite's token against the stored digest.
//!
//! A satellite has one token, and while a rotation lets it overlap also the one before. Tokens made here are random and
//! have a fast digest. Imported satellites have bcrypt digests, which are slow on purpose. Those are verified off the
//! runtime, a few at a time ([`SlowChecks`]), and stored in the fast form after their first success. Where there is no
//! place for one, the answer says nothing about a token, only that the door is busy.

use std::sync::Arc;

use deadpool_postgres::Object;
use secrecy::{ExposeSecret, SecretString};
use tracing::{info, warn};

use crate::domain::lifecycle::{SatelliteId, Session};
use crate::platform::batch_loader::BatchLoader;
use crate::platform::database::Database;
use crate::platform::token;
use crate::registry::satellites::{self, Credential, StoredToken};
use crate::registry::slow_checks::{Asker, Place, SlowChecks};

/// Digests replaced at once. Each may wait for a satellite's row.
const REPLACED_AT_ONCE: usize = 1;

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The token is the satellite's.
    Right {
        /// The satellite's name.
        name: String,
        /// Which of the satellite's tokens it is.
        token_version: i64,
        /// The satellite's newest session.
        session: Session,
        /// The satellite is not let in all the same.
        is_disabled: bool,
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

    /// Checks a token. The fast digests are compared in any case, those of an unknown satellite too, so that the time
    /// tells nothing about them.
    pub async fn check(
        &self,
        id: SatelliteId,
        token: &SecretString,
        asker: Asker,
    ) -> anyhow::Result<Verdict> {
        let stored = self.stored.of(id).await?;
        let tokens = stored.as_ref().map_or([None, None], Credential::tokens);
        let digests = tokens.map(|stored| stored.map(|stored| stored.digest.expose_secret()));
        let fast = token::find(digests, token.expose_secret()).and_then(|nth| tokens[nth]);
        let slow = tokens.into_iter().flatten().find(|stored| stored.is_slow());
        let (Some(credential), Some(candidate)) = (&stored, fast.or(slow)) else {
            return Ok(Verdict::Wrong);
        };
        if fast.is_none() {
            let Some(right) = self.check_slowly(id, candidate, token, asker).await? else {
                return Ok(Verdict::Busy);
            };
            if !right {
                return Ok(Verdict::Wrong);
            }
            // One that is not let in is to cost no write.
            if !credential.is_disabled {
                self.store_fast(id, candidate.digest.expose_secret(), token).await;
            }
        }
        Ok(Verdict::Right {
            name: credential.name.clone(),
            token_version: candidate.version,
            session: credential.session,
            is_disabled: credential.is_disabled,
        })
    }

    /// Whether a token is the one of a slow digest; none if it was not checked.
    async fn check_slowly(
        &self,
        id: SatelliteId,
        stored: &StoredToken,
        token: &SecretString,
        asker: Asker,
    ) -> anyhow::Result<Option<bool>> {
        let Some(mut place) = self.slow.enter(id, asker) else { return Ok(None) };
        if !place.turn().await {
            return Ok(None);
        }
        let digest = stored.digest.expose_secret().to_owned();
        let (right, _place) = verify_slowly(place, digest, token.clone()).await?;
        Ok(Some(right))
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
