//! Tables for people: columns as wide as they need to be, two spaces apart.

/// Lays rows out under a head.
pub fn render<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|title| title.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut text = line(&head.map(str::to_owned));
    for row in rows {
        text.push('\n');
        text.push_str(&line(row));
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["edge-eu", "eu"], ["é", "us-east"]].map(|row| row.map(str::to_owned));
        assert_eq!(
            super::render(["NAME", "REGION"], &rows),
            "NAME     REGION\nedge-eu  eu\né        us-east"
        );
    }
}
