//! Following a live stream on the command line: what comes, without a gap, whatever happens to the pod or the connection.

use std::io::{BufRead, BufReader, Write};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::output::{self, Format};
use crate::clients::client::{Client, Refused};
use crate::clients::printable::printable;

/// Between two tries to follow again.
const PAUSE: Duration = Duration::from_secs(1);

/// What is followed, and how one of it is shown.
pub struct Followed<'a, T> {
    /// The route of the stream.
    pub path: &'a str,
    /// The parameters of the request.
    pub filters: &'a [(&'a str, String)],
    /// In which form it is printed.
    pub format: Format,
    /// The place of one.
    pub position: fn(&T) -> i64,
    /// The cells of its line.
    pub cells: fn(&T) -> Vec<String>,
}

impl<T: DeserializeOwned + Serialize> Followed<'_, T> {
    /// Prints what comes behind a position, or from now on; comes back with the last position it printed.
    pub fn print(&self, client: &Client, after: Option<i64>) -> anyhow::Result<()> {
        let mut last = after;
        // The first try may fail for good: a wrong address, a wrong token.
        let mut stream = client.stream(self.path, last, self.filters)?;
        eprintln!("following; Ctrl-C ends");
        loop {
            match self.print_stream(BufReader::new(stream), &mut last) {
                Ok(()) => {}
                Err(error) if is_closed(&error) => return Ok(()),
                Err(error) => {
                    eprintln!("groundstation: the stream broke: {error:#}; trying again");
                }
            }
            stream = loop {
                match client.stream(self.path, last, self.filters) {
                    Ok(stream) => break stream,
                    // What follows is gone, or is of another log: nobody may pass over that unseen.
                    Err(error) if is_final(&error) => return Err(error),
                    Err(error) => {
                        eprintln!("groundstation: {error:#}");
                        sleep(PAUSE);
                    }
                }
            };
        }
    }

    /// Prints the events of one stream until it ends. Where all of them are asked for, none may be missing.
    fn print_stream(&self, stream: impl BufRead, last: &mut Option<i64>) -> anyhow::Result<()> {
        let (mut passed, is_whole) = (None, self.filters.is_empty());
        for line in stream.lines() {
            let line = line.map_err(|error| anyhow::anyhow!("{error}"))?;
            let field = |name: &str| line.strip_prefix(name).map(str::trim_start);
            if let Some(id) = field("id:") {
                passed = Some(id.parse().context("an id is no position")?);
            } else if let Some(data) = field("data:") {
                let one: T =
                    serde_json::from_str(data).context("an event is not what it should be")?;
                let position = (self.position)(&one);
                let follows = |last: i64| position == last + 1 || (!is_whole && position > last);
                if last.is_some_and(|last| !follows(last)) {
                    bail!("position {position} came out of turn");
                }
                writeln!(std::io::stdout(), "{}", self.text(data, &one)?)?;
                (*last, passed) = (Some(position), None);
            } else if line.is_empty()
                && let Some(position) = passed.take()
            {
                // An id without data tells where a stream of the present begins, or how far one with filters is.
                if last.is_none() || !is_whole {
                    *last = Some(position);
                }
            }
        }
        Ok(())
    }

    fn text(&self, data: &str, one: &T) -> anyhow::Result<String> {
        Ok(match self.format {
            Format::Json => output::escaped(data),
            Format::Yaml => format!("---\n{}", serde_yaml_ng::to_string(one)?.trim_end()),
            Format::Table | Format::Wide | Format::Name => {
                let cells = (self.cells)(one);
                let cells: Vec<_> = cells.iter().map(|cell| printable(cell)).collect();
                cells.join("  ")
            }
        })
    }
}

/// Whether asking again will not help.
fn is_final(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| (400..500).contains(&refused.status))
}

/// Whoever read this has seen enough, `transitions --follow | head` for one.
fn is_closed(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}
