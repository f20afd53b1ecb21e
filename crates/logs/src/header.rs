//! What syslog puts before a message: priority, time, host, program.

use crate::decode::time::{Stamp, iso, old};
use crate::decode::words::severity;

/// The greatest priority: facility 23, severity 7.
const MOST_PRIORITY: u8 = 191;

/// Bytes of a tag, `program[pid]`.
const LONGEST_TAG: usize = 64;

/// What was read before a message. What is not there is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    pub priority: Option<u8>,
    pub time: Option<Stamp>,
    pub host: &'a str,
    pub program: &'a str,
    pub pid: &'a str,
    /// The kind of message (RFC 5424).
    pub id: &'a str,
    /// Structured data (RFC 5424), as they are written.
    pub data: &'a str,
    /// Where the message starts.
    pub message: usize,
}

/// Where the message starts in a line of a syslog file or packet: behind what RFC 3164 (`<34>Oct 11 22:14:15
/// host su[9]: `), RFC 5424 (`<34>1 2003-10-11T22:14:15Z host su 9 ID47 - `) or the ISO form of today's
/// daemons (`2026-11-23T21:19:48.123+00:00 host su[9]: `) put before it. None if the line does not begin so.
#[must_use]
pub fn syslog_message(line: &str) -> Option<usize> {
    head(line, 0).map(|head| head.message)
}

/// What stands before the message, if the line begins so. A time without a year gets the one that is nearest to
/// `received`.
pub(crate) fn head(line: &str, received: i64) -> Option<Head<'_>> {
    let (priority, rest) = priority(line);
    let mut head = Head { priority, ..Head::default() };
    let body = if priority.is_some()
        && let Some(rest) = rest.strip_prefix("1 ")
        && let Some(body) = structured(rest, &mut head)
    {
        body
    } else if let Some((stamp, used)) = old(rest.as_bytes(), received) {
        head.time = Some(stamp);
        named(rest[used..].strip_prefix([' ', ':'])?.trim_start(), &mut head)
    } else if let Some((stamp, used)) = iso(rest.as_bytes()).filter(|_| rest.as_bytes()[10] == b'T') {
        head.time = Some(stamp);
        let body = named(rest[used..].strip_prefix(' ')?.trim_start(), &mut head);
        // without a priority it may be a file of any program, and the word behind the time no host
        (priority.is_some() || (!head.program.is_empty() && is_host(head.host))).then_some(body)?
    } else {
        priority?;
        tag(rest, &mut head).unwrap_or(rest)
    };
    head.message = line.len() - body.len();
    Some(head)
}

/// `<34>`, and what follows. A number that is no priority is text.
fn priority(line: &str) -> (Option<u8>, &str) {
    let read = || {
        let rest = line.strip_prefix('<')?;
        let end = rest.bytes().take(4).position(|byte| byte == b'>')?;
        let number =
            rest[..end].bytes().all(|byte| byte.is_ascii_digit()).then(|| rest[..end].parse().ok())??;
        (number <= MOST_PRIORITY).then(|| (Some(number), &rest[end + 1..]))
    };
    read().unwrap_or((None, line))
}

/// `host su[9]: `, `su[9]: ` or `host `.
fn named<'a>(rest: &'a str, head: &mut Head<'a>) -> &'a str {
    let Some((host, behind)) = rest.split_once(' ') else {
        return tag(rest, head).unwrap_or(rest);
    };
    if host.ends_with(':') {
        return tag(rest, head).unwrap_or(rest);
    }
    head.host = host;
    let behind = behind.trim_start();
    tag(behind, head).unwrap_or(behind)
}

/// Whether a word may be the name of a host, and is not how bad a line is, or a number.
fn is_host(word: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    word.bytes().all(fits) && !word.bytes().all(|byte| byte.is_ascii_digit()) && severity(word).is_none()
}

/// Behind `su[9]: `, if that stands here.
fn tag<'a>(text: &'a str, head: &mut Head<'a>) -> Option<&'a str> {
    let near = &text.as_bytes()[..text.len().min(LONGEST_TAG + 2)];
    let colon = near.iter().enumerate().position(|(at, byte)| {
        *byte == b':' && near.get(at + 1).is_none_or(|next| *next == b' ') && at + 1 < LONGEST_TAG + 2
    })?;
    let tag = &text[..colon];
    let blanks = tag.bytes().filter(|byte| *byte == b' ').count();
    let fits = (blanks == 0 && tag.len() <= 48) || (blanks <= 1 && tag.ends_with(']'));
    if tag.is_empty() || !fits {
        return None;
    }
    let pid = tag.strip_suffix(']').and_then(|tag| tag.rsplit_once('['));
    (head.program, head.pid) = pid.filter(|(program, _)| !program.is_empty()).unwrap_or((tag, ""));
    Some(text[colon + 1..].strip_prefix(' ').unwrap_or(&text[colon + 1..]))
}

/// Behind the fields and the structured data of RFC 5424.
fn structured<'a>(text: &'a str, head: &mut Head<'a>) -> Option<&'a str> {
    let mut words = text.splitn(6, ' ');
    let mut word = || words.next().map(|word| if word == "-" { "" } else { word });
    let (time, host, program, pid, id) = (word()?, word()?, word()?, word()?, word()?);
    let rest = words.next()?;
    let stamp = iso(time.as_bytes()).map(|(stamp, _)| stamp);
    if stamp.is_none() && !time.is_empty() {
        return None;
    }
    let end = match rest.strip_prefix('-') {
        Some(_) => 1,
        None => data(rest)?,
    };
    let data = if end == 1 { "" } else { &rest[..end] };
    *head = Head { priority: head.priority, time: stamp, host, program, pid, id, data, message: 0 };
    Some(rest[end..].trim_start().trim_start_matches('\u{feff}'))
}

/// The end of `[id name="value" ...][...]`.
fn data(rest: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    if !rest.starts_with('[') {
        return None;
    }
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b']' if !quoted && !rest[at + 1..].starts_with('[') => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(line: &str) -> Option<&str> {
        syslog_message(line).map(|at| &line[at..])
    }

    #[test]
    fn the_message_is_found_behind_every_form_of_head() {
        for (line, text) in [
            ("<34>Oct 11 22:14:15 mymachine su: 'su root' failed", Some("'su root' failed")),
            (
                "Oct  1 22:14:15 atlas sshd[910]: Accepted publickey for root",
                Some("Accepted publickey for root"),
            ),
            ("Nov 23 21:19:48 orders kernel: [   12.3] EXT4-fs error", Some("[   12.3] EXT4-fs error")),
            ("<165>1 2003-10-11T22:14:15.003Z host app 9 ID47 [a@1 b=\"c]d\"][e] An event", Some("An event")),
            ("<34>1 2003-10-11T22:14:15Z host su - ID47 - failed", Some("failed")),
            ("2026-11-23T21:19:48.123+00:00 atlas su[9]: failed", Some("failed")),
            ("<13>no time at all", Some("no time at all")),
            ("<13>Oct 11 22:14:15 su[9]: no host", Some("no host")),
            ("Oct 11 22:14:15 atlas last message repeated 3 times", Some("last message repeated 3 times")),
            ("<34>1 2003-10-11T22:14:15Z host su - - -", Some("")),
            ("<34>1 apple fell from the tree today", Some("1 apple fell from the tree today")),
            ("2026-11-23T21:19:48.123Z ERROR no syslog", None),
            ("2026-11-23T21:19:48.123Z ERROR app: no syslog", None),
            ("2026-11-23 21:19:48 UTC [61] LOG:  ready", None),
            ("<999>Oct 11 22:14:15 host su: no priority", None),
            ("<>x", None),
            ("Oct 11 22:14 is no time", None),
            ("plain text", None),
            ("", None),
        ] {
            assert_eq!(message(line), text, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_a_message_or_none(line in "(<[0-9]{1,4}>)?(1 )?(Oct 11 22:14:15 )?.{0,80}") {
            if let Some(at) = syslog_message(&line) {
                prop_assert!(line.is_char_boundary(at));
            }
        }
    }
}
