//! Who gets into `/v1` on this pod, now: by a token of the settings, by a named one, or as a person who has signed in.
//!
//! No request asks the database whether its token is valid: a pod has the digests of all of them ([`follow`] keeps them
//! up to date). What it has of named tokens counts only while it is fresh, so that a revocation is late by no more than
//! [`MAX_AGE`] whatever lies between a pod and the database.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::caller::{Caller, Credential};
use super::people::People;
use super::person::{Person, PersonSession};
use crate::domain::access::Role;
use crate::platform::database::Database;
use crate::platform::token::{self, Digest, Digests};
use crate::registry::tokens::{Known, Version};

pub(crate) mod follow;

/// For how long named tokens count after the last look at the database: longer than a short disturbance, and much less
/// than anybody waits who has revoked one.
const MAX_AGE: Duration = Duration::from_secs(10);

/// Between two times that a pod keeps when a token was used last.
const USES_INTERVAL: Duration = Duration::from_secs(60);

/// The digests of the tokens of the settings.
#[derive(Clone, Default)]
pub struct Settings {
    /// May do everything.
    pub admin: Digests,
    /// May only read.
    pub read: Digests,
}

impl Settings {
    /// The role of a token and its digest; none if it is none of these.
    fn of(&self, token: &str) -> Option<(Role, &Digest)> {
        // Every token is compared in any case, so the time reveals nothing.
        let (admin, read) = (self.admin.find(token), self.read.find(token));
        admin.map(|digest| (Role::Admin, digest)).or(read.map(|digest| (Role::Read, digest)))
    }

    /// Signs a text for a named token. Its digest alone must not be the key: it stands in the database, and in every
    /// backup of it. The admin tokens of the settings do not, and their holders may do everything anyway. None where the
    /// settings have no admin token.
    pub fn sign(&self, named: &Digest, purpose: &str, text: &str) -> Option<[u8; 32]> {
        self.admin.first().map(|own| own.sign(purpose, &signed_by(named, purpose, text)))
    }

    /// Whether a named token's signature was made with one of these admin tokens.
    pub fn signed(&self, named: &Digest, purpose: &str, text: &str, signature: &[u8]) -> bool {
        self.admin.signer(purpose, &signed_by(named, purpose, text), signature).is_some()
    }

    /// The digests of a role's tokens; there are two roles that have any.
    pub fn digests(&self, role: Role) -> Option<&Digests> {
        match role {
            Role::Admin => Some(&self.admin),
            Role::Read => Some(&self.read),
            Role::Operator | Role::Enrol => None,
        }
    }

    /// The same, to be replaced.
    pub fn digests_mut(&mut self, role: Role) -> Option<&mut Digests> {
        match role {
            Role::Admin => Some(&mut self.admin),
            Role::Read => Some(&mut self.read),
            Role::Operator | Role::Enrol => None,
        }
    }
}

/// The signature of a named token, as text.
fn signed_by(named: &Digest, purpose: &str, text: &str) -> String {
    URL_SAFE_NO_PAD.encode(named.sign(purpose, text))
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shut {
    /// It is none that is valid here.
    Unknown,
    /// This pod cannot tell, because it could not ask the database for a while.
    NotKnownNow,
}

/// All tokens, and who gets in without one.
pub struct Access {
    settings: RwLock<Settings>,
    people: People,
    named: RwLock<Named>,
    uses: Mutex<HashMap<Uuid, Use>>,
    /// One look at a time, or an earlier one could undo what a later one found.
    looking: tokio::sync::Mutex<()>,
    database: Database,
}

/// The named tokens, and which sessions were ended, as of a look at the database.
struct Named {
    version: Version,
    tokens: Vec<Arc<Known>>,
    /// The sessions of people that were ended before their time.
    ended: HashSet<Uuid>,
    /// Right before the look.
    looked_at: Instant,
    /// What the database's clock said then, or a little later.
    clock: OffsetDateTime,
}

impl Named {
    /// Whether a token counts: it is not over, by the database's clock, and that it was not revoked is fresh.
    fn counts(&self, token: &Known) -> Result<(), Shut> {
        if token.expires_at.is_some_and(|end| end <= self.now()) {
            return Err(Shut::Unknown);
        }
        self.is_fresh()
    }

    /// The same for the session of a person.
    fn goes_on(&self, session: &PersonSession) -> Result<(), Shut> {
        if session.is_over(self.now()) || self.ended.contains(&session.id) {
            return Err(Shut::Unknown);
        }
        self.is_fresh()
    }

    /// The time, by the database's clock.
    fn now(&self) -> OffsetDateTime {
        self.clock + self.looked_at.elapsed()
    }

    fn is_fresh(&self) -> Result<(), Shut> {
        if self.looked_at.elapsed() > MAX_AGE { Err(Shut::NotKnownNow) } else { Ok(()) }
    }

    fn with_id(&self, id: Uuid) -> Option<&Arc<Known>> {
        self.tokens.iter().find(|token| token.id == id)
    }
}

/// When a token was used.
struct Use {
    last: Instant,
    /// Whether that is kept in the database.
    is_kept: bool,
    /// When this pod last kept one.
    kept_at: Option<Instant>,
}

impl Access {
    /// The caller that has this token.
    pub fn of(&self, text: &str) -> Result<Caller, Shut> {
        let setting = self
            .settings()
            .of(text)
            .map(|(role, digest)| Credential::Setting(role, digest.clone()));
        if let Some(setting) = setting {
            return Ok(setting.into());
        }
        if !token::is_whole(text) {
            return Err(Shut::Unknown);
        }
        let digest = Digest::of(text);
        let named = self.named();
        // All are compared, whichever it is, so that the time reveals nothing.
        let found = named
            .tokens
            .iter()
            .fold(None, |found, token| if token.digest.is(&digest) { Some(token) } else { found });
        self.admit(&named, found.ok_or(Shut::Unknown)?)
    }

    /// The caller of a session that a named token has opened and signed for; see [`Settings::sign`].
    pub fn signer(
        &self,
        id: Uuid,
        purpose: &str,
        text: &str,
        signature: &[u8],
    ) -> Result<Caller, Shut> {
        let (settings, named) = (self.settings(), self.named());
        let signer = named
            .with_id(id)
            .filter(|token| settings.signed(&token.digest, purpose, text, signature));
        self.admit(&named, signer.ok_or(Shut::Unknown)?)
    }

    /// The person whose session a cookie has.
    pub fn person(&self, sealed: &str) -> Result<Caller, Shut> {
        let person = self.people.open(sealed, self.now()).ok_or(Shut::Unknown)?;
        if let Some(session) = &person.session {
            self.named().goes_on(session)?;
        }
        Ok(Credential::Person(person.into()).into())
    }

    /// Who gets in without a token.
    pub fn people(&self) -> &People {
        &self.people
    }

    /// The time, by the database's clock as far as this pod knows it: all pods judge sessions by it.
    pub fn now(&self) -> OffsetDateTime {
        self.named().now()
    }

    fn admit(&self, named: &Named, token: &Arc<Known>) -> Result<Caller, Shut> {
        named.counts(token)?;
        let new = || Use { last: Instant::now(), is_kept: false, kept_at: None };
        let mut uses = self.uses();
        let used = uses.entry(token.id).or_insert_with(new);
        (used.last, used.is_kept) = (Instant::now(), false);
        Ok(Credential::Named(token.clone()).into())
    }

    /// Whether a caller who was let in still would be: what lasts longer than a request asks again. Whoever comes by a
    /// proxy is asked for again with the next request.
    pub fn is_still(&self, caller: &Caller) -> bool {
        match caller.credential() {
            Credential::Setting(role, digest) => {
                self.settings().digests(*role).is_some_and(|digests| digests.has(digest))
            }
            Credential::Named(token) => {
                let named = self.named();
                named.with_id(token.id).is_some_and(|token| named.counts(token).is_ok())
            }
            Credential::Person(person) => self.goes_on(person),
        }
    }

    fn goes_on(&self, person: &Person) -> bool {
        let session = person.session.as_ref();
        session.is_none_or(|session| self.named().goes_on(session).is_ok())
    }

    /// The tokens of the settings.
    pub fn settings(&self) -> RwLockReadGuard<'_, Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts other tokens in the place of those of a role.
    pub fn replace(&self, role: Role, digests: Digests) {
        let mut settings = self.settings.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(present) = settings.digests_mut(role) {
            *present = digests;
        }
    }

    fn named(&self) -> RwLockReadGuard<'_, Named> {
        self.named.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn uses(&self) -> MutexGuard<'_, HashMap<Uuid, Use>> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Access {
    /// These tokens, looked at now.
    pub fn made_up(settings: Settings, tokens: Vec<Known>) -> Access {
        Access::made_up_with(settings, tokens, People::default())
    }

    /// The same, with people.
    pub fn made_up_with(settings: Settings, tokens: Vec<Known>, people: People) -> Access {
        let address = crate::platform::database::Address::parse("TEST", "postgres://h/d");
        let named = Named {
            version: Version::default(),
            tokens: tokens.into_iter().map(Arc::new).collect(),
            ended: HashSet::new(),
            looked_at: Instant::now(),
            clock: OffsetDateTime::now_utc(),
        };
        Access {
            settings: RwLock::new(settings),
            people,
            named: RwLock::new(named),
            uses: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            database: address.and_then(|address| address.pool("test")).expect("a pool"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::person::PersonSessions;
    use crate::domain::groups::Groups;
    use secrecy::ExposeSecret;

    #[tokio::test(start_paused = true)]
    async fn a_person_is_in_until_its_session_ends_and_only_while_the_database_was_asked_lately() {
        let key = Digests::new(vec![Digest::of("key")]);
        let lifetime = Duration::from_secs(60);
        let people = People {
            groups: Groups { read: ["all".to_owned()].into(), ..Groups::default() },
            sessions: PersonSessions::new("https://id", "page", lifetime, &key).ok(),
            headers: None,
        };
        let access = Access::made_up_with(Settings::default(), Vec::new(), people);
        let begin = || {
            let groups = ["all".to_owned()];
            let person = access.people().begin("7", "ada", &groups, access.now());
            let session = person.and_then(|person| person.session).expect("a session");
            (session.id, access.people().seal(&session).expect("sealed").0)
        };
        let ((_, first), (id, second)) = (begin(), begin());
        let of = |sealed: &str| access.person(sealed).map(|caller| caller.role());
        let caller = access.person(&second).unwrap_or_else(|shut| panic!("{shut:?}"));
        assert_eq!((of(&first), of(&second)), (Ok(Role::Read), Ok(Role::Read)));
        access.named.write().expect("a lock").ended.insert(id);
        assert_eq!((of(&first), of(&second)), (Ok(Role::Read), Err(Shut::Unknown)));
        assert!(!access.is_still(&caller));
        tokio::time::advance(MAX_AGE + Duration::from_secs(1)).await;
        assert_eq!((of(&first), of(&second)), (Err(Shut::NotKnownNow), Err(Shut::Unknown)));
        {
            let mut named = access.named.write().expect("a lock");
            (named.clock, named.looked_at) = (named.now(), Instant::now());
        }
        assert_eq!(of(&first), Ok(Role::Read));
        tokio::time::advance(lifetime).await;
        assert_eq!(of(&first), Err(Shut::Unknown));
    }

    fn known(secret: &str, expires_at: Option<OffsetDateTime>) -> Known {
        Known {
            id: Uuid::new_v4(),
            name: "a".to_owned(),
            role: Role::Read,
            selector: Default::default(),
            digest: Digest::of(secret),
            expires_at,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_counts_until_it_is_over_and_only_while_the_database_was_asked_lately() {
        let secrets = [0, 1, 2].map(|_| token::generate_named().expect("a token"));
        let [lasting, short, unknown] = secrets.each_ref().map(|secret| secret.expose_secret());
        let end = OffsetDateTime::now_utc() + Duration::from_secs(5);
        let tokens = vec![known(lasting, None), known(short, Some(end))];
        let access = Access::made_up(Settings::default(), tokens);
        let of = |secret| access.of(secret).map(|caller| caller.role());
        let caller = access.of(lasting).unwrap_or_else(|shut| panic!("{shut:?}"));
        assert_eq!((of(lasting), of(short)), (Ok(Role::Read), Ok(Role::Read)));
        assert_eq!(of(unknown), Err(Shut::Unknown));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!((of(lasting), of(short)), (Ok(Role::Read), Err(Shut::Unknown)));
        tokio::time::advance(MAX_AGE).await;
        assert_eq!((of(lasting), of(short)), (Err(Shut::NotKnownNow), Err(Shut::Unknown)));
        assert!(!access.is_still(&caller));
        access.named.write().expect("a lock").looked_at = Instant::now();
        assert_eq!(of(lasting), Ok(Role::Read));
        assert!(access.is_still(&caller));
        access.named.write().expect("a lock").tokens.clear();
        assert!(!access.is_still(&caller));
    }
}
