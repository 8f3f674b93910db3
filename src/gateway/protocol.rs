//! The satellites' messages, as the agent of Checkstack 0.5 sends and expects them.
//!
//! Text frames of one JSON object, told apart by `type`. Unknown fields are ignored.

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

/// The most capabilities a satellite may name, and the most characters of each.
const MAX_CAPABILITIES: usize = 64;
const MAX_WORD: usize = 200;

/// What `auth_failed` says of a first message that is anything but `authenticate`.
pub const MUST_AUTHENTICATE: &str = "Must authenticate first";

/// What `auth_failed` says of an unknown id and of a wrong token alike.
pub const INVALID_CREDENTIALS: &str = "Invalid client ID or token";

/// A message from a satellite.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum FromSatellite {
    /// The first message of a connection.
    Authenticate {
        /// The satellite's id, as text: a malformed one is refused like an unknown one.
        client_id: String,
        /// Its token.
        token: SecretString,
        /// What it can do.
        capabilities: Option<Vec<String>>,
    },
    /// A sign of life.
    Heartbeat {
        /// The agent's version.
        version: Option<String>,
        /// How long the agent has been running.
        uptime_seconds: Option<f64>,
        /// What it can do, where that changed.
        capabilities: Option<Vec<String>>,
    },
    /// The result of a check.
    Result {},
    /// A strategy of the agent failed.
    StrategyError {},
    /// Where the agent stands in fetching script packages.
    ScriptPackageSyncState {},
    /// Asks for a manifest of script packages.
    RequestScriptPackageManifest {},
    /// Asks for one script package.
    RequestScriptPackageBlob {},
    /// Asks for the secrets of a run.
    RequestRunSecrets {},
}

impl FromSatellite {
    /// Parses a frame. The error is a word for metrics and logs; it quotes nothing of the frame.
    pub fn parse(text: &str) -> Result<FromSatellite, Malformed> {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(rename = "type", borrow)]
            kind: std::borrow::Cow<'a, str>,
        }
        const KNOWN: [&str; 8] = [
            "authenticate",
            "heartbeat",
            "result",
            "strategy_error",
            "script_package_sync_state",
            "request_script_package_manifest",
            "request_script_package_blob",
            "request_run_secrets",
        ];

        match serde_json::from_str::<FromSatellite>(text) {
            Ok(message) => message.within_limits(),
            Err(_) => Err(match serde_json::from_str::<Head<'_>>(text) {
                Ok(head) if KNOWN.contains(&head.kind.as_ref()) => Malformed::Fields,
                Ok(_) => Malformed::UnknownType,
                Err(_) if serde_json::from_str::<&RawValue>(text).is_ok() => Malformed::UnknownType,
                Err(_) => Malformed::Json,
            }),
        }
    }

    fn within_limits(self) -> Result<FromSatellite, Malformed> {
        let fits = |word: &String| word.chars().count() <= MAX_WORD && !word.contains('\0');
        let all_fit = |words: &Option<Vec<String>>| {
            words
                .as_ref()
                .is_none_or(|words| words.len() <= MAX_CAPABILITIES && words.iter().all(fits))
        };
        let fit = match &self {
            FromSatellite::Authenticate { capabilities, .. } => all_fit(capabilities),
            FromSatellite::Heartbeat { version, capabilities, .. } => {
                version.as_ref().is_none_or(fits) && all_fit(capabilities)
            }
            _ => true,
        };
        if fit { Ok(self) } else { Err(Malformed::Fields) }
    }
}

/// Why a frame is not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Not JSON.
    Json,
    /// No `type`, or one that is not known.
    UnknownType,
    /// A known type whose fields are missing, of the wrong type, or over their limits.
    Fields,
    /// Not a text frame.
    Binary,
}

impl Malformed {
    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Malformed::Json => "invalid_json",
            Malformed::UnknownType => "unknown_type",
            Malformed::Fields => "invalid_fields",
            Malformed::Binary => "binary_frame",
        }
    }
}

/// A message to a satellite.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum ToSatellite {
    /// The satellite is connected, and the log says so.
    Authenticated {
        /// The satellite.
        satellite_id: Uuid,
        /// What it is to check.
        assignments: Vec<serde_json::Value>,
    },
    /// The satellite is not let in.
    AuthFailed {
        /// Why.
        reason: &'static str,
    },
    /// The session is over; the core closes after it.
    Shutdown {
        /// Why.
        reason: &'static str,
    },
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
        let result = json!({"type": "result", "configId": "c", "systemId": "s"});
        assert!(matches!(parse(&result), Ok(FromSatellite::Result {})));
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
            (r#"{"type":"heartbeat","version":5}"#, Malformed::Fields),
            (&format!(r#"{{"type":"heartbeat","version":"{long}"}}"#), Malformed::Fields),
            (r#"{"type":"heartbeat","version":"a\u0000b"}"#, Malformed::Fields),
        ];
        for (text, expected) in cases {
            assert_eq!(FromSatellite::parse(text).err(), Some(expected), "{text}");
        }
    }

    #[test]
    fn answers_have_the_words_of_the_agent() {
        let text = |message: ToSatellite| message.to_text().expect("json");
        assert_eq!(
            text(ToSatellite::Authenticated { satellite_id: Uuid::nil(), assignments: vec![] }),
            r#"{"type":"authenticated","satelliteId":"00000000-0000-0000-0000-000000000000","assignments":[]}"#
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
