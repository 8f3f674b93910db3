//! The JSON that outsiders see: states, transitions, satellites, payloads, times.
//!
//! Wire types live only at the boundary; everything inside works with `lifecycle.rs`'s types.
//! JSON is camelCase, times are RFC 3339 in UTC with milliseconds, fields are only ever added.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};
use strum::{EnumString, IntoStaticStr};
use thiserror::Error;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::contract::word::Word;
use crate::domain::lifecycle::{Event, Payload, Reason, State};
use crate::domain::liveness::Status;
use crate::domain::marks::Goodbye;

const RFC_3339_MS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A moment, to the millisecond. Everything stored and sent is cut to it, so that what is printed
/// is what was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub struct Timestamp(OffsetDateTime);

impl Timestamp {
    /// Cuts to the millisecond.
    pub fn new(at: OffsetDateTime) -> Timestamp {
        let at = at.to_offset(time::UtcOffset::UTC);
        let whole = at.millisecond();
        Timestamp(at.replace_millisecond(whole).unwrap_or(at))
    }

    /// The moment itself.
    pub fn moment(self) -> OffsetDateTime {
        self.0
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.0.format(RFC_3339_MS).map_err(|_| std::fmt::Error)?;
        f.write_str(&text)
    }
}

/// A text that names no moment that is told here: of four digits of a year there is no year 0, and none behind 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must be a time such as 2026-03-01T12:00:00Z, from the year 1 to the year 9999")]
pub struct NoMoment;

impl std::str::FromStr for Timestamp {
    type Err = NoMoment;

    fn from_str(text: &str) -> Result<Timestamp, NoMoment> {
        let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| NoMoment)?;
        // Its offset may bring it into another year.
        let at = at.checked_to_offset(time::UtcOffset::UTC).ok_or(NoMoment)?;
        (1..=9999).contains(&at.year()).then(|| Timestamp::new(at)).ok_or(NoMoment)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }
}

/// The state of a connection, as sent and as stored in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateJson {
    /// `online` or `offline`.
    #[schema(value_type = String)]
    pub status: Word<Status>,
    /// The satellite's name.
    pub name: String,
    /// The satellite's region.
    pub region: String,
    /// The last heartbeat, or null after a clean disconnect.
    pub last_seen_at: Option<Timestamp>,
    /// The last edge.
    #[schema(value_type = Option<String>)]
    pub last_event: Option<Word<Event>>,
    /// There, and true, while the satellite comes and goes too often.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flapping: bool,
    /// In a transition, where `flapping` is: until when, if no other edge comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flapping_until: Option<Timestamp>,
}

impl From<&State> for StateJson {
    fn from(state: &State) -> StateJson {
        StateJson {
            status: state.status.into(),
            name: state.name.clone(),
            region: state.region.clone(),
            last_seen_at: state.last_seen_at.map(Timestamp::new),
            last_event: state.last_event.map(Word::Known),
            flapping: state.flapping_until.is_some(),
            flapping_until: state.flapping_until.map(Timestamp::new),
        }
    }
}

impl From<StateJson> for State {
    /// A word that this version does not know becomes "offline" or "no last event": neither fires.
    fn from(json: StateJson) -> State {
        State {
            status: json.status.known().unwrap_or(Status::Offline),
            name: json.name,
            region: json.region,
            last_seen_at: json.last_seen_at.map(Timestamp::moment),
            last_event: json.last_event.and_then(|event| event.known()),
            flapping_until: json.flapping_until.map(Timestamp::moment),
        }
    }
}

/// Who caused a transition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Actor {
    /// `system`; `token` for a call of the administration API with a token; `person` for one of somebody who signed in by
    /// name.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: Word<ActorKind>,
    /// Which one: `system`, the name of a named token, or `admin` for the admin token of the settings, never the token; or
    /// what the identity provider or the proxy calls the person.
    pub id: String,
}

/// The kind of an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum ActorKind {
    /// The service, or a command of its operators.
    System,
    /// A call of the administration API.
    Token,
    /// Somebody whom an identity provider or an authenticating proxy names.
    Person,
    /// Somebody who ran a command on the database. Only in the audit.
    Command,
    /// Nobody knows who. Only in the audit.
    Unknown,
}

/// What the admin token of the settings is called; no named token is called so.
pub const ADMIN: &str = "admin";

/// What the read token of the settings is called, where it was refused; no named token is called so.
pub const READER: &str = "read";

impl Actor {
    /// The service itself.
    pub fn system() -> Actor {
        Actor::of(ActorKind::System, "system")
    }

    /// The import from Checkstack.
    pub fn checkstack_import() -> Actor {
        Actor::of(ActorKind::System, "import checkstack")
    }

    /// `groundstation dev`, which makes up a past.
    pub fn demonstration() -> Actor {
        Actor::of(ActorKind::System, "demonstration")
    }

    /// The holder of the admin token of the settings.
    pub fn admin() -> Actor {
        Actor::of(ActorKind::Token, ADMIN)
    }

    /// The holder of the read token of the settings.
    pub fn reader() -> Actor {
        Actor::of(ActorKind::Token, READER)
    }

    /// Whoever ran a command, such as `ada@host`.
    pub fn command(who: &str) -> Actor {
        Actor::of(ActorKind::Command, who)
    }

    /// Nobody knows who.
    pub fn unknown() -> Actor {
        Actor::of(ActorKind::Unknown, "unknown")
    }

    /// The holder of a named token.
    pub fn token(name: &str) -> Actor {
        Actor::of(ActorKind::Token, name)
    }

    /// Somebody who is known by name.
    pub fn person(name: &str) -> Actor {
        Actor::of(ActorKind::Person, name)
    }

    fn of(kind: ActorKind, id: &str) -> Actor {
        Actor { kind: kind.into(), id: id.to_owned() }
    }
}

/// What an agent says before it closes its connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GoodbyeJson {
    /// Why it goes, at most 200 characters.
    pub reason: String,
    /// Within how many milliseconds it means to be back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_within_ms: Option<u64>,
}

impl From<&Goodbye> for GoodbyeJson {
    fn from(goodbye: &Goodbye) -> GoodbyeJson {
        let within = goodbye.back_within.map(|within| within.as_millis());
        GoodbyeJson {
            reason: goodbye.reason.clone(),
            back_within_ms: within.map(|within| u64::try_from(within).unwrap_or(u64::MAX)),
        }
    }
}

impl From<GoodbyeJson> for Goodbye {
    fn from(json: GoodbyeJson) -> Goodbye {
        Goodbye { reason: json.reason, back_within: json.back_within_ms.map(Duration::from_millis) }
    }
}

/// A transition, as read from the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransitionJson {
    /// Its place in the whole log.
    pub position: i64,
    /// Its place among those of its satellite.
    pub revision: i64,
    /// Its identity, made before it was first tried.
    pub change_id: Uuid,
    /// What kind of entity changed.
    pub kind: String,
    /// The satellite.
    pub id: Uuid,
    /// What happened.
    #[schema(value_type = String)]
    pub event: Word<Event>,
    /// Why.
    #[schema(value_type = String)]
    pub reason: Word<Reason>,
    /// In which session.
    pub session: i64,
    /// The state before, or null for a first edge.
    pub prev: Option<StateJson>,
    /// The state after, or null for a removal.
    pub next: Option<StateJson>,
    /// The fields that changed, with their new values.
    #[schema(value_type = Object)]
    pub delta: Map<String, Value>,
    /// Their names.
    pub changed_fields: Vec<String>,
    /// Who caused it.
    pub actor: Actor,
    /// The outage it is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outage_id: Option<Uuid>,
    /// The maintenance window that its satellite was in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_id: Option<Uuid>,
    /// What the agent said before it closed its connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goodbye: Option<GoodbyeJson>,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// When the log took it; never goes back with position.
    pub recorded_at: Timestamp,
}

/// The fields in which `next` differs from `prev`, with their new values; all of them for a first
/// edge, none for a removal.
pub fn delta(prev: Option<&StateJson>, next: Option<&StateJson>) -> Vec<(String, Value)> {
    let Some(next) = next else {
        return Vec::new();
    };
    let before = prev.map(fields);
    let is_told = |(i, field): &(usize, (&str, Value))| match &before {
        Some(before) => before[*i] != *field,
        // The mark is only sent if it is set.
        None => ![("flapping", Value::Bool(false)), ("flappingUntil", Value::Null)].contains(field),
    };
    fields(next)
        .into_iter()
        .enumerate()
        .filter(is_told)
        .map(|(_, (name, value))| (name.to_owned(), value))
        .collect()
}

fn fields(state: &StateJson) -> [(&'static str, Value); 7] {
    let time = |at: Option<Timestamp>| at.map_or(Value::Null, |at| Value::from(at.to_string()));
    [
        ("status", Value::from(state.status.as_str())),
        ("name", Value::from(state.name.as_str())),
        ("region", Value::from(state.region.as_str())),
        ("lastSeenAt", time(state.last_seen_at)),
        ("lastEvent", state.last_event.as_ref().map_or(Value::Null, |event| event.as_str().into())),
        ("flapping", Value::from(state.flapping)),
        ("flappingUntil", time(state.flapping_until)),
    ]
}

/// A satellite, as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SatelliteJson {
    /// The satellite, and its agent's `clientId`.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// What its agent said it can do.
    pub capabilities: Vec<String>,
    /// Its agent's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `online` or `offline`, at the moment of the read.
    #[schema(value_type = String)]
    pub status: Word<Status>,
    /// The last heartbeat; of a satellite that its pod vouches for a proven lower bound, at most the vouch window old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heartbeat_at: Option<Timestamp>,
    /// The last heartbeat, or null after a clean disconnect.
    pub last_seen_at: Option<Timestamp>,
    /// The last edge; absent while it has never connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub last_event: Option<Word<Event>>,
    /// There, and true, while it comes and goes too often.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flapping: bool,
    /// There, and true, while an administrator has it refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
    /// The maintenance window that it is in, if it is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<InMaintenanceJson>,
    /// Its own offline threshold, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline_threshold_ms: Option<i64>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// What another system last knew of it, if it was copied from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<ImportedJson>,
}

impl SatelliteJson {
    /// Whether it was online at the moment of the read.
    pub fn is_online(&self) -> bool {
        self.status == Status::Online
    }
}

/// The window that a satellite is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = InMaintenance)]
pub struct InMaintenanceJson {
    /// The window; of several the one that began first.
    pub id: Uuid,
    /// Why it was planned.
    pub reason: String,
    /// When it ends.
    pub until: Timestamp,
}

/// What another system knew of a satellite: that system's edge and heartbeat, none of this log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImportedJson {
    /// Its last edge there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub last_event: Option<Word<Event>>,
    /// Its last heartbeat there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heartbeat_at: Option<Timestamp>,
    /// When it was last copied.
    pub imported_at: Timestamp,
}

/// The body of a message on the bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PayloadJson {
    /// The body of a trigger.
    Edge(EdgeJson),
    /// The body of the cleanup signal.
    Removed(RemovedJson),
}

/// The body of a trigger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeJson {
    /// The satellite.
    pub satellite_id: Uuid,
    /// The satellite's name.
    pub name: String,
    /// The satellite's region.
    pub region: String,
    /// Whether the satellite is there now.
    #[schemars(with = "String", extend("enum" = ["online", "offline"]))]
    pub status: Word<Status>,
    /// The last heartbeat, or null after a clean disconnect.
    pub last_seen_at: Option<Timestamp>,
}

/// The body of the cleanup signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemovedJson {
    /// The satellite.
    pub satellite_id: Uuid,
}

impl From<Payload<'_>> for PayloadJson {
    fn from(payload: Payload<'_>) -> PayloadJson {
        match payload {
            Payload::Edge { satellite, state } => PayloadJson::Edge(EdgeJson {
                satellite_id: satellite.0,
                name: state.name.clone(),
                region: state.region.clone(),
                status: state.status.into(),
                last_seen_at: state.last_seen_at.map(Timestamp::new),
            }),
            Payload::Removed { satellite } => {
                PayloadJson::Removed(RemovedJson { satellite_id: satellite.0 })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::lifecycle::trigger;
    use serde_json::json;
    use time::macros::datetime;

    fn state(status: &str, last_seen_at: Option<Timestamp>, last_event: &str) -> StateJson {
        StateJson {
            status: Word::read(status),
            name: "edge-eu".to_owned(),
            region: "eu".to_owned(),
            last_seen_at,
            last_event: Some(Word::read(last_event)),
            flapping: false,
            flapping_until: None,
        }
    }

    #[test]
    fn times_are_utc_with_exactly_three_digits() {
        let cases = [
            (datetime!(2026-03-01 12:00:00 UTC), "2026-03-01T12:00:00.000Z"),
            (datetime!(2026-03-01 12:00:00.123_999_999 UTC), "2026-03-01T12:00:00.123Z"),
            (datetime!(2026-03-01 12:00:00.5 +2), "2026-03-01T10:00:00.500Z"),
        ];
        for (at, text) in cases {
            assert_eq!(Timestamp::new(at).to_string(), text);
            assert_eq!(text.parse::<Timestamp>().expect("parses"), Timestamp::new(at));
        }
        for (text, is_told) in [
            ("yesterday", false),
            ("0000-12-31T23:59:59.999Z", false),
            ("0001-01-01T00:00:00Z", true),
            ("0001-01-01T00:00:00+00:01", false),
            ("0000-12-31T23:59:00-00:01", true),
            ("9999-12-31T23:59:59.999Z", true),
            ("9999-12-31T23:59:59-00:01", false),
            ("-001-01-01T00:00:00Z", false),
            ("10000-01-01T00:00:00Z", false),
        ] {
            assert_eq!(text.parse::<Timestamp>().is_ok(), is_told, "{text}");
        }
    }

    #[test]
    fn the_delta_of_a_change_names_what_changed_in_the_order_of_the_state() {
        let now = Timestamp::new(datetime!(2026-03-01 12:00:00 UTC));
        let away = state("offline", None, "disconnected");
        let here = state("online", Some(now), "connected");
        let changed = delta(Some(&away), Some(&here));
        let names: Vec<_> = changed.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["status", "lastSeenAt", "lastEvent"]);
        assert_eq!(changed[1].1, json!("2026-03-01T12:00:00.000Z"));
        assert_eq!(delta(None, Some(&here)).len(), 5);
        assert_eq!(delta(Some(&here), None), []);
        assert_eq!(delta(Some(&here), Some(&here)), []);
    }

    #[test]
    fn payloads_have_exactly_the_fields_of_the_contract() {
        let edge = PayloadJson::Edge(EdgeJson {
            satellite_id: Uuid::nil(),
            name: "a".to_owned(),
            region: "eu".to_owned(),
            status: Status::Offline.into(),
            last_seen_at: None,
        });
        assert_eq!(
            serde_json::to_value(edge).expect("json"),
            json!({"satelliteId": Uuid::nil(), "name": "a", "region": "eu",
                   "status": "offline", "lastSeenAt": null})
        );
        let removed = PayloadJson::Removed(RemovedJson { satellite_id: Uuid::nil() });
        assert_eq!(
            serde_json::to_value(removed).expect("json"),
            json!({"satelliteId": Uuid::nil()})
        );
    }

    #[test]
    fn words_of_a_later_version_are_passed_on_and_fire_nothing() {
        let later = json!({"status": "degraded", "name": "edge-eu", "region": "eu",
                           "lastSeenAt": null, "lastEvent": "rebooted"});
        let json: StateJson = serde_json::from_value(later.clone()).expect("a state");
        assert_eq!(serde_json::to_value(&json).expect("json"), later);
        let told: Map<String, Value> = delta(None, Some(&json)).into_iter().collect();
        assert_eq!((&told["status"], &told["lastEvent"]), (&later["status"], &later["lastEvent"]));
        let state = State::from(json);
        assert_eq!((state.status, state.last_event), (Status::Offline, None));
        assert_eq!(trigger(Some(&state)), None);
    }

    #[test]
    fn a_state_without_a_last_event_fires_nothing() {
        let json = json!({"status": "online", "name": "a", "region": "eu", "lastSeenAt": null});
        let json: StateJson = serde_json::from_value(json).expect("a state");
        assert_eq!(trigger(Some(&State::from(json))), None);
    }

    #[test]
    fn who_caused_it_is_told_in_the_words_of_the_contract() {
        for (actor, kind, id) in [
            (Actor::system(), "system", "system"),
            (Actor::admin(), "token", "admin"),
            (Actor::checkstack_import(), "system", "import checkstack"),
        ] {
            let json = serde_json::to_value(&actor).expect("json");
            assert_eq!(json, json!({"type": kind, "id": id}));
        }
        let later = json!({"type": "operator", "id": "anna"});
        let actor: Actor = serde_json::from_value(later.clone()).expect("an actor");
        assert_eq!(serde_json::to_value(actor).expect("json"), later);
    }
}
