//! Whole files: what is refused and how it is said, and what is meant.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use holdfast_core::isolate::Isolation;
use holdfast_core::policy::{Budget, Mode};
use holdfast_drivers::qemu::{Accel, Forward, Network};
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

fn here() -> Surroundings {
    Surroundings { host: "atlas".into(), root: true, state_home: None }
}

pub(super) fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse_in(text, Path::new("/etc/holdfast/holdfast.toml"), &here())
}

fn told(text: &str) -> Vec<Problem> {
    parse(text).unwrap_err().0.told().to_vec()
}

pub(super) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

pub(super) fn example() -> String {
    fs::read_to_string(repository().join("holdfast.example.toml")).unwrap()
}

/// Compares with a file of the repository, or writes it with `BLESS=1`.
pub(super) fn golden(path: &Path, found: &str) {
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, found).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert!(expected == found, "{} differs (BLESS=1 rewrites it):\n{found}", path.display());
}

#[test]
fn a01_to_a10_each_wrong_file_is_refused_in_these_words() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "toml") {
            let text = fs::read_to_string(&path).unwrap();
            let errors = Config::parse_in(&text, Path::new("holdfast.toml"), &here()).unwrap_err();
            golden(&path.with_extension("txt"), &format!("{errors}\n"));
            seen += 1;
        }
    }
    assert!(seen >= 18, "only {seen} golden files");
}

#[test]
fn a01_a_file_that_is_no_text_or_too_large_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("holdfast.toml");
    let cause = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Config::load(&path).unwrap_err().0.told()[0].cause.clone()
    };
    assert_eq!(cause(b"period = \"\xff\xfe\""), "it is not text: byte 10 is not UTF-8");
    assert_eq!(cause(b"\x7fELF\0"), "byte 4 is NUL: this is no text");
    assert_eq!(cause(&vec![b'#'; (1 << 20) + 1]), "it is larger than 1MiB");
    // 100 MiB, and only its first MiB is read.
    fs::File::create(&path).unwrap().set_len(100 << 20).unwrap();
    assert_eq!(Config::load(&path).unwrap_err().0.told()[0].cause, "it is larger than 1MiB");
    assert_eq!(told(&"#".repeat((1 << 20) + 1))[0].cause, "it is larger than 1MiB");
}

#[test]
fn a01_a_byte_order_mark_is_accepted_and_moves_no_caret() {
    assert_eq!(parse("\u{feff}[vm.a]\ndisk = \"a\"").unwrap(), parse("[vm.a]\ndisk = \"a\"").unwrap());
    let errors = parse("\u{feff}[vm.a]\ndisc = \"a\"").unwrap_err().to_string();
    assert!(errors.contains("2 | disc = \"a\"\n  | ^^^^\n"), "{errors}");
}

#[test]
fn a01_what_would_blow_up_a_parser_is_refused() {
    for text in [
        format!("{}=1", vec!["a"; 400_000].join(".")),
        format!("[{}]", vec!["a"; 400_000].join(".")),
        format!("a={}", "[".repeat(1_000_000)),
        format!("a={}", "{a=".repeat(300_000)),
        "=\n".repeat(500_000),
        "[vm.a]\n".repeat(140_000),
        "a=1\n".repeat(250_000),
        (0..100_000).map(|n| format!("k{n}=1\n")).collect(),
        (0..60_000).map(|n| format!("[vm.a{n}]\n")).collect(),
    ] {
        let errors = parse(&text).unwrap_err();
        assert!(errors.to_string().len() < 100_000);
    }
}

#[test]
fn a07_the_file_itself_must_be_a_plain_file_that_not_everybody_writes() {
    let dir = tempfile::tempdir().unwrap();
    let cause = |path: &Path| Config::load(path).unwrap_err().0.told()[0].cause.clone();
    assert_eq!(cause(dir.path()), "it is a folder, not a plain file");
    assert_eq!(cause(Path::new("/dev/zero")), "it is a character device, not a plain file");
    assert_eq!(cause(&dir.path().join("none.toml")), "there is no such file");
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(cause(&fifo), "it is a FIFO, not a plain file");
    let path = dir.path().join("holdfast.toml");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(cause(&path), "anybody may write it (mode 0666)");
}

#[test]
fn a08_more_patterns_than_can_be_kept_are_refused() {
    let app =
        |n: usize| format!("app.a{n} = {{ probe = \"http://guest\", contains = {{ matches = \"a\" }} }}\n");
    let text = |count: usize| format!("[vm.a]\ndisk = \"a\"\n{}", (0..count).map(app).collect::<String>());
    assert!(parse(&text(256)).is_ok());
    assert_eq!(errors(&told(&text(257))), ["more than 256 patterns are configured"]);
}

/// A folder with two disks, and the problems of a file in it.
fn problems_beside(prepare: impl Fn(&Path), text: &str) -> Vec<Problem> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.raw"), "x").unwrap();
    fs::write(dir.path().join("b.raw"), "x").unwrap();
    prepare(dir.path());
    match Config::examine(text, &dir.path().join("holdfast.toml")) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.0.told().to_vec(),
    }
}

fn errors(problems: &[Problem]) -> Vec<&str> {
    problems.iter().map(|problem| problem.error.as_str()).collect()
}

#[test]
fn a05_two_vms_on_one_disk_are_refused_whatever_the_disk_is_called() {
    let two = |disk: &str| format!("[vm.a]\ndisk = \"a.raw\"\n[vm.b]\ndisk = \"{disk}\"\n");
    let refused = ["vm `a` and vm `b` have one disk"];
    assert_eq!(problems_beside(|_| {}, &two("b.raw")), []);
    assert_eq!(errors(&problems_beside(|_| {}, &two("./a.raw"))), refused);
    let hard = |dir: &Path| fs::hard_link(dir.join("a.raw"), dir.join("hard.raw")).unwrap();
    assert_eq!(errors(&problems_beside(hard, &two("hard.raw"))), refused);
    let folder = |dir: &Path| symlink(dir, dir.join("sub")).unwrap();
    assert_eq!(errors(&problems_beside(folder, &two("sub/a.raw"))), refused);
    let image = "[vm.a]\ndisk = \"a.raw\"\n[vm.b]\ndisk = \"b.raw\"\nimages = [\"a.raw\"]\n";
    assert_eq!(errors(&problems_beside(|_| {}, image)), ["the image of vm `b` is the disk of vm `a`"]);
}

#[test]
fn a06_a_password_that_others_can_read_is_refused() {
    let text =
        "[vm.a]\ndisk = \"a.raw\"\napp.pg = { probe = \"postgres://guest\", password_file = \"pw\" }\n";
    let with = |mode: u32| {
        move |dir: &Path| {
            fs::write(dir.join("pw"), "hunter2").unwrap();
            fs::set_permissions(dir.join("pw"), fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    assert_eq!(problems_beside(with(0o600), text), []);
    let problems = problems_beside(with(0o644), text);
    assert_eq!(errors(&problems), ["cannot use the password file of vm `a`"]);
    assert!(problems[0].cause.ends_with("(mode 0644)"), "{problems:?}");
    assert_eq!(errors(&problems_beside(|_| {}, text)), ["the password file of vm `a` is missing"]);
}

#[test]
fn a07_a_link_a_device_a_fifo_and_a_folder_are_no_disk_and_no_kernel() {
    let prepare = |dir: &Path| {
        symlink(dir.join("b.raw"), dir.join("link")).unwrap();
        let fifo = dir.join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    };
    for (path, kind) in [
        ("link", "a symbolic link"),
        ("fifo", "a FIFO"),
        (".", "a folder"),
        ("/dev/null", "a character device"),
    ] {
        let problems = problems_beside(prepare, &format!("[vm.a]\ndisk = \"{path}\"\n"));
        assert_eq!(errors(&problems), [format!("the disk of vm `a` is {kind}")]);
        let text = format!("[vm.a]\ndisk = \"a.raw\"\nkernel = \"{path}\"\ninitrd = \"{path}\"\n");
        let expected = [format!("the kernel of vm `a` is {kind}"), format!("the initrd of vm `a` is {kind}")];
        assert_eq!(errors(&problems_beside(prepare, &text)), expected);
    }
    let problems = problems_beside(prepare, "[vm.a]\ndisk = \"link\"\n");
    assert!(
        problems[0].hint.starts_with("write `/") && problems[0].hint.ends_with("/b.raw`"),
        "{problems:?}"
    );
    let problems = problems_beside(prepare, "[vm.a]\ndisk = \"aa.raw\"\n");
    assert_eq!(errors(&problems), ["the disk of vm `a` is missing"]);
    assert!(problems[0].hint.ends_with("/a.raw`?"), "{problems:?}");
}

#[test]
fn a_probe_program_must_be_there_and_not_everybodys() {
    let text = "[vm.a]\ndisk = \"a.raw\"\napp.x.probe = [\"./ask\", \"now\"]\n";
    let with = |mode: u32| {
        move |dir: &Path| {
            fs::write(dir.join("ask"), "#!/bin/sh\n").unwrap();
            fs::set_permissions(dir.join("ask"), fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    assert_eq!(problems_beside(with(0o755), text), []);
    assert_eq!(errors(&problems_beside(with(0o644), text)), ["the program of vm `a` cannot be run"]);
    assert_eq!(errors(&problems_beside(with(0o777), text)), ["anybody may write the program of vm `a`"]);
    assert_eq!(errors(&problems_beside(|_| {}, text)), ["the program of vm `a` is missing"]);
}

#[test]
fn all_problems_are_told_at_once_those_of_files_too() {
    let problems = problems_beside(|_| {}, "perod = \"1s\"\n[vm.a]\ndisk = \"none.raw\"\ncpus = 0\n");
    let expected = [
        "unknown setting `perod` in the top level",
        "the disk of vm `a` is missing",
        "`cpus` is out of range",
    ];
    assert_eq!(errors(&problems), expected);
}

#[test]
fn one_line_makes_a_vm_and_its_defaults_are_those_of_the_engine() {
    let config = parse("[vm.orders]\ndisk = \"orders.qcow2\"").unwrap();
    let vm = config.vms.values().next().unwrap();
    let disk_path = "/etc/holdfast".to_owned();
    assert_eq!(vm.policy, VmPolicy { disk_path, ..VmPolicy::default() });
    assert_eq!((config.brake, Period(config.period)), (BrakePolicy::default(), Period::default()));
    assert_eq!(vm.spec.disk, Path::new("/etc/holdfast/orders.qcow2"));
    assert_eq!((vm.spec.memory, vm.spec.cpus, vm.spec.accel), (1 << 30, 1, Accel::Auto));
    assert_eq!((&vm.spec.kernel, &vm.spec.network), (&None, &Network::User(vec![])));
    assert_eq!(config.state, Path::new("/var/lib/holdfast"));
    assert_eq!(config.socket, Path::new("/var/lib/holdfast/holdfast.sock"));
    assert_eq!(config.policies().vms[&vm.spec.name], vm.policy);
    let moved = config.at_state(Path::new("/tmp/x"));
    assert_eq!(moved.socket, Path::new("/tmp/x/holdfast.sock"));
}

#[test]
fn everything_that_is_written_is_meant() {
    let text = r#"
        host = "atlas.example"
        socket = "run/hf.sock"
        user = "qemu"
        [vm."db1.example"]
        disk = "/vm/db.raw"
        memory = "2GB"
        mode = "observe"
        autostart = false
        kernel = "vmlinuz"
        initrd = "initrd"
        user = "other"
        [vm."db1.example".app]
        pg = { probe = "postgresql://me@10.0.2.15:6432/shop", query = "select 2", expect = "2", write = true,
               password_env = "PW", restart = ["systemctl", "restart", "pg"], check = "test -e '/a b'", timeout = "3s",
               quiesce = "sync" }
        cmd = { probe = ["bin/ask", "x"] }
        [vm."db1.example".recover]
        tries = 5
        within = "2h"
        max_data_loss = "15m"
        isolate = "network"
    "#;
    let config = parse(text).unwrap();
    let (name, vm) = config.vms.iter().next().unwrap();
    assert_eq!((config.host.as_str(), name.as_str()), ("atlas.example", "db1.example"));
    assert_eq!(config.socket, Path::new("/etc/holdfast/run/hf.sock"));
    assert_eq!((config.user.as_deref(), vm.spec.user.as_deref()), (Some("qemu"), Some("other")));
    assert_eq!((vm.policy.mode, vm.policy.autostart, vm.spec.memory), (Mode::Observe, false, 1_907 << 20));
    assert_eq!(vm.spec.kernel.as_ref().unwrap().cmdline, "root=/dev/vda rw");
    assert_eq!(
        vm.policy.budget,
        Budget { tries: 5, within: Duration::from_secs(7_200), ..Budget::default() }
    );
    assert_eq!(vm.policy.max_data_loss, Duration::from_secs(900));
    assert_eq!(vm.policy.isolate, Isolation::Network);
    let app =
        |name: &str| (&vm.apps[&name.parse().unwrap()], vm.policy.apps[&name.parse().unwrap()].can_restart);
    let pg = AppConfig {
        probe: Probe::Postgres {
            target: Target::Guest(6432),
            user: "me".into(),
            db: "shop".into(),
            query: "select 2".into(),
            expect: Some(Expect::Text("2".into())),
        },
        timeout: Duration::from_secs(3),
        write: true,
        password: Some(Secret::Variable("PW".into())),
        restart: Some(["systemctl", "restart", "pg"].map(str::to_owned).into()),
        quiesce: Some(vec!["sync".into()]),
        check: Some(["test", "-e", "/a b"].map(str::to_owned).into()),
    };
    assert_eq!(app("pg"), (&pg, true));
    let argv = vec!["/etc/holdfast/bin/ask".to_owned(), "x".to_owned()];
    assert_eq!((&app("cmd").0.probe, app("cmd").1), (&Probe::Command { argv }, false));
}

#[test]
fn a10_a_budget_that_could_never_be_used_up_is_refused_to_the_second() {
    let text = |within: &str| format!("[vm.a]\ndisk = \"a\"\n[vm.a.recover]\nwithin = \"{within}\"\n");
    // Three tries of 5m 5s: when the third is over, the first began 15m 15s ago.
    assert!(parse(&text("15m 16s")).is_ok());
    assert_eq!(errors(&told(&text("15m 15s"))), ["the tries do not fit into their window"]);
}

fn network_and_targets(text: &str) -> (Network, Vec<Target>) {
    let config = parse(&format!("[vm.a]\ndisk = \"a\"\n{text}")).unwrap();
    let vm = config.vms.into_values().next().unwrap();
    (vm.spec.network, vm.apps.values().filter_map(|app| app.probe.target().cloned()).collect())
}

#[test]
fn the_port_of_a_guest_that_a_probe_asks_is_forwarded_unless_it_is_already() {
    let listen = |text: &str, guest| Forward { listen: text.parse().unwrap(), guest };
    let text = "forward = [\"15432:5432\"]\napp.a.probe = \"postgres://guest\"\n\
                app.b.probe = \"http://GUEST:8080/x?y\"\napp.c.probe = \"tcp://10.0.2.15:8080\"\n\
                app.d.probe = \"mysql://localhost:15432/d\"\napp.e.probe = \"redis://192.0.2.1/3\"\n";
    let (network, targets) = network_and_targets(text);
    let forwards = vec![listen("127.0.0.1:15432", 5432), listen("127.0.0.1:0", 8080)];
    assert_eq!(network, Network::User(forwards));
    let guest = Target::Guest;
    let far = Target::Address("192.0.2.1".into(), 6379);
    assert_eq!(targets, [guest(5432), guest(8080), guest(8080), guest(5432), far]);
    let (network, targets) =
        network_and_targets("network = \"tap:t0\"\napp.a.probe = \"tcp://10.0.2.15:1\"\n");
    assert_eq!(targets, [Target::Address("10.0.2.15".into(), 1)]);
    let Network::Tap { interface, mac } = network else { panic!() };
    assert_eq!((interface.as_str(), &mac[..9]), ("t0", "52:54:00:"));
}

#[test]
fn every_probe_reads_as_it_is_written() {
    let probe = |text: &str| {
        let text = format!("[vm.a]\ndisk = \"a\"\nneeds = []\napp.x = {{ {text} }}\n");
        parse(&text).unwrap().vms.into_values().next().unwrap().apps.into_values().next().unwrap().probe
    };
    let target = Target::Address("db.example".into(), 3306);
    let query = "select 1".to_owned();
    let mysql = Probe::Mysql { target, user: "root".into(), db: None, query, expect: None };
    assert_eq!(probe("probe = \"mysql://db.example\""), mysql);
    let target = Target::Address("::1".into(), 6379);
    assert_eq!(target.to_string(), "[::1]:6379");
    assert_eq!(
        probe("probe = \"redis://me@[::1]/3\""),
        Probe::Redis { target, user: Some("me".into()), db: 3 }
    );
    let http = Probe::Http {
        tls: false,
        target: Target::Guest(8080),
        host: "guest:8080".into(),
        path: "/a?b=c".into(),
        status: 204,
        contains: Some(Expect::Pattern(super::app::Pattern::new("^ok").unwrap())),
    };
    assert_eq!(
        probe("probe = \"http://guest:8080/a?b=c\", status = 204, contains = { matches = \"^ok\" }"),
        http
    );
    assert_eq!(probe("probe = \"tcp://guest:22\""), Probe::Tcp { target: Target::Guest(22) });
}

#[test]
fn s56_a_long_chain_of_needs_is_walked_without_deep_calls() {
    let chain = |last: &str| -> String {
        let vm = |n: usize, need: &str| format!("[vm.v{n}]\ndisk = \"{n}\"\nneeds = [{need}]\n");
        (0..4_000).map(|n| if n == 3_999 { vm(n, last) } else { vm(n, &format!("\"v{}\"", n + 1)) }).collect()
    };
    assert_eq!(parse(&chain("")).unwrap().vms.len(), 4_000);
    let problems = told(&chain("\"v0\""));
    assert_eq!(errors(&problems), ["the VMs need each other in a circle"]);
    assert!(problems[0].cause.contains(".. 3993 more .."), "{}", problems[0].cause);
}

#[test]
fn without_root_the_state_is_in_the_home_of_the_user() {
    let text = "[vm.a]\ndisk = \"a\"";
    let path = Path::new("/holdfast.toml");
    let user = |home: Option<&str>| Surroundings {
        host: "Höst..Example-".into(),
        root: false,
        state_home: home.map(PathBuf::from),
    };
    let config = Config::parse_in(text, path, &user(Some("/home/me/.local/state"))).unwrap();
    assert_eq!(config.state, Path::new("/home/me/.local/state/holdfast"));
    assert_eq!(config.host.as_str(), "hst.example-");
    let refused = Config::parse_in(text, path, &user(None)).unwrap_err();
    assert_eq!(errors(refused.0.told()), ["no folder for the state is known"]);
    let long = Config::parse_in(&format!("state = \"/{}\"\n{text}", "a".repeat(100)), path, &here());
    assert_eq!(errors(long.unwrap_err().0.told()), ["the path of the socket is too long"]);
}

#[test]
fn what_is_risky_is_said_and_accepted() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "x").unwrap();
    fs::write(dir.path().join("b"), "x").unwrap();
    let text = "[vm.a]\ndisk = \"a\"\nneeds = [\"b\"]\nforward = [\"0.0.0.0:1:1\"]\n\
                app.x = { probe = \"redis://guest\", password_env = \"HOLDFAST_SURELY_NOT_SET\" }\n\
                [vm.b]\ndisk = \"b\"\nautostart = false\n";
    let loaded = Config::examine(text, &dir.path().join("holdfast.toml")).unwrap();
    let expected = [
        "the password of a/x is not set here",
        "vm `a` will wait for a person",
        "port 1 of vm `a` is open to other machines",
    ];
    assert_eq!(errors(loaded.warnings.told()), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in "(.|\n|\\[vm\\.a\\]\n|disk|=|\"|\\{|\\}|\\[|\\]|#|,|1|s){0,80}") {
        let _ = parse(&text).map_err(|errors| errors.to_string());
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&String::from_utf8_lossy(&bytes)).map_err(|errors| errors.to_string());
    }

    #[test]
    fn no_mutation_of_the_example_panics_and_what_is_accepted_holds_together(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..12, "\\PC{0,6}"), 1..6),
        uncommented in any::<bool>(),
    ) {
        let mut text = example();
        if uncommented {
            text = text.replace("\n#", "\n");
        }
        for (at, cut, put) in &edits {
            let from = text.floor_char_boundary(at.index(text.len() + 1));
            let to = text.floor_char_boundary((from + cut).min(text.len()));
            text.replace_range(from..to, put);
        }
        match parse(&text) {
            Ok(config) => {
                prop_assert!(!config.vms.is_empty());
                for vm in config.vms.values() {
                    prop_assert!(vm.policy.verify_for <= vm.policy.boot_limit);
                    prop_assert!(vm.policy.hang_after >= config.period * 3);
                    prop_assert!((1..=100).contains(&vm.policy.budget.tries));
                    prop_assert!(vm.spec.memory >= 64 << 20 && vm.spec.disk.is_absolute());
                }
            }
            Err(errors) => prop_assert!(errors.0.count() > 0 && errors.to_string().contains("\nhint:  ")),
        }
    }
}

#[test]
fn cutting_off_a_vm_that_has_no_network_is_refused() {
    let vm = "[vm.a]\ndisk = \"/a\"\nnetwork = \"none\"\n[vm.a.recover]\nisolate = \"network\"\n";
    let said = parse(vm).unwrap_err().to_string();
    assert!(said.contains("`isolate` means nothing in [vm.a.recover]"), "{said}");
    assert!(said.contains("--> ") && said.contains("write `isolate = \"pause\"`"), "{said}");
    parse(&vm.replace("\"network\"\n", "\"pause\"\n")).unwrap();
}

#[test]
fn numbers_of_ones_own_are_as_many_as_can_be_judged_and_no_more() {
    let numbers = |vm: &str, count: usize| {
        let one = |n: usize| format!("number.n{n} = {{ guest_command = \"cat /n\" }}\n");
        format!("[vm.{vm}]\ndisk = \"{vm}\"\n{}", (0..count).map(one).collect::<String>())
    };
    assert!(parse(&numbers("a", 64)).is_ok());
    assert_eq!(errors(&told(&numbers("a", 65))), ["65 numbers are configured for vm `a`"]);
    let all: String = ["a", "b", "c", "d", "e"].map(|vm| numbers(vm, 52)).concat();
    assert_eq!(errors(&told(&all)), ["52 numbers are configured for vm `e`"]);
    let query = "[vm.a]\ndisk = \"a\"\napp.db.probe = \"postgres://guest\"\nnumber.jobs = { query = \"select 7\", kind = \"total\", unit = \"jobs\" }";
    let number = &parse(query).unwrap().vms[&"a".parse().unwrap()].numbers["jobs"];
    let from = NumberFrom::Query { app: "db".parse().unwrap(), query: "select 7".into() };
    assert_eq!((&number.from, number.shown_unit().as_str()), (&from, "jobs/s"));
}

#[test]
fn i19_otlp_is_received_from_other_machines_with_certificates_of_senders_or_where_it_is_said_to_be_open() {
    let otlp = |text: &str| {
        parse(&format!("[logs.otlp]\ngrpc = \"0.0.0.0:4317\"\n{text}[vm.a]\ndisk = \"a\"\n"))
            .map(|config| config.sources.otlp)
    };
    let files = "cert = \"tls/logs.pem\"\nkey = \"/logs.key\"\n";
    let safe = otlp(&format!("{files}client_ca = \"senders.pem\"\n")).unwrap();
    let tls = TlsConfig {
        cert: "/etc/holdfast/tls/logs.pem".into(),
        key: "/logs.key".into(),
        client_ca: Some("/etc/holdfast/senders.pem".into()),
    };
    assert_eq!((safe.http, safe.grpc, safe.tls), (None, "0.0.0.0:4317".parse().ok(), Some(tls)));
    assert!(otlp("").is_err() && otlp(files).is_err());
    assert_eq!(otlp("open = true\n").unwrap().tls, None);
    assert_eq!(otlp(&format!("{files}open = true\n")).unwrap().tls.unwrap().client_ca, None);
}
