//! Sessions: a writer says that it is at work before it writes, and that it has ended.
//!
//! A session names the marks that were there when it began ([`crate::mark`]): the writer relies on none of their packs. It
//! also names the number that its point will have. So a writer that seems dead can be given up without a look at any
//! clock: something else is put in the place of that point, and of the two only one can be there. A writer that was only
//! asleep finds the place taken, and its point is never offered (I14).

use crate::id::{LENGTH, PackId};
use crate::mark::packs_of;
use crate::object::{self, Kind};
use crate::parts::{self, take};
use crate::point::{Point, is_name};
use crate::repository::{PointName, Repository, Trouble, trouble};
use std::collections::BTreeSet;
use std::io;

const VERSION: u8 = 1;
/// Sessions lie here.
pub(crate) const FOLDER: &str = "sessions";
/// The longest name of a computer or a start of it, in bytes.
const WORD_MOST: usize = 64;
/// How often a beginning is tried where others begin at the same time.
const TRIES_MOST: usize = 16;

/// Who writes: told to others, who look whether it is still alive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writer {
    /// The computer, for people.
    pub host: String,
    /// Which start of it, and what else makes a process number unique: compared, never understood.
    pub boot: String,
    /// The process.
    pub process: u32,
    /// When it was started, in whatever unit it is compared.
    pub started: u64,
    /// When the session began, in microseconds since 1970.
    pub begun: i64,
}

/// What a session says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// What it is called.
    pub name: PackId,
    /// The point that is being made; nothing while somebody collects.
    pub point: Option<PointName>,
    /// Who.
    pub writer: Writer,
    /// The marks that were there when it began.
    pub knows: BTreeSet<PackId>,
}

impl Open {
    fn object(&self) -> String {
        format!("{FOLDER}/{}", self.name)
    }

    /// Its content, to be sealed; nothing if a name is too long.
    #[must_use]
    pub fn write(&self) -> Option<Vec<u8>> {
        let mut out = vec![VERSION];
        let (vm, sequence) = self.point.as_ref().map_or(("", 0), |point| (&point.vm[..], point.sequence));
        put_word(&mut out, vm)?;
        out.extend_from_slice(&sequence.to_le_bytes());
        put_word(&mut out, &self.writer.host)?;
        put_word(&mut out, &self.writer.boot)?;
        out.extend_from_slice(&self.writer.process.to_le_bytes());
        out.extend_from_slice(&self.writer.started.to_le_bytes());
        out.extend_from_slice(&self.writer.begun.to_le_bytes());
        self.knows.iter().for_each(|mark| out.extend_from_slice(&mark.0));
        Some(out)
    }

    /// Reads it again; nothing if it is not one of this format.
    #[must_use]
    pub fn read(name: PackId, content: &[u8]) -> Option<Self> {
        let mut rest = content;
        let [VERSION] = take::<1>(&mut rest)? else { return None };
        let vm = word(&mut rest)?;
        let sequence = u64::from_le_bytes(*take(&mut rest)?);
        let (host, boot) = (word(&mut rest)?, word(&mut rest)?);
        let process = u32::from_le_bytes(*take(&mut rest)?);
        let started = u64::from_le_bytes(*take(&mut rest)?);
        let begun = i64::from_le_bytes(*take(&mut rest)?);
        let (knows, []) = rest.as_chunks::<LENGTH>() else { return None };
        if !(vm.is_empty() || is_name(&vm)) {
            return None;
        }
        let point = (!vm.is_empty()).then_some(PointName { vm, sequence });
        let writer = Writer { host, boot, process, started, begun };
        Some(Self { name, point, writer, knows: knows.iter().copied().map(PackId).collect() })
    }
}

fn put_word(out: &mut Vec<u8>, word: &str) -> Option<()> {
    if word.len() > WORD_MOST {
        return None;
    }
    out.push(word.len() as u8);
    out.extend_from_slice(word.as_bytes());
    Some(())
}

fn word(rest: &mut &[u8]) -> Option<String> {
    parts::word(rest).filter(|word| word.len() <= WORD_MOST)
}

/// The right to make one point. It ends with the point, or by itself; a writer that is killed leaves it behind, and
/// whoever collects next sees that.
#[derive(Debug)]
pub struct Session(Open);

impl Session {
    /// Begins to write a point of this VM. From now on `repository` knows what may be relied on, and nothing else: its
    /// parent is to be looked for after this, and not before.
    ///
    /// # Errors
    /// If it cannot be written, a mark cannot be read, or others begin and mark without end.
    pub fn begin(repository: &mut Repository, vm: &str, writer: &Writer) -> Result<Self, Trouble> {
        Self::begin_as(repository, Some(vm), writer)
    }

    /// Begins to collect.
    pub(crate) fn collecting(repository: &mut Repository, writer: &Writer) -> Result<Self, Trouble> {
        Self::begin_as(repository, None, writer)
    }

    fn begin_as(repository: &mut Repository, vm: Option<&str>, writer: &Writer) -> Result<Self, Trouble> {
        for _ in 0..TRIES_MOST {
            let knows = repository.mark_names()?;
            let point = vm.map(|vm| repository.next_of(vm)).transpose()?;
            let session = Self(Open { name: PackId::random()?, point, writer: writer.clone(), knows });
            let object = session.0.object();
            let content = session.0.write().ok_or(Trouble::Damaged { name: object.clone() })?;
            repository.put_sealed(&object, Kind::Session, session.0.name, &content)?;
            if session.stands(repository)? {
                let marks = repository.read_marks(&session.0.knows)?;
                let doomed = packs_of(&marks);
                repository.reload_without(&doomed)?;
                repository.is_writing = true;
                return Ok(session);
            }
            session.end(repository)?;
        }
        Err(Trouble::Busy)
    }

    /// Whether nobody marked before this session could be seen, and nobody wants the same number or has it: of two who begin
    /// at the same time, one at least sees the other, or, if that one has ended meanwhile, its point.
    fn stands(&self, repository: &Repository) -> Result<bool, Trouble> {
        if let Some(point) = &self.0.point {
            let (others, _) = repository.sessions_and_damaged()?;
            let wants = |other: &Open| other.name != self.0.name && other.point.as_ref() == Some(point);
            if others.iter().any(wants) || repository.is_taken(point)? {
                return Ok(false);
            }
        }
        Ok(repository.mark_names()?.is_subset(&self.0.knows))
    }

    /// The number that the point will have.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.0.point.as_ref().map_or(0, |point| point.sequence)
    }

    /// Makes a point of disks that were written in this session: from now on it is there, under the number of the session.
    ///
    /// # Errors
    /// If it is of another VM, cannot be written, or the session was given up by somebody meanwhile.
    pub fn commit(self, repository: &Repository, mut point: Point) -> Result<PointName, Trouble> {
        let name = PointName { vm: point.vm.clone(), sequence: self.sequence() };
        let object = name.object();
        point.sequence = name.sequence;
        let content = point.write().ok().filter(|_| self.0.point.as_ref() == Some(&name));
        let content = content.ok_or(Trouble::Damaged { name: object.clone() })?;
        let bytes = object::write(&repository.keys, Kind::Point, &content)?;
        match repository.store.put(&object, &bytes) {
            Ok(()) => {
                drop(self.end(repository)); // the point is there: that this was left is of no harm
                Ok(name)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                drop(self.end(repository));
                Err(Trouble::GivenUp { vm: name.vm, sequence: name.sequence })
            }
            Err(source) => Err(trouble(&object, "written")(source)),
        }
    }

    /// Ends without a point.
    ///
    /// # Errors
    /// If the session cannot be removed.
    pub fn end(self, repository: &Repository) -> Result<(), Trouble> {
        repository.remove(&self.0.object())
    }

    pub(crate) const fn name(&self) -> PackId {
        self.0.name
    }
}

impl Repository {
    /// The point that comes next: no point, nothing that was given up and nobody at work has its number. Sessions first: one
    /// that ends meanwhile has left its point.
    fn next_of(&self, vm: &str) -> Result<PointName, Trouble> {
        let sessions = self.sessions_and_damaged()?.0.into_iter().filter_map(|session| session.point);
        let folder = format!("points/{vm}");
        let there = self.store.list(&folder).map_err(trouble(&folder, "listed"))?;
        let taken = there.iter().filter_map(|(name, _)| PointName::of(name)).chain(sessions);
        let last = taken.filter(|name| name.vm == vm).map(|name| name.sequence).max();
        let sequence = last.map_or(Some(1), |last| last.checked_add(1)).ok_or(Trouble::Busy)?;
        Ok(PointName { vm: vm.to_owned(), sequence })
    }

    /// Whether a point has this number, or it was given up.
    fn is_taken(&self, point: &PointName) -> Result<bool, Trouble> {
        let object = point.object();
        match self.store.read(&object, 0, 0) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(trouble(&object, "read")(source)),
        }
    }

    /// Who is at work, or was killed at it; and the sessions that cannot be read.
    ///
    /// # Errors
    /// If they cannot be listed or read.
    pub fn sessions_and_damaged(&self) -> Result<(Vec<Open>, Vec<String>), Trouble> {
        let (mut open, mut damaged) = (Vec::new(), Vec::new());
        for (object, _) in self.store.list(FOLDER).map_err(trouble(FOLDER, "listed"))? {
            let name = object.strip_prefix(FOLDER).and_then(|name| PackId::parse(name.get(1..)?));
            let content = match name.map(|name| self.sealed(&object, Kind::Session, name)) {
                Some(Err(why)) if why.is_gone() => continue, // it has ended
                Some(Err(why @ Trouble::Store { .. })) => return Err(why),
                Some(Ok(content)) => content,
                _ => Vec::new(),
            };
            match name.and_then(|name| Open::read(name, &content)) {
                Some(session) => open.push(session),
                None => damaged.push(object),
            }
        }
        Ok((open, damaged))
    }

    /// Who is at work, or was killed at it.
    ///
    /// # Errors
    /// If they cannot be listed, or one cannot be read.
    pub fn sessions(&self) -> Result<Vec<Open>, Trouble> {
        let (open, mut damaged) = self.sessions_and_damaged()?;
        damaged.pop().map_or(Ok(open), |name| Err(Trouble::Damaged { name }))
    }

    /// Ends the session of a writer that seems dead. Its number is taken from it first: should it be alive, its point is
    /// never there, and should its point be there already, it stays (I13, I14).
    ///
    /// # Errors
    /// If the repository cannot be written.
    pub fn give_up(&self, session: &Open) -> Result<(), Trouble> {
        if let Some(point) = &session.point {
            let object = point.object();
            match self.put_sealed(&object, Kind::Void, PackId::random()?, &[]) {
                Err(Trouble::Store { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
                ended => ended?,
            }
        }
        self.remove(&session.object())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_read_as_it_was_written_and_not_if_it_was_cut() {
        let name = PackId([3; LENGTH]);
        let writer = Writer { host: "atlas".into(), boot: "1f".into(), process: 7, started: 9, begun: -1 };
        let point = Some(PointName { vm: "orders".into(), sequence: 4 });
        let knows = [PackId([1; LENGTH]), PackId([2; LENGTH])].into();
        let open = Open { name, point, writer, knows };
        let content = open.write().unwrap();
        assert_eq!(Open::read(name, &content).unwrap(), open);
        let marks = content.len() - 2 * LENGTH;
        for length in (0..content.len()).filter(|length| *length != marks && *length != marks + LENGTH) {
            assert_eq!(Open::read(name, &content[..length]), None, "{length}");
        }
        let collecting = Open { point: None, ..open.clone() };
        assert_eq!(Open::read(name, &collecting.write().unwrap()).unwrap(), collecting);
        let long = Writer { host: "a".repeat(65), ..open.writer.clone() };
        assert_eq!(Open { writer: long, ..open }.write(), None);
    }
}
