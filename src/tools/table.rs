//! Tables for people: columns aligned, numbers to the right, no wider than the terminal.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal as _};

/// Between two columns.
const GAP: &str = "  ";

/// A column of text is not cut below this.
const TEXT_COLUMN_MIN: usize = 8;

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// To the left; cut with an ellipsis where the terminal is too narrow.
    Text(&'static str),
    /// To the right, never cut.
    Number(&'static str),
}

/// See the head of this file.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(columns: &[Column]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// The whole table with its headings, in lines of at most `width` characters if its columns of text can be cut so
    /// far.
    pub fn text(&self, width: Option<usize>) -> String {
        let widths = self.widths(width.unwrap_or(usize::MAX));
        let headings = self.columns.iter().map(|column| column.heading().to_owned()).collect();
        let mut text = String::new();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let cells = row.iter().zip(&self.columns).zip(&widths);
            let line: Vec<String> = cells.map(|((cell, column), width)| column.fit(cell, *width)).collect();
            text.push_str(line.join(GAP).trim_end());
            text.push('\n');
        }
        text
    }

    /// Each column as wide as its widest cell; while that is too much together, the widest of text loses.
    fn widths(&self, limit: usize) -> Vec<usize> {
        let widest = |index: usize, column: &Column| {
            let cells = self.rows.iter().map(|row| characters(&row[index])).max().unwrap_or(0);
            cells.max(characters(column.heading()))
        };
        let mut widths: Vec<usize> =
            self.columns.iter().enumerate().map(|(index, column)| widest(index, column)).collect();
        let gaps = GAP.len() * self.columns.len().saturating_sub(1);
        loop {
            let excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(limit);
            let texts = self.columns.iter().zip(&mut widths);
            let widest = texts.filter(|(column, _)| matches!(column, Column::Text(_))).map(|(_, width)| width).max();
            match widest {
                Some(width) if excess > 0 && *width > TEXT_COLUMN_MIN => *width -= 1,
                _ => return widths,
            }
        }
    }
}

impl Column {
    fn heading(&self) -> &'static str {
        match self {
            Column::Text(heading) | Column::Number(heading) => heading,
        }
    }

    fn fit(&self, cell: &str, width: usize) -> String {
        let length = characters(cell);
        match self {
            Column::Number(_) => format!("{}{cell}", " ".repeat(width.saturating_sub(length))),
            Column::Text(_) if length > width => {
                cell.chars().take(width.saturating_sub(1)).chain(std::iter::once('…')).collect()
            }
            Column::Text(_) => format!("{cell}{}", " ".repeat(width - length)),
        }
    }
}

fn characters(text: &str) -> usize {
    text.chars().count()
}

/// How wide lines may be: what the person says with COLUMNS, or the terminal; anything goes into a file or a pipe.
pub fn output_width() -> Option<usize> {
    let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|columns| *columns > 0);
    let terminal = || terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
    said.or_else(|| if io::stdout().is_terminal() { terminal() } else { None })
}

/// Bytes for people: three digits or so, in units of 1024.
pub fn human_bytes(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Ids in a list: `1,2,3`.
pub fn ids(ids: &[i32]) -> String {
    ids.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[Column::Text("NAME"), Column::Number("BYTES"), Column::Text("HOST")]);
        table.row(vec!["a-rather-long-name-é".into(), "12".into(), "h".into()]);
        table.row(vec!["b".into(), "1234567".into(), "another-host".into()]);
        table
    }

    #[test]
    fn numbers_stand_right_and_nothing_trails() {
        assert_eq!(
            table().text(None),
            "NAME                    BYTES  HOST\n\
             a-rather-long-name-é       12  h\n\
             b                     1234567  another-host\n"
        );
    }

    #[test]
    fn a_narrow_terminal_cuts_the_widest_text_and_no_number() {
        let text = table().text(Some(33));
        assert_eq!(
            text,
            "NAME           BYTES  HOST\n\
             a-rather-l…       12  h\n\
             b            1234567  another-ho…\n"
        );
        assert!(table().text(Some(5)).contains("1234567"));
    }

    #[test]
    fn bytes_have_units_of_1024() {
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_048_575, "1.0 MiB")] {
            assert_eq!(human_bytes(bytes), text);
        }
        assert_eq!(human_bytes(i64::MAX), "8.0 EiB");
    }
}
