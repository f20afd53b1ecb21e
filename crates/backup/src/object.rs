//! One sealed thing in one object: an index, a point. It has a random name of its own in its head, so its seal is
//! never used twice, and says what it is, so that none is taken for another.

use crate::id::{LENGTH, PackId};
use crate::key::{Forged, Keys, Place, TAG};

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Where blocks lie.
    Index,
    /// A restore point.
    Point,
    /// In place of a point that will never be: its writer was given up. Its content is empty.
    Void,
    /// A writer is at work.
    Session,
    /// Packs that are to go.
    Mark,
    /// What somebody saw of a restore point.
    Proof,
    /// How far somebody came who made no point. It is never in a repository.
    Attempt,
}

impl Kind {
    const fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Index => b"HFINDEX\x01",
            Self::Point => b"HFPOINT\x01",
            Self::Void => b"HFVOID\0\x01",
            Self::Session => b"HFSESSN\x01",
            Self::Mark => b"HFMARK\0\x01",
            Self::Proof => b"HFPROOF\x01",
            Self::Attempt => b"HFATTMP\x01",
        }
    }
}

/// Bytes before what is sealed: magic, repository, random name.
const HEAD: usize = 8 + 2 * LENGTH;
/// Bytes of an object without content.
pub(crate) const EMPTY: u64 = (HEAD + TAG) as u64;

/// The object of this content.
///
/// # Errors
/// If the system has no random numbers.
pub fn write(keys: &Keys, kind: Kind, content: &[u8]) -> Result<Vec<u8>, getrandom::Error> {
    Ok(write_as(keys, kind, PackId::random()?, content))
}

/// The object of this content and random name, which no other has.
#[must_use]
pub fn write_as(keys: &Keys, kind: Kind, object: PackId, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + content.len() + TAG);
    bytes.extend_from_slice(kind.magic());
    bytes.extend_from_slice(&keys.repository().0);
    bytes.extend_from_slice(&object.0);
    bytes.extend_from_slice(content);
    keys.seal(Place { object, offset: HEAD as u64 }, &mut bytes, HEAD);
    bytes
}

/// The random name of an object; of no more worth than its seal, which this does not open.
#[must_use]
pub fn name(bytes: &[u8]) -> Option<PackId> {
    let name = bytes.get(HEAD - LENGTH..HEAD)?;
    name.try_into().ok().map(PackId)
}

/// The content of an object of this kind.
///
/// # Errors
/// If it is another one, or was changed.
pub fn read<'a>(keys: &Keys, kind: Kind, bytes: &'a mut [u8]) -> Result<&'a [u8], Forged> {
    let (head, sealed) = bytes.split_at_mut_checked(HEAD).ok_or(Forged)?;
    let rest = head.strip_prefix(kind.magic()).and_then(|rest| rest.strip_prefix(&keys.repository().0));
    let object = PackId(rest.and_then(|name| name.try_into().ok()).ok_or(Forged)?);
    keys.open(Place { object, offset: HEAD as u64 }, sealed)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::id::RepositoryId;
    use crate::key::Master;

    #[test]
    fn an_object_is_read_as_what_it_was_written_and_as_nothing_else() {
        let keys = Master::random().unwrap().keys(RepositoryId([1; LENGTH]));
        let bytes = write(&keys, Kind::Point, b"of orders").unwrap();
        let read = |kind, bytes: &[u8]| read(&keys, kind, &mut bytes.to_vec()).map(<[u8]>::to_vec);
        assert_eq!(read(Kind::Point, &bytes).unwrap(), b"of orders");
        assert_eq!(read(Kind::Index, &bytes), Err(Forged));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(read(Kind::Point, &changed), Err(Forged), "byte {at}");
            assert_eq!(read(Kind::Point, &bytes[..at]), Err(Forged));
        }
    }
}
