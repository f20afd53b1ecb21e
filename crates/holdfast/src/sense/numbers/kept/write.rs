//! What came in goes to disk: once a minute, all series in one transaction.

use super::block::{Row, pack};
use super::read::Shelf;
use super::{Counts, Moment, Step, Value};
use crate::disk::sqlite::{self, Form, is_damage, is_short, set_aside, shrink};
use crate::logbook::Owner;
use crate::sense::numbers::measure::Name;
use holdfast_core::time::Timestamp;
use rusqlite::{Connection, Transaction, params};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tracing::warn;

/// The file, in the state folder.
pub const FILE: &str = "numbers.sqlite";
/// What the file is; its mark is "HFNM".
pub(super) const FORM: Form = Form { what: "numbers", version: 1, ours: 0x4846_4e4d, schema: SCHEMA };

const SCHEMA: &str = "
CREATE TABLE series (id INTEGER PRIMARY KEY, owner TEXT NOT NULL, subject TEXT NOT NULL, key TEXT NOT NULL, UNIQUE (owner, subject, key));
CREATE TABLE block (
    series INTEGER NOT NULL, step INTEGER NOT NULL, since INTEGER NOT NULL, until INTEGER NOT NULL,
    wall_offset INTEGER NOT NULL, size INTEGER NOT NULL, crc INTEGER NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (series, step, since));
CREATE INDEX block_age ON block (step, until, size);
";

/// A block spans no more than so many of its steps: it is closed then, however few rows it has.
const LONGEST: u64 = 720;
/// Series that are followed at a time; what comes of others is counted.
const MOST_SERIES: usize = 512;
/// Full blocks that wait to be written.
const MOST_WAITING: usize = 1_024;
/// What a row of the table takes beside its content, about.
const ROW: u64 = 64;
/// Blocks that leave at one look to make room.
const MOST_LEAVING: i64 = 4_096;

/// Rows of a series that make no full block yet.
#[derive(Debug, Default)]
struct Open {
    rows: Vec<Row>,
    wall_offset: i64,
    is_new: bool,
}

impl Open {
    /// Adds a row; gives the rows that were here before if those are enough for a block.
    fn push(&mut self, row: Row, wall_offset: i64, step: Step) -> Option<Self> {
        let spans = self.rows.first().map_or(0, |first| row.at.saturating_sub(first.at));
        let is_full = self.rows.len() >= step.full() || spans > LONGEST * step.seconds();
        let moved = !self.rows.is_empty() && self.wall_offset.abs_diff(wall_offset) > 1_000_000;
        let done = (is_full || moved).then(|| std::mem::take(self));
        self.rows.push(row);
        (self.wall_offset, self.is_new) = (wall_offset, true);
        done
    }
}

/// The rows of one series that are in memory, and the five minutes that are not over yet.
#[derive(Debug, Default)]
struct Rows {
    seconds: Open,
    fine: Open,
    coarse: Open,
    now: Vec<Row>,
}

impl Rows {
    /// Adds what was read of a value second by second, the last of each; gives the blocks that are full by that.
    fn seconds(&mut self, value: &Value, offset: i64) -> Vec<(Step, Option<Open>)> {
        let mut done = Vec::new();
        for (at, number) in value.moments.iter().filter(|(_, number)| number.is_finite()) {
            let row = Row::of(at.as_micros() / 1_000_000, *number, value.teaches);
            match self.seconds.rows.last_mut() {
                Some(last) if last.at == row.at => *last = row,
                Some(last) if last.at > row.at => {} // what came late
                Some(_) | None => done.push((Step::Second, self.seconds.push(row, offset, Step::Second))),
            }
        }
        done
    }
}

/// The one who writes.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    keep: u64,
    /// None while there is no file to write to; then the newest rows wait, and the others are counted.
    db: Option<Connection>,
    open: BTreeMap<Name, Rows>,
    waiting: VecDeque<(Name, Step, Open)>,
    counts: Arc<Counts>,
    /// The trouble that was told last, so that each is told once.
    told: Option<String>,
}

impl Ledger {
    /// Opens the file in a folder, or makes it. It always comes up: with what is wrong told, and nothing kept.
    pub fn open(folder: &Path, keep: u64) -> Self {
        let mut ledger = Self {
            path: folder.join(FILE),
            keep,
            db: None,
            open: BTreeMap::new(),
            waiting: VecDeque::new(),
            counts: Arc::default(),
            told: None,
        };
        ledger.reopen();
        ledger
    }

    /// What was counted so far.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// For those who read.
    pub fn shelf(&self) -> Shelf {
        Shelf::new(self.path.clone(), self.counts())
    }

    /// How much may be kept from now on.
    pub fn set_keep(&mut self, keep: u64) {
        self.keep = keep;
    }

    /// Whether there is a file to write to.
    #[cfg(test)]
    pub fn is_open(&self) -> bool {
        self.db.is_some()
    }

    /// Leaves the file no room to grow, as a full disk does.
    #[cfg(test)]
    pub fn limit(&mut self, is_full: bool) {
        let Some(db) = &self.db else { return };
        let pages: i64 = db.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap_or(0);
        let most = if is_full { pages } else { i64::from(u32::MAX / 2) };
        let set: rusqlite::Result<i64> =
            db.pragma_update_and_check(None, "max_page_count", most, |row| row.get(0));
        drop(set);
    }

    fn reopen(&mut self) {
        match sqlite::open(&self.path, &FORM) {
            Ok(db) => {
                let size = total(&db).unwrap_or(0);
                self.counts.on_disk.store(size, Ordering::Relaxed);
                self.db = Some(db);
            }
            Err(error) => self.tell(&error, error.hint()),
        }
    }

    /// Warns of a trouble, unless it is the one that was told last.
    fn tell(&mut self, error: &dyn std::error::Error, hint: &str) {
        let cause = crate::act::chain(error);
        if self.told.as_ref() != Some(&cause) {
            warn!(cause, hint, "numbers are not kept");
            self.told = Some(cause);
        }
    }

    /// Takes the values of a moment in.
    pub fn put(&mut self, moment: Moment, values: &[Value]) {
        let at = moment.at.as_micros() / 1_000_000;
        Counts::add(&self.counts.values, values.len() as u64);
        for value in values.iter().filter(|value| value.value.is_finite()) {
            if !self.open.contains_key(&value.name) && self.open.len() >= MOST_SERIES {
                Counts::add(&self.counts.unkept, 1);
                continue;
            }
            let rows = self.open.entry(value.name.clone()).or_default();
            let row = Row::of(at, value.value, value.teaches);
            let offset = moment.wall_offset;
            let mut done = rows.seconds(value, offset);
            done.push((Step::Fine, rows.fine.push(row, offset, Step::Fine)));
            if rows.now.first().is_some_and(|first| first.at / 300 != at / 300) {
                let five = rolled(&std::mem::take(&mut rows.now));
                done.extend(five.map(|five| (Step::Coarse, rows.coarse.push(five, offset, Step::Coarse))));
            }
            rows.now.push(row);
            let done = done.into_iter().filter_map(|(step, open)| Some((value.name.clone(), step, open?)));
            self.waiting.extend(done);
        }
        while self.waiting.len() > MOST_WAITING {
            let seconds = self.waiting.iter().position(|(_, step, _)| *step == Step::Second);
            let gone = self.waiting.remove(seconds.unwrap_or(0)).map_or(0, |(.., open)| open.rows.len());
            Counts::add(&self.counts.unkept, gone as u64);
        }
    }

    /// Writes all that is new. What cannot be written waits on, as far as there is memory for it.
    pub fn flush(&mut self, now: Timestamp) {
        if self.db.is_none() {
            self.reopen();
        }
        let Some(db) = self.db.take() else {
            Counts::add(&self.counts.failed, 1);
            return;
        };
        let written = self.write(&db, now.as_micros() / 1_000_000);
        match written {
            Ok(()) => {
                self.waiting.clear();
                self.open.values_mut().for_each(|rows| {
                    (rows.seconds.is_new, rows.fine.is_new, rows.coarse.is_new) = (false, false, false);
                });
                (self.told, self.db) = (None, Some(db));
                self.forget(now.as_micros() / 1_000_000);
            }
            Err(error) if is_damage(&error) => {
                Counts::add(&self.counts.failed, 1);
                drop(db);
                match set_aside(&self.path, &FORM, &error) {
                    Ok(_) => self.reopen(),
                    Err(error) => self.tell(&error, error.hint()),
                }
            }
            Err(error) => {
                Counts::add(&self.counts.failed, 1);
                self.tell(&error, "see that the disk has room and can be written; it is tried again");
                self.db = Some(db);
            }
        }
    }

    /// Series of which nothing came for an hour take no memory, once all is written.
    fn forget(&mut self, now: u64) {
        self.open.retain(|_, rows| rows.now.last().is_some_and(|last| now.saturating_sub(last.at) < 3_600));
    }

    fn write(&self, db: &Connection, now: u64) -> rusqlite::Result<()> {
        let tx = db.unchecked_transaction()?;
        let waiting = self.waiting.iter().map(|(name, step, open)| (name, *step, open));
        let open = self.open.iter().flat_map(|(name, rows)| {
            let Rows { seconds, fine, coarse, .. } = rows;
            [(name, Step::Second, seconds), (name, Step::Fine, fine), (name, Step::Coarse, coarse)]
        });
        for (name, step, open) in waiting.chain(open.filter(|(.., open)| open.is_new)) {
            write_block(&tx, name, step, open)?;
        }
        let before = total(&tx)?;
        let folder = self.path.parent().unwrap_or(&self.path);
        let grown = self.counts.on_disk.load(Ordering::Relaxed);
        let keep = if is_short(folder) { self.keep.min(grown) } else { self.keep };
        let left = make_room(&tx, now, before, keep)?;
        let size = total(&tx)?;
        tx.commit()?;
        Counts::add(&self.counts.left, left);
        self.counts.on_disk.store(size, Ordering::Relaxed);
        shrink(db)
    }
}

/// What five minutes were.
fn rolled(rows: &[Row]) -> Option<Row> {
    let first = rows.first()?;
    let mean = rows.iter().map(|row| row.mean).sum::<f64>() / rows.len() as f64;
    let min = rows.iter().map(|row| row.min).fold(f64::INFINITY, f64::min);
    let max = rows.iter().map(|row| row.max).fold(f64::NEG_INFINITY, f64::max);
    Some(Row { at: first.at / 300 * 300, min, mean, max, teaches: rows.iter().all(|row| row.teaches) })
}

fn write_block(tx: &Transaction<'_>, name: &Name, step: Step, open: &Open) -> rusqlite::Result<()> {
    let (Some(first), Some(last)) = (open.rows.first(), open.rows.last()) else { return Ok(()) };
    let content =
        pack(&open.rows, step).map_err(|cause| rusqlite::Error::ToSqlConversionFailure(cause.into()))?;
    let id = series(tx, name)?;
    let crc = checksum(id, first.at, &content);
    tx.prepare("INSERT OR REPLACE INTO block VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?.execute(params![
        id,
        step.seconds().cast_signed(),
        first.at.cast_signed(),
        last.at.cast_signed(),
        open.wall_offset,
        (content.len() as u64 + ROW).cast_signed(),
        crc,
        content
    ])?;
    Ok(())
}

/// The number of a series in the file.
fn series(tx: &Transaction<'_>, name: &Name) -> rusqlite::Result<i64> {
    let subject = serde_json::to_string(&name.subject).unwrap_or_default();
    let of = params![Owner::of(&name.subject).to_string(), subject, name.what.key()];
    tx.prepare("INSERT OR IGNORE INTO series (owner, subject, key) VALUES (?1, ?2, ?3)")?.execute(of)?;
    let asked = "SELECT id FROM series WHERE owner = ?1 AND subject = ?2 AND key = ?3";
    tx.prepare(asked)?.query_row(of, |row| row.get(0))
}

/// Of the content and of whose it is, so that no block passes for another.
pub(super) fn checksum(series: i64, since: u64, content: &[u8]) -> i64 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&series.to_le_bytes());
    crc.update(&since.to_le_bytes());
    crc.update(content);
    i64::from(crc.finalize())
}

fn total(db: &Connection) -> rusqlite::Result<u64> {
    let size: i64 = db.query_row("SELECT COALESCE(SUM(size), 0) FROM block", [], |row| row.get(0))?;
    Ok(size.cast_unsigned())
}

/// Lets blocks go that are too old, then the oldest until all fits. How many left.
fn make_room(tx: &Transaction<'_>, now: u64, before: u64, keep: u64) -> rusqlite::Result<u64> {
    let mut left = 0;
    for step in [Step::Second, Step::Fine, Step::Coarse] {
        let limit = now.saturating_sub(step.kept()).cast_signed();
        let gone = "DELETE FROM block WHERE step = ?1 AND until < ?2";
        left += tx.prepare(gone)?.execute(params![step.seconds().cast_signed(), limit])?;
    }
    if left == 0 && before <= keep {
        return Ok(0);
    }
    let mut size = total(tx)?;
    if size > keep {
        let asked = "SELECT rowid, size FROM block ORDER BY until LIMIT ?1";
        let oldest: Vec<(i64, i64)> = tx
            .prepare(asked)?
            .query_map([MOST_LEAVING], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        for (id, own) in oldest {
            if size <= keep - keep / 32 {
                break;
            }
            tx.prepare("DELETE FROM block WHERE rowid = ?1")?.execute([id])?;
            size = size.saturating_sub(own.cast_unsigned());
            left += 1;
        }
    }
    tx.execute("DELETE FROM series WHERE id NOT IN (SELECT series FROM block)", [])?;
    Ok(left as u64)
}
