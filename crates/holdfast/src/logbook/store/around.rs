//! The line that a statement quotes, found again among the kept ones, with what its source said before and after.
//!
//! A line is told to the engine and kept on two ways, at nearly the same moment, and the console's is told before the
//! lines that belong to it have come: it is found by its words and its time, not by a number.

use super::search::{Query, SearchError, Shelf};
use super::{Owner, Stored};
use holdfast_logs::{LONGEST_LINE, escape};
use rusqlite::params;
use std::sync::atomic::AtomicBool;

/// Between the two ways there lies no more than this, in microseconds.
const APART: i64 = 10_000_000;
/// What was said longer before or after tells nothing of it.
const NEAR: i64 = 600_000_000;
/// What was told so lately may not be written yet.
const WRITES_WITHIN: i64 = 3_000_000;
/// Characters of a line that was cut, by which it is found.
const TAIL: usize = 100;
/// A shorter line is like too many.
const SHORTEST: usize = 8;

/// A line that was told, as it is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Among whose records.
    pub owner: Owner,
    /// When it was read, in microseconds since 1970.
    pub at: i64,
    /// The line, as it was told: escaped, and cut with `…`.
    pub line: String,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Around {
    /// The line, by the number of its record, among those of its source; the oldest first.
    Lines {
        /// The record with the line.
        proof: u64,
        /// Itself and its neighbours.
        records: Vec<Stored>,
    },
    /// It has left: all that is kept is younger.
    Left,
    /// It was told just now, and is not written yet.
    Unwritten,
    /// It is not among the kept ones.
    Unknown,
}

impl Shelf {
    /// Finds a quoted line, with so many records of its source before it and as many after it. `now` is in microseconds
    /// since 1970.
    pub fn around(
        &self,
        quoted: &Quoted,
        now: i64,
        each: usize,
        gone: &AtomicBool,
    ) -> Result<Around, SearchError> {
        let Some(number) = self.proof(quoted, gone)? else { return self.missing(quoted, now) };
        let of = Query::newest(quoted.owner.clone(), 1);
        let itself = Query { after: Some(number.saturating_sub(1)), before: Some(number + 1), ..of.clone() };
        let Some(proof) = self.search(&itself, gone)?.records.pop() else { return self.missing(quoted, now) };
        let of = Query { source: Some(proof.source.as_str().to_owned()), limit: each, ..of };
        let before =
            Query { before: Some(number), since: Some(proof.received.saturating_sub(NEAR)), ..of.clone() };
        let after = Query { after: Some(number), until: Some(proof.received.saturating_add(NEAR)), ..of };
        let mut records = if each == 0 { Vec::new() } else { self.search(&before, gone)?.records };
        records.push(proof);
        if each > 0 {
            records.append(&mut self.search(&after, gone)?.records);
        }
        Ok(Around::Lines { proof: number, records })
    }

    /// The number of the record that holds it, or after which it was found: as it was noted, else by its words.
    fn proof(&self, quoted: &Quoted, gone: &AtomicBool) -> Result<Option<u64>, SearchError> {
        let (from, to) = (quoted.at.saturating_sub(APART), quoted.at.saturating_add(APART));
        let far = |received: i64| received.abs_diff(quoted.at);
        let noted = self.noted(&quoted.owner, from, to)?;
        let noted = noted.iter().filter(|noted| is_same(&quoted.line, &noted.text));
        if let Some(noted) = noted.min_by_key(|noted| far(noted.received)) {
            return Ok(Some(noted.number));
        }
        let known = Query {
            since: Some(from),
            until: Some(to),
            known: true,
            ..Query::newest(quoted.owner.clone(), usize::MAX)
        };
        let known = self.search(&known, gone)?.records;
        let has_it = |stored: &&Stored| {
            stored.record.text.lines().any(|line| is_same(&quoted.line, &escape(line, LONGEST_LINE)))
        };
        let nearest = known.iter().filter(has_it).min_by_key(|stored| far(stored.received));
        Ok(nearest.map(|stored| stored.number))
    }

    /// Why it is not there.
    fn missing(&self, quoted: &Quoted, now: i64) -> Result<Around, SearchError> {
        if now.saturating_sub(quoted.at) < WRITES_WITHIN {
            return Ok(Around::Unwritten);
        }
        let asked = "SELECT MIN(since) FROM block WHERE owner = (SELECT id FROM owner WHERE name = ?1)";
        let oldest: Option<i64> =
            self.connect()?.query_row(asked, params![quoted.owner.to_string()], |row| row.get(0))?;
        let has_left = oldest.is_none_or(|oldest| oldest > quoted.at);
        Ok(if has_left { Around::Left } else { Around::Unknown })
    }
}

/// Whether a line that was told is this one. One of both may have lost its beginning (the time, the name of the
/// program), and the one that was told its end.
fn is_same(told: &str, kept: &str) -> bool {
    let has = |whole: &str, part: &str| part.len() >= SHORTEST && whole.contains(part);
    let kept = kept.trim();
    let Some(cut) = told.strip_suffix('…') else { return has(kept, told) || has(told, kept) };
    let end = cut.char_indices().rev().nth(TAIL - 1).map_or(0, |(from, _)| from);
    has(kept, &cut[end..]) || has(cut, kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_known_again_without_its_beginning_or_its_end() {
        let line = "ERROR:  invalid page in block 7 of relation base/1/2";
        assert!(is_same(line, line));
        assert!(is_same(&format!("[    1.000] {line}"), line), "its time is a field of the record");
        assert!(is_same(line, &format!("2026-11-26 postgres[7]: {line}  ")));
        let long = format!("{line} {}", "x".repeat(400));
        assert!(is_same(&format!("[ 1.0] {}…", &long[..200]), &long));
        assert!(!is_same("…", "") && !is_same(line, "page"), "a piece of it is not it");
        assert!(!is_same(line, "ERROR:  invalid page in block 8 of relation base/1/2"));
    }
}
