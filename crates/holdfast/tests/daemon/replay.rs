//! What a daemon has decided is decided again from its journal; another policy decides otherwise.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::lab::signal;
use crate::quiet::{Quiet, out, vm};
use std::fs;

#[test]
fn a_recovery_is_replayed_byte_for_byte_and_another_policy_shows_what_it_would_have_done() {
    let mut daemon = Quiet::running(&vm("a", ""));
    let pid = |daemon: &Quiet| daemon.vm("a")["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    daemon.until("it runs", |daemon| daemon.vm("a")["state"] == "running" && pid(daemon).is_some());
    let killed = pid(&daemon).unwrap();
    signal(killed, "KILL");
    daemon.until("it runs again", |daemon| pid(daemon).is_some_and(|pid| pid != killed));
    daemon.until("it is on record", |daemon| daemon.vm("a")["state"] == "running");
    daemon.kill();

    let replayed = daemon.say(&["replay"]);
    assert!(replayed.status.success(), "{}", out(&replayed));
    assert!(out(&replayed).contains("the same actions, byte for byte"), "{}", out(&replayed));
    let with = |config: &str| {
        let other = daemon.path().join("other.toml");
        fs::write(&other, format!("host = \"atlas\"\nstate = \"state\"\n{config}")).unwrap();
        let replayed = daemon.say(&["replay", "--with", other.to_str().unwrap()]);
        assert!(replayed.status.success(), "{}", out(&replayed));
        out(&replayed)
    };
    let same = with(&vm("a", ""));
    assert!(same.contains("the other policy would have done the same"), "{same}");
    let watching = with(&vm("a", "mode = \"observe\"\n"));
    assert!(watching.contains("steps would have come out otherwise"), "{watching}");
    assert!(watching.contains("take-lease a; now: nothing"), "{watching}");
}
