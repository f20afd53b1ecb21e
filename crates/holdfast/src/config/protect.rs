//! `[repository.NAME]` and `[vm.NAME.protect]`: where restore points are kept, and which VM has some made.

use super::problem::{Problem, Problems};
use super::rules::Claims;
use super::section::Section;
use super::units::{bare, quote, write_duration, write_size};
use super::{Frame, Limits, settings, vm};
use crate::place::RepositoryPlace;
use holdfast_core::protect::Keep;
use holdfast_core::protect::{Schedule, Schedules};
use holdfast_core::subject::{AppName, VmName};
use holdfast_core::time::Duration;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// So many repositories at most.
const MOST: usize = 64;
/// So many snapshots are kept at most: a disk stands on 16 files, and those that a person takes need room, too.
const MOST_KEPT: u32 = 12;
/// A memory is not saved more often: the VM stands still meanwhile.
const MEMORY_EVERY: Duration = Duration::from_secs(900);
/// Nobody is told of a point that is younger than this, if nothing else is written.
const STALE_LEAST: Duration = Duration::from_secs(600);

/// A place for restore points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryConfig {
    /// Its folder, absolute; or where it lies in an S3 store.
    pub path: RepositoryPlace,
    /// What opens it, absolute; otherwise the key that `backup init` wrote for the daemon's user.
    pub key_file: Option<PathBuf>,
    /// What tells who asks an S3 store, and where that is; absolute.
    pub s3_file: Option<PathBuf>,
}

/// How snapshots are taken of a VM by schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotsConfig {
    /// When.
    pub schedule: Schedule,
    /// Which stay.
    pub keep: Keep,
    /// With its memory.
    pub memory: bool,
}

/// How a VM is backed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupConfig {
    /// Into this repository.
    pub to: String,
    /// When; otherwise only when a person asks.
    pub schedule: Option<Schedule>,
    /// Which points stay; otherwise all.
    pub keep: Option<Keep>,
    /// How fast the disk is read, or brought back.
    pub limits: Limits,
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
    /// Memory of its sandbox (bytes), which is never more than the VM has; `None`: as much.
    pub memory: Option<u64>,
    /// Virtual processors of its sandbox, never more than the VM has; `None`: as many.
    pub cpus: Option<u32>,
}

/// Which restore points are made of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtectConfig {
    /// Snapshots by schedule.
    pub snapshots: Option<SnapshotsConfig>,
    /// Backups.
    pub backup: Option<BackupConfig>,
    /// Proofs.
    pub proof: ProofConfig,
}

impl ProtectConfig {
    /// What is made by schedule.
    pub fn schedules(&self) -> Schedules {
        Schedules {
            snapshot: self.snapshots.map(|snapshots| snapshots.schedule),
            backup: self.backup.as_ref().and_then(|backup| backup.schedule),
        }
    }
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
        let path = place(&section, frame);
        if path.is_none() && !section.has("path") {
            let error = format!("repository `{name}` has no path");
            let cause = "it is a folder of its own or `s3://BUCKET/PREFIX`, made by `holdfast backup init --repo PATH`";
            let hint = format!("write `path = \"PATH\"` below {}", section.name);
            section.refuse(Problem::at(section.place("path"), error, cause, hint));
        }
        let key_file = vm::path(&section, "key_file", frame);
        let s3_file = vm::path(&section, "s3_file", frame);
        let Some(path) = path else { continue };
        check_s3(&name, &section, &path, s3_file.as_deref());
        repositories.insert(name.to_string(), RepositoryConfig { path, key_file, s3_file });
    }
    repositories
}

/// Where a repository lies, if that is written.
fn place(section: &Section<'_>, frame: &Frame<'_>) -> Option<RepositoryPlace> {
    let written = section.text("path")?;
    match RepositoryPlace::parse(written.get_ref().as_ref()) {
        Ok(RepositoryPlace::Folder(path)) => Some(RepositoryPlace::Folder(frame.folder.join(path))),
        Ok(place) => Some(place),
        Err(cause) => {
            let error = format!("there is no repository at {}", quote(written.get_ref()));
            section.refuse(Problem::at(
                written.span(),
                error,
                cause,
                "as in `path = \"s3://backups/holdfast\"`",
            ));
            None
        }
    }
}

/// A service has no keys of its own: they stand in a file.
fn check_s3(name: &AppName, section: &Section<'_>, path: &RepositoryPlace, file: Option<&Path>) {
    let is_s3 = path.folder().is_none();
    if is_s3 && file.is_none() && !section.has("s3_file") {
        let error = format!("nothing opens the store of repository `{name}`");
        let cause = format!("`{path}` is in an S3 store, which asks for keys");
        let hint = "write `s3_file = \"PATH\"`: a file for the daemon's user alone, with lines such as `AWS_ACCESS_KEY_ID=...`";
        section.refuse(Problem::at(section.place("path"), error, cause, hint));
    }
    if !is_s3 {
        section.pointless(
            "s3_file",
            "the repository lies in a folder",
            "remove it, or write `path = \"s3://...\"`",
        );
    }
}

/// Reads which restore points are made of a VM, which has this memory and so many processors.
pub fn read(vm: &VmName, section: &Section<'_>, machine: (u64, u32), claims: &mut Claims) -> ProtectConfig {
    let title = |what: &str| format!("[vm.{}.protect{what}]", bare(vm.as_str()));
    let protect = section.section("protect", title(""), settings::PROTECT);
    let of = |key: &str, settings| {
        protect.has(key).then(|| protect.section(key, title(&format!(".{key}")), settings))
    };
    let prove = protect.section("prove", title(".prove"), settings::PROVE);
    let (auto, every) = (prove.flag("auto"), prove.time("every"));
    let (memory, cpus) = sandbox(vm, &prove, machine);
    ProtectConfig {
        proof: ProofConfig {
            every: auto.then_some(every),
            within: prove.time("within"),
            nice: prove.count("nice"),
            memory,
            cpus,
        },
        snapshots: of("snapshots", settings::SNAPSHOTS).and_then(|section| snapshots(vm, &section)),
        backup: of("backup", settings::BACKUP).and_then(|section| backup(vm, &section, claims)),
    }
}

/// Memory and processors of a sandbox, where they are not those of its VM.
fn sandbox(vm: &VmName, prove: &Section<'_>, (memory, cpus): (u64, u32)) -> (Option<u64>, Option<u32>) {
    let wanted = prove.size_if_any("memory").map(|size| size >> 20 << 20);
    let wanted_cpus = prove.count_if_any("cpus");
    let refuse = |key: &str, has: String| {
        let error = format!("the sandbox of vm `{vm}` has more {has}");
        let cause = "a trial takes from the host what the vm has at most".to_owned();
        let hint = format!("write less, or remove `{key}`: then it has what the vm has");
        prove.refuse(Problem::at(prove.place(key), error, cause, hint));
    };
    if wanted.is_some_and(|wanted| wanted > memory) {
        refuse("memory", format!("memory than the vm, {}", write_size(memory)));
    }
    if wanted_cpus.is_some_and(|wanted| wanted > cpus) {
        refuse("cpus", format!("processors than the vm, {cpus}"));
    }
    (wanted.filter(|wanted| *wanted < memory), wanted_cpus.filter(|wanted| *wanted < cpus))
}

fn backup(vm: &VmName, section: &Section<'_>, claims: &mut Claims) -> Option<BackupConfig> {
    let (schedule, keep) = (schedule(section), keep(vm, section));
    let limits = Limits { limit: section.size_if_any("limit"), iops: section.count_if_any("iops") };
    let Some(to) = section.text("to") else {
        if !section.has("to") {
            let error = format!("the backup of vm `{vm}` names no repository");
            let cause = "there may be several, and none is the usual one";
            let hint = "write `to = \"NAME\"`, and its folder below `[repository.NAME]`";
            section.refuse(Problem::at(section.place("to"), error, cause, hint));
        }
        return None;
    };
    claims.repositories.push(to.clone());
    Some(BackupConfig { to: to.into_inner(), schedule, keep, limits })
}

fn snapshots(vm: &VmName, section: &Section<'_>) -> Option<SnapshotsConfig> {
    let missing = [
        ("every", "write `every = \"1h\"`: how old the newest may become before the next is taken"),
        ("keep", "write `keep = { last = 3 }`: the others give their room back"),
    ];
    for (key, hint) in missing.into_iter().filter(|(key, _)| !section.has(key)) {
        let error = format!("`{key}` of the snapshots of vm `{vm}` is not written");
        let cause = "they are taken again and again, and there is room for few";
        section.refuse(Problem::at(section.place(key), error, cause, hint));
    }
    let (schedule, keep) = (schedule(section), keep(vm, section));
    let memory = section.flag("memory");
    let (schedule, keep) = (schedule?, keep?);
    if keep.most() > MOST_KEPT {
        let error = format!("vm `{vm}` would keep up to {} snapshots", keep.most());
        let cause = format!(
            "at most {MOST_KEPT}: each is one more file that its disk stands on, and is read through"
        );
        let hint = "keep fewer; what is to be kept for long belongs into `[vm.NAME.protect.backup]`";
        section.refuse(Problem::at(section.place("keep"), error, cause, hint));
    }
    if memory && schedule.every < MEMORY_EVERY {
        let least = write_duration(MEMORY_EVERY);
        let error =
            format!("the memory of vm `{vm}` would be saved every {}", write_duration(schedule.every));
        let cause = format!("it stands still while that is done, so {least} is the least");
        let hint = format!("write `every = \"{least}\"` or more, or `memory = false`");
        section.refuse(Problem::at(section.place("memory"), error, cause, hint));
    }
    Some(SnapshotsConfig { schedule, keep, memory })
}

/// When points are made, if that is written.
fn schedule(section: &Section<'_>) -> Option<Schedule> {
    let told = section.time_if_any("stale_after");
    let Some(every) = section.time_if_any("every") else {
        let hint = "write `every`, or remove it";
        if !section.has("every") {
            section.pointless("stale_after", "no point is made by schedule", hint);
        }
        return None;
    };
    let stale_after = told.unwrap_or_else(|| (every * 2).max(STALE_LEAST));
    if stale_after <= every {
        let cause = format!(
            "`stale_after` {} is not more than `every` {}: a person would be told before the next one is due",
            write_duration(stale_after),
            write_duration(every)
        );
        let hint = format!("write `stale_after = \"{}\"`", write_duration(every * 2));
        section.refuse(Problem::at(
            section.place("stale_after"),
            "a point would always be too old",
            cause,
            hint,
        ));
    }
    Some(Schedule { every, stale_after })
}

/// What is to be kept, if that is written.
fn keep(vm: &VmName, section: &Section<'_>) -> Option<Keep> {
    if !section.has("keep") {
        return None;
    }
    let title = section.name.replace(']', ".keep]");
    let before = section.problems().count();
    let table = section.section("keep", title, settings::KEEP);
    let count = |key| table.count_if_any(key).unwrap_or(0);
    let keep = Keep {
        last: count("last"),
        hourly: count("hourly"),
        daily: count("daily"),
        weekly: count("weekly"),
        monthly: count("monthly"),
        yearly: count("yearly"),
    };
    if keep.is_nothing() && section.problems().count() == before {
        let error = format!("nothing of vm `{vm}` would be kept");
        let cause = "a restore point that goes at once is none";
        let hint = "write how many, as in `keep = { last = 3, daily = 7 }`, or leave `keep` out";
        section.refuse(Problem::at(section.place("keep"), error, cause, hint));
    }
    Some(keep)
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
        let (every, stale_after) = (Duration::from_secs(86_400), Duration::from_secs(172_800));
        let schedule = Some(Schedule { every, stale_after });
        let vm = config.vms.values().next().unwrap();
        let backup =
            Some(BackupConfig { to: "main".into(), schedule, keep: None, limits: Limits::default() });
        assert_eq!((&vm.protect.snapshots, &vm.protect.backup), (&None, &backup));
        assert_eq!(vm.policy.protect, Schedules { snapshot: None, backup: schedule });
        let main = &config.repositories["main"];
        assert!(
            main.path.folder().unwrap().ends_with("mnt/hf") && main.key_file.as_ref().unwrap().is_absolute()
        );
        let plain = parse(VM).unwrap().vms.into_values().next().unwrap().protect;
        assert_eq!((plain.snapshots, plain.backup), (None, None));
        let daily = Some(Duration::from_secs(86_400));
        let proof = ProofConfig {
            every: daily,
            within: Duration::from_secs(600),
            nice: 19,
            memory: None,
            cpus: None,
        };
        assert_eq!(plain.proof, proof);
        let never =
            parse(&format!("{VM}protect.prove = {{ auto = false, within = \"1m\", nice = 0 }}\n")).unwrap();
        let never = never.vms.into_values().next().unwrap().protect.proof;
        assert_eq!(
            never,
            ProofConfig { every: None, within: Duration::from_secs(60), nice: 0, memory: None, cpus: None }
        );
    }

    #[test]
    fn a_sandbox_may_be_smaller_than_its_vm_and_never_larger() {
        let machine = |inside: &str| {
            let text = format!("{VM}memory = \"8GiB\"\ncpus = 4\nprotect.prove = {{ {inside} }}\n");
            let vm = parse(&text).map(|config| config.vms.into_values().next().unwrap());
            vm.map(|vm| {
                assert_eq!((vm.spec.memory, vm.spec.cpus), (8 << 30, 4));
                (vm.protect.proof.memory, vm.protect.proof.cpus)
            })
        };
        assert_eq!(machine("").unwrap(), (None, None), "a vm that grows does not change its trials");
        assert_eq!(machine("memory = \"1GiB\", cpus = 1").unwrap(), (Some(1 << 30), Some(1)));
        assert_eq!(machine("memory = \"100MB\"").unwrap(), (Some(95 << 20), None), "whole MiB");
        for (inside, why) in [
            ("memory = \"9GiB\"", "more memory than the vm, 8GiB"),
            ("memory = \"63MiB\"", "`memory` is out of range"),
            ("cpus = 5", "more processors than the vm, 4"),
            ("cpus = 0", "`cpus` is out of range"),
        ] {
            let said = machine(inside).unwrap_err().to_string();
            assert!(said.contains(why), "{inside}: {said}");
        }
    }

    #[test]
    fn a_backup_is_as_slow_as_it_is_told_to_be() {
        let limit = |inside: &str| {
            let text = format!(
                "[repository.main]\npath = \"/r\"\n{VM}protect.backup = {{ to = \"main\"{inside} }}\n"
            );
            parse(&text).map(|config| config.vms.into_values().next().unwrap().protect.backup.unwrap().limits)
        };
        assert_eq!(limit("").unwrap(), Limits::default());
        assert_eq!(limit(", limit = \"50MiB\"").unwrap().limit, Some(50 << 20));
        assert_eq!(limit(", limit = \"2 MB\"").unwrap().limit, Some(2_000_000));
        assert_eq!(limit(", iops = 200").unwrap(), Limits { limit: None, iops: Some(200) });
        assert!(limit(", iops = 0").unwrap_err().to_string().contains("`iops` is out of range"));
        for (written, why) in [
            ("\"63KiB\"", "64KiB"),
            ("\"0MiB\"", "`limit` is out of range"),
            ("\"50M\"", "limit"),
            ("50", "a size with its unit"),
            ("\"50MiB/s\"", "limit"),
        ] {
            let said = limit(&format!(", limit = {written}")).unwrap_err().to_string();
            assert!(said.contains(why), "{written}: {said}");
        }
    }

    #[test]
    fn a_repository_may_lie_in_a_store() {
        let text = "[repository.far]\npath = \"s3://backups/atlas\"\ns3_file = \"s3.env\"\n";
        let far = parse(&format!("{text}{VM}")).unwrap().repositories.remove("far").unwrap();
        assert_eq!(far.path.to_string(), "s3://backups/atlas");
        assert!(far.s3_file.unwrap().is_absolute());
    }

    #[test]
    fn snapshots_are_taken_by_schedule_and_some_are_kept() {
        let text = "protect.snapshots = { every = \"1m\", keep = { last = 2, hourly = 3 } }\n";
        let config = parse(&format!("{VM}{text}")).unwrap();
        let snapshots = config.vms.values().next().unwrap().protect.snapshots.unwrap();
        let (every, stale_after) = (Duration::from_secs(60), STALE_LEAST);
        assert_eq!(snapshots.schedule, Schedule { every, stale_after });
        assert_eq!(snapshots.keep, Keep { last: 2, hourly: 3, ..Keep::default() });
        assert!(!snapshots.memory);
    }

    #[test]
    fn what_is_wrong_with_snapshots_is_said() {
        for (inside, why) in [
            ("", "`every` of the snapshots of vm `a` is not written"),
            ("every = \"1h\"", "`keep` of the snapshots of vm `a` is not written"),
            ("every = \"1h\", keep = {}", "nothing of vm `a` would be kept"),
            ("every = \"1h\", keep = { last = 0 }", "nothing of vm `a` would be kept"),
            ("every = \"1h\", keep = { dayly = 1 }", "unknown setting"),
            ("every = \"1h\", keep = 3", "keep"),
            ("every = \"1h\", keep = { last = -1 }", "last"),
            ("every = \"1h\", keep = { hourly = 8, daily = 5 }", "keep up to 13 snapshots"),
            ("every = \"1m\", keep = { last = 1 }, memory = true", "stands still"),
            ("every = \"1s\", keep = { last = 1 }", "every"),
            ("every = \"1h\", keep = { last = 1 }, stale_after = \"1h\"", "always be too old"),
        ] {
            let text = format!("{VM}protect.snapshots = {{ {inside} }}\n");
            let said = parse(&text).unwrap_err().to_string();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_backup_is_said() {
        for (text, why) in [
            ("protect.backup = { to = \"x\" }", "there is no repository"),
            ("protect.backup = {}", "names no repository"),
            ("protect.backup = { to = \"x\", every = \"1s\" }", "every"),
            ("[repository.main]\n", "repository `main` has no path"),
            ("[repository.\"../x\"]\npath = \"/x\"\n", "is no name of a repository"),
            (
                "[repository.main]\npath = \"s3://backups/a\"\n",
                "nothing opens the store of repository `main`",
            ),
            ("[repository.main]\npath = \"s3://b\"\ns3_file = \"a\"\n", "is no name of a bucket"),
            ("[repository.main]\npath = \"gs://backups\"\n", "is no kind of place"),
            ("[repository.main]\npath = \"/a\"\ns3_file = \"a\"\n", "lies in a folder"),
            ("protect.snapshots = 3", "snapshots"),
            ("protect.backup = { to = \"x\", keep = {} }", "nothing of vm `a` would be kept"),
            ("protect.backup = { to = \"x\", stale_after = \"1h\" }", "no point is made by schedule"),
        ] {
            let said = parse(&format!("{VM}{text}")).unwrap_err().to_string();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
