//! Settings of restore points.

use super::{DAY, Kind, Setting, secs, set};

/// `[repository.NAME]`.
pub const REPOSITORY: &[Setting] = &[
    set(
        "path",
        Kind::Path("\"/mnt/backup/holdfast\""),
        "",
        "its folder, made by `holdfast backup init`; it must be written",
    ),
    set(
        "key_file",
        Kind::Path("\"/etc/holdfast/main.key\""),
        "",
        "the file with its key or passphrase; by default the key that `backup init` wrote for the daemon's user",
    ),
];

/// `[vm.NAME.protect]`.
pub const PROTECT: &[Setting] = &[
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
];

/// `[vm.NAME.protect.backup]`.
pub const BACKUP: &[Setting] = &[
    set("to", Kind::Text("\"main\""), "", "the repository of its restore points; it must be written"),
    set(
        "every",
        Kind::Time { least: secs(60), most: secs(366 * DAY) },
        "",
        "how old the newest point may become before the next is made; by default one is made only on demand",
    ),
];
