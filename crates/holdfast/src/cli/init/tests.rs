//! Tests of `init`: what it finds, what it writes, what it refuses to write over.

#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;

/// A folder with a disk, and a process table with one QEMU on it.
fn world(arguments: &str) -> (tempfile::TempDir, Init) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    std::fs::write(root.join("orders.raw"), "x").unwrap();
    let process = root.join("proc/4711");
    std::fs::create_dir_all(&process).unwrap();
    std::fs::create_dir_all(root.join("proc/self")).unwrap();
    std::os::unix::fs::symlink(&root, process.join("cwd")).unwrap();
    let words: Vec<&str> = arguments.split_whitespace().collect();
    std::fs::write(process.join("cmdline"), format!("/usr/bin/qemu-system-x86_64\0{}\0", words.join("\0")))
        .unwrap();
    let asked = Init { path: root.join("holdfast.toml"), proc: root.join("proc"), ..Init::default() };
    (dir, asked)
}

#[test]
fn a_running_vm_is_written_down_with_a_comment_on_each_line_and_passes_check() {
    let (dir, asked) =
        world("-name orders -m 512 -drive file=orders.raw -nic user,hostfwd=tcp:127.0.0.1:15432-:5432");
    let answer = init(&asked);
    assert_eq!((answer.code, answer.err.as_str()), (0, ""));
    assert!(answer.out.starts_with("wrote ") && answer.out.contains(": orders\n"), "{}", answer.out);
    let root = dir.path().canonicalize().unwrap().display().to_string();
    let text = std::fs::read_to_string(&asked.path).unwrap();
    let disk = format!("disk = \"{root}/orders.raw\"");
    assert!(text.lines().any(|line| line.starts_with(&disk)), "{text}");
    for line in [
        "memory = \"512MiB\" ",
        "cpus = 1 ",
        "forward = [\"127.0.0.1:15432:5432\"] ",
        "[vm.orders.app.postgres] ",
        "probe = \"tcp://guest:5432\" ",
    ] {
        assert!(text.lines().any(|found| found.starts_with(line) && found.contains(" # ")), "{line}\n{text}");
    }
    let loaded = Config::load(&asked.path).unwrap();
    assert_eq!(loaded.config.vms.len(), 1);
    assert_eq!(crate::cli::check::check(&crate::cli::Place::of(&asked.path), false, false).code, 0);
}

#[test]
fn a_file_that_exists_is_only_replaced_when_told_to() {
    let (_dir, mut asked) = world("-name a -hda orders.raw");
    std::fs::write(&asked.path, "mine").unwrap();
    let answer = init(&asked);
    assert_eq!(answer.code, 1);
    assert!(answer.err.contains("cause: it exists already\n"), "{}", answer.err);
    assert_eq!(std::fs::read_to_string(&asked.path).unwrap(), "mine");
    asked.force = true;
    assert_eq!(init(&asked).code, 0);
    assert!(Config::load(&asked.path).is_ok());
    let left: Vec<_> = std::fs::read_dir(asked.path.parent().unwrap()).unwrap().flatten().collect();
    assert_eq!(left.len(), 3, "no draft stays behind: {left:?}");
}

#[test]
fn a07_a_vm_that_check_would_refuse_is_left_out_and_named() {
    let (dir, mut asked) = world("-name ghost -hda /nowhere/ghost.raw");
    let answer = init(&asked);
    assert_eq!(answer.code, 1);
    assert!(answer.err.contains("the disk of vm `ghost` is missing"), "{}", answer.err);
    assert!(!asked.path.exists());
    asked.folders = vec![dir.path().to_owned()];
    let answer = init(&asked);
    assert_eq!(answer.code, 0);
    assert!(answer.out.contains("left out `ghost`: the disk of vm `ghost` is missing"), "{}", answer.out);
    assert!(Config::load(&asked.path).unwrap().config.vms.keys().any(|name| name.as_str() == "orders"));
}

#[test]
fn a02_a_hostile_name_of_a_process_is_made_safe() {
    let (_dir, asked) = world("-name ]$(reboot)\u{1b}[2J -hda orders.raw");
    assert_eq!(init(&asked).code, 0);
    let text = std::fs::read_to_string(&asked.path).unwrap();
    assert!(text.contains("[vm.reboot2j]") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn two_vms_with_one_name_get_two_and_two_on_one_disk_do_not_both_get_in() {
    let (dir, mut asked) = world("-name web -hda orders.raw");
    std::fs::write(dir.path().join("web.img"), "x").unwrap();
    asked.folders = vec![dir.path().to_owned(), dir.path().to_owned()];
    assert!(init(&asked).out.contains(": web, web-2\n"));
}

#[test]
fn without_any_vm_the_demo_is_written_and_without_that_nothing() {
    let (dir, mut asked) = world("-m 1G");
    let answer = init(&asked);
    assert_eq!(answer.code, 1);
    assert!(answer.err.starts_with("error: found no VM to write down\n"), "{}", answer.err);
    let disk = dir.path().join("orders.raw");
    let kernel = dir.path().join("vmlinuz");
    std::fs::write(&kernel, "x").unwrap();
    let kernel = Some((kernel, None, "root=/dev/vda rw".into()));
    asked.demo = Some(FoundVm { name: "demo".into(), disk, kernel, ..FoundVm::default() });
    assert_eq!(init(&asked).code, 0);
    assert!(Config::load(&asked.path).unwrap().config.vms.values().all(|vm| vm.spec.kernel.is_some()));
}
