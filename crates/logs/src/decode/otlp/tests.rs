//! Both encodings side by side, and requests made to hurt.

use super::*;
use crate::record::MOST_FIELDS;
use holdfast_fuzz::memory::{Peak, alone};
use proptest::prelude::*;

/// A field of bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut length = bytes.len();
    let mut out = vec![number << 3 | 2];
    while length >= 0x80 {
        out.push(0x80 | (length & 0x7f) as u8);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

fn eight(number: u8, value: u64) -> Vec<u8> {
    [vec![number << 3 | 1], value.to_le_bytes().to_vec()].concat()
}

fn text(value: &str) -> Vec<u8> {
    field(1, value.as_bytes())
}

fn pair(key: &str, value: &[u8]) -> Vec<u8> {
    [text(key), field(2, value)].concat()
}

/// A request of one record, whose fields are given.
fn request(resource: &[u8], record: &[u8]) -> Vec<u8> {
    let scope = [field(2, record), field(1, &text("lib"))].concat();
    field(1, &[field(2, &scope), field(1, resource)].concat())
}

fn whole() -> Vec<u8> {
    let values = field(5, &[field(1, &text("a")), field(1, &[3 << 3, 7])].concat());
    let record = [
        eight(1, 1_795_468_788_000_001_999),
        vec![2 << 3, 17],
        field(3, b"ERROR"),
        field(5, &text("it failed\nhere")),
        field(6, &pair("list", &values)),
        field(6, &pair("share", &eight(4, 0.5_f64.to_bits()))),
        vec![8 << 3 | 5, 0, 0, 0, 0],
        field(9, &[0xab; 16]),
        field(12, b"failed"),
    ];
    let resource = [
        field(1, &pair("service.name", &text("orders"))),
        field(1, &pair("host.name", &text("atlas"))),
        field(1, &pair("zone", &text("b"))),
    ];
    request(&resource.concat(), &record.concat())
}

const JSON: &str = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1795468788000001999","severityNumber":17,
    "severityText":"ERROR","body":{"stringValue":"it failed\nhere"},"traceId":"abababababababababababababababab","eventName":"failed",
    "attributes":[{"key":"list","value":{"arrayValue":{"values":[{"stringValue":"a"},{"intValue":"7"}]}}},
    {"key":"share","value":{"doubleValue":0.5}}]}],"scope":{"name":"lib"}}],"resource":{"attributes":[
    {"key":"service.name","value":{"stringValue":"orders"}},{"key":"host.name","value":{"stringValue":"atlas"}},
    {"key":"zone","value":{"stringValue":"b"}}]}}]}"#;

#[test]
fn both_encodings_give_the_same_records() {
    let records = otlp_proto(&whole()).expect("protobuf");
    assert_eq!(records, otlp_json(JSON.as_bytes()).expect("JSON"));
    let record = &records[0];
    assert_eq!((record.time, record.severity), (Some(1_795_468_788_000_001), Some(Severity::Error)));
    assert_eq!((record.program.as_str(), record.text.as_str()), ("orders", "it failed\nhere"));
    let names = ["host", "scope", "event", "list", "share", "zone"];
    assert_eq!(
        names.map(|name| record.field(name).unwrap_or("-")),
        ["atlas", "lib", "failed", "[a, 7]", "0.5", "b"]
    );
    assert_eq!(record.field("trace").map(str::len), Some(32));
    assert_eq!(otlp_proto(b"").expect("nothing").len() + otlp_json(b"{}").expect("nothing").len(), 0);
}

#[test]
fn lengths_that_lie_are_refused_a24() {
    for (bytes, why) in [
        (&[0x0a, 0x05, 0x00][..], Wire::Length),
        (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Wire::Length),
        (&[0x0a, 0x02, 0x12, 0x7f], Wire::Length),
        (&[0x0a], Wire::Length),
        (&[0xff; 12], Wire::Number),
        (&[0x0b], Wire::Type),
        (&[0x0f], Wire::Type),
    ] {
        assert!(
            matches!(otlp_proto(bytes), Err(OtlpError::Proto { why: found }) if found == why),
            "{bytes:?}"
        );
    }
    let whole = whole();
    for length in 1..whole.len() {
        assert!(otlp_proto(&whole[..length]).is_err(), "cut at {length}");
    }
    assert!(matches!(otlp_proto(&vec![0; LONGEST_REQUEST + 1]), Err(OtlpError::Long { .. })));
    assert!(matches!(otlp_json(&vec![b' '; LONGEST_REQUEST + 1]), Err(OtlpError::Long { .. })));
}

#[test]
fn values_within_values_are_shown_only_so_deep() {
    let mut value = text("x");
    for _ in 0..5_000 {
        value = field(5, &field(1, &value));
    }
    let records = otlp_proto(&request(&[], &field(5, &value))).expect("deep");
    assert_eq!(records[0].text, "[[[[[[[[[…]]]]]]]]]");
    let deep = |depth: usize| {
        let open = "{\"arrayValue\":{\"values\":[".repeat(depth);
        let body = format!("{open}{{\"stringValue\":\"x\"}}{}", "]}}".repeat(depth));
        otlp_json(
            format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{\"body\":{body}}}]}}]}}]}}")
                .as_bytes(),
        )
    };
    assert_eq!(deep(20).expect("deep")[0].text, "[[[[[[[[[…]]]]]]]]]");
    assert!(deep(10_000).is_err());
}

#[test]
fn a_million_attributes_cost_a_moment_and_little_memory_a25() {
    alone("decode::otlp::tests::a_million_attributes_cost_a_moment_and_little_memory_a25", attributes);
}

fn attributes() {
    let attribute = field(6, &pair("k", &text("v")));
    let request = request(&[], &attribute.repeat(400_000));
    let peak = Peak::start();
    let records = otlp_proto(&request).expect("many");
    assert_eq!(records[0].fields.len(), MOST_FIELDS);
    peak.is_below("a request of attributes in protobuf", 2);
    let many = vec!["{\"key\":\"k\",\"value\":{\"intValue\":1}}"; 100_000].join(",");
    let json = format!(
        "{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{\"attributes\":[{many}]}}]}}]}}]}}"
    );
    let peak = Peak::start();
    assert_eq!(otlp_json(json.as_bytes()).expect("many")[0].fields.len(), MOST_FIELDS);
    peak.is_below("a request of attributes in JSON", 2);
    let deep = "[".repeat(LONGEST_REQUEST);
    let peak = Peak::start();
    assert!(otlp_json(deep.as_bytes()).is_err());
    peak.is_below("a request that is only depth", 8);
}

#[test]
fn more_records_than_fit_are_refused() {
    let empty = field(2, &[]);
    let request = |count: usize, resource: &[u8]| {
        otlp_proto(&field(1, &[field(2, &empty.repeat(count)), field(1, resource)].concat()))
    };
    assert_eq!(request(MOST_RECORDS, &[]).expect("as many as may be").len(), MOST_RECORDS);
    assert!(matches!(request(MOST_RECORDS + 1, &[]), Err(OtlpError::Much)));
    let resource: Vec<u8> =
        (0..MOST_FIELDS).flat_map(|n| field(1, &pair(&n.to_string(), &text(&"x".repeat(256))))).collect();
    assert!(matches!(request(MOST_RECORDS, &resource), Err(OtlpError::Much)));
    let json = format!(
        "{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{}{{}}]}}]}}]}}",
        "{},".repeat(MOST_RECORDS)
    );
    assert!(matches!(otlp_json(json.as_bytes()), Err(OtlpError::Much)));
}

#[test]
fn times_that_cannot_be_are_not_known_a26() {
    let found = |time: u64, observed: u64| {
        otlp_proto(&request(&[], &[eight(1, time), eight(11, observed)].concat())).expect("times")[0].time
    };
    assert_eq!((found(0, 0), found(u64::MAX, 0), found(NEVER, u64::MAX)), (None, None, None));
    assert_eq!((found(0, 5_000), found(7_999, 5_000)), (Some(5), Some(7)));
    let json =
        "{\"resourceLogs\":[{\"scopeLogs\":[{\"logRecords\":[{\"timeUnixNano\":18446744073709551615}]}]}]}";
    assert_eq!(otlp_json(json.as_bytes()).expect("a number")[0].time, None);
}

proptest! {
    #[test]
    fn any_bytes_are_records_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (otlp_proto(&bytes), otlp_json(&bytes));
    }

    #[test]
    fn a_damaged_request_is_records_or_refused(at in 0usize..200, with in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = whole();
        let at = at % bytes.len();
        bytes[at] = with;
        bytes.truncate(if cut { at + 1 } else { bytes.len() });
        let _ = otlp_proto(&bytes);
        let mut json = JSON.as_bytes().to_vec();
        json[at] = with;
        let _ = otlp_json(&json);
    }
}
