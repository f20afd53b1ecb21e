//! Every setting there is: its table, its kind and range, its default. The reader, the messages, the
//! example file and the manual all follow this one list.

mod logs;
mod protect;

pub use logs::{HOST_LOG, LOG, LOGS, NUMBER, NUMBERS, OTLP, SYSLOG};
pub use protect::{BACKUP, IOPS_MOST, KEEP, PROTECT, PROVE, RATE_LEAST, RATE_MOST, REPOSITORY, SNAPSHOTS};

use super::units::{write_duration, write_size};
use holdfast_core::time::Duration;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its key.
    pub key: &'static str,
    /// What may be written.
    pub kind: Kind,
    /// What counts when nothing is written, as TOML; empty if that is nothing, or found at the start.
    pub default: &'static str,
    /// What it is, as one line.
    pub about: &'static str,
}

/// What may be written for a setting.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A time with its unit.
    Time {
        /// The shortest.
        least: Duration,
        /// The longest.
        most: Duration,
    },
    /// A size with its unit, in bytes.
    Size {
        /// The smallest.
        least: u64,
        /// The largest.
        most: u64,
    },
    /// A whole number.
    Count {
        /// The smallest.
        least: u32,
        /// The largest.
        most: u32,
    },
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any text, as in the example.
    Text(&'static str),
    /// A path; a relative one starts at the folder of the file.
    Path(&'static str),
    /// A list of texts.
    Texts(&'static str),
    /// A command: text, split into words, or a list of words. Never run by a shell.
    Command(&'static str),
    /// A text to be found, or `{ matches = "PATTERN" }`.
    Answer(&'static str),
    /// A table of its own.
    Table(&'static str),
}

impl Kind {
    /// What may be written, with an example, for a hint.
    #[must_use]
    pub fn allowed(&self) -> String {
        match self {
            Self::Time { least, most } => {
                format!("a time from {} to {}", write_duration(*least), write_duration(*most))
            }
            Self::Size { least, most } => {
                format!("a size from {} to {}", write_size(*least), write_size(*most))
            }
            Self::Count { least, most } => format!("a number from {least} to {most}"),
            Self::Flag => "`true` or `false`".to_owned(),
            Self::Word(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                words.join(" or ")
            }
            Self::Text(example) => format!("text, as in {example}"),
            Self::Path(example) => format!("a path, as in {example}"),
            Self::Texts(example) => format!("a list, as in {example}"),
            Self::Command(example) => format!("a command, as in {example}"),
            Self::Answer(example) => format!("text or a pattern, as in {example}"),
            Self::Table(example) => format!("a table, as in {example}"),
        }
    }

    /// The kind in a few words, for `must be ..`.
    #[must_use]
    pub const fn noun(&self) -> &'static str {
        match self {
            Self::Time { .. } => "a time with its unit",
            Self::Size { .. } => "a size with its unit",
            Self::Count { .. } => "a whole number",
            Self::Flag => "`true` or `false`",
            Self::Word(_) => "one of its words",
            Self::Text(_) => "text",
            Self::Path(_) => "a path",
            Self::Texts(_) => "a list of texts",
            Self::Command(_) => "a command",
            Self::Answer(_) => "text or a pattern",
            Self::Table(_) => "a table",
        }
    }
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn set(key: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Setting {
    Setting { key, kind, default, about }
}

const DAY: u64 = 86_400;

/// Above all tables.
pub const TOP: &[Setting] = &[
    set("host", Kind::Text("\"atlas\""), "", "the name of this host; by default its host name"),
    set(
        "state",
        Kind::Path("\"/var/lib/holdfast\""),
        "",
        "the folder for journal, leases and run records; by default /var/lib/holdfast for root, else $XDG_STATE_HOME/holdfast",
    ),
    set(
        "socket",
        Kind::Path("\"/run/holdfast.sock\""),
        "",
        "the socket the command line talks to; by default holdfast.sock in the state folder",
    ),
    set(
        "period",
        Kind::Time { least: Duration::from_millis(100), most: secs(60) },
        "\"1s\"",
        "how often everything is asked; three periods old is no longer fresh",
    ),
    set(
        "user",
        Kind::Text("\"holdfast-qemu\""),
        "",
        "the user that QEMU runs as; by default holdfast-qemu or nobody when the daemon is root, else the daemon's own",
    ),
    set(
        "learn",
        Kind::Word(&["count", "use"]),
        "\"count\"",
        "closed incidents and drills are counted; use has likelihoods and the order of remedies follow them (`holdfast learn`)",
    ),
    set("brake", Kind::Table("[brake]"), "", "when too many VMs look failed at once, nothing acts"),
    set("logs", Kind::Table("[logs]"), "", "where logs come from, and how much of them is kept"),
    set("numbers", Kind::Table("[numbers]"), "", "how much of what is measured is kept"),
    set(
        "repository",
        Kind::Table("[repository.main]"),
        "",
        "where restore points are kept, each by its name",
    ),
    set("vm", Kind::Table("[vm.orders]"), "", "the VMs, each by its name"),
];

/// `[brake]`.
pub const BRAKE: &[Setting] = &[
    set("vms", Kind::Count { least: 1, most: 10_000 }, "3", "more than so many VMs look failed"),
    set(
        "percent",
        Kind::Count { least: 0, most: 100 },
        "25",
        "and they are more than this share of all, in percent",
    ),
    set(
        "within",
        Kind::Time { least: secs(1), most: secs(DAY) },
        "\"1m\"",
        "and they failed within this time",
    ),
];

/// `[vm.NAME]`.
pub const VM: &[Setting] = &[
    set("driver", Kind::Word(&["qemu"]), "\"qemu\"", "the hypervisor"),
    set(
        "disk",
        Kind::Path("\"/var/lib/holdfast/orders.qcow2\""),
        "",
        "its disk image, a plain file, qcow2 or raw; the only setting that must be written",
    ),
    set(
        "memory",
        Kind::Size { least: 64 << 20, most: 4 << 40 },
        "\"1GiB\"",
        "memory of the guest, rounded down to whole MiB",
    ),
    set("cpus", Kind::Count { least: 1, most: 64 }, "1", "virtual processors"),
    set(
        "accel",
        Kind::Word(&["auto", "kvm", "tcg"]),
        "\"auto\"",
        "auto takes KVM where it truly boots a guest, else software emulation (tcg)",
    ),
    set(
        "qemu",
        Kind::Path("\"/opt/qemu/bin/qemu-system-x86_64\""),
        "",
        "run it by this QEMU instead of the installed one",
    ),
    set("autostart", Kind::Flag, "true", "start it with the daemon"),
    set(
        "mode",
        Kind::Word(&["armed", "observe"]),
        "\"armed\"",
        "armed repairs it, observe only tells what is wrong",
    ),
    set(
        "kernel",
        Kind::Path("\"/boot/vmlinuz-6.1.0-amd64\""),
        "",
        "boot this kernel instead of the disk's own",
    ),
    set("initrd", Kind::Path("\"/boot/initrd.img-6.1.0-amd64\""), "", "the initial RAM disk of that kernel"),
    set(
        "cmdline",
        Kind::Text("\"root=/dev/vda rw\""),
        "\"root=/dev/vda rw\"",
        "the command line of that kernel",
    ),
    set(
        "images",
        Kind::Texts("[\"/var/lib/images/base.raw\"]"),
        "[]",
        "files or folders, besides the disk's own folder, that its backing files may come from",
    ),
    set(
        "network",
        Kind::Text("\"user\", \"tap:tap0\" or \"none\""),
        "\"user\"",
        "user needs no rights, tap:NAME takes an existing interface, or none",
    ),
    set(
        "forward",
        Kind::Texts("[\"127.0.0.1:15432:5432\"]"),
        "[]",
        "ports of this host that lead into the guest, [ADDRESS:]PORT:GUEST_PORT, with network = \"user\"",
    ),
    set(
        "mac",
        Kind::Text("\"52:54:00:12:34:56\""),
        "",
        "the guest's MAC address, with network = \"tap:..\"; by default made from its name",
    ),
    set(
        "user",
        Kind::Text("\"holdfast-qemu\""),
        "",
        "the user that its QEMU runs as; by default the one above all tables",
    ),
    set("needs", Kind::Texts("[\"storage\"]"), "[]", "VMs that must be up before this one starts"),
    set("app", Kind::Table("[vm.orders.app.postgres]"), "", "its applications, each by its name"),
    set("log", Kind::Table("[vm.orders.log.postgres]"), "", "its logs, each by its name"),
    set("number", Kind::Table("[vm.orders.number.queue]"), "", "numbers of your own, each by its name"),
    set("recover", Kind::Table("[vm.orders.recover]"), "", "how it is brought back"),
    set(
        "protect",
        Kind::Table("[vm.orders.protect.backup]"),
        "",
        "which restore points are made of it while it runs",
    ),
];

/// `[vm.NAME.app.NAME]`.
pub const APP: &[Setting] = &[
    set(
        "probe",
        Kind::Text("\"postgres://probe@guest/orders\" or \"tcp://guest:22\""),
        "",
        "how it is asked: postgres, mysql, redis, http or tcp, where `guest` is this VM; or a list, a command on this host",
    ),
    set("query", Kind::Text("\"select 1\""), "\"select 1\"", "what postgres and mysql are asked"),
    set(
        "expect",
        Kind::Answer("\"1\" or { matches = \"^[0-9]+$\" }"),
        "",
        "what the first field of the answer must be; by default any answer will do",
    ),
    set("status", Kind::Count { least: 100, most: 599 }, "200", "the status an http answer must have"),
    set(
        "contains",
        Kind::Answer("\"ok\" or { matches = \"\\\"up\\\": *true\" }"),
        "",
        "what the body of an http answer must hold; by default anything",
    ),
    set(
        "timeout",
        Kind::Time { least: Duration::from_millis(50), most: secs(60) },
        "\"2s\"",
        "an answer later than this is none",
    ),
    set("write", Kind::Flag, "false", "also write a row and read it back, with postgres only"),
    set(
        "password_file",
        Kind::Path("\"/etc/holdfast/orders.password\""),
        "",
        "a file with the probe's password, readable by its owner alone",
    ),
    set(
        "password_env",
        Kind::Text("\"ORDERS_PASSWORD\""),
        "",
        "or the environment variable of the daemon with it",
    ),
    set(
        "restart",
        Kind::Command("\"systemctl restart postgresql\""),
        "",
        "how the guest agent restarts it; without this the guest is reset instead",
    ),
    set(
        "quiesce",
        Kind::Command("\"su postgres -c 'psql -c checkpoint'\""),
        "",
        "what the guest agent runs just before a snapshot or a backup",
    ),
    set(
        "check",
        Kind::Command("[\"sh\", \"-c\", \"test -e /run/ready\"]"),
        "",
        "a command that the guest agent runs as a second opinion; status 0 is a pass",
    ),
];

/// `[vm.NAME.recover]`.
pub const RECOVER: &[Setting] = &[
    set("tries", Kind::Count { least: 1, most: 100 }, "3", "so many recoveries at most"),
    set(
        "within",
        Kind::Time { least: secs(1), most: secs(30 * DAY) },
        "\"1h\"",
        "in any time of this length; then it is held for a person",
    ),
    set(
        "backoff",
        Kind::Time { least: Duration::ZERO, most: secs(600) },
        "\"5s\"",
        "the wait before the second try; it doubles with each further one, up to 10m",
    ),
    set(
        "verify",
        Kind::Time { least: Duration::from_millis(100), most: secs(3_600) },
        "\"5s\"",
        "how long everything must answer before it counts as recovered",
    ),
    set(
        "boot_limit",
        Kind::Time { least: secs(1), most: secs(7_200) },
        "\"5m\"",
        "the longest boot; learned boots shorten the wait, never lengthen it",
    ),
    set(
        "hang_after",
        Kind::Time { least: Duration::from_millis(300), most: secs(3_600) },
        "\"10s\"",
        "guest and application silent for so long, on two channels, is a hung guest",
    ),
    set(
        "max_data_loss",
        Kind::Time { least: Duration::ZERO, most: secs(30 * DAY) },
        "\"0s\"",
        "remedies that would lose more than the writes of so long wait for a person",
    ),
    set(
        "isolate",
        Kind::Word(&["none", "network", "pause"]),
        "\"none\"",
        "what is done to it when no remedy is left and it may do harm: its cables are unplugged, or it is paused",
    ),
];

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::tests::{example, golden, parse, repository};
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use toml::de::{DeTable, DeValue};

    /// The tables of settings with their names as the example writes them.
    const TABLES: [(&str, &[Setting]); 18] = [
        ("", TOP),
        ("[brake]", BRAKE),
        ("[logs]", LOGS),
        ("[logs.syslog]", SYSLOG),
        ("[logs.otlp]", OTLP),
        ("[logs.host.", HOST_LOG),
        ("[numbers]", NUMBERS),
        ("[repository.", REPOSITORY),
        ("[vm.orders]", VM),
        ("[vm.orders.app.", APP),
        ("[vm.orders.log.", LOG),
        ("[vm.orders.number.", NUMBER),
        ("[vm.orders.recover]", RECOVER),
        ("[vm.orders.protect]", PROTECT),
        ("[vm.orders.protect.snapshots]", SNAPSHOTS),
        ("[vm.orders.protect.prove]", PROVE),
        ("[vm.orders.protect.backup]", BACKUP),
        ("[vm.orders.protect.backup.keep]", KEEP),
    ];

    /// What the manual calls them.
    const NAMES: [&str; 18] = [
        "top",
        "brake",
        "logs",
        "syslog",
        "otlp",
        "host-log",
        "numbers",
        "repository",
        "vm",
        "app",
        "log",
        "number",
        "recover",
        "protect",
        "snapshots",
        "prove",
        "backup",
        "keep",
    ];

    /// The lines of the example by the table they stand in.
    fn lines_of<'t>(example: &'t str, table: &str) -> Vec<&'t str> {
        let mut here = table.is_empty();
        let mut lines = Vec::new();
        for line in example.lines() {
            if line.starts_with('[') {
                here = if table.ends_with(']') {
                    line == table
                } else {
                    !table.is_empty() && line.starts_with(table)
                };
            } else if here {
                lines.push(line);
            }
        }
        lines
    }

    /// A line of the example that sets a key: whether it is switched off, the key, its value, its comment.
    fn setting_line(line: &str) -> Option<(bool, &str, String, &str)> {
        let (off, rest) = line.strip_prefix('#').map_or((false, line), |rest| (true, rest));
        let (key, _) = rest
            .split_once(" = ")
            .filter(|(key, _)| key.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_')))?;
        let table = DeTable::parse(rest).ok()?;
        let value = shape(table.get_ref().get(key)?.get_ref());
        Some((off, key, value, rest.rsplit_once(" # ").map_or("", |(_, comment)| comment)))
    }

    fn shape(value: &DeValue<'_>) -> String {
        match (value.as_array(), value.as_integer(), value.as_bool()) {
            (Some(array), ..) => {
                format!("{:?}", array.iter().map(|each| shape(each.get_ref())).collect::<Vec<_>>())
            }
            (_, Some(number), _) => number.to_string(),
            (.., Some(flag)) => flag.to_string(),
            _ => format!("{:?}", value.as_str()),
        }
    }

    #[test]
    fn the_example_is_right_and_shows_every_setting_with_its_true_default() {
        let example = example();
        parse(&example).unwrap();
        for (table, settings) in TABLES {
            let lines = lines_of(&example, table);
            let shown: Vec<_> = lines.iter().filter_map(|line| setting_line(line)).collect();
            for setting in settings.iter().filter(|setting| !matches!(setting.kind, Kind::Table(_))) {
                let at = format!("`{}` in {table:?} of the example", setting.key);
                let found: Vec<_> = shown.iter().filter(|(_, key, ..)| *key == setting.key).collect();
                let Some((off, _, value, comment)) = found.first() else { panic!("{at} is missing") };
                assert!(!comment.is_empty(), "{at} has no comment");
                if setting.default.is_empty() {
                    assert!(
                        !off || comment.contains("default") || setting.key == "password_env",
                        "{at}: no default told"
                    );
                } else {
                    let default = shape(DeValue::parse(setting.default).unwrap().get_ref());
                    assert_eq!((*off, value), (true, &default), "{at} must show the default, switched off");
                }
            }
            let known: BTreeSet<&str> = settings.iter().map(|setting| setting.key).collect();
            for (_, key, ..) in &shown {
                assert!(known.contains(key), "the example shows `{key}` in {table:?}, which is no setting");
            }
        }
    }

    #[test]
    fn the_example_means_the_same_with_its_defaults_switched_on() {
        let example = example();
        let with_defaults: BTreeSet<&str> = TABLES
            .iter()
            .flat_map(|(_, settings)| settings.iter())
            .filter(|setting| !setting.default.is_empty() && setting.key != "cmdline")
            .map(|setting| setting.key)
            .collect();
        let switched_on: Vec<&str> = example
            .lines()
            .map(|line| match setting_line(line) {
                Some((true, key, ..)) if with_defaults.contains(key) => &line[1..],
                _ => line,
            })
            .collect();
        assert_ne!(switched_on.join("\n"), example.trim_end());
        assert_eq!(parse(&switched_on.join("\n")).unwrap(), parse(&example).unwrap());
    }

    #[test]
    fn the_manual_lists_every_setting_as_it_is() {
        let path = repository().join("docs/configuration.md");
        let manual = fs::read_to_string(&path).unwrap();
        let mut fresh = String::new();
        let mut rest = manual.as_str();
        for (name, (_, settings)) in NAMES.iter().zip(TABLES) {
            let begin = format!("<!-- settings: {name} -->\n");
            let (before, after) = rest.split_once(&begin).unwrap_or_else(|| panic!("{begin} is missing"));
            let (_, after) = after.split_once("<!-- end -->").unwrap();
            fresh.push_str(before);
            fresh.push_str(&begin);
            fresh.push_str("| Key | Default | What it may be | What it is |\n| --- | --- | --- | --- |\n");
            for setting in settings {
                let default =
                    if setting.default.is_empty() { String::new() } else { format!("`{}`", setting.default) };
                let allowed = setting.kind.allowed().replace('|', "\\|");
                fresh.push_str(&format!(
                    "| `{}` | {default} | {allowed} | {} |\n",
                    setting.key, setting.about
                ));
            }
            fresh.push_str("<!-- end -->");
            rest = after;
        }
        fresh.push_str(rest);
        golden(&path, &fresh);
    }
}
