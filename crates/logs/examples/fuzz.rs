//! Hostile input for every decoder: `cargo run --release -p holdfast-logs --example fuzz [SECONDS [SEED]]`.
//!
//! Takes good input apart, damages it and puts it together anew, for so long. What is looked for is a panic, a record
//! beyond its limits, a decoder that takes long for few bytes, and text that is lost where lines are joined. The seed is
//! printed; with the same seed the same inputs come in the same order.

use holdfast_logs::decode::{
    EVTX_CHUNK, Events, Frames, event_xml, evtx_chunk, evtx_header, glance, journal, otlp_json, otlp_proto,
    plain, syslog,
};
use holdfast_logs::{
    Join, LONGEST_FIELD, LONGEST_FIELD_NAME, LONGEST_PROGRAM, LONGEST_TEXT, MOST_FIELDS, Record, Rules, clean,
};
use std::time::{Duration, Instant};

/// Longest that one input may take, in a machine with much else to do.
const LONGEST: Duration = Duration::from_millis(2_500);

/// Bytes of an input, but for chunks.
const MOST_BYTES: usize = 1 << 14;

const SEEDS: [&[u8]; 14] = [
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

/// Numbers without a clock: the same seed, the same inputs. (Sebastiano Vigna, splitmix64.)
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

fn main() {
    let mut words = std::env::args().skip(1);
    let seconds = words.next().and_then(|word| word.parse().ok()).unwrap_or(10);
    let seed = words.next().and_then(|word| word.parse().ok()).unwrap_or(1);
    println!("{seconds} s with seed {seed}");
    let (started, mut chance) = (Instant::now(), Chance(seed));
    let (mut inputs, mut records, mut refused, mut slowest) = (0_u64, 0_u64, 0_u64, Duration::ZERO);
    while started.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..64 {
            let input = if chance.below(4) == 0 { chunk(&mut chance) } else { text(&mut chance) };
            let before = Instant::now();
            let (read, failed) = decode(&input, &mut chance);
            let took = before.elapsed();
            assert!(took < LONGEST, "{took:?} for {} bytes: {:?}", input.len(), show(&input));
            slowest = slowest.max(took);
            inputs += 1;
            records += read;
            refused += failed;
        }
    }
    println!("{inputs} inputs, {records} records, {refused} refused; the slowest took {slowest:?}");
}

fn show(input: &[u8]) -> String {
    String::from_utf8_lossy(&input[..input.len().min(2_000)]).into_owned()
}

/// Good input, damaged.
fn text(chance: &mut Chance) -> Vec<u8> {
    let mut input = SEEDS[chance.below(SEEDS.len())].to_vec();
    for _ in 0..chance.below(12) {
        let at = chance.below(input.len() + 1);
        match chance.below(7) {
            0 if at < input.len() => input[at] = chance.next() as u8,
            1 if at < input.len() => input[at] ^= 1 << chance.below(8),
            2 => input.truncate(at),
            3 => drop(input.splice(at..at, WORDS[chance.below(WORDS.len())].iter().copied())),
            4 => {
                let end = at + chance.below(input.len() - at + 1).min(40);
                let piece = input[at..end].repeat(1 + chance.below(200));
                input.splice(at..at, piece);
            }
            5 => input.extend_from_slice(SEEDS[chance.below(SEEDS.len())]),
            _ => drop(input.drain(at..(at + chance.below(9)).min(input.len()))),
        }
        input.truncate(MOST_BYTES);
    }
    input
}

/// A chunk of an EVTX file: a record with a template that is used again, and tokens at random, or nearly.
fn chunk(chance: &mut Chance) -> Vec<u8> {
    let mut chunk = b"ElfChnk\0".to_vec();
    chunk.resize(512, 0);
    let mut places = vec![512_u32];
    for _ in 0..1 + chance.below(40) {
        let start = chunk.len();
        chunk.extend(b"\x2a\x2a\0\0");
        chunk.resize(start + 24, 0);
        for _ in 0..chance.below(60) {
            token(&mut chunk, &mut places, chance);
        }
        let length = (chunk.len() - start + 4) as u32;
        chunk[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
        chunk.extend(length.to_le_bytes());
    }
    for _ in 0..chance.below(4) {
        let at = chance.below(chunk.len());
        chunk[at] = chance.next() as u8;
    }
    chunk.resize(EVTX_CHUNK, 0);
    chunk
}

fn token(chunk: &mut Vec<u8>, places: &mut Vec<u32>, chance: &mut Chance) {
    let place = |chance: &mut Chance| places[chance.below(places.len())];
    match chance.below(9) {
        0 | 1 => {
            let name = ["Event", "System", "Provider", "EventID", "EventData", "Data"][chance.below(6)];
            chunk.push(if chance.below(4) == 0 { 0x41 } else { 0x01 });
            chunk.extend([0; 6]);
            chunk.extend((chunk.len() as u32 + 4).to_le_bytes());
            chunk.extend([0, 0, 0, 0, 0, 0, name.len() as u8, 0]);
            chunk.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
            chunk.extend([0, 0, 0x02]);
        }
        2 => chunk.push(0x04),
        3 => chunk.extend([0x05, 0x01, 2, 0, b'h', 0, b'i', 0]),
        4 => {
            chunk.extend([0x0c, 1, 0, 0, 0, 0]);
            chunk.extend(place(chance).to_le_bytes());
            chunk.extend([
                2,
                0,
                0,
                0,
                4,
                0,
                [0x01, 0x21, 0x08][chance.below(3)],
                0,
                0,
                0,
                0x21,
                0,
                b'a',
                0,
                b'b',
                0,
            ]);
        }
        5 => {
            chunk.extend([0x0c, 1, 0, 0, 0, 0]);
            let here = chunk.len() as u32 + 4;
            places.push(here);
            chunk.extend(here.to_le_bytes());
            chunk.extend([0; 20]);
            chunk.extend((chance.below(400) as u32).to_le_bytes());
        }
        6 => chunk.extend([0x0e, chance.below(3) as u8, 0, 0x01]),
        7 => chunk.extend([0x0f, 1, 1, 0]),
        _ => chunk.push(chance.next() as u8),
    }
}

/// All decoders; how many records there were, and how many inputs were refused.
fn decode(input: &[u8], chance: &mut Chance) -> (u64, u64) {
    let received = chance.next().cast_signed() >> chance.below(64);
    let (mut read, mut refused) = (0, 0);
    let mut take = |records: &[Record]| {
        records.iter().for_each(|record| check(record, input));
        read += records.len() as u64;
    };
    take(&[syslog(input, received), plain(input, received)]);
    let _ = glance(&clean(input), received);
    for result in [otlp_proto(input), otlp_json(input)] {
        result.as_deref().map_or_else(|_| refused += 1, &mut take);
    }
    match journal(input) {
        Ok(entry) => take(&[entry.record]),
        Err(_) => refused += 1,
    }
    let whole = String::from_utf8_lossy(input);
    for Events { records, skipped } in [event_xml(&whole), evtx_chunk(input)] {
        take(&records);
        refused += skipped;
    }
    let _ = evtx_header(input);
    frames(input, chance);
    join(input, received);
    (read, refused)
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
