//! What several routes take: ids, page sizes, times.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use uuid::Uuid;

use super::problem::Problem;
use crate::contract::wire::Timestamp;
use crate::domain::lifecycle::SatelliteId;

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
    text.parse().map_err(|_| {
        Problem::invalid(format!("{name} must be a time such as 2026-03-01T12:00:00Z."))
    })
}
