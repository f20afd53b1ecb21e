//! Many blocks in one object: a pack. Each block is sealed for its place, so a pack can be read through from its start,
//! and from any block that somebody knows the place of.

use crate::block::{self, BLOCK, Damage};
use crate::id::{BlockId, LENGTH, PackId};
use crate::key::{Forged, Keys, Place, TAG};

/// A pack is closed once it has so many bytes.
pub const FULL: usize = 16 << 20;
/// The longest sealed record.
pub const LONGEST: usize = block::longest(BLOCK) + TAG;
/// What a pack begins with.
const MAGIC: &[u8; 8] = b"HFPACK\0\x01";
/// Bytes before the first record.
pub const HEAD: usize = 8 + 2 * LENGTH;
/// Bytes before each record: its length.
pub(crate) const FRAME: usize = 4;

/// Where a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// The byte of the pack at which the sealed record begins.
    pub offset: u32,
    /// Its length, sealed.
    pub length: u32,
}

/// A pack that is being filled.
pub struct Packer<'a> {
    keys: &'a Keys,
    id: PackId,
    bytes: Vec<u8>,
}

impl<'a> Packer<'a> {
    /// An empty pack of a new name.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn new(keys: &'a Keys) -> Result<Self, getrandom::Error> {
        Self::within(keys, Vec::new())
    }

    /// The same, in the memory of these bytes, which are forgotten.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn within(keys: &'a Keys, mut bytes: Vec<u8>) -> Result<Self, getrandom::Error> {
        let id = PackId::random()?;
        bytes.clear();
        bytes.reserve_exact(FULL + FRAME + LONGEST);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&keys.repository().0);
        bytes.extend_from_slice(&id.0);
        Ok(Self { keys, id, bytes })
    }

    /// Appends a record as [`block::write`] makes them. Says where it lies.
    ///
    /// # Panics
    /// If it is longer than any block can be: a fault of the caller.
    pub fn add(&mut self, record: &[u8]) -> Spot {
        assert!(record.len() + TAG <= LONGEST, "no block is as long as {} bytes", record.len());
        let length = (record.len() + TAG) as u32;
        self.bytes.extend_from_slice(&length.to_le_bytes());
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(record);
        let place = Place { object: self.id, offset: offset as u64 };
        self.keys.seal(place, &mut self.bytes, offset);
        Spot { offset: offset as u32, length }
    }

    /// Nothing more should be added.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.bytes.len() >= FULL
    }

    /// Nothing was added.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.len() == HEAD
    }

    /// The name, and the bytes to be stored under it.
    #[must_use]
    pub fn close(self) -> (PackId, Vec<u8>) {
        (self.id, self.bytes)
    }
}

/// What is wrong with a pack or a record in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// No pack, or of another repository, version or name.
    #[error("it is no pack of this repository, or one of a later version")]
    NoPack,
    /// It ends within a record.
    #[error("it ends within a block")]
    Cut,
    /// A record is not what was sealed there.
    #[error("a block was changed, or belongs elsewhere")]
    Forged(#[from] Forged),
    /// A record is no block, or another one.
    #[error("a block cannot be read: {0}")]
    Damaged(#[from] Damage),
}

/// Opens the sealed record that lies at this spot of this pack; `sealed` are its bytes.
///
/// # Errors
/// If it is not what was sealed there, or is the record of another block than `wanted`.
pub fn open<'a>(
    keys: &Keys,
    pack: PackId,
    spot: Spot,
    wanted: BlockId,
    sealed: &'a mut [u8],
) -> Result<block::Record<'a>, PackError> {
    let place = Place { object: pack, offset: u64::from(spot.offset) };
    let record = block::Record::read(keys.open(place, sealed)?)?;
    if record.id == wanted { Ok(record) } else { Err(Damage::Other.into()) }
}

/// Goes through the records of a whole pack, in their order: each with its spot. What comes after the first that is
/// cut cannot be found.
pub struct Records<'a> {
    keys: &'a Keys,
    id: PackId,
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Records<'a> {
    /// Of these bytes, stored under this name.
    ///
    /// # Errors
    /// If they are no pack of this repository and name.
    pub fn of(keys: &'a Keys, id: PackId, bytes: &'a mut [u8]) -> Result<Self, PackError> {
        let head = bytes.split_at_checked(HEAD).ok_or(PackError::NoPack)?.0;
        let expected = [&MAGIC[..], &keys.repository().0, &id.0].concat();
        if head != expected {
            return Err(PackError::NoPack);
        }
        Ok(Self { keys, id, bytes, at: HEAD })
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// If the pack ends within it, or it is not what was sealed there. A damaged record does not keep the next from being
    /// read.
    #[expect(clippy::should_implement_trait, reason = "a record is opened in place, and lent")]
    pub fn next(&mut self) -> Option<Result<(Spot, block::Record<'_>), PackError>> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return None;
        }
        let Some((length, _)) = rest.split_first_chunk::<FRAME>() else {
            self.at = self.bytes.len();
            return Some(Err(PackError::Cut));
        };
        let (offset, length) = (self.at + FRAME, u32::from_le_bytes(*length) as usize);
        if length > LONGEST || offset + length > self.bytes.len() {
            self.at = self.bytes.len();
            return Some(Err(PackError::Cut));
        }
        self.at = offset + length;
        let spot = Spot { offset: offset as u32, length: length as u32 };
        let place = Place { object: self.id, offset: offset as u64 };
        let opened = self.keys.open(place, &mut self.bytes[offset..offset + length]);
        Some(opened.map_err(Into::into).and_then(|record| Ok((spot, block::Record::read(record)?))))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::id::RepositoryId;
    use crate::key::Master;

    fn contents() -> Vec<Vec<u8>> {
        (0..20_u8).map(|n| vec![n; usize::from(n) * 3_000]).collect()
    }

    fn filled(keys: &Keys) -> (PackId, Vec<u8>, Vec<(BlockId, Spot)>) {
        let (mut packer, mut record) = (Packer::new(keys).unwrap(), Vec::new());
        assert!(packer.is_empty());
        let spots = contents().into_iter().map(|content| {
            record.clear();
            let id = keys.name(&content);
            block::write(id, &content, &mut record).unwrap();
            (id, packer.add(&record))
        });
        let spots = spots.collect();
        let (id, bytes) = packer.close();
        (id, bytes, spots)
    }

    fn keys() -> Keys {
        Master::random().unwrap().keys(RepositoryId([3; LENGTH]))
    }

    #[test]
    fn each_block_is_found_at_its_spot_and_by_going_through() {
        let keys = keys();
        let (pack, mut bytes, spots) = filled(&keys);
        for ((id, spot), content) in spots.iter().zip(contents()) {
            let from = spot.offset as usize;
            let mut sealed = bytes[from..from + spot.length as usize].to_vec();
            let mut block = Vec::new();
            open(&keys, pack, *spot, *id, &mut sealed).unwrap().unfold(&mut block).unwrap();
            assert_eq!(block, content);
        }
        let mut records = Records::of(&keys, pack, &mut bytes).unwrap();
        for (id, spot) in &spots {
            let (found, record) = records.next().unwrap().unwrap();
            assert_eq!((found, record.id), (*spot, *id));
        }
        assert!(records.next().is_none());
    }

    #[test]
    fn every_changed_byte_is_noticed_and_hurts_no_more_than_its_own_block() {
        let keys = keys();
        let (pack, bytes, spots) = filled(&keys);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            let Ok(mut records) = Records::of(&keys, pack, &mut changed) else {
                assert!(at < HEAD);
                continue;
            };
            let (mut well, mut hurt) = (0, 0);
            while let Some(found) = records.next() {
                if found.is_ok() { well += 1 } else { hurt += 1 }
            }
            let in_record = spots
                .iter()
                .any(|(_, spot)| (spot.offset as usize..(spot.offset + spot.length) as usize).contains(&at));
            assert!(
                hurt > 0 && (!in_record || well == spots.len() - 1),
                "byte {at}: {well} well, {hurt} hurt"
            );
        }
    }

    #[test]
    fn a_pack_that_is_cut_anywhere_gives_what_is_whole_and_says_that_it_is_cut() {
        let keys = keys();
        let (pack, bytes, spots) = filled(&keys);
        let ends: Vec<usize> = spots.iter().map(|(_, spot)| (spot.offset + spot.length) as usize).collect();
        for length in (HEAD..bytes.len()).filter(|length| !ends.contains(length) && *length != HEAD) {
            let mut cut = bytes[..length].to_vec();
            let mut records = Records::of(&keys, pack, &mut cut).unwrap();
            let mut well = 0;
            let cut = loop {
                match records.next() {
                    Some(Ok(_)) => well += 1,
                    Some(Err(error)) => break error,
                    None => panic!("{length}: nobody noticed"),
                }
            };
            assert_eq!((cut, well), (PackError::Cut, ends.iter().filter(|end| **end <= length).count()));
        }
    }

    #[test]
    fn a_block_of_another_pack_or_name_is_refused() {
        let keys = keys();
        let (pack, bytes, spots) = filled(&keys);
        let ((id, spot), (other, _)) = (spots[4], spots[5]);
        let sealed = || bytes[spot.offset as usize..(spot.offset + spot.length) as usize].to_vec();
        let elsewhere = open(&keys, PackId([9; LENGTH]), spot, id, &mut sealed()).unwrap_err();
        assert_eq!(elsewhere, PackError::Forged(Forged));
        let another = open(&keys, pack, spot, other, &mut sealed()).unwrap_err();
        assert_eq!(another, PackError::Damaged(Damage::Other));
        assert!(Records::of(&keys, PackId([9; LENGTH]), &mut bytes.clone()).is_err());
    }
}
