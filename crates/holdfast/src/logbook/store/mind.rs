//! What was learned of an owner's logs, as one compressed document, so that pattern numbers stay what they are.

use super::write::on_disk;
use super::{Counts, Owner, Store};
use crate::disk::sqlite::is_damage;
use holdfast_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Read;

/// Bytes of such a document, decompressed.
const LARGEST: u64 = 64 << 20;
/// It is written often, and its words are short.
const LEVEL: i32 = 1;

impl Store {
    /// Keeps what was learned. What cannot be kept is learned again after a restart.
    pub fn keep_mind<T: Serialize>(&mut self, owner: &Owner, mind: &T, now: Timestamp) {
        let Some(db) = self.db.take() else { return };
        let written = write(&db, self, owner, mind, now);
        self.db = Some(db);
        if let Err(error) = written {
            self.tell(&error, "see that the disk has room and can be written; it is tried again");
        }
    }

    /// What was learned; nothing if it is not there or cannot be read.
    pub fn mind<T: DeserializeOwned>(&self, owner: &Owner) -> Option<T> {
        let db = self.db.as_ref()?;
        match read(db, owner) {
            Ok(mind) => mind,
            Err(error) => {
                if is_damage(&error) {
                    Counts::add(&self.counts.damaged, 1);
                }
                None
            }
        }
    }
}

fn write<T: Serialize>(
    db: &Connection,
    store: &mut Store,
    owner: &Owner,
    mind: &T,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let failed = |cause: std::io::Error| rusqlite::Error::ToSqlConversionFailure(cause.into());
    let mut packing = zstd::Encoder::new(Vec::new(), LEVEL).map_err(failed)?;
    serde_json::to_writer(&mut packing, mind).map_err(|cause| failed(cause.into()))?;
    let content = packing.finish().map_err(failed)?;
    let before = store.owners.clone();
    let written = (|| {
        let tx = db.unchecked_transaction()?;
        let id = on_disk(&tx, &mut store.owners, owner)?.id;
        let (saved, size) = (now.as_micros().cast_signed(), content.len() as i64);
        let crc = i64::from(crc32fast::hash(&content));
        let insert = "INSERT OR REPLACE INTO mind VALUES (?1, ?2, ?3, ?4, ?5)";
        tx.prepare(insert)?.execute(params![id, saved, size, crc, content])?;
        super::room::make_room_for_minds(&tx, store.room)?;
        tx.commit()
    })();
    if written.is_err() {
        store.owners = before;
    }
    written
}

fn read<T: DeserializeOwned>(db: &Connection, owner: &Owner) -> rusqlite::Result<Option<T>> {
    let asked = "SELECT crc, content FROM mind JOIN owner ON owner.id = mind.owner WHERE name = ?1";
    let found = db
        .query_row(asked, [owner.to_string()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
        .optional()?;
    let Some((crc, content)) = found else { return Ok(None) };
    if i64::from(crc32fast::hash(&content)) != crc {
        return Err(rusqlite::Error::InvalidColumnType(1, "content".into(), rusqlite::types::Type::Blob));
    }
    let Ok(unpacking) = zstd::Decoder::new(&*content) else { return Ok(None) };
    let reader = std::io::BufReader::new(unpacking.take(LARGEST));
    Ok(serde_json::from_reader(reader).ok()) // of another version: learned anew
}
