//! A guest as most people have them: Debian with systemd, its journal, rsyslog, and PostgreSQL as it is packaged.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::hands::kept;
use crate::lab::{self, Lab, SOON};
use serde_json::Value;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// systemd takes five times as long to boot as the demo guest.
const BOOT: Duration = Duration::from_secs(300);

/// The folder of the guest's image, built once and cached.
fn image() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest/systemd.sh");
    let built = Command::new("bash").arg(script).arg("--quiet").output().expect("bash");
    assert!(built.status.success(), "the guest with systemd: {}", String::from_utf8_lossy(&built.stderr));
    PathBuf::from(String::from_utf8_lossy(&built.stdout).lines().last().unwrap())
}

/// A laboratory whose VM is that guest, its daemon not started yet.
fn laboratory(more: &str) -> Lab {
    let (demo, image) = (lab::image().display().to_string(), image());
    let lab = Lab::changed(|config| config.replace(&demo, &image.display().to_string()) + more);
    let mut overlay = Command::new("qemu-img");
    overlay.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(image.join("base.raw"));
    assert!(overlay.arg(lab.path().join("orders.qcow2")).status().unwrap().success());
    lab
}

/// What the program `shop` said of `word`, as kept from this source.
fn told(lab: &Lab, source: &str, word: &str) -> Vec<Value> {
    let about = |one: &Value| {
        one["program"] == "shop" && one["text"].as_str().is_some_and(|text| text.contains(word))
    };
    kept(lab, "orders", source).into_iter().filter(about).collect()
}

#[test]
fn the_journal_of_systemd_is_read_by_cursor_and_forwarded_and_its_service_is_restarted() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut lab = laboratory(&format!(
        "[logs.syslog]\ntcp = \"127.0.0.1:{port}\"\n\
         [vm.orders.log.journal]\njournal = true\n\
         [vm.orders.log.sent]\naddress = [\"127.0.0.1\"]\n"
    ));
    lab.start();
    lab.wait_well(BOOT);

    // Pulled through the agent, with what journald knows of the sender.
    lab.until(SOON, "the journal is read", |lab| {
        lab.in_guest("orders", "logger -t shop -p user.err 'payment one is lost'");
        !told(lab, "journal", "payment one").is_empty()
    });
    let one = told(&lab, "journal", "payment one").remove(0);
    assert_eq!(one["severity"], "error", "{one}");

    // Read on behind its cursor by another daemon: what came meanwhile comes, once.
    lab.kill_daemon();
    let agent = lab.state().join("run/orders/vm/agent");
    assert!(lab::in_guest_at(&agent, "logger -t shop 'payment two is lost'"));
    lab.start();
    lab.wait_well(SOON);
    lab.until(SOON, "it goes on where it was", |lab| !told(lab, "journal", "payment two").is_empty());
    lab.in_guest("orders", "logger -t shop 'payment three is lost'");
    lab.until(SOON, "and reads on", |lab| !told(lab, "journal", "payment three").is_empty());
    assert_eq!(told(&lab, "journal", "payment two").len(), 1);

    // Forwarded by rsyslog, as it comes packaged.
    let forward = format!(
        "echo '*.* action(type=\"omfwd\" target=\"10.0.2.2\" port=\"{port}\" protocol=\"tcp\" \
         TCP_Framing=\"octet-counted\")' > /etc/rsyslog.d/holdfast.conf; systemctl restart rsyslog"
    );
    lab.in_guest("orders", &forward);
    lab.until(SOON, "rsyslog forwards", |lab| {
        lab.in_guest("orders", "logger -t shop -p user.warning 'payment four is lost'");
        !told(lab, "syslog", "payment four").is_empty()
    });
    let four = told(&lab, "syslog", "payment four").remove(0);
    assert_eq!(four["severity"], "warning", "{four}");

    // A real service of systemd is brought back by its own means.
    let before = lab.incarnation("orders");
    lab.in_guest("orders", "systemctl stop postgresql");
    let incident = lab.wait_closed("AppDown", BOOT);
    assert_eq!(incident["remedies"][0]["name"], "restart-app", "{incident}");
    lab.wait_well(SOON);
    assert_eq!(lab.incarnation("orders"), before, "{}", lab.story());
    let echo = |one: &Value| one["text"].as_str().is_some_and(|text| text.contains("guest-exec"));
    assert_eq!(kept(&lab, "orders", "journal").into_iter().find(echo), None, "our own questions are no log");
}
