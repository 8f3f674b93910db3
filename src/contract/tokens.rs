//! The JSON of named tokens. No secret and no digest is in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::wire::{Actor, Timestamp};
use super::word::Word;
use crate::domain::access::{Role, Selector};

/// Which part of the fleet a token reaches: the satellites of which all that is named holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = TokenSelector)]
pub struct SelectorJson {
    /// Only those in this region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub region: Option<String>,
    /// Only those with all of these tags; at most 64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

impl SelectorJson {
    /// As it is told; none where it names nothing.
    pub fn told(Selector { region, tags }: Selector) -> Option<SelectorJson> {
        (region.is_some() || !tags.is_empty()).then_some(SelectorJson { region, tags })
    }
}

impl From<SelectorJson> for Selector {
    fn from(SelectorJson { region, tags }: SelectorJson) -> Selector {
        Selector { region, tags }
    }
}

/// A named token, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Token)]
pub struct TokenJson {
    /// Its id.
    pub id: Uuid,
    /// Its name: the actor of what is done with it.
    pub name: String,
    /// `admin`, `operator`, `read` or `enrol`.
    #[schema(value_type = String)]
    pub role: Word<Role>,
    /// What it reaches; absent where that is the whole fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<SelectorJson>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: Actor,
    /// From when on it opens nothing; absent where it does not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it was last used, as far as pods have said: each says it once a minute at most. Absent before its first use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
    /// How many satellites it registers yet; absent where nobody counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0)]
    pub uses_left: Option<i64>,
}
