//! Faults of one application, and of the probe that asks it.

use super::catalogue::{Fault, FaultRow, days, years};
use crate::evidence::Kind::*;

pub(super) const ROWS: &[&FaultRow] = &[&APP_DOWN, &APP_HUNG, &APP_WRONG, &PROBE_BROKEN];

/// The application is not there: the guest's own kernel refuses for it.
const APP_DOWN: FaultRow = FaultRow {
    fault: Fault::AppDown,
    says: "is down",
    once_in: days(90),
    seen: &[
        (AppRefused, 0.95),
        (AppMute, 0.001),
        (AppStarting, 0.02),
        (AppAnswers, 1e-6),
        (NobodyListens, 0.95),
        (QueueGrows, 1e-5),
        (ServiceListens, 0.02),
        (CheckFailed, 0.95),
        (CheckPassed, 0.001),
        (ConsoleAppPanic, 0.3),
    ],
};

/// The application is there, takes connections (or its kernel does), and says nothing.
const APP_HUNG: FaultRow = FaultRow {
    fault: Fault::AppHung,
    says: "is hung",
    once_in: days(180),
    seen: &[
        (AppMute, 0.95),
        (AppExhausted, 0.5),
        (AppRefused, 0.001),
        (AppAnswers, 1e-6),
        (QueueGrows, 0.9),
        (NobodyListens, 1e-5),
        (ServiceListens, 0.5),
        (CheckFailed, 0.9),
        (CheckPassed, 0.01),
    ],
};

/// The application answers, and what it answers is not what was agreed.
const APP_WRONG: FaultRow = FaultRow {
    fault: Fault::AppWrong,
    says: "answers wrongly",
    once_in: years(1),
    seen: &[
        (AppWrong, 0.95),
        (AppExhausted, 0.3),
        (AppStarting, 0.3),
        (AppAnswers, 1e-6),
        (CheckFailed, 0.5),
        (ConsoleAppPanic, 0.05),
    ],
};

/// The application is fine; the question is wrong: a password, a name, a missing program.
const PROBE_BROKEN: FaultRow = FaultRow {
    fault: Fault::ProbeBroken,
    says: "cannot be probed as configured",
    once_in: days(180),
    seen: &[
        (AppDenied, 0.95),
        (ProbeFailed, 0.95),
        (AppMute, 0.005),
        (AppRefused, 0.005),
        (AppUnreachable, 0.005),
        (AppAnswers, 1e-3),
        (NobodyListens, 1e-5),
        (QueueGrows, 1e-5),
        (CheckFailed, 1e-4),
        (CheckPassed, 0.999),
    ],
};
