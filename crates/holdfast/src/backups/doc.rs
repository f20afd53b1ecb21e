//! What is told of a backup: how it stands, and how it ended.

use super::run::End;
use super::{BackupDoc, BackupState};
use crate::clock;
use crate::config::Limits;
use holdfast_core::subject::VmName;

impl BackupDoc {
    pub(super) fn new(vm: &VmName, to: &str, limits: Limits) -> Self {
        let since = clock::wall_seconds();
        Self {
            v: 1,
            vm: vm.to_string(),
            to: to.to_owned(),
            state: BackupState::Waits,
            limits,
            since,
            size: 0,
            read: 0,
            skipped: 0,
            added: 0,
            resumed: 0,
            seconds: None,
            id: None,
            why_all: None,
            off: false,
            frozen: false,
            stall_s: 0.0,
            warnings: Vec::new(),
            error: None,
            cause: None,
            hint: None,
            pruned: None,
        }
    }

    /// What failed, and why.
    pub(super) fn why_failed(&self) -> String {
        let said = [&self.error, &self.cause].into_iter().flatten().map(String::as_str);
        said.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ")
    }

    pub(super) fn end(&mut self, end: End) {
        let now = clock::wall_seconds();
        self.seconds = Some((now - self.since).max(0.0));
        match end {
            End::Done { id, progress, why_all, warning } => {
                progress.note(self);
                self.warnings.extend(warning);
                (self.state, self.id) = (BackupState::Done, Some(id));
                self.why_all = self.why_all.take().or(why_all);
            }
            End::Failed { error, cause, hint } => {
                self.state = BackupState::Failed;
                (self.error, self.cause, self.hint) = (Some(error), Some(cause), Some(hint));
            }
            End::Cancelled => self.state = BackupState::Cancelled,
        }
    }
}
