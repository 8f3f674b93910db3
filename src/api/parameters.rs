//! What several routes take: ids, page sizes, times.

use std::str::FromStr;
use std::time::Duration;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use strum::IntoEnumIterator;
use uuid::Uuid;

use super::problem::Problem;
use crate::contract::wire::{NoMoment, Timestamp};
use crate::domain::lifecycle::{Event, Position, SatelliteId};
use crate::log::history::At;

/// A page's size, within its bounds.
pub fn limit(asked: Option<i64>, default: i64, most: i64) -> Result<i64, Problem> {
    match asked {
        None => Ok(default),
        Some(limit) if (1..=most).contains(&limit) => Ok(limit),
        Some(_) => Err(Problem::invalid(format!("limit must be from 1 to {most}."))),
    }
}

/// The id in the path; one that is not a UUID is as unknown as any other.
pub fn satellite_id(path: Result<Path<String>, PathRejection>) -> Result<SatelliteId, Problem> {
    let Path(text) = path?;
    satellite_named(&text)
}

/// The satellite of this id; a text that is no UUID is as unknown as any other.
pub fn satellite_named(text: &str) -> Result<SatelliteId, Problem> {
    let shown: String = text.chars().take(64).collect();
    Uuid::try_parse(text).map(SatelliteId).map_err(|_| Problem::no_satellite(&shown))
}

/// A moment in RFC 3339, for the parameter of this name.
pub fn time(name: &str, text: &str) -> Result<Timestamp, Problem> {
    text.parse().map_err(|rule: NoMoment| Problem::wrong_parameter(name, &rule.to_string()))
}

/// A length of time such as `24h`, for the parameter of this name.
pub fn span(name: &str, text: &str, longest: Duration) -> Result<Duration, Problem> {
    let span = humantime::parse_duration(text).ok();
    span.filter(|span| *span <= longest && *span >= Duration::from_millis(1)).ok_or_else(|| {
        let days = longest.as_secs() / (24 * 60 * 60);
        Problem::invalid(format!("{name} must be a duration such as 24h, at most {days} days."))
    })
}

/// The place in the past that the parameters `at` and `position` name; one of them is there.
pub fn place(at: Option<String>, position: Option<i64>) -> Result<At, Problem> {
    match (at, position) {
        (Some(text), None) => Ok(At::Moment(time("at", &text)?)),
        (None, Some(position)) if position >= 0 => Ok(At::Position(Position(position))),
        (None, _) => Err(Problem::invalid("position must be 0 or more.")),
        (Some(_), Some(_)) => Err(Problem::invalid("Give at or position, not both.")),
    }
}

/// The event that the parameter `event` names.
pub fn event(word: &str) -> Result<Event, Problem> {
    Event::from_str(word).map_err(|_| {
        let words: Vec<&str> = Event::iter().map(Event::as_str).collect();
        Problem::invalid(format!("event must be one of {}.", words.join(", ")))
    })
}
