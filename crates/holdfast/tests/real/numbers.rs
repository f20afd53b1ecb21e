//! Numbers of a user's own, from a real PostgreSQL, a real guest agent and this host.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::hands::turn;
use crate::lab::{Lab, SOON};
use serde_json::Value;

const NUMBERS: &str = r#"
[vm.orders.number.tables]
query = "select count(*) from pg_class"
unit = "tables"
every = "1s"

[vm.orders.number.writes]
query = "create table harm (n int)"
every = "1s"

[vm.orders.number.wal]
query = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"
kind = "total"
unit = "B"
every = "1s"

[vm.orders.number.processes]
guest_command = ["sh", "-c", "ls -d /proc/[0-9]* | wc -l"]
every = "2s"

[vm.orders.number.absent]
guest_command = ["cat", "/no/such/file"]
every = "2s"

[vm.orders.number.here]
command = ["/bin/echo", "-0.5"]
every = "1s"
"#;

fn series(lab: &Lab, name: &str) -> Option<Value> {
    let list = lab.json(&["metrics", "show", "orders"]);
    let name = format!("number:{name}");
    list["series"].as_array().unwrap().iter().find(|one| one["series"] == name.as_str()).cloned()
}

#[test]
fn a_query_a_command_in_the_guest_and_one_of_this_host_tell_numbers_and_harm_nothing() {
    let _turn = turn();
    let lab = Lab::running(NUMBERS);
    let value = |lab: &Lab, name: &str| series(lab, name).and_then(|one| one["last"].as_f64());
    for name in ["tables", "wal", "processes", "here"] {
        lab.until(SOON, name, |lab| value(lab, name).is_some());
    }
    assert!(value(&lab, "tables").unwrap() > 100.0);
    assert!(value(&lab, "processes").unwrap() > 5.0);
    assert_eq!(value(&lab, "here"), Some(-0.5));
    assert!(value(&lab, "wal").unwrap() >= 0.0);
    assert_eq!(series(&lab, "wal").unwrap()["unit"], "B/s");
    let why = |lab: &Lab, name: &str| {
        series(lab, name).and_then(|one| Some(one["trouble"].as_str()?.to_owned())).unwrap_or_default()
    };
    lab.until(SOON, "a write is refused", |lab| why(lab, "writes").contains("read-only transaction"));
    lab.until(SOON, "a failure in the guest is told", |lab| {
        why(lab, "absent").contains("exit code 1") && why(lab, "absent").contains("No such file")
    });
    let own = lab.incidents().into_iter().filter(|incident| incident["vm"] == "orders").count();
    assert_eq!(own, 0, "{}", lab.story());
}
