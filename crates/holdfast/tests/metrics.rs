//! `holdfast metrics analyze`: what it finds in a series with known troubles, and what it makes of bad files.
//! `BLESS=1` rewrites what is expected.

#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Analyzes this text, as a file or as standard input.
fn analyze(text: &[u8], words: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("latency of orders.csv"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.env("NO_COLOR", "1").env("HOME", folder.path()).current_dir(folder.path()).stdin(Stdio::null());
    command.args(["metrics", "analyze", "latency of orders.csv"]).args(words).output().unwrap()
}

fn out(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Why it could not, and that it printed nothing.
fn refusal(text: &[u8]) -> String {
    let output = analyze(text, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.chars().all(|c| c == '\n' || !c.is_control()), "{said:?}");
    said
}

/// Three weeks of half hours: low at night, high at noon, some noise; then a spike, a day without a noon, a silence of a
/// day, and a new level.
fn troubled() -> String {
    let mut text = "timestamp,value\n".to_owned();
    for row in 0u64..1_200 {
        let (day, hour) = (row / 48, row % 48 / 2);
        if day == 20 {
            continue;
        }
        let noon = if day == 18 { 0 } else { 12 - hour.abs_diff(12) };
        let mixed = row.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let noise = (mixed ^ (mixed >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 58;
        let trouble = if row == 800 {
            900
        } else if day >= 23 {
            160
        } else {
            0
        };
        let value =
            if row == 300 { "NaN".into() } else { format!("{}", 100 + noon * 10 + noise / 4 + trouble) };
        let (date, half) = (1 + day, row % 2 * 30);
        writeln!(text, "2026-03-{date:02} {hour:02}:{half:02}:00,{value}").unwrap();
    }
    text
}

fn golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/metrics").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == found, "{} differs (BLESS=1 rewrites it):\n{found}", path.display());
}

#[test]
fn known_troubles_are_found_and_told_in_sentences() {
    golden("troubled.txt", &out(&analyze(troubled().as_bytes(), &[])));
}

#[test]
fn the_json_keeps_its_shape() {
    let text = out(&analyze(troubled().as_bytes(), &["--json"]));
    golden("troubled.json", &text);
    let said: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&said["v"], &said["rows"], &said["missing"]), (&1.into(), &1_152.into(), &1.into()));
}

#[test]
fn each_row_has_one_score_that_no_later_row_changes() {
    let text = troubled();
    let whole = out(&analyze(text.as_bytes(), &["--csv"]));
    assert_eq!(whole.lines().count(), text.lines().count());
    let half: String = text.lines().take(900).map(|line| format!("{line}\n")).collect();
    assert!(whole.starts_with(&out(&analyze(half.as_bytes(), &["--csv"]))), "no peeking");
    let scores = whole.lines().skip(1).map(|line| line.rsplit(',').next().unwrap().parse::<f64>().unwrap());
    assert!(
        scores.clone().all(|score| (0.0..=1.0).contains(&score)) && scores.clone().any(|score| score > 0.9)
    );
}

#[test]
fn the_report_is_one_page_that_asks_for_nothing_and_obeys_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("<img src=x onerror=alert(1)>.csv");
    std::fs::write(&file, troubled()).unwrap();
    let report = folder.path().join("report.html");
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    let output = command.args(["metrics", "analyze"]).arg(&file).arg("--html").arg(&report).output().unwrap();
    assert!(out(&output).contains("drawn in"));
    let page = std::fs::read_to_string(report).unwrap();
    assert!(
        page.contains("<svg") && page.contains("prefers-color-scheme: dark") && page.ends_with("</html>\n")
    );
    for asking in ["http:", "https:", "<script", "<link", "<img", "url(", "@import"] {
        assert!(!page.contains(asking), "{asking}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf"), "a number that is none draws nothing");
}

#[test]
fn a_file_that_is_no_series_is_refused_with_its_line() {
    let cases: &[(&[u8], &str)] = &[
        (b"", "it has no rows"),
        (b"timestamp,value\n", "it has no rows"),
        (
            b"timestamp,value\n2026-03-01 00:00:00,1\n2026-03-01 00:30:00,many\n",
            "line 3: `many` is not a number",
        ),
        (b"timestamp,value\nlately,1\n", "line 2: `lately` is not a time"),
        (b"timestamp,value\n2026-03-01 00:00:00\n", "line 2 has no column 2"),
        (b"timestamp,value\n1,\x1b[2J\n", "line 2: `\\u{1b}[2J` is not a number"),
        (b"timestamp,value\n1,\xff\xfe\n", "line 2 is not UTF-8 text"),
        (&[b'7'; 100_000], "line 1 is longer than 4096 bytes"),
    ];
    for (text, why) in cases {
        let said = refusal(text);
        assert!(said.contains(why) && said.contains("docs/metrics.md"), "{why}: {said}");
    }
}

#[test]
fn hostile_numbers_and_times_are_only_numbers_and_times() {
    let mut text = "timestamp,value\n".to_owned();
    for row in 0..2_000u64 {
        let value =
            ["1e999", "-1e999", "NaN", "1e308", "-1e308", "5e-324", "0", "-0", "", "1"][row as usize % 10];
        let time = if row % 7 == 0 { 0 } else { row * 60 };
        writeln!(text, "{time},{value}").unwrap();
    }
    let text = text.trim_end();
    for words in [&[][..], &["--csv"], &["--json"], &["--html", "page.html"]] {
        let said = out(&analyze(text.as_bytes(), words));
        assert!(said.lines().count() > 1 || words.is_empty(), "{said}");
    }
}

#[test]
fn standard_input_is_read_and_a_reader_that_has_had_enough_is_no_failure() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.args(["metrics", "analyze", "-", "--csv"]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        for row in 0..40_000u64 {
            if writeln!(stdin, "{},{}", row * 60, row % 17).is_err() {
                break;
            }
        }
    });
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn rows_out_of_order_are_counted_and_it_is_said_what_is_made_of_them() {
    let text = b"timestamp,value\n100,1\n110,2\n90,3\n110,4\n105,nan\n120,5\n120,6\n130,7\n125,8\n";
    let said = out(&analyze(text, &[]));
    assert!(
        said.contains("3 rows go back in time, and are taken for rows at the latest time before"),
        "{said}"
    );
    assert!(said.contains("; 2 rows repeat a time, and are judged one after the other"), "{said}");
    let json: Value = serde_json::from_str(&out(&analyze(text, &["--json"]))).unwrap();
    assert_eq!((&json["rows"], &json["back"], &json["repeated"]), (&9.into(), &3.into(), &2.into()));
    let ordered = out(&analyze(b"timestamp,value\n100,1\n110,2\n", &[]));
    assert!(ordered.contains("2 rows") && !ordered.contains("time"), "{ordered}");
}
