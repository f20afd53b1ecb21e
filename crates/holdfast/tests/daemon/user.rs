//! Whom QEMU runs as.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::quiet::{Quiet, out, vm};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

fn open_to_all(daemon: &Quiet, mode: u32) {
    fs::set_permissions(daemon.path(), fs::Permissions::from_mode(mode)).unwrap();
}

/// The user of a VM's process, once it runs.
fn uid(daemon: &Quiet) -> u32 {
    daemon.until("it runs", |daemon| daemon.vm("a")["pid"].is_u64());
    fs::metadata(format!("/proc/{}", daemon.vm("a")["pid"])).unwrap().uid()
}

#[test]
fn qemu_of_a_daemon_that_is_root_is_somebody_else_where_that_one_gets_to_the_disk() {
    let root = rustix::process::geteuid().is_root();
    let mut daemon = Quiet::new(&vm("a", ""));
    open_to_all(&daemon, 0o755);
    daemon.start(&[]);
    if root {
        assert_ne!(uid(&daemon), 0, "{}", daemon.log());
    } else {
        assert_eq!(uid(&daemon), rustix::process::geteuid().as_raw());
    }
    let state = daemon.path().join("state");
    for private in ["journal", "leases", "evidence", "run/a/vm"] {
        assert_eq!(fs::metadata(state.join(private)).unwrap().mode() & 0o077, 0, "{private}");
    }
    for through in [state.clone(), state.join("run"), state.join("run/a")] {
        assert_eq!(fs::metadata(&through).unwrap().mode() & 0o066, 0, "{}", through.display());
    }
}

#[test]
fn what_keeps_qemu_from_being_somebody_else_is_named_with_the_way_out() {
    let mut daemon = Quiet::new(&vm("a", ""));
    open_to_all(&daemon, 0o700);
    let way_out = format!("chmod o+x {}", daemon.path().canonicalize().unwrap().display());
    let told = out(&daemon.say(&["--config", daemon.config().to_str().unwrap(), "doctor"]));
    if !rustix::process::geteuid().is_root() {
        return assert!(told.contains("QEMU runs as you"), "{told}");
    }
    assert!(told.contains("QEMU of vm a runs as root") && told.contains(&way_out), "{told}");
    daemon.start(&[]);
    assert_eq!(uid(&daemon), 0);
    assert!(daemon.log().contains(&way_out), "{}", daemon.log());
}
