//! `[repository.NAME]` and `[vm.NAME.protect]`: where restore points are kept, and which VM has some made.

use super::problem::{Problem, Problems};
use super::rules::Claims;
use super::section::Section;
use super::units::{bare, quote};
use super::{Frame, settings, vm};
use holdfast_core::subject::{AppName, VmName};
use holdfast_core::time::Duration;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// So many repositories at most.
const MOST: usize = 64;

/// A place for restore points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryConfig {
    /// Its folder, absolute.
    pub path: PathBuf,
    /// What opens it, absolute; otherwise the key that `backup init` wrote for the daemon's user.
    pub key_file: Option<PathBuf>,
}

/// How a VM is backed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupConfig {
    /// Into this repository.
    pub to: String,
    /// How old its newest point may become before the next is made; otherwise only when a person asks.
    pub every: Option<Duration>,
}

/// How the restore points of a VM are proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProofConfig {
    /// How old the last trial may become before the newest point is tried; `None`: only when a person asks.
    pub every: Option<Duration>,
    /// How long a trial may take.
    pub within: Duration,
    /// How much it gives way to others, 0 to 19.
    pub nice: u32,
}

/// Reads how the restore points of a VM are proved.
pub fn proof(vm: &VmName, section: &Section<'_>) -> ProofConfig {
    let title = |what: &str| format!("[vm.{}.protect{what}]", bare(vm.as_str()));
    let protect = section.section("protect", title(""), settings::PROTECT);
    let prove = protect.section("prove", title(".prove"), settings::PROVE);
    let every = prove.time("every");
    let auto = prove.flag("auto");
    ProofConfig { every: auto.then_some(every), within: prove.time("within"), nice: prove.count("nice") }
}

/// Reads the repositories.
pub fn repositories(top: &Section<'_>, frame: &Frame<'_>) -> BTreeMap<String, RepositoryConfig> {
    let title = |name: &str| format!("[repository.{}]", bare(name));
    let sections = top.sections("repository", title, settings::REPOSITORY);
    let mut repositories = BTreeMap::new();
    if sections.len() > MOST {
        let error = format!("{} repositories are configured", sections.len());
        let cause = format!("at most {MOST} are known");
        top.refuse(Problem::at(top.place("repository"), error, cause, "leave out those that no VM needs"));
        return repositories;
    }
    for (name, section) in sections {
        let Some(name) = vm::name_of::<AppName>(&name, "a repository", frame.problems) else { continue };
        let path = vm::path(&section, "path", frame);
        if path.is_none() && !section.has("path") {
            let error = format!("repository `{name}` has no path");
            let cause = "it is a folder of its own, made by `holdfast backup init --repo PATH`";
            let hint = format!("write `path = \"PATH\"` below {}", section.name);
            section.refuse(Problem::at(section.place("path"), error, cause, hint));
        }
        let key_file = vm::path(&section, "key_file", frame);
        let Some(path) = path else { continue };
        repositories.insert(name.to_string(), RepositoryConfig { path, key_file });
    }
    repositories
}

/// Reads how a VM is backed up, if it is.
pub fn backup(vm: &VmName, section: &Section<'_>, claims: &mut Claims) -> Option<BackupConfig> {
    let title = |what: &str| format!("[vm.{}.protect{what}]", bare(vm.as_str()));
    let protect = section.section("protect", title(""), settings::PROTECT);
    if !protect.has("backup") {
        return None;
    }
    let backup = protect.section("backup", title(".backup"), settings::BACKUP);
    let every = backup.time_if_any("every");
    let Some(to) = backup.text("to") else {
        if !backup.has("to") {
            let error = format!("the backup of vm `{vm}` names no repository");
            let hint = "write `to = \"NAME\"`, and its folder below `[repository.NAME]`";
            backup.refuse(Problem::at(
                backup.place("to"),
                error,
                "there may be several, and none is the usual one",
                hint,
            ));
        }
        return None;
    };
    claims.repositories.push(to.clone());
    Some(BackupConfig { to: to.into_inner(), every })
}

/// Refuses backups into repositories that are not there.
pub fn check(claims: &Claims, known: &BTreeMap<String, RepositoryConfig>, problems: &Problems) {
    for to in claims.repositories.iter().filter(|to| !known.contains_key(to.get_ref())) {
        let error = format!("there is no repository {}", quote(to.get_ref()));
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        let cause = match names.as_slice() {
            [] => "no `[repository.NAME]` is written".to_owned(),
            names => format!("there are: {}", names.join(", ")),
        };
        let hint = "write its `path` below `[repository.NAME]`, or name one that is there";
        problems.push(Problem::at(to.span(), error, cause, hint));
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::tests::parse;
    use super::*;

    const VM: &str = "[vm.a]\ndisk = \"/a\"\n";

    #[test]
    fn a_vm_is_backed_up_into_a_repository_that_is_there() {
        let text = format!(
            "[repository.main]\npath = \"/mnt/hf\"\nkey_file = \"main.key\"\n{VM}protect.backup = {{ to = \"main\", every = \"1d\" }}\n"
        );
        let config = parse(&text).unwrap();
        let every = Some(Duration::from_secs(86_400));
        let backup = config.vms.values().next().unwrap().backup.clone();
        assert_eq!(backup, Some(BackupConfig { to: "main".into(), every }));
        let main = &config.repositories["main"];
        assert!(main.path.ends_with("mnt/hf") && main.key_file.as_ref().unwrap().is_absolute());
        assert_eq!(parse(VM).unwrap().vms.values().next().unwrap().backup, None);
    }

    #[test]
    fn what_is_wrong_with_a_backup_is_said() {
        for (text, why) in [
            ("protect.backup = { to = \"x\" }", "there is no repository"),
            ("protect.backup = {}", "names no repository"),
            ("protect.backup = { to = \"x\", every = \"1s\" }", "every"),
            ("[repository.main]\n", "repository `main` has no path"),
            ("[repository.\"../x\"]\npath = \"/x\"\n", "is no name of a repository"),
            ("protect.snapshots = 3", "snapshots"),
        ] {
            let said = parse(&format!("{VM}{text}")).unwrap_err().to_string();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
