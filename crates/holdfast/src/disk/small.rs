//! Small files that are whole or refused: checksummed, versioned, replaced in one instant.
//!
//! One line, `holdfast KIND vN CRC32`, then a JSON body; the checksum covers `KIND vN`, the line end and
//! the body. A damaged file is set aside under a new name, never deleted; one of a newer version is left
//! untouched (I22). A write that failed has not happened, or may be undone by a power cut: it is written
//! anew before anybody relies on it.

use super::{Disk, LIST_MOST};
use serde::{Serialize, de::DeserializeOwned};
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

/// The longest small file, in bytes.
pub const SMALL_MOST: usize = 1 << 20;

/// Why a small file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SmallFileError {
    /// Its content is not what was written.
    #[error("`{file}` is damaged: {why}; {}", aside_text(aside.as_deref()))]
    Damaged {
        /// Which file.
        file: String,
        /// What is wrong with it.
        why: String,
        /// The name under which it was set aside; `None` if it had to stay where it is.
        aside: Option<String>,
    },
    /// It was damaged earlier, set aside, and no person has looked at it yet.
    #[error("`{file}` was found damaged and set aside as `{aside}`, where it still waits for a person")]
    Waiting {
        /// Which file.
        file: String,
        /// Where it is now.
        aside: String,
    },
    /// A newer Holdfast wrote it. It was left untouched.
    #[error("`{file}` was written by a newer Holdfast (version {version})")]
    Newer {
        /// Which file.
        file: String,
        /// Its version.
        version: u32,
    },
    /// It cannot be put into words, or into so few.
    #[error("`{file}` cannot be written down: {why}")]
    Unwritable {
        /// Which file.
        file: String,
        /// Why.
        why: String,
    },
    /// The disk refused.
    #[error("cannot {doing} `{file}`")]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        file: String,
        /// Why not.
        source: io::Error,
    },
}

fn aside_text(aside: Option<&str>) -> String {
    aside.map_or_else(|| "it could not be set aside".to_owned(), |name| format!("set aside as `{name}`"))
}

/// A small file of one kind.
#[derive(Clone)]
pub struct SmallFile<T> {
    disk: Arc<dyn Disk>,
    file: String,
    kind: &'static str,
    version: u32,
    body: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> SmallFile<T> {
    /// The file `file` of a disk. `kind` is one lower-case word; `version` is what this program writes
    /// and the newest it reads.
    pub fn new(disk: Arc<dyn Disk>, file: impl Into<String>, kind: &'static str, version: u32) -> Self {
        Self { disk, file: file.into(), kind, version, body: PhantomData }
    }

    /// What it says; `None` if there is none. A damaged one is set aside.
    ///
    /// # Errors
    /// Each of [`SmallFileError`] but `Unwritable`. [`SmallFileError::Waiting`] until the file that was
    /// set aside is taken away or a good one was stored.
    pub fn load(&self) -> Result<Option<T>, SmallFileError> {
        let bytes = match self.disk.read(&self.file, 0, SMALL_MOST + 1) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.absent(),
            Err(source) => return Err(self.disk_error("read", source)),
        };
        match self.parse(&bytes) {
            Ok(body) => Ok(Some(body)),
            Err(Bad::Newer(version)) => Err(SmallFileError::Newer { file: self.file.clone(), version }),
            Err(Bad::Damaged(why)) => Err(self.set_aside(why)),
        }
    }

    /// Replaces it, durably. After an error the old content, the new one, or (after a power cut) either
    /// is there; whoever needs to know stores again.
    ///
    /// # Errors
    /// [`SmallFileError::Disk`] and [`SmallFileError::Unwritable`].
    pub fn store(&self, body: &T) -> Result<(), SmallFileError> {
        let unwritable = |why| SmallFileError::Unwritable { file: self.file.clone(), why };
        let mut text = self.title();
        text.push('\n');
        text += &serde_json::to_string(body).map_err(|error| unwritable(error.to_string()))?;
        text.push('\n');
        let crc = crc32fast::hash(text.as_bytes());
        let (title, rest) = text.split_once('\n').expect("it was put there");
        let text = format!("holdfast {title} {crc:08x}\n{rest}");
        if text.len() > SMALL_MOST {
            return Err(unwritable(format!("{} bytes are too many", text.len())));
        }
        let new = format!("{}.new", self.file);
        let mut written = self.disk.create(&new).map_err(|error| self.disk_error("make", error))?;
        if let Err(source) = written.write_at(0, text.as_bytes()).and_then(|()| written.sync()) {
            drop(self.disk.remove(&new)); // room may be short; what stays is replaced next time
            return Err(self.disk_error("write", source));
        }
        let renamed = self.disk.rename(&new, &self.file);
        let synced = renamed.and_then(|()| self.disk.sync_folder(self.folder()));
        synced.map_err(|error| self.disk_error("replace", error))
    }

    fn parse(&self, bytes: &[u8]) -> Result<T, Bad> {
        let damaged = |why: &str| Bad::Damaged(why.to_owned());
        if bytes.len() > SMALL_MOST {
            return Err(damaged("it is too long"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
        let (line, body) = text.split_once('\n').ok_or_else(|| damaged("it has no first line"))?;
        let title = line.strip_prefix("holdfast ").ok_or_else(|| damaged("it is not one of ours"))?;
        let (title, crc) = title.rsplit_once(' ').ok_or_else(|| damaged("its first line is cut short"))?;
        let mut sum = crc32fast::Hasher::new();
        sum.update(title.as_bytes());
        sum.update(b"\n");
        sum.update(body.as_bytes());
        if format!("{:08x}", sum.finalize()) != crc {
            return Err(damaged("its checksum is wrong"));
        }
        let version = title.strip_prefix(self.kind).and_then(|rest| rest.strip_prefix(" v"));
        let version = version.and_then(|digits| digits.parse::<u32>().ok());
        match version.ok_or_else(|| damaged("it is of another kind"))? {
            version if version > self.version => Err(Bad::Newer(version)),
            _ => serde_json::from_str(body).map_err(|error| Bad::Damaged(error.to_string())),
        }
    }

    fn absent(&self) -> Result<Option<T>, SmallFileError> {
        match self.asides()?.into_iter().min() {
            None => Ok(None),
            Some(number) => Err(SmallFileError::Waiting {
                file: self.file.clone(),
                aside: format!("{}.damaged-{number}", self.file),
            }),
        }
    }

    /// Sets the file aside, because of something in its body that only the caller can judge.
    pub fn set_aside(&self, why: String) -> SmallFileError {
        let aside = self.asides().ok().map(|taken| {
            let number = taken.into_iter().max().map_or(1, |most| most + 1);
            format!("{}.damaged-{number}", self.file)
        });
        let aside = aside.filter(|name| self.disk.rename(&self.file, name).is_ok());
        if aside.is_some() {
            drop(self.disk.sync_folder(self.folder())); // else it is set aside once more
        }
        SmallFileError::Damaged { file: self.file.clone(), why, aside }
    }

    /// The numbers under which it was set aside.
    fn asides(&self) -> Result<Vec<usize>, SmallFileError> {
        let listed = self.disk.list(self.folder()).map_err(|error| self.disk_error("look for", error))?;
        let name = self.file.rsplit_once('/').map_or(self.file.as_str(), |(_, name)| name);
        let number = |file: &str| {
            let digits = file.strip_prefix(name)?.strip_prefix(".damaged-")?;
            digits.parse().ok().filter(|number| (1..LIST_MOST).contains(number))
        };
        Ok(listed.iter().filter_map(|file| number(&file.name)).collect())
    }

    fn title(&self) -> String {
        format!("{} v{}", self.kind, self.version)
    }

    fn folder(&self) -> &str {
        self.file.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    fn disk_error(&self, doing: &'static str, source: io::Error) -> SmallFileError {
        SmallFileError::Disk { doing, file: self.file.clone(), source }
    }
}

enum Bad {
    Damaged(String),
    Newer(u32),
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::disk::faulty::{Dice, FaultyDisk, Plan};

    fn file(disk: &FaultyDisk, version: u32) -> SmallFile<Vec<u64>> {
        SmallFile::new(Arc::new(disk.clone()), "some/a", "numbers", version)
    }

    fn names(disk: &FaultyDisk) -> Vec<String> {
        disk.list("some").unwrap().into_iter().map(|file| file.name).collect()
    }

    #[test]
    fn what_is_stored_is_loaded() {
        let disk = FaultyDisk::default();
        assert_eq!(file(&disk, 1).load().unwrap(), None);
        file(&disk, 1).store(&vec![1, 2]).unwrap();
        file(&disk, 1).store(&vec![3]).unwrap();
        assert_eq!(file(&disk, 1).load().unwrap(), Some(vec![3]));
        assert_eq!(disk.read("some/a", 0, 99).unwrap(), b"holdfast numbers v1 a74c09a2\n[3]\n");
    }

    #[test]
    fn at_each_cut_flip_and_failure_it_is_the_old_or_the_new_one_and_after_success_the_new() {
        let old = FaultyDisk::default();
        file(&old, 1).store(&vec![1]).unwrap();
        let steps = {
            let disk = old.after_kill();
            file(&disk, 1).store(&vec![2]).unwrap();
            disk.operations()
        };
        assert_eq!(steps, 5, "create, write, sync, rename, sync of the folder");
        for at in 0..=steps {
            let plans = [
                Plan::Cut { at },
                Plan::Fails { at },
                Plan::Full { from: at, count: 9, share: u8::try_from(at * 50).unwrap() },
            ];
            for (plan, seed) in plans.into_iter().flat_map(|plan| (0..20).map(move |seed| (plan, seed))) {
                let disk = old.after_kill();
                disk.plan(plan);
                let stored = file(&disk, 1).store(&vec![2]).is_ok();
                let found = file(&disk.after_power_cut(seed), 1).load().unwrap().unwrap();
                assert!(found == [2] || (found == [1] && !stored), "{plan:?} {seed} {found:?}");
            }
        }
    }

    #[test]
    fn after_a_failed_store_the_next_one_counts() {
        for at in 0..5 {
            let disk = FaultyDisk::new(Plan::Fails { at });
            file(&disk, 1).store(&vec![1]).unwrap_err();
            file(&disk, 1).store(&vec![1]).unwrap();
            for seed in 0..20 {
                assert_eq!(file(&disk.after_power_cut(seed), 1).load().unwrap(), Some(vec![1]));
            }
        }
    }

    #[test]
    fn each_flipped_bit_and_each_cut_is_found_and_the_file_set_aside_not_deleted() {
        let good = FaultyDisk::default();
        file(&good, 1).store(&vec![10, 20, 30]).unwrap();
        let bytes = good.read("some/a", 0, 999).unwrap();
        let flips = (0..bytes.len() * 8).map(|bit| {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            flipped
        });
        for spoilt in flips.chain((0..bytes.len()).map(|length| bytes[..length].to_vec())) {
            let disk = good.after_kill();
            disk.spoil("some/a", |content| content.clone_from(&spoilt));
            let error = file(&disk, 1).load().unwrap_err();
            assert!(matches!(error, SmallFileError::Damaged { aside: Some(_), .. }), "{error}");
            assert_eq!(disk.read("some/a.damaged-1", 0, 999).unwrap(), spoilt);
            assert!(matches!(file(&disk, 1).load().unwrap_err(), SmallFileError::Waiting { .. }));
            file(&disk, 1).store(&vec![4]).unwrap();
            assert_eq!(file(&disk, 1).load().unwrap(), Some(vec![4]));
        }
    }

    #[test]
    fn the_second_damaged_file_does_not_replace_the_first() {
        let disk = FaultyDisk::default();
        for spoilt in [b"one".to_vec(), b"two".to_vec()] {
            file(&disk, 1).store(&vec![1]).unwrap();
            disk.spoil("some/a", |content| *content = spoilt);
            file(&disk, 1).load().unwrap_err();
        }
        assert_eq!(names(&disk), ["a.damaged-1", "a.damaged-2"]);
    }

    #[test]
    fn a_newer_one_stays_untouched_and_an_older_one_is_read() {
        let disk = FaultyDisk::default();
        file(&disk, 2).store(&vec![7]).unwrap();
        let before = disk.read("some/a", 0, 99).unwrap();
        assert!(matches!(file(&disk, 1).load(), Err(SmallFileError::Newer { version: 2, .. })));
        assert_eq!(disk.read("some/a", 0, 99).unwrap(), before);
        assert_eq!(names(&disk), ["a"]);
        assert_eq!(file(&disk, 3).load().unwrap(), Some(vec![7]));
    }

    #[test]
    fn hostile_content_is_refused() {
        let mut dice = Dice::new(1);
        let deep = format!("holdfast numbers v1 {:08x}\n{}", 0, "[".repeat(100_000));
        let huge = vec![b'['; SMALL_MOST + 5];
        let noise: Vec<u8> = (0..5_000).map(|_| u8::try_from(dice.below(256)).unwrap()).collect();
        for content in [Vec::new(), b"\n".to_vec(), vec![0; 4096], noise, huge, deep.into_bytes()] {
            let disk = FaultyDisk::default();
            file(&disk, 1).store(&vec![1]).unwrap();
            disk.spoil("some/a", |bytes| *bytes = content);
            assert!(matches!(file(&disk, 1).load(), Err(SmallFileError::Damaged { .. })));
        }
    }
}
