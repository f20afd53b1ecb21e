//! A VM that runs and cannot be asked: the socket over which its QEMU is asked is gone, as with its run folder. A QEMU makes none anew.

use super::live::Live;
use super::machine::Machine;
use super::needs::is_missing;
use crate::DriverError;
use std::path::{Path, PathBuf};

impl Machine {
    /// The control socket, where it is gone and nobody is connected to it any more. Never while an order is under way, as a start,
    /// which has it made.
    pub fn cut_off(&self) -> Option<PathBuf> {
        let live = self.running().ok()?;
        self.lost_socket(&live).filter(|_| !self.has_order())
    }

    /// The same while an order is under way that is no start.
    pub(super) fn lost_socket(&self, live: &Live) -> Option<PathBuf> {
        Some(self.folder.control()).filter(|socket| !live.is_connected() && is_missing(socket))
    }

    /// Whoever needs its QEMU is told at once, and does not wait for an answer that cannot come.
    ///
    /// # Errors
    /// [`DriverError::CutOff`].
    pub(super) fn must_be_reachable(&self, what: &'static str) -> Result<(), DriverError> {
        let Some(socket) = self.cut_off() else { return Ok(()) };
        Err(DriverError::CutOff { what, vm: self.name.clone(), why: why_cut(&socket) })
    }
}

/// What is wrong, for people.
pub(super) fn why_cut(socket: &Path) -> String {
    format!("its QEMU runs and cannot be asked: its control socket {} is gone", socket.display())
}
