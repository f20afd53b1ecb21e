//! OTLP in protobuf: a small reader of the wire format, which holds nothing but what it looks at.

use super::{Batch, DEEPEST, LONGEST_REQUEST, OtlpError, Resource, Sent, Wire, hex, push};
use crate::record::{MOST_FIELDS, Record};

/// A message: fields one after the other.
struct Message<'a>(&'a [u8]);

/// A field's value, by its type on the wire.
#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Eight(u64),
    Bytes(&'a [u8]),
    Four,
}

impl<'a> Value<'a> {
    /// The bytes of a text or a message; nothing, if it is something else.
    fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) | Self::Eight(_) | Self::Four => &[],
        }
    }

    fn number(self) -> u64 {
        match self {
            Self::Number(number) | Self::Eight(number) => number,
            Self::Bytes(_) | Self::Four => 0,
        }
    }
}

impl<'a> Message<'a> {
    /// The next field: its number and its value.
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, OtlpError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.number()?;
        let value = match key & 7 {
            0 => Value::Number(self.number()?),
            1 => Value::Eight(self.take(8)?.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))),
            2 => {
                let length = self.number()?;
                Value::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            5 => {
                self.take(4)?;
                Value::Four
            }
            _ => return Err(OtlpError::Proto { why: Wire::Type }),
        };
        Ok(Some((key >> 3, value)))
    }

    fn number(&mut self) -> Result<u64, OtlpError> {
        let mut number = 0;
        for place in 0..10 {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(OtlpError::Proto { why: Wire::Number })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], OtlpError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(OtlpError::Proto { why: Wire::Length })?;
        self.0 = rest;
        Ok(taken)
    }
}

/// The records of an `ExportLogsServiceRequest` in protobuf, as [`super::otlp_json`] gives them.
///
/// # Errors
/// If it is too long, not such a message, or holds too many records.
pub fn otlp_proto(request: &[u8]) -> Result<Vec<Record>, OtlpError> {
    if request.len() > LONGEST_REQUEST {
        return Err(OtlpError::Long { bytes: request.len() });
    }
    let mut batch = Batch::default();
    let mut fields = Message(request);
    while let Some((field, value)) = fields.next()? {
        if field == 1 {
            resource_logs(value.bytes(), &mut batch)?;
        }
    }
    Ok(batch.records)
}

fn resource_logs(message: &[u8], batch: &mut Batch) -> Result<(), OtlpError> {
    let mut resource = Resource::default();
    let mut fields = Message(message);
    while let Some((field, value)) = fields.next()? {
        if field == 1 {
            let mut fields = Message(value.bytes());
            while let Some((field, value)) = fields.next()? {
                if field == 1 && !is_full(&resource) {
                    let (key, value) = pair(value.bytes(), 0)?;
                    resource.add(&key, &value);
                }
            }
        }
    }
    let mut fields = Message(message); // once more: what is said of the resource may stand last
    while let Some((field, value)) = fields.next()? {
        if field == 2 {
            scope_logs(value.bytes(), &resource, batch)?;
        }
    }
    Ok(())
}

fn is_full(resource: &Resource) -> bool {
    resource.others.fields.len() >= MOST_FIELDS || resource.told.fields.len() >= MOST_FIELDS
}

fn scope_logs(message: &[u8], resource: &Resource, batch: &mut Batch) -> Result<(), OtlpError> {
    let mut scope: &[u8] = &[];
    let mut fields = Message(message);
    while let Some((field, value)) = fields.next()? {
        let mut inner = Message(if field == 1 { value.bytes() } else { &[] });
        while let Some((field, value)) = inner.next()? {
            if field == 1 {
                scope = value.bytes();
            }
        }
    }
    let mut fields = Message(message);
    while let Some((field, value)) = fields.next()? {
        if field == 2 {
            batch.add(resource, scope, log_record(value.bytes())?)?;
        }
    }
    Ok(())
}

fn log_record(message: &[u8]) -> Result<Sent<'_>, OtlpError> {
    let mut sent = Sent::default();
    let mut fields = Message(message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => sent.time = value.number(),
            2 => sent.severity = value.number(),
            3 => sent.word = value.bytes(),
            5 => {
                sent.body.clear();
                show(value.bytes(), 0, &mut sent.body)?;
            }
            6 if sent.attributes.fields.len() < MOST_FIELDS => {
                let (key, value) = pair(value.bytes(), 0)?;
                sent.attributes.add_field(&key, &value);
            }
            9 => sent.trace = hex(value.bytes()),
            10 => sent.span = hex(value.bytes()),
            11 => sent.observed = value.number(),
            12 => sent.event = value.bytes(),
            _ => {}
        }
    }
    Ok(sent)
}

/// A key, and its value as it is shown.
fn pair(message: &[u8], depth: usize) -> Result<(String, Vec<u8>), OtlpError> {
    let (mut key, mut shown) = (String::new(), Vec::new());
    let mut fields = Message(message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => {
                let bytes = value.bytes();
                key = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).into_owned();
            }
            2 => {
                shown.clear();
                show(value.bytes(), depth, &mut shown)?;
            }
            _ => {}
        }
    }
    Ok((key, shown))
}

/// A value: a text, a truth, a number, a list, or keys with values.
fn show(message: &[u8], depth: usize, out: &mut Vec<u8>) -> Result<(), OtlpError> {
    if depth > DEEPEST {
        push(out, "…".as_bytes());
        return Ok(());
    }
    let mut fields = Message(message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => push(out, value.bytes()),
            2 => push(out, if value.number() == 0 { b"false" } else { b"true" }),
            3 => push(out, value.number().cast_signed().to_string().as_bytes()),
            4 => push(out, f64::from_bits(value.number()).to_string().as_bytes()),
            5 | 6 => list(value.bytes(), field == 6, depth, out)?,
            7 => push(out, hex(value.bytes()).as_bytes()),
            _ => {}
        }
    }
    Ok(())
}

fn list(message: &[u8], has_keys: bool, depth: usize, out: &mut Vec<u8>) -> Result<(), OtlpError> {
    push(out, if has_keys { b"{" } else { b"[" });
    let mut fields = Message(message);
    let mut is_first = true;
    while let Some((field, value)) = fields.next()? {
        if field != 1 {
            continue;
        }
        push(out, if is_first { b"" } else { b", " });
        is_first = false;
        if has_keys {
            let (key, value) = pair(value.bytes(), depth + 1)?;
            push(out, key.as_bytes());
            push(out, b": ");
            push(out, &value);
        } else {
            show(value.bytes(), depth + 1, out)?;
        }
    }
    push(out, if has_keys { b"}" } else { b"]" });
    Ok(())
}
