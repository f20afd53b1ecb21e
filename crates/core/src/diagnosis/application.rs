//! Faults of one application, and of the probe that asks it.

use super::catalogue::{Fault, FaultRow, days, years};
use crate::evidence::Kind::*;

pub(super) const ROWS: &[&FaultRow] = &[
    &APP_DOWN,
    &APP_HUNG,
    &APP_WRONG,
    &APP_CUT_OFF,
    &APP_SLOW,
    &APP_CRASH_LOOP,
    &OUT_OF_CONNECTIONS,
    &CORRUPTION_REPORTED,
    &REPLICATION_BROKEN,
    &LOCK_PILE_UP,
    &PROBE_BROKEN,
];

/// The application is not there: the guest's own kernel refuses for it.
const APP_DOWN: FaultRow = FaultRow {
    fault: Fault::AppDown,
    says: "is down",
    once_in: days(90),
    from: "Judged: crashes, upgrades and mistakes of operators together some four times a year (of a service's failures most are software and operators: Oppenheimer, Ganapathi & Patterson, USITS 2003). A kernel refuses for whom nobody listens (RFC 9293, 3.10.7.1).",
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
        (LogDataCorrupt, 0.01),
        (LogCrashLoop, 1e-5),
        (LogServiceFailed, 0.09),
        (LogUnusual, 0.1),
    ],
};

/// The application is there, takes connections (or its kernel does), and says nothing.
const APP_HUNG: FaultRow = FaultRow {
    fault: Fault::AppHung,
    says: "is hung",
    once_in: days(180),
    from: "Judged: half as often as down. A stopped process's kernel still takes connections until its queue is full (listen(2)), and gives no answer.",
    seen: &[
        (AppMute, 0.95),
        (AppExhausted, 0.1),
        (AppRefused, 0.001),
        (AppAnswers, 1e-6),
        (QueueGrows, 0.9),
        (NobodyListens, 1e-5),
        (ServiceListens, 0.5),
        (NobodyArrives, 1e-7),
        (CheckFailed, 0.9),
        (CheckPassed, 0.01),
        (LogUnusual, 0.1),
    ],
};

/// The application answers, and what it answers is not what was agreed.
const APP_WRONG: FaultRow = FaultRow {
    fault: Fault::AppWrong,
    says: "answers wrongly",
    once_in: years(1),
    from: "Judged: rarer than a failure that shows itself. What a wrong answer is, its owner says (`expect`).",
    seen: &[
        (AppWrong, 0.6),
        (AppMismatch, 0.4),
        (AppExhausted, 0.05),
        (AppStarting, 0.3),
        (AppAnswers, 1e-6),
        (CheckFailed, 0.5),
        (ConsoleAppPanic, 0.05),
        (LogUnusual, 0.1),
    ],
};

// What follows tells of an application that still answers, or names the cause of its trouble. What such a cause leads
// to is listed low: an application that is down or hung is that first, and is brought back.

/// It is there, and nobody gets through to it: a rule of a firewall, in the guest or before it. What throws others out
/// of the guest helps rarely, and those who are in or come by another way may be served.
const APP_CUT_OFF: FaultRow = FaultRow {
    fault: Fault::AppCutOff,
    says: "is there, and cannot be reached",
    once_in: years(1),
    from: "Judged: a change of rules on the way once a year. That we knock all the time and nobody new arrives is read in the guest's own table of connections (proc(5), /proc/net/tcp).",
    seen: &[
        (NobodyArrives, 0.95),
        (AppMute, 0.001),
        (AppUnreachable, 0.001),
        (AppRefused, 1e-5),
        (AppAnswers, 1e-6),
        (NobodyListens, 1e-5),
        (QueueGrows, 1e-5),
        (CheckFailed, 1e-4),
        (CheckPassed, 0.99),
    ],
};

/// It answers, and its users wait for it.
const APP_SLOW: FaultRow = FaultRow {
    fault: Fault::AppSlow,
    says: "answers far slower than it used to",
    once_in: days(30),
    from: "Judged: once a month. The detector of series tells it (docs/metrics.md, measured on NAB).",
    seen: &[
        (AppSlow, 0.9),
        (NumbersUnusual, 0.04),
        (LogStorageTrouble, 0.09),
        (LogUnusual, 0.1),
        (AppMute, 2e-4),
        (AppUnreachable, 2e-4),
    ],
};

/// It gives up, is started by its own keeper, and gives up again: no reboot helps against what it meets each time.
const APP_CRASH_LOOP: FaultRow = FaultRow {
    fault: Fault::AppCrashLoop,
    says: "gives up again and again",
    once_in: years(1),
    from: "Judged: once a year, after a change for the worse. Its own lines say each end (PostgreSQL: PANIC, 'terminated by signal').",
    seen: &[
        (LogCrashLoop, 0.9),
        (ConsoleAppPanic, 0.1),
        (AppRefused, 0.05),
        (AppStarting, 0.05),
        (AppWrong, 0.02),
        (AppMismatch, 1e-4),
        (NobodyListens, 0.05),
        (CheckFailed, 0.05),
        (AppAnswers, 0.3),
    ],
};

/// All its places are taken: those who are in are served, nobody else is.
const OUT_OF_CONNECTIONS: FaultRow = FaultRow {
    fault: Fault::OutOfConnections,
    says: "takes no more connections",
    once_in: days(90),
    from: "Judged: some four times a year where there is no pool. SQLSTATE 53300 of PostgreSQL, and its lines, say it in words.",
    seen: &[
        (AppExhausted, 0.97),
        (LogNoConnectionLeft, 0.9),
        (AppAnswers, 0.3),
        (AppMute, 2e-4),
        (CheckFailed, 0.2),
        (ServiceListens, 0.99),
        (NumbersUnusual, 0.04),
    ],
};

/// It read from its disk what it never wrote. It may go on, and what it answers may be wrong.
const CORRUPTION_REPORTED: FaultRow = FaultRow {
    fault: Fault::CorruptionReported,
    says: "reports damaged data",
    once_in: years(3),
    from: "Prior from damage that goes unseen on disks (1.53 million disks, more than 400,000 wrong checksums in 41 months, many on few of them: Bairavasundaram et al., FAST 2008) and mistakes with files. PostgreSQL's checksums, and SQLSTATE XX001 and XX002, say it in words.",
    seen: &[
        (LogDataCorrupt, 0.9),
        (AppWrong, 0.01),
        (AppMismatch, 0.005),
        (ConsoleAppPanic, 0.01),
        (AppAnswers, 0.7),
        (AppRefused, 0.001),
        (NobodyListens, 0.001),
        (CheckFailed, 0.01),
    ],
};

/// It serves its users, and a failure of its disk would now cost what the copy lacks.
const REPLICATION_BROKEN: FaultRow = FaultRow {
    fault: Fault::ReplicationBroken,
    says: "does not keep its copy up to date",
    once_in: days(90),
    from: "Judged: some four times a year. The primary's and the copy's own lines say it in words.",
    seen: &[(LogReplicationBroken, 0.9)],
};

/// Sessions hold what others wait for.
const LOCK_PILE_UP: FaultRow = FaultRow {
    fault: Fault::LockPileUp,
    says: "has sessions that wait for each other",
    once_in: days(90),
    from: "Judged: some four times a year. `log_lock_waits` of PostgreSQL and InnoDB's monitor say it in words.",
    seen: &[(LogLocksPileUp, 0.9), (AppSlow, 0.3), (AppMute, 0.001), (NumbersUnusual, 0.04)],
};

/// The application is fine; the question is wrong: a password, a name, a missing program.
const PROBE_BROKEN: FaultRow = FaultRow {
    fault: Fault::ProbeBroken,
    says: "cannot be probed as configured",
    once_in: days(180),
    from: "Judged: twice a year, as often as passwords are changed. The server's refusal of our own credentials (SQLSTATE 28P01) says it in words.",
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
