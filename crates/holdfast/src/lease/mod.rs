//! Who may run what: the store of leases (I1, I2, I3). One interface, for one host and for many.
//!
//! A store must never give two different leases for one incarnation, never put one on record with a token
//! that is not higher than every one before, and never return a lease before it is durable. A call that
//! failed may have put a lease on record; it is returned when the call is repeated, with its old token.

pub mod file;

use crate::disk::small::SmallFileError;
use async_trait::async_trait;
use holdfast_core::lease::{DeathProof, Incarnation, Lease, Sighting};
use holdfast_core::subject::{HostName, VmName};

/// A store of leases. Each call may be repeated after an error or a crash; the answer is then the same.
/// None has a deadline of its own: the caller decides how long it waits, and then knows nothing.
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// The lease on record; `None` if there was never one or it was given back.
    ///
    /// # Errors
    /// [`LeaseError::File`] and [`LeaseError::Ended`].
    async fn read(&self, vm: &VmName) -> Result<Option<Lease>, LeaseError>;

    /// The newest lease that was given, also if it was given back since; `None` if there was never one.
    ///
    /// # Errors
    /// [`LeaseError::File`] and [`LeaseError::Ended`].
    async fn newest(&self, vm: &VmName) -> Result<Option<Lease>, LeaseError>;

    /// Takes the lease for the incarnation after the one that is proven dead (I2).
    ///
    /// # Errors
    /// [`LeaseError`]; [`LeaseError::Mismatch`] if the record is not about the dead incarnation.
    async fn take(&self, proof: &DeathProof, holder: &HostName) -> Result<Lease, LeaseError>;

    /// Takes the lease for an incarnation that was found running, if none is on record or exactly that.
    ///
    /// # Errors
    /// [`LeaseError`].
    async fn adopt(&self, vm: &VmName, running: Sighting, holder: &HostName) -> Result<Lease, LeaseError>;

    /// Gives the lease of a dead incarnation back. Its number stays used.
    ///
    /// # Errors
    /// [`LeaseError`].
    async fn release(&self, proof: &DeathProof) -> Result<(), LeaseError>;
}

/// Why a lease was not given.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The record is about another incarnation.
    #[error("the lease of vm `{vm}` is for incarnation {on_record}, and {asked} was asked about")]
    Mismatch {
        /// The VM.
        vm: VmName,
        /// The incarnation on record.
        on_record: Incarnation,
        /// The incarnation that the caller knows.
        asked: Incarnation,
    },
    /// Another host has it.
    #[error("the lease of vm `{vm}` is held by host `{holder}`")]
    HeldBy {
        /// The VM.
        vm: VmName,
        /// The host.
        holder: HostName,
    },
    /// It was given back, because that incarnation was proven dead.
    #[error("incarnation {incarnation} of vm `{vm}` was proven dead and its lease given back")]
    Dead {
        /// The VM.
        vm: VmName,
        /// The incarnation.
        incarnation: Incarnation,
    },
    /// No honest caller knows such an incarnation.
    #[error("there is no incarnation {incarnation} of vm `{vm}`")]
    Absurd {
        /// The VM.
        vm: VmName,
        /// The incarnation.
        incarnation: Incarnation,
    },
    /// The record cannot be read or written.
    #[error("cannot use the lease of vm `{vm}`")]
    File {
        /// The VM.
        vm: VmName,
        /// Why not.
        source: SmallFileError,
    },
    /// The tokens cannot be counted: neither their file nor all records are good.
    #[error("cannot give a new token for vm `{vm}`")]
    Tokens {
        /// The VM.
        vm: VmName,
        /// Why not.
        source: SmallFileError,
    },
    /// The program ends or the store broke; nobody knows what was done.
    #[error("the lease store ended before it answered")]
    Ended,
}

impl LeaseError {
    /// The way out, for people.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Mismatch { .. } | Self::HeldBy { .. } | Self::Dead { .. } | Self::Absurd { .. } => {
                "look where the vm runs with `holdfast vm list`; nothing was changed".into()
            }
            Self::File { vm, source } | Self::Tokens { vm, source } => recover_hint(vm, source),
            Self::Ended => "start the daemon again; the record shows what was done".into(),
        }
    }
}

fn recover_hint(vm: &VmName, source: &SmallFileError) -> String {
    match source {
        SmallFileError::Damaged { file, aside, .. } => {
            let aside = aside.as_ref().unwrap_or(file);
            accept_hint(vm, aside)
        }
        SmallFileError::Waiting { aside, .. } => accept_hint(vm, aside),
        SmallFileError::Newer { .. } => "use the newer Holdfast, or another folder with `--state DIR`".into(),
        SmallFileError::Unwritable { .. } | SmallFileError::Disk { .. } => {
            "see that the state folder's disk has room and can be written; it is tried again".into()
        }
    }
}

fn accept_hint(vm: &VmName, aside: &str) -> String {
    format!(
        "make sure that the vm runs nowhere else, move `{aside}` out of the state folder, \
         then `holdfast vm release {vm}`"
    )
}
