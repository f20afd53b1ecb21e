//! A guest whose agent is an enemy, on a real virtio port.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::hands::{Start, turn};
use crate::lab::{BOOT, Lab};
use crate::rows::Rows;
use std::fs;

const AGENT: &str = include_str!("hostile_agent.sh");
/// What a session with an agent may take, and some air.
const MORE: u64 = 48 << 20;

/// Resident memory of a process, in bytes.
fn resident(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

fn is_tame(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || !c.is_control())
}

#[test]
fn an_agent_that_floods_lies_and_drips_harms_nobody_and_is_shown_escaped_r32_a11_a16() {
    let _turn = turn();
    let lab = Lab::running("");
    let rows = Rows::start(&lab);
    let daemon = lab.daemon_pid();
    let before = resident(daemon);
    let console = lab.vm("orders")["console"].as_str().unwrap().to_owned();
    let said = |mark: &str| fs::read_to_string(&console).is_ok_and(|lines| lines.contains(mark));

    let take_over = format!("cat > /etc/agent <<'END'\n{AGENT}END\nkill $(pidof qemu-ga)");
    lab.in_guest("orders", &take_over);
    let (start, mut told) = (Start::of(&lab, "orders"), false);
    lab.until(BOOT, "the agent has said all it has to say", |lab| {
        let now = resident(daemon);
        assert!(now < before + MORE, "{now} bytes, {before} before");
        for words in [&["status"][..], &["incidents"], &["events", "-n", "200"]] {
            let shown = lab.cli(words);
            let text = String::from_utf8_lossy(&shown.stdout).into_owned();
            assert!(shown.status.code() != Some(1) && is_tame(&text), "{text:?}");
            told |= text.contains("file system /\\u{1b}]0;owned");
        }
        assert_eq!(Start::of(lab, "orders"), start, "{}", lab.story());
        said("hostile: over")
    });
    assert!(told, "its lie of a full disk is told, escaped: {}", lab.story());
    for kind in ["endless", "deep", "numbers", "old", "drip", "junk", "lies"] {
        assert!(said(&format!("hostile: {kind}")), "{kind}: {}", lab.story());
    }
    rows.wait_for_more(&lab);

    assert_eq!(lab.daemon_pid(), daemon);
    assert_eq!(lab.vm("orders")["apps"][0]["state"], "ok", "the application is still asked: {}", lab.story());
    assert!(lab.remedies().is_empty(), "{}", lab.story());
    let log = fs::read_to_string(lab.path().join("daemon.log")).unwrap();
    assert!(is_tame(&log), "{log:?}");
    rows.all_there(&lab);
}
