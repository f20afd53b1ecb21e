//! Lines that belong together become one record: stack traces, the kernel's oops, what PostgreSQL says to a message.
//!
//! What continues is told by its form, never by a guess about time stamps: a line that nothing is known of stands alone.

use crate::record::{LONGEST_TEXT, Record, Severity};

/// How long a record waits for its next line, in microseconds.
pub const PATIENCE: i64 = 500_000;

/// Programs of one source whose lines may come mixed with each other's.
pub const MOST_WAITING: usize = 8;

/// What a record says to a message of PostgreSQL before it.
const POSTGRES: [&str; 6] = ["DETAIL:  ", "HINT:  ", "CONTEXT:  ", "STATEMENT:  ", "QUERY:  ", "LOCATION:  "];

/// Bytes of a line in which PostgreSQL's prefix ends.
const NEAR: usize = 192;

/// Joins the lines of one source. Lines of different programs or processes are held apart; nothing that is put in is
/// lost, and at most [`MOST_WAITING`] records wait, each with at most [`LONGEST_TEXT`] bytes of text.
#[derive(Debug, Default)]
pub struct Join {
    /// The one that got the last line is the last.
    waiting: Vec<Waiting>,
    /// Records that were begun so far.
    begun: u64,
}

/// A record that may go on.
#[derive(Debug)]
struct Waiting {
    record: Record,
    since: i64,
    kind: Kind,
    /// Which one it is, so that they leave in their order.
    number: u64,
}

/// What is going on in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing special.
    Ordinary,
    /// Python: between `Traceback` and the exception.
    Python,
    /// Python: behind the exception, where another may follow.
    PythonEnd,
    Go,
    /// Rust: the message of a panic comes next.
    RustMessage,
    Rust,
    Java,
    /// The kernel: from the first line of an oops to its end mark.
    Oops,
    /// It is whole.
    Whole,
}

impl Join {
    /// Nothing waits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a record in at a time that never goes back (microseconds). Gives back one that is complete: the one
    /// that this one does not continue, or another that had to make room.
    pub fn push(&mut self, record: Record, at_micros: i64) -> Option<Record> {
        let place = self.place(&record);
        let done = match place {
            Some(place) => {
                let mut waiting = self.waiting.remove(place);
                if at_micros.saturating_sub(waiting.since) <= PATIENCE
                    && let Some(kind) = follows(&waiting, &record)
                    && waiting.record.text.len() + 1 + record.text.len() <= LONGEST_TEXT
                {
                    waiting.add(&record, kind, at_micros);
                    self.waiting.push(waiting);
                    return None;
                }
                if is_other(&waiting.record, &record) {
                    self.waiting.push(waiting);
                    self.make_room()
                } else {
                    Some(waiting.record)
                }
            }
            None => self.make_room(),
        };
        let kind = begins(&record);
        self.begun += 1;
        self.waiting.push(Waiting { record, since: at_micros, kind, number: self.begun });
        done
    }

    /// A record that has waited long enough; there may be more. At the end of a source, ask with `i64::MAX`.
    pub fn rest(&mut self, at_micros: i64) -> Option<Record> {
        let is_due = |waiting: &Waiting| at_micros.saturating_sub(waiting.since) > PATIENCE;
        let due = self.waiting.iter().enumerate().filter(|(_, waiting)| is_due(waiting));
        let (place, _) = due.min_by_key(|(_, waiting)| waiting.number)?;
        Some(self.waiting.remove(place).record)
    }

    /// How many records were begun so far: it rises with each line that did not continue one.
    #[must_use]
    pub const fn begun(&self) -> u64 {
        self.begun
    }

    /// Which record waits longest, counted by [`Join::begun`]: all that were begun before it have left.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.waiting.iter().map(|waiting| waiting.number).min()
    }

    /// Which one it may continue: that of its program and process; a line without either, the last.
    fn place(&self, record: &Record) -> Option<usize> {
        let same = self.waiting.iter().position(|waiting| !is_other(&waiting.record, record));
        match is_headless(record) {
            true => self.waiting.len().checked_sub(1),
            false => same,
        }
    }

    fn make_room(&mut self) -> Option<Record> {
        (self.waiting.len() >= MOST_WAITING).then(|| self.waiting.remove(0).record)
    }
}

impl Waiting {
    fn add(&mut self, next: &Record, kind: Kind, at: i64) {
        self.record.text.push('\n');
        self.record.text.push_str(&next.text);
        self.record.severity = self.record.severity.max(next.severity);
        self.kind = kind;
        self.since = at;
    }
}

/// A line as it comes when nothing stands before it.
fn is_headless(record: &Record) -> bool {
    record.program.is_empty() && record.time.is_none() && record.fields.is_empty()
}

fn is_other(a: &Record, b: &Record) -> bool {
    a.program != b.program || ["pid", "host"].iter().any(|name| a.field(name) != b.field(name))
}

/// What a first line begins.
fn begins(record: &Record) -> Kind {
    let text = record.text.as_str();
    if text.contains("Traceback (most recent call last):") {
        Kind::Python
    } else if text.starts_with("panic: ") || text.starts_with("fatal error: ") || is_goroutine(text) {
        Kind::Go
    } else if let Some((_, behind)) =
        text.split_once("panicked at ").filter(|(before, _)| before.contains("thread '"))
    {
        if behind.ends_with(':') { Kind::RustMessage } else { Kind::Rust }
    } else if is_kernel(record) && is_oops(text) {
        Kind::Oops
    } else {
        Kind::Ordinary
    }
}

/// What the record becomes, if the next line continues it.
fn follows(waiting: &Waiting, next: &Record) -> Option<Kind> {
    let text = next.text.as_str();
    if is_kernel(&waiting.record) && is_kernel(next) {
        return oops(waiting.kind, text);
    }
    let goes_on = match waiting.kind {
        Kind::Whole => None,
        Kind::Python => {
            Some(if text.starts_with(' ') || text.is_empty() { Kind::Python } else { Kind::PythonEnd })
                .filter(|kind| *kind == Kind::Python || is_exception(text))
        }
        Kind::PythonEnd => python_again(text),
        Kind::Go => is_go(text).then_some(Kind::Go),
        Kind::RustMessage => Some(Kind::Rust),
        Kind::Rust => {
            (text.starts_with("note: ") || text.starts_with("stack backtrace:")).then_some(Kind::Rust)
        }
        Kind::Java | Kind::Ordinary | Kind::Oops => None,
    };
    goes_on.or_else(|| anyway(waiting, next))
}

/// What continues whatever stands before it.
fn anyway(waiting: &Waiting, next: &Record) -> Option<Kind> {
    let text = next.text.as_str();
    if is_indented(text) {
        return Some(if text.trim_start().starts_with("at ") { Kind::Java } else { waiting.kind });
    }
    if text.starts_with("Caused by: ") || text.starts_with("Suppressed: ") {
        return Some(Kind::Java);
    }
    if is_said_by_postgres(text) {
        return Some(waiting.kind);
    }
    let is_bad = waiting.record.severity >= Some(Severity::Error) && is_headless(next);
    match begins(next) {
        kind @ (Kind::Python | Kind::Go | Kind::Rust | Kind::RustMessage)
            if is_bad && waiting.kind == Kind::Ordinary =>
        {
            Some(kind)
        }
        _ if is_bad && waiting.kind == Kind::Ordinary && is_exception(text) => Some(Kind::Java),
        Kind::Python
        | Kind::PythonEnd
        | Kind::Go
        | Kind::RustMessage
        | Kind::Rust
        | Kind::Java
        | Kind::Oops
        | Kind::Ordinary
        | Kind::Whole => None,
    }
}

/// An indented line, but not what systemd writes to the console under `[  OK  ]`.
fn is_indented(text: &str) -> bool {
    let inner = text.trim_start_matches(' ');
    let is_status = text.starts_with("         ")
        && inner
            .split(' ')
            .next()
            .is_some_and(|word| word.ends_with("ing") && word.starts_with(char::is_uppercase));
    text.starts_with(' ') && !inner.is_empty() && !is_status
}

fn is_said_by_postgres(text: &str) -> bool {
    let near = &text[..text.floor_char_boundary(NEAR)];
    POSTGRES.iter().any(|mark| {
        near.find(mark).is_some_and(|at| at == 0 || matches!(near.as_bytes()[at - 1], b' ' | b']'))
    })
}

/// `ValueError: x`, `java.lang.IllegalStateException: x`, `KeyboardInterrupt`.
fn is_exception(text: &str) -> bool {
    let name = text.split_once(": ").map_or(text.trim_end_matches(':'), |(name, _)| name);
    let is_path = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$'));
    let last = name.rsplit('.').next().unwrap_or(name);
    is_path
        && [
            "Error",
            "Exception",
            "Warning",
            "Interrupt",
            "Exit",
            "Iteration",
            "Failure",
            "Timeout",
            "Throwable",
        ]
        .iter()
        .any(|ending| last.ends_with(ending))
}

/// Behind a Python exception: empty lines, and what joins it to the next traceback.
fn python_again(text: &str) -> Option<Kind> {
    if text.contains("Traceback (most recent call last):") {
        return Some(Kind::Python);
    }
    let joins = text.is_empty()
        || text.starts_with("During handling of the above exception")
        || text.starts_with("The above exception was the direct cause");
    joins.then_some(Kind::PythonEnd)
}

fn is_goroutine(text: &str) -> bool {
    text.starts_with("goroutine ") && text.ends_with("]:")
}

/// What follows a panic of Go: goroutines, their calls and where these are.
fn is_go(text: &str) -> bool {
    let is_call = text.ends_with(')')
        && text.split('(').next().is_some_and(|name| !name.contains(' ') && name.contains('.'));
    text.is_empty()
        || text.starts_with(' ')
        || is_goroutine(text)
        || is_call
        || ["[signal ", "created by ", "exit status ", "panic: "].iter().any(|start| text.starts_with(start))
}

fn is_kernel(record: &Record) -> bool {
    record.program == "kernel"
}

/// The first line of an oops, or of another report with a trace.
fn is_oops(text: &str) -> bool {
    const STARTS: [&str; 10] = [
        "------------[ cut here ]------------",
        "BUG: ",
        "WARNING: CPU: ",
        "Oops: ",
        "general protection fault",
        "Unable to handle kernel",
        "kernel BUG at ",
        "watchdog: BUG: ",
        "Call Trace:",
        "INFO: task ",
    ];
    STARTS.iter().any(|start| text.starts_with(start)) || text.contains(" invoked oom-killer: ")
}

/// What an oops of the kernel becomes, if this line is a part of it. The end mark is its last; a panic is told alone.
fn oops(kind: Kind, text: &str) -> Option<Kind> {
    const PARTS: [&str; 24] = [
        "Call Trace:",
        "Call trace:",
        "Hardware name:",
        "Modules linked in:",
        "Code: ",
        "Workqueue: ",
        "RIP: ",
        "RIP [",
        "EIP: ",
        "CPU: ",
        "Comm: ",
        "Oops",
        "#PF: ",
        "PGD ",
        "PKRU: ",
        "note: ",
        "task:",
        "Process ",
        "Stack:",
        "Tainted: ",
        "invalid opcode",
        "pstate: ",
        "pc : ",
        "lr : ",
    ];
    let inner = text.trim_start();
    if kind != Kind::Oops || text.starts_with("Kernel panic") {
        return None;
    }
    if inner.starts_with("---[ end ") {
        return Some(Kind::Whole);
    }
    let word = inner.split(' ').next().unwrap_or(inner);
    let is_register = word.ends_with(':')
        && word.len() <= 9
        && word.bytes().all(|b| b == b':' || b == b'_' || b.is_ascii_digit() || b.is_ascii_uppercase());
    let is_call = inner.starts_with("[<")
        || inner.starts_with("? ")
        || (inner.contains("+0x") && inner.contains("/0x"));
    let is_part = text.starts_with(' ')
        || PARTS.iter().any(|part| inner.starts_with(part))
        || inner.starts_with('<')
        || is_register
        || is_call
        || is_oops(inner);
    is_part.then_some(Kind::Oops)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::decode::{plain, syslog};
    use proptest::prelude::*;

    const RECEIVED: i64 = 1_795_468_788_000_000;

    fn all(records: impl IntoIterator<Item = Record>) -> Vec<String> {
        let mut join = Join::new();
        let mut found: Vec<Record> = records.into_iter().filter_map(|record| join.push(record, 0)).collect();
        while let Some(record) = join.rest(i64::MAX) {
            found.push(record);
        }
        found.into_iter().map(|record| record.text).collect()
    }

    /// How many lines each record of these has.
    fn counts(text: &str) -> Vec<usize> {
        let records = text.split('\n').map(|line| plain(line.as_bytes(), RECEIVED));
        all(records).iter().map(|text| text.split('\n').count()).collect()
    }

    #[test]
    fn stack_traces_are_one_record() {
        let java = "2026-11-23 21:19:48,123 [main] ERROR a.B - it failed\njava.lang.IllegalStateException: no\n\tat a.B.c(B.java:12)\n\tat a.D.e(D.java:3)\nCaused by: java.io.IOException: gone\n\tat a.F.g(F.java:1)\n\t... 2 more\n2026-11-23 21:19:49,000 [main] INFO a.B - on";
        assert_eq!(counts(java), [7, 1]);
        let python = "2026-11-23 21:19:48,123 - root - ERROR - it failed\nTraceback (most recent call last):\n  File \"a.py\", line 1, in <module>\n    f()\nValueError: no\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File \"a.py\", line 3\nKeyError: 'x'\nready";
        assert_eq!(counts(python), [11, 1]);
        let go = "started\npanic: runtime error: index out of range [5] with length 3\n\ngoroutine 1 [running]:\nmain.main()\n\t/tmp/x.go:8 +0x1d\nexit status 2\nrestarted";
        assert_eq!(counts(go), [1, 6, 1]);
        let rust = "thread 'main' panicked at src/main.rs:2:5:\nit failed\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\nnext\nthread 'a' (7) panicked at 'old', src/main.rs:2:5\nstack backtrace:\n   0: std::panicking\n             at ./src/main.rs:2:5\nnext";
        assert_eq!(counts(rust), [3, 1, 4, 1]);
    }

    #[test]
    fn an_oops_is_one_record_up_to_its_end_and_a_panic_stands_alone() {
        let oops = "[   10.000001] usb 1-1: new device\n[   11.000001] ------------[ cut here ]------------\n[   11.000002] kernel BUG at mm/slub.c:363!\n[   11.000003] invalid opcode: 0000 [#1] PREEMPT SMP PTI\n[   11.000004] CPU: 1 PID: 77 Comm: postgres Not tainted 6.1.0-31-amd64\n[   11.000005] Hardware name: QEMU Standard PC\n[   11.000006] RIP: 0010:__slab_free+0x1d9/0x330\n[   11.000007] RSP: 0018:ffffb1c2 EFLAGS: 00010246\n[   11.000008] RAX: ffff9a80 RBX: 0 RCX: 1\n[   11.000009] FS:  00007f(0000) GS:ffff knlGS:0\n[   11.000010] Call Trace:\n[   11.000011]  <TASK>\n[   11.000012]  ? kfree+0x1/0x2\n[   11.000013]  </TASK>\n[   11.000014] Modules linked in: virtio_net\n[   11.000015] ---[ end trace 0000000000000000 ]---\n[   11.000016] RIP: 0010:x\n[   11.000017] Kernel panic - not syncing: Fatal exception\n[   11.000018] Kernel Offset: 0x1";
        assert_eq!(counts(oops), [1, 15, 1, 1, 1]);
        let mixed = "[   11.000001] BUG: kernel NULL pointer dereference, address: 0000000000000000\n[   11.000002] EXT4-fs error (device vda): x\n[   11.000003] Call Trace:\n[   11.000004]  dump_stack+0x1/0x2";
        assert_eq!(counts(mixed), [1, 1, 2]);
    }

    #[test]
    fn what_postgresql_says_to_a_message_belongs_to_it() {
        let text = "2026-11-23 21:19:48.123 UTC [61] ERROR:  duplicate key\n2026-11-23 21:19:48.124 UTC [62] LOG:  other\n2026-11-23 21:19:48.125 UTC [61] DETAIL:  Key (id)=(7) already exists.\n2026-11-23 21:19:48.126 UTC [61] STATEMENT:  INSERT INTO orders\n\tVALUES (7)\n2026-11-23 21:19:49.123 UTC [61] LOG:  next";
        let found = all(text.split('\n').map(|line| plain(line.as_bytes(), RECEIVED)));
        assert_eq!(
            found,
            [
                "ERROR:  duplicate key\nDETAIL:  Key (id)=(7) already exists.\nSTATEMENT:  INSERT INTO orders\n VALUES (7)",
                "LOG:  other",
                "LOG:  next"
            ]
        );
    }

    #[test]
    fn lines_of_different_programs_stay_apart_and_ordinary_ones_too() {
        let line = |program: &str, text: &str| {
            syslog(format!("<11>Nov 23 21:19:48 h {program}: {text}").as_bytes(), RECEIVED)
        };
        let found = all([
            line("a[1]", "failed"),
            line("b[2]", "  indented"),
            line("a[1]", "  indented"),
            line("a[2]", "  at x"),
        ]);
        assert_eq!(found, ["failed\n  indented", "  indented", "  at x"]);
        let console =
            "[  OK  ] Started a.\n         Starting b...\n[  OK  ] Started b.\nlogin:\n\nDebian GNU/Linux";
        assert_eq!(counts(console), [1; 6]);
        assert_eq!(
            counts("Nov 23 21:19:48 h a[1]: x\nNov 23 21:19:48 h a[1]: ValueError: y\nplain\nTypeError: z"),
            [1; 4]
        );
    }

    #[test]
    fn a_known_line_within_a_joined_record_is_found() {
        let text = "[   11.000001] ------------[ cut here ]------------\n[   11.000002] kernel BUG at mm/slub.c:363!";
        let mut join = Join::new();
        for line in text.split('\n') {
            assert_eq!(join.push(plain(line.as_bytes(), RECEIVED), 0), None);
        }
        let found = crate::Rules::standard().find_in(&join.rest(i64::MAX).unwrap());
        assert_eq!(found.map(|found| found.kind), Some(crate::Kind::KernelOops));
        let forged = Record {
            program: "a".into(),
            text: "x\nkernel BUG at mm/slub.c:363!".into(),
            ..Record::default()
        };
        assert!(crate::Rules::standard().find_in(&forged).is_none());
    }

    #[test]
    fn a_record_waits_half_a_second_and_no_longer() {
        let (first, second) = (plain(b"panic: x", RECEIVED), plain(b"goroutine 1 [running]:", RECEIVED));
        let mut join = Join::new();
        assert_eq!(join.push(first.clone(), 1_000), None);
        assert_eq!(join.rest(1_000 + PATIENCE), None);
        assert_eq!(join.rest(1_001 + PATIENCE), Some(first.clone()));
        assert_eq!(
            (join.push(first.clone(), 0), join.push(second.clone(), PATIENCE + 1)),
            (None, Some(first))
        );
        assert_eq!((join.rest(i64::MIN), join.rest(i64::MAX)), (None, Some(second)));
    }

    #[test]
    fn what_does_not_fit_goes_on_in_another_record() {
        let line = format!("  {}", "x".repeat(4_000));
        let found = all((0..10).map(|_| plain(line.as_bytes(), RECEIVED)));
        assert_eq!(found.iter().map(|text| text.split('\n').count()).collect::<Vec<_>>(), [4, 4, 2]);
    }

    proptest! {
        #[test]
        fn no_text_is_lost_and_few_records_wait(lines in proptest::collection::vec(
            (0..12_u8, "( |  at a|Traceback \\(most recent call last\\):|panic: x|goroutine 1 \\[running\\]:|thread 'm' panicked at a:|Call Trace:|BUG: x|---\\[ end trace|DETAIL:  x|ValueError: x|Caused by: x|)[a-z]{0,9}", 0..700_000_i64), 0..60)) {
            let mut join = Join::new();
            let (mut put, mut got, mut now) = (Vec::new(), Vec::new(), 0);
            for (program, text, later) in lines {
                now += later / 4;
                let program = ["", "kernel", "a[1]"].get(usize::from(program)).map_or_else(|| format!("p{program}"), |name| (*name).to_owned());
                let mut record = Record { text: text.clone(), program, ..Record::default() };
                record.severity = Some(Severity::Error);
                put.push(text);
                got.extend(join.push(record, now));
                if later % 3 == 0 {
                    got.extend(join.rest(now));
                }
                prop_assert!(join.waiting.len() <= MOST_WAITING);
            }
            while let Some(record) = join.rest(i64::MAX) {
                got.push(record);
            }
            let mut got: Vec<String> = got.iter().flat_map(|record| record.text.split('\n').map(str::to_owned)).collect();
            put.sort();
            got.sort();
            prop_assert_eq!(put, got);
        }
    }

    #[test]
    fn a_flood_of_programs_waits_in_little_memory() {
        let mut join = Join::new();
        let mut given = 0;
        for number in 0..100_000 {
            let mut record = Record { program: format!("p{number}"), ..Record::default() };
            record.set_text(&[b'x'; 1_000]);
            given += usize::from(join.push(record, 0).is_some());
        }
        assert_eq!(given, 100_000 - MOST_WAITING);
        assert!(join.rest(i64::MAX).unwrap().program == format!("p{given}"));
    }
}
