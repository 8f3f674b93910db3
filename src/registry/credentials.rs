//! Checks a satellite's token against the stored digest.
//!
//! Tokens made here are random and have a fast digest. Imported satellites have bcrypt digests, which are slow on
//! purpose. Those are verified off the runtime, a few at a time, and stored in the fast form after their first
//! success. Beyond the bounds, one for all and one for each satellite, the answer says nothing about a token, only that
//! the door is busy.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deadpool_postgres::Object;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use crate::domain::lifecycle::{SatelliteId, Session};
use crate::platform::batch_loader::BatchLoader;
use crate::platform::database::Database;
use crate::platform::token;
use crate::registry::satellites::{self, Credential};

/// Slow verifications that run at once. Each takes a core.
const SLOW_AT_ONCE: usize = 2;

/// Slow verifications that run or wait; more are turned away. Each takes tens of milliseconds, so all of them are
/// done before an agent gives up.
const SLOW_WAITING: usize = 32;

/// The most of those of one satellite. A stranger that knows its id can fill these for as long as it likes, from however
/// many addresses; it then keeps out that satellite and no other. An agent itself has one, or two if it comes back
/// before it was answered.
const SLOW_OF_ONE: usize = 4;

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
    places: Arc<Places>,
    cores: Arc<Semaphore>,
}

impl Credentials {
    /// Checks tokens against this database.
    pub fn new(database: Database) -> Credentials {
        let (places, cores) = (Arc::default(), Semaphore::new(SLOW_AT_ONCE));
        let stored = BatchLoader::new(&database);
        let replacing = database.lane(REPLACED_AT_ONCE);
        Credentials { replacing, stored, places, cores: Arc::new(cores) }
    }

    /// Checks a token.
    pub async fn check(&self, id: SatelliteId, token: &SecretString) -> anyhow::Result<Verdict> {
        let stored = self.stored.of(id).await?;
        let digest = stored.as_ref().map(|stored| stored.digest.expose_secret());
        let right = match digest {
            Some(digest) if token::is_bcrypt(digest) => {
                let Some(place) = self.places.take(id) else {
                    return Ok(Verdict::Busy);
                };
                let verified = self.verify_slowly(place, digest.to_owned(), token.clone());
                let (right, _place) = verified.await?;
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

    /// The work itself holds core and place: a caller that stops waiting does not free them.
    async fn verify_slowly(
        &self,
        place: Place,
        stored: String,
        token: SecretString,
    ) -> anyhow::Result<(bool, Place)> {
        let core = self.cores.clone().acquire_owned().await?;
        let verify = move || {
            let right = token::verify_bcrypt(&stored, token.expose_secret());
            drop(core);
            (right, place)
        };
        Ok(tokio::task::spawn_blocking(verify).await?)
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

/// How many slow verifications of each satellite run or wait.
#[derive(Default)]
struct Places(Mutex<HashMap<SatelliteId, usize>>);

impl Places {
    /// A place for one of this satellite, where there is one.
    fn take(self: &Arc<Self>, id: SatelliteId) -> Option<Place> {
        let mut taken = self.lock();
        let of_this = taken.get(&id).copied().unwrap_or(0);
        if of_this >= SLOW_OF_ONE || taken.values().sum::<usize>() >= SLOW_WAITING {
            return None;
        }
        taken.insert(id, of_this + 1);
        Some(Place { places: self.clone(), id })
    }

    /// Valid after a panic elsewhere: nothing here can panic halfway.
    fn lock(&self) -> MutexGuard<'_, HashMap<SatelliteId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one verification, until dropped.
struct Place {
    places: Arc<Places>,
    id: SatelliteId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(of_this) = taken.get_mut(&self.id) {
            *of_this -= 1;
            if *of_this == 0 {
                taken.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> SatelliteId {
        SatelliteId(uuid::Uuid::from_u128(n as u128))
    }

    #[test]
    fn one_satellite_has_a_few_places_and_the_others_theirs() {
        let places = Arc::<Places>::default();
        let take = |n| std::iter::from_fn(|| places.take(id(n))).collect::<Vec<Place>>();
        let mut of_one = take(1);
        assert_eq!(of_one.len(), SLOW_OF_ONE);
        let of_others: Vec<Place> = (2..100).flat_map(take).collect();
        assert_eq!(of_one.len() + of_others.len(), SLOW_WAITING);
        assert!(places.take(id(1_000)).is_none(), "no place is left for anybody");
        drop(of_one.pop());
        assert!(places.take(id(1_000)).is_some());
        assert!(places.take(id(1)).is_some(), "it was given back");
        drop((of_one, of_others));
        assert!(places.lock().is_empty(), "nothing is remembered");
    }
}
