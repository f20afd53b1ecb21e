//! The demo, as a new user runs it, with one fault for all five; and broken off.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::hands::{Ends, turn};
use crate::lab::{BOOT, holdfast, image, signal, vms_of};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn demo(words: &[&str]) -> Command {
    let mut command = holdfast();
    command.args(["demo", "--tcg", "--image"]).arg(image()).args(words).stdin(Stdio::null());
    command
}

/// Nothing of it runs any more, and its folder is gone.
fn nothing_is_left(folder: &Path) {
    assert_eq!(vms_of(folder), Vec::<i32>::new());
    assert!(!folder.exists(), "{} is left", folder.display());
}

/// The folder that the demo says it works in.
fn folder(line: &str) -> Option<PathBuf> {
    line.strip_prefix("state folder ").map(PathBuf::from)
}

#[test]
fn the_demo_ends_with_a_table_and_leaves_nothing_behind() {
    let _turn = turn();
    let shown = demo(&["--faults", "app-kill"]).output().unwrap();
    let said = String::from_utf8_lossy(&shown.stdout).into_owned();
    let trouble = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(shown.status.success(), "{said}{trouble}");
    for word in ["app-kill", "AppDown", "restart-app"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    nothing_is_left(&said.lines().find_map(folder).unwrap());
}

#[test]
fn a_demo_that_is_told_to_end_ends_all_that_it_started() {
    let _turn = turn();
    for name in ["TERM", "INT", "HUP"] {
        let mut demo = Ends(
            demo(&["--faults", "vm-kill"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap(),
        );
        let mut said = BufReader::new(demo.0.stdout.take().unwrap()).lines().map_while(Result::ok);
        let folder = said.find_map(|line| folder(&line)).unwrap();
        let began = std::time::Instant::now();
        while vms_of(&folder).is_empty() {
            assert!(began.elapsed() < BOOT, "no guest is started");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        signal(demo.pid(), name);
        assert_eq!(demo.0.wait().unwrap().code(), Some(1), "{name}");
        nothing_is_left(&folder);
    }
}
