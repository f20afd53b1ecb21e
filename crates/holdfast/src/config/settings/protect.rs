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
pub const PROTECT: &[Setting] =
    &[set("backup", Kind::Table("[vm.orders.protect.backup]"), "", "its backups, while it runs")];

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
