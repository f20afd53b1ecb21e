//! Hashes of texts and of shapes: fixed, so that the same lines give the same ids on every machine.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
const SEEDS: [u64; 3] = [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db, 0x8ebc_6af0_9c88_c6e3];

/// Both halves of a product, folded (as wyhash does).
pub fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// The hash of a text.
pub fn text(bytes: &[u8]) -> u64 {
    let mut hash = SEEDS[0] ^ bytes.len() as u64;
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        hash = fold(hash ^ u64::from_le_bytes(*eight), SEEDS[1]);
    }
    let last = rest.iter().rev().fold(0, |last, byte| (last << 8) | u64::from(*byte));
    fold(hash ^ last, SEEDS[2])
}

/// A sum over the tokens of a line, so that one of them can be exchanged without looking at the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// With this token at that place.
    pub fn with(self, key: u64, at: usize) -> Self {
        Self(self.0.wrapping_add(term(key, at)))
    }

    /// With another token at that place.
    pub fn instead(self, old: u64, new: u64, at: usize) -> Self {
        Self(self.0.wrapping_sub(term(old, at)).wrapping_add(term(new, at)))
    }

    /// The shape of a line of so many tokens.
    pub fn shape(self, tokens: usize) -> u64 {
        fold(self.0 ^ SEEDS[0], SEEDS[1] ^ tokens as u64)
    }
}

fn term(key: u64, at: usize) -> u64 {
    fold(key ^ SEEDS[2], ODD.wrapping_mul(2 * at as u64 + 1))
}

/// A map whose keys are hashes already.
pub type ByHash<T> = HashMap<u64, T, BuildHasherDefault<Same>>;

/// Hands a hash through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Same(u64);

impl Hasher for Same {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = text(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = fold(hash, ODD);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
