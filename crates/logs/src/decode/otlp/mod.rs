//! Logs of OpenTelemetry (OTLP), as JSON and as protobuf: `ExportLogsServiceRequest` of opentelemetry-proto 1.x, whose
//! log fields are stable (`event_name` came with 1.5). Fields of later versions are passed over.

mod json;
mod proto;

pub use json::otlp_json;
pub use proto::otlp_proto;

use super::words;
use crate::record::{LONGEST_TEXT, Record, Severity};

/// Bytes of a request, unpacked.
pub const LONGEST_REQUEST: usize = 4 << 20;

/// Records of one request.
pub const MOST_RECORDS: usize = 16_384;

/// Bytes of all records of one request: what its resource says is told again with each.
pub const MOST_BYTES: usize = 32 << 20;

/// How deep a value of values is shown.
const DEEPEST: usize = 8;

/// The first nanosecond that is no time: clocks that count them in 63 bits end there.
const NEVER: u64 = 1 << 63;

/// Why a request is refused, as a whole.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// It is too long.
    #[error("a request of {bytes} bytes is longer than {LONGEST_REQUEST}: send smaller batches")]
    Long {
        /// How long.
        bytes: usize,
    },
    /// It holds too much.
    #[error(
        "a request has more than {MOST_RECORDS} records, or they take more than {MOST_BYTES} bytes: send smaller batches"
    )]
    Much,
    /// It is not JSON, or not such a message.
    #[error("a request is not an OTLP message in JSON")]
    Json(#[from] serde_json::Error),
    /// It is not protobuf.
    #[error("a request is not an OTLP message in protobuf: {why}")]
    Proto {
        /// What is wrong.
        why: Wire,
    },
}

/// What is wrong with bytes that should be protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wire {
    /// A field goes on behind the end of its message.
    #[error("a field is longer than its message")]
    Length,
    /// A number has no end.
    #[error("a number has more than ten bytes")]
    Number,
    /// A field is of a type that there is not.
    #[error("a field has an unknown type")]
    Type,
}

/// Whose records follow.
#[derive(Clone, Debug, Default)]
struct Resource {
    /// Its program and its fields, the known ones first.
    told: Record,
    others: Record,
}

impl Resource {
    fn add(&mut self, key: &str, value: &[u8]) {
        match key {
            "service.name" => self.told.set_program(value),
            "host.name" => self.told.add_field("host", value),
            "process.pid" => self.told.add_field("pid", value),
            key => self.others.add_field(key, value),
        }
    }
}

/// One log record as it was sent.
#[derive(Debug, Default)]
struct Sent<'a> {
    time: u64,
    observed: u64,
    severity: u64,
    word: &'a [u8],
    body: Vec<u8>,
    event: &'a [u8],
    trace: String,
    span: String,
    /// Its attributes, as fields.
    attributes: Record,
}

/// The records of a request.
#[derive(Debug, Default)]
struct Batch {
    records: Vec<Record>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, resource: &Resource, scope: &[u8], sent: Sent) -> Result<(), OtlpError> {
        let mut record = resource.told.clone();
        record.time = time(sent.time).or_else(|| time(sent.observed));
        record.zone = record.time.map(|_| 0);
        record.severity = severity(sent.severity)
            .or_else(|| words::severity(std::str::from_utf8(sent.word).unwrap_or_default()));
        record.set_text(if sent.body.is_empty() { sent.event } else { &sent.body });
        for (name, value) in [
            ("scope", scope),
            ("event", sent.event),
            ("trace", sent.trace.as_bytes()),
            ("span", sent.span.as_bytes()),
        ] {
            record.add_field(name, value);
        }
        for (name, value) in sent.attributes.fields.iter().chain(&resource.others.fields) {
            record.add_field(name, value.as_bytes());
        }
        self.bytes += record.bytes();
        if self.records.len() >= MOST_RECORDS || self.bytes > MOST_BYTES {
            return Err(OtlpError::Much);
        }
        self.records.push(record);
        Ok(())
    }
}

/// Microseconds of nanoseconds; zero says that it is not known.
fn time(nanos: u64) -> Option<i64> {
    (1..NEVER).contains(&nanos).then(|| i64::try_from(nanos / 1_000).ok())?
}

/// As the data model relates its numbers to those of syslog.
fn severity(number: u64) -> Option<Severity> {
    match number {
        1..=8 => Some(Severity::Debug),
        9 => Some(Severity::Info),
        10..=12 => Some(Severity::Notice),
        13..=16 => Some(Severity::Warning),
        17 => Some(Severity::Error),
        18 => Some(Severity::Critical),
        19 | 20 => Some(Severity::Alert),
        21..=24 => Some(Severity::Emergency),
        _ => None,
    }
}

/// Adds to a value that is shown, as long as there is room.
fn push(out: &mut Vec<u8>, bytes: &[u8]) {
    let room = LONGEST_TEXT.saturating_sub(out.len());
    out.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().take(64).flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect()
}

#[cfg(test)]
mod tests;
