//! The words by which satellites are selected and ordered, the same for lists and counts, for the present and the
//! past.

use std::convert::Infallible;
use std::str::FromStr;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer};
use strum::IntoEnumIterator;
use utoipa::IntoParams;
use uuid::Uuid;

use super::parameters::{place, span};
use super::problem::Problem;
use crate::contract::wire::SatelliteJson;
use crate::domain::access::Selector;
use crate::domain::lifecycle::Event;
use crate::domain::liveness::Status;
use crate::domain::selection::{Order, Place, Selection, Sort};
use crate::log::history::At;
use crate::registry::satellites::{ListFilter, MAX_TAGS};

/// The longest time a satellite may be asked to have been inactive for.
const LONGEST_INACTIVE: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Which satellites, and of when.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub struct SelectionQuery {
    /// `online` or `offline`
    #[param(pattern = "^(online|offline)$")]
    status: Option<String>,
    /// Only this region
    region: Option<String>,
    /// Only names that contain this, whatever the case of any letter
    q: Option<String>,
    /// Only whose last edge is `connected`, `disconnected` or `heartbeat_lost`
    #[param(pattern = "^(connected|disconnected|heartbeat_lost)$")]
    last_event: Option<String>,
    /// `true`: only those that come and go too often; `false`: only the others
    flapping: Option<bool>,
    /// Only whose agent said that it is of this version; not with at and position, as versions have no history
    version: Option<String>,
    /// `true`: only those that have never connected; `false`: only the others; not with at and position, as the past
    /// of a satellite begins with its first edge
    never_connected: Option<bool>,
    /// Only those that are offline and were active last so long ago or longer, such as `30d`, at most 366 days: heard,
    /// or cleanly gone, or, where they have never connected, registered
    #[param(example = "30d", pattern = "^[1-9][0-9]{0,2}(s|m|h|d)$")]
    inactive_for: Option<String>,
    /// As it was at this moment
    #[param(format = DateTime)]
    at: Option<String>,
    /// As it was right after this position
    #[param(minimum = 0)]
    position: Option<i64>,
}

/// Which tags.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TagQuery {
    /// Only with this tag, `name:value`; given several times, only with all of them
    #[serde(default, deserialize_with = "one_or_several")]
    #[param(style = Form, explode, max_items = 64)]
    tag: Vec<String>,
}

/// What is asked over NATS is JSON.
pub fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a text or a list of texts")]
    enum Said {
        One(String),
        Several(Vec<String>),
        None(()),
    }
    Ok(match Said::deserialize(deserializer)? {
        Said::One(tag) => vec![tag],
        Said::Several(tags) => tags,
        Said::None(()) => Vec::new(),
    })
}

/// Other extractors of a query take each parameter once.
impl<S: Sync> FromRequestParts<S> for TagQuery {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<TagQuery, Infallible> {
        let query = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let tag = query.filter(|(name, _)| name == "tag").map(|(_, tag)| tag.into_owned());
        Ok(TagQuery { tag: tag.collect() })
    }
}

/// What is asked for.
pub enum Asked {
    /// These of the present.
    Now(ListFilter),
    /// These of the past.
    Then(At, Selection),
}

impl SelectionQuery {
    /// The same, of those only who are online.
    pub fn online(self) -> SelectionQuery {
        SelectionQuery { status: Some(Status::Online.as_str().to_owned()), ..self }
    }

    /// Checks all of it, and bounds it to what the caller reaches; an error names the parameter and its limit.
    pub fn check(
        self,
        TagQuery { tag: tags }: TagQuery,
        caller: &Selector,
    ) -> Result<Asked, Problem> {
        if tags.len() > MAX_TAGS {
            let detail = format!("tag may come at most {MAX_TAGS} times: no satellite has more.");
            return Err(Problem::invalid(detail));
        }
        // The database has no place for one in a text.
        let texts = [("region", &self.region), ("q", &self.q), ("version", &self.version)];
        let texts = texts.into_iter().filter_map(|(name, text)| Some((name, text.as_ref()?)));
        for (name, text) in texts.chain(tags.iter().map(|tag| ("tag", tag))) {
            if text.contains('\0') {
                return Err(Problem::invalid(format!("{name} must not contain a NUL character.")));
            }
        }
        let status = self.status.map(|word| {
            let rule = "status must be online or offline.";
            Status::from_str(&word).map_err(|_| Problem::invalid(rule))
        });
        let tags = tags.iter().map(|tag| match tag.split_once(':') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(Problem::invalid("tag must be written name:value.")),
        });
        let inactive_for = self.inactive_for.as_deref();
        let selection = Selection {
            status: status.transpose()?,
            region: self.region,
            tags: tags.collect::<Result<_, _>>()?,
            text: self.q,
            last_event: self.last_event.as_deref().map(edge).transpose()?,
            flapping: self.flapping,
            inactive_for: inactive_for
                .map(|text| span("inactiveFor", text, LONGEST_INACTIVE))
                .transpose()?,
            within: Selector::default(),
        };
        let selection = selection.bounded(caller);
        let (version, never_connected) = (self.version, self.never_connected);
        if self.at.is_none() && self.position.is_none() {
            return Ok(Asked::Now(ListFilter { selection, version, never_connected }));
        }
        if version.is_some() {
            let why = "what agents say of themselves has no history";
            return Err(Problem::not_of_the_past("version", why));
        }
        if never_connected.is_some() {
            let why = "the past of a satellite begins with its first edge";
            return Err(Problem::not_of_the_past("neverConnected", why));
        }
        Ok(Asked::Then(place(self.at, self.position)?, selection))
    }
}

/// An event that can be the last one of a satellite that is there.
fn edge(word: &str) -> Result<Event, Problem> {
    let edges = || Event::iter().filter(|event| *event != Event::Removed);
    edges().find(|event| event.as_str() == word).ok_or_else(|| {
        let words: Vec<&str> = edges().map(Event::as_str).collect();
        Problem::invalid(format!("lastEvent must be one of {}.", words.join(", ")))
    })
}

/// The order that a text names.
pub fn order(text: &str) -> Result<Order, Problem> {
    text.parse().map_err(|_| {
        let words: Vec<&str> = Sort::iter().map(Sort::as_str).collect();
        let words = words.join(", ");
        Problem::invalid(format!("sort must be one of {words}, or one of them behind a minus."))
    })
}

/// The place behind a satellite, as text.
pub fn cursor_behind(satellite: &SatelliteJson, order: Order) -> String {
    let key = match order.by {
        Sort::Name => None,
        Sort::Region => Some(satellite.region.clone()),
        Sort::CreatedAt => Some(satellite.created_at.to_string()),
        Sort::LastSeenAt if satellite.status == Status::Online => Some("infinity".to_owned()),
        // Who was never heard comes before everybody else.
        Sort::LastSeenAt => {
            Some(satellite.last_seen_at.map_or_else(|| "-infinity".to_owned(), |at| at.to_string()))
        }
    };
    let place = match key {
        None => serde_json::json!([satellite.name, satellite.id]),
        Some(key) => serde_json::json!([order.to_string(), key, satellite.name, satellite.id]),
    };
    URL_SAFE_NO_PAD.encode(place.to_string())
}

/// The place that such a text names.
pub fn place_of(cursor: &str, order: Order) -> Result<Place, Problem> {
    let read = || {
        let json = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let place = if order.by == Sort::Name {
            let (name, id) = serde_json::from_slice::<(String, Uuid)>(&json).ok()?;
            Place { key: None, name, id }
        } else {
            let read = serde_json::from_slice::<(String, String, String, Uuid)>(&json).ok()?;
            let (word, key, name, id) = read;
            (word == order.to_string()).then_some(())?;
            let is_moment = || key.parse::<crate::contract::wire::Timestamp>().is_ok();
            let is_endless = || ["-infinity", "infinity"].contains(&key.as_str());
            let is_key = match order.by {
                Sort::Name | Sort::Region => true,
                Sort::CreatedAt => is_moment(),
                Sort::LastSeenAt => is_moment() || is_endless(),
            };
            is_key.then_some(())?;
            Place { key: Some(key), name, id }
        };
        let has_nul = |text: &String| text.contains('\0');
        let is_told = !place.key.iter().chain([&place.name]).any(has_nul);
        is_told.then_some(place)
    };
    read().ok_or_else(|| {
        Problem::invalid(
            "cursor must be a nextCursor of an earlier page, asked for in the same order.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::wire::Timestamp;
    use time::macros::datetime;

    fn satellite(last_seen_at: Option<Timestamp>) -> SatelliteJson {
        SatelliteJson {
            id: Uuid::from_u128(7),
            name: "edge".to_owned(),
            region: "eu".to_owned(),
            tags: Default::default(),
            capabilities: Vec::new(),
            version: None,
            status: Status::Offline.into(),
            last_heartbeat_at: last_seen_at,
            last_seen_at,
            last_event: None,
            flapping: false,
            disabled: false,
            maintenance: None,
            offline_threshold_ms: None,
            created_at: Timestamp::new(datetime!(2026-03-01 12:00:00 UTC)),
            imported: None,
        }
    }

    #[test]
    fn a_cursor_is_a_place_in_the_order_it_was_made_for_and_in_no_other() {
        let orders =
            Sort::iter().flat_map(|by| [false, true].map(|descending| Order { by, descending }));
        let orders: Vec<Order> = orders.collect();
        let seen = Timestamp::new(datetime!(2026-03-02 12:00:00.5 UTC));
        for satellite in [satellite(None), satellite(Some(seen))] {
            for order in &orders {
                let cursor = cursor_behind(&satellite, *order);
                let place = place_of(&cursor, *order).expect("a place");
                assert_eq!((place.name.as_str(), place.id), ("edge", satellite.id), "{order}");
                for other in orders.iter().filter(|other| other.by != order.by) {
                    assert!(place_of(&cursor, *other).is_err(), "{order} as {other}");
                }
            }
        }
        for cursor in ["x", "", "e30", "W10"] {
            assert!(orders.iter().all(|order| place_of(cursor, *order).is_err()), "{cursor:?}");
        }
        let key = |key: &str| {
            URL_SAFE_NO_PAD
                .encode(serde_json::json!(["createdAt", key, "a", Uuid::nil()]).to_string())
        };
        let order = order("createdAt").expect("an order");
        assert!(place_of(&key("2026-03-01T12:00:00.000Z"), order).is_ok());
        for bad in ["yesterday", "infinity", "a\0b"] {
            assert!(place_of(&key(bad), order).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_the_past_does_not_know_is_refused_by_name() {
        let ask = |json: serde_json::Value| {
            let query: SelectionQuery = serde_json::from_value(json).expect("a query");
            query
                .check(TagQuery { tag: Vec::new() }, &Selector::default())
                .map(drop)
                .map_err(|problem| (problem.code(), problem.detail().to_owned()))
        };
        for word in ["version", "neverConnected"] {
            let mut asked = serde_json::json!({"position": 1});
            asked[word] = if word == "version" { "1.0".into() } else { true.into() };
            let (code, detail) = ask(asked.clone()).expect_err("a problem");
            assert!(code == 400 && detail.contains(word), "{code} {detail}");
            asked["position"] = serde_json::Value::Null;
            assert_eq!(ask(asked), Ok(()), "of the present it can be asked");
        }
        for (asked, word) in [
            (serde_json::json!({"lastEvent": "removed"}), "lastEvent"),
            (serde_json::json!({"inactiveFor": "0s"}), "inactiveFor"),
            (serde_json::json!({"inactiveFor": "367d"}), "366 days"),
            (serde_json::json!({"version": "\0"}), "version"),
            (serde_json::json!({"at": "2026-03-01T12:00:00Z", "position": 1}), "not both"),
        ] {
            let (code, detail) = ask(asked).expect_err("a problem");
            assert!(code == 422 && detail.contains(word), "{code} {detail}");
        }
    }
}
