//! A running VM that the daemon backs up into an S3 store: a server in this process, of the crates `s3s` and `s3s-fs`.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::lab::{Lab, holdfast};
use crate::rows::Rows;
use holdfast_bucket::{Habit, KEY, SECRET, Server};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const REPO: &str = "s3://backups/atlas";

/// A laboratory that is backed up into this server.
fn lab(server: &Server) -> Lab {
    let mut lab = Lab::changed(|config| {
        config
            + "quiesce = \"su postgres -c 'psql -h /run/postgresql -c checkpoint'\"\n[vm.orders.protect.backup]\nto = \"far\"\n"
            + &format!("[repository.far]\npath = \"{REPO}\"\nkey_file = \"key\"\ns3_file = \"s3.env\"\n")
    });
    fs::write(lab.path().join("key"), "correct horse battery\n").unwrap();
    let file = lab.path().join("s3.env");
    let endpoint = server.endpoint();
    let lines =
        format!("AWS_ACCESS_KEY_ID={KEY}\nAWS_SECRET_ACCESS_KEY={SECRET}\nAWS_ENDPOINT_URL={endpoint}\n");
    fs::write(&file, lines).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    plain(&lab, &["init"]);
    lab.start_warm(&["orders"]);
    lab
}

/// What needs no daemon.
fn plain(lab: &Lab, words: &[&str]) -> String {
    let mut command = holdfast();
    command.arg("backup").args(words).args(["--repo", REPO]);
    command.arg("--key-file").arg(lab.path().join("key")).arg("--s3-file").arg(lab.path().join("s3.env"));
    let ended = command.output().unwrap();
    assert!(ended.status.success(), "{words:?}: {ended:?}");
    String::from_utf8(ended.stdout).unwrap()
}

fn create(lab: &Lab) -> Value {
    let made = lab.json(&["backup", "create", "orders"]).as_array().unwrap()[0].clone();
    assert_eq!(made["state"], "done", "{made}\n{}", lab.story());
    made
}

#[test]
fn a_running_vm_is_backed_up_into_a_store_by_the_daemon() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), Habit::Right).unwrap();
    let lab = lab(&server);
    let rows = Rows::start(&lab);
    let full = create(&lab);
    rows.wait_for_more(&lab);
    let second = create(&lab);
    let bytes = |point: &Value, what: &str| point[what].as_u64().unwrap();
    assert!(bytes(&second, "read") < bytes(&full, "read") / 4, "only what changed is read: {second}");
    assert!(bytes(&second, "added") < bytes(&full, "added") / 4, "{second}");
    assert!(plain(&lab, &["verify", "--all"]).ends_with("2 of 2 points are whole\n"));
    assert!(!lab.story().contains(SECRET));
}
