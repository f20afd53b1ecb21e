//! Hostile input for every decoder of this crate. What is looked for is a panic, a record beyond its limits, text that is
//! lost where lines are joined, and memory that grows; where it runs long (CONTRIBUTING.md), a decoder that takes long
//! for few bytes, too.

use holdfast_fuzz::{Chance, Damage, evtx, is_usual, run, show};
use holdfast_logs::decode::{
    Events, Frames, auto, event_xml, evtx_chunk, evtx_header, glance, journal, json, otlp_json, otlp_proto,
    plain, syslog,
};
use holdfast_logs::{
    Join, LONGEST_FIELD, LONGEST_FIELD_NAME, LONGEST_PROGRAM, LONGEST_TEXT, MOST_FIELDS, Record, Rules, clean,
};

const DAMAGE: Damage<'_> = Damage { good: &SEEDS, words: &WORDS, most: 1 << 14 };

const SEEDS: [&[u8]; 16] = [
    b"<165>1 2003-10-11T22:14:15.003-07:00 db app 8710 ID47 [ex@32473 a=\"1\" b=\"x \\\"y\\\" \\]\"][o] An event",
    b"<34>Oct 11 22:14:15 atlas su[9]: 'su root' failed\n12 <13>with\nit\n\n4294967295 <34>x",
    b"2026-11-23 21:19:48.123 UTC [61-3] u@d FATAL:  no\n\tcontinued\n2026-11-23 21:19:48 UTC [61] DETAIL:  x",
    b"771:M 23 Nov 2026 21:19:48.000 # MISCONF\nE1123 21:19:48.000000 1234 a.go:12] failed\n261123 21:19:48 [Warning] old",
    b"[  333.201122][  T123] BUG: x\n[  333.201123] Call Trace:\n[  333.201124]  <TASK>\n[  333.201125] ---[ end trace 0 ]---",
    b"{\"__CURSOR\":\"s=ab;i=1\",\"__REALTIME_TIMESTAMP\":\"1795468788000001\",\"PRIORITY\":\"3\",\"_PID\":\"61\",\"MESSAGE\":[104,105,0]}",
    b"{\"resourceLogs\":[{\"scopeLogs\":[{\"logRecords\":[{\"timeUnixNano\":\"1\",\"severityNumber\":17,\"body\":{\"kvlistValue\":{\"values\":[{\"key\":\"k\",\"value\":{\"arrayValue\":{\"values\":[{\"intValue\":\"7\"}]}}}]}}}]}]}]}",
    b"\x0a\x29\x12\x27\x12\x25\x09\x01\x00\x00\x00\x00\x00\x00\x00\x10\x11\x2a\x0d\x2a\x0b\x0a\x09\x32\x07\x0a\x05\x0a\x01k\x12\x00\x32\x09\x0a\x01k\x12\x04\x0a\x02vw",
    b"<Event xmlns='u'><System><Provider Name='disk'/><EventID>7</EventID><Level>2</Level><TimeCreated SystemTime='2026-11-23T21:19:48.1Z'/></System><EventData><Data Name='x'>&lt;a&#x41;</Data></EventData></Event>",
    b"Traceback (most recent call last):\n  File \"a.py\", line 1\nValueError: no\n\nDuring handling of the above exception, another",
    b"thread 'main' panicked at src/main.rs:2:5:\nno\nstack backtrace:\n   0: x\npanic: y\n\ngoroutine 1 [running]:\nmain.main()\n\t/x.go:8",
    b"\x1b[31mred\x1b]0;title\x07\x9b0m\xc2\x9b\xff\xfe\x00\xf0\x9f\x92\xa9\xe2\x80\xae",
    b"time=2026 level=error msg=\"x\"\n{\"level\":\"warn\",\"severity\":\"ERROR\"}",
    b"{\"level\":50,\"time\":1795468788000,\"pid\":7,\"err\":{\"type\":\"E\",\"stack\":\"E: no\\n    at x\"},\"msg\":\"no\\u0000\\ud83d\"}",
    b"<13>Nov 23 21:19:48 db app[7]: {\"log\":\"{\\\"severity\\\":\\\"ERROR\\\",\\\"message\\\":\\\"x\\\"}\\n\",\"stream\":\"stderr\",\"time\":\"2026-11-23T21:19:48Z\"}",
    b"<14>",
];

/// Pieces that mean something to one decoder or another.
const WORDS: [&[u8]; 24] = [
    b"\n",
    b"<",
    b">",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b": ",
    b"</Event>",
    b"<Event>",
    b"<![CDATA[",
    b"&#x110000;",
    b"\x0c\x01\0\0\0\0",
    b"\x0f\x01\x01\0",
    b"\x41\xff\xff",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"1e999",
    b"{\"arrayValue\":{\"values\":[",
    b"9999-12-31T23:59:60+18:59",
    b"Feb 29 23:59:59",
    b"65536 <",
    b"\x2a\x2a\0\0",
    b"\0\0\0\0",
];

/// Records that were read, and inputs that were refused: a target that only ever gives one of both looks for nothing.
#[derive(Default)]
struct Count {
    read: u64,
    refused: u64,
}

impl Count {
    fn take(&mut self, records: &[Record], input: &[u8]) {
        records.iter().for_each(|record| check(record, input));
        self.read += records.len() as u64;
    }

    fn events(&mut self, events: &Events, input: &[u8]) {
        self.take(&events.records, input);
        self.refused += events.skipped;
    }

    fn both_came(&self) {
        assert!(!is_usual() || (self.read > 100 && self.refused > 100), "{} {}", self.read, self.refused);
    }
}

#[test]
fn fuzz_records_of_every_form() {
    let mut count = Count::default();
    run("records", 6_000, |chance| {
        let input = DAMAGE.input(chance);
        let received = chance.draw().cast_signed() >> chance.below(64);
        count.take(&[syslog(&input, received), plain(&input, received), auto(&input, received)], &input);
        match json(&input, received) {
            Some(record) => count.take(&[record], &input),
            None => count.refused += 1,
        }
        let _ = glance(&clean(&input), received);
        for result in [otlp_proto(&input), otlp_json(&input)] {
            match result {
                Ok(records) => count.take(&records, &input),
                Err(_) => count.refused += 1,
            }
        }
        match journal(&input) {
            Ok(entry) => count.take(&[entry.record], &input),
            Err(_) => count.refused += 1,
        }
        count.events(&event_xml(&String::from_utf8_lossy(&input)), &input);
    });
    count.both_came();
}

#[test]
fn fuzz_chunks_of_evtx_files() {
    let mut count = Count::default();
    run("evtx chunks", 1_500, |chance| {
        let input = if chance.once_in(8) { DAMAGE.input(chance) } else { evtx::chunk(chance) };
        count.events(&evtx_chunk(&input), &input);
        let _ = evtx_header(&input);
    });
    count.both_came();
}

#[test]
fn fuzz_frames_of_syslog() {
    run("frames", 4_000, |chance| {
        let input = DAMAGE.input(chance);
        frames(&input, chance);
    });
}

#[test]
fn fuzz_lines_that_are_joined() {
    run("joined", 1_500, |chance| join(&DAMAGE.input(chance), chance.draw().cast_signed()));
}

/// A stream gives the same messages however it is cut.
fn frames(input: &[u8], chance: &mut Chance) {
    let split = |step: usize| {
        let (mut frames, mut found) = (Frames::default(), Vec::new());
        input.chunks(step).for_each(|piece| frames.feed(piece, |packet| found.push(packet.to_vec())));
        frames.finish(|packet| found.push(packet.to_vec()));
        found
    };
    assert_eq!(split(1 + chance.below(50)), split(input.len().max(1)), "{:?}", show(input));
}

/// No line is lost where lines are joined.
fn join(input: &[u8], received: i64) {
    let mut join = Join::new();
    let (mut put, mut got) = (0, 0);
    let mut take = |record: Record| {
        check(&record, input);
        let _ = Rules::standard().find_in(&record);
        got += record.text.split('\n').count();
    };
    for (at, line) in input.split(|byte| *byte == b'\n').enumerate() {
        put += 1;
        join.push(plain(line, received), at as i64).into_iter().for_each(&mut take);
    }
    while let Some(record) = join.rest(i64::MAX) {
        take(record);
    }
    assert_eq!(put, got, "{:?}", show(input));
}

fn check(record: &Record, input: &[u8]) {
    let is_clean = |text: &str| !text.chars().any(|letter| letter.is_control() && letter != '\n');
    let fits = record.text.len() <= LONGEST_TEXT
        && record.program.len() <= LONGEST_PROGRAM
        && record.fields.len() <= MOST_FIELDS
        && record.fields.iter().all(|(name, value)| {
            name.len() <= LONGEST_FIELD_NAME
                && value.len() <= LONGEST_FIELD
                && is_clean(name)
                && is_clean(value)
        });
    assert!(fits && is_clean(&record.text) && is_clean(&record.program), "{:?}", show(input));
}
