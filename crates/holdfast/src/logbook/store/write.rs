//! What came in goes to disk: once a second, all owners in one transaction.

use super::block;
use super::{Counts, Noted, OnDisk, Owner, Pending, Store, Stored};
use crate::disk::bytes::{self, Bytes};
use crate::disk::sqlite::{is_damage, set_aside};
use crate::logbook::SourceName;
use holdfast_core::time::Timestamp;
use rusqlite::{Connection, Transaction, params};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Text of a block that is full, in bytes.
pub(super) const FULL: u64 = 64 * 1024;
/// Small blocks of one owner that become one.
const MOST_LOOSE: u64 = 32;
/// Patterns of a block that are listed; a block of more may have any.
const MOST_PATTERNS: usize = 1_024;
/// Memory of records that wait to be written: beyond this they are written at once ...
const MUCH: usize = 1 << 20;
/// ... and while they cannot be, the oldest of who has the most are let go.
const MOST_PENDING: usize = 4 << 20;
/// Findings that wait to be written.
const MOST_NOTED: usize = 1_024;
/// Bytes of a source's place.
const LONGEST_PLACE: usize = 4_096;
/// Sources whose places wait to be written.
const MOST_PLACES: usize = 4_096;
/// What a row takes beside its blobs, about.
const ROW: u64 = 96;

impl Store {
    /// The number that the next record gets.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Takes a record in, and gives it its number. `place` is where its source goes on behind it.
    pub fn put(&mut self, mut stored: Stored, place: Option<Arc<str>>) -> u64 {
        let number = self.next;
        self.next += 1;
        stored.number = number;
        let owner = Owner::of(&stored.subject);
        if let Some(place) = place.filter(|place| place.len() <= LONGEST_PLACE) {
            let of = (owner.clone(), stored.source.clone());
            if self.places.len() < MOST_PLACES || self.places.contains_key(&of) {
                self.places.insert(of, place);
            }
        }
        let bytes = stored.bytes();
        let pending = self.pending.entry(owner).or_default();
        pending.bytes += bytes;
        pending.records.push(stored);
        self.pending_bytes += bytes;
        while self.pending_bytes > MOST_PENDING {
            self.let_go();
        }
        number
    }

    /// Notes what was found.
    pub fn note(&mut self, noted: Noted) {
        if self.noted.len() < MOST_NOTED {
            self.noted.push(noted);
        }
    }

    /// Whether so much waits that it should be written now.
    pub fn is_much(&self) -> bool {
        self.pending_bytes >= MUCH && self.failures == 0
    }

    /// Lets the older half go of what waits for the owner that has the most.
    fn let_go(&mut self) {
        let Some(pending) = self.pending.values_mut().max_by_key(|pending| pending.bytes) else { return };
        let half = pending.records.len().div_ceil(2);
        let gone: usize = pending.records.drain(..half).map(|stored| stored.bytes()).sum();
        pending.bytes -= gone;
        self.pending_bytes -= gone;
        Counts::add(&self.counts.unkept, half as u64);
    }

    /// Writes all that waits. What cannot be written waits on, as far as there is memory for it.
    pub fn flush(&mut self, now: Timestamp) {
        if self.db.is_none() {
            self.reopen_sometimes(now);
        }
        let nothing = self.pending_bytes == 0 && self.noted.is_empty() && self.places.is_empty();
        if nothing && !self.is_sweep_due(now) || now < self.again {
            return;
        }
        let Some(db) = self.db.take() else { return };
        let written = self.write(&db, now);
        self.db = Some(db);
        match written {
            Ok(()) => self.forget_written(),
            Err(error) if is_damage(&error) => self.replace(&error),
            Err(error) => {
                self.tell(&error, "see that the disk has room and can be written; it is tried again")
            }
        }
    }

    fn forget_written(&mut self) {
        let records: usize = self.pending.values().map(|pending| pending.records.len()).sum();
        Counts::add(&self.counts.kept, records as u64);
        self.pending.clear();
        (self.pending_bytes, self.told, self.failures) = (0, None, 0);
        self.noted.clear();
        self.places.clear();
        self.newest.send_replace(self.next - 1);
        self.count_on_disk();
    }

    /// Sets a damaged file aside and goes on with a new one.
    fn replace(&mut self, cause: &rusqlite::Error) {
        self.db = None;
        match set_aside(&self.path, &super::open::FORM, cause) {
            Ok(_) => self.reopen(),
            Err(error) => self.tell(&error, error.hint()),
        }
    }

    fn write(&mut self, db: &Connection, now: Timestamp) -> rusqlite::Result<()> {
        let before = self.owners.clone();
        let (sweep, room) = (self.is_sweep_due(now), self.room_now(db)?);
        let written = (|| {
            let tx = db.unchecked_transaction()?;
            for (owner, pending) in &self.pending {
                if !pending.records.is_empty() {
                    let on_disk = on_disk(&tx, &mut self.owners, owner)?;
                    write_owner(&tx, on_disk, pending, &self.counts)?;
                }
            }
            write_places(&tx, &mut self.owners, &self.places)?;
            write_noted(&tx, &mut self.owners, &self.noted)?;
            let left = super::room::make_room(&tx, &mut self.owners, room, sweep.then_some(now))?;
            tx.commit()?;
            Counts::add(&self.counts.left, left);
            Ok(())
        })();
        match &written {
            Ok(()) if sweep => {
                self.swept = Some(now);
                crate::disk::sqlite::shrink(db)?;
            }
            Ok(()) => {}
            Err(_) => self.owners = before, // the transaction was rolled back
        }
        written
    }
}

/// What is on disk of an owner; a new one gets its number.
pub(super) fn on_disk<'o>(
    tx: &Transaction<'_>,
    owners: &'o mut BTreeMap<Owner, OnDisk>,
    owner: &Owner,
) -> rusqlite::Result<&'o mut OnDisk> {
    if !owners.contains_key(owner) {
        let name = owner.to_string();
        tx.prepare("INSERT INTO owner (name) VALUES (?1) ON CONFLICT DO NOTHING")?.execute([&name])?;
        let id = tx.prepare("SELECT id FROM owner WHERE name = ?1")?.query_row([&name], |row| row.get(0))?;
        owners.insert(owner.clone(), OnDisk { id, ..OnDisk::default() });
    }
    Ok(owners.entry(owner.clone()).or_default())
}

/// Writes what waits of one owner. Small blocks that lie there become one with it where they are many, or full.
fn write_owner(
    tx: &Transaction<'_>,
    owner: &mut OnDisk,
    pending: &Pending,
    counts: &Counts,
) -> rusqlite::Result<()> {
    let pattern = pending.records.iter().map(|stored| stored.pattern).max().unwrap_or(0);
    if pattern > owner.pattern {
        tx.prepare("UPDATE owner SET pattern = ?2 WHERE id = ?1")?
            .execute(params![owner.id, pattern.cast_signed()])?;
        owner.pattern = pattern;
    }
    let text: u64 = pending.records.iter().map(|stored| stored.record.bytes() as u64).sum();
    let joins = owner.loose > 0 && (owner.loose >= MOST_LOOSE || owner.loose_text + text >= FULL);
    let before = if joins { take_loose(tx, owner, counts)? } else { Vec::new() };
    let mut block: Vec<Stored> = Vec::new();
    let mut bytes = 0;
    for stored in before.into_iter().chain(pending.records.iter().cloned()) {
        bytes += stored.record.bytes() as u64;
        block.push(stored);
        if bytes >= FULL {
            write_block(tx, owner, &block, bytes)?;
            block.clear();
            bytes = 0;
        }
    }
    if block.is_empty() { Ok(()) } else { write_block(tx, owner, &block, bytes) }
}

/// Takes the small blocks of an owner away, and gives their records. One that is damaged stays where it is.
fn take_loose(tx: &Transaction<'_>, owner: &mut OnDisk, counts: &Counts) -> rusqlite::Result<Vec<Stored>> {
    let mut records = Vec::new();
    let firsts: Vec<i64> = tx
        .prepare("SELECT first FROM block WHERE owner = ?1 AND loose = 1 ORDER BY first")?
        .query_map([owner.id], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for first in firsts {
        let found = tx
            .prepare("SELECT crc, content, size FROM block WHERE first = ?1")?
            .query_row([first], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, i64>(2)?))
            })?;
        let (crc, content, size) = found;
        let mut own = Vec::new();
        match open_block(first.cast_unsigned(), crc, &content, |lying| {
            lying.stored().map(|stored| own.push(stored))
        }) {
            Ok(()) => {
                records.append(&mut own);
                owner.size = owner.size.saturating_sub(size.cast_unsigned());
                tx.prepare("DELETE FROM block WHERE first = ?1")?.execute([first])?;
            }
            Err(_) => {
                Counts::add(&counts.damaged, 1);
                tx.prepare("UPDATE block SET loose = 0 WHERE first = ?1")?.execute([first])?;
            }
        }
    }
    (owner.loose, owner.loose_text) = (0, 0);
    Ok(records)
}

/// Shows all records of a block, once its bytes are what was written.
pub(super) fn open_block(
    first: u64,
    crc: i64,
    content: &[u8],
    mut see: impl FnMut(&block::Lying<'_>) -> Result<(), block::BlockError>,
) -> Result<(), block::BlockError> {
    if checksum(first, content) != crc {
        return Err(block::BlockError::Checksum);
    }
    block::read(&block::unpack(content)?, |lying| see(lying).map(|()| true))
}

/// Of the content and of the block's own number, so that no block passes for another.
fn checksum(first: u64, content: &[u8]) -> i64 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&first.to_le_bytes());
    crc.update(content);
    i64::from(crc.finalize())
}

fn write_block(
    tx: &Transaction<'_>,
    owner: &mut OnDisk,
    records: &[Stored],
    bytes: u64,
) -> rusqlite::Result<()> {
    let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(()) };
    let content =
        block::pack(records).map_err(|cause| rusqlite::Error::ToSqlConversionFailure(cause.into()))?;
    let patterns = pattern_set(records);
    let severities = records.iter().fold(0, |mask, stored| mask | severity_bit(stored.severity));
    let received = || records.iter().map(|stored| stored.received);
    let size = content.len() as u64 + patterns.len() as u64 + ROW;
    let is_loose = bytes < FULL;
    let at = records.iter().map(|stored| stored.at).max().unwrap_or_default();
    tx.prepare("INSERT INTO block VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)")?
        .execute(params![
            first.number.cast_signed(),
            last.number.cast_signed(),
            owner.id,
            received().min(),
            received().max(),
            at.as_micros().cast_signed(),
            records.len() as i64,
            severities,
            bytes.cast_signed(),
            size.cast_signed(),
            is_loose,
            checksum(first.number, &content),
            patterns,
            content,
        ])?;
    owner.size += size;
    if is_loose {
        owner.loose += 1;
        owner.loose_text += bytes;
    }
    Ok(())
}

/// The bit of a severity; a line that says nothing about it counts as mere information.
pub(super) fn severity_bit(severity: Option<holdfast_logs::Severity>) -> i64 {
    1 << severity.unwrap_or(holdfast_logs::Severity::Info) as u8
}

/// The patterns of a block, ascending, as differences. Empty if they are too many to list.
fn pattern_set(records: &[Stored]) -> Vec<u8> {
    let patterns: BTreeSet<u64> = records.iter().map(|stored| stored.pattern).collect();
    let mut bytes = Vec::new();
    if patterns.len() <= MOST_PATTERNS {
        let mut before = 0;
        for pattern in patterns {
            bytes::number(&mut bytes, pattern - before);
            before = pattern;
        }
    }
    bytes
}

/// Whether a block may have one of these patterns.
pub(super) fn may_have(set: &[u8], wanted: &BTreeSet<u64>) -> bool {
    let (mut bytes, mut pattern) = (Bytes(set), 0_u64);
    if set.is_empty() {
        return true;
    }
    while !bytes.0.is_empty() {
        let Ok(more) = bytes.number() else { return true };
        pattern = pattern.wrapping_add(more);
        if wanted.contains(&pattern) {
            return true;
        }
    }
    false
}

fn write_places(
    tx: &Transaction<'_>,
    owners: &mut BTreeMap<Owner, OnDisk>,
    places: &BTreeMap<(Owner, SourceName), Arc<str>>,
) -> rusqlite::Result<()> {
    for ((owner, source), place) in places {
        let owner = on_disk(tx, owners, owner)?.id;
        tx.prepare("INSERT OR REPLACE INTO place VALUES (NULL, ?1, ?2, ?3)")?.execute(params![
            owner,
            source.as_str(),
            &**place
        ])?;
    }
    Ok(())
}

/// Where each source goes on.
pub(super) fn places(db: &Connection) -> rusqlite::Result<Vec<(Owner, SourceName, Arc<str>)>> {
    let mut asked =
        db.prepare("SELECT name, source, place FROM place JOIN owner ON owner.id = place.owner")?;
    let mut rows = asked.query([])?;
    let mut places = Vec::new();
    while let Some(row) = rows.next()? {
        let (owner, source, place): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if let Some(owner) = Owner::read(&owner) {
            places.push((owner, SourceName::new(&source), place.into()));
        }
    }
    Ok(places)
}

fn write_noted(
    tx: &Transaction<'_>,
    owners: &mut BTreeMap<Owner, OnDisk>,
    noted: &[Noted],
) -> rusqlite::Result<()> {
    for one in noted {
        let owner = on_disk(tx, owners, &Owner::of(&one.subject))?.id;
        let subject = serde_json::to_string(&one.subject).unwrap_or_default();
        let mut insert =
            tx.prepare("INSERT INTO noted VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)")?;
        insert.execute(params![
            owner,
            one.number.cast_signed(),
            subject,
            one.source.as_str(),
            one.at.as_micros().cast_signed(),
            one.received,
            one.sort,
            one.name,
            one.severity.map(|severity| severity as i64),
            one.decibans,
            one.text,
        ])?;
    }
    Ok(())
}
