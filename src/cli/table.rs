//! Tables for people: columns as wide as they need to be, two spaces apart.

use anstyle::{AnsiColor, Style};

use crate::clients::printable::printable;
use crate::contract::tokens::SelectorJson;

const HEAD: Style = Style::new().bold();

/// A selector in one cell.
pub fn selector(SelectorJson { region, tags }: &SelectorJson) -> String {
    let region = region.iter().map(|region| format!("region {region}"));
    let tags = tags.iter().map(|(name, value)| format!("{name}:{value}"));
    region.chain(tags).collect::<Vec<_>>().join(" ")
}

/// Lays rows out under a head. The columns of `states` have words of states: each has its own colour beside the word.
pub fn render<const N: usize>(head: [&str; N], rows: &[[String; N]], states: &[usize]) -> String {
    let rows: Vec<[_; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| printable(cell))).collect();
    let mut widths = head.map(|title| title.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N], style: &dyn Fn(usize, &str) -> Style| {
        let last = cells.iter().rposition(|cell| !cell.is_empty()).unwrap_or(0);
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate().take(last + 1) {
            let style = style(column, cell);
            line.push_str(&format!("{style}{cell}{style:#}"));
            if column < last {
                let gap = widths[column] - cell.chars().count() + 2;
                line.push_str(&" ".repeat(gap));
            }
        }
        line
    };
    let mut text = line(head, &|_, _| HEAD);
    for row in &rows {
        text.push('\n');
        let of_state = |column: usize, cell: &str| match states.contains(&column) {
            true => of_state(cell),
            false => Style::new(),
        };
        text.push_str(&line(row.each_ref().map(|cell| &**cell), &of_state));
    }
    text
}

/// The colour of a state's word.
fn of_state(word: &str) -> Style {
    let colour = match word.split(',').next().unwrap_or_default() {
        "online" | "up" | "connected" => AnsiColor::Green,
        "offline" | "down" | "heartbeat_lost" => AnsiColor::Red,
        "unknown" | "disconnected" | "maintenance" => AnsiColor::Yellow,
        _ => return Style::new(),
    };
    colour.on_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["edge-eu", "eu"], ["é", "us-east"]].map(|row| row.map(str::to_owned));
        let table = render(["NAME", "REGION"], &rows, &[]);
        assert_eq!(plain(&table), "NAME     REGION\nedge-eu  eu\né        us-east");
    }

    #[test]
    fn only_the_word_of_a_state_has_a_colour_and_no_cell_brings_its_own() {
        let rows = [["online".to_owned(), "online".to_owned()], ["\x1b[31m".into(), "?".into()]];
        let table = render(["NAME", "STATUS"], &rows, &[1]);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[1].starts_with("online ") && lines[1].ends_with("\x1b[32monline\x1b[0m"));
        assert_eq!(lines[2], "\\u{1b}[31m  ?");
    }
}
