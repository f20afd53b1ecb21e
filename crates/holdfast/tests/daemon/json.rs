//! What scripts rely on: every key that `docs/json.md` names is there, and no other.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::lab::signal;
use crate::quiet::{Quiet, out, vm};
use serde_json::Value;
use std::collections::BTreeSet;

pub type Keys = BTreeSet<String>;

pub fn doc() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/json.md");
    std::fs::read_to_string(path).unwrap()
}

/// The keys of the first `{..}` behind a text of the document; what is nested in it is left out.
pub fn shape(doc: &str, behind: &str) -> Keys {
    let from = doc.find(behind).unwrap_or_else(|| panic!("docs/json.md does not say `{behind}`"));
    let text = &doc[from + behind.len()..];
    let text = &text[text.find('{').unwrap() + 1..];
    let (mut depth, mut key, mut keys) = (0_i32, String::new(), Keys::new());
    let mut named = false;
    for c in text.chars() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ',' | ':' if depth == 0 => {
                if !named && !key.is_empty() {
                    keys.insert(std::mem::take(&mut key));
                }
                named = c == ':';
                if c == '}' {
                    return keys;
                }
                key.clear();
            }
            '}' | ']' => depth -= 1,
            c if depth == 0 && !named && (c.is_ascii_lowercase() || c == '_') => key.push(c),
            _ => {}
        }
    }
    panic!("docs/json.md: the shape behind `{behind}` does not end");
}

/// The names in the first column of the table behind a text.
fn column(doc: &str, behind: &str) -> Keys {
    let rows = doc[doc.find(behind).unwrap()..].lines().skip(2).take_while(|line| line.starts_with('|'));
    let first = rows.map(|row| row.split('|').nth(1).unwrap());
    first.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

pub fn keys(value: &Value) -> Keys {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}")).keys().cloned().collect()
}

fn both(one: Keys, other: &Keys) -> Keys {
    one.union(other).cloned().collect()
}

/// A daemon that has restarted a VM.
fn eventful() -> Quiet {
    let app = "[vm.b.app.web]\nprobe = \"tcp://127.0.0.1:1\"\n";
    let daemon = Quiet::running(&[vm("a", ""), vm("b", "autostart = false\n"), app.into()].concat());
    daemon.until("it runs", |daemon| daemon.vm("a")["state"] == "running");
    let before = daemon.vm("a");
    signal(i32::try_from(before["pid"].as_i64().unwrap()).unwrap(), "KILL");
    daemon.until("it is back", |daemon| {
        let vm = daemon.vm("a");
        vm["state"] == "running" && vm["incarnation"] != before["incarnation"] && vm["incident"].is_null()
    });
    daemon
}

#[test]
fn what_the_daemon_tells_has_the_documented_keys_and_no_others() {
    let (doc, daemon) = (doc(), eventful());
    let status = daemon.json(&["status"]);
    assert_eq!(keys(&status), shape(&doc, "## `holdfast status --json`"));
    let documented = column(&doc, "| VM field |");
    for vm in status["vms"].as_array().unwrap() {
        assert_eq!(keys(vm), documented);
        for channel in vm["channels"].as_object().unwrap().values() {
            assert_eq!(keys(channel), shape(&doc, "| `channels` |"));
        }
        for app in vm["apps"].as_array().unwrap() {
            assert_eq!(keys(app), shape(&doc, "| `apps` |"));
        }
    }
    assert_eq!(keys(&daemon.json(&["vm", "show", "a"])), documented);
    assert_eq!(daemon.json(&["vm", "list"]).as_array().unwrap().len(), 2);

    let incidents = daemon.json(&["incidents"]);
    let of_a = incidents.as_array().unwrap().iter().find(|incident| incident["vm"] == "a").unwrap();
    let incident = shape(&doc, "## `holdfast incidents --json`");
    assert_eq!(keys(of_a), incident);
    assert_eq!(keys(&of_a["remedies"][0]), shape(&doc, "remedies: ["));

    let explained = daemon.json(&["explain", &of_a["id"].to_string()]);
    assert_eq!(keys(&explained), both(shape(&doc, "The incident's fields, and"), &incident));
    for (list, behind) in
        [("evidence", "evidence: ["), ("ruled_out", "ruled_out: ["), ("timeline", "timeline: [")]
    {
        let documented = shape(&doc, behind);
        let list = explained[list].as_array().unwrap();
        assert!(!list.is_empty());
        list.iter().for_each(|one| assert_eq!(keys(one), documented));
    }
    assert_eq!(keys(&explained["plan"]), shape(&doc, "plan: "));

    let events = out(&daemon.say(&["events", "--json"]));
    assert!(events.lines().count() > 3);
    for line in events.lines() {
        assert_eq!(keys(&serde_json::from_str(line).unwrap()), shape(&doc, "## `holdfast events --json`"));
    }
    let console = daemon.vm("a")["console"].as_str().unwrap().to_owned();
    daemon.until("a line is kept", |daemon| {
        let mut file = std::fs::OpenOptions::new().append(true).open(&console).unwrap();
        std::io::Write::write_all(&mut file, b"a line on the console\n").unwrap();
        !out(&daemon.say(&["logs", "a", "--json"])).is_empty()
    });
    let first = |words: &[&str]| -> Value {
        serde_json::from_str(out(&daemon.say(words)).lines().next().unwrap()).unwrap()
    };
    assert_eq!(keys(&first(&["logs", "a", "--json"])), shape(&doc, "## `holdfast logs VM --json`"));
    let patterns = shape(&doc, "## `holdfast logs patterns VM --json`");
    assert_eq!(keys(&first(&["logs", "patterns", "a", "--json"])), patterns);
    let replay = daemon.json(&["replay"]);
    assert_eq!(keys(&replay), shape(&doc, "| `replay --json` |"));
    assert_eq!(replay["different"], 0);
    assert_eq!(keys(&daemon.json(&["reload"])), shape(&doc, "| `reload --json` |"));
}

#[test]
fn what_is_told_without_a_daemon_has_the_documented_keys_and_no_others() {
    let (doc, quiet) = (doc(), Quiet::new(&vm("a", "")));
    let list = |words: &[&str]| quiet.json(words).as_array().unwrap().clone();
    list(&["drill", "list"])
        .iter()
        .for_each(|one| assert_eq!(keys(one), shape(&doc, "## `holdfast drill list")));
    list(&["doctor"]).iter().for_each(|one| assert_eq!(keys(one), shape(&doc, "| `doctor --json` |")));
    assert_eq!(keys(&quiet.json(&["simulate", "--seeds", "1"])), shape(&doc, "| `simulate --json` |"));
    let fine = both(
        shape(&doc, "| `check --json` |"),
        &Keys::from(["vms", "host", "state", "socket"].map(str::to_owned)),
    );
    assert_eq!(keys(&quiet.json(&["check"])), fine);
    quiet.write("nonsense = 1\n");
    let wrong = both(shape(&doc, "| `check --json` |"), &Keys::from(["count".to_owned()]));
    let told = quiet.json(&["check"]);
    assert_eq!(keys(&told), wrong);
    assert_eq!(keys(&told["problems"][0]), shape(&doc, "each problem is"));
}
