//! Drills whose fault no remedy of Holdfast helps against: it is named, nobody is thrown out for anything else, and it is
//! over when the drill is.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::hands::{Start, own, remedies_of, untouched_for};
use crate::lab::{Lab, SOON};
use crate::rows::{address, ask};
use serde_json::Value;
use std::time::Duration;

/// Longer than a closed incident takes to be opened again by the lines that opened it.
const LONG_ENOUGH: Duration = Duration::from_secs(15);
const STARTED: &str = "select pg_postmaster_start_time()";

/// Holds a drill, which must pass. The incident that it was named in, and all others of the VM since.
fn held(lab: &Lab, drill: &str) -> (Value, Vec<Value>) {
    lab.wait_well(SOON);
    let before = own(lab).len();
    let report = lab.json(&["drill", "run", drill, "--vm", "orders", "--yes"]);
    assert_eq!(report["ok"], true, "{report:#}\n{}", lab.story());
    assert_eq!(report["rows_lost"], 0, "{report:#}");
    let mut all = own(lab);
    all.truncate(all.len() - before);
    let at = all.iter().position(|incident| incident["id"] == report["incident"]).unwrap();
    (all.remove(at), all)
}

/// The lines that prove what an incident was named, as `explain` shows them among their neighbours.
fn proving(lab: &Lab, incident: &Value) -> Vec<String> {
    let explained = lab.json(&["explain", &incident.to_string()]);
    let evidence = explained["evidence"].as_array().unwrap();
    let lines =
        evidence.iter().flat_map(|one| one["lines"]["records"].as_array().cloned().unwrap_or_default());
    lines
        .filter(|line| line["proves"] == true)
        .map(|line| line["text"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_dropped_port_and_deleted_data_are_named_by_their_drills_and_nothing_is_done_for_another_cause() {
    let lab = Lab::running("");
    let (start, place) = (Start::of(&lab, "orders"), address(&lab));
    let before = ask(&place, STARTED).unwrap();

    let (cut_off, others) = held(&lab, "port-dropped");
    assert_eq!(cut_off["fault"], "AppCutOff", "{cut_off:#}\n{}", lab.story());
    assert_eq!(cut_off["resolution"], "healed", "{cut_off:#}");
    assert_eq!(others, Vec::<Value>::new(), "{}", lab.story());
    assert_eq!(lab.remedies(), Vec::<String>::new(), "{}", lab.story());
    assert_eq!(Start::of(&lab, "orders"), start, "{}", lab.story());
    assert_eq!(ask(&place, STARTED).unwrap(), before, "the database was not restarted");

    let (damaged, others) = held(&lab, "data-deleted");
    assert_eq!(damaged["fault"], "CorruptionReported", "{damaged:#}\n{}", lab.story());
    let proofs = proving(&lab, &damaged["id"]);
    let says = |words: &str| proofs.iter().any(|line| line.contains(words));
    assert!(says("No such file or directory") || says("lock file"), "{proofs:?}");
    // A database that gave up over it is down, and is started again; nobody is thrown out for anything else.
    for incident in others.iter().chain([&damaged]) {
        let (done, id) = (remedies_of(incident), incident["id"].to_string());
        let down = || lab.json(&["explain", &id])["timeline"].to_string().contains("AppDown");
        assert!(done.is_empty() || (done == ["restart-app"] && down()), "{incident:#}\n{}", lab.story());
    }

    let over = own(&lab);
    untouched_for(&lab, "orders", LONG_ENOUGH, || assert_eq!(own(&lab), over, "{}", lab.story()));
    lab.wait_well(SOON);
    assert_eq!(Start::of(&lab, "orders"), start, "{}", lab.story());
    assert!(lab.cli(&["replay"]).status.success(), "the journal replays byte for byte");
}
