//! `holdfast logs analyze`: what it prints, and what a hostile file does to it.

#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/logs").join(name)
}

/// The program, with something on its standard input.
fn analyze(words: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.env_remove("HOLDFAST_STATE").env_remove("HOLDFAST_CONFIG").env("NO_COLOR", "1");
    command.args(["logs", "analyze"]).args(words).current_dir(golden(""));
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
    let text = std::fs::read(golden("mixed.log")).unwrap();
    assert_eq!(out(&analyze(&["-"], &text)), out(&analyze(&["mixed.log"], b"")));
    assert_eq!(out(&analyze(&["-"], b"")), "0 lines, 0 patterns: nothing known to be bad\n");
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
