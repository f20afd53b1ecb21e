//! Logs of a real guest: a file and a journal read by its real agent, and syslog through its network.
//!
//! The guest has no systemd: its `journalctl` is a script of the test that answers as the real one does.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::hands::{self, own};
use crate::lab::{BOOT, Lab, SOON};
use serde_json::Value;
use std::net::TcpListener;
use std::time::Duration;

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
    lab.until(BOOT, "no file fits yet", |_| state("guest file /var/log/app*.log").contains("no file fits"));
    lab.until(BOOT, "there is no journal", |_| state("journal").contains("journalctl"));

    lab.in_guest("orders", "echo one > /var/log/app.log; echo two >> /var/log/app.log");
    let file = "guest file /var/log/app.log";
    lab.until(BOOT, "the file is read", |lab| kept(lab, file) == ["one", "two"]);
    lab.in_guest(
        "orders",
        "echo three >> /var/log/app.log; mv /var/log/app.log /var/log/app.log.1; echo four > /var/log/app.log",
    );
    lab.until(BOOT, "it is read through its rotation", |lab| {
        kept(lab, file) == ["one", "two", "three", "four"]
    });

    let script = format!("cat > /usr/bin/journalctl <<'END'\n{JOURNALCTL}END\nchmod +x /usr/bin/journalctl");
    lab.in_guest("orders", &script);
    let entries = ["entry 2", "entry 3", "entry 4", "entry 5"];
    lab.until(BOOT, "the journal is read behind its first entry", |lab| kept(lab, "journal") == entries);

    lab.in_guest("orders", &format!("echo '<11>from the guest' | busybox nc 10.0.2.2 {port}"));
    lab.until(SOON, "a message of the guest comes", |lab| kept(lab, "syslog") == ["from the guest"]);

    lab.until(SOON, "its agent answers", |lab| lab.vm("orders")["channels"]["agent"]["state"] == "ok");
    assert_eq!(own(&lab), Vec::<Value>::new(), "{}", lab.story());
}

/// The guest counts on its console, ten times a second, while the daemon is killed and away.
#[test]
fn a_guests_console_goes_on_where_it_was_when_the_daemon_was_away() {
    let mut lab = Lab::running("");
    let count = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo \"tick $i\" >/dev/ttyS0; sleep 0.1; done";
    lab.in_guest("orders", &format!("({count}) </dev/null >/dev/null 2>&1 &"));
    let ticks = |lab: &Lab| -> Vec<u32> {
        let number = |text: &String| text.strip_prefix("tick ")?.trim().parse().ok();
        kept(lab, "console").iter().filter_map(number).collect()
    };
    lab.until(SOON, "it counts", |lab| ticks(lab).len() > 10);
    for _ in 0..2 {
        let before = ticks(&lab).len();
        lab.kill_daemon();
        std::thread::sleep(Duration::from_secs(3)); // the guest goes on meanwhile
        lab.start();
        lab.until(SOON, "it counts on", |lab| ticks(lab).len() > before + 40);
    }
    let ticks = ticks(&lab);
    let expected: Vec<u32> = (ticks[0]..).take(ticks.len()).collect();
    assert_eq!(ticks, expected, "each once, in order");
    assert_eq!(own(&lab), Vec::<Value>::new(), "{}", lab.story());
}
