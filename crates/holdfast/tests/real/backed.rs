//! A laboratory that is backed up, into a repository of its own.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::lab::{Lab, holdfast};
use holdfast_bucket::{KEY, SECRET};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Its VM is backed up when somebody asks.
pub const TO_MAIN: &str = "[vm.orders.protect.backup]\nto = \"main\"\n";
/// What its agent runs before.
const QUIESCE: &str = "quiesce = \"su postgres -c 'psql -h /run/postgresql -c checkpoint'\"\n";
const REPOSITORY: &str = "[repository.main]\nkey_file = \"key\"\n";
/// Where its repository lies, if that is in a store.
const FAR: &str = "s3://backups/atlas";

/// One with a repository in a folder, a guest that answers, and these sections in its configuration.
pub fn lab(sections: &str) -> Lab {
    begun(Lab::changed(|config| config + QUIESCE + sections + REPOSITORY + "path = \"repo\"\n"))
}

/// The same, with the repository in a store.
pub fn lab_in_store(endpoint: &str, sections: &str) -> Lab {
    let place = format!("path = \"{FAR}\"\ns3_file = \"s3.env\"\n");
    let lab = Lab::changed(|config| config + QUIESCE + sections + REPOSITORY + &place);
    let file = lab.path().join("s3.env");
    let access = [("ACCESS_KEY_ID", KEY), ("SECRET_ACCESS_KEY", SECRET), ("ENDPOINT_URL", endpoint)];
    fs::write(&file, access.map(|(name, value)| format!("AWS_{name}={value}\n")).concat()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    begun(lab)
}

fn begun(mut lab: Lab) -> Lab {
    make_key(&lab);
    plain(&lab, &["init"]);
    lab.start_warm(&["orders"]);
    lab
}

/// What opens its repository.
pub fn make_key(lab: &Lab) {
    fs::write(lab.path().join("key"), "correct horse battery\n").unwrap();
}

/// `holdfast backup` with these words and its repository: what needs no daemon.
pub fn command(lab: &Lab, words: &[&str]) -> Command {
    let mut command = holdfast();
    command.arg("backup").args(words).arg("--key-file").arg(lab.path().join("key")).stdin(Stdio::null());
    let access = lab.path().join("s3.env");
    if access.exists() {
        command.args(["--repo", FAR, "--s3-file"]).arg(access);
    } else {
        command.arg("--repo").arg(lab.path().join("repo"));
    }
    command
}

/// What such a command says, which must succeed.
pub fn plain(lab: &Lab, words: &[&str]) -> String {
    let ended = command(lab, words).output().unwrap();
    assert!(ended.status.success(), "{words:?}: {ended:?}");
    String::from_utf8(ended.stdout).unwrap()
}

/// What a disk says that it stands on.
pub fn backing(disk: &Path) -> Value {
    let told = Command::new("qemu-img").args(["info", "-U", "--output=json"]).arg(disk).output().unwrap();
    assert!(told.status.success(), "{told:?}");
    serde_json::from_slice::<Value>(&told.stdout).unwrap()["backing-filename"].clone()
}
