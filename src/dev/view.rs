//! The display of `groundstation dev`: which satellites are online, and the edges as they arrive on
//! NATS.
//!
//! A terminal gets a screen that is redrawn; other outputs get plain lines.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, queue};
use futures_util::{Stream, StreamExt};
use tokio::time::{MissedTickBehavior, interval};

use crate::clients::client::Client;
use crate::clients::watch::Seen;
use crate::contract::wire::SatelliteJson;
use crate::contract::word::Word;
use crate::domain::lifecycle::Event;

/// How often the fleet is read and the screen drawn.
const REFRESH: Duration = Duration::from_millis(500);

/// How often the fleet is printed without a terminal.
const PLAIN_REFRESH: Duration = Duration::from_secs(10);

/// Edges in memory: more than any screen has lines.
const MAX_EDGES: usize = 200;

/// Shows the fleet until it fails.
pub async fn show(
    welcome: &[String],
    address: SocketAddr,
    client: Client,
    triggers: impl Stream<Item = anyhow::Result<Seen>>,
) -> anyhow::Result<()> {
    let terminal = std::io::stdout().is_terminal();
    let _screen = terminal.then(Screen::enter).transpose()?;
    if !terminal {
        for line in welcome {
            println!("{line}");
        }
        println!("pod listens on http://{address}; edges as they arrive on NATS:");
    }
    let mut ticks = interval(if terminal { REFRESH } else { PLAIN_REFRESH });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut edges: VecDeque<Seen> = VecDeque::new();
    let mut received: u64 = 0;
    let mut triggers = std::pin::pin!(triggers);
    loop {
        tokio::select! {
            seen = triggers.next() => {
                let seen = seen.context("NATS is gone")??;
                received += 1;
                if !terminal {
                    println!("{}", seen.line(false));
                }
                edges.push_front(seen);
                edges.truncate(MAX_EDGES);
            }
            _ = ticks.tick() => {
                let client = client.clone();
                let asked = tokio::task::spawn_blocking(move || client.list(&[])).await?;
                let fleet = match asked {
                    Ok(fleet) => fleet,
                    // A pod that ends tells so itself; one that is busy answers later.
                    Err(error) => {
                        if !terminal {
                            eprintln!("groundstation: {error:#}; asking again");
                        }
                        continue;
                    }
                };
                if terminal {
                    draw(&screen(welcome, address, &fleet, &edges, received)?)?;
                } else {
                    println!("{}", summary(&fleet, received));
                }
            }
        }
    }
}

/// The terminal's alternate screen. Leaving it restores the first one.
struct Screen;

impl Screen {
    fn enter() -> anyhow::Result<Screen> {
        execute!(std::io::stdout(), EnterAlternateScreen, cursor::Hide).context("the terminal")?;
        Ok(Screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Err(error) = execute!(std::io::stdout(), LeaveAlternateScreen, cursor::Show) {
            tracing::debug!(%error, "the terminal is gone");
        }
    }
}

fn draw(lines: &[String]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    queue!(out, cursor::MoveTo(0, 0))?;
    for line in lines {
        write!(out, "{line}")?;
        queue!(out, Clear(ClearType::UntilNewLine), cursor::MoveToNextLine(1))?;
    }
    queue!(out, Clear(ClearType::FromCursorDown))?;
    out.flush().context("the terminal")
}

fn summary(fleet: &[SatelliteJson], received: u64) -> String {
    let online = fleet.iter().filter(|satellite| satellite.is_online()).count();
    format!("{online} of {} online · {received} edges received", fleet.len())
}

/// The screen's lines, as many as fit on the terminal.
fn screen(
    welcome: &[String],
    address: SocketAddr,
    fleet: &[SatelliteJson],
    edges: &VecDeque<Seen>,
    received: u64,
) -> anyhow::Result<Vec<String>> {
    let (width, height) = crossterm::terminal::size().context("the terminal's size")?;
    // Lines of the welcome are copied: they are not cut, and may take several rows.
    let rows = |line: &String| line.chars().count().div_ceil(usize::from(width).max(1));
    let folded = welcome.iter().map(rows).sum::<usize>().saturating_sub(welcome.len());
    let height = usize::from(height).saturating_sub(folded);
    let mut lines = vec![
        format!(
            "\x1b[1mGroundstation\x1b[0m  http://{address}  ·  {}  ·  Ctrl-C ends",
            summary(fleet, received)
        ),
        String::new(),
    ];
    lines.extend_from_slice(welcome);
    lines.push(String::new());
    lines.extend(fleet_lines(fleet, width.into()));
    lines.push(String::new());
    lines.push("\x1b[1mEdges as they arrive on NATS\x1b[0m, newest first".to_owned());
    if edges.is_empty() {
        lines.push("  (none yet: the satellites are connecting)".to_owned());
    }
    let room = height.saturating_sub(lines.len() + 1);
    lines.extend(edges.iter().take(room).map(|seen| cut(&seen.line(true), width.into())));
    lines.truncate(height.saturating_sub(1));
    Ok(lines)
}

/// The width of one satellite.
const CELL: usize = 38;

fn fleet_lines(fleet: &[SatelliteJson], width: usize) -> Vec<String> {
    let columns = (width / CELL).clamp(1, 4);
    let rows = fleet.len().div_ceil(columns);
    (0..rows)
        .map(|row| {
            let cells = (0..columns).filter_map(|column| fleet.get(column * rows + row)).map(cell);
            cells.collect::<String>()
        })
        .collect()
}

fn cell(satellite: &SatelliteJson) -> String {
    let last_event = satellite.last_event.as_ref().and_then(Word::known);
    let (code, mark) = match last_event {
        _ if satellite.is_online() => ("32", "● online"),
        Some(Event::HeartbeatLost) => ("31", "○ silent"),
        Some(Event::Connected) => ("33", "○ late"),
        _ => ("90", "○ away"),
    };
    let name: String = satellite.name.chars().take(14).collect();
    let region: String = satellite.region.chars().take(10).collect();
    format!("\x1b[{code}m{mark:<9}\x1b[0m {name:<15}{region:<13}")
}

/// Cuts a line with colours to a width, counting only visible characters.
fn cut(line: &str, width: usize) -> String {
    let (mut seen, mut in_escape, mut kept) = (0, false, String::new());
    for c in line.chars() {
        if c == '\x1b' {
            in_escape = true;
        }
        if !in_escape {
            if seen == width {
                continue;
            }
            seen += 1;
        }
        kept.push(c);
        if in_escape && c == 'm' {
            in_escape = false;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_to_what_is_seen_and_keeps_its_colours() {
        assert_eq!(cut("\x1b[32mconnected\x1b[0m", 4), "\x1b[32mconn\x1b[0m");
        assert_eq!(cut("short", 80), "short");
        assert_eq!(cut("söme", 2), "sö");
    }
}
