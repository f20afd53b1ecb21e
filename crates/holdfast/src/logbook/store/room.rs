//! Who leaves when there is no more room: the oldest blocks, of those who have more than their fair share.

use super::{OnDisk, Owner, Room, Store};
use holdfast_core::time::{Duration, Timestamp};
use rusqlite::{Connection, Transaction, params};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Between two looks for what is too old.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// When it is full, so much is let go at once: one part in so many.
const PART: u64 = 32;
/// Blocks that leave by age at one look, of each owner.
const MOST_OLD: usize = 256;
/// Findings that are kept of each owner.
const MOST_NOTED: i64 = 2_000;
/// Sources of each owner whose places are kept.
const MOST_PLACES: i64 = 1_000;
/// Bytes of a page of the file.
const PAGE: u64 = 4_096;

/// What is on disk: the number of the next record, and each owner's part.
pub(super) fn usage(db: &Connection) -> rusqlite::Result<(u64, BTreeMap<Owner, OnDisk>)> {
    let last: Option<i64> = db.query_row("SELECT MAX(last) FROM block", [], |row| row.get(0))?;
    let noted: Option<i64> = db.query_row("SELECT MAX(number) FROM noted", [], |row| row.get(0))?;
    let mut owners = BTreeMap::new();
    let mut asked = db.prepare(
        "SELECT name, id, (SELECT COALESCE(SUM(size), 0) FROM block WHERE block.owner = id),
            (SELECT COUNT(*) FROM block WHERE block.owner = id AND loose = 1),
            (SELECT COALESCE(SUM(bytes), 0) FROM block WHERE block.owner = id AND loose = 1), pattern FROM owner",
    )?;
    let mut rows = asked.query([])?;
    while let Some(row) = rows.next()? {
        let Some(owner) = Owner::read(&row.get::<_, String>(0)?) else { continue };
        let count = |at: usize| row.get::<_, i64>(at).map(|value| u64::try_from(value).unwrap_or(0));
        let (id, size, loose, loose_text) = (row.get(1)?, count(2)?, count(3)?, count(4)?);
        owners.insert(owner, OnDisk { id, size, loose, loose_text, pattern: count(5)? });
    }
    let last = last.max(noted).and_then(|last| u64::try_from(last).ok()).unwrap_or(0);
    Ok((last + 1, owners))
}

impl Store {
    pub(super) fn is_sweep_due(&self, now: Timestamp) -> bool {
        self.swept.is_none_or(|swept| now.since(swept) >= SWEEP_EVERY)
    }

    /// Tries to open the file again, at most once in a while.
    pub(super) fn reopen_sometimes(&mut self, now: Timestamp) {
        if self.is_sweep_due(now) {
            self.swept = Some(now);
            self.reopen();
        }
    }

    /// How much may be kept now, and how much is left when it was too much. Where the disk gets full, that is what
    /// there is already, and what fits in the pages that are free in the file.
    pub(super) fn room_now(&self, db: &Connection) -> rusqlite::Result<(Room, u64)> {
        let roomy = self.room.keep - self.room.keep / PART;
        let folder = self.path.parent().unwrap_or(&self.path);
        if !crate::disk::sqlite::is_short(folder) {
            return Ok((self.room, roomy));
        }
        let free = db.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0))?;
        let kept = self.owners.values().map(|owner| owner.size).sum::<u64>();
        let most = kept + u64::try_from(free).unwrap_or(0) * PAGE / 2; // blocks do not fill their pages
        Ok((Room { keep: self.room.keep.min(most), ..self.room }, roomy.min(most)))
    }

    pub(super) fn count_on_disk(&self) {
        let size = self.owners.values().map(|owner| owner.size).sum();
        self.counts.on_disk.store(size, Ordering::Relaxed);
    }
}

/// Lets blocks go until all fits; with a time, also those that are too old. How many records left.
pub(super) fn make_room(
    tx: &Transaction<'_>,
    owners: &mut BTreeMap<Owner, OnDisk>,
    (room, target): (Room, u64),
    sweep: Option<Timestamp>,
) -> rusqlite::Result<u64> {
    let mut left = 0;
    if let Some(now) = sweep {
        let age = u64::try_from(room.keep_for.as_micros()).unwrap_or(u64::MAX);
        let limit = now.as_micros().saturating_sub(age);
        for owner in owners.values_mut() {
            for first in old_ones(tx, owner.id, limit)? {
                left += remove(tx, owner, first)?;
            }
            forget(tx, owner.id)?;
        }
    }
    let mut total: u64 = owners.values().map(|owner| owner.size).sum();
    if total <= room.keep {
        return Ok(left);
    }
    let share = target / (owners.values().filter(|owner| owner.size > 0).count() as u64).max(1);
    let mut leaving: Vec<(i64, i64, u64)> = Vec::new();
    for owner in owners.values().filter(|owner| owner.size > share) {
        leaving.extend(above(tx, owner, share)?);
    }
    leaving.sort_unstable();
    for (first, id, size) in leaving {
        if total <= target {
            break;
        }
        if let Some(owner) = owners.values_mut().find(|owner| owner.id == id) {
            left += remove(tx, owner, first)?;
        }
        total = total.saturating_sub(size);
    }
    Ok(left)
}

/// The oldest blocks of an owner that has more than its share, as far as it has more: number, owner, size.
fn above(tx: &Transaction<'_>, owner: &OnDisk, share: u64) -> rusqlite::Result<Vec<(i64, i64, u64)>> {
    let mut asked = tx.prepare("SELECT first, size FROM block WHERE owner = ?1 ORDER BY first")?;
    let mut rows = asked.query([owner.id])?;
    let (mut size, mut found) = (owner.size, Vec::new());
    while let Some(row) = rows.next()? {
        let (first, own): (i64, i64) = (row.get(0)?, row.get(1)?);
        let own = u64::try_from(own).unwrap_or(0);
        if size <= share {
            break;
        }
        size = size.saturating_sub(own);
        found.push((first, owner.id, own));
    }
    Ok(found)
}

/// Blocks whose newest record is older than that; the oldest first, up to the first that is not.
fn old_ones(tx: &Transaction<'_>, owner: i64, limit: u64) -> rusqlite::Result<Vec<i64>> {
    let mut asked = tx.prepare("SELECT first, at FROM block WHERE owner = ?1 ORDER BY first LIMIT ?2")?;
    let mut rows = asked.query(params![owner, MOST_OLD as i64])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>(1)?.cast_unsigned() >= limit {
            break;
        }
        found.push(row.get(0)?);
    }
    Ok(found)
}

fn remove(tx: &Transaction<'_>, owner: &mut OnDisk, first: i64) -> rusqlite::Result<u64> {
    let mut asked = tx.prepare("DELETE FROM block WHERE first = ?1 RETURNING size, records, loose, bytes")?;
    let told = asked.query_row([first], |row| {
        Ok([row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?, row.get(3)?]
            .map(|value| u64::try_from(value).unwrap_or(0)))
    })?;
    let [size, records, loose, bytes] = told;
    owner.size = owner.size.saturating_sub(size);
    if loose > 0 {
        owner.loose = owner.loose.saturating_sub(1);
        owner.loose_text = owner.loose_text.saturating_sub(bytes);
    }
    Ok(records)
}

/// Lets go what is one too many of findings, and of places of sources that were not heard of for longest.
fn forget(tx: &Transaction<'_>, owner: i64) -> rusqlite::Result<()> {
    for (table, most) in [("noted", MOST_NOTED), ("place", MOST_PLACES)] {
        let asked = format!(
            "DELETE FROM {table} WHERE owner = ?1 AND id <=
                (SELECT id FROM {table} WHERE owner = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)"
        );
        tx.prepare(&asked)?.execute(params![owner, most])?;
    }
    Ok(())
}

/// What is learned of all owners may take a part of the room: those not heard of for longest are forgotten.
pub(super) fn make_room_for_minds(tx: &Transaction<'_>, room: Room) -> rusqlite::Result<()> {
    let most = i64::try_from(room.keep / 4).unwrap_or(i64::MAX);
    loop {
        let total: i64 = tx.query_row("SELECT COALESCE(SUM(size), 0) FROM mind", [], |row| row.get(0))?;
        let oldest = "DELETE FROM mind WHERE owner = (SELECT owner FROM mind ORDER BY saved LIMIT 1)";
        if total <= most || tx.execute(oldest, [])? == 0 {
            return Ok(());
        }
    }
}
