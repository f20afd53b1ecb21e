//! What is measured is listed, kept over a restart, shown by command line and API, and bounded in what may be asked.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::quiet::{Quiet, err, out, vm};
use serde_json::Value;

fn names(doc: &Value) -> Vec<String> {
    let series = doc["series"].as_array().unwrap();
    series.iter().map(|series| series["series"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_is_measured_is_listed_kept_over_a_restart_and_shown() {
    let mut daemon = Quiet::running(&vm("a", ""));
    daemon.until("its numbers are listed", |daemon| {
        names(&daemon.json(&["metrics", "show", "a"])).contains(&"processor".to_owned())
    });
    let host = daemon.json(&["metrics", "show"]);
    assert!(names(&host).contains(&"memory".to_owned()), "{host}");
    daemon.stop();
    daemon.start(&[]);
    let list = daemon.json(&["metrics", "show", "a"]);
    let resident = list["series"].as_array().unwrap().iter().find(|one| one["series"] == "resident").unwrap();
    assert_eq!((resident["unit"].as_str(), resident["subject"].as_str()), (Some("B"), Some("vm a")));
    assert!(resident["day"]["min"].as_f64().unwrap() > 1e6 && resident["last"].is_number(), "{resident}");
    let rows = daemon.json(&["metrics", "show", "a", "resident", "--since", "10m", "--step", "1m"]);
    assert_eq!(rows["step_s"], 60.0);
    let first = &rows["rows"][0];
    assert!(first["min"].as_f64().unwrap() <= first["max"].as_f64().unwrap(), "{rows}");
    let csv = out(&daemon.say(&["metrics", "show", "a", "resident", "--csv"]));
    assert!(csv.starts_with("timestamp,value,min,max\n") && csv.lines().count() > 1, "{csv}");
    let drawn = out(&daemon.say(&["metrics", "show", "a", "resident"]));
    assert!(drawn.contains("resident memory of a") && drawn.contains("MiB"), "{drawn}");
    let table = out(&daemon.say(&["metrics", "show", "a"]));
    assert!(table.contains("resident") && table.contains('%'), "{table}");
    for (words, code, why) in [
        (["metrics", "show", "a", "../logs"], 1, "there is no series `../logs`"),
        (["metrics", "show", "b", "resident"], 1, "there is no vm `b`"),
        (["metrics", "show", "../a", "resident"], 2, "there is no vm"),
    ] {
        let said = daemon.say(&words);
        assert!(said.status.code() == Some(code) && err(&said).contains(why), "{words:?}: {}", err(&said));
    }
}

/// A series of VM `a`, if it is listed.
fn series(daemon: &Quiet, name: &str) -> Option<Value> {
    let list = daemon.json(&["metrics", "show", "a"]);
    list["series"].as_array().unwrap().iter().find(|one| one["series"] == name).cloned()
}

#[test]
fn numbers_of_ones_own_are_shown_with_their_unit_and_those_that_fail_with_the_reason_told_once() {
    let number = |name: &str, script: &str, more: &str| {
        format!(
            "[vm.a.number.{name}]\ncommand = [\"/bin/sh\", \"-c\", \"{script}\"]\nevery = \"1s\"\n{more}\n"
        )
    };
    let hostile = "printf '\\\\033[2J42'; yes | head -c 3000";
    let config = [
        vm("a", ""),
        number("queue", "echo 42; echo a warning >&2", "unit = \"jobs\""),
        number("odd", hostile, ""),
        number("hangs", "sleep 1000", "timeout = \"200ms\""),
        number("missing", "exit 3", ""),
    ];
    let daemon = Quiet::running(&config.concat());
    daemon.until("it is measured", |daemon| series(daemon, "number:queue").is_some());
    let queue = series(&daemon, "number:queue").unwrap();
    assert_eq!((&queue["last"], &queue["unit"]), (&42.0.into(), &"jobs".into()));
    assert_eq!((&queue["says"], &queue["trouble"]), (&"number queue of a".into(), &Value::Null));
    for (name, why) in
        [("odd", "it answers `\\x1b[2J42"), ("hangs", "did not end within 0.2s"), ("missing", "exit code 3")]
    {
        let name = format!("number:{name}");
        daemon.until(&name, |daemon| series(daemon, &name).is_some());
        let one = series(&daemon, &name).unwrap();
        let said = one["trouble"].as_str().unwrap();
        assert!(said.contains(why) && said.len() < 300 && !said.contains('\u{1b}'), "{name}: {said}");
        assert!(one["at"].is_null() && one["last"].is_null(), "{one}");
    }
    let table = out(&daemon.say(&["metrics", "show", "a"]));
    assert!(table.contains("42 jobs") && table.contains("cannot be had: exit code 3"), "{table}");
    let told = daemon.log().matches("a number cannot be had").count();
    assert_eq!(told, 3, "each once, however often it fails: {}", daemon.log());

    let again = [vm("a", ""), number("missing", "echo 7", ""), number("queue", "echo 42", "unit = \"rows\"")];
    daemon.write(&again.concat());
    let changed = daemon.json(&["reload"])["changed"][0]["at_once"].clone();
    assert_eq!(changed, serde_json::json!(["number.hangs", "number.missing", "number.odd", "number.queue"]));
    daemon.until("what is mended is had", |daemon| {
        series(daemon, "number:missing").is_some_and(|one| one["last"] == 7.0 && one["trouble"].is_null())
    });
    assert!(series(&daemon, "number:odd").is_none(), "nobody asks for it any more");
    assert_eq!(series(&daemon, "number:queue").unwrap()["unit"], "rows");
}
