//! Reading what is kept: which series there are, and their rows between two times.
//!
//! It blocks, and is for threads that may. Each question has a connection of its own and sees one moment of the file.

use super::block::{BlockError, Row, unpack};
use super::write::{FORM, checksum};
use super::{Counts, Step};
use crate::disk::sqlite::real;
use crate::logbook::Owner;
use crate::sense::numbers::measure::{Name, What};
use holdfast_core::time::Timestamp;
use rusqlite::{Connection, OpenFlags, params};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Rows that one question reads at most, of each step.
const MOST_ROWS: usize = 50_000;

/// Why nothing can be read.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// There is no file.
    #[error("no numbers are kept: there is no file `numbers.sqlite`")]
    Nothing,
    /// The database refused.
    #[error("kept numbers cannot be read")]
    Database(#[from] rusqlite::Error),
}

/// A series that is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Which.
    pub name: Name,
    /// Its latest row, with its time in seconds since 1970.
    pub last: Row,
    /// What the rows since then were.
    pub since: Row,
}

/// Rows of the series of one owner for whoever judges them, the oldest first; times are those of the clock that only goes forward.
pub type Past = Vec<(Name, Vec<Row>)>;

/// Where kept series are read.
#[derive(Clone, Debug)]
pub struct Shelf {
    path: PathBuf,
    counts: Arc<Counts>,
}

impl Shelf {
    pub(super) fn new(path: PathBuf, counts: Arc<Counts>) -> Self {
        Self { path, counts }
    }

    /// What was counted so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn open(&self) -> Result<Connection, ShelfError> {
        if std::fs::symlink_metadata(&self.path).is_err() {
            return Err(ShelfError::Nothing);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let db = Connection::open_with_flags(real(&self.path), flags)?;
        db.execute_batch("PRAGMA cache_size = -512; PRAGMA trusted_schema = OFF;")?;
        let found = db.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
        if found == FORM.version { Ok(db) } else { Err(ShelfError::Nothing) }
    }

    /// The series of an owner, with what they were since a time (seconds since 1970).
    ///
    /// # Errors
    /// If there is no file, or it cannot be read.
    pub fn list(&self, owner: &Owner, since: f64) -> Result<Vec<Listed>, ShelfError> {
        let db = self.open()?;
        let mut all = Vec::new();
        for (id, name) in series(&db, Some(owner))? {
            let rows = self.between(&db, id, Step::Fine, (since, f64::INFINITY))?;
            let Some(last) = rows.last() else { continue };
            all.push(Listed { name, last: *last, since: rolled(&rows) });
        }
        Ok(all)
    }

    /// The rows of a series between two times (seconds since 1970), with their times likewise: of seconds if they are
    /// `finest` and there are such, else of ten seconds; where these are not kept any more, what five minutes were.
    /// `None`: there is no such series.
    ///
    /// # Errors
    /// If there is no file, or it cannot be read.
    pub fn rows(
        &self,
        owner: &Owner,
        key: &str,
        between: (f64, f64),
        finest: Step,
    ) -> Result<Option<(Name, Vec<Row>)>, ShelfError> {
        let db = self.open()?;
        let Some((id, name)) = series(&db, Some(owner))?.into_iter().find(|(_, name)| name.is(key)) else {
            return Ok(None);
        };
        let fine = self.between(&db, id, Step::Fine, between)?;
        let until = fine.first().map_or(between.1, |first| first.at as f64 - Step::Coarse.seconds() as f64);
        let mut rows = self.between(&db, id, Step::Coarse, (between.0, until))?;
        if finest == Step::Second {
            let seconds = self.between(&db, id, Step::Second, between)?;
            rows.extend(finer(fine, seconds));
        } else {
            rows.extend(fine);
        }
        Ok(Some((name, rows)))
    }

    /// Shows the rows of ten seconds since then, by the clock that only goes forward, to the judges of a new daemon: one
    /// owner after the other, until they have seen enough (`false`).
    ///
    /// # Errors
    /// If there is no file, or it cannot be read.
    pub fn past(&self, since: Timestamp, mut see: impl FnMut(Past) -> bool) -> Result<(), ShelfError> {
        let db = self.open()?;
        let limit = since.as_micros() / 1_000_000;
        let mut owners: BTreeMap<Owner, Vec<(i64, Name)>> = BTreeMap::new();
        for (id, name) in series(&db, None)? {
            owners.entry(Owner::of(&name.subject)).or_default().push((id, name));
        }
        for all in owners.into_values() {
            let mut past = Past::new();
            for (id, name) in all {
                let since = (limit.cast_signed(), false);
                let pick = |row: Row, _| (row.at >= limit).then_some(row);
                past.push((name, self.blocks(&db, id, Step::Fine, since, pick)?));
            }
            past.retain(|(_, rows)| !rows.is_empty());
            if !see(past) {
                break;
            }
        }
        Ok(())
    }

    fn between(
        &self,
        db: &Connection,
        id: i64,
        step: Step,
        (since, until): (f64, f64),
    ) -> Result<Vec<Row>, ShelfError> {
        let micros = (since * 1e6) as i64; // what does not fit is as far as can be
        self.blocks(db, id, step, (micros, true), |row, offset| {
            let wall = (row.at.saturating_mul(1_000_000)).cast_signed().saturating_add(offset);
            let at = wall as f64 / 1e6;
            let row = Row { at: u64::try_from(wall / 1_000_000).ok()?, ..row };
            (at >= since && at <= until).then_some(row)
        })
    }

    /// The rows of all blocks that end at a time or later: of our clock in seconds, or of the wall in microseconds.
    fn blocks(
        &self,
        db: &Connection,
        id: i64,
        step: Step,
        (since, by_wall): (i64, bool),
        pick: impl Fn(Row, i64) -> Option<Row>,
    ) -> Result<Vec<Row>, ShelfError> {
        let ends = if by_wall { "until * 1000000 + wall_offset" } else { "until" };
        let asked = format!(
            "SELECT since, wall_offset, crc, content FROM block
                WHERE series = ?1 AND step = ?2 AND {ends} >= ?3 ORDER BY since"
        );
        let mut asked = db.prepare(&asked)?;
        let mut found = asked.query(params![id, step.seconds().cast_signed(), since])?;
        let mut rows = Vec::new();
        while let Some(block) = found.next()? {
            let (first, offset, crc, content): (i64, i64, i64, Vec<u8>) =
                (block.get(0)?, block.get(1)?, block.get(2)?, block.get(3)?);
            match open_block((id, first.cast_unsigned()), crc, &content, step) {
                Ok(block) => rows.extend(block.into_iter().filter_map(|row| pick(row, offset))),
                Err(_) => Counts::add(&self.counts.damaged, 1),
            }
            if rows.len() >= MOST_ROWS {
                break;
            }
        }
        Ok(rows)
    }
}

fn open_block(
    (series, first): (i64, u64),
    crc: i64,
    content: &[u8],
    step: Step,
) -> Result<Vec<Row>, BlockError> {
    if checksum(series, first, content) != crc {
        return Err(BlockError::Checksum);
    }
    unpack(content, step)
}

/// Which series there are; those that this program does not know are left out.
fn series(db: &Connection, owner: Option<&Owner>) -> rusqlite::Result<Vec<(i64, Name)>> {
    let asked = "SELECT id, subject, key FROM series WHERE ?1 IS NULL OR owner = ?1 ORDER BY subject, key";
    let mut asked = db.prepare(asked)?;
    let mut rows = asked.query([owner.map(ToString::to_string)])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let (id, subject, key): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let name = serde_json::from_str(&subject).ok().zip(What::of_key(&key));
        all.extend(name.map(|(subject, what)| (id, Name { subject, what })));
    }
    Ok(all)
}

/// Rows of seconds, and of ten seconds where there are none of these: such a row stands for the ten seconds before it.
fn finer(mut fine: Vec<Row>, seconds: Vec<Row>) -> Vec<Row> {
    fine.retain(|row| {
        let after = seconds.partition_point(|second| second.at <= row.at);
        after.checked_sub(1).is_none_or(|last| seconds[last].at + Step::Fine.seconds() <= row.at)
    });
    fine.extend(seconds);
    fine.sort_by_key(|row| row.at);
    fine
}

/// What all rows were together, at the time of the first.
fn rolled(rows: &[Row]) -> Row {
    let mean = rows.iter().map(|row| row.mean).sum::<f64>() / rows.len().max(1) as f64;
    let min = rows.iter().map(|row| row.min).fold(f64::INFINITY, f64::min);
    let max = rows.iter().map(|row| row.max).fold(f64::NEG_INFINITY, f64::max);
    Row { at: rows.first().map_or(0, |row| row.at), min, mean, max, teaches: true }
}
