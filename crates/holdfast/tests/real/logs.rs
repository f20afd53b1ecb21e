//! Logs of a real guest: a file and a journal read by its real agent, and syslog through its network.
//!
//! The guest has no systemd: its `journalctl` is a script of the test that answers as the real one does.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::hands::{self, turn};
use crate::lab::{Lab, SOON};
use serde_json::Value;
use std::net::TcpListener;

/// Prints entries 1 to 5, each behind the cursor that it is given; `--lines=1` prints the first.
const JOURNALCTL: &str = r#"#!/bin/sh
after=0
for word; do case $word in
  --after-cursor=s=fake\;i=*) after=${word##*=} ;;
  --lines=1) last=1 ;;
esac; done
for i in 1 2 3 4 5; do
  [ $i -gt $after ] && echo "{\"__CURSOR\":\"s=fake;i=$i\",\"MESSAGE\":\"entry $i\",\"PRIORITY\":\"3\",\"_COMM\":\"app\"}"
  [ "$last" ] && exit
done
"#;

/// The text of what is kept of the VM from this source, from the oldest on.
fn kept(lab: &Lab, source: &str) -> Vec<String> {
    let text = |one: Value| one["text"].as_str().map(ToOwned::to_owned);
    hands::kept(lab, "orders", source).into_iter().filter_map(text).collect()
}

#[test]
fn a_guests_file_journal_and_syslog_are_read_and_its_agent_still_answers() {
    let _turn = turn();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let lab = Lab::running(&format!(
        "[logs.syslog]\ntcp = \"127.0.0.1:{port}\"\n\
         [vm.orders.log.app]\nguest_file = \"/var/log/app*.log\"\n\
         [vm.orders.log.journal]\njournal = true\n\
         [vm.orders.log.sent]\naddress = [\"127.0.0.1\"]\n"
    ));
    let state = |source: &str| {
        let doc = lab.json(&["logs", "sources"]);
        let sources = doc["sources"].as_array().unwrap().clone();
        let found = sources.into_iter().find(|one| one["source"] == source);
        found.map(|one| format!("{} {}", one["state"], one["why"])).unwrap_or_default()
    };
    lab.until(SOON, "no file fits yet", |_| state("guest file /var/log/app*.log").contains("no file fits"));
    lab.until(SOON, "there is no journal", |_| state("journal").contains("journalctl"));

    lab.in_guest("orders", "echo one > /var/log/app.log; echo two >> /var/log/app.log");
    let file = "guest file /var/log/app.log";
    lab.until(SOON, "the file is read", |lab| kept(lab, file) == ["one", "two"]);
    lab.in_guest(
        "orders",
        "echo three >> /var/log/app.log; mv /var/log/app.log /var/log/app.log.1; echo four > /var/log/app.log",
    );
    lab.until(SOON, "it is read through its rotation", |lab| {
        kept(lab, file) == ["one", "two", "three", "four"]
    });

    let script = format!("cat > /usr/bin/journalctl <<'END'\n{JOURNALCTL}END\nchmod +x /usr/bin/journalctl");
    lab.in_guest("orders", &script);
    let entries = ["entry 2", "entry 3", "entry 4", "entry 5"];
    lab.until(SOON, "the journal is read behind its first entry", |lab| kept(lab, "journal") == entries);

    lab.in_guest("orders", &format!("echo '<11>from the guest' | busybox nc 10.0.2.2 {port}"));
    lab.until(SOON, "a message of the guest comes", |lab| kept(lab, "syslog") == ["from the guest"]);

    let vm = lab.vm("orders");
    assert_eq!(vm["channels"]["agent"]["state"], "ok", "{vm}");
    // This host may be busy with other tests; the VM is well.
    let of_vm: Vec<Value> =
        lab.incidents().into_iter().filter(|incident| incident["vm"] == "orders").collect();
    assert_eq!(of_vm, Vec::<Value>::new(), "{}", lab.story());
}
