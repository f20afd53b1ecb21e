//! What can be wrong with a journal that is read back. Nothing is repaired in place, and nothing hidden.

/// Something wrong with a journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The last bytes of a segment are no whole record: the power or the program was cut off while
    /// writing. Nothing that was reported as safe is lost.
    #[error("`{file}` ends unfinished at byte {from}, as a crash leaves it; nothing safe was lost")]
    Tail {
        /// Which file.
        file: String,
        /// The first byte that is of no use.
        from: u64,
    },
    /// Bytes changed that had been safe on the disk. What stands behind them is not used.
    #[error("`{file}` is damaged at byte {from}; the records behind it are not used")]
    Damaged {
        /// Which file.
        file: String,
        /// The first damaged byte.
        from: u64,
    },
    /// The checkpoint of a segment is damaged; an older one was used.
    #[error("the checkpoint of `{file}` is damaged; an older one is used")]
    NoCheckpoint {
        /// Which file.
        file: String,
    },
    /// It is named like a segment and does not start like one.
    #[error("`{file}` is not a journal segment, or its first bytes are damaged")]
    NoHeader {
        /// Which file.
        file: String,
    },
    /// A newer Holdfast wrote it (I22).
    #[error("`{file}` was written by a newer Holdfast (journal version {version})")]
    Newer {
        /// Which file.
        file: String,
        /// Its version of the format.
        version: u32,
    },
    /// The disk does not give it back.
    #[error("`{file}` cannot be read: {cause}")]
    Unreadable {
        /// Which file.
        file: String,
        /// What the kernel said.
        cause: String,
    },
    /// A whole record that makes no sense to this program.
    #[error("record {n} is not understood: {cause}")]
    NotUnderstood {
        /// Its number.
        n: u64,
        /// Why.
        cause: String,
    },
    /// These records are not there: they were never written (disk full), were removed, or are damaged.
    #[error("records {first} to {last} are missing")]
    Missing {
        /// The first one.
        first: u64,
        /// The last one.
        last: u64,
    },
}

impl Trouble {
    /// What it means that record `found` stands where `expected` should be.
    #[must_use]
    pub fn between(expected: u64, found: u64) -> Self {
        if found > expected {
            return Self::Missing { first: expected, last: found - 1 };
        }
        Self::NotUnderstood { n: found, cause: format!("record {expected} should stand here") }
    }

    /// Whether something is lost or damaged, so that a person must know. The unfinished end that each
    /// crash leaves is not serious.
    #[must_use]
    pub const fn is_serious(&self) -> bool {
        !matches!(self, Self::Tail { .. })
    }
}
