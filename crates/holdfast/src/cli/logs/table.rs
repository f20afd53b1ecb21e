//! Windows from a CSV file, one row at a time: sequences of events (`id,events`) or counts (`id` and a column for
//! each pattern). A row that is none stops the reading, with its line number.

use super::super::rows::{RowError, Rows};
use holdfast_logs::{Window, escape};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::BufRead;

/// No line is longer than this, in bytes.
const LONGEST: usize = 1 << 20;

/// Patterns that are told apart by name; all others count as one.
const MOST_NAMES: usize = 65_536;

/// Bytes of a name that are kept.
const LONGEST_NAME: usize = 200;

/// Characters of a cell that are shown.
const SHOWN: usize = 40;

/// Columns that are no counts: what would give the answer away is not looked at.
const NOT_COUNTS: [&str; 4] = ["id", "split", "label", "kind"];

/// Why a file cannot be read as windows.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// There is no next line.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The first line names no columns that are understood.
    #[error("line {line} must name the columns: `id` and `events`, or `id` and one for each pattern")]
    Header {
        /// Which.
        line: u64,
    },
    /// Another number of cells than the header has.
    #[error("line {line} has {found} cells, the header has {expected}")]
    Cells {
        /// Which.
        line: u64,
        /// Its cells.
        found: usize,
        /// Those of the header.
        expected: usize,
    },
    /// Not a count.
    #[error("line {line}: `{cell}` is not a count")]
    Count {
        /// Which.
        line: u64,
        /// What stands there, tamed and cut.
        cell: String,
    },
}

/// Patterns by the names that files give them.
#[derive(Default)]
pub struct Names {
    numbers: BTreeMap<String, u32>,
    names: Vec<String>,
}

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        let name =
            if name.len() > LONGEST_NAME { &name[..name.floor_char_boundary(LONGEST_NAME)] } else { name };
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.names.len() as u32;
        if self.names.len() < MOST_NAMES {
            self.numbers.insert(name.to_owned(), number);
            self.names.push(name.to_owned());
        }
        number
    }

    /// What it is called, fit to be shown.
    pub fn name(&self, number: u32) -> String {
        self.names.get(number as usize).map_or("(others)".to_owned(), |name| escape(name, LONGEST_NAME))
    }
}

/// What stands in the columns.
enum Shape {
    Sequences { events: usize },
    Counts { patterns: Vec<Option<u32>> },
}

struct Header {
    id: usize,
    split: Option<usize>,
    width: usize,
    shape: Shape,
}

/// One row.
pub struct Row {
    pub id: String,
    /// Which part of the data it belongs to, if the file says so.
    pub split: Option<String>,
    pub window: Window,
}

/// The rows of a file.
pub struct Table<R> {
    rows: Rows<R>,
    header: Option<Header>,
}

impl<R: BufRead> Table<R> {
    pub fn new(from: R) -> Self {
        Self { rows: Rows::new(from, LONGEST), header: None }
    }

    /// The next row, if there is one.
    pub fn next(&mut self, names: &mut Names) -> Result<Option<Row>, TableError> {
        if self.header.is_none() {
            let found = self.rows.next()?.and_then(|(_, first)| header(first, names));
            let line = self.rows.line.max(1);
            self.header = Some(found.ok_or(TableError::Header { line })?);
        }
        let (Some(header), Some((line, text))) = (&self.header, self.rows.next()?) else { return Ok(None) };
        row(header, text, line, names).map(Some)
    }
}

fn header(line: &str, names: &mut Names) -> Option<Header> {
    let cells = cells(line);
    let place = |name: &str| cells.iter().position(|cell| cell.trim().eq_ignore_ascii_case(name));
    let shape = match place("events") {
        Some(events) => Shape::Sequences { events },
        None => {
            let is_count = |cell: &str| !NOT_COUNTS.iter().any(|name| cell.eq_ignore_ascii_case(name));
            let number = |cell: &Cow<'_, str>| is_count(cell.trim()).then(|| names.number(cell.trim()));
            Shape::Counts { patterns: cells.iter().map(number).collect() }
        }
    };
    let has_columns = match &shape {
        Shape::Sequences { .. } => true,
        Shape::Counts { patterns } => patterns.iter().any(Option::is_some),
    };
    let id = place("id").filter(|_| has_columns)?;
    Some(Header { id, split: place("split"), width: cells.len(), shape })
}

fn row(header: &Header, text: &str, line: u64, names: &mut Names) -> Result<Row, TableError> {
    let cells = cells(text);
    if cells.len() != header.width {
        return Err(TableError::Cells { line, found: cells.len(), expected: header.width });
    }
    let window = match &header.shape {
        Shape::Sequences { events } => {
            cells[*events].split_whitespace().map(|event| names.number(event)).collect()
        }
        Shape::Counts { patterns } => {
            let mut window = Window::default();
            for (pattern, cell) in patterns.iter().zip(&cells) {
                let Some(pattern) = pattern else { continue };
                let count = count(cell.trim());
                let refused = || TableError::Count { line, cell: escape(cell, SHOWN) };
                window.add(*pattern, count.ok_or_else(refused)?);
            }
            window
        }
    };
    let split = header.split.map(|column| cells[column].trim().to_owned());
    Ok(Row { id: cells[header.id].trim().to_owned(), split, window })
}

/// A whole number, also as `3.0`.
fn count(cell: &str) -> Option<u32> {
    let number: f64 = cell.parse().ok()?;
    (number >= 0.0 && number <= f64::from(u32::MAX) && number.fract() == 0.0).then_some(number as u32)
}

/// The cells of a line; within double quotes a comma is a comma, and two double quotes are one.
fn cells(line: &str) -> Vec<Cow<'_, str>> {
    if !line.contains('"') {
        return line.split(',').map(Cow::Borrowed).collect();
    }
    let (mut found, mut cell, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if is_quoted && letters.peek() == Some(&'"') => cell.extend(letters.next()),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => found.push(Cow::Owned(std::mem::take(&mut cell))),
            other => cell.push(other),
        }
    }
    found.push(Cow::Owned(cell));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Result<Vec<Row>, TableError> {
        let (mut table, mut names, mut rows) = (Table::new(text), Names::default(), Vec::new());
        while let Some(row) = table.next(&mut names)? {
            rows.push(row);
        }
        Ok(rows)
    }

    fn counts(row: &Row) -> Vec<(u32, u32)> {
        row.window.counts().collect()
    }

    #[test]
    fn sequences_and_counts_are_told_apart_by_the_header() {
        let rows = all(b"id,split,events\r\na,train,7 8 7\r\n\r\n\"b,\"\"1\",test,\n").expect("sequences");
        assert_eq!((rows[0].id.as_str(), rows[0].split.as_deref()), ("a", Some("train")));
        assert_eq!((counts(&rows[0]), rows[1].id.as_str()), (vec![(0, 2), (1, 1)], "b,\"1"));
        let rows = all(b"\xef\xbb\xbfid,\"x,y\",label,z\n1,2,1,0\n2,0,0,3.0\n").expect("counts");
        assert_eq!((counts(&rows[0]), counts(&rows[1])), (vec![(0, 2)], vec![(1, 3)]));
        assert_eq!(all(b"id,x\n").expect("no rows").len(), 0);
    }

    #[test]
    fn a_row_that_is_none_is_named_by_its_line() {
        let said = |text: &[u8]| all(text).err().expect("refused").to_string();
        assert!(said(b"").starts_with("line 1 must name the columns"));
        assert!(said(b"\n1,2,3\n").starts_with("line 2 must name the columns"));
        assert!(said(b"id,label\n1,0\n").starts_with("line 1 must name"));
        assert_eq!(said(b"id,x\n1,2\n\n2,3,4\n"), "line 4 has 3 cells, the header has 2");
        for cell in ["-1", "x", "", "1.5", "1e99", "NaN", "\x1b[2J"] {
            let text = said(format!("id,x\n1,{cell}\n").as_bytes());
            assert!(text.starts_with("line 2: `") && !text.contains('\x1b'), "{text:?}");
        }
        assert_eq!(said(b"id,x\n\xff,1\n"), "line 2 is not UTF-8 text");
        let long = [b"id,events\n1,".to_vec(), vec![b'x'; 2 << 20]].concat();
        assert_eq!(said(&long), "line 2 is longer than 1048576 bytes");
    }

    #[test]
    fn names_without_end_become_one() {
        let mut names = Names::default();
        let numbers: Vec<u32> = (0..70_000).map(|n| names.number(&n.to_string())).collect();
        assert_eq!((numbers[65_535], numbers[65_536], numbers[69_999]), (65_535, 65_536, 65_536));
        assert_eq!((names.name(7), names.name(65_536)), ("7".to_owned(), "(others)".to_owned()));
        assert_eq!(names.number("7"), 7);
    }
}
