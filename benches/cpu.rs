//! Seconds of CPU of a process and of all that it has started: of this one, which are the servers and pgbench, or of
//! Postgres.

use std::collections::HashMap;

/// Hundredths of a second: the unit of CPU times that the kernel shows, see proc(5).
const TICKS_PER_SECOND: f64 = 100.0;

/// Of this process and what it started.
pub fn seconds() -> f64 {
    seconds_of(std::process::id())
}

/// So far, and of those that have ended and were waited for too. Nothing, where there is no `/proc`.
pub fn seconds_of(process: u32) -> f64 {
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0.0 };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let all: HashMap<u32, Process> = ids.filter_map(|id| Some((id, read(id)?))).collect();
    let is_ours = |id: &u32| {
        let mut ancestors = std::iter::successors(Some(*id), |id| Some(all.get(id)?.parent));
        ancestors.any(|id| id == process)
    };
    let ticks: f64 = all.iter().filter(|(id, _)| is_ours(id)).map(|(_, it)| it.ticks).sum();
    ticks / TICKS_PER_SECOND
}

struct Process {
    parent: u32,
    /// Its own ticks and those of the children it has waited for, in user space and in the kernel.
    ticks: f64,
}

fn read(id: u32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The program's name, in brackets, may hold any character. The fields from the third on come
    // after it.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3);
    let ticks = (14..=17).map(|number| field(number)?.parse::<f64>().ok()).sum::<Option<f64>>()?;
    Some(Process { parent: field(4)?.parse().ok()?, ticks })
}
