//! Settings of restore points.

use super::{DAY, Kind, Setting, secs, set};

/// `[repository.NAME]`.
pub const REPOSITORY: &[Setting] = &[
    set(
        "path",
        Kind::Path("\"/mnt/backup/holdfast\""),
        "",
        "its folder or `s3://BUCKET/PREFIX`, made by `holdfast backup init`; it must be written",
    ),
    set(
        "key_file",
        Kind::Path("\"/etc/holdfast/main.key\""),
        "",
        "the file with its key or passphrase; by default the key that `backup init` wrote for the daemon's user",
    ),
    set(
        "s3_file",
        Kind::Path("\"/etc/holdfast/s3.env\""),
        "",
        "in an S3 store: a file for the daemon's user alone, with lines such as `AWS_ACCESS_KEY_ID=...`",
    ),
];

/// `[vm.NAME.protect]`.
pub const PROTECT: &[Setting] = &[
    set("snapshots", Kind::Table("[vm.orders.protect.snapshots]"), "", "its snapshots, while it runs"),
    set("backup", Kind::Table("[vm.orders.protect.backup]"), "", "its backups, while it runs"),
    set("prove", Kind::Table("[vm.orders.protect.prove]"), "", "proof that its restore points work"),
];

/// `[vm.NAME.protect.prove]`.
pub const PROVE: &[Setting] = &[
    set(
        "auto",
        Kind::Flag,
        "true",
        "whether the newest restore point is tried by itself: booted in a sandbox, its applications asked",
    ),
    set(
        "every",
        Kind::Time { least: secs(60), most: secs(366 * DAY) },
        "\"1d\"",
        "how old the last trial may become before the newest point is tried",
    ),
    set("within", Kind::Time { least: secs(10), most: secs(DAY) }, "\"10m\"", "how long a trial may take"),
    set(
        "nice",
        Kind::Count { least: 0, most: 19 },
        "19",
        "how much a trial gives way to all else on this host; with 19 it has what nobody else wants",
    ),
    set(
        "memory",
        Kind::Size { least: 64 << 20, most: 4 << 40 },
        "",
        "memory of the sandbox, 64MiB at least; default: that of the vm",
    ),
    set(
        "cpus",
        Kind::Count { least: 1, most: 64 },
        "",
        "virtual processors of the sandbox; default: those of the vm",
    ),
];

/// `[vm.NAME.protect.snapshots]`.
pub const SNAPSHOTS: &[Setting] = &[
    set(
        "every",
        Kind::Time { least: secs(10), most: secs(366 * DAY) },
        "",
        "how old the newest may become before the next is taken; it must be written",
    ),
    set(
        "keep",
        Kind::Table("{ last = 3, daily = 7 }"),
        "",
        "which of those that were taken by schedule stay, 12 at most; it must be written",
    ),
    set(
        "memory",
        Kind::Flag,
        "false",
        "save the memory, too: it stands still meanwhile, and can go on from there",
    ),
    STALE_AFTER,
];

/// The slowest that a disk is read (bytes a second): it is held still until all is.
pub const RATE_LEAST: u64 = 64 << 10;
/// The most that is a bound (bytes a second).
pub const RATE_MOST: u64 = 1 << 40;
/// The most operations a second that are one.
pub const IOPS_MOST: u32 = 1_000_000;

/// `[vm.NAME.protect.backup]`.
pub const BACKUP: &[Setting] = &[
    set("to", Kind::Text("\"main\""), "", "the repository of its restore points; it must be written"),
    set(
        "every",
        Kind::Time { least: secs(60), most: secs(366 * DAY) },
        "",
        "how old the newest point may become before the next is made; by default one is made only on demand",
    ),
    set(
        "keep",
        Kind::Table("{ last = 3, daily = 7 }"),
        "",
        "which of its points stay once newer ones are verified; by default none is ever removed",
    ),
    set(
        "limit",
        Kind::Size { least: RATE_LEAST, most: RATE_MOST },
        "",
        "no more than this is read of its disk in a second, or brought back into it; by default as much as can be",
    ),
    set(
        "iops",
        Kind::Count { least: 1, most: IOPS_MOST },
        "",
        "no more reads of its disk than this in a second, of up to 256 KiB each; by default as many as can be",
    ),
    STALE_AFTER,
];

const STALE_AFTER: Setting = set(
    "stale_after",
    Kind::Time { least: secs(10), most: secs(732 * DAY) },
    "",
    "how old the newest may become before a person is told; by default twice `every`, and 10m at least",
);

/// `keep = { .. }`: periods are those of UTC, and only such count as have a point.
pub const KEEP: &[Setting] = &[
    set("last", COUNT, "", "the newest, so many; by default 0"),
    set("hourly", COUNT, "", "the newest of each of so many hours; by default 0"),
    set("daily", COUNT, "", "the newest of each of so many days; by default 0"),
    set("weekly", COUNT, "", "the newest of each of so many weeks, which begin on a Monday; by default 0"),
    set("monthly", COUNT, "", "the newest of each of so many months; by default 0"),
    set("yearly", COUNT, "", "the newest of each of so many years; by default 0"),
];

const COUNT: Kind = Kind::Count { least: 0, most: 10_000 };
