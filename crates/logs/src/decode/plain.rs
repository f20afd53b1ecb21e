//! Lines of any program's file or console: the time that stands before them, and how bad they say they are.

use super::syslog::fill;
use super::time::{self, Stamp};
use super::words;
use crate::clean::clean_text;
use crate::header::head;
use crate::record::{Record, Severity};

/// The record of one line. A time at its start is taken from the text: ISO 8601 and its like (also behind `[`),
/// Redis', klog's, MySQL's, the kernel's seconds since it started (field `uptime`), and what syslog puts before a message.
/// How bad it is comes from known words in known places only. A time without a year gets the one nearest to
/// `received_micros` (microseconds since 1970).
#[must_use]
pub fn plain(line: &[u8], received_micros: i64) -> Record {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let line = clean_text(line);
    let mut record = Record::default();
    let text = match head(&line, received_micros) {
        Some(head) => {
            fill(&mut record, &head);
            &line[head.message..]
        }
        None => &line,
    };
    let text = before(text, &mut record, received_micros);
    if record.severity.is_none() {
        record.severity = words::of_line(text, record.time.is_some());
    }
    text.clone_into(&mut record.text);
    record
}

/// Takes what a program itself puts before its message; gives back the message.
fn before<'a>(text: &'a str, record: &mut Record, received: i64) -> &'a str {
    if let Some(rest) = kernel(text, record) {
        return rest;
    }
    redis(text, record)
        .or_else(|| klog(text, record, received))
        .or_else(|| dated(text, record))
        .unwrap_or(text)
}

fn set_time(record: &mut Record, stamp: Stamp) {
    if record.time.is_none() || record.zone.is_none() {
        (record.time, record.zone) = (Some(stamp.micros), stamp.zone);
    }
}

fn set_pid(record: &mut Record, pid: &str) {
    if record.field("pid").is_none() {
        record.add_field("pid", pid.as_bytes());
    }
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// `[   12.345678] text`, `[  333.201122][  T123] text`. What a program wrote through the kernel names it.
fn kernel<'a>(text: &'a str, record: &mut Record) -> Option<&'a str> {
    let inner = text.strip_prefix('[')?.trim_start();
    let (whole, fraction) = (digits(inner), digits(inner.get(digits(inner) + 1..)?));
    let end = whole + 1 + fraction;
    if whole == 0 || fraction != 6 || inner.as_bytes().get(whole) != Some(&b'.') {
        return None;
    }
    let mut rest = inner[end..].strip_prefix(']')?;
    if let Some((_, behind)) =
        rest.strip_prefix('[').and_then(|rest| rest.split_once("] ")).filter(|(by, _)| by.len() < 12)
    {
        rest = behind;
    }
    record.add_field("uptime", &inner.as_bytes()[..end]);
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    if !record.program.is_empty() {
        return Some(rest);
    }
    let tag = rest
        .split_once(": ")
        .and_then(|(tag, behind)| Some((tag.strip_suffix(']')?.split_once('[')?, behind)));
    match tag.filter(|((name, pid), _)| !name.contains(' ') && name.len() <= 48 && digits(pid) == pid.len()) {
        Some(((name, pid), behind)) if !name.is_empty() => {
            record.set_program(name.as_bytes());
            set_pid(record, pid);
            Some(behind)
        }
        Some(_) | None => {
            record.set_program(b"kernel");
            Some(rest)
        }
    }
}

/// `771:M 23 Nov 2026 21:19:48.000 # text`. It stays whole, as who speaks in it matters.
fn redis<'a>(text: &'a str, record: &mut Record) -> Option<&'a str> {
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
    record.severity = record.severity.or(Some(severity));
    set_time(record, stamp);
    set_pid(record, &text[..pid]);
    if record.program.is_empty() {
        record.set_program(b"redis");
    }
    Some(text)
}

/// `E1123 21:19:48.123456    1234 file.go:12] text`.
fn klog<'a>(text: &'a str, record: &mut Record, received: i64) -> Option<&'a str> {
    let severity = match text.as_bytes().first()? {
        b'I' => Severity::Info,
        b'W' => Severity::Warning,
        b'E' => Severity::Error,
        b'F' => Severity::Critical,
        _ => return None,
    };
    let (stamp, used) = time::short(text.as_bytes().get(1..)?, received)?;
    let rest = text[1 + used..].strip_prefix(' ')?.trim_start();
    set_time(record, stamp);
    set_pid(record, &rest[..digits(rest)]);
    record.severity = record.severity.or(Some(severity));
    Some(rest[digits(rest)..].trim_start())
}

/// `2026-11-23 21:19:48.123 UTC [61] text`, `[2026-11-23T21:19:48Z] text`, `261123 21:19:48 text`.
fn dated<'a>(text: &'a str, record: &mut Record) -> Option<&'a str> {
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
    set_time(record, stamp);
    let rest = rest.trim_start_matches([' ', '|', ':']);
    let pid = rest.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    match pid.filter(|(pid, _)| is_pid(pid)) {
        Some((pid, behind)) => {
            set_pid(record, &pid[..digits(pid)]);
            Some(behind.trim_start())
        }
        None => Some(rest),
    }
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
