//! What the page's sign-in tells the audit: who has signed in, and who was refused. See [`crate::log::audit::notices`].

use std::net::IpAddr;

use serde_json::Value;

use super::Api;
use super::caller::Caller;
use crate::contract::audit::AuditAction;
use crate::contract::wire::Actor;
use crate::log::audit::Author;

impl Api {
    /// A caller has signed in by this route; `with` tells how.
    pub fn signed_in(&self, caller: &Caller, route: &str, with: Value) {
        self.notices.signed_in(caller.author(), route, with);
    }

    /// A proxy names this caller with each request: the first in an hour is a sign-in.
    pub fn named_by_proxy(&self, caller: &Caller, route: &str, with: Value) {
        self.notices.named_by_proxy(caller.author(), route, with);
    }

    /// Somebody was refused there; `with` tells why.
    pub fn sign_in_refused(&self, author: Author, route: &str, with: Value) {
        self.notices.refused(author, AuditAction::PageSignInRefused, route, with);
    }
}

/// Somebody whom an identity provider names, or nobody knows who.
pub fn somebody(name: Option<&str>, address: IpAddr) -> Author {
    match name {
        Some(name) => Author { actor: Actor::person(name), address: Some(address) },
        None => Author::unknown_at(address),
    }
}
