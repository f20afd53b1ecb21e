//! A block: some records of one owner in a row, as bytes.
//!
//! First the words that come again and again (subjects, sources, programs, rules, names of fields), each once, then
//! the records, with times and numbers as differences. The bytes are compressed as a whole. What is read back is
//! checked at each step: a block of a damaged disk is refused, and takes no more memory than a good one (I18).

use super::Stored;
use crate::disk::bytes::{BreaksOff, Bytes, number, signed};
use crate::logbook::SourceName;
use holdfast_core::lease::Incarnation;
use holdfast_core::subject::Subject;
use holdfast_core::time::Timestamp;
use holdfast_logs::{MOST_FIELDS, Record, Severity};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a block before it is compressed; none that is read may be larger.
pub const LARGEST: usize = 256 * 1024;
/// How hard zstd tries: beyond this it takes more time than it saves room.
const LEVEL: i32 = 3;
/// Stands for no severity.
const NO_SEVERITY: u8 = 15;

/// Why a block cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// It cannot be decompressed.
    #[error("it cannot be decompressed")]
    Compression(#[source] std::io::Error),
    /// Its bytes are not what was written.
    #[error("its checksum is wrong")]
    Checksum,
    /// Something in it cannot be.
    #[error("its content breaks off or cannot be")]
    Content,
}

impl From<BreaksOff> for BlockError {
    fn from(_: BreaksOff) -> Self {
        Self::Content
    }
}

/// Records as bytes, compressed.
pub fn pack(records: &[Stored]) -> std::io::Result<Vec<u8>> {
    let mut words = Words::default();
    let mut body = Vec::new();
    let mut before = Before::default();
    for record in records {
        write(&mut body, record, &mut before, &mut words);
    }
    let mut bytes = Vec::with_capacity(body.len() + 512);
    number(&mut bytes, words.list.len() as u64);
    for word in &words.list {
        text(&mut bytes, word);
    }
    number(&mut bytes, records.len() as u64);
    bytes.extend_from_slice(&body);
    zstd::bulk::compress(&bytes, LEVEL)
}

/// The bytes of a block, decompressed.
pub fn unpack(content: &[u8]) -> Result<Vec<u8>, BlockError> {
    zstd::bulk::decompress(content, LARGEST).map_err(BlockError::Compression)
}

/// What stood in the record before, to write only the difference.
#[derive(Clone, Copy, Default)]
struct Before {
    number: u64,
    at: u64,
    received: i64,
}

/// Words that come again, in the order of their first appearance.
#[derive(Default)]
struct Words {
    list: Vec<Arc<str>>,
    places: BTreeMap<Arc<str>, u64>,
}

impl Words {
    fn place(&mut self, word: &str) -> u64 {
        if let Some(place) = self.places.get(word) {
            return *place;
        }
        let (word, place) = (Arc::<str>::from(word), self.list.len() as u64);
        self.list.push(Arc::clone(&word));
        self.places.insert(word, place);
        place
    }
}

fn write(out: &mut Vec<u8>, stored: &Stored, before: &mut Before, words: &mut Words) {
    let Stored { number: own, subject, incarnation, source, at, received, severity, pattern, rule, record } =
        stored;
    number(out, own.wrapping_sub(before.number));
    signed(out, at.as_micros().wrapping_sub(before.at).cast_signed());
    signed(out, received.wrapping_sub(before.received));
    *before = Before { number: *own, at: at.as_micros(), received: *received };
    let subject = serde_json::to_string(subject).unwrap_or_default();
    number(out, words.place(&subject));
    number(out, words.place(source.as_str()));
    number(out, words.place(&record.program));
    number(out, words.place(rule.as_deref().unwrap_or_default()));
    number(out, incarnation.map_or(0, |incarnation| incarnation.0.wrapping_add(1)));
    number(out, *pattern);
    out.push(nibble(*severity) | nibble(record.severity) << 4);
    number(out, u64::from(record.time.is_some()) | u64::from(record.zone.is_some()) << 1);
    if let Some(time) = record.time {
        signed(out, time.wrapping_sub(*received));
    }
    if let Some(zone) = record.zone {
        signed(out, i64::from(zone));
    }
    text(out, &record.text);
    let fields = &record.fields[..record.fields.len().min(MOST_FIELDS)];
    number(out, fields.len() as u64);
    for (name, value) in fields {
        number(out, words.place(name));
        text(out, value);
    }
}

fn nibble(severity: Option<Severity>) -> u8 {
    severity.map_or(NO_SEVERITY, |severity| severity as u8)
}

fn text(out: &mut Vec<u8>, text: &str) {
    number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// One record as it lies in its block.
pub struct Lying<'b> {
    /// Its number.
    pub number: u64,
    /// When it was received, since boot.
    pub at: Timestamp,
    /// When it was received, in microseconds since 1970.
    pub received: i64,
    /// How bad it is.
    pub severity: Option<Severity>,
    /// Its pattern; 0 is none.
    pub pattern: u64,
    /// Its source.
    pub source: &'b str,
    /// Its text.
    pub text: &'b str,
    subject: &'b str,
    program: &'b str,
    pub rule: &'b str,
    incarnation: u64,
    said: Option<Severity>,
    time: Option<i64>,
    zone: Option<i16>,
    fields: Vec<(&'b str, &'b str)>,
}

impl Lying<'_> {
    /// The record, taken out of its block.
    pub fn stored(&self) -> Result<Stored, BlockError> {
        let subject: Subject = serde_json::from_str(self.subject).map_err(|_| BlockError::Content)?;
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Ok(Stored {
            number: self.number,
            subject,
            incarnation: self.incarnation.checked_sub(1).map(Incarnation),
            source: SourceName::new(self.source),
            at: self.at,
            received: self.received,
            severity: self.severity,
            pattern: self.pattern,
            rule: (!self.rule.is_empty()).then(|| self.rule.into()),
            record: Record {
                time: self.time,
                zone: self.zone,
                severity: self.said,
                program: self.program.to_owned(),
                text: self.text.to_owned(),
                fields: self.fields.iter().map(own).collect(),
            },
        })
    }
}

/// Shows each record of a block, in order, until `see` has seen enough (`false`).
pub fn read(
    bytes: &[u8],
    mut see: impl FnMut(&Lying<'_>) -> Result<bool, BlockError>,
) -> Result<(), BlockError> {
    let mut bytes = Bytes(bytes);
    let count = bytes.number()?;
    let mut words = Vec::new();
    for _ in 0..count {
        words.push(bytes.text()?); // each takes a byte at least: no more than the block is long
    }
    let mut before = Before::default();
    for _ in 0..bytes.number()? {
        let lying = lying(&mut bytes, &words, &mut before)?;
        if !see(&lying)? {
            break;
        }
    }
    Ok(())
}

fn lying<'b>(bytes: &mut Bytes<'b>, words: &[&'b str], before: &mut Before) -> Result<Lying<'b>, BlockError> {
    let word = |bytes: &mut Bytes<'b>| {
        let place = usize::try_from(bytes.number()?).map_err(|_| BlockError::Content)?;
        words.get(place).copied().ok_or(BlockError::Content)
    };
    let number = before.number.wrapping_add(bytes.number()?);
    let at = before.at.wrapping_add(bytes.signed()?.cast_unsigned());
    let received = before.received.wrapping_add(bytes.signed()?);
    *before = Before { number, at, received };
    let (subject, source, program, rule) = (word(bytes)?, word(bytes)?, word(bytes)?, word(bytes)?);
    let (incarnation, pattern) = (bytes.number()?, bytes.number()?);
    let severities = bytes.byte()?;
    let severity = |nibble: u8| Severity::ALL.get(usize::from(nibble)).copied();
    let flags = bytes.number()?;
    let time = if flags & 1 != 0 { Some(bytes.signed()?.wrapping_add(received)) } else { None };
    let zone = if flags & 2 != 0 { i16::try_from(bytes.signed()?).ok() } else { None };
    let text = bytes.text()?;
    let count = usize::try_from(bytes.number()?).ok().filter(|count| *count <= MOST_FIELDS);
    let mut fields = Vec::new();
    for _ in 0..count.ok_or(BlockError::Content)? {
        fields.push((word(bytes)?, bytes.text()?));
    }
    let at = Timestamp::from_micros(at);
    let (severity, said) = (severity(severities & 15), severity(severities >> 4));
    let known = Lying {
        number,
        at,
        received,
        severity,
        pattern,
        source,
        text,
        subject,
        program,
        rule,
        incarnation,
        said,
        time,
        zone,
        fields,
    };
    Ok(known)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stored() -> impl Strategy<Value = Stored> {
        let times = (any::<u64>(), any::<i64>(), any::<u64>(), any::<Option<i64>>(), any::<Option<i16>>());
        let texts = (".{0,80}", "[a-z]{0,4}", proptest::collection::vec(("[a-z]{1,3}", ".{0,9}"), 0..4));
        let rest = (0..8_usize, any::<u64>(), any::<bool>(), any::<Option<u64>>());
        (times, texts, rest).prop_map(
            |((at, received, number, time, zone), (text, program, fields), rest)| {
                let (severity, pattern, known, incarnation) = rest;
                Stored {
                    number,
                    subject: if known {
                        Subject::Host("atlas".parse().unwrap())
                    } else {
                        Subject::App("a".parse().unwrap(), "b".parse().unwrap())
                    },
                    incarnation: incarnation.map(|number| Incarnation(number / 2)),
                    source: SourceName::new("console"),
                    at: Timestamp::from_micros(at),
                    received,
                    severity: known.then_some(Severity::ALL[severity]),
                    pattern,
                    rule: known.then(|| "kernel-panic".into()),
                    record: Record {
                        time,
                        zone,
                        severity: (!known).then_some(Severity::ALL[severity]),
                        program,
                        text,
                        fields,
                    },
                }
            },
        )
    }

    fn all(bytes: &[u8]) -> Result<Vec<Stored>, BlockError> {
        let mut found = Vec::new();
        read(bytes, |lying| lying.stored().map(|stored| found.push(stored)).map(|()| true))?;
        Ok(found)
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_out_again(records in proptest::collection::vec(stored(), 0..20)) {
            let packed = pack(&records).unwrap();
            prop_assert_eq!(all(&unpack(&packed).unwrap()).unwrap(), records);
        }

        /// Whatever a disk makes of it (I18): refused or read, never more memory or time than a block takes.
        #[test]
        fn damaged_bytes_are_refused_or_read(records in proptest::collection::vec(stored(), 1..9), flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>()) {
            let mut bytes = unpack(&pack(&records).unwrap()).unwrap();
            for (at, with) in flips {
                let at = at.index(bytes.len());
                bytes[at] ^= with;
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            let _ = all(&bytes);
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
        assert!(bomb.len() < 64 << 10);
        assert!(matches!(unpack(&bomb), Err(BlockError::Compression(_))));
        let many = [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0; 64]].concat();
        assert!(matches!(all(&many), Err(BlockError::Content)));
    }
}
