//! Opening the file, and telling once what is wrong with it.

use super::room::usage;
use super::{Counts, Room, Store};
use crate::disk::sqlite::{self, Form};
use holdfast_core::time::Timestamp;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tracing::warn;

/// The file, in the state folder.
pub const FILE: &str = "logs.sqlite";

/// What the file is; its mark is "HFLG".
pub(super) const FORM: Form = Form { what: "logs", version: 1, ours: 0x4846_4c47, schema: SCHEMA };

impl Store {
    /// Opens the file in a folder, or makes it. It always comes up: with what is wrong told, and nothing kept.
    pub fn open(folder: &Path, room: Room) -> Self {
        let path = folder.join(FILE);
        let mut store = Self {
            path,
            room,
            db: None,
            next: 1,
            owners: BTreeMap::new(),
            pending: BTreeMap::new(),
            pending_bytes: 0,
            noted: Vec::new(),
            places: BTreeMap::new(),
            counts: Arc::new(Counts::default()),
            newest: tokio::sync::watch::channel(0).0,
            told: None,
            again: Timestamp::ZERO,
            failures: 0,
            swept: None,
        };
        store.reopen();
        store
    }

    /// Opens the file anew, where that can be done; what cannot is told once.
    pub(super) fn reopen(&mut self) {
        self.db = None;
        let opened = sqlite::open(&self.path, &FORM).and_then(|db| {
            let known = usage(&db).map_err(|source| sqlite::refused(&self.path, source))?;
            Ok((db, known))
        });
        match opened {
            Ok((db, (next, owners))) => {
                self.next = self.next.max(next);
                self.owners = owners;
                self.db = Some(db);
                self.told = None;
                self.newest.send_replace(self.next - 1);
                self.count_on_disk();
            }
            Err(error) => self.tell(&error, error.hint()),
        }
    }

    /// Warns of a trouble, unless it is the one that was told last.
    pub(super) fn tell(&mut self, error: &dyn std::error::Error, hint: &str) {
        let cause = crate::act::chain(error);
        if self.told.as_ref() != Some(&cause) {
            warn!(cause, hint, "logs are not kept");
            self.told = Some(cause);
        }
    }
}

const SCHEMA: &str = "
CREATE TABLE owner (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, pattern INTEGER NOT NULL DEFAULT 0);
CREATE TABLE block (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, owner INTEGER NOT NULL,
    since INTEGER NOT NULL, until INTEGER NOT NULL, at INTEGER NOT NULL,
    records INTEGER NOT NULL, severities INTEGER NOT NULL, bytes INTEGER NOT NULL, size INTEGER NOT NULL,
    loose INTEGER NOT NULL, crc INTEGER NOT NULL, patterns BLOB NOT NULL, content BLOB NOT NULL);
CREATE INDEX block_of ON block (owner, first, size);
CREATE INDEX block_loose ON block (owner, first) WHERE loose = 1;
CREATE TABLE place (id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, source TEXT NOT NULL, place TEXT NOT NULL, UNIQUE (owner, source));
CREATE INDEX place_of ON place (owner, id);
CREATE TABLE noted (
    id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, number INTEGER NOT NULL, subject TEXT NOT NULL, source TEXT NOT NULL,
    at INTEGER NOT NULL, received INTEGER NOT NULL, sort TEXT NOT NULL, name TEXT NOT NULL, severity INTEGER,
    decibans REAL NOT NULL, text TEXT NOT NULL);
CREATE INDEX noted_of ON noted (owner, id);
CREATE TABLE mind (owner INTEGER PRIMARY KEY, saved INTEGER NOT NULL, size INTEGER NOT NULL, crc INTEGER NOT NULL, content BLOB NOT NULL);
";
