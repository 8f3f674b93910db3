//! What is configured of an identity provider, checked.

use std::path::PathBuf;

use secrecy::SecretString;

use crate::platform::token::Digests;

/// Where the provider sends people back to, below the address of this service.
pub const CALLBACK: &str = "/console/session/oidc/callback";

/// An identity provider that speaks OpenID Connect.
#[derive(Clone)]
pub struct Settings {
    /// Who it is, as its tokens say.
    pub issuer: String,
    /// As what it knows this service.
    pub client: String,
    /// By what this service proves that; none for a public client.
    pub secret: Option<SecretString>,
    /// Where it sends people back to.
    pub redirect_url: String,
    /// What it is asked for.
    pub scopes: Vec<String>,
    /// Which claim has a person's groups.
    pub groups_claim: String,
    /// Which claim has a person's name.
    pub name_claim: String,
    /// What the page calls it.
    pub name: String,
    /// The keys of cookies, from secrets that all pods share.
    pub keys: Digests,
    /// The certificates that vouch for it.
    pub roots: Option<PathBuf>,
}
