//! The command line where no daemon runs: what it says, and what it exits with.

#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program in an empty folder, with nothing of this machine's settings.
fn holdfast(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.env_remove("HOLDFAST_STATE").env_remove("HOLDFAST_CONFIG").env("NO_COLOR", "1");
    command.env("HOME", folder).env_remove("XDG_STATE_HOME").current_dir(folder).stdin(Stdio::null());
    command.args(words).output().unwrap()
}

fn empty() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// No byte that a terminal obeys, but for the end of a line.
fn is_tame(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || !c.is_control())
}

/// Every command that needs a daemon.
const ASKING: &[&[&str]] = &[
    &["status"],
    &["status", "--json"],
    &["incidents"],
    &["incidents", "--json"],
    &["events"],
    &["events", "--json"],
    &["explain", "1"],
    &["logs"],
    &["logs", "orders"],
    &["logs", "show", "orders", "--json"],
    &["logs", "orders", "--follow"],
    &["logs", "patterns", "orders"],
    &["vm", "list"],
    &["vm", "show", "orders"],
    &["vm", "start", "orders"],
    &["vm", "stop", "orders"],
    &["vm", "restart", "orders"],
    &["vm", "pause", "orders"],
    &["vm", "resume", "orders"],
    &["vm", "release", "orders"],
    &["vm", "maintenance", "orders", "on"],
    &["drill", "run", "vm-kill", "--vm", "orders", "--yes"],
];

#[test]
fn without_a_daemon_each_command_says_so_and_how_to_go_on() {
    let folder = empty();
    for words in ASKING {
        let output = holdfast(folder.path(), &[&["--state", "nowhere"], *words].concat());
        let said = err(&output);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        assert!(
            said.contains("cannot reach the daemon") && said.contains("holdfast.sock"),
            "{words:?}: {said}"
        );
        assert!(said.contains("holdfast run") && said.contains("--state DIR"), "{words:?}: {said}");
        assert_eq!(out(&output), "", "{words:?}: nothing on standard output that a script would read");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn the_state_folder_is_also_chosen_by_the_environment() {
    let folder = empty();
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.env("HOLDFAST_STATE", "elsewhere").env_remove("HOLDFAST_CONFIG").current_dir(folder.path());
    let output = command.arg("status").output().unwrap();
    assert!(err(&output).contains("elsewhere/holdfast.sock"), "{}", err(&output));
}

#[test]
fn wrong_usage_exits_with_2_and_prints_nothing_to_standard_output() {
    let folder = empty();
    let wrong: &[&[&str]] = &[
        &[],
        &["no-such-command"],
        &["status", "--no-such-flag"],
        &["explain", "not-a-number"],
        &["vm", "maintenance", "orders", "sideways"],
        &["vm", "stop", "orders", "--grace", "soon"],
        &["drill", "run", "vm-kill"],
    ];
    for words in wrong {
        let output = holdfast(folder.path(), words);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", err(&output));
        assert_eq!(out(&output), "", "{words:?}");
    }
}

#[test]
fn errors_are_json_for_programs_whoever_finds_them() {
    let folder = empty();
    std::fs::write(folder.path().join("wrong.toml"), "state = \"here\n").unwrap();
    let failing: &[(&[&str], i32)] = &[
        (&["--state", "nowhere", "status", "--json"], 1),
        (&["--config", "wrong.toml", "vm", "list", "--json"], 2),
        (&["backup", "list", "--repo", "nowhere", "--json"], 1),
        (&["backup", "image", "nothing.img", "--repo", "nowhere", "--json"], 1),
        (&["backup", "list", "--no-such-flag", "--repo", "nowhere", "--json"], 2),
        (&["metrics", "analyze", "nothing.csv", "--json"], 1),
        (&["logs", "analyze", "nothing.log", "--json"], 1),
    ];
    for (words, code) in failing {
        let output = holdfast(folder.path(), words);
        let said = err(&output);
        assert_eq!(output.status.code(), Some(*code), "{words:?}: {said}");
        assert_eq!((said.lines().count(), out(&output)), (1, String::new()), "{words:?}: {said}");
        let told: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((&told["v"], &told["exit"]), (&1.into(), &(*code).into()), "{words:?}: {said}");
        assert!(told["error"].as_str().is_some_and(|error| !error.is_empty()), "{words:?}: {said}");
        let plain: Vec<&str> = words.iter().copied().filter(|word| *word != "--json").collect();
        let for_people = err(&holdfast(folder.path(), &plain));
        assert!(for_people.starts_with("error: "), "{words:?}: {for_people}");
    }
    let output = holdfast(folder.path(), &["--config", "wrong.toml", "vm", "list", "--json"]);
    let told: Value = serde_json::from_str(&err(&output)).unwrap();
    assert!(told["problems"][0]["line"] == 1, "{told}");
    let help = holdfast(folder.path(), &["status", "--json", "--help"]);
    assert!(help.status.success() && out(&help).contains("Usage: "), "help is no error");
}

#[test]
fn names_with_escape_codes_are_refused_and_shown_escaped_a02_a40() {
    let folder = empty();
    let evil = "a\u{1b}]0;owned\u{7}\u{1b}[31m\u{202e}b";
    let asking: &[&[&str]] = &[
        &["vm", "start", evil],
        &["vm", "stop", evil],
        &["vm", "maintenance", evil, "on"],
        &["vm", "release", evil],
        &["drill", "run", evil, "--vm", "orders", "--yes"],
    ];
    for words in asking {
        let output = holdfast(folder.path(), &[&["--state", "nowhere"], *words].concat());
        let said = err(&output);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert!(is_tame(&said) && !said.contains('\u{202e}'), "{said:?}");
        assert!(said.contains("\\u{1b}"), "it is shown escaped: {said}");
        assert_eq!(out(&output), "");
    }
    for name in ["../orders", "a/b", "", "a?x=1", "-rf", &"a".repeat(300)] {
        let output = holdfast(folder.path(), &["--state", "nowhere", "vm", "start", "--", name]);
        let said = err(&output);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert!(said.contains("is not the name of a vm") && said.contains("vm list"), "{name}: {said}");
    }
}

#[test]
fn what_can_be_no_name_or_number_exits_with_2_whatever_asks_for_it() {
    let folder = empty();
    let wrong: &[&[&str]] = &[
        &["vm", "show", "a b"],
        &["vm", "start", "a b"],
        &["points", "a b"],
        &["logs", "a b"],
        &["metrics", "show", "a b"],
        &["drill", "run", "vm-kill", "--vm", "a b", "--yes"],
        &["drill", "run", "no-such-drill", "--vm", "a", "--yes"],
        &["snapshot", "list", "a b"],
        &["snapshot", "delete", "a", "newest"],
        &["snapshot", "revert", "a", "newest", "--yes"],
        &["backup", "create", "a b"],
        &["backup", "revert", "a", "newest", "--yes"],
        &["prove", "a", "--point", "newest"],
        &["explain", "newest"],
        &["approve", "newest"],
    ];
    for words in wrong {
        let output = holdfast(folder.path(), &[&["--state", "nowhere"], *words].concat());
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", err(&output));
        assert_eq!(out(&output), "", "{words:?}");
    }
}

#[test]
fn a_path_with_escape_codes_is_shown_escaped_a40() {
    let folder = empty();
    let evil = "x\u{1b}[2J\u{7}.toml";
    for words in [&["check", evil][..], &["--config", evil, "run"], &["--state", evil, "status"]] {
        let output = holdfast(folder.path(), words);
        assert!(!output.status.success(), "{words:?}");
        assert!(is_tame(&err(&output)) && is_tame(&out(&output)), "{words:?}: {:?}", err(&output));
    }
}

#[test]
fn the_example_configuration_is_right_but_for_what_this_machine_lacks() {
    let folder = empty();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../holdfast.example.toml");
    let output = holdfast(folder.path(), &["check", "--json", example.to_str().unwrap()]);
    let said: Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(said["v"], 1);
    let wrong = said["problems"].as_array().cloned().unwrap_or_default();
    let lacks = |error: &Value| error.to_string().contains("orders.qcow2");
    assert!(wrong.iter().all(lacks), "{said:#}");
    assert_eq!(output.status.code(), Some(if wrong.is_empty() { 0 } else { 2 }), "{said:#}");
}

#[test]
fn a_wrong_configuration_is_refused_with_file_line_and_hint_and_exit_code_2() {
    let folder = empty();
    std::fs::write(folder.path().join("holdfast.toml"), "[vm.orders]\ndsik = \"x\"\n").unwrap();
    for words in [&["check"][..], &["run"]] {
        let output = holdfast(folder.path(), words);
        let said = err(&output);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert!(said.contains("holdfast.toml:2") && said.contains("dsik") && said.contains("disk"), "{said}");
    }
    let json = holdfast(folder.path(), &["check", "--json"]);
    assert_eq!(json.status.code(), Some(2));
    assert_eq!(serde_json::from_str::<Value>(&out(&json)).unwrap()["v"], 1);
}

#[test]
fn a_daemon_is_found_by_its_file_whatever_else_is_wrong_in_it() {
    let folder = empty();
    std::fs::write(folder.path().join("holdfast.toml"), "state = \"here\"\n[vm.orders]\ndsik = \"x\"\n")
        .unwrap();
    let output = holdfast(folder.path(), &["status"]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(
        err(&output).contains("here/holdfast.sock") && !err(&output).contains("dsik"),
        "{}",
        err(&output)
    );
    std::fs::write(folder.path().join("holdfast.toml"), "state = \"here\n").unwrap();
    let output = holdfast(folder.path(), &["status"]);
    assert_eq!(output.status.code(), Some(2), "{}", err(&output));
    assert!(err(&output).contains("holdfast.toml:1"), "not even its place can be told: {}", err(&output));
}

#[test]
fn completions_and_the_manual_page_name_every_command() {
    let folder = empty();
    let commands = ["run", "check", "init", "doctor", "status", "watch", "explain", "incidents", "drill"];
    for shell in ["bash", "zsh", "fish"] {
        let output = holdfast(folder.path(), &["completions", shell]);
        assert!(output.status.success() && err(&output).is_empty());
        for command in commands {
            assert!(out(&output).contains(command), "{shell}: {command}");
        }
    }
    let page = out(&holdfast(folder.path(), &["man"]));
    assert!(page.contains(".TH holdfast 1"), "{page}");
    for command in commands {
        assert!(page.contains(&format!("holdfast\\-{command}(1)")), "{command}");
    }
    let page = out(&holdfast(folder.path(), &["man", "vm", "stop"]));
    assert!(page.contains(".TH holdfast-vm-stop 1") && page.contains("grace"), "{page}");
    let refused = holdfast(folder.path(), &["man", "vm", "stopp"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(err(&refused).contains("there is no command `vm stopp`"), "{}", err(&refused));
    let pages = folder.path().join("pages");
    std::fs::create_dir(&pages).unwrap();
    assert!(holdfast(folder.path(), &["man", "--into", pages.to_str().unwrap()]).status.success());
    for command in commands {
        assert!(pages.join(format!("holdfast-{command}.1")).is_file(), "{command}");
    }
}

#[test]
fn the_list_of_drills_keeps_its_contract_without_a_daemon() {
    let folder = empty();
    let output = holdfast(folder.path(), &["drill", "list", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let list: Vec<Value> = serde_json::from_str(&out(&output)).unwrap();
    let faults: std::collections::BTreeSet<&str> =
        list.iter().map(|d| d["fault"].as_str().unwrap()).collect();
    let promised = "vm-kill vm-stop guest-panic guest-hang guest-reboot app-kill app-stop disk-error disk-slow \
                    disk-full link-down memory-hog fork-bomb clock-jump connections-full password-rotated \
                    page-damaged port-dropped swap-storm wal-full data-deleted";
    assert_eq!(faults, promised.split_whitespace().collect());
    for drill in &list {
        assert_eq!(drill["v"], 1);
        assert!(!drill["expected"].as_array().unwrap().is_empty(), "{drill}");
    }
}

#[test]
fn a_journal_that_is_none_is_not_replayed() {
    let folder = empty();
    std::fs::write(folder.path().join("junk.hfj"), vec![0x41; 4096]).unwrap();
    for file in ["junk.hfj", "absent.hfj"] {
        let output = holdfast(folder.path(), &["replay", file]);
        assert_eq!(output.status.code(), Some(1), "{file}: {}{}", out(&output), err(&output));
        assert!(is_tame(&err(&output)), "{file}");
    }
}

#[test]
fn a_folder_without_a_journal_is_not_replayed_as_an_empty_one() {
    let folder = empty();
    let output = holdfast(folder.path(), &["replay", "."]);
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    assert!(err(&output).contains("there is no journal in `.`"), "{}", err(&output));
}

/// Commands that print something and need no daemon.
const PRINTING: &[&[&str]] =
    &[&["completions", "zsh"], &["man"], &["drill", "list"], &["drill", "list", "--json"], &["doctor"]];

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let folder = empty();
    for words in PRINTING {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        let output =
            command.args(*words).current_dir(folder.path()).stdout(writer).stderr(Stdio::piped()).output();
        let output = output.unwrap();
        assert_eq!(err(&output), "", "{words:?}");
        let whole = holdfast(folder.path(), words);
        assert_eq!(output.status.code(), whole.status.code(), "{words:?}: as if it had been read");
    }
}

#[test]
fn what_cannot_be_printed_is_told_and_fails() {
    let folder = empty();
    for words in PRINTING {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        let output = command.args(*words).current_dir(folder.path()).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        let said = err(&output);
        let for_programs = said.starts_with("{\"v\":1,\"error\":\"cannot print\",\"cause\":\"No space left");
        let for_people = said.starts_with("error: cannot print\ncause: No space left");
        assert!(if words.contains(&"--json") { for_programs } else { for_people }, "{words:?}: {said}");
    }
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.args(["--state", "nowhere", "status"]).current_dir(folder.path());
    let status = command.stdout(full()).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(1), "not even that can be told, and it is no crash");
}
