//! A message of the stream, read as a transition.

use async_nats::HeaderMap;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::error::Error;
use crate::transition::{Event, State, Transition};

/// A message of ours.
pub(crate) struct Published {
    /// What it tells.
    pub transition: Transition,
    /// How often the stream had been built when it was published.
    pub epoch: i64,
}

/// Removals have no state.
#[derive(Deserialize)]
struct Body {
    #[serde(flatten)]
    state: Option<State>,
}

/// Reads a message; none if it is somebody else's, which has no position.
pub(crate) fn read(
    subject: &str,
    headers: &HeaderMap,
    payload: &[u8],
) -> Result<Option<Published>, Error> {
    let text = |name: &str| headers.get(name).map(|value| value.as_str());
    let Some(position) = text("Groundstation-Position").and_then(|text| text.parse().ok()) else {
        return Ok(None);
    };
    let unreadable =
        |why: String| Error::unreadable(format!("the message of position {position}"), why);
    let needed =
        |name: &str| text(name).ok_or_else(|| unreadable(format!("it has no header {name}")));
    let number = |name: &str| {
        needed(name)?.parse::<i64>().map_err(|error| unreadable(format!("{name}: {error}")))
    };
    let uuid = |name: &str| {
        needed(name)?.parse::<Uuid>().map_err(|error| unreadable(format!("{name}: {error}")))
    };
    let id = |name: &str| text(name).map(|_| uuid(name)).transpose();
    let occurred_at = OffsetDateTime::parse(needed("ce-time")?, &Rfc3339)
        .map_err(|error| unreadable(format!("ce-time: {error}")))?;
    let Body { state } =
        serde_json::from_slice(payload).map_err(|error| unreadable(error.to_string()))?;
    let event = subject.strip_prefix("satellite.").unwrap_or(subject);
    let Ok(event) = event.parse::<Event>();
    let transition = Transition {
        position,
        change: uuid("Nats-Msg-Id")?,
        revision: number("Groundstation-Revision")?,
        satellite: uuid("ce-subject")?,
        event,
        reason: needed("Groundstation-Reason")?.to_owned(),
        session: number("Groundstation-Session")?,
        occurred_at,
        state,
        flapping: text("Groundstation-Flapping") == Some("true"),
        outage: id("Groundstation-Outage")?,
        maintenance: id("Groundstation-Maintenance")?,
    };
    let epoch = match text("Groundstation-Epoch") {
        None => 1,
        Some(_) => number("Groundstation-Epoch")?,
    };
    Ok(Some(Published { transition, epoch }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transition::Status;

    const CHANGE: &str = "0191a8e0-0000-7000-8000-000000000001";
    const SATELLITE: &str = "0191a8e0-0000-7000-8000-000000000002";

    fn headers(more: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let ours = [
            ("Groundstation-Position", "7"),
            ("Groundstation-Revision", "2"),
            ("Groundstation-Session", "3"),
            ("Groundstation-Reason", "client_close"),
            ("Nats-Msg-Id", CHANGE),
            ("ce-subject", SATELLITE),
            ("ce-time", "2026-03-01T12:00:00.250Z"),
        ];
        for (name, value) in ours.iter().chain(more) {
            headers.insert(*name, *value);
        }
        headers
    }

    #[test]
    fn a_message_is_read_with_its_state() {
        let body = br#"{"satelliteId":"x","name":"edge","region":"eu","status":"offline","lastSeenAt":null}"#;
        let more = [
            ("Groundstation-Epoch", "3"),
            ("Groundstation-Flapping", "true"),
            ("Groundstation-Maintenance", "0191d3a0-0000-7000-8000-000000000009"),
        ];
        let read = read("satellite.disconnected", &headers(&more), body).expect("readable");
        let Published { transition, epoch } = read.expect("ours");
        assert_eq!((transition.position, epoch, transition.flapping), (7, 3, true));
        assert_eq!(transition.event, Event::Disconnected);
        let window = transition.maintenance.map(|id| id.to_string());
        assert_eq!(window.as_deref(), Some("0191d3a0-0000-7000-8000-000000000009"));
        assert_eq!(transition.outage, None);
        let state = transition.state.expect("a state");
        assert_eq!(
            (state.name.as_str(), state.status, state.last_seen_at),
            ("edge", Status::Offline, None)
        );
    }

    #[test]
    fn a_removal_and_a_later_versions_event_have_no_state() {
        for (subject, event) in [
            ("satellite.removed", Event::Removed),
            ("satellite.outage_started", Event::Other("outage_started".to_owned())),
        ] {
            let read =
                read(subject, &headers(&[]), br#"{"satelliteId":"x","more":1}"#).expect("readable");
            let transition = read.expect("ours").transition;
            assert_eq!((transition.event, transition.state), (event, None));
        }
    }

    #[test]
    fn somebody_elses_message_is_none_and_a_broken_one_is_told() {
        assert!(read("satellite.connected", &HeaderMap::new(), b"?").expect("readable").is_none());
        for (name, value) in
            [("ce-time", "noon"), ("Nats-Msg-Id", "x"), ("Groundstation-Epoch", "one")]
        {
            let told = read("satellite.connected", &headers(&[(name, value)]), b"{}").err();
            assert!(told.is_some_and(|error| error.to_string().contains("position 7")), "{name}");
        }
        assert!(read("satellite.connected", &headers(&[]), b"not JSON").is_err());
    }
}
