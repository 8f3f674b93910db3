//! Tokens of the HTTP API and their rights.

use strum::{EnumString, IntoStaticStr};

use crate::platform::token;

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    /// Everything.
    Admin,
    /// Only GET and HEAD.
    Read,
}

impl Role {
    /// The word used on the wire and in logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The digests of the tokens that open `/v1`.
#[derive(Clone, Default)]
pub struct Access {
    /// May do everything.
    pub admin: token::Digests,
    /// May only read.
    pub read: token::Digests,
}

impl Access {
    /// The role of a token and its digest; none if it is not valid here.
    pub fn of(&self, token: &str) -> Option<(Role, &token::Digest)> {
        // Every token is compared in any case, so the time reveals nothing.
        let (admin, read) = (self.admin.find(token), self.read.find(token));
        admin.map(|digest| (Role::Admin, digest)).or(read.map(|digest| (Role::Read, digest)))
    }

    /// The digests of a role's tokens.
    pub fn digests(&self, role: Role) -> &token::Digests {
        match role {
            Role::Admin => &self.admin,
            Role::Read => &self.read,
        }
    }
}
