//! `holdfast logs analyze`: what it prints, and what a hostile file does to it.

#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, UNIX_EPOCH};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/logs").join(name)
}

/// The logs of the golden folder as they were in November 2026: lines without a year are from then.
fn logs() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden("")).unwrap() {
        let path = entry.unwrap().path();
        let copy = folder.path().join(path.file_name().unwrap());
        std::fs::copy(&path, &copy).unwrap();
        File::options().write(true).open(&copy).unwrap().set_modified(UNIX_EPOCH + WRITTEN).unwrap();
    }
    folder
}

/// The 24th of November 2026.
const WRITTEN: Duration = Duration::from_secs(1_795_478_400);

/// The program, with something on its standard input.
fn analyze(words: &[&str], input: &[u8]) -> Output {
    let folder = logs();
    analyze_in(folder.path(), words, input)
}

/// The same in a folder.
fn analyze_in(folder: &Path, words: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.env_remove("HOLDFAST_STATE").env_remove("HOLDFAST_CONFIG").env("NO_COLOR", "1");
    command.args(["logs", "analyze"]).args(words).current_dir(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// No byte that a terminal obeys, but for the end of a line, and nothing that turns text around.
fn is_tame(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || !c.is_control()) && !text.contains('\u{202e}')
}

/// `BLESS=1` writes what was found in place of what was expected.
fn expect(path: &Path, found: &str) {
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, found).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(found, expected, "{}", path.display());
}

#[test]
fn a_log_is_shown_to_people_to_scripts_and_line_by_line() {
    for (words, name) in [
        (&["mixed.log"][..], "mixed.txt"),
        (&["mixed.log", "--format", "syslog", "mixed.log"], "twice.txt"),
        (&["mixed.log", "--json"], "mixed.json"),
        (&["mixed.log", "--csv", "patterns"], "mixed.csv"),
        (&["journal.json"], "journal.txt"),
        (&["events.xml"], "events.txt"),
        (&["otlp.json"], "otlp.txt"),
        (&["otlp.json", "--json"], "otlp-analysis.json"),
        (&["journal.json", "events.xml", "mixed.log", "--csv", "patterns"], "several.csv"),
    ] {
        let output = analyze(words, b"");
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        assert_eq!(err(&output), "", "{words:?}");
        assert!(is_tame(&out(&output)), "{words:?}");
        expect(&golden(name), &out(&output));
    }
}

#[test]
fn standard_input_is_read_like_a_file() {
    for file in ["mixed.log", "journal.json", "events.xml", "otlp.json"] {
        let text = std::fs::read(golden(file)).unwrap();
        // a time without a year is near to now
        let without_times = |text: String| text.lines().filter(|line| !line.contains('█')).count();
        let piped = analyze(&["-"], &text);
        assert_eq!(without_times(out(&piped)), without_times(out(&analyze(&[file], b""))), "{file}");
    }
    assert_eq!(
        out(&analyze(&["-"], b"")),
        "0 lines, 0 patterns: nothing known to be bad; without times nobody can say what is unusual\n"
    );
}

#[test]
fn a_file_may_mix_objects_entries_of_the_journal_and_text() {
    let lines = [
        r#"{"time":"2026-11-23T21:19:48Z","level":"ERROR","msg":"no disk left, 7 blocks wanted"}"#,
        r#"{"__REALTIME_TIMESTAMP":"1795468788000000","MESSAGE":"no disk left, 8 blocks wanted","PRIORITY":"3"}"#,
        r#"{"log":"no disk left, 9 blocks wanted\n","stream":"stderr","time":"2026-11-23T21:19:48.5Z"}"#,
        r#"<11>Nov 23 21:19:48 h app[7]: {"level":50,"msg":"no disk left, 10 blocks wanted"}"#,
        "Nov 23 21:19:48 h app[7]: no disk left, 11 blocks wanted",
        "no disk left, 12 blocks wanted",
    ];
    for first in 0..lines.len() {
        let mut turned = lines;
        turned.rotate_left(first);
        let input = turned.join("\n");
        let csv = out(&analyze(&["-", "--csv", "patterns"], input.as_bytes()));
        let rows: Vec<&str> = csv.lines().skip(1).collect();
        assert_eq!(rows.len(), 6, "{csv}");
        assert!(rows.iter().all(|row| row.ends_with(",1,\"no disk left, <*> blocks wanted\"")), "{csv}");
    }
    let json = r#"{"msg":"no disk left, 7 blocks wanted"}"#;
    let template = |format| out(&analyze(&["-", "--csv", "patterns", "--format", format], json.as_bytes()));
    assert!(template("json").contains("\"no disk left, <*> blocks wanted\""));
    assert!(template("plain").contains(",\"{"));
}

#[test]
fn lines_that_belong_together_have_one_pattern_unless_single_lines_are_asked_for() {
    let trace = "2026-11-23 21:19:48,123 [main] ERROR a.B - it failed\njava.lang.IllegalStateException: no\n\tat a.B.c(B.java:12)\n\tat a.D.e(D.java:3)\n2026-11-23 21:19:49,000 [main] INFO a.B - on\n";
    let read = |words: &[&str]| {
        let said = out(&analyze(words, trace.as_bytes()));
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let patterns = said["patterns"].as_array().unwrap().clone();
        let firsts: Vec<u64> = patterns.iter().map(|pattern| pattern["first"].as_u64().unwrap()).collect();
        (said["lines"].as_u64().unwrap(), said["followers"].as_u64().unwrap(), firsts)
    };
    assert_eq!(read(&["-", "--json"]), (5, 3, vec![1, 5]), "and the numbers are those of the lines");
    assert_eq!(read(&["-", "--json", "--single-lines"]), (5, 0, vec![1, 2, 3, 4, 5]));
    assert!(out(&analyze(&["-"], trace.as_bytes())).contains("3 lines go on those before them"));
    assert_eq!(out(&analyze(&["-", "--csv", "patterns"], trace.as_bytes())).lines().count(), 6);
}

#[test]
fn the_worst_is_named_first_with_its_line_and_an_example() {
    let output = analyze(&["mixed.log", "--json"], b"");
    let said: Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(said["v"], 1);
    let found: Vec<&str> =
        said["findings"].as_array().unwrap().iter().map(|f| f["rule"].as_str().unwrap()).collect();
    assert_eq!(found.first(), Some(&"kernel-panic"));
    assert_eq!(said["findings"][0]["first"], 13);
    assert!(said["findings"][0]["example"].as_str().unwrap().contains("sysrq triggered crash"));
    let lines: u64 = said["patterns"].as_array().unwrap().iter().map(|p| p["lines"].as_u64().unwrap()).sum();
    assert_eq!(lines, said["lines"].as_u64().unwrap());
}

#[test]
fn hostile_lines_are_bounded_and_shown_escaped_a20_a40() {
    let mut hostile: Vec<u8> = b"\x1b]0;owned\x07\x1b[2J\xff\xfe\x00\r\n".to_vec();
    hostile.extend(std::iter::repeat_n(0, 100_000));
    hostile.extend(b"\n=1+2\",\"x\n\n\n<*> <*>\n");
    hostile.extend("\u{202e}\u{200b}\u{2028} Kernel panic - not syncing: \u{9b}31m\n".as_bytes());
    hostile.extend((0..=255_u8).collect::<Vec<u8>>());
    hostile.extend(vec![b'x'; 8 << 20]);
    for words in [&["-"][..], &["-", "--json"], &["-", "--csv", "patterns"], &["-", "--format", "syslog"]] {
        let output = analyze(words, &hostile);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", err(&output));
        assert!(is_tame(&out(&output)) && is_tame(&err(&output)), "{words:?}: {:?}", out(&output));
        assert!(out(&output).len() < 40_000, "{words:?}: {}", out(&output).len());
    }
    let csv = out(&analyze(&["-", "--csv", "patterns"], &hostile));
    assert!(
        csv.starts_with("line,cluster,template\n1,") && csv.lines().nth(3).unwrap().contains("\"\""),
        "{csv:.300}"
    );
}

/// A file of one event, without a template: the elements stand in the record itself.
fn evtx(device: &str) -> Vec<u8> {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let mut chunk = b"ElfChnk\0".to_vec();
    chunk.resize(512, 0);
    chunk.extend(b"\x2a\x2a\0\0");
    chunk.resize(512 + 24, 0);
    chunk[528..536].copy_from_slice(&134_399_423_880_000_000_u64.to_le_bytes());
    chunk.extend([0x0f, 1, 1, 0]);
    let name = |chunk: &mut Vec<u8>, name: &str| {
        chunk.extend((chunk.len() as u32 + 4).to_le_bytes());
        chunk.extend([0; 6]);
        chunk.extend((name.len() as u16).to_le_bytes());
        chunk.extend(utf16(name));
        chunk.extend([0; 2]);
    };
    let open = |chunk: &mut Vec<u8>, element: &str| {
        chunk.extend([0x01, 0, 0, 0, 0]);
        name(chunk, element);
        chunk.push(0x02);
    };
    let value = |chunk: &mut Vec<u8>, text: &str| {
        chunk.extend([0x05, 0x01]);
        chunk.extend((text.encode_utf16().count() as u16).to_le_bytes());
        chunk.extend(utf16(text));
    };
    open(&mut chunk, "Event");
    open(&mut chunk, "System");
    chunk.extend([0x41, 0, 0, 0, 0]);
    name(&mut chunk, "Provider");
    chunk.extend([0, 0, 0, 0, 0x06]);
    name(&mut chunk, "Name");
    value(&mut chunk, "disk");
    chunk.push(0x03);
    for (element, text) in [("EventID", "7"), ("Level", "2")] {
        open(&mut chunk, element);
        value(&mut chunk, text);
        chunk.push(0x04);
    }
    chunk.push(0x04);
    open(&mut chunk, "EventData");
    open(&mut chunk, "Data");
    value(&mut chunk, device);
    chunk.extend([0x04, 0x04, 0x04, 0x00]);
    let length = (chunk.len() - 512 + 4) as u32;
    chunk.extend(length.to_le_bytes());
    chunk[516..520].copy_from_slice(&length.to_le_bytes());
    chunk[44..48].copy_from_slice(&512_u32.to_le_bytes());
    chunk.resize(1 << 16, 0);
    let mut file = b"ElfFile\0".to_vec();
    file.resize(4_096, 0);
    file[38] = 3;
    [file, chunk].concat()
}

#[test]
fn what_windows_writes_in_utf_16_is_read_too() {
    for file in ["events.xml", "mixed.log"] {
        let text = std::fs::read_to_string(golden(file)).unwrap();
        let wide: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(out(&analyze(&["-"], &wide)), out(&analyze(&["-"], text.as_bytes())), "{file}");
    }
    assert!(analyze(&["-"], b"\xff\xfe").status.success());
}

#[test]
fn a_windows_event_log_is_read_whole_cut_or_damaged_a27_a28_a29() {
    let good = evtx(r"\Device\Harddisk0\DR0");
    let said = out(&analyze(&["-"], &good));
    assert!(said.starts_with("1 record, 1 pattern: 1 kind of line known to be bad"), "{said}");
    assert!(said.contains(r"disk: The device, \Device\Harddisk0\DR0, has a bad block."), "{said}");
    let mut damaged = [&good[..], &good[4_096..], &[7; 1 << 16], &good[4_096..9_000]].concat();
    damaged[4_096 + (1 << 16) + 700] ^= 0xff;
    let output = analyze(&["-", "--format", "evtx"], &damaged);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("1 entry could not be read, and is left out"), "{}", out(&output));
    assert!(out(&output).contains("`-` was cut: its last chunk has 4904 of 65536 bytes"), "{}", out(&output));
    for seed in 0..40_usize {
        let mut bytes = good.clone();
        for step in 0..6 {
            let place = 4_096 + (seed * 7_919 + step * 104_729) % 1_000;
            bytes[place] = (seed * 31 + step * 17) as u8;
        }
        assert_eq!(analyze(&["-", "--format", "evtx"], &bytes).status.code(), Some(0), "seed {seed}");
    }
    for (bytes, why) in [
        (&b"MZ"[..], "does not begin with `ElfFile`"),
        (b"", "does not begin with"),
        (&[&good[..38], &[9; 4_096]].concat(), "version 2313"),
    ] {
        let output = analyze(&["-", "--format", "evtx"], bytes);
        assert_eq!((output.status.code(), out(&output)), (Some(1), String::new()));
        assert!(err(&output).contains(why) && err(&output).contains("hint:"), "{}", err(&output));
    }
}

#[test]
fn a_windows_event_log_that_was_cut_is_read_as_far_as_it_goes_and_it_is_said() {
    let mut whole = [&evtx("D0")[..], &evtx("D1")[4_096..], &evtx("D2")[4_096..]].concat();
    whole[42] = 3;
    let said = out(&analyze(&["-"], &whole));
    assert!(said.starts_with("3 records") && !said.contains("cut"), "{said}");
    for (length, records, why) in [
        (4_096 + (2 << 16), "2 records", "of 3 chunks that its header states, 2 are whole"),
        (4_096 + (1 << 16) + 30_000, "2 records", "its last chunk has 30000 of 65536 bytes, and of 3 chunks"),
        (4_096, "0 records", "of 3 chunks that its header states, 0 are whole"),
    ] {
        let said = out(&analyze(&["-"], &whole[..length]));
        assert!(said.starts_with(records) && said.contains(&format!("`-` was cut: {why}")), "{said}");
    }
    let json: Value = serde_json::from_str(&out(&analyze(&["-", "--json"], &whole[..5_000]))).unwrap();
    assert!(json["notes"][0].as_str().unwrap().contains("904 of 65536 bytes"), "{json}");
    let output = analyze(&["-"], &whole[..100]);
    assert_eq!((output.status.code(), out(&output)), (Some(1), String::new()));
    assert!(err(&output).contains("ends after 100 bytes, within its header of 4096"), "{}", err(&output));
}

#[test]
fn what_is_packed_is_refused_with_the_way_out_and_noise_is_called_that() {
    for (start, how) in [
        (&b"\x1f\x8b\x08\0\0\0"[..], "zcat FILE | holdfast logs analyze -"),
        (b"PK\x03\x04\x14", "unzip -p FILE | "),
        (b"\x28\xb5\x2f\xfd\x04", "zstd -dc FILE | "),
        (b"\xfd7zXZ\0\0", "xz -dc FILE | "),
        (b"LPKSHHRH\0", "journalctl --file FILE -o json | "),
    ] {
        let output = analyze(&["-", "--json"], start);
        assert_eq!((output.status.code(), out(&output)), (Some(1), String::new()), "{how}");
        assert!(err(&output).contains("cannot read `-`") && err(&output).contains(how), "{}", err(&output));
    }
    let noise: Vec<u8> = (0..30_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let said = out(&analyze(&["-"], &noise));
    assert!(
        said.contains("`-` may be no text: ") && said.contains("% of its first 16384 bytes"),
        "{said:.400}"
    );
    assert!(!out(&analyze(&["mixed.log"], b"")).contains("no text"));
}

#[test]
fn a_mark_of_utf_8_is_no_part_of_the_first_line() {
    for file in ["mixed.log", "journal.json", "events.xml", "otlp.json"] {
        let text = std::fs::read(golden(file)).unwrap();
        let marked = [b"\xef\xbb\xbf", &text[..]].concat();
        assert_eq!(out(&analyze(&["-"], &marked)), out(&analyze(&["-"], &text)), "{file}");
    }
}

#[test]
fn a_request_of_opentelemetry_may_be_one_in_protobuf_or_go_over_lines() {
    let proto = b"\x0a\x0f\x12\x0d\x12\x0b\x10\x11\x2a\x07\x0a\x05hello";
    let said = out(&analyze(&["-", "--format", "otlp"], proto));
    assert!(said.starts_with("1 record, 1 pattern") && said.contains("hello"), "{said}");
    let json =
        std::fs::read_to_string(golden("otlp.json")).unwrap().lines().next().unwrap().replace(",", ",\n");
    assert!(out(&analyze(&["-", "--format", "otlp"], json.as_bytes())).starts_with("2 records"));
    for hostile in [
        &b"\x0a\xff\xff\xff\xff\x0f"[..],
        b"{\"resourceLogs\":[[",
        b"{",
        &vec![b'{'; 5 << 20],
        &vec![0x0a; 5 << 20],
    ] {
        let output = analyze(&["-", "--format", "otlp"], hostile);
        assert_eq!(output.status.code(), Some(1), "{}", out(&output));
        assert!(
            err(&output).contains("as OTLP") && err(&output).contains("hint:") && err(&output).len() < 2_000
        );
    }
}

#[test]
fn hostile_journals_and_events_are_counted_and_shown_escaped_a20_a40() {
    let mut journal = b"{\"MESSAGE\":\"\\u001b[2J\\u202e<script>\"}\n".repeat(3);
    journal.extend(vec![b'['; 3 << 20]);
    journal.extend(b"\n{\"MESSAGE\":[27,91,50,74,10,10,255]}\n{\"MESSAGE\":{}}\n");
    let said = out(&analyze(&["-", "--format", "journal-json"], &journal));
    assert!(said.starts_with("4 records, 2 patterns") && is_tame(&said), "{said}");
    assert!(said.contains("2 entries could not be read"), "{said}");
    let mut events = b"<Event>".repeat(200_000);
    events.extend(std::fs::read(golden("events.xml")).unwrap());
    events.extend(b"<Event><Data>\xff\xfe\x1b[2J</Data></Event>");
    let said = out(&analyze(&["-"], &events));
    assert!(said.contains(" records, ") && said.contains("could not be read") && is_tame(&said), "{said}");
}

/// Input that holds much in few bytes, or has no end.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let attributes: Vec<String> = (0..32)
        .map(|n| format!("{{\"key\":\"{n}\",\"value\":{{\"stringValue\":\"{}\"}}}}", "x".repeat(200)))
        .collect();
    let request = |resource: &str, records: &str| {
        format!("{{\"resourceLogs\":[{{\"resource\":{resource},\"scopeLogs\":[{{\"logRecords\":[{records}{{}}]}}]}}]}}\n").into_bytes()
    };
    let entry =
        [&b"{\"__REALTIME_TIMESTAMP\":\"1\",\"MESSAGE\":["[..], &b"1,".repeat(500_000), b"1]}\n"].concat();
    let wide =
        [&b"<Event><EventData>"[..], &b"<Data>x</Data>".repeat(70_000), b"</EventData></Event>"].concat();
    vec![
        ("otlp", request(&format!("{{\"attributes\":[{}]}}", attributes.join(",")), &"{},".repeat(16_000))),
        ("otlp", request("{}", &"{},".repeat(1_300_000))),
        ("journal-json", entry.repeat(20)),
        ("event-xml", wide.repeat(20)),
        ("event-xml", b"<Event>".repeat(4_000_000)),
        ("evtx", [&evtx("x")[..4_096], &evtx("\u{ffff}")[4_096..].repeat(400)].concat()),
        ("plain", vec![b'x'; 64 << 20]),
        (
            "auto",
            (0..400_000)
                .flat_map(|n| format!("{:04}-01-01T00:00:00Z x{n} y\n", n % 9_999 + 1).into_bytes())
                .collect(),
        ),
    ]
}

#[test]
fn whatever_comes_is_read_in_bounded_memory() {
    // 160 MiB of address space, of which the program itself takes half
    let limited = "ulimit -v 163840; exec \"$0\" \"$@\"";
    for (format, bytes) in bombs() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            limited,
            env!("CARGO_BIN_EXE_holdfast"),
            "logs",
            "analyze",
            "-",
            "--json",
            "--format",
            format,
        ]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || drop(stdin.write_all(&bytes)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        assert!(
            matches!(output.status.code(), Some(0 | 1)),
            "{format}: {:?} {}",
            output.status,
            err(&output)
        );
        assert!(is_tame(&err(&output)) && out(&output).len() < 200_000, "{format}");
    }
}

#[test]
fn the_report_is_one_page_without_scripts_or_anything_from_elsewhere_a40() {
    let folder = logs();
    let report = folder.path().join("report.html");
    let evil = folder.path().join("<script>x.log");
    let lines = "2026-11-23T21:19:48Z ERROR </code><script>alert(1)</script><img src=x onerror=y>\n2026-11-23T21:29:48Z \u{1b}[2J\u{202e}'\"&\nNov 23 21:25:13 h kernel: Kernel panic - not syncing: <b>\u{7}\n";
    std::fs::write(&evil, lines).unwrap();
    let words = ["<script>x.log", "events.xml", "mixed.log", "--html", "report.html"];
    let output = analyze_in(folder.path(), &words, b"");
    assert_eq!((output.status.code(), err(&output)), (Some(0), String::new()));
    assert!(out(&output).ends_with("written to report.html\n"));
    let page = std::fs::read_to_string(&report).unwrap();
    let body = page.split("</style>").nth(1).unwrap();
    for markup in ["<script", "<img", "<b>", "<link", "<iframe", "http:", "https:", "javascript:", "url("] {
        assert!(!body.contains(markup), "{markup}");
    }
    assert!(is_tame(&page) && page.contains("<svg") && page.contains("prefers-color-scheme: dark"));
    assert!(
        page.contains("default-src 'none'") && page.contains("kernel-panic") && page.ends_with("</html>\n")
    );
    assert_eq!(page.matches("<code").count(), page.matches("</code>").count());
    let own = analyze_in(folder.path(), &["mixed.log", "--html", "mixed.log"], b"");
    assert_eq!(own.status.code(), Some(1));
    assert!(err(&own).contains("one of the files that are to be read"));
    assert!(std::fs::read_to_string(folder.path().join("mixed.log")).unwrap().starts_with("Nov 23"));
}

#[test]
fn a_report_that_cannot_be_written_is_found_out_before_anything_is_read() {
    let folder = logs();
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    let packed = b"\x1f\x8b\x08"; // whoever reads this says so
    for target in ["no/such/report.html", "folder"] {
        let output = analyze_in(folder.path(), &["-", "--html", target], packed);
        assert_eq!((output.status.code(), out(&output)), (Some(1), String::new()), "{target}");
        assert!(err(&output).contains(&format!("cannot write {target}")), "{}", err(&output));
        assert!(!err(&output).contains("gzip"), "{}", err(&output));
    }
    std::fs::write(folder.path().join("old.html"), "old").unwrap();
    for target in ["old.html", "new.html"] {
        let output = analyze_in(folder.path(), &["-", "--html", target], packed);
        assert!(err(&output).contains("gzip"), "{}", err(&output));
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("old.html")).unwrap(), "old");
    assert!(!folder.path().join("new.html").exists());
}

#[test]
fn a_line_of_another_age_is_told_and_left_out_of_the_lines_over_time() {
    let minutes = (0..40).map(|minute| format!("2026-11-24T10:{minute:02}:00Z all is well\n"));
    let text: String = minutes.chain(["9999-12-31T23:59:59Z all is well\n".to_owned()]).collect();
    let said = out(&analyze(&["-"], text.as_bytes()));
    assert!(
        said.contains("\n1 line has a time of another age (as about the year 9999), and is left out"),
        "{said}"
    );
    assert!(said.contains(", 5 min a row\n") && !said.contains("9999-12-31 23:59 "), "{said}");
    let json: Value = serde_json::from_str(&out(&analyze(&["-", "--json"], text.as_bytes()))).unwrap();
    assert_eq!((&json["timeline"]["far"], &json["lines"]), (&1.into(), &41.into()));
}

#[test]
fn what_is_no_file_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let evil = format!("{}/x\u{1b}[2J", folder.path().display());
    for (name, why) in [
        (folder.path().to_str().unwrap(), "it is a folder"),
        ("/dev/zero", "may never end"),
        ("/nowhere/at.log", "No such file"),
        (&evil, "No such file"),
    ] {
        let output = analyze(&[name], b"");
        let said = err(&output);
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(
            said.starts_with("error: cannot read `") && said.contains(why) && said.contains("hint:"),
            "{said}"
        );
        assert!(is_tame(&said), "{said:?}");
        assert_eq!(out(&output), "");
    }
    for words in
        [&[][..], &["x", "--json", "--csv", "patterns"], &["x", "--format", "cbor"], &["x", "--csv", "lines"]]
    {
        assert_eq!(analyze(words, b"").status.code(), Some(2), "{words:?}");
    }
}

#[test]
fn a_reader_of_the_table_that_has_had_enough_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.args(["logs", "analyze", "--csv", "patterns"]).arg(golden("mixed.log"));
    let output = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((output.status.code(), err(&output)), (Some(0), String::new()));
}

#[test]
fn windows_are_judged_by_those_that_were_learned() {
    let train = &["--train", "windows-train.csv", "--score"][..];
    for (words, name) in [
        (&["windows-score.csv"][..], "windows-scores.csv"),
        (&["windows-score.csv", "--json"], "windows-scores.json"),
        (&["windows-counts.csv"], "windows-counted.csv"),
        (&["windows-counts.csv", "--csv"], "windows-counted.csv"),
    ] {
        let output = analyze(&[train, words].concat(), b"");
        assert_eq!((output.status.code(), err(&output)), (Some(0), String::new()), "{words:?}");
        assert!(is_tame(&out(&output)), "{words:?}");
        expect(&golden(name), &out(&output));
    }
    let text = std::fs::read(golden("windows-score.csv")).unwrap();
    let piped = analyze(&["--train", "windows-train.csv", "--score", "-"], &text);
    assert_eq!(out(&piped), std::fs::read_to_string(golden("windows-scores.csv")).unwrap());
}

#[test]
fn windows_that_are_none_are_refused_by_their_line() {
    let nothing = "has no rows, or none with `train`";
    for (input, why) in [
        ("id,x\n1,2\n2,\u{1b}\n", "line 3: `\\x1b` is not a count"),
        ("id,x\n1,2,3\n", "line 2 has 3 cells, the header has 2"),
        ("1,2\n3,4\n", "line 1 must name the columns"),
        ("id,split,events\n1,test,a b\n", nothing),
        ("id,x\n", nothing),
        ("", "line 1 must name the columns"),
    ] {
        let output = analyze(&["--train", "-", "--score", "windows-score.csv"], input.as_bytes());
        let said = err(&output);
        assert_eq!((output.status.code(), out(&output)), (Some(1), String::new()), "{said}");
        assert!(said.contains(why) && said.contains("hint:") && is_tame(&said), "{said:?}");
    }
    for words in [
        &["--train", "windows-train.csv"][..],
        &["--score", "windows-score.csv"],
        &["--train", "windows-train.csv", "--score", "windows-score.csv", "mixed.log"],
    ] {
        assert_eq!(analyze(words, b"").status.code(), Some(2), "{words:?}");
    }
}

/// Eight and a half hours of a program: a beat each 30 s, and requests and misses of a cache, now more, now less.
/// With troubles, the beat stops after six hours, misses come 1,200 times within a minute after five, one line is an error as never before after
/// four, and requests come six times as often in the last hour.
fn day(has_troubles: bool) -> String {
    use std::fmt::Write;
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: u64| {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        (chance >> 11) % below
    };
    let mut text = String::new();
    for second in 0..30_600_u64 {
        let (hours, minutes) = (second / 3_600, second / 60 % 60);
        let at = format!("2026-11-24T{hours:02}:{minutes:02}:{:02}Z", second % 60);
        if second % 30 == 0 && !(has_troubles && hours >= 6) {
            writeln!(text, "{at} beat {second} is well").unwrap();
        }
        let requests = if has_troubles && second >= 27_000 { 2 } else { 12 };
        if next(requests) == 0 {
            writeln!(text, "{at} request {} was served in {} ms", next(9_999), next(40) + 1).unwrap();
        }
        if next(40) == 0 {
            writeln!(text, "{at} the cache has no key {}", next(9_999)).unwrap();
        }
        if has_troubles && (18_000..18_060).contains(&second) {
            (0..20).for_each(|key| writeln!(text, "{at} the cache has no key {key}").unwrap());
        }
        if has_troubles && second == 14_400 {
            writeln!(text, "{at} ERROR: the frobnicator has gone sideways").unwrap();
        }
    }
    text
}

#[test]
fn what_is_unusual_in_a_log_is_told_by_its_own_times() {
    let text = day(true);
    let said: Value = serde_json::from_str(&out(&analyze(&["-", "--json"], text.as_bytes()))).unwrap();
    assert_eq!((&said["findings"], &said["unusual"]["judged"]), (&Value::Array(Vec::new()), &"yes".into()));
    let found = said["unusual"]["found"].as_array().unwrap();
    let pattern_of = |words: &str| {
        let patterns = said["patterns"].as_array().unwrap();
        let found = patterns.iter().find(|one| one["template"].as_str().unwrap().contains(words));
        found.unwrap()["id"].clone()
    };
    let lines: Vec<&str> = text.lines().collect();
    for (sort, words, about, from, until) in [
        ("silence", "beat <*>", "usually every 30 s", "T06:00:", "T06:03"),
        ("burst", "the cache", "a minute, usually", "T05:00:", "T05:02"),
        ("new", "frobnicator", "a line as never before", "T04:00:00", "T04:00:01"),
        ("rate", "request <*>", "times a quarter of an hour, usually", "T07:30:", "T07:45:30"),
    ] {
        let is_it = |one: &&Value| one["sort"] == sort && one["pattern"] == pattern_of(words);
        let one = found.iter().find(is_it).unwrap_or_else(|| panic!("{sort}: {found:?}"));
        assert!(one["says"].as_str().unwrap().contains(about), "{one}");
        assert!(one["decibans"].as_f64().unwrap() >= 25.0 && one["times"].as_u64().unwrap() >= 1, "{one}");
        let line = lines[one["line"].as_u64().unwrap() as usize - 1];
        let at = &line["2026-11-24".len()..];
        assert!(at >= from && at < until, "{sort}: {line}");
        let told = one["time"].as_u64().unwrap() - 1_795_478_400;
        let told = format!("T{:02}:{:02}:{:02}", told / 3_600, told / 60 % 60, told % 60);
        assert!(&*told >= from && &*told <= until, "{sort}: {told}");
    }
    let table = out(&analyze(&["-"], text.as_bytes()));
    let head = table.lines().next().unwrap();
    assert!(head.contains("nothing known to be bad, ") && head.ends_with(" things unusual"), "{head}");
    assert!(table.contains("unusual, the most surprising first\n  2026-11-24 0"), "{table}");
    let folder = logs();
    analyze_in(folder.path(), &["-", "--html", "report.html"], text.as_bytes());
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(
        page.contains("things unusual.</p>")
            && page.contains("has not come for ")
            && page.contains("▿<title>silence")
    );
}

#[test]
fn a_steady_log_has_nothing_unusual_whatever_becomes_of_its_times() {
    let text = day(false);
    let head = |text: &str| out(&analyze(&["-"], text.as_bytes())).lines().next().unwrap().to_owned();
    assert!(head(&text).ends_with(": nothing known to be bad, nothing unusual"), "{}", head(&text));
    let one_of_another_age = text.replacen("2026-11-24T03:00:00Z", "9999-11-24T03:00:00Z", 1);
    assert!(head(&one_of_another_age).ends_with(", nothing unusual"), "{}", head(&one_of_another_age));
    let twice = format!("{text}{text}");
    assert!(head(&twice).ends_with(", nothing unusual"), "{}", head(&twice));
    let timeless: String = text.lines().map(|line| format!("{}\n", &line[21..])).collect();
    assert!(
        head(&timeless).ends_with("; without times nobody can say what is unusual"),
        "{}",
        head(&timeless)
    );
}
