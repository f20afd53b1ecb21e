//! Reading what is kept: by owner, time, severity, pattern, source and words; the newest, or what came since.
//!
//! It blocks, and is for threads that may. Each search has a connection of its own and sees one moment of the file;
//! it is bounded in lines, bytes and time, and ends early when whoever asked has gone (I18).

use super::block::BlockError;
use super::open::FILE;
use super::write::{may_have, open_block, severity_bit};
use super::{Counts, Noted, Owner, Stored};
use crate::disk::sqlite::real;
use crate::logbook::SourceName;
use holdfast_core::subject::Subject;
use holdfast_core::time::Timestamp;
use holdfast_logs::Severity;
use regex::Regex;
use rusqlite::{Connection, OpenFlags, Row, params};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Records that one search finds at most.
pub const MOST_FOUND: usize = 2_000;
/// Bytes of memory they may take.
const MOST_BYTES: usize = 8 << 20;
/// The longest that one search takes.
const LONGEST: Duration = Duration::from_secs(20);
/// Findings that are told at once.
const MOST_NOTED: i64 = 1_000;

/// What is looked for.
#[derive(Clone, Debug)]
pub struct Query {
    /// Whose records.
    pub owner: Owner,
    /// Received then or later, in microseconds since 1970.
    pub since: Option<i64>,
    /// Received then or before.
    pub until: Option<i64>,
    /// So bad or worse.
    pub severity: Option<Severity>,
    /// Of one of these patterns.
    pub patterns: Option<BTreeSet<u64>>,
    /// From this source, or one of that name: `file` finds `file /var/log/orders.log`.
    pub source: Option<String>,
    /// With these words in the text.
    pub grep: Option<Regex>,
    /// With a line that a rule knows.
    pub known: bool,
    /// Only records with a larger number: the first of them then, else the newest of all.
    pub after: Option<u64>,
    /// Only records with a smaller number.
    pub before: Option<u64>,
    /// So many at most.
    pub limit: usize,
}

impl Query {
    /// The newest of an owner.
    pub fn newest(owner: Owner, limit: usize) -> Self {
        Self {
            owner,
            since: None,
            until: None,
            severity: None,
            patterns: None,
            source: None,
            grep: None,
            known: false,
            after: None,
            before: None,
            limit,
        }
    }
}

/// Why a search did not look at everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It did.
    Whole,
    /// So many were found as were asked for, or as fit.
    Full,
    /// It took too long, or nobody wants it any more.
    BrokenOff,
}

/// What was found, the oldest first.
#[derive(Clone, Debug)]
pub struct Found {
    /// The records.
    pub records: Vec<Stored>,
    /// How it ended.
    pub ended: Ended,
    /// Blocks that could not be read.
    pub damaged: u64,
    /// The number up to which everything was looked at, for the next search `after` it.
    pub through: u64,
}

/// Why nothing can be found.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// There is no file.
    #[error("no logs are kept: there is no file `{FILE}`")]
    Nothing,
    /// The database refused.
    #[error("kept logs cannot be read")]
    Database(#[from] rusqlite::Error),
}

/// Where records are read.
#[derive(Clone, Debug)]
pub struct Shelf {
    path: PathBuf,
    counts: Arc<Counts>,
    newest: tokio::sync::watch::Receiver<u64>,
}

impl Shelf {
    pub(super) fn new(path: PathBuf, counts: Arc<Counts>, newest: tokio::sync::watch::Receiver<u64>) -> Self {
        Self { path, counts, newest }
    }

    /// What was counted so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The number of the newest record on disk, as it rises.
    pub fn newest(&self) -> tokio::sync::watch::Receiver<u64> {
        self.newest.clone()
    }

    pub(super) fn connect(&self) -> Result<Connection, SearchError> {
        if !self.path.is_file() {
            return Err(SearchError::Nothing);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let db = Connection::open_with_flags(real(&self.path), flags)?;
        db.execute_batch("PRAGMA cache_size = -512; PRAGMA trusted_schema = OFF; PRAGMA query_only = ON;")?;
        Ok(db)
    }

    /// Searches. `gone` turns true when nobody wants the answer any more.
    pub fn search(&self, query: &Query, gone: &AtomicBool) -> Result<Found, SearchError> {
        let db = self.connect()?;
        let tx = db.unchecked_transaction()?;
        let newest: Option<i64> = tx.query_row("SELECT MAX(last) FROM block", [], |row| row.get(0))?;
        let through = newest.map_or(0, i64::cast_unsigned);
        let mut search =
            Search { query, gone, began: Instant::now(), bytes: 0, records: Vec::new(), damaged: 0 };
        let ended = search.run(&tx)?;
        Counts::add(&self.counts.damaged, search.damaged);
        let Search { mut records, damaged, .. } = search;
        if query.after.is_none() {
            records.reverse();
        }
        let through = match ended {
            Ended::Whole => through,
            Ended::Full | Ended::BrokenOff => {
                records.last().map_or(query.after.unwrap_or(0), |last| last.number)
            }
        };
        Ok(Found { records, ended, damaged, through })
    }

    /// Where each source goes on: right behind the last of its records that is on disk.
    pub fn places(&self) -> Result<Vec<(Owner, SourceName, Arc<str>)>, SearchError> {
        Ok(super::write::places(&self.connect()?)?)
    }

    /// What was found in the records of an owner, received then or later and until then, the oldest first.
    pub fn noted(&self, owner: &Owner, since: i64, until: i64) -> Result<Vec<Noted>, SearchError> {
        let db = self.connect()?;
        let mut asked = db.prepare(
            "SELECT number, subject, source, at, received, sort, noted.name, severity, decibans, text
                FROM noted JOIN owner ON owner.id = noted.owner
                WHERE owner.name = ?1 AND received BETWEEN ?2 AND ?3 ORDER BY noted.id DESC LIMIT ?4",
        )?;
        let mut rows = asked.query(params![owner.to_string(), since, until, MOST_NOTED])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.extend(noted(row)?);
        }
        found.reverse();
        Ok(found)
    }
}

fn noted(row: &Row<'_>) -> rusqlite::Result<Option<Noted>> {
    let Ok(subject) = serde_json::from_str::<Subject>(&row.get::<_, String>(1)?) else { return Ok(None) };
    let severity = row.get::<_, Option<i64>>(7)?.and_then(|at| usize::try_from(at).ok());
    Ok(Some(Noted {
        number: row.get::<_, i64>(0)?.cast_unsigned(),
        subject,
        source: SourceName::new(&row.get::<_, String>(2)?),
        at: Timestamp::from_micros(row.get::<_, i64>(3)?.cast_unsigned()),
        received: row.get(4)?,
        sort: row.get(5)?,
        name: row.get(6)?,
        severity: severity.and_then(|at| Severity::ALL.get(at).copied()),
        decibans: row.get(8)?,
        text: row.get(9)?,
    }))
}

/// One search under way.
struct Search<'q> {
    query: &'q Query,
    gone: &'q AtomicBool,
    began: Instant,
    bytes: usize,
    records: Vec<Stored>,
    damaged: u64,
}

impl Search<'_> {
    fn run(&mut self, db: &Connection) -> rusqlite::Result<Ended> {
        let query = self.query;
        let order = if query.after.is_some() { "ASC" } else { "DESC" };
        let mut asked = db.prepare(&format!(
            "SELECT first, crc, severities, patterns FROM block
                WHERE owner = (SELECT id FROM owner WHERE name = ?1) AND last > ?2 AND first < ?3
                AND until >= ?4 AND since <= ?5 ORDER BY first {order}"
        ))?;
        let number =
            |number: Option<u64>, none: i64| number.map_or(none, |n| i64::try_from(n).unwrap_or(i64::MAX));
        let mut blocks = asked.query(params![
            query.owner.to_string(),
            number(query.after, -1),
            number(query.before, i64::MAX),
            query.since.unwrap_or(i64::MIN),
            query.until.unwrap_or(i64::MAX),
        ])?;
        let mut content = db.prepare("SELECT content FROM block WHERE first = ?1")?;
        while let Some(block) = blocks.next()? {
            if self.gone.load(Ordering::Relaxed) || self.began.elapsed() > LONGEST {
                return Ok(Ended::BrokenOff);
            }
            if !self.may_hold(block)? {
                continue;
            }
            let (first, crc): (i64, i64) = (block.get(0)?, block.get(1)?);
            let Ok(bytes) = content.query_row([first], |row| row.get::<_, Vec<u8>>(0)) else {
                self.damaged += 1;
                continue;
            };
            if self.look_into(first.cast_unsigned(), crc, &bytes) {
                return Ok(Ended::Full);
            }
        }
        Ok(Ended::Whole)
    }

    fn may_hold(&self, block: &Row<'_>) -> rusqlite::Result<bool> {
        let has_severity = match self.query.severity {
            Some(least) => block.get::<_, i64>(2)? >= severity_bit(Some(least)),
            None => true,
        };
        Ok(has_severity
            && match &self.query.patterns {
                Some(patterns) => may_have(block.get_ref(3)?.as_blob().unwrap_or_default(), patterns),
                None => true,
            })
    }

    /// Takes what fits out of a block; whether that is enough.
    fn look_into(&mut self, first: u64, crc: i64, content: &[u8]) -> bool {
        let query = self.query;
        let mut fits = Vec::new();
        let mut room =
            if query.after.is_some() { query.limit.min(MOST_FOUND) - self.records.len() } else { usize::MAX };
        let read = open_block(first, crc, content, |lying| {
            let severity = lying.severity.unwrap_or(Severity::Info);
            let is_wanted = room > 0
                && query.after.is_none_or(|after| lying.number > after)
                && query.before.is_none_or(|before| lying.number < before)
                && query.since.is_none_or(|since| lying.received >= since)
                && query.until.is_none_or(|until| lying.received <= until)
                && query.severity.is_none_or(|least| severity >= least)
                && query.patterns.as_ref().is_none_or(|patterns| patterns.contains(&lying.pattern))
                && query.source.as_ref().is_none_or(|source| is_source(lying.source, source))
                && (!query.known || !lying.rule.is_empty())
                && query.grep.as_ref().is_none_or(|grep| grep.is_match(lying.text));
            if is_wanted {
                fits.push(lying.stored()?);
                room -= 1;
            }
            Ok::<(), BlockError>(())
        });
        if read.is_err() {
            self.damaged += 1;
            return false;
        }
        if query.after.is_none() {
            fits.reverse();
        }
        for stored in fits {
            if self.records.len() >= query.limit.min(MOST_FOUND) || self.bytes >= MOST_BYTES {
                return true;
            }
            self.bytes += stored.bytes();
            self.records.push(stored);
        }
        self.records.len() >= query.limit.min(MOST_FOUND)
    }
}

/// Whether a source is the one that is meant, or one of that sort.
fn is_source(source: &str, meant: &str) -> bool {
    source == meant || source.split_once(' ').is_some_and(|(sort, _)| sort == meant)
}
