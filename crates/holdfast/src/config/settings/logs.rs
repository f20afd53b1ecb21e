//! Settings of logs and numbers: where they come from, where VMs may send theirs, and how much is kept.

use super::{DAY, Kind, Setting, secs, set};
use crate::sense::logs::Format;
use holdfast_core::time::Duration;

/// `[logs]`.
pub const LOGS: &[Setting] = &[
    set(
        "keep",
        Kind::Size { least: 8 << 20, most: 1 << 40 },
        "\"256MiB\"",
        "compressed logs that are kept on disk; the oldest leave first, each VM keeps its fair share",
    ),
    set(
        "keep_for",
        Kind::Time { least: secs(3_600), most: secs(3_650 * DAY) },
        "\"14d\"",
        "what is older leaves, also while there is room",
    ),
    set("host_kernel", Kind::Flag, "true", "read what this host's kernel says"),
    set("host_journal", Kind::Flag, "false", "read this host's whole systemd journal"),
    set("syslog", Kind::Table("[logs.syslog]"), "", "where syslog is received"),
    set("otlp", Kind::Table("[logs.otlp]"), "", "where OpenTelemetry logs are received"),
    set("host", Kind::Table("[logs.host.backup]"), "", "logs of this host itself, each by its name"),
];

/// `[numbers]`.
pub const NUMBERS: &[Setting] = &[set(
    "keep",
    Kind::Size { least: 1 << 20, most: 1 << 36 },
    "\"64MiB\"",
    "compressed series that are kept on disk: an hour of seconds, two days of ten seconds, thirty of five minutes; the oldest leave first",
)];

const KEY: Setting =
    set("key", Kind::Path("\"/etc/holdfast/logs.key\""), "", "its key, PEM, readable by its owner alone");
const CLIENT_CA: Setting = set(
    "client_ca",
    Kind::Path("\"/etc/holdfast/senders.pem\""),
    "",
    "senders must have a certificate of these authorities; by default none is asked for",
);

const OPEN: Setting = set(
    "open",
    Kind::Flag,
    "false",
    "also listen beyond this machine without TLS and certificates of senders: whoever has a VM's address speaks for it",
);

/// `[logs.syslog]`.
pub const SYSLOG: &[Setting] = &[
    set("udp", Kind::Text("\"127.0.0.1:5514\""), "", "receive packets here; by default nowhere"),
    set("tcp", Kind::Text("\"127.0.0.1:5514\""), "", "receive connections here; by default nowhere"),
    set("tls", Kind::Text("\"0.0.0.0:6514\""), "", "receive connections with TLS here; by default nowhere"),
    set(
        "cert",
        Kind::Path("\"/etc/holdfast/logs.pem\""),
        "",
        "the certificate of `tls` and what it stands on, PEM",
    ),
    KEY,
    CLIENT_CA,
    OPEN,
];

/// `[logs.otlp]`.
pub const OTLP: &[Setting] = &[
    set("http", Kind::Text("\"127.0.0.1:4318\""), "", "receive OTLP over HTTP here; by default nowhere"),
    set("grpc", Kind::Text("\"127.0.0.1:4317\""), "", "receive OTLP over gRPC here; by default nowhere"),
    set(
        "cert",
        Kind::Path("\"/etc/holdfast/logs.pem\""),
        "",
        "both with TLS: their certificate and what it stands on, PEM; by default without",
    ),
    KEY,
    CLIENT_CA,
    OPEN,
];

const FILE: Setting = set(
    "file",
    Kind::Path("\"/var/log/orders/*.log\""),
    "",
    "a file of this host, or a pattern of files; read through rotation",
);
const COMMAND: Setting = set(
    "command",
    Kind::Command("[\"tail\", \"-F\", \"/srv/orders.log\"]"),
    "",
    "a command of this host: each line that it prints; started again when it ends",
);
const FORMAT: Setting = set(
    "format",
    Kind::Word(Format::WORDS),
    "\"auto\"",
    "how lines are written; auto understands the time and severity that most programs put before a message",
);

/// `[logs.host.NAME]`.
pub const HOST_LOG: &[Setting] = &[FILE, COMMAND, FORMAT];

/// `[vm.NAME.log.NAME]`.
pub const LOG: &[Setting] = &[
    FILE,
    set(
        "guest_file",
        Kind::Text("\"/var/log/postgresql/*.log\""),
        "",
        "a file in the guest, read by its agent; the last part may be a pattern",
    ),
    set("journal", Kind::Flag, "false", "the guest's systemd journal, read by its agent"),
    set("event_log", Kind::Text("\"System\""), "", "an event log of a Windows guest, read by its agent"),
    COMMAND,
    set(
        "address",
        Kind::Texts("[\"10.0.0.5\"]"),
        "[]",
        "what is received from these addresses by syslog and OTLP is the VM's; the address of a tap network is known",
    ),
    set("app", Kind::Text("\"postgres\""), "", "the application that it is the log of; by default the guest"),
    FORMAT,
];

/// `[vm.NAME.number.NAME]`.
pub const NUMBER: &[Setting] = &[
    set(
        "command",
        Kind::Command("[\"/usr/local/bin/queue-length\", \"orders\"]"),
        "",
        "a command of this host that prints the number",
    ),
    set(
        "guest_command",
        Kind::Command("[\"sh\", \"-c\", \"ls /var/spool/orders | wc -l\"]"),
        "",
        "or a command that the guest agent runs",
    ),
    set(
        "query",
        Kind::Text("\"select count(*) from waiting\""),
        "",
        "or a query to PostgreSQL, as the probe of `app` asks; the first field of the first row",
    ),
    set(
        "app",
        Kind::Text("\"postgres\""),
        "",
        "the application that a `query` is put to; by default the only one of PostgreSQL",
    ),
    set(
        "every",
        Kind::Time { least: secs(1), most: secs(3_600) },
        "\"10s\"",
        "how often it is asked for; never before the last time has ended",
    ),
    set(
        "timeout",
        Kind::Time { least: Duration::from_millis(50), most: secs(60) },
        "\"5s\"",
        "an answer later than this is none",
    ),
    set(
        "unit",
        Kind::Text("\"rows\""),
        "",
        "in what it is measured, to be shown; `s`, `B` and `share` are shown as people read them",
    ),
    set(
        "kind",
        Kind::Word(&["value", "total"]),
        "\"value\"",
        "a total only rises, as a count of requests does: what is followed is how much it rises a second",
    ),
];
