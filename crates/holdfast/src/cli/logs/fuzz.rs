//! Files that an enemy wrote: logs of every form, in UTF-16 too, EVTX files with damaged heads, tables of windows. What is
//! looked for is a panic, text that is lost or doubled, and a word of the file that is said untamed.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::Format;
use super::analysis::Analysis;
use super::input::{Input, read};
use super::table::{Names, Table};
use super::wide::Wide;
use holdfast_fuzz::{Chance, Damage, evtx, is_usual, run, show};
use indicatif::ProgressBar;
use std::io::{BufReader, Cursor, Read};

const WORDS: [&[u8]; 16] = [
    b"\n",
    b"\r\n",
    b"\xff\xfe",
    b"\xfe\xff",
    b"\xef\xbb\xbf",
    b"\x00\xd8",
    b"\x00\xdc",
    b"\xff\xff\xff\xff",
    b"ElfFile\0",
    b"<Event>",
    b"</Event>",
    b"{\"resourceLogs\":[",
    b"\x1b]0;title\x07",
    b"99999999999",
    b",\"",
    b"1e999",
];

const LOGS: [&[u8]; 6] = [
    b"<34>Oct 11 22:14:15 atlas su[9]: 'su root' failed\n2026-11-23T21:19:48Z ERROR no disk left\n",
    b"{\"__CURSOR\":\"s=ab;i=1\",\"__REALTIME_TIMESTAMP\":\"1795468788000001\",\"PRIORITY\":\"3\",\"MESSAGE\":[104,105,0]}\n",
    b"{\"resourceLogs\":[{\"scopeLogs\":[{\"logRecords\":[{\"body\":{\"stringValue\":\"x\"}}]}]}]}\n",
    b"<?xml version='1.0'?><Events><Event><System><Provider Name='disk'/><EventID>7</EventID></System></Event></Events>",
    b"\xff\xfe<\0E\0v\0e\0n\0t\0>\0<\0/\0E\0v\0e\0n\0t\0>\0\n\0",
    b"\xff\xfeo\0n\0e\0\r\0\n\0\x3d\xd8\x80\xde\n\0",
];

const OF_LOGS: Damage<'_> = Damage { good: &LOGS, words: &WORDS, most: 1 << 14 };

/// Everything that is said of a file, read as this form; `None` if it is refused.
fn analyzed(bytes: Vec<u8>, format: Format) -> Option<(u64, u64)> {
    let length = bytes.len() as u64;
    let input = Input::of("x", Box::new(Cursor::new(bytes)));
    let mut analysis = Analysis::new(false, true);
    let is_read = read(input, format, &mut analysis, &ProgressBar::hidden());
    analysis.end();
    let findings = analysis.findings();
    let lines = findings.iter().flat_map(|finding| &finding.examples).map(|(_, line)| line);
    let refusal = is_read.as_ref().err().map(ToString::to_string);
    for said in lines.chain(&analysis.notes).chain(&refusal) {
        assert!(!said.chars().any(char::is_control), "{said:?}");
    }
    // Of UTF-16 its text counts, which has at most three bytes for two.
    assert!(analysis.bytes <= length + length / 2 + 3, "{} of {length}", analysis.bytes);
    is_read.ok().map(|_| (analysis.lines, analysis.skipped))
}

/// Counts what came of inputs, so that a target which gives only one kind of answer is seen.
#[derive(Default)]
struct Count {
    records: u64,
    skipped: u64,
    refused: u64,
}

impl Count {
    fn add(&mut self, found: Option<(u64, u64)>) {
        match found {
            Some((records, skipped)) => {
                self.records += records;
                self.skipped += skipped;
            }
            None => self.refused += 1,
        }
    }
}

#[test]
fn fuzz_whole_files_of_every_form() {
    const FORMATS: [Format; 5] =
        [Format::Auto, Format::Syslog, Format::JournalJson, Format::EventXml, Format::Otlp];
    let mut count = Count::default();
    run("log files", 400, |chance| {
        let format = if chance.once_in(2) { Format::Auto } else { *chance.one(&FORMATS) };
        count.add(analyzed(OF_LOGS.input(chance), format));
    });
    let Count { records, skipped, refused } = count;
    assert!(!is_usual() || (records > 500 && skipped > 20 && refused > 5), "{records} {skipped} {refused}");
}

#[test]
fn fuzz_whole_files_of_evtx() {
    let mut count = Count::default();
    run("evtx files", 100, |chance| count.add(analyzed(evtx::file(chance), Format::Evtx)));
    let Count { records, skipped, refused } = count;
    assert!(!is_usual() || (records > 500 && skipped > 100 && refused > 0), "{records} {skipped} {refused}");
}

#[test]
fn fuzz_text_in_utf_16() {
    let narrow = |bytes: &[u8], step: usize| {
        let mut text = String::new();
        let stuttering = BufReader::with_capacity(step, Cursor::new(bytes.to_vec()));
        Wide::new(stuttering).read_to_string(&mut text).map(|_| text).unwrap()
    };
    run("utf-16", 2_000, |chance| {
        let input = OF_LOGS.input(chance);
        let units: Vec<u16> =
            input.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        let expected = String::from_utf16_lossy(&units).replace('\u{feff}', "");
        assert_eq!(narrow(&input, 1 + chance.below(60)), expected, "{}", show(&input));
    });
}

const TABLES: [&[u8]; 3] = [
    b"id,split,events\na,train,7 8 7\n\"b,\"\"1\",test,\n",
    b"\xef\xbb\xbfid,\"x,y\",label,z\n1,2,1,0\n2,0,0,3.0\n",
    b"id,x\r\n1,4294967295\r\n\r\n2,0\r\n",
];

/// The rows of a table until one is none; and what is said of that.
fn rows(input: &[u8]) -> (usize, Option<String>) {
    let (mut table, mut names, mut count) = (Table::new(input), Names::default(), 0);
    loop {
        match table.next(&mut names) {
            Ok(Some(row)) => {
                count += 1;
                assert!(row.id.len() <= input.len());
            }
            Ok(None) => return (count, None),
            Err(error) => return (count, Some(error.to_string())),
        }
    }
}

#[test]
fn fuzz_tables_of_windows() {
    let damage = Damage { good: &TABLES, words: &WORDS, most: 1 << 14 };
    let (mut read, mut refused) = (0, 0);
    run("windows", 5_000, |chance: &mut Chance| {
        let input = damage.input(chance);
        let (count, said) = rows(&input);
        assert!(count <= input.iter().filter(|byte| **byte == b'\n').count(), "{}", show(&input));
        if let Some(said) = said {
            refused += 1;
            assert!(!said.chars().any(char::is_control) && said.len() < 1_000, "{said:?}");
        }
        read += count;
    });
    assert!(!is_usual() || (read > 500 && refused > 500), "{read} {refused}");
}
