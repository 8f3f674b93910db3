//! Satellites and how they were, as tables.

use super::table;
use crate::contract::assignments::{EffectiveAssignment, EffectiveAssignments};
use crate::contract::fleet::Intervals;
use crate::contract::wire::SatelliteJson;
use crate::contract::word::Word;

/// In the place of what is not there.
const NONE: &str = "-";

/// The columns of every listing; a wide one has [`MORE`] behind them.
const COLUMNS: [&str; 7] = ["ID", "NAME", "REGION", "STATUS", "LAST EVENT", "LAST SEEN", "TAGS"];
const MORE: [&str; 4] = ["THRESHOLD", "VERSION", "CAPABILITIES", "REGISTERED"];

/// One line for each satellite.
pub fn listing(satellites: &[SatelliteJson], is_wide: bool) -> String {
    const STATES: [usize; 2] = [3, 4];
    if !is_wide {
        let rows: Vec<_> = satellites.iter().map(row).collect();
        return table::render(COLUMNS, &rows, &STATES);
    }
    let rows = satellites.iter().map(|satellite| {
        let mut cells = row(satellite).into_iter().chain(more(satellite));
        std::array::from_fn::<_, { COLUMNS.len() + MORE.len() }, _>(|_| {
            cells.next().unwrap_or_default()
        })
    });
    let mut titles = COLUMNS.into_iter().chain(MORE);
    let head = std::array::from_fn(|_| titles.next().unwrap_or_default());
    table::render(head, &rows.collect::<Vec<_>>(), &STATES)
}

fn row(satellite: &SatelliteJson) -> [String; COLUMNS.len()] {
    let tags = satellite.tags.iter().map(|(name, value)| format!("{name}:{value}"));
    [
        satellite.id.to_string(),
        satellite.name.clone(),
        satellite.region.clone(),
        match satellite.disabled {
            true => format!("{}, disabled", satellite.status),
            false => satellite.status.to_string(),
        },
        or_none(satellite.last_event.as_ref().map(Word::to_string)),
        or_none(satellite.last_seen_at.map(|at| at.to_string())),
        tags.collect::<Vec<_>>().join(" "),
    ]
}

fn more(satellite: &SatelliteJson) -> [String; MORE.len()] {
    let threshold = satellite.offline_threshold_ms.and_then(|ms| u64::try_from(ms).ok());
    let threshold = threshold.map(std::time::Duration::from_millis).map(humantime::format_duration);
    [
        or_none(threshold.map(|duration| duration.to_string())),
        or_none(satellite.version.clone()),
        satellite.capabilities.join(" "),
        satellite.created_at.to_string(),
    ]
}

/// The versions, and one line for each assignment with the set that it comes from.
pub fn effective(effective: &EffectiveAssignments) -> String {
    let rows: Vec<_> = effective.assignments.iter().map(effective_row).collect();
    let table = table::render(["CONFIG", "SYSTEM", "STRATEGY", "EVERY", "FROM"], &rows, &[]);
    let applied = effective.applied_version.map_or(NONE.to_owned(), |version| version.to_string());
    format!("desired version {}, applied version {applied}\n\n{table}", effective.desired_version)
}

fn effective_row(EffectiveAssignment { set, assignment }: &EffectiveAssignment) -> [String; 5] {
    let word = |field: &str| or_none(assignment[field].as_str().map(str::to_owned));
    let seconds = assignment["intervalSeconds"].as_u64().map(std::time::Duration::from_secs);
    let every = seconds.map(|every| humantime::format_duration(every).to_string());
    let from = set.as_ref().map_or("its own".to_owned(), |set| format!("set {set}"));
    [word("configId"), word("systemId"), word("strategyId"), or_none(every), from]
}

/// One line for each interval.
pub fn intervals(intervals: &Intervals) -> String {
    let of_each = intervals.intervals.iter();
    let rows = of_each.flat_map(|(id, intervals)| intervals.iter().map(move |run| (id, run)));
    let rows = rows.map(|(id, run)| {
        [
            id.to_string(),
            run.from.to_string(),
            run.to.to_string(),
            run.state.to_string(),
            or_none(run.event.as_ref().map(Word::to_string)),
            or_none(run.reason.as_ref().map(Word::to_string)),
        ]
    });
    let head = ["ID", "FROM", "TO", "STATE", "EVENT", "REASON"];
    table::render(head, &rows.collect::<Vec<_>>(), &[3, 4])
}

fn or_none(text: Option<String>) -> String {
    text.unwrap_or_else(|| NONE.to_owned())
}
