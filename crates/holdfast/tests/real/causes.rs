//! Causes that a database names itself, on the console of a real guest or in a file of it: each is named with the line
//! that proves it, and nothing is restarted, for no restart helps.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::hands::{Start, own, told, untouched_for};
use crate::lab::{BOOT, Lab, SOON, runtime};
use crate::rows::{Rows, address, ask, ask_as, connect};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Longer than any time after which Holdfast would have acted.
const LONG_ENOUGH: Duration = Duration::from_secs(12);
const STARTED: &str = "select pg_postmaster_start_time()";

/// Clients that take every connection there is, for as long as this lives.
struct Crowd {
    runtime: tokio::runtime::Runtime,
    clients: Vec<tokio_postgres::Client>,
}

impl Crowd {
    /// Takes connections until none is given any more, also none that another has just left.
    fn gather(address: &str) -> Self {
        let (runtime, mut clients) = (runtime(), Vec::new());
        let mut refused = None;
        let began = Instant::now();
        while refused.is_none_or(|since: Instant| since.elapsed() < Duration::from_secs(3)) {
            assert!(began.elapsed() < BOOT, "it takes {} and more", clients.len());
            match runtime.block_on(connect(address, "orders", "orders")) {
                Ok(client) => clients.push(client),
                Err(said) if said.contains("connection slots") || said.contains("too many clients") => {
                    refused.get_or_insert_with(Instant::now);
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(_) => {} // slow, on a busy machine
            }
        }
        Self { runtime, clients }
    }

    fn all_are_served(&self) {
        for client in &self.clients {
            let answer = self.runtime.block_on(client.simple_query("select 1"));
            assert!(answer.is_ok(), "one who is in was thrown out: {answer:?}");
        }
    }
}

/// The open incident with this fault.
fn open(lab: &Lab, fault: &str) -> Option<Value> {
    lab.incidents().into_iter().find(|incident| incident["fault"] == fault && incident["closed"].is_null())
}

/// How the VM is shown, and what its hypervisor says.
fn state(lab: &Lab) -> String {
    let vm = lab.vm("orders");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    format!("{} {}", text(&vm["state"]), text(&vm["channels"]["hypervisor"]["state"]))
}

/// Waits until this fault is told of as confirmed; returns what `explain` says of it.
fn named(lab: &Lab, fault: &str) -> String {
    let sure = |lab: &Lab| open(lab, fault).filter(|incident| incident["phase"] == "held");
    lab.until(SOON, &format!("{fault} is named"), |lab| sure(lab).is_some());
    let incident = sure(lab).unwrap();
    let explained = lab.json(&["explain", &incident["id"].to_string()]);
    explained.to_string()
}

#[test]
fn a_database_without_a_connection_left_is_named_with_its_own_words_and_heals_by_itself() {
    let lab = Lab::running("");
    let place = address(&lab);
    let (start, before) = (Start::of(&lab, "orders"), ask(&place, STARTED).unwrap());
    let rows = Rows::start(&lab);

    let crowd = Crowd::gather(&place);
    let explained = named(&lab, "OutOfConnections");
    assert!(explained.contains("FATAL:  remaining connection slots are reserved"), "{explained}");
    assert!(explained.contains("postgres has no connection left"), "{explained}");
    assert!(explained.contains("console, "), "its log is heard too: {explained}");
    untouched_for(&lab, "orders", LONG_ENOUGH, || {
        rows.wait_for_more(&lab);
        lab.until(SOON, "who is not in, is not served", |lab| state(lab) == "held ok");
    });
    crowd.all_are_served();
    drop(crowd);

    let healed = lab.wait_closed("OutOfConnections", SOON);
    lab.wait_well(SOON);
    assert_eq!(healed["remedies"], serde_json::json!([]), "{healed}");
    assert_eq!(own(&lab).len(), 1, "{}", lab.story());
    assert_eq!(Start::of(&lab, "orders"), start);
    assert_eq!(ask(&place, STARTED).unwrap(), before, "the database was not restarted");
    rows.all_there(&lab);
}

/// A copy of a database is made file by file, past the cache of PostgreSQL: what is damaged in the copy before anybody
/// reads it is read from the disk.
fn damaged_copy(lab: &Lab, place: &str) {
    // Who hears no answer in time asks again; what was asked for may be there by then.
    let make = [
        ("postgres", "create database sound", "select 1 from pg_database where datname = 'sound'"),
        (
            "sound",
            "create table pages as select n, repeat('x', 500) from generate_series(1, 1000) n",
            "select 1 from pg_class where relname = 'pages'",
        ),
        (
            "postgres",
            "create database damaged template sound strategy file_copy",
            "select 1 from pg_database where datname = 'damaged'",
        ),
    ];
    for (database, query, made) in make {
        let ask = |query| ask_as(place, "postgres", database, query);
        let is_there = || ask(made).is_some_and(|rows| !rows.is_empty());
        lab.until(BOOT, query, |_| is_there() || ask(query).is_some());
    }
    let path = ask_as(place, "postgres", "damaged", "select pg_relation_filepath('pages')").unwrap();
    let file = format!("/var/lib/postgresql/*/main/{}", path[0]);
    let done = "holdfast-test: damaged";
    let damage = format!(
        "f=$(echo {file}); dd if=/dev/urandom of=$f bs=8192 seek=7 count=1 conv=notrunc && echo {done} > /dev/console"
    );
    lab.in_guest("orders", &damage);
    let console = lab.vm("orders")["console"].as_str().unwrap().to_owned();
    lab.until(SOON, "a page is damaged", |_| {
        String::from_utf8_lossy(&std::fs::read(&console).unwrap()).contains(done)
    });
}

/// From now on PostgreSQL logs to a file and no longer to the console. That takes a restart, which is announced.
fn log_to_a_file(lab: &Lab, place: &str) {
    told(lab, &["vm", "maintenance", "orders", "on"]);
    for (name, value) in
        [("logging_collector", "on"), ("log_directory", "/var/log/postgresql"), ("log_filename", "main.log")]
    {
        let query = format!("alter system set {name} = '{value}'");
        lab.until(SOON, &query, |_| ask_as(place, "postgres", "postgres", &query).is_some());
    }
    let before = ask(place, STARTED).unwrap();
    let restart =
        "mkdir -p /var/log/postgresql && chown postgres /var/log/postgresql && service postgresql restart";
    lab.in_guest("orders", restart);
    lab.until(SOON, "the database runs anew", |_| ask(place, STARTED).is_some_and(|now| now != before));
    told(lab, &["vm", "maintenance", "orders", "off"]);
    lab.wait_well(SOON);
}

#[test]
fn a_database_that_reads_a_damaged_page_is_named_with_its_line_and_left_alone() {
    let lab = Lab::running(
        "[vm.orders.log.postgres]\nguest_file = \"/var/log/postgresql/*.log\"\napp = \"postgres\"\n",
    );
    let place = address(&lab);
    log_to_a_file(&lab, &place);
    damaged_copy(&lab, &place);
    let (start, before) = (Start::of(&lab, "orders"), ask(&place, STARTED).unwrap());
    let rows = Rows::start(&lab);
    assert_eq!(own(&lab), Vec::<Value>::new(), "{}", lab.story());

    assert!(ask_as(&place, "postgres", "damaged", "select count(*) from pages").is_none());
    let explained = named(&lab, "CorruptionReported");
    assert!(explained.contains("guest file /var/log/postgresql/main.log, "), "{explained}");
    assert!(explained.contains("\"proves\":true"), "among the lines around it: {explained}");
    let line = |line| explained.contains(line);
    assert!(line("ERROR:  invalid page in block 7 of relation base/") || line("page verification failed"));
    untouched_for(&lab, "orders", LONG_ENOUGH, || {
        rows.wait_for_more(&lab);
        lab.until(SOON, "it serves and runs", |lab| state(lab) == "running ok"); // one answer may be late
    });

    for query in ["drop database if exists damaged", "drop database if exists sound"] {
        lab.until(BOOT, query, |_| ask_as(&place, "postgres", "postgres", query).is_some());
    }
    lab.until(SOON, "it serves and runs", |lab| state(lab) == "running ok");
    told(&lab, &["vm", "release", "orders"]);
    let ended = lab.wait_closed("CorruptionReported", SOON);
    assert_eq!(ended["resolution"], "superseded", "{ended}");
    assert!(ended["outage_s"].as_f64().unwrap() < 5.0, "an answer may be late: {ended}");
    assert_eq!(own(&lab).len(), 1, "{}", lab.story());
    assert_eq!(lab.remedies(), Vec::<String>::new(), "{}", lab.story());
    assert_eq!(Start::of(&lab, "orders"), start);
    assert_eq!(ask(&place, STARTED).unwrap(), before, "the database was not restarted");
    rows.all_there(&lab);
}

#[test]
fn a_password_that_was_changed_is_shown_with_the_line_of_the_database_that_refused_it() {
    let mut lab = Lab::changed(|config| config + "password_file = \"password\"\n");
    let file = lab.path().join("password");
    std::fs::write(&file, "before").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    lab.start_warm(&["orders"]);
    let place = address(&lab);
    let start = Start::of(&lab, "orders");
    let change = "alter role orders password 'after'";
    lab.until(SOON, change, |_| ask_as(&place, "postgres", "postgres", change).is_some());
    let ask_for_it = "cd /var/lib/postgresql/*/main && sed -i '1i host all orders all scram-sha-256' pg_hba.conf && \
                      kill -HUP $(head -1 postmaster.pid)";
    lab.in_guest("orders", ask_for_it);

    named(&lab, "ProbeBroken");
    let proof = |lab: &Lab| {
        let told: Value = serde_json::from_str(&named(lab, "ProbeBroken")).unwrap();
        let evidence = told["evidence"].as_array().unwrap().iter();
        let records = evidence.filter_map(|one| one["lines"]["records"].as_array()).flatten();
        let mut proofs = records.filter(|record| record["proves"] == true);
        proofs.next().map(|record| record["text"].as_str().unwrap().to_owned())
    };
    lab.until(SOON, "its line is written", |lab| proof(lab).is_some());
    let line = proof(&lab).unwrap();
    assert!(line.contains("FATAL:  password authentication failed for user \"orders\""), "{line}");
    assert_eq!(lab.remedies(), Vec::<String>::new(), "{}", lab.story());
    assert_eq!(Start::of(&lab, "orders"), start);
}
