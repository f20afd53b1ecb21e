//! The VM's process: whether it exists, and whether the kernel lets it run.

use super::{Evidence, FULL, Kind, Lens, lasted};
use crate::lease::DeathProof;
use crate::signal::{ProcessSign, ProcessState};
use crate::time::{Duration, Timestamp};
use serde::{Deserialize, Serialize};

/// A stopped process is a hung VM after this: long enough for a debugger's peek or a busy operator's two
/// seconds, short enough to matter.
const STOPPED_FULL: Duration = Duration::from_secs(4);
/// Waiting for storage this long is more than slow.
const STUCK_FULL: Duration = Duration::from_secs(30);

/// What is remembered of the process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProcessView {
    exited: Option<(Timestamp, DeathProof)>,
    state: Option<(ProcessState, Timestamp, Timestamp)>, // since, last seen
}

impl ProcessView {
    pub fn observe(&mut self, at: Timestamp, sign: &ProcessSign) {
        match sign {
            ProcessSign::Exited { proof, .. } => self.exited = Some((at, proof.clone())),
            ProcessSign::Alive { state, .. } => {
                let since = match self.state {
                    Some((before, since, _)) if before == *state => since,
                    _ => at,
                };
                self.state = Some((*state, since, at));
            }
        }
    }

    /// The observer slept: what it saw before and after does not make one long stretch.
    pub fn forgive(&mut self, slept: Duration) {
        if let Some((_, since, _)) = &mut self.state {
            *since = *since + slept;
        }
    }

    /// The kernel lets it run, seen lately.
    pub fn runs(&self, lens: &Lens) -> bool {
        self.exited.is_none()
            && self.state.is_none_or(|(state, _, at)| state == ProcessState::Running || !lens.is_fresh(at))
    }

    pub fn speak(&self, lens: &Lens, say: &mut Vec<Evidence>) {
        let mut push = |kind, since, at, strength, text| {
            say.push(Evidence { kind, app: None, since, at, strength, text, quote: None });
        };
        if let Some((at, proof)) = &self.exited {
            push(Kind::ProcessExited, *at, *at, FULL, proof.to_string());
            return;
        }
        let Some((state, since, at)) = self.state.filter(|(_, _, at)| lens.is_fresh(*at)) else { return };
        let held = at.since(since);
        match state {
            ProcessState::Running => push(Kind::ProcessRuns, since, at, FULL, "process runs".into()),
            ProcessState::Stopped if lens.trust_silence && !lens.excused => push(
                Kind::ProcessStopped,
                since,
                at,
                // No pressure on the host stops a process, so nothing is stretched.
                Lens { patience: 1, ..*lens }.ramp(held, STOPPED_FULL),
                format!("process stopped by a signal for {}", lasted(lens, since)),
            ),
            ProcessState::DiskWait => push(
                Kind::ProcessStuck,
                since,
                at,
                lens.ramp(held, STUCK_FULL),
                format!("process waits for storage for {}", lasted(lens, since)),
            ),
            ProcessState::Stopped | ProcessState::Zombie => {}
        }
    }
}
