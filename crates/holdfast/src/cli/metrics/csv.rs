//! Reading a series from CSV: one row at a time, however long the file. A row that is no row stops the reading, with
//! its line number; a row without a number ("", NaN, inf, 1e999) is a row on which nothing was measured.

use crate::cli::rows::{self, RowError};
use crate::config::tame;
use holdfast_core::time::Timestamp;
use std::io::BufRead;

/// No line of a series is longer than this, in bytes.
const LONGEST: usize = 4_096;
/// Of a cell that is not understood, so many characters are shown.
const SHOWN: usize = 40;
/// Whole numbers from here on are milliseconds, microseconds, nanoseconds since 1970: seconds would be in the year 5138.
const MILLIS_FROM: f64 = 1e11;

/// A row: when, as it is written and as it is meant, and what was measured, if anything.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The time as the file writes it.
    pub written: String,
    /// The time.
    pub at: Timestamp,
    /// The value; not a number where nothing was measured.
    pub value: f64,
}

/// Why a file cannot be read as a series.
#[derive(Debug, thiserror::Error)]
pub enum CsvError {
    /// There is no next line.
    #[error(transparent)]
    Row(#[from] RowError),
    /// There is nothing in it.
    #[error("it has no rows")]
    Empty,
    /// Too few cells.
    #[error("line {line} has no column {column}")]
    Short {
        /// Which.
        line: u64,
        /// Counted from 1.
        column: usize,
    },
    /// Not a time.
    #[error("line {line}: `{cell}` is not a time")]
    Time {
        /// Which.
        line: u64,
        /// What stands there, tamed and cut.
        cell: String,
    },
    /// Not a number.
    #[error("line {line}: `{cell}` is not a number")]
    Number {
        /// Which.
        line: u64,
        /// What stands there, tamed and cut.
        cell: String,
    },
}

/// The rows of a CSV file, one after the other.
pub struct Rows<R> {
    lines: rows::Rows<R>,
    columns: Option<(usize, usize)>,
    done: bool,
}

impl<R: BufRead> Rows<R> {
    /// Of this text.
    pub fn new(from: R) -> Self {
        Self { lines: rows::Rows::new(from, LONGEST), columns: None, done: false }
    }

    /// How many bytes have been read.
    pub fn bytes(&self) -> u64 {
        self.lines.bytes
    }

    /// The next line that is not empty.
    fn line(&mut self) -> Result<Option<String>, CsvError> {
        Ok(self.lines.next()?.map(|(_, text)| text.trim().to_owned()))
    }

    fn row(&mut self) -> Result<Option<Row>, CsvError> {
        let Some(mut text) = self.line()? else {
            return if self.columns.is_none() { Err(CsvError::Empty) } else { Ok(None) };
        };
        let columns = match self.columns {
            Some(columns) => columns,
            None => {
                let (columns, head) = columns(&text);
                self.columns = Some(columns);
                if head {
                    let Some(first) = self.line()? else { return Err(CsvError::Empty) };
                    text = first;
                }
                columns
            }
        };
        self.parse(&text, columns).map(Some)
    }

    fn parse(&self, text: &str, (time, value): (usize, usize)) -> Result<Row, CsvError> {
        let line = self.lines.line;
        let cell =
            |column: usize| cells(text).nth(column).ok_or(CsvError::Short { line, column: column + 1 });
        let (written, number) = (cell(time)?, cell(value)?);
        let at = moment(written).ok_or_else(|| CsvError::Time { line, cell: cut(written) })?;
        let value = measured(number).ok_or_else(|| CsvError::Number { line, cell: cut(number) })?;
        Ok(Row { written: written.to_owned(), at, value })
    }
}

impl<R: BufRead> Iterator for Rows<R> {
    type Item = Result<Row, CsvError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let row = self.row();
        self.done = !matches!(row, Ok(Some(_)));
        row.transpose()
    }
}

/// The cells of a line. Quotes around a cell are taken off; no time or number has a comma in it.
fn cells(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(|cell| cell.trim().trim_matches('"').trim())
}

/// Which columns hold the time and the value, and whether this first line is a header that says so. Without names
/// that are understood they are the first two.
fn columns(first: &str) -> ((usize, usize), bool) {
    let names: Vec<String> = cells(first).take(64).map(str::to_lowercase).collect();
    let named = |words: &[&str]| names.iter().position(|name| words.contains(&name.as_str()));
    let head = names.first().is_some_and(|cell| moment(cell).is_none());
    let time = named(&["timestamp", "time", "date", "datetime", "ts"]).unwrap_or(0);
    let value = named(&["value", "v", "metric"]).unwrap_or(usize::from(time == 0));
    ((time, value), head)
}

/// A time as people and programs write it: `2014-04-01 00:05:00` (UTC if no zone is given), with `T`, fraction, `Z` or
/// `+02:00`; or seconds, milliseconds, microseconds or nanoseconds since 1970. Nothing before 1970.
fn moment(cell: &str) -> Option<Timestamp> {
    if let Ok(number) = cell.parse::<f64>() {
        let mut seconds = number;
        while seconds.is_finite() && seconds >= MILLIS_FROM {
            seconds /= 1_000.0;
        }
        return (seconds >= 0.0 && seconds.is_finite())
            .then(|| Timestamp::from_micros((seconds * 1e6).round() as u64));
    }
    let micros = match cell.parse::<jiff::Timestamp>() {
        Ok(at) => at.as_microsecond(),
        Err(_) => {
            let civil = cell.parse::<jiff::civil::DateTime>().ok()?;
            civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_microsecond()
        }
    };
    u64::try_from(micros).ok().map(Timestamp::from_micros)
}

/// A number, or not a number where nothing was measured; `None` for what is neither.
fn measured(cell: &str) -> Option<f64> {
    match cell.to_ascii_lowercase().as_str() {
        "" | "null" | "none" | "na" | "n/a" | "-" => Some(f64::NAN),
        text => text.parse().ok(),
    }
}

fn cut(cell: &str) -> String {
    tame(&cell.chars().take(SHOWN).collect::<String>())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Vec<Row>, CsvError> {
        Rows::new(text.as_bytes()).collect()
    }

    fn said(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        let at = Timestamp::from_secs(1_396_310_700);
        for text in [
            "2014-04-01 00:05:00",
            "2014-04-01T00:05:00",
            "2014-04-01 00:05",
            "2014-04-01 00:05:00.000000",
            "2014-04-01T00:05:00Z",
            "2014-04-01T02:05:00+02:00",
            "1396310700",
            "1396310700.0",
            "1396310700000",
            "1396310700000000",
            "1396310700000000000",
        ] {
            assert_eq!(moment(text), Some(at), "{text}");
        }
        for text in
            ["", "yesterday", "-5", "1969-12-31 23:59:59", "NaN", "inf", "1e999", "2014-13-01 00:00:00"]
        {
            assert_eq!(moment(text), None, "{text}");
        }
    }

    #[test]
    fn columns_are_found_by_name_or_are_the_first_two() {
        let rows = read("host,value,timestamp\na,5,10\n").unwrap();
        assert_eq!((rows[0].value, rows[0].at), (5.0, Timestamp::from_secs(10)));
        let rows = read("when,cpu\n10,5\n20,6").unwrap();
        assert_eq!(rows.iter().map(|row| row.value).collect::<Vec<_>>(), [5.0, 6.0]);
        assert_eq!(
            read("\u{feff}\"10\",\"5\"\r\n\r\n20,6\r\n").unwrap().len(),
            2,
            "no header, and what Windows adds"
        );
    }

    #[test]
    fn where_nothing_was_measured_the_row_stays() {
        let rows = read("timestamp,value\n1,NaN\n2,\n3,1e999\n4,-inf\n5,null\n6,7\n").unwrap();
        assert_eq!(rows.iter().filter(|row| row.value.is_finite()).count(), 1);
        assert_eq!(rows.len(), 6);
    }

    #[test]
    fn a_bad_row_is_told_with_its_line() {
        assert_eq!(said(""), "it has no rows");
        assert_eq!(said("timestamp,value\n"), "it has no rows");
        assert_eq!(said("timestamp,value\n1,2\n\nsoon,2\n"), "line 4: `soon` is not a time");
        assert_eq!(said("timestamp,value\n1,2\n2,x\u{1b}[2J\n"), "line 3: `x\\u{1b}[2J` is not a number");
        assert_eq!(said("timestamp,value\n1\n"), "line 2 has no column 2");
        assert_eq!(
            said(&format!("timestamp,value\n1,{}\n", "9".repeat(LONGEST))),
            "line 2 is longer than 4096 bytes"
        );
        let raw: &[u8] = b"timestamp,value\n1,\xff\n";
        assert_eq!(Rows::new(raw).next().unwrap().unwrap_err().to_string(), "line 2 is not UTF-8 text");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_go_on_for_ever(text in "(timestamp,value\n)?([0-9a-z:, .\"\n\u{1b}-]{0,80})") {
            let lines = text.lines().count();
            prop_assert!(Rows::new(text.as_bytes()).count() <= lines + 1);
        }
    }
}
