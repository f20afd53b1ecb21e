//! Entries of systemd's journal, one JSON object a line, as `journalctl -o json` writes them.

use super::time::Stamp;
use crate::record::{LONGEST_TEXT, Record, Severity};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Bytes of an entry.
pub const LONGEST_ENTRY: usize = 1 << 20;

/// Bytes of a cursor.
const LONGEST_CURSOR: usize = 256;

/// What the journal itself says about an entry, and how that is called here.
const TOLD: [(&str, &str); 10] = [
    ("_HOSTNAME", "host"),
    ("_PID", "pid"),
    ("_SYSTEMD_UNIT", "unit"),
    ("_SYSTEMD_USER_UNIT", "user_unit"),
    ("_TRANSPORT", "transport"),
    ("_UID", "uid"),
    ("_COMM", "comm"),
    ("_EXE", "exe"),
    ("_BOOT_ID", "boot"),
    ("MESSAGE_ID", "msgid"),
];

/// Fields that say again what is said already.
const REPEATED: [&str; 5] = ["SYSLOG_TIMESTAMP", "SYSLOG_FACILITY", "SYSLOG_RAW", "SYSLOG_PID", "TID"];

/// One entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalRecord {
    /// What was said.
    pub record: Record,
    /// Where the journal goes on behind it: of letters that a cursor has, so that it may be given to `journalctl`
    /// as one argument.
    pub cursor: Option<String>,
}

/// Why a line is no entry.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It is too long.
    #[error("a journal entry of {bytes} bytes is longer than {LONGEST_ENTRY}")]
    Long {
        /// How long.
        bytes: usize,
    },
    /// It is not a JSON object.
    #[error("a line is not a journal entry as `journalctl -o json` writes it")]
    Json(#[from] serde_json::Error),
}

/// The record of one line of `journalctl -o json`. Fields: `host`, `pid`, `unit`, `transport`, `msgid` and their like,
/// then what the program itself added, under its own names.
///
/// # Errors
/// If the line is longer than [`LONGEST_ENTRY`], or not a JSON object.
pub fn journal(line: &[u8]) -> Result<JournalRecord, JournalError> {
    if line.len() > LONGEST_ENTRY {
        return Err(JournalError::Long { bytes: line.len() });
    }
    Ok(serde_json::from_slice::<Entry>(line)?.0)
}

/// An entry as it is written.
struct Entry(JournalRecord);

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Entry;

    fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
        to.write_str("an object of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let mut found = JournalRecord::default();
        let (mut others, mut comm) = (Record::default(), None);
        while let Some(name) = map.next_key::<std::borrow::Cow<str>>()? {
            let is_own = !name.starts_with('_') && !REPEATED.contains(&&*name);
            let known = TOLD.iter().find(|(journal, _)| *journal == name).map(|(_, ours)| *ours);
            let is_read = name.starts_with("__REALTIME") || name == "__CURSOR" || known.is_some() || is_own;
            if !is_read {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let Bytes(value) = map.next_value()?;
            match (&*name, known) {
                ("MESSAGE", _) => found.record.set_text(&value),
                ("PRIORITY", _) => found.record.severity = severity(&value),
                ("SYSLOG_IDENTIFIER", _) => found.record.set_program(&value),
                ("__REALTIME_TIMESTAMP", _) => set_time(&mut found.record, &value),
                ("__CURSOR", _) => found.cursor = cursor(value),
                (_, Some(ours)) => {
                    if ours == "comm" {
                        comm = Some(value.clone());
                    }
                    found.record.add_field(ours, &value);
                }
                (name, None) => others.add_field(name, &value),
            }
        }
        if let Some(comm) = comm.filter(|_| found.record.program.is_empty()) {
            found.record.set_program(&comm);
        }
        for (name, value) in others.fields {
            found.record.add_field(&name, value.as_bytes());
        }
        Ok(Entry(found))
    }
}

fn severity(value: &[u8]) -> Option<Severity> {
    match value {
        [digit @ b'0'..=b'7'] => Severity::from_syslog(digit - b'0'),
        _ => None,
    }
}

/// The journal writes the time since 1970 in UTC.
fn set_time(record: &mut Record, value: &[u8]) {
    let micros = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    let stamp =
        micros.filter(|micros| (1..1 << 53).contains(micros)).map(|micros| Stamp { micros, zone: Some(0) });
    (record.time, record.zone) = (stamp.map(|stamp| stamp.micros), stamp.and_then(|stamp| stamp.zone));
}

fn cursor(value: Vec<u8>) -> Option<String> {
    let is_fine = |byte: &u8| byte.is_ascii_alphanumeric() || b"=;:_.".contains(byte);
    let fits = (1..=LONGEST_CURSOR).contains(&value.len()) && value.iter().all(is_fine);
    String::from_utf8(value).ok().filter(|_| fits)
}

/// A value: a string, the numbers of its bytes where it is not text, null where it is too long for `journalctl`,
/// or several of these, of which the first counts.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Self::default())
    }
}

impl<'de> Visitor<'de> for Bytes {
    type Value = Self;

    fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
        to.write_str("a string, bytes or null")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self, E> {
        Ok(Self(text.as_bytes()[..text.floor_char_boundary(LONGEST_TEXT)].to_vec()))
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self, E> {
        Ok(Self(number.to_string().into_bytes()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self, E> {
        Ok(Self(number.to_string().into_bytes()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut values: A) -> Result<Self, A::Error> {
        let mut is_first = true;
        while let Some(item) = values.next_element::<Item>()? {
            match item {
                Item::Byte(byte) if self.0.len() < LONGEST_TEXT => self.0.push(byte),
                Item::Value(value) if is_first => self = value,
                Item::Byte(_) | Item::Value(_) => {}
            }
            is_first = false;
        }
        Ok(self)
    }
}

/// One of several: a byte of a value, or a value of a field that was given more than once.
enum Item {
    Byte(u8),
    Value(Bytes),
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ItemVisitor)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
        to.write_str("a byte or a value")
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Item, E> {
        u8::try_from(number).map(Item::Byte).map_err(|_| E::custom("a byte is at most 255"))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Item, E> {
        Bytes::default().visit_str(text).map(Item::Value)
    }

    fn visit_unit<E>(self) -> Result<Item, E> {
        Ok(Item::Value(Bytes::default()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Item, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = values.next_element::<u8>()? {
            if bytes.len() < LONGEST_TEXT {
                bytes.push(byte);
            }
        }
        Ok(Item::Value(Bytes(bytes)))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_entry_is_read_with_its_cursor() {
        let line = br#"{"__CURSOR":"s=ab;i=1f;b=cd;m=2e;t=64;x=9","__REALTIME_TIMESTAMP":"1795468788000001",
            "__MONOTONIC_TIMESTAMP":"5","_BOOT_ID":"cd","PRIORITY":"3","_TRANSPORT":"stdout","_PID":"61",
            "_COMM":"postgres","_SYSTEMD_UNIT":"pg.service","_CAP_EFFECTIVE":"0","_HOSTNAME":"orders",
            "SYSLOG_IDENTIFIER":"pg","CODE_FILE":"a.c","MESSAGE":"it failed\nhere"}"#;
        let JournalRecord { record, cursor } = journal(line).unwrap();
        assert_eq!(cursor.as_deref(), Some("s=ab;i=1f;b=cd;m=2e;t=64;x=9"));
        assert_eq!((record.time, record.zone), (Some(1_795_468_788_000_001), Some(0)));
        assert_eq!((record.severity, record.program.as_str()), (Some(Severity::Error), "pg"));
        assert_eq!(record.text, "it failed\nhere");
        let names = ["host", "pid", "unit", "transport", "boot", "CODE_FILE", "_CAP_EFFECTIVE"];
        let values = names.map(|name| record.field(name).unwrap_or("-"));
        assert_eq!(values, ["orders", "61", "pg.service", "stdout", "cd", "a.c", "-"]);
    }

    #[test]
    fn a_message_may_be_bytes_several_or_nothing() {
        for (value, text) in [
            ("\"plain\"", "plain"),
            ("[104,105,0,255,27,91,50,74]", "hi\u{fffd}"),
            ("[\"one\",\"two\"]", "one"),
            ("[[104,105],[106]]", "hi"),
            ("[null,\"two\"]", ""),
            ("null", ""),
            ("[]", ""),
            ("7", "7"),
        ] {
            let line = format!("{{\"MESSAGE\":{value},\"_COMM\":\"su\"}}");
            let record = journal(line.as_bytes()).unwrap().record;
            assert_eq!((record.text.as_str(), record.program.as_str()), (text, "su"), "{value}");
        }
    }

    #[test]
    fn what_is_no_entry_is_refused_and_no_cursor_can_hurt() {
        for line in [
            "",
            "{",
            "[]",
            "null",
            "{\"MESSAGE\":[256]}",
            "{\"MESSAGE\":[-1]}",
            "{\"MESSAGE\":{}}",
            "{\"a\":1e999}",
        ] {
            assert!(journal(line.as_bytes()).is_err(), "{line}");
        }
        let deep = format!("{{\"_X\":{}", "[".repeat(100_000));
        assert!(journal(deep.as_bytes()).is_err());
        assert!(matches!(journal(&vec![b' '; LONGEST_ENTRY + 1]), Err(JournalError::Long { .. })));
        for cursor in ["", "--file=/etc/shadow", "a b", "a\\nb", "é", &"x".repeat(257)] {
            assert_eq!(
                journal(format!("{{\"__CURSOR\":\"{cursor}\"}}").as_bytes()).unwrap().cursor,
                None,
                "{cursor}"
            );
        }
        for time in ["0", "-5", "18446744073709551615", "x", "9223372036854775807"] {
            let line = format!("{{\"__REALTIME_TIMESTAMP\":\"{time}\"}}");
            assert_eq!(journal(line.as_bytes()).unwrap().record.time, None, "{time}");
        }
    }

    #[test]
    fn a_long_message_is_cut() {
        let numbers = "120,".repeat(200_000);
        for value in [format!("\"{}\"", "é".repeat(100_000)), format!("[{}1]", numbers)] {
            let record = journal(format!("{{\"MESSAGE\":{value}}}").as_bytes()).unwrap().record;
            assert!((LONGEST_TEXT - 3..=LONGEST_TEXT).contains(&record.text.len()));
        }
    }

    proptest! {
        #[test]
        fn any_line_is_an_entry_or_refused(line in "\\{(\"(MESSAGE|PRIORITY|__CURSOR|X)\":(\"[^\"]{0,9}\"|[0-9]{1,3}|\\[[0-9,\"\\[\\]]{0,9}\\]|null),?){0,4}\\}") {
            if let Ok(entry) = journal(line.as_bytes()) {
                prop_assert!(entry.record.text.len() <= LONGEST_TEXT);
            }
        }
    }
}
