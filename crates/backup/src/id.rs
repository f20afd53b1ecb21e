//! What things are called.

use std::fmt;

/// Bytes of a name.
pub const LENGTH: usize = 16;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; LENGTH]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    )*};
}

names! {
    /// A block, by its content: the first 16 bytes of its keyed BLAKE3 hash. Nobody without the key can make two blocks
    /// of one name, and among 2^34 blocks (a pebibyte) two have one by chance with a probability of 2^-61.
    BlockId;
    /// A repository: random.
    RepositoryId;
    /// A pack, or another object that is written once: random.
    PackId;
}

impl PackId {
    /// A new name.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        random().map(Self)
    }
}

impl PackId {
    /// Reads a name as it is shown.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; LENGTH];
        let digits = text.as_bytes().as_chunks::<2>();
        if digits.0.len() != LENGTH || !digits.1.is_empty() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.0) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        let id = Self(bytes);
        (id.to_string() == text).then_some(id)
    }
}

impl RepositoryId {
    /// A new name.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        random().map(Self)
    }
}

fn random() -> Result<[u8; LENGTH], getrandom::Error> {
    let mut bytes = [0; LENGTH];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

impl BlockId {
    /// A block of zeros: it is not stored.
    pub const HOLE: Self = Self([0; LENGTH]);
}
