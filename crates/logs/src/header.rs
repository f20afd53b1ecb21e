//! What syslog puts before a message: priority, time, host, program.

use std::str::Bytes;

/// Where the message starts in a line of a syslog file or packet: behind what RFC 3164 (`<34>Oct 11 22:14:15
/// host su[9]: `), RFC 5424 (`<34>1 2003-10-11T22:14:15Z host su 9 ID47 - `) or the ISO form of today's
/// daemons (`2026-11-23T21:19:48.123+00:00 host su[9]: `) put before it. None if the line does not begin so.
#[must_use]
pub fn syslog_message(line: &str) -> Option<usize> {
    let (priority, rest) = match line.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        Some((number, rest)) if is_number(number, 3) => (true, rest),
        Some(_) | None => (false, line),
    };
    let body = if priority && let Some(rest) = rest.strip_prefix("1 ") {
        structured(rest)?
    } else {
        let after_time = old_time(rest).or_else(|| iso_time(rest));
        match after_time {
            Some(rest) => tag(skip_word(rest)?),
            None if priority => tag(rest),
            None => return None,
        }
    };
    Some(line.len() - body.len())
}

fn is_number(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Behind `Oct 11 22:14:15 `.
fn old_time(text: &str) -> Option<&str> {
    const MONTHS: &str = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec";
    let month = text.get(..4)?;
    let is_month = month.ends_with(' ') && MONTHS.split(' ').any(|name| name == month.trim_end());
    let day = text.get(4..7)?;
    let is_day = day.ends_with(' ') && is_number(day.trim(), 2);
    (is_month && is_day && is_clock(text.get(7..15)?)).then(|| text.get(15..)?.strip_prefix(' '))?
}

fn is_clock(text: &str) -> bool {
    let shape = |(at, byte): (usize, u8)| if at % 3 == 2 { byte == b':' } else { byte.is_ascii_digit() };
    text.len() == 8 && text.bytes().enumerate().all(shape)
}

/// Behind `2026-11-23T21:19:48.123+00:00 `.
fn iso_time(text: &str) -> Option<&str> {
    let (time, rest) = text.split_once(' ')?;
    let date = time.get(..11)?;
    let shape = |(at, byte): (usize, u8)| match at {
        4 | 7 => byte == b'-',
        10 => byte == b'T',
        _ => byte.is_ascii_digit(),
    };
    let zone = |mut rest: Bytes<'_>| rest.all(|byte| byte.is_ascii_digit() || b"+-:.Z".contains(&byte));
    let fits =
        date.bytes().enumerate().all(shape) && is_clock(time.get(11..19)?) && zone(time.get(19..)?.bytes());
    fits.then_some(rest)
}

fn skip_word(text: &str) -> Option<&str> {
    text.split_once(' ').map(|(_, rest)| rest.trim_start())
}

/// Behind `su[9]: `, if that stands here.
fn tag(text: &str) -> &str {
    match text.split_once(": ") {
        Some((tag, rest)) if tag.len() <= 48 && !tag.contains(' ') => rest,
        Some((tag, rest)) if tag.len() <= 64 && tag.ends_with(']') && tag.matches(' ').count() <= 1 => rest,
        Some(_) | None => text,
    }
}

/// Behind the fields and the structured data of RFC 5424.
fn structured(text: &str) -> Option<&str> {
    let rest = (0..5).try_fold(text, |rest, _| rest.split_once(' ').map(|(_, rest)| rest))?;
    if let Some(rest) = rest.strip_prefix('-') {
        return Some(rest.trim_start().trim_start_matches('\u{feff}'));
    }
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b']' if !quoted && !rest[at + 1..].starts_with('[') => {
                return Some(rest[at + 1..].trim_start().trim_start_matches('\u{feff}'));
            }
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
