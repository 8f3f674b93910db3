//! What commands print, and in which form.

use std::fmt;
use std::io::{self, Write};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::exit::wrong_usage;
use crate::clients::printable::printable_lines;

/// Prints a line, without what would steer a terminal. Whoever reads may close the pipe when it has read enough: that is
/// no error, and what a command does besides goes on. Any other failure ends the program: an output that lacks lines must
/// not pass for whole.
pub(super) fn line(text: fmt::Arguments<'_>) {
    styled(&printable_lines(&text.to_string()));
}

/// The same for text that has its own styles; they are left out where the output takes none.
pub(super) fn styled(text: &str) {
    match writeln!(anstream::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("groundstation: cannot print: {error}");
            std::process::exit(1);
        }
        _ => {}
    }
}

/// `println!` for commands; see [`line()`].
macro_rules! print_line {
    ($($text:tt)*) => {
        $crate::cli::output::line(format_args!($($text)*))
    };
}

pub(crate) use print_line;

/// In which form an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people.
    Table,
    /// The same with more columns, where there are more.
    Wide,
    /// JSON for programs.
    Json,
    /// The same as YAML.
    Yaml,
    /// Only names, one a line.
    Name,
}

/// The options that say how an answer is printed.
#[derive(Args)]
pub struct OutputArgs {
    /// How to print: table, wide (more columns), json, yaml, or name (only names, one a line) [default: table]
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        hide_possible_values = true,
        value_name = "FORMAT",
        conflicts_with = "json"
    )]
    output: Option<Format>,

    /// The same as -o json
    #[arg(long, global = true)]
    json: bool,
}

impl OutputArgs {
    /// The form that was asked for.
    pub fn format(&self) -> Format {
        match (self.json, self.output) {
            (true, _) => Format::Json,
            (false, format) => format.unwrap_or(Format::Table),
        }
    }

    /// Whether it is a form for programs.
    pub fn is_for_programs(&self) -> bool {
        matches!(self.format(), Format::Json | Format::Yaml)
    }

    /// Refuses `-o name` for a command whose answer has no names, or has more that must not get lost.
    pub fn refuse_names(&self, why: &str) -> anyhow::Result<()> {
        match self.format() {
            Format::Name => Err(wrong_usage(anyhow!("-o name is not possible here: {why}"))),
            _ => Ok(()),
        }
    }

    /// Prints an answer in the form that was asked for.
    pub fn print(&self, answer: &impl Serialize, shown: Shown<'_>) -> anyhow::Result<()> {
        match self.format() {
            Format::Table => styled(&(shown.table)(false)),
            Format::Wide => styled(&(shown.table)(true)),
            Format::Name => (shown.names)().iter().for_each(|name| print_line!("{name}")),
            Format::Json => json(answer)?,
            Format::Yaml => print_line!("{}", serde_yaml_ng::to_string(answer)?.trim_end()),
        }
        Ok(())
    }
}

/// An answer as people read it.
pub struct Shown<'a> {
    /// The table; with more columns if it may be wide.
    pub table: &'a dyn Fn(bool) -> String,
    /// The names in it.
    pub names: &'a dyn Fn() -> Vec<String>,
}

impl Shown<'_> {
    /// For what is printed here for programs only.
    pub const NOTHING_ELSE: Shown<'static> = Shown { table: &|_| String::new(), names: &Vec::new };
}

/// Prints JSON.
pub(super) fn json(answer: &impl Serialize) -> anyhow::Result<()> {
    print_line!("{}", escaped(&serde_json::to_string_pretty(answer)?));
    Ok(())
}

/// JSON without the control characters that it lets stand in strings and that some terminals obey.
pub(super) fn escaped(json: &str) -> String {
    let is_control = |c: char| ('\u{7f}'..='\u{9f}').contains(&c);
    json.chars().fold(String::with_capacity(json.len()), |mut text, c| {
        match is_control(c) {
            true => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => text.push(c),
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_says_the_same_without_a_control_character_in_it() {
        let name = "a\u{7f}\u{9b}31mé\u{1b}";
        let json = escaped(&serde_json::json!({ "name": name }).to_string());
        assert!(!json.chars().any(char::is_control), "{json}");
        let back: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(back["name"], name);
    }
}
