//! `holdfast check`: is this configuration right, and what does it mean?
//!
//! Starts, opens and contacts nothing.

use super::{Answer, Place};
use crate::config::{Config, ConfigErrors, Kind, Loaded, VmConfig, tame, write_duration, write_size};
use holdfast_core::policy::Mode;
use holdfast_drivers::qemu::Network;
use serde_json::{Value, json};
use std::path::Path;

/// Checks a file: exit code 0 if it is right, 2 if not. `colour` is for people at a terminal.
#[must_use]
pub fn check(place: &Place, as_json: bool, colour: bool) -> Answer {
    let (checked, path) = (place.examine(), &place.file());
    let code = if checked.is_ok() { 0 } else { 2 };
    if as_json {
        let shape = match &checked {
            Ok(loaded) => fine_json(path, loaded),
            Err(errors) => wrong_json(path, errors),
        };
        return Answer { out: format!("{shape:#}\n"), err: String::new(), code };
    }
    match checked {
        Ok(loaded) => Answer { out: summary(path, &loaded.config), err: warnings(&loaded, colour), code },
        Err(ConfigErrors(remarks)) => {
            let shown = remarks.render(Kind::Error, colour);
            let what = count(remarks.count(), "problem");
            Answer { out: String::new(), err: format!("{shown}\n\n{}: {what}\n", shown_path(path)), code }
        }
    }
}

fn warnings(loaded: &Loaded, colour: bool) -> String {
    if loaded.warnings.is_empty() {
        return String::new();
    }
    format!("{}\n", loaded.warnings.render(Kind::Warning, colour))
}

fn shown_path(path: &Path) -> String {
    tame(&path.to_string_lossy()).replace('\n', "\\n")
}

/// `1 VM`, `2 VMs`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn summary(path: &Path, config: &Config) -> String {
    let apps = config.vms.values().map(|vm| vm.apps.len()).sum();
    let mut text = format!(
        "{} is fine: {}, {}\n\n",
        shown_path(path),
        count(config.vms.len(), "VM"),
        count(apps, "application")
    );
    let mut rows =
        vec![["VM", "MODE", "MEMORY", "CPUS", "NETWORK", "APPLICATIONS", "DISK"].map(str::to_owned)];
    rows.extend(config.vms.values().map(row));
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    let (state, period) = (shown_path(&config.state), write_duration(config.period));
    text.push_str(&format!("\nhost {}, state in {state}, asked every {period}\n", config.host));
    text
}

fn row(vm: &VmConfig) -> [String; 7] {
    let apps: Vec<String> =
        vm.apps.iter().map(|(name, app)| format!("{name} ({})", app.probe.scheme())).collect();
    let apps = if apps.is_empty() { "none".to_owned() } else { apps.join(", ") };
    [
        vm.spec.name.to_string(),
        mode(vm.policy.mode).to_owned(),
        write_size(vm.spec.memory),
        vm.spec.cpus.to_string(),
        network(&vm.spec.network),
        apps,
        shown_path(&vm.spec.disk),
    ]
}

const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Armed => "armed",
        Mode::Observe => "observe",
    }
}

fn network(network: &Network) -> String {
    match network {
        Network::User(_) => "user".to_owned(),
        Network::Tap { interface, .. } => format!("tap {interface}"),
        Network::None => "none".to_owned(),
    }
}

fn fine_json(path: &Path, loaded: &Loaded) -> Value {
    let config = &loaded.config;
    let vms: Vec<Value> = config
        .vms
        .values()
        .map(|vm| {
            let apps: Vec<Value> = vm
                .apps
                .iter()
                .map(|(name, app)| {
                    let target = app.probe.target().map(ToString::to_string);
                    json!({"name": name, "probe": app.probe.scheme(), "target": target, "restart": app.restart.is_some()})
                })
                .collect();
            json!({
                "name": vm.spec.name,
                "driver": "qemu",
                "mode": mode(vm.policy.mode),
                "memory": vm.spec.memory,
                "cpus": vm.spec.cpus,
                "disk": vm.spec.disk,
                "apps": apps,
            })
        })
        .collect();
    json!({
        "v": 1,
        "file": path,
        "ok": true,
        "host": config.host,
        "state": config.state,
        "socket": config.socket,
        "vms": vms,
        "problems": [],
        "warnings": loaded.warnings.to_json(),
    })
}

fn wrong_json(path: &Path, errors: &ConfigErrors) -> Value {
    json!({
        "v": 1,
        "file": path,
        "ok": false,
        "count": errors.0.count(),
        "problems": errors.0.to_json(),
        "warnings": [],
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn written(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("orders.qcow2"), "").unwrap();
        let path = dir.path().join("holdfast.toml");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    const FINE: &str = "host = \"atlas\"\nstate = \"/var/lib/holdfast\"\n[vm.orders]\ndisk = \"orders.qcow2\"\n\
                        forward = [\"0.0.0.0:15432:5432\"]\n[vm.orders.app.postgres]\n\
                        probe = \"postgres://probe@guest/orders\"\n";

    #[test]
    fn a_right_file_is_summed_up_and_its_risks_are_named() {
        let (dir, path) = written(FINE);
        let answer = check(&Place::of(&path), false, false);
        assert_eq!(answer.code, 0);
        let (path, disk) = (path.display().to_string(), dir.path().join("orders.qcow2"));
        let shown = answer.out.replace(&path, "FILE").replace(&disk.display().to_string(), "DISK");
        assert_eq!(
            shown,
            "FILE is fine: 1 VM, 1 application\n\n\
             VM      MODE   MEMORY  CPUS  NETWORK  APPLICATIONS         DISK\n\
             orders  armed  1GiB    1     user     postgres (postgres)  DISK\n\n\
             host atlas, state in /var/lib/holdfast, asked every 1s\n"
        );
        assert!(answer.err.starts_with("warning: port 15432 of vm `orders` is open to other machines\n"));
    }

    #[test]
    fn a_wrong_file_ends_with_code_2_and_tells_all_problems() {
        let (_dir, path) = written("perod = \"1s\"\n[vm.orders]\ndisk = \"order.qcow2\"\ncpus = 100\n");
        let answer = check(&Place::of(&path), false, false);
        assert_eq!((answer.code, answer.out.as_str()), (2, ""));
        assert_eq!(answer.err.matches("error: ").count(), 3, "{}", answer.err);
        assert!(answer.err.ends_with(": 3 problems\n"), "{}", answer.err);
        assert!(answer.err.contains("did you mean `period`?"));
        assert!(answer.err.contains("orders.qcow2`?"), "{}", answer.err);
    }

    #[test]
    fn programs_read_the_same_as_people() {
        let (_dir, path) = written(FINE);
        let shape: Value = serde_json::from_str(&check(&Place::of(&path), true, false).out).unwrap();
        assert_eq!((&shape["v"], &shape["ok"]), (&json!(1), &json!(true)));
        assert_eq!(shape["vms"][0]["apps"][0]["target"], json!("guest:5432"));
        assert_eq!(shape["warnings"][0]["line"], json!(5));
        let (_dir, path) = written("[vm.orders]\ndisc = \"x\"\n");
        let answer = check(&Place::of(&path), true, true);
        let shape: Value = serde_json::from_str(&answer.out).unwrap();
        assert_eq!((answer.code, &shape["ok"], &shape["count"]), (2, &json!(false), &json!(2)));
        assert_eq!(shape["problems"][1]["hint"], json!("did you mean `disk`?"));
        assert_eq!((&shape["problems"][1]["line"], &shape["problems"][1]["column"]), (&json!(2), &json!(1)));
    }
}
