//! `triggers.list`.

use crate::contract::triggers::{self, Catalogue};

/// As `GET /v1/triggers`.
pub fn list() -> &'static Catalogue {
    &triggers::CATALOGUE
}
