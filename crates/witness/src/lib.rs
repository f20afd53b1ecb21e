//! Who may say that a VM is dead, or that it runs: only what looks at processes itself.
//!
//! `holdfast-core` knows what follows from a death and cannot see one; a driver can. This crate is the border between
//! the two, held by the compiler: whoever states a fact that lives depend on hands an [`Eyewitness`] over. The core asks
//! for one and passes none on, so a crate can state such a fact only if its own `Cargo.toml` names this one. The
//! `tidy` test knows which do: the drivers, the simulator, and tests.
//!
//! What the compiler cannot check is that an eyewitness has truly looked. That stays the promise of each driver, and
//! the contract test (`holdfast_drivers::contract`) tries it.

/// The word of one who looked: spent on one fact, never kept, copied or read from a file.
#[derive(Debug)]
#[must_use]
pub struct Eyewitness(());

impl Eyewitness {
    /// To be called where the fact was just seen, and nowhere else.
    pub const fn here() -> Self {
        Self(())
    }
}
