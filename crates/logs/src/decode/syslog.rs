//! Syslog messages: RFC 5424, RFC 3164, what daemons of today write, and whatever else comes to that port.

use crate::clean::clean_text;
use crate::header::{Head, head};
use crate::record::{Record, Severity};

/// The facilities by their numbers (RFC 5424, section 6.2.1).
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];

/// The record of one packet, or of one message of a stream. It never fails: what is not understood is text.
///
/// A time without a year gets the one nearest to `received_micros` (microseconds since 1970). Fields: `host` (as the
/// sender claims), `facility`, `pid`, `msgid`, and structured data as `id.name`.
#[must_use]
pub fn syslog(packet: &[u8], received_micros: i64) -> Record {
    let packet = packet.strip_prefix(b"\xef\xbb\xbf").unwrap_or(packet);
    let text = clean_text(packet.trim_ascii_end());
    let mut record = Record::default();
    let message = match head(&text, received_micros) {
        Some(head) => {
            fill(&mut record, &head);
            &text[head.message..]
        }
        None => &text,
    };
    message.clone_into(&mut record.text);
    record
}

/// What stands before a message goes into its record.
pub(super) fn fill(record: &mut Record, head: &Head) {
    if let Some(priority) = head.priority {
        record.severity = Severity::from_syslog(priority % 8);
    }
    if let Some(stamp) = head.time {
        (record.time, record.zone) = (Some(stamp.micros), stamp.zone);
    }
    record.set_program(head.program.as_bytes());
    record.add_field("host", head.host.as_bytes());
    if let Some(name) = head.priority.and_then(|priority| FACILITIES.get(usize::from(priority / 8))) {
        record.add_field("facility", name.as_bytes());
    }
    record.add_field("pid", head.pid.as_bytes());
    record.add_field("msgid", head.id.as_bytes());
    elements(head.data, record);
}

/// `[id name="value" ...][...]` as fields. Where it is not so written, what follows is left out.
fn elements(data: &str, record: &mut Record) {
    let mut rest = data;
    while let Some(inner) = rest.strip_prefix('[') {
        let end = inner.find([' ', ']']).unwrap_or(inner.len());
        let id = &inner[..end];
        rest = inner[end..].trim_start();
        while let Some((name, behind)) = rest.split_once("=\"").filter(|_| !rest.starts_with(']')) {
            let Some((value, after)) = quoted(behind) else { return };
            record.add_field(&format!("{id}.{name}"), value.as_bytes());
            rest = after.trim_start();
        }
        rest = rest.strip_prefix(']').unwrap_or_default();
    }
}

/// A value up to its quote, without the marks that protect one, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match letters.next()? {
                (_, protected @ ('"' | '\\' | ']')) => value.push(protected),
                (_, other) => value.extend(['\\', other]),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::record::{LONGEST_TEXT, MOST_FIELDS};
    use proptest::prelude::*;

    const RECEIVED: i64 = 1_795_468_788_000_000; // 2026-11-23T21:19:48Z

    fn field<'a>(record: &'a Record, name: &str) -> &'a str {
        record.field(name).unwrap_or_default()
    }

    #[test]
    fn rfc_5424_is_read_with_its_fields() {
        let record = syslog(
            "<165>1 2003-10-11T22:14:15.003-07:00 db.example app 8710 ID47 [ex@32473 a=\"1\" b=\"x \\\"y\\\" \\]\"][o] \u{feff}An event\n"
                .as_bytes(),
            RECEIVED,
        );
        assert_eq!((record.time, record.zone), (Some(1_065_935_655_003_000), Some(-420)));
        assert_eq!((record.severity, record.program.as_str()), (Some(Severity::Notice), "app"));
        assert_eq!(record.text, "An event");
        let names = ["host", "facility", "pid", "msgid", "ex@32473.a", "ex@32473.b"];
        let values = ["db.example", "local4", "8710", "ID47", "1", "x \"y\" ]"];
        assert_eq!(names.map(|name| field(&record, name)), values);
        assert_eq!(record.fields.len(), 6);
    }

    #[test]
    fn rfc_3164_and_what_is_like_it() {
        for (packet, program, pid, host, text) in [
            ("<34>Nov 23 21:19:40 atlas su[9]: 'su root' failed", "su", "9", "atlas", "'su root' failed"),
            ("<13>Nov 23 21:19:40 su: no host", "su", "", "", "no host"),
            (
                "<6>2026-11-23T22:19:40+01:00 atlas kernel: EXT4-fs error",
                "kernel",
                "",
                "atlas",
                "EXT4-fs error",
            ),
            ("Nov 23 21:19:40 atlas cron[1]: no priority", "cron", "1", "atlas", "no priority"),
            (
                "<13>Nov 23 21:19:40 atlas last message repeated 2 times",
                "",
                "",
                "atlas",
                "last message repeated 2 times",
            ),
        ] {
            let record = syslog(packet.as_bytes(), RECEIVED);
            assert_eq!(record.time, Some(RECEIVED - 8_000_000), "{packet}");
            assert_eq!((record.program.as_str(), field(&record, "pid")), (program, pid), "{packet}");
            assert_eq!((field(&record, "host"), record.text.as_str()), (host, text), "{packet}");
        }
        let record = syslog(b"<13>app: hello", RECEIVED);
        assert_eq!((record.time, record.program.as_str(), record.text.as_str()), (None, "app", "hello"));
    }

    #[test]
    fn what_is_not_understood_is_text_a20() {
        for (packet, text) in [
            (&b"no priority"[..], "no priority"),
            (b"<999>Nov 23 21:19:40 h p: x", "<999>Nov 23 21:19:40 h p: x"),
            (b"<192>x", "<192>x"),
            (b"<-1>x", "<-1>x"),
            (b"<13", "<13"),
            (b"", ""),
            (b"\0\0\n", ""),
            (b"<13>\x1b[2J\x1b]0;owned\x07bell\0", "bell"),
            (b"\xef\xbb\xbf<13>with a mark", "with a mark"),
            (b"<13>1 2003-10-11T22:14:15Z h p - - [no end", "1 2003-10-11T22:14:15Z h p - - [no end"),
            (b"<13>\xff\xfe", "\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(syslog(packet, RECEIVED).text, text, "{packet:?}");
        }
        assert_eq!(syslog(b"<192>x", RECEIVED).severity, None);
        let evil = syslog(b"<13>Nov 23 21:19:40 other-vm\x1b[2J\x7f su: x", RECEIVED);
        assert_eq!(field(&evil, "host"), "other-vm");
        let long = syslog(&[b'x'; 1 << 16], RECEIVED);
        assert_eq!(long.text.len(), LONGEST_TEXT);
    }

    #[test]
    fn many_elements_cost_a_moment() {
        let many = "[a b=\"c\"]".repeat(1_700);
        let record = syslog(format!("<13>1 - - - - - {many} text").as_bytes(), RECEIVED);
        assert_eq!((record.fields.len(), record.text.as_str()), (MOST_FIELDS, "text"));
        for data in ["[", "[a", "[a b", "[a b=\"", "[]]]", "[a b=\"c\" d]", "[= =\"\"]"] {
            let _ = syslog(format!("<13>1 - - - - - {data} text").as_bytes(), RECEIVED);
        }
    }

    proptest! {
        #[test]
        fn any_packet_is_a_record_within_its_limits(
            packet in "(<[0-9]{1,4}>)?(1 )?((Oct 11 22:14:15|2026-11-23T21:19:48Z|-) )?(h )?(p(\\[9\\])?: )?(\\[[a= \"\\\\\\]]{0,9}\\])?.{0,80}",
            received in any::<i64>(),
        ) {
            let record = syslog(packet.as_bytes(), received);
            prop_assert!(record.text.len() <= LONGEST_TEXT && record.fields.len() <= MOST_FIELDS);
            prop_assert!(!record.text.chars().any(|letter| letter.is_control() && letter != '\n'));
        }

        #[test]
        fn any_bytes_are_a_record(packet in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(syslog(&packet, RECEIVED).time.is_none_or(|time| time.checked_abs().unwrap() < 1 << 60));
        }
    }
}
