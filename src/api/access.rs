//! Tokens of the HTTP API and their rights.

use crate::platform::token;

/// The digests of the tokens that open `/v1`.
#[derive(Clone, Default)]
pub struct Access {
    /// May do everything.
    pub admin: token::Digests,
    /// May only read.
    pub read: token::Digests,
}
