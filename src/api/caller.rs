//! The caller of a request: with which token or as which person it comes, what that allows, and who it is in the records.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use uuid::Uuid;

use super::person::Person;
use super::problem::Problem;
use crate::contract::wire::Actor;
use crate::domain::access::{Role, Selector};
use crate::log::audit::Author;
use crate::platform::token::Digest;
use crate::registry::authority::Authority;
use crate::registry::tokens::Known;

/// The whole fleet.
pub static EVERYTHING: Selector = Selector { region: None, tags: BTreeMap::new() };

/// Whoever holds a token that is valid now, or is signed in by name. [`super::authorization`] gives one to each request
/// that it lets through, and handlers take what they may show from it.
#[derive(Clone)]
pub struct Caller {
    credential: Credential,
    /// From where it calls, as far as trusted proxies tell it.
    address: Option<IpAddr>,
}

/// Which token it is, or who.
#[derive(Clone)]
pub enum Credential {
    /// One of the settings, of this role.
    Setting(Role, Digest),
    /// A named one.
    Named(Arc<Known>),
    /// None: a person.
    Person(Arc<Person>),
}

impl From<Credential> for Caller {
    fn from(credential: Credential) -> Caller {
        Caller { credential, address: None }
    }
}

impl Caller {
    /// The token, or the person.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// What it is for.
    pub fn role(&self) -> Role {
        match &self.credential {
            Credential::Setting(role, _) => *role,
            Credential::Named(token) => token.role,
            Credential::Person(person) => person.role,
        }
    }

    /// What it reaches. Whatever selects satellites takes this into account.
    pub fn selector(&self) -> &Selector {
        match &self.credential {
            Credential::Setting(..) => &EVERYTHING,
            Credential::Named(token) => &token.selector,
            Credential::Person(person) => &person.selector,
        }
    }

    /// Its name, if it has one.
    pub fn name(&self) -> Option<&str> {
        match &self.credential {
            Credential::Setting(..) => None,
            Credential::Named(token) => Some(&token.name),
            Credential::Person(person) => Some(&person.name),
        }
    }

    /// The id of its token, if that is a named one.
    pub fn token_id(&self) -> Option<Uuid> {
        match &self.credential {
            Credential::Setting(..) => None,
            Credential::Named(token) => Some(token.id),
            Credential::Person(_) => None,
        }
    }

    /// What keeps its keys apart from those of others: the digest of its token, or for a person that of the name.
    pub fn digest(&self) -> Digest {
        match &self.credential {
            Credential::Setting(_, digest) => digest.clone(),
            Credential::Named(token) => token.digest.clone(),
            Credential::Person(person) => Digest::of(&format!("person {}", person.name)),
        }
    }

    /// The same, calling from this address.
    pub fn at(self, address: IpAddr) -> Caller {
        Caller { address: Some(address), ..self }
    }

    /// Who it is in the audit of what it changes.
    pub fn author(&self) -> Author {
        Author { actor: self.actor(), address: self.address }
    }

    /// With what authority it changes a satellite.
    pub fn authority(&self) -> Authority {
        Authority { author: self.author(), selector: self.selector().clone() }
    }

    /// Who it is in the records of what it changes.
    pub fn actor(&self) -> Actor {
        match &self.credential {
            Credential::Setting(Role::Read, _) => Actor::reader(),
            Credential::Setting(..) => Actor::admin(),
            Credential::Named(token) => Actor::token(&token.name),
            Credential::Person(person) => Actor::person(&person.name),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Caller, Problem> {
        // Only a route that nobody guards has none: it must not answer.
        let caller = parts.extensions.get::<Caller>().cloned();
        caller
            .ok_or_else(|| Problem::unauthorized("Send the header Authorization: Bearer <token>."))
    }
}
