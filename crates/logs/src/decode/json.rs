//! Lines that are JSON objects, as today's programs write them: slog, zap, zerolog, logrus, pino, bunyan, log4j2, tracing,
//! PostgreSQL's jsonlog, and the files of Docker.

use super::plain::plain;
use super::time::{Stamp, iso};
use super::words;
use crate::record::{LONGEST_FIELD, LONGEST_TEXT, Record, Severity};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// Bytes of a line that is read as JSON.
pub const LONGEST_OBJECT: usize = 64 << 10;

/// Values of an object that are looked at, and how deep they lie.
const MOST_LEAVES: usize = 64;
const DEEPEST: usize = 4;

/// What programs call their message, the best first.
const MESSAGES: [&str; 9] =
    ["message", "msg", "@message", "@m", "short_message", "fields.message", "@mt", "event", "log"];
/// What they call the time.
const TIMES: [&str; 10] =
    ["time", "timestamp", "@timestamp", "ts", "@t", "t", "datetime", "asctime", "timeMillis", "eventTime"];
/// What they call how bad it is.
const LEVELS: [&str; 8] =
    ["level", "severity", "log.level", "lvl", "@l", "levelname", "loglevel", "error_severity"];
/// What they call themselves.
const PROGRAMS: [&str; 6] = ["program", "app", "appname", "service.name", "service", "name"];
/// What a trace of the stack is called at the end of its name.
const TRACES: [&str; 5] = ["stack", "stack_trace", "stacktrace", "exc_info", "extendedStackTrace"];
/// Who says what stands in a line of JSON that names nobody. It is never the kernel (I17).
const NOBODY: &str = "json";

/// What a value in an object is.
#[derive(Clone, Debug, PartialEq)]
enum Leaf {
    Text(String),
    Whole(i64),
    Real(f64),
}

impl Leaf {
    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Whole(number) => Cow::Owned(number.to_string()),
            Self::Real(number) => Cow::Owned(number.to_string()),
        }
    }

    /// A time: text, or seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their size.
    fn stamp(&self) -> Option<Stamp> {
        let utc = |micros| Some(Stamp { micros, zone: Some(0) });
        match self {
            Self::Text(text) => {
                let number = || text.parse().ok().and_then(|number| Self::Whole(number).stamp());
                iso(text.as_bytes()).map(|(stamp, _)| stamp).or_else(number)
            }
            Self::Whole(number) => match number {
                100_000_000..100_000_000_000 => utc(number * 1_000_000),
                100_000_000_000..100_000_000_000_000 => utc(number * 1_000),
                100_000_000_000_000..100_000_000_000_000_000 => utc(*number),
                100_000_000_000_000_000.. => utc(number / 1_000),
                _ => None,
            },
            Self::Real(number) if (1e8..1e11).contains(number) => utc((number * 1e6).round() as i64),
            Self::Real(number) if number.abs() < 1e19 => Self::Whole(*number as i64).stamp(),
            Self::Real(_) => None,
        }
    }

    /// How bad: a word, also slog's `ERROR+2`; a number of syslog (0 to 7), or of pino and bunyan (10 to 60).
    fn severity(&self) -> Option<Severity> {
        match self {
            Self::Text(text) => {
                let word = text.split(['+', '-']).next().unwrap_or(text).trim();
                let number = || text.parse().ok().and_then(|number| Self::Whole(number).severity());
                match word {
                    "dpanic" | "DPANIC" => Some(Severity::Critical),
                    word => words::severity(word).or_else(number),
                }
            }
            Self::Whole(number) => match number {
                0..=7 => u8::try_from(*number).ok().and_then(Severity::from_syslog),
                10..30 => Some(Severity::Debug),
                30..40 => Some(Severity::Info),
                40..50 => Some(Severity::Warning),
                50..60 => Some(Severity::Error),
                60..=100 => Some(Severity::Critical),
                _ => None,
            },
            Self::Real(number) if number.fract() == 0.0 && number.abs() < 1e3 => {
                Self::Whole(*number as i64).severity()
            }
            Self::Real(_) => None,
        }
    }
}

/// The values of an object, by their names: those within others with a dot.
type Leaves = Vec<(String, Leaf)>;

/// The record of a line that is a JSON object with a message, and with a time or a severity. `None` if it is not: then it is a
/// line like any other.
#[must_use]
pub fn json(line: &[u8], received_micros: i64) -> Option<Record> {
    json_of(line, received_micros).filter(|record| record.time.is_some() || record.severity.is_some())
}

/// The same of a line of a log that is said to be of JSON objects: it needs no more than a message.
#[must_use]
pub fn json_of(line: &[u8], received_micros: i64) -> Option<Record> {
    let leaves = leaves(line)?;
    docker(&leaves, received_micros).or_else(|| of_leaves(&leaves))
}

/// What is behind the head of syslog, or came alone: a JSON object in place of a message is read.
pub(super) fn within(mut record: Record) -> Record {
    let inner = if record.text.starts_with('{') { leaves(record.text.as_bytes()) } else { None };
    let Some(inner) = inner.as_ref().and_then(of_leaves) else { return record };
    record.text = inner.text;
    record.severity = inner.severity.or(record.severity);
    if record.time.is_none() || (record.zone.is_none() && inner.zone.is_some()) {
        (record.time, record.zone) = (inner.time.or(record.time), inner.zone.or(record.zone));
    }
    inner.fields.iter().for_each(|(name, value)| record.add_field(name, value.as_bytes()));
    record
}

fn leaves(line: &[u8]) -> Option<Leaves> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii();
    if line.len() > LONGEST_OBJECT || !line.starts_with(b"{") || !line.ends_with(b"}") {
        return None;
    }
    let mut leaves = Vec::new();
    let mut from = serde_json::Deserializer::from_slice(line);
    from.deserialize_map(Object { name: "", depth: 1, leaves: &mut leaves }).ok()?;
    from.end().ok().map(|()| leaves)
}

fn find<'a>(leaves: &'a Leaves, names: &[&str]) -> Option<(usize, &'a Leaf)> {
    let place = |name: &&str| leaves.iter().position(|(known, _)| known == *name);
    names.iter().find_map(place).map(|place| (place, &leaves[place].1))
}

/// `{"log":"text\n","stream":"stderr","time":"..."}`: what a container wrote on one of its streams.
fn docker(leaves: &Leaves, received: i64) -> Option<Record> {
    let (_, stream) = find(leaves, &["stream"])?;
    let (_, Leaf::Text(text)) = find(leaves, &["log"])? else { return None };
    let stamp = find(leaves, &["time"])?.1.stamp()?;
    let text = text.trim_end().as_bytes();
    let mut record = self::leaves(text).as_ref().and_then(of_leaves).unwrap_or_else(|| plain(text, received));
    if record.program.is_empty() || record.program == "kernel" {
        record.program = NOBODY.to_owned();
    }
    (record.time, record.zone) = (Some(stamp.micros), stamp.zone); // the daemon's clock, rather than the container's
    record.add_field("stream", stream.text().as_bytes());
    Some(record)
}

fn of_leaves(leaves: &Leaves) -> Option<Record> {
    let mut used = Vec::new();
    let mut record = Record::default();
    let is_text = |names: &[&str]| {
        names.iter().find_map(|name| find(leaves, &[name]).filter(|(_, leaf)| matches!(leaf, Leaf::Text(_))))
    };
    let (place, message) = is_text(&MESSAGES)?;
    used.push(place);
    let times = TIMES.iter().filter_map(|name| find(leaves, &[name]));
    let mut times = times.filter_map(|(place, leaf)| Some((place, leaf.stamp()?)));
    if let Some((place, stamp)) = times.next() {
        used.push(place);
        (record.time, record.zone) = (Some(stamp.micros), stamp.zone);
    } else if let Some((place, Leaf::Whole(second))) = find(leaves, &["instant.epochSecond"]) {
        used.push(place); // log4j2's own
        let nanos = find(leaves, &["instant.nanoOfSecond"]).map_or(0, |(_, leaf)| match leaf {
            Leaf::Whole(nanos) => *nanos,
            Leaf::Text(_) | Leaf::Real(_) => 0,
        });
        let stamp = Leaf::Whole(*second).stamp();
        record.time = stamp.map(|stamp| stamp.micros.saturating_add(nanos / 1_000));
        record.zone = stamp.and_then(|stamp| stamp.zone);
    }
    let levels = LEVELS.iter().filter_map(|name| find(leaves, &[name]));
    if let Some((place, severity)) = levels.filter_map(|(place, leaf)| Some((place, leaf.severity()?))).next()
    {
        used.push(place);
        record.severity = Some(severity);
    }
    let name = is_text(&PROGRAMS).filter(|(_, name)| name.text() != "kernel");
    used.extend(name.map(|(place, _)| place));
    record.set_program(name.map_or(Cow::Borrowed(NOBODY), |(_, name)| name.text()).as_bytes());
    let mut text = String::new();
    if let Some((_, level)) = find(leaves, &["error_severity"]) {
        // as PostgreSQL's other logs have it; what is fatal there ends one session
        text = format!("{}:  ", level.text());
        record.severity = words::of_line(&text, false).or(record.severity);
    }
    text += &message.text();
    for (place, (name, leaf)) in leaves.iter().enumerate() {
        let last = name.rsplit('.').next().unwrap_or(name);
        if used.contains(&place) {
            continue;
        } else if TRACES.contains(&last) && leaf.text().contains('\n') {
            text.push('\n');
            text += &leaf.text();
        } else {
            record.add_field(name.strip_prefix("fields.").unwrap_or(name), leaf.text().as_bytes());
        }
    }
    record.set_text(text.trim_end().as_bytes());
    let cut = record.text.floor_char_boundary(LONGEST_TEXT);
    record.text.truncate(cut);
    (!record.text.is_empty()).then_some(record)
}

/// An object at some depth, whose values go among the leaves.
struct Object<'a> {
    name: &'a str,
    depth: usize,
    leaves: &'a mut Leaves,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl Object<'_> {
    fn add<E: Error>(self, leaf: Leaf) -> Result<(), E> {
        if self.leaves.len() < MOST_LEAVES {
            self.leaves.push((self.name.to_owned(), leaf));
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
        to.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<str>>()? {
            if self.depth > DEEPEST || self.leaves.len() >= MOST_LEAVES {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let key = &key[..key.floor_char_boundary(LONGEST_FIELD)];
            let name = if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) };
            map.next_value_seed(Object { name: &name, depth: self.depth + 1, leaves: self.leaves })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        let (mut list, mut inner) = (String::new(), Vec::new());
        while list.len() < LONGEST_FIELD
            && values
                .next_element_seed(Object { name: "", depth: DEEPEST + 1, leaves: &mut inner })?
                .is_some()
        {
            for (_, leaf) in inner.drain(..) {
                list += if list.is_empty() { "" } else { "," };
                list += &leaf.text();
            }
        }
        while values.next_element::<IgnoredAny>()?.is_some() {}
        self.add(Leaf::Text(list))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let text = text[..text.floor_char_boundary(LONGEST_TEXT)].to_owned();
        self.add(Leaf::Text(text))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.add(Leaf::Whole(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.add(i64::try_from(number).map_or(Leaf::Real(number as f64), Leaf::Whole))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.add(Leaf::Real(number))
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<(), E> {
        self.add(Leaf::Text(truth.to_string()))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::auto;
    use super::*;
    use crate::Rules;
    use proptest::prelude::*;

    const RECEIVED: i64 = 1_795_468_788_000_000; // 2026-11-23T21:19:48Z

    fn read(line: &str) -> Record {
        json(line.as_bytes(), 0).unwrap_or_else(|| panic!("{line}"))
    }

    #[test]
    fn each_writer_of_json_lines_is_understood() {
        use Severity::{Critical, Debug, Error, Info, Warning};
        for (line, severity, program, text, field) in [
            (
                r#"{"time":"2026-11-23T21:19:48Z","level":"ERROR+2","msg":"no disk","free":0}"#,
                Error,
                "json",
                "no disk",
                ("free", "0"),
            ), // slog
            (
                r#"{"level":"dpanic","ts":1795468788.0,"logger":"a","caller":"b.go:7","msg":"no disk"}"#,
                Critical,
                "json",
                "no disk",
                ("caller", "b.go:7"),
            ), // zap
            (
                r#"{"level":"warn","time":1795468788,"message":"no disk"}"#,
                Warning,
                "json",
                "no disk",
                ("", ""),
            ), // zerolog
            (
                r#"{"level":"warning","msg":"no disk","time":"2026-11-23T22:19:48+01:00"}"#,
                Warning,
                "json",
                "no disk",
                ("", ""),
            ), // logrus
            (
                r#"{"level":30,"time":1795468788000,"pid":7,"hostname":"h","msg":"no disk"}"#,
                Info,
                "json",
                "no disk",
                ("hostname", "h"),
            ), // pino
            (
                r#"{"name":"app","level":50,"msg":"no disk","time":"2026-11-23T21:19:48.000Z","v":0}"#,
                Error,
                "app",
                "no disk",
                ("v", "0"),
            ), // bunyan
            (
                r#"{"instant":{"epochSecond":1795468788,"nanoOfSecond":0},"thread":"main","level":"FATAL","loggerName":"a.B","message":"no disk"}"#,
                Critical,
                "json",
                "no disk",
                ("loggerName", "a.B"),
            ), // log4j2
            (
                r#"{"timestamp":"2026-11-23T21:19:48.000000Z","level":"DEBUG","fields":{"message":"no disk","n":7},"target":"a::b"}"#,
                Debug,
                "json",
                "no disk",
                ("n", "7"),
            ), // tracing
            (
                r#"{"@timestamp":"2026-11-23T21:19:48.000Z","log.level":"error","message":"no disk","service":{"name":"app"}}"#,
                Error,
                "app",
                "no disk",
                ("", ""),
            ), // ECS
            (
                r#"{"timestamp":"2026-11-23 21:19:48.000 UTC","pid":61,"error_severity":"FATAL","message":"no disk"}"#,
                Error,
                "json",
                "FATAL:  no disk",
                ("pid", "61"),
            ), // PostgreSQL
            (
                r#"{"log":"ERROR: no disk\n","stream":"stderr","time":"2026-11-23T21:19:48.000000000Z"}"#,
                Error,
                "json",
                "ERROR: no disk",
                ("stream", "stderr"),
            ), // Docker
            (
                r#"{"log":"{\"level\":60,\"msg\":\"no disk\",\"pid\":7}\n","stream":"stdout","time":"2026-11-23T21:19:48Z"}"#,
                Critical,
                "json",
                "no disk",
                ("pid", "7"),
            ),
            (
                r#"{"version":"1.1","host":"h","short_message":"no disk","timestamp":1795468788.0,"level":3}"#,
                Error,
                "json",
                "no disk",
                ("host", "h"),
            ), // GELF
            (r#"{"ts":1795468788000000,"lvl":"error","msg":"no disk"}"#, Error, "json", "no disk", ("", "")),
            (
                r#"{"ts":1795468788000000000,"lvl":"error","msg":"no disk","list":[1,"a",{"b":2}],"deep":{"a":{"b":{"c":{"d":1}}}}}"#,
                Error,
                "json",
                "no disk",
                ("list", "1,a"),
            ),
        ] {
            let record = read(line);
            assert_eq!((record.time, record.severity), (Some(RECEIVED), Some(severity)), "{line}");
            assert_eq!((record.program.as_str(), record.text.as_str()), (program, text), "{line}");
            assert_eq!(record.field(field.0).unwrap_or(""), field.1, "{line}");
            assert!(record.field("level").is_none() && record.field("msg").is_none(), "{line}");
        }
    }

    #[test]
    fn a_trace_of_the_stack_goes_on_behind_the_message() {
        let record = read(
            r#"{"level":50,"time":1795468788000,"msg":"it failed","err":{"type":"Error","stack":"Error: no\n    at a.js:1"}}"#,
        );
        assert_eq!(record.text, "it failed\nError: no\n    at a.js:1");
        assert_eq!(record.field("err.type"), Some("Error"));
    }

    #[test]
    fn what_is_no_log_line_stays_text() {
        for line in [
            "{",
            "{}",
            "[1]",
            "{\"msg\":\"x\"",
            "{\"msg\":\"x\"}",
            "{\"level\":\"error\"}",
            "{\"msg\":7,\"level\":\"error\"}",
            "{\"level\":\"error\",\"msg\":\"x\"} y",
        ] {
            assert_eq!(json(line.as_bytes(), 0), None, "{line}");
            assert_eq!(auto(line.as_bytes(), 0).text, line);
        }
        assert_eq!(json_of(b"{\"msg\":\"x\"}", 0).unwrap().text, "x");
    }

    #[test]
    fn a_line_shows_its_own_form() {
        let entry = br#"{"__REALTIME_TIMESTAMP":"1795468788000000","MESSAGE":"hello","PRIORITY":"3","SYSLOG_IDENTIFIER":"a"}"#;
        let record = auto(entry, 0);
        assert_eq!(
            (record.text.as_str(), record.program.as_str(), record.time),
            ("hello", "a", Some(RECEIVED))
        );
        let record = auto(
            b"<14>Nov 23 21:19:48 h app[7]: {\"level\":\"error\",\"msg\":\"no disk\",\"n\":7}",
            RECEIVED,
        );
        assert_eq!(
            (record.text.as_str(), record.program.as_str(), record.severity),
            ("no disk", "app", Some(Severity::Error))
        );
        assert_eq!(
            (record.time, record.field("n"), record.field("host")),
            (Some(RECEIVED), Some("7"), Some("h"))
        );
        assert_eq!(auto(b"ERROR: no disk", 0).severity, Some(Severity::Error));
    }

    #[test]
    fn nothing_in_json_is_said_by_the_kernel_i17() {
        let found =
            |line: &[u8]| Rules::standard().find_in(&auto(line, RECEIVED)).map(|found| found.rule.name);
        assert_eq!(found(b"[    1.500000] Kernel panic - not syncing: x"), Some("kernel-panic"));
        for line in [
            r#"{"level":"error","msg":"Kernel panic - not syncing: x"}"#,
            r#"{"level":"error","program":"kernel","msg":"Kernel panic - not syncing: x"}"#,
            r#"{"log":"[    1.500000] Kernel panic - not syncing: x","stream":"stdout","time":"2026-11-23T21:19:48Z"}"#,
        ] {
            assert_eq!(found(line.as_bytes()), None, "{line}");
        }
        let full = r#"{"timestamp":"2026-11-23 21:19:48.000 UTC","error_severity":"PANIC","message":"could not write to file \"pg_wal/xlogtemp.61\": No space left on device"}"#;
        assert!(found(full.as_bytes()).is_some());
    }

    #[test]
    fn hostile_objects_are_bounded_a20() {
        let deep = format!(
            "{{\"level\":\"error\",\"msg\":\"x\",\"a\":{}1{}}}",
            "{\"a\":".repeat(9_000),
            "}".repeat(9_000)
        );
        assert_eq!(
            (read(&deep).text.as_str(), read(&deep).fields.len()),
            ("x", 0),
            "what is deeper is passed over"
        );
        let list = format!(
            "{{\"level\":\"error\",\"msg\":\"x\",\"a\":{}{}}}",
            "[".repeat(20_000),
            "]".repeat(20_000)
        );
        assert_eq!(json(list.as_bytes(), 0), None);
        let wide: Vec<String> = (0..3_000).map(|n| format!("\"k{n}\":{n}")).collect();
        let record = read(&format!("{{\"level\":\"error\",\"msg\":\"x\",{}}}", wide.join(",")));
        assert_eq!(record.fields.len(), crate::MOST_FIELDS);
        let long = format!(
            "{{\"level\":\"error\",\"msg\":\"{}\",\"{}\":1}}",
            "x".repeat(30_000),
            "k".repeat(20_000)
        );
        let record = read(&long);
        assert!(record.text.len() <= LONGEST_TEXT && record.bytes() < 40_000, "{}", record.bytes());
        assert_eq!(
            json(format!("{{\"level\":\"error\",\"msg\":\"{}\"}}", "x".repeat(LONGEST_OBJECT)).as_bytes(), 0),
            None
        );
        for number in ["1e999", "-1e999", "99999999999999999999999999", "-9223372036854775808", "1e18", "NaN"]
        {
            for key in ["time", "level"] {
                let line = format!("{{\"severity\":\"error\",\"msg\":\"x\",\"{key}\":{number}}}");
                let _ = json(line.as_bytes(), 0).map(|record| record.time);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_a_record_within_the_limits(raw in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,60}", key in "(time|level|msg|log|stream|a)", number in any::<f64>()) {
            let object = serde_json::json!({ "level": "error", "msg": &text, &key: number, "x": { &text: [number, &text] } }).to_string();
            for line in [&raw[..], object.as_bytes(), &[b"{", &raw[..], b"}"].concat()] {
                let record = auto(line, RECEIVED);
                prop_assert!(record.text.len() <= LONGEST_TEXT && record.fields.len() <= crate::MOST_FIELDS);
            }
        }
    }
}
