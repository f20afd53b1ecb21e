//! The record of a disk's files, kept twice: without it nobody knows which snapshot is what, so no damaged block may take both.
//!
//! `record` is what counts. `record-copy` is read only where `record` is damaged or gone, and then both are written anew. A change is
//! flushed beside both before either changes, then `record` changes, then the copy; only then is it acted on. Whoever is killed
//! in between leaves a copy that is one step behind while nothing has come of that step, and the next who reads mends it. A
//! copy that nevertheless tells of another time (an older version wrote `record` alone) does not fit the files that
//! are there, and is not believed.

use super::super::kept::{KeptError, Kind, Look};
use super::super::machine::error_chain;
use super::files::Files;
use super::tree::{FileNumber, Tree};
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

const KIND: Kind = Kind { word: "snapshots", version: 1, most: 4 << 20 };

/// Whose turn it is to write a record, and what was told of its folder.
#[derive(Debug, Default)]
pub struct Turn {
    told: Mutex<Option<String>>,
    left: Mutex<Vec<(PathBuf, String)>>,
}

impl Turn {
    /// Waits for it. What was told of the record last.
    fn wait(&self) -> MutexGuard<'_, Option<String>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Files beside the record of which nothing is known and that stay, each with the reason.
    pub(super) fn left(&self) -> MutexGuard<'_, Vec<(PathBuf, String)>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells once what is the same each time.
fn warn(told: &mut Option<String>, what: String) {
    if told.as_deref() != Some(&what) {
        tracing::warn!("{what}");
        *told = Some(what);
    }
}

impl Files {
    /// What the disk is made of; `None`: of the configured disk alone. The copy of the record is mended where that is needed, and the
    /// record by its copy, which is told.
    ///
    /// # Errors
    /// A sentence. Where there are overlays of which nothing is on record, nobody may write to what they stand on.
    pub fn read(&self) -> Result<Option<Tree>, String> {
        if !self.folder().exists() {
            return Ok(None);
        }
        let mut told = self.turn.wait();
        let why = match KIND.read(&self.record()) {
            Ok(Some(tree)) => {
                self.mend_copy(&tree, &mut told);
                return Ok(Some(tree));
            }
            Ok(None) => None,
            Err(error @ KeptError::Newer { .. }) => return Err(error_chain(&error)),
            Err(error) => Some(error_chain(&error)),
        };
        match self.by_copy()? {
            Some(tree) => {
                self.mend_record(&tree, why, &mut told);
                Ok(Some(tree))
            }
            None => why.map_or_else(|| self.without(), Err),
        }
    }

    /// As [`Files::read`], from another process than the one that writes: nothing is changed.
    ///
    /// # Errors
    /// As for [`Files::read`].
    pub fn look(&self) -> Result<Option<Tree>, String> {
        if !self.folder().exists() {
            return Ok(None);
        }
        let why = match KIND.look(&self.record()) {
            Ok(Look::Whole(tree)) => return Ok(Some(tree)),
            Ok(Look::Nothing) => None,
            Ok(Look::Damaged) => Some(format!("the record {} is damaged", self.record().display())),
            Err(error @ KeptError::Newer { .. }) => return Err(error_chain(&error)),
            Err(error) => Some(error_chain(&error)),
        };
        match self.by_copy()? {
            Some(tree) => Ok(Some(tree)),
            None => why.map_or_else(|| self.without(), Err),
        }
    }

    /// Writes it down, durably, twice.
    ///
    /// # Errors
    /// A sentence; what was on record before is then still there.
    pub fn write(&self, tree: &Tree) -> Result<(), String> {
        let mut told = self.turn.wait();
        let (record, copy) = (self.record(), self.copy());
        // All that needs room comes first: no change is half there because a disk is full.
        let second = KIND.prepare(&copy, tree).map_err(|error| error_chain(&error))?;
        KIND.write(&record, tree).map_err(|error| error_chain(&error))?;
        if let Err(error) = second.put() {
            let error = error_chain(&error);
            // None is better than one of another time.
            let gone =
                fs::remove_file(&copy).map_or_else(|why| why.to_string(), |()| "none is there now".into());
            warn(
                &mut told,
                format!("the second copy of the record {} is not written: {error}; {gone}", record.display()),
            );
        }
        Ok(())
    }

    fn record(&self) -> PathBuf {
        self.folder().join("record")
    }

    fn copy(&self) -> PathBuf {
        self.folder().join("record-copy")
    }

    /// The copy says what the record says.
    fn mend_copy(&self, tree: &Tree, told: &mut Option<String>) {
        let copy = self.copy();
        let lacks = match KIND.look::<Tree>(&copy) {
            Ok(Look::Whole(ref second)) if second == tree => return,
            // A kill between the two, or a version that wrote only one.
            Ok(Look::Whole(_) | Look::Nothing) => None,
            Ok(Look::Damaged) => Some("is damaged".to_owned()),
            Err(KeptError::Newer { .. }) => return,
            Err(error) => Some(format!("cannot be read: {}", error_chain(&error))),
        };
        let written = KIND.write(&copy, tree).map_err(|error| error_chain(&error));
        let (copy, record) = (copy.display(), self.record());
        match (lacks, written) {
            (None, Ok(())) => {}
            (Some(lacks), Ok(())) => {
                let from = record.display();
                warn(
                    told,
                    format!(
                        "the second copy of a record of snapshots, {copy}, {lacks}: it is written anew from {from}"
                    ),
                );
            }
            (_, Err(why)) => {
                warn(
                    told,
                    format!("the second copy of a record of snapshots, {copy}, cannot be written: {why}"),
                );
            }
        }
    }

    /// The record says what its copy says.
    fn mend_record(&self, tree: &Tree, why: Option<String>, told: &mut Option<String>) {
        let (record, copy) = (self.record(), self.copy());
        let why = why.unwrap_or_else(|| format!("the record {} is missing", record.display()));
        let written = KIND.write(&record, tree).map_err(|error| error_chain(&error));
        let written = written
            .map_or_else(|why| format!("it cannot be written anew: {why}"), |()| "it is written anew".into());
        warn(told, format!("{why}; {written} from its second copy, {}", copy.display()));
    }

    /// What the copy says, if there is one that can be used.
    ///
    /// # Errors
    /// A sentence, if it tells of another time than the files that are there.
    fn by_copy(&self) -> Result<Option<Tree>, String> {
        let copy = self.copy();
        match KIND.look::<Tree>(&copy) {
            Ok(Look::Whole(tree)) => match self.strange(&tree) {
                None => Ok(Some(tree)),
                Some(what) => Err(format!(
                    "the record {} is damaged or missing, and its second copy, {}, is not of the files that are there ({what}): put \
                     `record` back, or move the folder away to start from the disk as it was before its first snapshot, without all \
                     that was written since",
                    self.record().display(),
                    copy.display()
                )),
            },
            Ok(Look::Nothing | Look::Damaged) => Ok(None),
            Err(error @ KeptError::Newer { .. }) => Err(error_chain(&error)),
            Err(_) => Ok(None),
        }
    }

    /// What does not fit this tree among the files that are there.
    fn strange(&self, tree: &Tree) -> Option<String> {
        let missing = tree.overlays().map(|file| self.path(file)).find(|path| !path.exists());
        let saved = tree.snapshots().filter(|snapshot| snapshot.memory.is_some());
        let missing =
            missing.or_else(|| saved.map(|snapshot| self.memory(snapshot.id)).find(|path| !path.exists()));
        if let Some(missing) = missing {
            return Some(format!("there is no {}", missing.display()));
        }
        let newer = self.overlays().find(|number| number.0 >= tree.next().0)?;
        Some(format!("it knows nothing of {}", self.path(newer).display()))
    }

    /// The overlays that are there, on record or not.
    pub(super) fn overlays(&self) -> impl Iterator<Item = FileNumber> {
        let entries = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        entries.filter_map(|entry| {
            entry.file_name().to_str()?.strip_suffix(".qcow2")?.parse().ok().map(FileNumber)
        })
    }

    /// Nothing is on record.
    fn without(&self) -> Result<Option<Tree>, String> {
        let entries = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.path());
        if !names.any(|path| path.extension().is_some_and(|end| end == "qcow2")) {
            return Ok(None);
        }
        let aside = self.record().with_extension("damaged").exists();
        let aside = if aside { " (`record.damaged` is what could not be read)" } else { "" };
        Err(format!(
            "{} has overlays of the disk, and the record of them is missing{aside}: put `record` back, or move the folder away to \
             start from the disk as it was before its first snapshot, without all that was written since",
            self.folder().display()
        ))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::rewind::set_aside;
    use super::*;
    use crate::qemu::launch::Format;
    use std::path::Path;
    use tempfile::TempDir;

    const TORN: &str = "holdfast snapshots 1 00000000\n{";

    struct Place(TempDir);

    impl Place {
        /// A disk with one snapshot, and what its record was before that was taken.
        fn new() -> (Self, Files, [Tree; 2]) {
            let place = Self(tempfile::tempdir().unwrap());
            let files = Files::of(&place.0.path().join("disk"));
            files.make_folder().unwrap();
            let before = Tree::of(Format::Raw);
            files.write(&before).unwrap();
            let mut after = before.clone();
            after.begin();
            after.settle(Some(set_aside(&before, String::new())));
            fs::write(files.path(FileNumber(1)), "").unwrap();
            files.write(&after).unwrap();
            (place, files, [before, after])
        }
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn whichever_of_the_two_is_damaged_or_gone_the_other_is_read_and_both_are_whole_again() {
        let (_place, files, [_, tree]) = Place::new();
        let both = [files.record(), files.copy()];
        let whole = text(&both[0]);
        assert_eq!(text(&both[1]), whole);
        for hurt in &both {
            for damage in [Some(TORN), Some(""), None] {
                match damage {
                    Some(text) => fs::write(hurt, text).unwrap(),
                    None => fs::remove_file(hurt).unwrap(),
                }
                assert_eq!(files.look().unwrap().as_ref(), Some(&tree), "{}: {damage:?}", hurt.display());
                assert_eq!(files.read().unwrap().as_ref(), Some(&tree), "{}: {damage:?}", hurt.display());
                assert_eq!(
                    both.each_ref().map(|path| text(path)),
                    [&*whole; 2],
                    "{}: {damage:?}",
                    hurt.display()
                );
            }
        }
    }

    #[test]
    fn one_that_only_looks_changes_nothing() {
        let (_place, files, [_, tree]) = Place::new();
        fs::write(files.record(), TORN).unwrap();
        assert_eq!(files.look().unwrap(), Some(tree));
        assert_eq!(text(&files.record()), TORN);
    }

    #[test]
    fn a_kill_between_the_two_leaves_what_the_record_says() {
        let (_place, files, [before, after]) = Place::new();
        KIND.write(&files.copy(), &before).unwrap(); // the step of the record alone was done
        assert_eq!(files.read().unwrap(), Some(after.clone()));
        fs::remove_file(files.record()).unwrap();
        assert_eq!(files.read().unwrap(), Some(after), "the copy was mended by whoever looked first");
    }

    #[test]
    fn a_record_of_before_there_were_two_gets_its_copy() {
        let (_place, files, [_, tree]) = Place::new();
        fs::remove_file(files.copy()).unwrap();
        assert_eq!(files.read().unwrap(), Some(tree));
        assert_eq!(text(&files.copy()), text(&files.record()));
    }

    #[test]
    fn a_copy_of_another_time_is_not_believed() {
        let (_place, files, [before, after]) = Place::new();
        fs::remove_file(files.record()).unwrap();
        KIND.write(&files.copy(), &before).unwrap(); // it knows nothing of the overlay that is there
        let why = files.read().unwrap_err();
        assert!(why.contains("record-copy") && why.contains("1.qcow2"), "{why}");
        assert!(files.look().is_err() && !files.record().exists());
        KIND.write(&files.copy(), &after).unwrap();
        fs::remove_file(files.path(FileNumber(1))).unwrap(); // it tells of one that is gone
        assert!(files.read().unwrap_err().contains("there is no"));
    }

    #[test]
    fn where_both_are_lost_nothing_is_guessed() {
        let (_place, files, _) = Place::new();
        for path in [files.record(), files.copy()] {
            fs::write(path, TORN).unwrap();
        }
        assert!(files.read().unwrap_err().contains("is damaged"));
        fs::remove_file(files.copy()).unwrap();
        assert!(files.read().unwrap_err().contains("`record.damaged`"));
        fs::remove_file(files.path(FileNumber(1))).unwrap();
        assert_eq!(files.read(), Ok(None), "nothing stands on the disk any more");
    }

    #[test]
    fn a_change_for_which_there_is_no_room_changes_neither() {
        let (_place, files, [before, after]) = Place::new();
        let fresh = files.copy().with_extension("new");
        fs::create_dir(&fresh).unwrap(); // the second cannot be prepared
        assert!(files.write(&before).is_err());
        assert_eq!(files.read(), Ok(Some(after.clone())));
        fs::remove_dir(&fresh).unwrap();
        fs::create_dir(files.record().with_extension("new")).unwrap(); // the first cannot be written
        assert!(files.write(&before).is_err());
        assert_eq!(files.read(), Ok(Some(after)));
    }
}
