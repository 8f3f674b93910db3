//! The satellites' messages, as the agent of Checkstack 0.5 sends and expects them, and those messages of
//! later versions (to 0.9) that need an answer.
//!
//! Each text frame is one JSON object with a `type`. Unknown fields are ignored.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::de::value::MapDeserializer;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use strum::IntoStaticStr;
use uuid::Uuid;

use crate::contract::assignments::Assignment;
use crate::gateway::backends::packages::{Desired, Package};
use crate::gateway::backends::run_secrets;

/// The most capabilities a satellite may name, and the most characters of each.
const MAX_CAPABILITIES: usize = 64;
const MAX_WORD: usize = 200;

/// The most characters of a text that is meant for people.
const MAX_TEXT: usize = 16 * 1024;

/// The most fields of a message, known or not. Each costs memory of its own, and a large message could have
/// millions.
const MAX_FIELDS: usize = 1_000;

/// The most bytes of a field that is parsed. A check's findings may be larger; they are only passed on.
const MAX_FIELD_BYTES: usize = 256 * 1024;

/// The reason in `auth_failed` when the first message is not `authenticate`.
pub const MUST_AUTHENTICATE: &str = "Must authenticate first";

/// The reason in `auth_failed` for an unknown id and for a wrong token alike.
pub const INVALID_CREDENTIALS: &str = "Invalid client ID or token";

/// The reason in `auth_failed` where the token is right and the satellite disabled, and in the `shutdown` of a session
/// that ends for it. Whoever has no token of the satellite does not learn it.
pub const DISABLED: &str = "Satellite is disabled";

/// A message from a satellite.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum FromSatellite {
    /// The first message of a connection.
    Authenticate {
        /// The satellite's id, as text: a malformed one is refused like an unknown one.
        client_id: String,
        /// Its token.
        #[schemars(with = "String")]
        token: SecretString,
        /// The agent's capabilities.
        #[schemars(with = "Option<Vec<String>>")]
        capabilities: Option<Said<Vec<String>>>,
    },
    /// A sign of life.
    Heartbeat {
        /// The agent's version.
        #[schemars(with = "Option<String>")]
        version: Option<Said<String>>,
        /// How long the agent has been running.
        #[schemars(with = "Option<f64>")]
        uptime_seconds: Option<Said<f64>>,
        /// The agent's capabilities, if they changed.
        #[schemars(with = "Option<Vec<String>>")]
        capabilities: Option<Said<Vec<String>>>,
    },
    /// The result of a check.
    Result {
        /// The config of its assignment.
        config_id: String,
        /// The system of its assignment.
        system_id: String,
        /// The status of the checked system.
        status: CheckStatus,
        /// How long the check took, in milliseconds.
        latency_ms: Option<f64>,
        /// The check's findings.
        #[schemars(with = "Option<Map<String, Value>>")]
        result: Option<AnyObject>,
        /// When the check was executed.
        executed_at: String,
    },
    /// A strategy of the agent failed.
    StrategyError {
        /// The strategy.
        strategy_id: String,
        /// What went wrong.
        message: String,
    },
    /// How far the agent is in fetching script packages.
    ScriptPackageSyncState {
        /// The hash of the packages.
        lockfile_hash: Option<String>,
        /// How far it is.
        status: SyncStatus,
        /// What went wrong.
        error_message: Option<String>,
    },
    /// Asks for a manifest of script packages.
    RequestScriptPackageManifest {
        /// The hash of the packages.
        lockfile_hash: String,
    },
    /// Asks for one script package.
    RequestScriptPackageBlob {
        /// The package's hash.
        integrity: String,
    },
    /// Asks for the secrets of a run.
    RequestRunSecrets {
        /// The id that the answer names.
        request_id: String,
        /// The config of the assignment.
        config_id: String,
        /// The collector.
        collector_id: String,
        /// The run; only for people.
        run_id: String,
    },
    /// An agent of a later version asks for the secrets in an assignment's configuration.
    RequestConfigSecrets {
        /// The id that the answer names.
        request_id: String,
        /// The config of the assignment.
        config_id: String,
        /// The run; only for people.
        run_id: Option<String>,
    },
    /// An agent of a later version asks for the secrets that one of its capabilities needs.
    CapabilitySecretRequest {
        /// The id that the answer names.
        request_id: String,
        /// The kind of capability.
        kind: String,
    },
    /// An agent of a later version passes on telemetry that it has collected. Its content is not parsed here.
    TelemetryBatch {
        /// The id that the acknowledgement names.
        batch_id: String,
        /// The kind of telemetry.
        kind: String,
    },
    /// An agent of a later version reports the state of a capability.
    CapabilityStatus {
        /// The kind of capability.
        kind: String,
    },
}

/// The value of an optional field that a satellite sends about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said<T> {
    /// A valid value.
    Understood(T),
    /// A value of another type, or one that exceeds the limits.
    Odd,
}

impl<'de, T: Deserialize<'de> + WithinLimits> Deserialize<'de> for Said<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Said<T>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either<T> {
            Expected(T),
            Other(IgnoredAny),
        }
        Ok(match Either::<T>::deserialize(deserializer)? {
            Either::Expected(said) if said.is_within_limits() => Said::Understood(said),
            Either::Expected(_) | Either::Other(IgnoredAny) => Said::Odd,
        })
    }
}

/// Limits on a value of the right type.
trait WithinLimits {
    fn is_within_limits(&self) -> bool;
}

impl WithinLimits for String {
    fn is_within_limits(&self) -> bool {
        fits(self)
    }
}

impl WithinLimits for Vec<String> {
    fn is_within_limits(&self) -> bool {
        self.len() <= MAX_CAPABILITIES && self.iter().all(|word| fits(word))
    }
}

impl WithinLimits for f64 {
    fn is_within_limits(&self) -> bool {
        true
    }
}

/// Whether a text is short enough for a word of a message.
fn fits(word: &str) -> bool {
    word.chars().count() <= MAX_WORD && !word.contains('\0')
}

/// The status of a checked system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// The system is as it should be.
    Healthy,
    /// The system works, but not as it should.
    Degraded,
    /// The system does not work.
    Unhealthy,
}

/// How far an agent is in fetching script packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SyncStatus {
    /// The agent has not begun.
    Pending,
    /// The agent is fetching packages.
    Syncing,
    /// The packages are there.
    Ready,
    /// The agent has given up.
    Error,
}

/// An object with any content; nothing of it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnyObject;

impl<'de> Deserialize<'de> for AnyObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AnyObject, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = AnyObject;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<AnyObject, A::Error> {
                while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(AnyObject)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Every known type.
const KINDS: [&str; 12] = [
    "authenticate",
    "heartbeat",
    "result",
    "strategy_error",
    "script_package_sync_state",
    "request_script_package_manifest",
    "request_script_package_blob",
    "request_run_secrets",
    "request_config_secrets",
    "capability_secret_request",
    "telemetry_batch",
    "capability_status",
];

/// Every field that is parsed.
const FIELDS: [&str; 22] = [
    "type",
    "clientId",
    "token",
    "capabilities",
    "version",
    "uptimeSeconds",
    "configId",
    "systemId",
    "status",
    "latencyMs",
    "result",
    "executedAt",
    "strategyId",
    "message",
    "lockfileHash",
    "errorMessage",
    "integrity",
    "requestId",
    "collectorId",
    "runId",
    "kind",
    "batchId",
];

/// Optional fields: an invalid value costs only that field, not the message.
const DISPENSABLE: [&str; 3] = ["capabilities", "version", "uptimeSeconds"];

/// The parsed fields of a message, as raw JSON. All others are skipped: serde's internally tagged enums would
/// read the whole message into memory first, at many times its size.
struct Looked<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Looked<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Looked<'a>, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Looked<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Looked<'de>, A::Error> {
                let (mut fields, mut count) = (Vec::<(Cow<'de, str>, &RawValue)>::new(), 0);
                while let Some(Name(name)) = map.next_key()? {
                    count += 1;
                    if count > MAX_FIELDS {
                        return Err(A::Error::custom("too many fields"));
                    }
                    if !FIELDS.contains(&name.as_ref()) {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    if fields.iter().any(|(other, _)| *other == name) {
                        return Err(A::Error::custom("a field twice"));
                    }
                    fields.push((name, map.next_value()?));
                }
                Ok(Looked(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A field's name, borrowed from the text if possible.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl Looked<'_> {
    fn into_message(self) -> Result<FromSatellite, serde_json::Error> {
        let (object, list) = (raw("{}")?, raw("[]")?);
        let mut fields = self.0;
        for (name, value) in &mut fields {
            // Any object is valid; its content is not parsed.
            if name == "result" && value.get().starts_with('{') {
                *value = object;
            } else if name == "result" && value.get().starts_with('[') {
                *value = list;
            } else if DISPENSABLE.contains(&name.as_ref()) {
                // A value may be valid JSON and still not fit any type here, such as 1e999.
                if value.get().len() > MAX_FIELD_BYTES
                    || serde_json::from_str::<Value>(value.get()).is_err()
                {
                    *value = object;
                }
            } else if value.get().len() > MAX_FIELD_BYTES {
                return Err(serde_json::Error::custom("a field is too large"));
            }
        }
        FromSatellite::deserialize(MapDeserializer::new(fields.into_iter()))
    }
}

fn raw(text: &str) -> Result<&RawValue, serde_json::Error> {
    serde_json::from_str(text)
}

/// How many items a batch of telemetry has: the length of its list, or one. Only counted.
pub fn items_of(batch: &str) -> u64 {
    #[derive(Deserialize)]
    struct Batch {
        payload: Option<Items>,
    }
    struct Items(u64);
    impl<'de> Deserialize<'de> for Items {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Items, D::Error> {
            struct Counting;
            impl<'de> Visitor<'de> for Counting {
                type Value = Items;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a list")
                }
                fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Items, A::Error> {
                    let mut count = 0;
                    while list.next_element::<IgnoredAny>()?.is_some() {
                        count += 1;
                    }
                    Ok(Items(count))
                }
            }
            deserializer.deserialize_seq(Counting)
        }
    }
    let counted = serde_json::from_str::<Batch>(batch).ok().and_then(|batch| batch.payload);
    counted.map_or(1, |Items(count)| count)
}

impl FromSatellite {
    /// Parses a frame. The error is a word for metrics and logs; it never quotes the frame.
    pub fn parse(text: &str) -> Result<FromSatellite, Malformed> {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(rename = "type", borrow)]
            kind: Cow<'a, str>,
        }
        let message = serde_json::from_str::<Looked<'_>>(text).and_then(Looked::into_message);
        match message {
            Ok(message) => message.within_limits(),
            Err(_) => Err(match serde_json::from_str::<Head<'_>>(text) {
                Ok(head) if KINDS.contains(&head.kind.as_ref()) => Malformed::Fields,
                Ok(_) => Malformed::UnknownType,
                Err(_) if serde_json::from_str::<&RawValue>(text).is_ok() => Malformed::UnknownType,
                Err(_) => Malformed::Json,
            }),
        }
    }

    fn within_limits(self) -> Result<FromSatellite, Malformed> {
        let named = |words: &[&String]| words.iter().all(|w| !w.is_empty() && fits(w));
        let is_text = |text: &String| text.chars().count() <= MAX_TEXT;
        let fit = match &self {
            FromSatellite::Authenticate { .. } | FromSatellite::Heartbeat { .. } => true,
            FromSatellite::Result { config_id, system_id, executed_at, .. } => {
                named(&[config_id, system_id, executed_at])
            }
            FromSatellite::StrategyError { strategy_id, message } => {
                named(&[strategy_id]) && is_text(message)
            }
            FromSatellite::ScriptPackageSyncState { lockfile_hash, error_message, .. } => {
                lockfile_hash.as_deref().is_none_or(fits)
                    && error_message.as_ref().is_none_or(is_text)
            }
            FromSatellite::RequestScriptPackageManifest { lockfile_hash } => {
                named(&[lockfile_hash])
            }
            FromSatellite::RequestScriptPackageBlob { integrity } => named(&[integrity]),
            FromSatellite::RequestRunSecrets { request_id, config_id, collector_id, run_id } => {
                named(&[request_id, config_id, collector_id]) && fits(run_id)
            }
            FromSatellite::RequestConfigSecrets { request_id, config_id, run_id } => {
                named(&[request_id, config_id]) && run_id.as_deref().is_none_or(fits)
            }
            FromSatellite::CapabilitySecretRequest { request_id, kind } => {
                named(&[request_id, kind])
            }
            FromSatellite::TelemetryBatch { batch_id, kind } => named(&[batch_id, kind]),
            FromSatellite::CapabilityStatus { kind } => named(&[kind]),
        };
        if fit { Ok(self) } else { Err(Malformed::Fields) }
    }
}

/// Why a frame is not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Malformed {
    /// The frame is not JSON.
    #[strum(serialize = "invalid_json")]
    Json,
    /// The frame has no `type`, or an unknown one.
    UnknownType,
    /// A known type whose fields are missing, of the wrong type, or over their limits.
    #[strum(serialize = "invalid_fields")]
    Fields,
    /// The frame is not text.
    #[strum(serialize = "binary_frame")]
    Binary,
}

impl Malformed {
    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A message to a satellite.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum ToSatellite {
    /// The satellite is connected, and the log has the edge.
    Authenticated {
        /// The satellite's id.
        satellite_id: Uuid,
        /// Its assignments.
        #[schemars(with = "Vec<Assignment>")]
        assignments: Box<RawValue>,
        /// The hash of the script packages that it is to have: absent if unknown, null for none.
        #[serde(skip_serializing_if = "Option::is_none")]
        script_packages_lockfile_hash: Option<Option<String>>,
    },
    /// The satellite's assignments have changed.
    ConfigUpdated {
        /// All its assignments from now on.
        #[schemars(with = "Vec<Assignment>")]
        assignments: Box<RawValue>,
        /// The hash of the script packages that it is to have: absent if unknown, null for none.
        #[serde(skip_serializing_if = "Option::is_none")]
        script_packages_lockfile_hash: Option<Option<String>>,
    },
    /// The satellite was not let in.
    AuthFailed {
        /// Why.
        reason: &'static str,
    },
    /// The session is over; the core closes the connection next.
    Shutdown {
        /// Why.
        reason: &'static str,
    },
    /// The script packages have changed.
    RefreshScriptPackages {
        /// The hash of the new packages.
        lockfile_hash: String,
    },
    /// The manifest of the script packages.
    ScriptPackageManifest {
        /// The hash of the packages.
        lockfile_hash: String,
        /// The packages, as the backend sent them.
        #[schemars(with = "Vec<Package>")]
        entries: Box<RawValue>,
    },
    /// A script package.
    ScriptPackageBlob {
        /// The package's hash.
        integrity: String,
        /// The package in base64; null if there is none of this hash.
        data: Option<String>,
    },
    /// The secrets of a run: all of them, or the reason why there are none.
    RunSecrets {
        /// The question's id.
        request_id: String,
        /// Variables and their values.
        #[schemars(with = "Map<String, Value>")]
        #[serde(skip_serializing_if = "Option::is_none")]
        env: Option<Environment>,
        /// Why there are none.
        #[schemars(with = "String")]
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// What scripts may do on the satellite.
    SandboxPolicy {
        /// The policy, as its backend sent it.
        #[schemars(with = "Map<String, Value>")]
        policy: Box<RawValue>,
    },
    /// The secrets of an assignment's configuration are not served here.
    ConfigSecrets {
        /// The question's id.
        request_id: String,
        /// Why.
        error: &'static str,
    },
    /// The secrets of this capability are not served here.
    CapabilitySecretResponse {
        /// The question's id.
        request_id: String,
        /// Why.
        error: &'static str,
    },
    /// The outcome of a batch of telemetry.
    TelemetryAck {
        /// The batch's id.
        batch_id: String,
        /// How many items were passed on.
        accepted: u64,
        /// How many items were not passed on.
        rejected: u64,
        /// Whether the agent should send the batch again.
        retryable: bool,
    },
    /// A message that is serialized already: a large one, shared by all satellites to which it is sent.
    #[serde(skip)]
    Ready(Bytes),
}

/// An environment, which can only be written into a frame.
#[derive(Debug)]
pub struct Environment(pub run_secrets::Environment);

impl Serialize for Environment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value.expose_secret())?;
        }
        map.end()
    }
}

/// The desired hash of script packages as messages carry it.
pub fn lockfile_hash(desired: &Desired) -> Option<Option<String>> {
    match desired {
        Desired::Unknown => None,
        Desired::Hash(hash) => Some(hash.as_deref().map(str::to_owned)),
    }
}

impl ToSatellite {
    /// The text of the frame.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use serde_json::value::to_raw_value;

    fn parse(value: &serde_json::Value) -> Result<FromSatellite, Malformed> {
        FromSatellite::parse(&value.to_string())
    }

    #[test]
    fn an_agents_messages_are_understood() {
        let authenticate = json!({"type": "authenticate", "clientId": "x", "token": "csat_secret",
                                  "capabilities": ["http"], "somethingNew": 1});
        let Ok(message) = parse(&authenticate) else { panic!("refused") };
        assert!(!format!("{message:?}").contains("csat_secret"));
        assert!(matches!(message, FromSatellite::Authenticate { .. }));

        let heartbeat = json!({"type": "heartbeat", "version": "0.5.0", "uptimeSeconds": 12.5});
        assert!(matches!(parse(&heartbeat), Ok(FromSatellite::Heartbeat { .. })));
        assert!(matches!(
            parse(&json!({"type": "heartbeat"})),
            Ok(FromSatellite::Heartbeat { version: None, .. })
        ));
        let others = [
            json!({"type": "result", "configId": "c", "systemId": "s", "status": "degraded",
                   "latencyMs": 12.5, "result": {"a": [1]}, "executedAt": "2026-03-01T12:00:00Z"}),
            json!({"type": "result", "configId": "c", "systemId": "s", "status": "healthy",
                   "executedAt": "2026-03-01T12:00:00Z"}),
            json!({"type": "strategy_error", "strategyId": "http", "message": ""}),
            json!({"type": "script_package_sync_state", "lockfileHash": null, "status": "ready"}),
            json!({"type": "script_package_sync_state", "lockfileHash": "h", "status": "error",
                   "errorMessage": "x"}),
            json!({"type": "request_script_package_manifest", "lockfileHash": "h"}),
            json!({"type": "request_script_package_blob", "integrity": "sha512-x"}),
            json!({"type": "request_run_secrets", "requestId": "r", "configId": "c",
                   "collectorId": "k", "runId": "n"}),
            json!({"type": "request_config_secrets", "requestId": "r", "configId": "c",
                   "runId": "n"}),
            json!({"type": "capability_secret_request", "requestId": "r", "kind": "metric-scrape",
                   "payload": {"targetId": "t"}}),
            json!({"type": "telemetry_batch", "batchId": "0", "kind": "logstream", "payload": [1],
                   "droppedByGroup": {"a": 1}}),
            json!({"type": "capability_status", "kind": "metric-scrape", "payload": null}),
        ];
        for message in others {
            assert!(parse(&message).is_ok(), "{message}");
        }
    }

    #[test]
    fn what_is_odd_of_what_a_satellite_says_of_itself_costs_that_field_and_not_the_message() {
        let (long, large) = ("x".repeat(MAX_WORD + 1), "x".repeat(MAX_FIELD_BYTES));
        let odd = [
            "{}".to_owned(),
            "true".to_owned(),
            "[1]".to_owned(),
            "1e999".to_owned(),
            r#""\ud800""#.to_owned(),
            json!([large]).to_string(),
            format!("{}{}", "[".repeat(1_000), "]".repeat(1_000)),
        ];
        let no_versions =
            [json!(5), json!(-1.5), json!("a\0b"), json!(long)].map(|odd| odd.to_string());
        let no_numbers = [json!("12"), json!("")].map(|odd| odd.to_string());
        let said = |version: &str, uptime: &str| {
            let text =
                format!(r#"{{"type":"heartbeat","version":{version},"uptimeSeconds":{uptime}}}"#);
            match FromSatellite::parse(&text) {
                Ok(FromSatellite::Heartbeat { version, uptime_seconds, .. }) => {
                    (version, uptime_seconds)
                }
                other => panic!("{text}: {other:?}"),
            }
        };
        let (version, uptime) = (Said::Understood("1".to_owned()), Said::Understood(1.0));
        for odd in odd.iter().chain(&no_versions) {
            assert_eq!(said(odd, "1"), (Some(Said::Odd), Some(uptime.clone())), "{odd}");
        }
        for odd in odd.iter().chain(&no_numbers) {
            assert_eq!(said(r#""1""#, odd), (Some(version.clone()), Some(Said::Odd)), "{odd}");
        }
        assert_eq!(said("null", "null"), (None, None));
    }

    #[test]
    fn a_large_message_is_read_without_being_taken_apart() {
        let page = json!({"body": "x".repeat(1_000_000), "numbers": vec![0; 500_000]});
        let mut result = json!({"type": "result", "configId": "c", "systemId": "s",
            "status": "healthy", "executedAt": "2026-03-01T12:00:00Z", "result": page});
        assert!(matches!(parse(&result), Ok(FromSatellite::Result { result: Some(_), .. })));
        result["result"] = json!(vec![0; 500_000]);
        assert_eq!(parse(&result).err(), Some(Malformed::Fields));
        result["result"] = json!(null);
        assert!(matches!(parse(&result), Ok(FromSatellite::Result { result: None, .. })));
        // A field that is parsed must not be so large.
        result["executedAt"] = json!(vec![0; 500_000]);
        assert_eq!(parse(&result).err(), Some(Malformed::Fields));
        let fields: String = (0..MAX_FIELDS).map(|n| format!(r#","x{n}":0"#)).collect();
        let many = format!(r#"{{"type":"heartbeat"{fields}}}"#);
        assert_eq!(FromSatellite::parse(&many).err(), Some(Malformed::Fields));
    }

    #[test]
    fn the_items_of_a_batch_are_counted() {
        for (payload, items) in [("[]", 0), ("[1,[2,3],{}]", 3), ("{}", 1), ("null", 1), ("7", 1)] {
            let batch = format!(r#"{{"type":"telemetry_batch","payload":{payload}}}"#);
            assert_eq!(items_of(&batch), items, "{payload}");
        }
        assert_eq!(items_of("{}"), 1);
    }

    #[test]
    fn what_is_no_message_is_named() {
        let long = "x".repeat(MAX_WORD + 1);
        let cases = [
            ("", Malformed::Json),
            ("{", Malformed::Json),
            ("hello", Malformed::Json),
            ("{}", Malformed::UnknownType),
            ("[]", Malformed::UnknownType),
            ("3", Malformed::UnknownType),
            (r#"{"type":3}"#, Malformed::UnknownType),
            (r#"{"type":"reboot"}"#, Malformed::UnknownType),
            (r#"{"type":"authenticate"}"#, Malformed::Fields),
            (r#"{"type":"heartbeat","version":"1","version":"2"}"#, Malformed::Fields),
            (
                &format!(r#"{{"type":"strategy_error","strategyId":"{long}","message":""}}"#),
                Malformed::Fields,
            ),
            (
                r#"{"type":"strategy_error","strategyId":"a\u0000b","message":""}"#,
                Malformed::Fields,
            ),
            (r#"{"type":"result","configId":"c","systemId":"s"}"#, Malformed::Fields),
            (
                r#"{"type":"result","configId":"c","systemId":"s","status":"fine","executedAt":"x"}"#,
                Malformed::Fields,
            ),
            (
                r#"{"type":"result","configId":"c","systemId":"s","status":"healthy","executedAt":"x","result":[]}"#,
                Malformed::Fields,
            ),
            // Two fields of one name: one could be authorised here and the other be read by the backend.
            (
                r#"{"type":"result","configId":"c","config\u0049d":"d","systemId":"s","status":"healthy","executedAt":"x"}"#,
                Malformed::Fields,
            ),
            (r#"{"type":"request_run_secrets","requestId":"r"}"#, Malformed::Fields),
        ];
        for (text, expected) in cases {
            assert_eq!(FromSatellite::parse(text).err(), Some(expected), "{text}");
        }
    }

    #[test]
    fn answers_have_the_words_of_the_agent() {
        let text = |message: ToSatellite| message.to_text().expect("json");
        let nothing = || to_raw_value::<[(); 0]>(&[]).expect("json");
        assert_eq!(
            text(ToSatellite::Authenticated {
                satellite_id: Uuid::nil(),
                assignments: nothing(),
                script_packages_lockfile_hash: None,
            }),
            r#"{"type":"authenticated","satelliteId":"00000000-0000-0000-0000-000000000000","assignments":[]}"#
        );
        assert_eq!(
            text(ToSatellite::Authenticated {
                satellite_id: Uuid::nil(),
                assignments: nothing(),
                script_packages_lockfile_hash: Some(None),
            }),
            r#"{"type":"authenticated","satelliteId":"00000000-0000-0000-0000-000000000000","assignments":[],"scriptPackagesLockfileHash":null}"#
        );
        let env = run_secrets::Environment::from([("A".to_owned(), "hidden".into())]);
        let answer = ToSatellite::RunSecrets {
            request_id: "r".to_owned(),
            env: Some(Environment(env)),
            error: None,
        };
        assert!(!format!("{answer:?}").contains("hidden"));
        assert_eq!(text(answer), r#"{"type":"run_secrets","requestId":"r","env":{"A":"hidden"}}"#);
        assert_eq!(
            text(ToSatellite::ScriptPackageBlob { integrity: "i".to_owned(), data: None }),
            r#"{"type":"script_package_blob","integrity":"i","data":null}"#
        );
        let request_id = || "r".to_owned();
        assert_eq!(
            text(ToSatellite::ConfigSecrets { request_id: request_id(), error: "no" }),
            r#"{"type":"config_secrets","requestId":"r","error":"no"}"#
        );
        assert_eq!(
            text(ToSatellite::CapabilitySecretResponse { request_id: request_id(), error: "no" }),
            r#"{"type":"capability_secret_response","requestId":"r","error":"no"}"#
        );
        assert_eq!(
            text(ToSatellite::TelemetryAck {
                batch_id: "0".to_owned(),
                accepted: 0,
                rejected: 3,
                retryable: false,
            }),
            r#"{"type":"telemetry_ack","batchId":"0","accepted":0,"rejected":3,"retryable":false}"#
        );
        assert_eq!(
            text(ToSatellite::AuthFailed { reason: MUST_AUTHENTICATE }),
            r#"{"type":"auth_failed","reason":"Must authenticate first"}"#
        );
        assert_eq!(
            text(ToSatellite::Shutdown { reason: "Removed" }),
            r#"{"type":"shutdown","reason":"Removed"}"#
        );
    }
}
