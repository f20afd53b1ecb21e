//! Lines of any program's file or console: the time that stands before them, and how bad they say they are.

use super::syslog::fill;
use super::time::{self, Stamp};
use super::words;
use crate::clean::clean_text;
use crate::header::{Head, head};
use crate::record::{Record, Severity};

/// Bytes of a line in which its labelled time stands.
const NEAR: usize = 512;

/// How a time is called in lines of JSON.
const LABELS: [&str; 4] = ["\"time\"", "\"@timestamp\"", "\"timestamp\"", "\"ts\""];

/// The record of one line. A time at its start is taken from the text: ISO 8601 and its like (also behind `[`),
/// klog's, MySQL's, the kernel's seconds since it started (field `uptime`), and what syslog puts before a message.
/// (Redis' is read and stays.) How bad it is comes from known words in known places only. A time without a year gets the one nearest to
/// `received_micros` (microseconds since 1970).
#[must_use]
pub fn plain(line: &[u8], received_micros: i64) -> Record {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let line = clean_text(line);
    let said = read(&line, received_micros);
    let mut record = Record::default();
    fill(&mut record, &said.head);
    record.severity = said.severity;
    record.add_field("uptime", said.uptime.as_bytes());
    said.text.clone_into(&mut record.text);
    record
}

/// What a line says about itself, without a record being made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// When, in microseconds since 1970.
    pub time: Option<i64>,
    /// How bad.
    pub severity: Option<Severity>,
    /// Where the message starts behind the head of syslog, as [`crate::syslog_message`] says.
    pub message: Option<usize>,
}

/// Looks at a line, which is meant to be clean, as [`plain`] does.
#[must_use]
pub fn glance(line: &str, received_micros: i64) -> Glance {
    let said = read(line, received_micros);
    let message = said.has_head.then_some(said.head.message);
    Glance { time: said.head.time.map(|stamp| stamp.micros), severity: said.severity, message }
}

/// What was read of a line.
struct Said<'a> {
    /// What syslog puts before a message, and what the program itself does in the same places.
    head: Head<'a>,
    has_head: bool,
    uptime: &'a str,
    severity: Option<Severity>,
    /// What is left.
    text: &'a str,
}

fn read(line: &str, received: i64) -> Said<'_> {
    let found = head(line, received);
    let head = found.unwrap_or_default();
    let severity = head.priority.and_then(|priority| Severity::from_syslog(priority % 8));
    let mut said =
        Said { head, has_head: found.is_some(), uptime: "", severity, text: &line[head.message..] };
    said.before(received);
    if said.severity.is_none() {
        said.severity = words::of_line(said.text, said.head.time.is_some());
    }
    said
}

impl<'a> Said<'a> {
    /// Takes what a program itself puts before its message.
    fn before(&mut self, received: i64) {
        let text = self.text;
        let Some(first) = text.bytes().next() else { return };
        let rest = match first {
            b'[' => self.kernel(text).or_else(|| self.dated(text)),
            b'0'..=b'9' => self.redis(text).or_else(|| self.dated(text)),
            b'I' | b'W' | b'E' | b'F' => self.klog(text, received),
            b'{' | b't' => self.labelled(text),
            _ => None,
        };
        self.text = rest.unwrap_or(text);
    }

    fn set_time(&mut self, stamp: Stamp) {
        if self.head.time.is_none_or(|known| known.zone.is_none()) {
            self.head.time = Some(stamp);
        }
    }

    fn set_pid(&mut self, pid: &'a str) {
        if self.head.pid.is_empty() {
            self.head.pid = pid;
        }
    }

    /// `[   12.345678] text`, `[  333.201122][  T123] text`. What a program wrote through the kernel names it.
    fn kernel(&mut self, text: &'a str) -> Option<&'a str> {
        let inner = text.strip_prefix('[')?.trim_start();
        let whole = digits(inner);
        let fraction = inner[whole..].strip_prefix('.').map_or(0, digits);
        if whole == 0 || fraction != 6 {
            return None;
        }
        let end = whole + 1 + fraction;
        let mut rest = inner[end..].strip_prefix(']')?;
        let by = rest.strip_prefix('[').and_then(|rest| rest.split_once("] "));
        if let Some((_, behind)) = by.filter(|(by, _)| by.len() < 12) {
            rest = behind;
        }
        self.uptime = &inner[..end];
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        if !self.head.program.is_empty() {
            return Some(rest);
        }
        if let Some((name, pid, behind)) = through_kernel(rest) {
            self.head.program = name;
            self.set_pid(pid);
            return Some(behind);
        }
        self.head.program = "kernel";
        Some(rest)
    }

    /// `771:M 23 Nov 2026 21:19:48.000 # text`. It stays whole, as who speaks in it matters.
    fn redis(&mut self, text: &'a str) -> Option<&'a str> {
        let pid = digits(text);
        let rest = text[pid..].strip_prefix(':')?;
        let rest = rest.strip_prefix(['M', 'S', 'C', 'X']).filter(|_| pid > 0)?.strip_prefix(' ')?;
        let (stamp, used) = time::spelled(rest.as_bytes())?;
        let severity = match rest[used..].get(..3)? {
            " # " => Severity::Warning,
            " * " => Severity::Notice,
            " - " => Severity::Info,
            " . " => Severity::Debug,
            _ => return None,
        };
        self.severity = self.severity.or(Some(severity));
        self.set_time(stamp);
        self.set_pid(&text[..pid]);
        if self.head.program.is_empty() {
            self.head.program = "redis";
        }
        Some(text)
    }

    /// `E1123 21:19:48.123456    1234 file.go:12] text`.
    fn klog(&mut self, text: &'a str, received: i64) -> Option<&'a str> {
        let severity = match text.as_bytes().first()? {
            b'I' => Severity::Info,
            b'W' => Severity::Warning,
            b'E' => Severity::Error,
            b'F' => Severity::Critical,
            _ => return None,
        };
        let (stamp, used) = time::short(text.as_bytes().get(1..)?, received)?;
        let rest = text[1 + used..].strip_prefix(' ')?.trim_start();
        self.set_time(stamp);
        self.set_pid(&rest[..digits(rest)]);
        self.severity = self.severity.or(Some(severity));
        Some(rest[digits(rest)..].trim_start())
    }

    /// `{"time":"2026-11-23T21:19:48Z",...}`, `time=2026-11-23T21:19:48Z level=...`. The line stays whole.
    fn labelled(&mut self, text: &'a str) -> Option<&'a str> {
        let near = &text[..text.floor_char_boundary(NEAR)];
        let value = match near.strip_prefix('{') {
            Some(fields) => LABELS.iter().find_map(|label| {
                let (_, behind) = fields.split_once(label)?;
                behind.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')
            }),
            None => ["time=", "ts=", "timestamp="].iter().find_map(|label| near.strip_prefix(label)),
        }?;
        let (stamp, _) = time::iso(value.trim_start_matches('"').as_bytes())?;
        self.set_time(stamp);
        Some(text)
    }

    /// `2026-11-23 21:19:48.123 UTC [61] text`, `[2026-11-23T21:19:48Z] text`, `261123 21:19:48 text`.
    fn dated(&mut self, text: &'a str) -> Option<&'a str> {
        let opened = text.strip_prefix('[');
        let inner = opened.unwrap_or(text);
        let (stamp, used) = time::iso(inner.as_bytes()).or_else(|| time::compact(inner.as_bytes()))?;
        let mut rest = &inner[used..];
        rest = abbreviation(rest).unwrap_or(rest);
        if opened.is_some() {
            rest = rest.strip_prefix(']')?;
        }
        if rest.starts_with(|letter: char| letter.is_ascii_alphanumeric()) {
            return None; // what goes on is no time
        }
        self.set_time(stamp);
        let rest = rest.trim_start_matches([' ', '|', ':']);
        let pid = rest.strip_prefix('[').and_then(|rest| rest.split_once("] "));
        match pid.filter(|(pid, _)| is_pid(pid)) {
            Some((pid, behind)) => {
                self.set_pid(&pid[..digits(pid)]);
                Some(behind.trim_start())
            }
            None => Some(rest),
        }
    }
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// `name[1]: text` behind the time of the kernel.
fn through_kernel(rest: &str) -> Option<(&str, &str, &str)> {
    let (tag, behind) = rest.split_once(": ")?;
    let (name, pid) = tag.strip_suffix(']')?.split_once('[')?;
    let fits = !name.is_empty() && name.len() <= 48 && !name.contains(' ') && digits(pid) == pid.len();
    fits.then_some((name, pid, behind))
}

/// `61`, or `61-3` for the third line of a session.
fn is_pid(text: &str) -> bool {
    let length = digits(text);
    let rest = text[length..].strip_prefix('-').unwrap_or(&text[length..]);
    (1..=10).contains(&length) && digits(rest) == rest.len()
}

/// Behind ` CET` and its like, which are said to nobody: a zone without its distance.
fn abbreviation(text: &str) -> Option<&str> {
    let word = text.strip_prefix(' ')?.split(' ').next()?;
    let is_zone = (3..=4).contains(&word.len())
        && word.bytes().all(|byte| byte.is_ascii_uppercase())
        && (word.ends_with('T') || word == "MSK");
    is_zone.then(|| &text[1 + word.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rules, decode::syslog};
    use proptest::prelude::*;

    const RECEIVED: i64 = 1_795_468_788_000_000; // 2026-11-23T21:19:48Z

    #[test]
    fn each_form_of_line_gives_its_time_and_how_bad_it_is() {
        use Severity::{Critical, Debug, Error, Info, Notice, Warning};
        for (line, severity, program, pid, text) in [
            ("2026-11-23 21:19:48.000 UTC [61] LOG:  ready", Info, "", "61", "LOG:  ready"),
            ("2026-11-23 22:19:48.000 +01 [61-3] u@d FATAL:  no", Error, "", "61", "u@d FATAL:  no"),
            ("2026-11-23 21:19:48.000 CET [61] PANIC:  no", Critical, "", "61", "PANIC:  no"),
            (
                "2026-11-23T21:19:48.000000Z 0 [ERROR] [MY-010119] [Server] Aborting",
                Error,
                "",
                "",
                "0 [ERROR] [MY-010119] [Server] Aborting",
            ),
            ("2026-11-23 21:19:48 0 [Note] mariadbd: ready", Notice, "", "", "0 [Note] mariadbd: ready"),
            ("261123 21:19:48 [Warning] old", Warning, "", "", "[Warning] old"),
            (
                "771:M 23 Nov 2026 21:19:48.000 # MISCONF",
                Warning,
                "redis",
                "771",
                "771:M 23 Nov 2026 21:19:48.000 # MISCONF",
            ),
            ("E1123 21:19:48.000000    1234 a.go:12] failed", Error, "", "1234", "a.go:12] failed"),
            ("Nov 23 21:19:48 h sshd[9]: error: no", Error, "sshd", "9", "error: no"),
            ("<11>Nov 23 21:19:48 h app: INFO said", Error, "app", "", "INFO said"),
            ("2026/11/23 21:19:48 [crit] 7#7: *1 x", Critical, "", "", "[crit] 7#7: *1 x"),
            ("[2026-11-23T21:19:48Z] [main] WARN a.b: x", Warning, "", "", "[main] WARN a.b: x"),
            ("2026-11-23 21:19:48,000 - root - ERROR - x", Error, "", "", "- root - ERROR - x"),
            ("2026-11-23T21:19:48Z DEBUG holdfast: x", Debug, "", "", "DEBUG holdfast: x"),
            ("time=x level=warn 2026", Warning, "", "", "time=x level=warn 2026"),
            (
                "{\"log\":\"x\",\"level\":\"warn\",\"time\" : \"2026-11-23T22:19:48+01:00\"}",
                Warning,
                "",
                "",
                "{\"log\":\"x\",\"level\":\"warn\",\"time\" : \"2026-11-23T22:19:48+01:00\"}",
            ),
            (
                "time=\"2026-11-23 21:19:48\" level=info",
                Info,
                "",
                "",
                "time=\"2026-11-23 21:19:48\" level=info",
            ),
            ("{\"time\":1,\"level\":\"error\"}", Error, "", "", "{\"time\":1,\"level\":\"error\"}"),
            ("\x1b[31m[ERROR]\x1b[0m x", Error, "", "", "[ERROR] x"),
        ] {
            let record = plain(line.as_bytes(), RECEIVED);
            assert_eq!(record.time.unwrap_or(RECEIVED), RECEIVED, "{line}");
            assert_eq!(record.severity, Some(severity), "{line}");
            let found = (record.program.as_str(), record.field("pid").unwrap_or(""), record.text.as_str());
            assert_eq!(found, (program, pid, text), "{line}");
        }
    }

    #[test]
    fn a_labelled_time_is_known() {
        for line in [
            "{\"time\":\"2026-11-23T21:19:48Z\"}",
            "time=2026-11-23T21:19:48Z x",
            "ts=\"2026-11-23T21:19:48\"",
        ] {
            assert_eq!(plain(line.as_bytes(), 0).time, Some(RECEIVED), "{line}");
        }
        for line in [
            "{\"time\":5}",
            "{\"time\"",
            "time=x",
            "the time=2026-11-23T21:19:48Z",
            "{\"uptime\":\"2026-11-23T21:19:48Z\"}",
        ] {
            assert_eq!(plain(line.as_bytes(), 0).time, None, "{line}");
        }
    }

    #[test]
    fn a_word_in_any_other_place_says_nothing() {
        for line in [
            "the user wrote ERROR in capitals",
            "an error: was nowhere",
            "request for level=error-page",
            "2026-11-23 is a date without a clock ERROR",
            "FATAL: ",
            "errors: 3",
        ] {
            let expected = line.starts_with("FATAL").then_some(Severity::Critical);
            assert_eq!(plain(line.as_bytes(), RECEIVED).severity, expected, "{line}");
        }
    }

    #[test]
    fn the_kernel_is_known_by_its_clock_and_names_who_writes_through_it() {
        for (line, program, pid, text) in [
            ("[  333.201122] Kernel panic - not syncing: x", "kernel", "", "Kernel panic - not syncing: x"),
            ("[  333.201122][  T123] BUG: x", "kernel", "", "BUG: x"),
            ("[    1.500000] systemd[1]: Started x.", "systemd", "1", "Started x."),
            ("<4>[    1.500000] EXT4-fs (vda): x", "kernel", "", "EXT4-fs (vda): x"),
            ("Nov 23 21:19:48 h kernel: [    1.500000] x", "kernel", "", "x"),
            ("[ERROR] x", "", "", "[ERROR] x"),
            ("[1.5] x", "", "", "[1.5] x"),
        ] {
            let record = plain(line.as_bytes(), RECEIVED);
            let found = (record.program.as_str(), record.field("pid").unwrap_or(""), record.text.as_str());
            assert_eq!(found, (program, pid, text), "{line}");
        }
        assert_eq!(plain(b"[  333.201122] x", RECEIVED).field("uptime"), Some("333.201122"));
    }

    #[test]
    fn what_the_rules_know_they_know_in_the_line_of_the_record_and_no_program_speaks_for_the_kernel() {
        let rules = Rules::standard();
        for rule in rules.iter() {
            for example in rule.examples {
                let record = plain(example.as_bytes(), RECEIVED);
                let found = rules.find(&record.line()).map(|found| found.rule.name);
                assert_eq!(found, Some(rule.name), "{example} -> {}", record.line());
                if rule.is_by_kernel() && rule.kind.is_evidence() {
                    let forged = format!("<13>1 - h {} - - - {}", "app".repeat(16), record.text);
                    let found =
                        rules.find(&syslog(forged.as_bytes(), RECEIVED).line()).map(|found| found.rule.name);
                    assert_ne!(found, Some(rule.name), "{forged}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_line_is_a_record_within_its_limits(
            line in "(\\[)?(2026-11-23[T ]21:19:48|7:M 23 Nov 2026 21:19:48|I1123 21:19:48| 1.123456\\]|261123 21:19:48)?.{0,60}",
            received in any::<i64>(),
        ) {
            let record = plain(line.as_bytes(), received);
            prop_assert!(record.text.len() <= line.len() * 3);
        }

        #[test]
        fn any_bytes_are_a_record(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(plain(&line, RECEIVED).text.len() <= 900);
        }
    }
}
