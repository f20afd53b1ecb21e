//! What differs between the configuration in force and the one that is to replace it.
//!
//! Never leaves a difference out: each field of a VM is named here, so that a new one cannot be forgotten.

use super::problem::{Problem, Problems};
use super::{Config, VmConfig, file, units};
use holdfast_core::policy::{Budget, VmPolicy};
use holdfast_core::subject::VmName;
use holdfast_drivers::qemu::{Network, QemuVm};

/// What a new configuration changes, in words of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Settings above all VMs.
    pub settings: Vec<String>,
    /// VMs that are new.
    pub added: Vec<VmName>,
    /// VMs that are no longer named.
    pub removed: Vec<VmName>,
    /// VMs that are described otherwise.
    pub changed: Vec<VmChange>,
}

/// What changes for one VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmChange {
    /// Which.
    pub vm: VmName,
    /// Settings that count at once.
    pub at_once: Vec<String>,
    /// Settings of its machine: a machine that runs is not changed, its next start is.
    pub of_machine: Vec<String>,
}

impl Config {
    /// What `new` changes.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Changes {
        let Self {
            host: _,
            state: _,
            socket: _,
            period,
            use_lessons,
            brake,
            user,
            logs,
            numbers,
            sources,
            repositories,
            vms,
        } = self;
        let mut settings = Differences::default();
        settings.note("period", period != &new.period);
        settings.note("learn", use_lessons != &new.use_lessons);
        settings.note("brake", brake != &new.brake);
        settings.note("logs", logs != &new.logs || sources != &new.sources);
        settings.note("numbers", numbers != &new.numbers);
        settings.note("user", user != &new.user);
        settings.note("repository", repositories != &new.repositories);
        let changed = vms.iter().filter_map(|(name, vm)| {
            let change = vm_change(name, vm, new.vms.get(name)?);
            (!change.at_once.is_empty() || !change.of_machine.is_empty()).then_some(change)
        });
        Changes {
            settings: settings.0,
            added: new.vms.keys().filter(|name| !vms.contains_key(*name)).cloned().collect(),
            removed: vms.keys().filter(|name| !new.vms.contains_key(*name)).cloned().collect(),
            changed: changed.collect(),
        }
    }

    /// Refuses what a running daemon cannot change: where its state and its socket are, and its name.
    pub(super) fn refuse_moves(&self, running: &Self, text: &str, problems: &Problems) {
        let table = file::parse(text, &Problems::default());
        let path = |path: &std::path::Path| units::quote_path(path);
        for (key, now, new) in [
            ("host", units::quote(running.host.as_str()), units::quote(self.host.as_str())),
            ("state", path(&running.state), path(&self.state)),
            ("socket", path(&running.socket), path(&self.socket)),
        ] {
            if now == new {
                continue;
            }
            let error = format!("`{key}` cannot change while the daemon runs");
            let cause = format!("the daemon runs with {now}, and here it is {new}");
            let hint = format!(
                "put `{key}` back to what it was, or restart the daemon: `systemctl restart holdfast`; the VMs run on"
            );
            let place = table.as_ref().and_then(|table| table.get_ref().get(key)).map(toml::Spanned::span);
            let problem = Problem::whole(error, cause, hint);
            problems.push(Problem { place, ..problem });
            if key == "state" {
                break; // the socket follows it
            }
        }
    }
}

/// The names of settings that differ.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn note(&mut self, setting: &str, differs: bool) {
        if differs {
            self.0.push(setting.to_owned());
        }
    }
}

fn vm_change(name: &VmName, old: &VmConfig, new: &VmConfig) -> VmChange {
    let VmConfig { spec, policy, apps, logs, numbers, protect } = old;
    let mut at_once = Differences::default();
    note_policy(&mut at_once, policy, &new.policy);
    for app in apps.keys().chain(new.apps.keys().filter(|app| !apps.contains_key(*app))) {
        at_once.note(&format!("app.{}", units::bare(app.as_str())), apps.get(app) != new.apps.get(app));
    }
    for log in logs.keys().chain(new.logs.keys().filter(|log| !logs.contains_key(*log))) {
        at_once.note(&format!("log.{}", units::bare(log)), logs.get(log) != new.logs.get(log));
    }
    for number in numbers.keys().chain(new.numbers.keys().filter(|number| !numbers.contains_key(*number))) {
        let differs = numbers.get(number) != new.numbers.get(number);
        at_once.note(&format!("number.{}", units::bare(number)), differs);
    }
    at_once.note("protect.snapshots", protect.snapshots != new.protect.snapshots);
    at_once.note("protect.backup", protect.backup != new.protect.backup);
    at_once.note("protect.prove", protect.proof != new.protect.proof);
    let mut of_machine = Differences::default();
    note_machine(&mut of_machine, spec, &new.spec);
    VmChange { vm: name.clone(), at_once: at_once.0, of_machine: of_machine.0 }
}

fn note_policy(differences: &mut Differences, old: &VmPolicy, new: &VmPolicy) {
    let VmPolicy {
        mode,
        autostart,
        apps: _,      // told as applications
        abilities: _, // the driver's
        budget: Budget { tries, within, backoff },
        verify_for,
        boot_limit,
        hang_after,
        needs,
        disk_path: _, // the disk's
        max_data_loss,
        isolate,
        protect: _, // told as restore points
    } = old;
    differences.note("mode", mode != &new.mode);
    differences.note("autostart", autostart != &new.autostart);
    differences.note("needs", needs != &new.needs);
    differences.note("recover.tries", tries != &new.budget.tries);
    differences.note("recover.within", within != &new.budget.within);
    differences.note("recover.backoff", backoff != &new.budget.backoff);
    differences.note("recover.verify", verify_for != &new.verify_for);
    differences.note("recover.boot_limit", boot_limit != &new.boot_limit);
    differences.note("recover.hang_after", hang_after != &new.hang_after);
    differences.note("recover.max_data_loss", max_data_loss != &new.max_data_loss);
    differences.note("recover.isolate", isolate != &new.isolate);
}

fn note_machine(differences: &mut Differences, old: &QemuVm, new: &QemuVm) {
    let QemuVm { name: _, disk, images, memory, cpus, accel, kernel, network, user, program, memory_state } =
        old;
    differences.note("disk", disk != &new.disk);
    differences.note("images", images != &new.images);
    differences.note("memory", memory != &new.memory);
    differences.note("cpus", cpus != &new.cpus);
    differences.note("accel", accel != &new.accel);
    differences.note("user", user != &new.user);
    differences.note("qemu", program != &new.program);
    differences.note("memory_state", memory_state != &new.memory_state);
    let part = |of: fn(&holdfast_drivers::qemu::Kernel) -> String, vm: &QemuVm| vm.kernel.as_ref().map(of);
    let kernel_differs = |of| kernel.as_ref().map(of) != part(of, new);
    differences.note("kernel", kernel_differs(|kernel| kernel.image.display().to_string()));
    differences.note("initrd", kernel_differs(|kernel| format!("{:?}", kernel.initrd)));
    differences.note("cmdline", kernel_differs(|kernel| kernel.cmdline.clone()));
    match (network, &new.network) {
        (Network::User(old), Network::User(new)) => differences.note("forward", old != new),
        (Network::Tap { interface: old, mac }, Network::Tap { interface: new, mac: new_mac }) => {
            differences.note("network", old != new);
            differences.note("mac", mac != new_mac);
        }
        (Network::None, Network::None) => {}
        (Network::User(_) | Network::Tap { .. } | Network::None, _) => differences.note("network", true),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::Surroundings;
    use super::*;
    use std::path::Path;

    fn config(text: &str) -> Config {
        let here = Surroundings { host: "atlas".into(), root: true, state_home: None };
        Config::parse_in(text, Path::new("/etc/holdfast.toml"), &here).unwrap()
    }

    /// Every setting of a VM, each with another value than its default.
    const ALL: [(&str, &str, bool); 28] = [
        ("memory = \"2GiB\"", "memory", true),
        ("cpus = 2", "cpus", true),
        ("accel = \"tcg\"", "accel", true),
        ("images = [\"/i\"]", "images", true),
        ("kernel = \"/k\"", "kernel", true),
        ("kernel = \"/k\"\ninitrd = \"/i\"", "initrd", true),
        ("kernel = \"/k\"\ncmdline = \"x\"", "cmdline", true),
        ("network = \"none\"", "network", true),
        ("network = \"tap:tap0\"", "network", true),
        ("forward = [\"1:1\"]", "forward", true),
        ("user = \"me\"", "user", true),
        ("qemu = \"/q\"", "qemu", true),
        ("mode = \"observe\"", "mode", false),
        ("autostart = false", "autostart", false),
        ("needs = [\"b\"]", "needs", false),
        ("[vm.a.recover]\ntries = 2", "recover.tries", false),
        ("[vm.a.recover]\nwithin = \"2h\"", "recover.within", false),
        ("[vm.a.recover]\nbackoff = \"6s\"", "recover.backoff", false),
        ("[vm.a.recover]\nverify = \"6s\"", "recover.verify", false),
        ("[vm.a.recover]\nboot_limit = \"4m\"", "recover.boot_limit", false),
        ("[vm.a.recover]\nhang_after = \"11s\"", "recover.hang_after", false),
        ("[vm.a.recover]\nmax_data_loss = \"1s\"", "recover.max_data_loss", false),
        ("[vm.a.recover]\nisolate = \"pause\"", "recover.isolate", false),
        ("protect.snapshots = { every = \"1h\", keep = { last = 1 } }", "protect.snapshots", false),
        ("[vm.a.protect.backup]\nto = \"main\"\n[repository.main]\npath = \"/r\"", "protect.backup", false),
        ("[vm.a.log.journal]\njournal = true", "log.journal", false),
        ("[vm.a.number.queue]\ncommand = \"/bin/q\"", "number.queue", false),
        ("[vm.a.app.web]\nprobe = \"http://guest:80\"", "app.web", false),
    ];

    #[test]
    fn every_setting_of_a_vm_is_told_and_when_it_counts() {
        let b = "[vm.b]\ndisk = \"/b\"\n";
        let plain = config(&format!("{b}[vm.a]\ndisk = \"/a\"\n"));
        for (text, setting, of_machine) in ALL {
            let new = config(&format!("{b}[vm.a]\ndisk = \"/a\"\n{text}\n"));
            for changes in [plain.changes(&new), new.changes(&plain)] {
                let [change] = changes.changed.as_slice() else { panic!("{text}: {changes:?}") };
                let told = if of_machine { &change.of_machine } else { &change.at_once };
                assert!(told.iter().any(|told| told == setting), "{text}: {change:?}");
            }
            assert_eq!(new.changes(&new), Changes::default(), "{text}");
        }
        let disk = config(&format!("{b}[vm.a]\ndisk = \"/c\"\n"));
        assert_eq!(plain.changes(&disk).changed[0].of_machine, ["disk"]);
    }

    #[test]
    fn vms_that_come_and_go_and_settings_above_them_are_told() {
        let old = config("[vm.a]\ndisk = \"/a\"\n[vm.b]\ndisk = \"/b\"\n");
        let new = config(
            "period = \"2s\"\n[brake]\nvms = 4\n[logs]\nhost_kernel = false\n[vm.b]\ndisk = \"/b\"\n[vm.c]\ndisk = \"/c\"\n",
        );
        let changes = old.changes(&new);
        assert_eq!(changes.settings, ["period", "brake", "logs"]);
        let names = |vms: &[VmName]| vms.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!((names(&changes.added), names(&changes.removed)), (vec!["c".into()], vec!["a".into()]));
        assert_eq!(changes.changed, []);
    }
}
