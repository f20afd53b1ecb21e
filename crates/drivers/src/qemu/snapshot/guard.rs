//! Whether the record of a VM's disk is still true, asked before anything rests on it: the disk of a VM that is off is written
//! to by nobody else (I1), and the QEMU of one that runs writes to the file that the record has on top.

use super::super::backup::FILTER;
use super::super::live::Live;
use super::super::machine::{Machine, error_chain};
use super::super::qmp::QmpError;
use super::super::untrusted::tame;
use super::files::is_same;
use super::live::{ANSWER, file_of, is_disk_node};
use super::merge::merges;
use super::tree::Tree;
use crate::DriverError;
use std::time::Duration;
use tokio::time::Instant;

/// A process that is just being started has all files of who starts it open, for a moment.
const PASSING: Duration = Duration::from_millis(500);
const LOOK: &str = "look at the disk of";

impl Machine {
    /// What the disk is made of, with nothing under way, and that nobody but us changes it. The caller has the turn to
    /// change snapshots.
    ///
    /// # Errors
    /// As for [`Machine::settled_tree`]; and where the record does not tell what is written to.
    pub(in super::super) async fn own_tree(&self, what: &'static str) -> Result<Tree, DriverError> {
        let tree = self.settled_tree(what).await?;
        match self.running() {
            Ok(live) => self.must_be_on_top(what, &live, &tree).await?,
            Err(DriverError::NotRunning(_)) => self.must_be_unused(what, &tree).await?,
            Err(error) => return Err(error),
        }
        Ok(tree)
    }

    /// A VM that is found running and does not write to what is on record is told of at once, before anybody stops it.
    pub(super) async fn tell_if_astray(&self) {
        if self.running().is_err() {
            return;
        }
        let looked = async {
            let _one = self.snapshot_turn(LOOK, Instant::now() + ANSWER).await?;
            self.own_tree(LOOK).await
        };
        if let Err(error) = looked.await {
            tracing::error!(vm = %self.name, error = error_chain(&error), "it is not certain what its disk is made of");
        }
    }

    /// Nobody else writes to the disk of a VM that is off: a QEMU that was left running under another name, or a person's tool.
    async fn must_be_unused(&self, what: &'static str, tree: &Tree) -> Result<(), DriverError> {
        let top = self.files().path(tree.top());
        let until = Instant::now() + PASSING;
        loop {
            let looked = self.must_be_unheld(what, &self.disk(), &top).await;
            if looked.is_ok() || Instant::now() >= until {
                return looked;
            }
            tokio::time::sleep(PASSING / 5).await;
        }
    }

    /// QEMU writes to the file that is on top by the record. While a merge or a drill is in between, that is asked again once
    /// it is over.
    async fn must_be_on_top(&self, what: &'static str, live: &Live, tree: &Tree) -> Result<(), DriverError> {
        let until = Instant::now() + ANSWER;
        let told = |error: QmpError| self.unconfirmed(what, ANSWER, &error);
        let device = live.top_node(until).await.map_err(told)?;
        let device = device.strip_prefix(FILTER).unwrap_or(&device);
        if !is_disk_node(device) || !merges(live, until).await.map_err(told)?.is_empty() {
            return Ok(());
        }
        let nodes = live.nodes(until).await.map_err(told)?;
        let node = nodes.iter().find(|node| node.name == device);
        let open = node.and_then(|node| file_of(&node.file));
        let top = self.files().path(tree.top());
        if open.as_deref().is_some_and(|open| open == top || is_same(open, &top)) {
            return Ok(());
        }
        let open = open.map_or_else(|| device.to_owned(), |open| tame(&open.to_string_lossy(), 200));
        let why = format!(
            "QEMU writes to {open}, and the record of its snapshots has {} on top: do not stop it before the record of \
             then is back in its place, or what it writes is not found by its next start",
            top.display()
        );
        Err(self.refused(what, why))
    }
}
