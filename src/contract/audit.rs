//! The JSON of the audit: who changed what, from where.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use strum::{EnumIter, EnumString, IntoStaticStr};
use utoipa::ToSchema;

use super::wire::{Actor, Timestamp};
use super::word::Word;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumIter, EnumString, IntoStaticStr)]
pub enum AuditAction {
    /// A satellite was registered.
    #[strum(serialize = "satellite.created")]
    SatelliteCreated,
    /// A satellite registered itself, with the token that the actor names.
    #[strum(serialize = "satellite.enrolled")]
    SatelliteEnrolled,
    /// Its name, region, tags or threshold were changed.
    #[strum(serialize = "satellite.updated")]
    SatelliteUpdated,
    /// It was removed.
    #[strum(serialize = "satellite.removed")]
    SatelliteRemoved,
    /// It was given another token.
    #[strum(serialize = "satellite.token_rotated")]
    SatelliteTokenRotated,
    /// What it is to check was replaced.
    #[strum(serialize = "satellite.assigned")]
    SatelliteAssigned,
    /// Its session was ended.
    #[strum(serialize = "satellite.kicked")]
    SatelliteKicked,
    /// It is refused from now on.
    #[strum(serialize = "satellite.disabled")]
    SatelliteDisabled,
    /// It is let in again.
    #[strum(serialize = "satellite.enabled")]
    SatelliteEnabled,
    /// It was copied from another system, for the first time or again.
    #[strum(serialize = "satellite.imported")]
    SatelliteImported,
    /// A named token was made.
    #[strum(serialize = "token.created")]
    TokenCreated,
    /// It was revoked.
    #[strum(serialize = "token.revoked")]
    TokenRevoked,
    /// A set of assignments was stored, for the first time or again.
    #[strum(serialize = "set.replaced")]
    SetReplaced,
    /// It was deleted.
    #[strum(serialize = "set.deleted")]
    SetDeleted,
    /// A maintenance window was planned.
    #[strum(serialize = "maintenance.planned")]
    MaintenancePlanned,
    /// It was ended before its time.
    #[strum(serialize = "maintenance.ended")]
    MaintenanceEnded,
    /// Somebody signed in at the page.
    #[strum(serialize = "page.signed_in")]
    PageSignedIn,
    /// Somebody tried to, and was refused.
    #[strum(serialize = "page.sign_in_refused")]
    PageSignInRefused,
    /// A request under `/v1` was refused: its token is not valid here, or may not do it.
    #[strum(serialize = "api.refused")]
    ApiRefused,
    /// So many sign-ins or refusals have no entry of their own.
    #[strum(serialize = "audit.left_out")]
    LeftOut,
}

impl AuditAction {
    /// The word.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// To what it was done.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[schema(as = AuditTarget)]
pub struct TargetJson {
    /// `satellite`, `token`, `set`, `maintenance`, `route`, or `audit` for what was left out.
    pub kind: String,
    /// The id of the satellite, of the token or of the window; the name of the set; the method and the path of the route; of
    /// what was left out whether it was of `known` callers or of `strangers`.
    pub id: String,
}

/// An entry of the audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEntry)]
pub struct AuditEntryJson {
    /// Its place: 1, 2, 3 … in the order of commits, without a gap.
    pub position: i64,
    /// When it was recorded, by the database's clock; never goes back with position.
    pub recorded_at: Timestamp,
    /// Who did it: `token`, with the name of a named token, or `admin` or `read` for those of the settings; `person`, with
    /// the name; `command`, with the user and the host of the system on which a command was run; `system` for the service;
    /// `unknown`, where nobody knows whose token it is.
    pub actor: Actor,
    /// From which address, as far as trusted proxies tell it; absent for commands on the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// What was done.
    #[schema(value_type = String)]
    pub action: Word<AuditAction>,
    /// To what.
    pub target: TargetJson,
    /// What was before, of what changed. `truncated` names fields that were too long to be kept whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub before: Option<Value>,
    /// What came of it. Of a sign-in the role and by what it was; of a refusal the status, why, and, as `times`, how often
    /// the same came in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub after: Option<Value>,
}

/// A page of the audit.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditPage)]
pub struct AuditPageJson {
    /// In the order of positions, or, with `order=desc`, the newest first.
    pub entries: Vec<AuditEntryJson>,
    /// What to pass as `after` for the entries behind these: the newest one's position, or the `after` asked with where
    /// there is none (0 with `order=desc`).
    pub next_after: i64,
    /// With `order=desc`, what to pass as `before` for the entries before these; absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_before: Option<i64>,
}
