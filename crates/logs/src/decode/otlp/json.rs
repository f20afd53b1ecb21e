//! OTLP in JSON: keys in camel case, whole numbers also as strings, bytes in base 64 but for trace and span.

use super::{Batch, DEEPEST, LONGEST_REQUEST, MOST_RECORDS, OtlpError, Resource, Sent, hex, push};
use crate::record::{MOST_FIELDS, Record};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::marker::PhantomData;

/// Values of a list that are looked at.
const MOST_VALUES: usize = 64;

/// The first few of a list; the rest is read past. Null is an empty one.
struct Few<T, const MOST: usize>(Vec<T>);

impl<T, const MOST: usize> Default for Few<T, MOST> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Few<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(FewVisitor(PhantomData))
    }
}

struct FewVisitor<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for FewVisitor<T, MOST> {
    type Value = Few<T, MOST>;

    fn expecting(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
        to.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Few::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while found.len() < MOST {
            let Some(item) = list.next_element()? else { return Ok(Few(found)) };
            found.push(item);
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Few(found))
    }
}

/// A message of which the parts are read one after the other, so that none is held twice.
type Raw<'a> = &'a RawValue;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    resource_logs: Few<Raw<'a>, MOST_RECORDS>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ResourceLogs<'a> {
    #[serde(borrow)]
    resource: Option<Attributes<'a>>,
    #[serde(borrow)]
    scope_logs: Few<Raw<'a>, MOST_RECORDS>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Attributes<'a> {
    #[serde(borrow)]
    attributes: Few<KeyValue<'a>, MOST_FIELDS>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ScopeLogs<'a> {
    #[serde(borrow)]
    scope: Option<Scope<'a>>,
    // one more than may be, so that there being too many is seen
    #[serde(borrow)]
    log_records: Few<Raw<'a>, { MOST_RECORDS + 1 }>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Scope<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LogRecord<'a> {
    #[serde(borrow)]
    time_unix_nano: Option<Raw<'a>>,
    #[serde(borrow)]
    observed_time_unix_nano: Option<Raw<'a>>,
    #[serde(borrow)]
    severity_number: Option<Raw<'a>>,
    #[serde(borrow)]
    severity_text: Cow<'a, str>,
    #[serde(borrow)]
    body: Option<AnyValue<'a>>,
    #[serde(borrow)]
    attributes: Few<KeyValue<'a>, MOST_FIELDS>,
    #[serde(borrow)]
    event_name: Cow<'a, str>,
    #[serde(borrow)]
    trace_id: Cow<'a, str>,
    #[serde(borrow)]
    span_id: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KeyValue<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: Option<AnyValue<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AnyValue<'a> {
    #[serde(borrow)]
    string_value: Option<Cow<'a, str>>,
    bool_value: Option<bool>,
    #[serde(borrow)]
    int_value: Option<Raw<'a>>,
    #[serde(borrow)]
    double_value: Option<Raw<'a>>,
    #[serde(borrow)]
    array_value: Option<Values<'a>>,
    #[serde(borrow)]
    kvlist_value: Option<Pairs<'a>>,
    #[serde(borrow)]
    bytes_value: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Values<'a> {
    #[serde(borrow)]
    values: Few<AnyValue<'a>, MOST_VALUES>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pairs<'a> {
    #[serde(borrow)]
    values: Few<KeyValue<'a>, MOST_VALUES>,
}

/// The records of an `ExportLogsServiceRequest` in JSON. `service.name` is the program, `host.name` the field `host`;
/// then come `scope`, `event`, `trace`, `span`, the attributes of the record and those of its resource.
///
/// # Errors
/// If it is too long, not such a message, or holds too many records.
pub fn otlp_json(request: &[u8]) -> Result<Vec<Record>, OtlpError> {
    if request.len() > LONGEST_REQUEST {
        return Err(OtlpError::Long { bytes: request.len() });
    }
    let mut batch = Batch::default();
    for raw in serde_json::from_slice::<Request>(request)?.resource_logs.0 {
        let logs: ResourceLogs = serde_json::from_str(raw.get())?;
        let mut resource = Resource::default();
        for KeyValue { key, value } in logs.resource.unwrap_or_default().attributes.0 {
            resource.add(&key, &shown(value));
        }
        for raw in logs.scope_logs.0 {
            let logs: ScopeLogs = serde_json::from_str(raw.get())?;
            let scope = logs.scope.unwrap_or_default().name;
            for raw in logs.log_records.0 {
                let record: LogRecord = serde_json::from_str(raw.get())?;
                add(&mut batch, &resource, scope.as_bytes(), record)?;
            }
        }
    }
    Ok(batch.records)
}

fn add(batch: &mut Batch, resource: &Resource, scope: &[u8], record: LogRecord) -> Result<(), OtlpError> {
    let mut attributes = Record::default();
    for KeyValue { key, value } in record.attributes.0 {
        attributes.add_field(&key, &shown(value));
    }
    let sent = Sent {
        time: number(record.time_unix_nano),
        observed: number(record.observed_time_unix_nano),
        severity: number(record.severity_number),
        word: record.severity_text.as_bytes(),
        body: shown(record.body),
        event: record.event_name.as_bytes(),
        trace: id(&record.trace_id),
        span: id(&record.span_id),
        attributes,
    };
    batch.add(resource, scope, sent)
}

/// A whole number that is none counts as not given.
fn number(raw: Option<Raw>) -> u64 {
    raw.and_then(|raw| raw.get().trim_matches('"').parse().ok()).unwrap_or(0)
}

fn id(text: &str) -> String {
    let is_hex = text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { text.to_owned() } else { hex(text.as_bytes()) }
}

fn shown(value: Option<AnyValue>) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(value) = value {
        show(&value, 0, &mut out);
    }
    out
}

fn show(value: &AnyValue, depth: usize, out: &mut Vec<u8>) {
    if depth > DEEPEST {
        return push(out, "…".as_bytes());
    }
    if let Some(text) = value.string_value.as_ref().or(value.bytes_value.as_ref()) {
        push(out, text.as_bytes());
    } else if let Some(truth) = value.bool_value {
        push(out, if truth { b"true" } else { b"false" });
    } else if let Some(raw) = value.int_value.or(value.double_value) {
        push(out, raw.get().trim_matches('"').as_bytes());
    } else if let Some(list) = &value.array_value {
        push(out, b"[");
        for (number, value) in list.values.0.iter().enumerate() {
            push(out, if number > 0 { b", " } else { b"" });
            show(value, depth + 1, out);
        }
        push(out, b"]");
    } else if let Some(list) = &value.kvlist_value {
        push(out, b"{");
        for (number, KeyValue { key, value }) in list.values.0.iter().enumerate() {
            push(out, if number > 0 { b", " } else { b"" });
            push(out, key.as_bytes());
            push(out, b": ");
            if let Some(value) = value {
                show(value, depth + 1, out);
            }
        }
        push(out, b"}");
    }
}
