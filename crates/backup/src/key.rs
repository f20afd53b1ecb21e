//! Keys: one random master key for a repository, what is derived from it, and how a secret of a person opens it.

use crate::block::{PIECE, PIECES};
use crate::id::{BlockId, LENGTH, PackId, RepositoryId};
use argon2::{Algorithm, Argon2, Params, Version};
use blake3::hazmat::{self, HasherExt, Mode};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

/// The hash of a piece of a block: the chaining value of its subtree of the BLAKE3 tree of the block.
pub type PieceHash = [u8; KEY];

/// Bytes of a key.
pub const KEY: usize = 32;
/// Bytes by which what is sealed is longer: the tag of Poly1305.
pub const TAG: usize = 16;
/// Bytes of a nonce of XChaCha20.
const NONCE: usize = 24;
/// Bytes of a slot: magic, costs, salt, nonce, the sealed master key.
pub(crate) const SLOT: usize = 8 + 12 + 16 + NONCE + KEY + TAG;
const SLOT_MAGIC: &[u8; 8] = b"HFKEY\0\0\x01";

/// What opening of a key can fail of.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not the secret of this slot, or the slot was changed.
    #[error("this secret does not open the repository, or its key was changed")]
    Wrong,
    /// No slot, or one of a later version.
    #[error("this is no key of a repository, or one of a later version")]
    Unknown,
    /// There is no slot at all.
    #[error("nothing in its folder `keys` is a key")]
    Gone,
    /// Those that were tried have another secret; others would cost too much together.
    #[error(
        "this secret opens none of the keys that were tried; {untried} more would cost too much: nobody makes such keys"
    )]
    TooMuch {
        /// How many were not tried.
        untried: usize,
    },
    /// The costs of a slot are beyond what is ever asked.
    #[error("the key asks for {memory} KiB of memory and {rounds} rounds; it was made by nobody")]
    TooDear {
        /// KiB that Argon2id is to fill.
        memory: u32,
        /// How often.
        rounds: u32,
    },
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    NoRandom(#[from] getrandom::Error),
}

/// What a passphrase costs to try: memory in KiB, rounds, lanes (RFC 9106).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// KiB.
    pub memory: u32,
    /// Rounds over it.
    pub rounds: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Cost {
    /// The second choice of RFC 9106, section 4: 64 MiB, 3 rounds, 4 lanes.
    pub const USUAL: Self = Self { memory: 64 << 10, rounds: 3, lanes: 4 };
    /// Never more than 1 GiB, 64 rounds and 64 lanes: a slot is not believed before it is opened.
    const MOST: Self = Self { memory: 1 << 20, rounds: 64, lanes: 64 };

    /// KiB that are filled to try it.
    pub(crate) const fn work(self) -> u64 {
        self.memory as u64 * self.rounds as u64
    }
}

/// The master key of a repository.
pub struct Master(Zeroizing<[u8; KEY]>);

impl Master {
    /// A new one.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut key = Zeroizing::new([0; KEY]);
        getrandom::fill(&mut *key)?;
        Ok(Self(key))
    }

    /// The slot in which this secret opens it.
    ///
    /// # Errors
    /// If the costs are beyond what is ever asked, or the system has no random numbers.
    pub fn lock(&self, secret: &[u8], cost: Cost, of: RepositoryId) -> Result<Vec<u8>, KeyError> {
        let mut slot = Vec::with_capacity(SLOT);
        slot.extend_from_slice(SLOT_MAGIC);
        for number in [cost.memory, cost.rounds, cost.lanes] {
            slot.extend_from_slice(&number.to_le_bytes());
        }
        let mut random = [0; 16 + NONCE];
        getrandom::fill(&mut random)?;
        slot.extend_from_slice(&random);
        let (salt, nonce) = random.split_at(16);
        let key = stretch(secret, salt, cost)?;
        let mut sealed = Zeroizing::new(self.0.to_vec());
        let tag = cipher(&key)
            .encrypt_inout_detached(&nonce_of(nonce), &context(&slot, of), (&mut sealed[..]).into())
            .map_err(|_| KeyError::Wrong)?;
        slot.extend_from_slice(&sealed);
        slot.extend_from_slice(&tag);
        Ok(slot)
    }

    /// Opens a slot.
    ///
    /// # Errors
    /// If it is no slot, was changed, or has another secret.
    pub fn unlock(slot: &[u8], secret: &[u8], of: RepositoryId) -> Result<Self, KeyError> {
        Self::unlock_any(slot, secret, &[of]).map(|(master, _)| master)
    }

    /// Opens a slot of one of these repositories: which it is costs no second try.
    pub(crate) fn unlock_any(
        slot: &[u8],
        secret: &[u8],
        of: &[RepositoryId],
    ) -> Result<(Self, RepositoryId), KeyError> {
        let slot: &[u8; SLOT] = slot.try_into().map_err(|_| KeyError::Unknown)?;
        let (head, sealed) = slot.split_at(SLOT - KEY - TAG);
        let Some(rest) = head.strip_prefix(SLOT_MAGIC) else { return Err(KeyError::Unknown) };
        let number = |at: usize| u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        let cost = Cost { memory: number(0), rounds: number(4), lanes: number(8) };
        let key = stretch(secret, &rest[12..28], cost)?;
        let (sealed, tag) = sealed.split_at(KEY);
        let tag = Tag::try_from(tag).map_err(|_| KeyError::Unknown)?;
        let nonce = nonce_of(&rest[28..]);
        for id in of {
            let mut master = Zeroizing::new([0; KEY]);
            master.copy_from_slice(sealed);
            let opened = cipher(&key).decrypt_inout_detached(
                &nonce,
                &context(head, *id),
                (&mut master[..]).into(),
                &tag,
            );
            if opened.is_ok() {
                return Ok((Self(master), *id));
            }
        }
        Err(KeyError::Wrong)
    }

    /// What works with it.
    #[must_use]
    pub fn keys(&self, repository: RepositoryId) -> Keys {
        let derived = |what: &str| blake3::derive_key(what, &self.0[..]);
        let block = derived("holdfast backup 1: blocks");
        let seal = Zeroizing::new(derived("holdfast backup 1: seals"));
        Keys { repository, block, seal: cipher(&seal) }
    }
}

/// What the secret of a slot costs to try; nothing if it is no slot.
#[must_use]
pub fn cost(slot: &[u8]) -> Option<Cost> {
    let rest = slot.strip_prefix(SLOT_MAGIC).filter(|_| slot.len() == SLOT)?;
    let numbers = rest.as_chunks::<4>().0;
    let number = |at: usize| u32::from_le_bytes(numbers[at]);
    let cost = Cost { memory: number(0), rounds: number(1), lanes: number(2) };
    let most = Cost::MOST;
    let is_usual = cost.memory <= most.memory && cost.rounds <= most.rounds && cost.lanes <= most.lanes;
    is_usual.then_some(cost)
}

/// Fills `bytes` with what nobody can guess.
///
/// # Errors
/// If the system has no random numbers.
pub fn random(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    getrandom::fill(bytes)
}

/// A key slower to try than to use.
fn stretch(secret: &[u8], salt: &[u8], cost: Cost) -> Result<Zeroizing<[u8; KEY]>, KeyError> {
    let most = Cost::MOST;
    let too_dear = KeyError::TooDear { memory: cost.memory, rounds: cost.rounds };
    if cost.memory > most.memory || cost.rounds > most.rounds || cost.lanes > most.lanes {
        return Err(too_dear);
    }
    let params = Params::new(cost.memory, cost.rounds, cost.lanes, Some(KEY)).map_err(|_| too_dear)?;
    let mut key = Zeroizing::new([0; KEY]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(secret, salt, &mut *key)
        .map_err(|_| KeyError::Wrong)?;
    Ok(key)
}

/// What a slot is bound to: its own head, and its repository.
fn context(head: &[u8], of: RepositoryId) -> Vec<u8> {
    [head, &of.0].concat()
}

fn cipher(key: &[u8; KEY]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.into())
}

fn nonce_of(bytes: &[u8]) -> XNonce {
    let mut nonce = XNonce::default();
    nonce.copy_from_slice(bytes);
    nonce
}

fn first(hash: &blake3::Hash) -> [u8; LENGTH] {
    let mut short = [0; LENGTH];
    short.copy_from_slice(&hash.as_bytes()[..LENGTH]);
    short
}

/// What is sealed was changed, is of another place, or of another repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it was changed, or belongs elsewhere")]
pub struct Forged;

/// Names and seals of one repository.
pub struct Keys {
    repository: RepositoryId,
    block: [u8; KEY],
    seal: XChaCha20Poly1305,
}

impl Drop for Keys {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.block);
    }
}

/// Where something sealed stands: it can be opened nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The pack, or another object of a random name.
    pub object: PackId,
    /// The byte of it at which it begins.
    pub offset: u64,
}

impl Keys {
    /// The repository that they are of.
    #[must_use]
    pub const fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// What a block of this content is called: the first bytes of its keyed BLAKE3 hash.
    #[must_use]
    pub fn name(&self, content: &[u8]) -> BlockId {
        BlockId(first(&blake3::keyed_hash(&self.block, content)))
    }

    /// The hash of piece `at` of a block.
    ///
    /// # Panics
    /// If it is longer than a piece: a fault of the caller.
    #[must_use]
    pub fn piece(&self, at: usize, content: &[u8]) -> PieceHash {
        assert!(content.len() <= PIECE, "a piece has at most {PIECE} bytes");
        let mut hasher = blake3::Hasher::new_keyed(&self.block);
        hasher.set_input_offset((at * PIECE) as u64).update(content);
        hasher.finalize_non_root()
    }

    /// The hashes of the pieces of a whole block, or of as many as there are.
    #[must_use]
    pub fn pieces(&self, content: &[u8]) -> [PieceHash; PIECES] {
        let mut pieces = [[0; KEY]; PIECES];
        let parts = content.chunks(PIECE).zip(&mut pieces).enumerate();
        parts.for_each(|(at, (part, piece))| *piece = self.piece(at, part));
        pieces
    }

    /// What a block of [`crate::block::BLOCK`] bytes with these pieces is called: the same as [`Self::name`] says. So a
    /// block in which one piece changed gets its new name without the others being read.
    #[must_use]
    pub fn name_of(&self, pieces: &[PieceHash; PIECES]) -> BlockId {
        let (mut level, mut count, mode) = (*pieces, PIECES, Mode::KeyedHash(&self.block));
        while count > 2 {
            count /= 2;
            for at in 0..count {
                level[at] = hazmat::merge_subtrees_non_root(&level[2 * at], &level[2 * at + 1], mode);
            }
        }
        BlockId(first(&hazmat::merge_subtrees_root(&level[0], &level[1], mode)))
    }

    /// Seals what stands in `bytes` from `from` on, and appends the tag. An object has a random name and never two
    /// things at one offset, so no nonce comes twice.
    ///
    /// # Panics
    /// Never: nothing here is as long as XChaCha20 can seal.
    pub fn seal(&self, place: Place, bytes: &mut Vec<u8>, from: usize) {
        let (nonce, context) = self.bind(place);
        let tag = self
            .seal
            .encrypt_inout_detached(&nonce, &context, (&mut bytes[from..]).into())
            .expect("shorter than 256 GiB");
        bytes.extend_from_slice(&tag);
    }

    /// Opens what was sealed at this place.
    ///
    /// # Errors
    /// If it is not what was sealed there.
    pub fn open<'a>(&self, place: Place, sealed: &'a mut [u8]) -> Result<&'a [u8], Forged> {
        let (nonce, context) = self.bind(place);
        let length = sealed.len().checked_sub(TAG).ok_or(Forged)?;
        let (content, tag) = sealed.split_at_mut(length);
        let tag = Tag::try_from(&*tag).map_err(|_| Forged)?;
        self.seal
            .decrypt_inout_detached(&nonce, &context, (&mut *content).into(), &tag)
            .map_err(|_| Forged)?;
        Ok(content)
    }

    fn bind(&self, place: Place) -> (XNonce, [u8; LENGTH]) {
        let mut nonce = XNonce::default();
        nonce[..LENGTH].copy_from_slice(&place.object.0);
        nonce[LENGTH..].copy_from_slice(&place.offset.to_le_bytes());
        (nonce, self.repository.0)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::block::BLOCK;

    const CHEAP: Cost = Cost { memory: 64, rounds: 1, lanes: 1 };
    const REPOSITORY: RepositoryId = RepositoryId([7; LENGTH]);

    #[test]
    fn a_secret_opens_its_slot_and_no_other_secret_repository_or_changed_byte_does() {
        let master = Master::random().unwrap();
        let slot = master.lock(b"correct horse", CHEAP, REPOSITORY).unwrap();
        assert_eq!(slot.len(), SLOT);
        let opened = Master::unlock(&slot, b"correct horse", REPOSITORY).unwrap();
        assert_eq!(*opened.0, *master.0);
        assert!(matches!(Master::unlock(&slot, b"correct hors", REPOSITORY), Err(KeyError::Wrong)));
        let other = RepositoryId([8; LENGTH]);
        assert!(matches!(Master::unlock(&slot, b"correct horse", other), Err(KeyError::Wrong)));
        for at in (0..SLOT).filter(|at| !(8..20).contains(at)) {
            let mut changed = slot.clone();
            changed[at] ^= 1;
            assert!(Master::unlock(&changed, b"correct horse", REPOSITORY).is_err(), "byte {at}");
        }
        assert!(matches!(Master::unlock(&slot[1..], b"correct horse", REPOSITORY), Err(KeyError::Unknown)));
    }

    #[test]
    fn a_block_has_one_name_by_its_bytes_and_by_its_pieces() {
        let keys = Master::random().unwrap().keys(REPOSITORY);
        let mut block: Vec<u8> = (0..BLOCK).map(|at| ((at * at) >> 7) as u8).collect();
        let mut pieces = keys.pieces(&block);
        assert_eq!(keys.name_of(&pieces), keys.name(&block));
        block[9 * PIECE + 5] ^= 1;
        assert_ne!(keys.name_of(&pieces), keys.name(&block));
        pieces[9] = keys.piece(9, &block[9 * PIECE..10 * PIECE]);
        assert_eq!(keys.name_of(&pieces), keys.name(&block));
        pieces.swap(3, 9);
        assert_ne!(keys.name_of(&pieces), keys.name(&block));
    }

    #[test]
    fn a_slot_that_would_cost_all_memory_is_refused_before_it_is_tried() {
        let mut slot = Master::random().unwrap().lock(b"x", CHEAP, REPOSITORY).unwrap();
        slot[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(Master::unlock(&slot, b"x", REPOSITORY), Err(KeyError::TooDear { .. })));
    }

    #[test]
    fn what_is_sealed_opens_only_where_it_was_sealed() {
        let master = Master::random().unwrap();
        let (keys, place) = (master.keys(REPOSITORY), Place { object: PackId([1; LENGTH]), offset: 40 });
        let mut bytes = b"clear secret".to_vec();
        keys.seal(place, &mut bytes, 6);
        assert_eq!((&bytes[..6], bytes.len()), (&b"clear "[..], 12 + TAG));
        let open =
            |keys: &Keys, place, bytes: &[u8]| keys.open(place, &mut bytes.to_vec()).map(<[u8]>::to_vec);
        assert_eq!(open(&keys, place, &bytes[6..]).unwrap(), b"secret");
        assert_eq!(open(&keys, Place { offset: 41, ..place }, &bytes[6..]), Err(Forged));
        assert_eq!(open(&keys, Place { object: PackId([2; LENGTH]), ..place }, &bytes[6..]), Err(Forged));
        let other = master.keys(RepositoryId([8; LENGTH]));
        assert_eq!(open(&other, place, &bytes[6..]), Err(Forged));
        assert_eq!(open(&keys, place, &bytes[6..9]), Err(Forged));
    }
}
