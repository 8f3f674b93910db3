//! The cost of a process: the simulator's own share of a machine, so that it is not taken for a
//! pod's.
//!
//! Read from Linux' `/proc`; elsewhere it is unknown.

use serde::Serialize;

/// Hundredths of a second: the unit of CPU times that the kernel shows, see proc(5).
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU and memory of a process so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// Seconds of CPU that it has used, in user space and in the kernel.
    pub cpu_seconds: f64,
    /// Its memory in RAM now.
    pub resident_bytes: u64,
    /// The most memory that it had in RAM.
    pub peak_resident_bytes: u64,
}

/// The cost of this process.
pub fn own() -> Option<Cost> {
    read("self")
}

/// The cost of another process; `None` if it is gone or the system does not say.
pub fn of(process: u32) -> Option<Cost> {
    read(&process.to_string())
}

fn read(process: &str) -> Option<Cost> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    parse(&stat, &status)
}

fn parse(stat: &str, status: &str) -> Option<Cost> {
    // The program's name, in brackets, may hold any character. The fields from the third on come
    // after it.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    Some(Cost {
        cpu_seconds: (ticks(14)? + ticks(15)?) / TICKS_PER_SECOND,
        resident_bytes: bytes("VmRSS:")?,
        peak_resident_bytes: bytes("VmHWM:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_read_whatever_the_programs_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 4 0 100 1 2";
        let status = "Name:\ta) b (c\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let cost = Cost {
            cpu_seconds: 3.0,
            resident_bytes: 1024 * 1024,
            peak_resident_bytes: 2048 * 1024,
        };
        assert_eq!(parse(stat, status), Some(cost));
        assert_eq!(parse("7 (gone)", status), None);
    }
}
