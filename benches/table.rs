//! The printed table: one line a figure, with its baseline, their ratio and the aim.

use crate::Scale;

/// The first line: the machine, and what the figures are worth.
pub fn head(scale: Scale) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    println!("{cores} cores, {}", model.map_or("", |(_, name)| name));
    if scale == Scale::Smoke {
        println!("smoke form: it works; the figures mean nothing");
    }
}

/// Begins a section.
pub fn section(title: &str) {
    println!("\n{title}");
    println!("{:<58} {:>14} {:>14} {:>6}   aim", "", "measured", "bare", "ratio");
}

/// A figure without a baseline.
pub fn figure(what: &str, measured: impl std::fmt::Display, aim: &str) {
    println!("{}", format!("{what:<58} {measured:>14} {:>14} {:>6}   {aim}", "", "").trim_end());
}

/// A figure, its baseline and their ratio: the part of the baseline for a rate, the multiple of it
/// for a time.
pub fn compared(
    what: &str,
    measured: impl std::fmt::Display,
    bare: impl std::fmt::Display,
    ratio: f64,
    aim: &str,
) {
    // What is a hundredth of its baseline is not nothing.
    let digits = if ratio < 0.1 { 4 } else { 2 };
    let line = format!("{what:<58} {measured:>14} {bare:>14} {ratio:>6.digits$}   {aim}");
    println!("{}", line.trim_end());
}

/// This many a second.
pub fn rate(count: usize, seconds: f64) -> String {
    format!("{:.0}/s", count as f64 / seconds)
}

/// Seconds.
pub fn seconds(seconds: f64) -> String {
    format!("{seconds:.2} s")
}

/// Milliseconds, from seconds.
pub fn millis(seconds: f64) -> String {
    format!("{:.2} ms", seconds * 1e3)
}

/// Mebibytes.
pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// A remark.
pub fn note(text: &str) {
    println!("  {text}");
}
