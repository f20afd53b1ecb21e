//! Ways to break Holdfast's edges on purpose. Each must be caught by the checker within a few seeds, or
//! the simulator is not to be trusted.

use std::fmt;
use std::str::FromStr;

macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident: $text:literal, $says:literal;)*) => {
        /// One thing that is done wrongly.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "`says` says it")]
        pub enum Mutant { $($(#[$doc])* $name,)* }

        impl Mutant {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What is done wrongly.
            #[must_use]
            pub const fn says(self) -> &'static str {
                match self { $(Self::$name => $says,)* }
            }
        }
    };
}

mutants! {
    DeathByPromise: "death-by-promise", "death is reported when the kill was sent, not when the process is gone";
    StoppedIsDead: "stopped-is-dead", "a process whose control socket is silent is taken for dead";
    SilenceIsDeath: "silence-is-death", "an unanswered question to the hypervisor is reported as an exit";
    IgnoresToken: "ignores-token", "the driver carries out orders of old incarnations and tokens";
    StartsBurned: "starts-burned", "the driver starts an incarnation that it has called dead before";
    ActsUnrecorded: "acts-unrecorded", "actions are carried out although the journal refused them";
    RepeatsIntents: "repeats-intents", "after a restart open intents are carried out again";
    DoesTwice: "does-twice", "each action is handed to the driver twice";
    IgnoresMaintenance: "ignores-maintenance", "the maintenance flag is accepted and dropped";
    IgnoresBudget: "ignores-budget", "the budget of recoveries is a thousand whatever was configured";
    IgnoresBrake: "ignores-brake", "the storm brake is never pulled";
    IgnoresStall: "ignores-stall", "silence while the daemon was stopped is reported as silence of the VMs";
    GuessesOutcome: "guesses-outcome", "an order that nobody answered is reported as done";
    DropsOutcomes: "drops-outcomes", "outcomes are never reported";
    ReusesIncarnation: "reuses-incarnation", "the lease store gives the same incarnation again";
    StampsNow: "stamps-now", "a signal of an old incarnation is stamped with the newest";
    WallClock: "wall-clock", "time is read from the wall clock";
    EndsChildren: "ends-children", "the end of the daemon ends its VMs";
    WrongVm: "wrong-vm", "every seventh order goes to another VM";
    SkipsSync: "skips-sync", "the journal is never made safe against a power cut";
    ForgetsLeases: "forgets-leases", "the lease store does not make its newest lease safe against a power cut";
    IgnoresBackoff: "ignores-backoff", "the waits between recoveries are dropped";
    ForgetsWishes: "forgets-wishes", "a wish that comes within five seconds of another is accepted and dropped";
    StopsAside: "stops-aside", "a person's stop ends the process, and the engine is not told of the stop";
    EndsForGood: "ends-for-good", "nobody looks whether a VM could start again before it is ended for that";
    DeafAfterRestart: "deaf-after-restart", "after a restart of the daemon no probe is asked any more";
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No mutant is called that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no mutant `{0}`")]
pub struct UnknownMutant(String);

impl FromStr for Mutant {
    type Err = UnknownMutant;
    fn from_str(text: &str) -> Result<Self, UnknownMutant> {
        let found = Self::ALL.iter().copied().find(|mutant| mutant.name() == text);
        found.ok_or_else(|| UnknownMutant(text.to_owned()))
    }
}
