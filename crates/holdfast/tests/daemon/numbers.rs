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
    for (words, why) in [
        (["metrics", "show", "a", "../logs"], "there is no series `../logs`"),
        (["metrics", "show", "b", "resident"], "there is no vm `b`"),
        (["metrics", "show", "../a", "resident"], "there is no vm"),
    ] {
        let said = daemon.say(&words);
        assert!(said.status.code() == Some(1) && err(&said).contains(why), "{words:?}: {}", err(&said));
    }
}
