//! Single files out of restore points: ext4 as `mkfs` made it, in partitions and without, and as a hostile guest made it.

#![expect(clippy::unwrap_used, reason = "tests")]

use holdfast_fuzz::Chance;
use serde_json::Value;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        assert!(place.backup(&["init"]).status.success());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn backup(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command.arg("backup").args(words).arg("--repo").arg(self.path("repo"));
        command.env("XDG_CONFIG_HOME", self.path("config")).env("XDG_CACHE_HOME", self.path("cache"));
        command.env("NO_COLOR", "1").output().unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        let said = self.backup(&[words, &["--json"]].concat());
        assert!(said.status.success(), "{words:?}: {}", String::from_utf8_lossy(&said.stderr));
        serde_json::from_slice(&said.stdout).unwrap()
    }

    /// What a file system of so many MiB holds that `fill` fills a folder for.
    fn ext4(&self, name: &str, words: &[&str], mib: u64, fill: impl FnOnce(&Path)) -> PathBuf {
        let (image, inside) = (self.path(name), self.path("inside"));
        fs::create_dir(&inside).unwrap();
        fill(&inside);
        let mut make = Command::new("mkfs.ext4");
        make.arg("-q").args(words).arg("-d").arg(&inside).arg(&image).arg(format!("{mib}M"));
        assert!(
            make.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").status().expect("package e2fsprogs").success()
        );
        fs::remove_dir_all(&inside).unwrap();
        image
    }

    fn save(&self, image: &Path, name: &str) {
        let image = image.to_str().unwrap();
        let saved = self.backup(&["image", image, "--of", name]);
        assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    }
}

fn fill(folder: &Path) {
    fs::create_dir_all(folder.join("etc/postgresql")).unwrap();
    fs::write(folder.join("etc/postgresql/postgresql.conf"), "port = 5432\n").unwrap();
    fs::write(folder.join("etc/\u{1b}[31mred"), "").unwrap();
    let mut sparse = fs::File::create(folder.join("etc/sparse")).unwrap();
    sparse.seek(SeekFrom::Start(20 << 20)).unwrap();
    sparse.write_all(b"the end").unwrap();
    symlink("/etc/shadow", folder.join("etc/link")).unwrap();
    fs::set_permissions(folder.join("etc/postgresql"), fs::Permissions::from_mode(0o750)).unwrap();
    assert!(Command::new("mkfifo").arg(folder.join("etc/pipe")).status().unwrap().success());
}

/// An MBR with one partition, the second, from 1 MiB on.
fn partitioned(image: &Path) {
    let fs = fs::read(image).unwrap();
    let mut disk = vec![0; 1 << 20];
    disk[446 + 16 + 4] = 0x83;
    disk[446 + 16 + 8..446 + 16 + 12].copy_from_slice(&2_048_u32.to_le_bytes());
    disk[446 + 16 + 12..446 + 16 + 16].copy_from_slice(&u32::try_from(fs.len() / 512).unwrap().to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk.extend(fs);
    fs::write(image, disk).unwrap();
}

#[test]
fn files_are_listed_and_come_back_as_they_were() {
    let place = Place::new();
    let image = place.ext4("disk", &[], 32, fill);
    place.save(&image, "plain");
    partitioned(&image);
    place.save(&image, "parted");
    for (of, partition) in [("plain", 0), ("parted", 2)] {
        let listed = place.json(&["files", "/etc", "--of", of]);
        assert_eq!(listed["partition"], partition, "{listed}");
        let all = listed["entries"].as_array().unwrap();
        let entry = |name: &str| all.iter().find(|entry| entry["name"] == name).unwrap().clone();
        assert_eq!(
            (&entry("sparse")["size"], &entry("link")["to"]),
            (&(20_971_527).into(), &"/etc/shadow".into())
        );
        let shown = place.backup(&["files", "/etc", "--of", of]).stdout;
        assert!(!shown.contains(&0x1b), "{}", String::from_utf8_lossy(&shown));

        let out = place.path(&format!("out-{of}"));
        let done = place.json(&["extract", "/etc", "--of", of, "--out", out.to_str().unwrap()]);
        assert_eq!(
            (&done["files"], &done["links"], &done["left_out"]),
            (&3.into(), &1.into(), &1.into()),
            "{done}"
        );
        assert_eq!(fs::read_to_string(out.join("postgresql/postgresql.conf")).unwrap(), "port = 5432\n");
        assert_eq!(fs::metadata(out.join("postgresql")).unwrap().permissions().mode() & 0o777, 0o750);
        assert_eq!(fs::read_link(out.join("link")).unwrap(), Path::new("/etc/shadow"));
        let sparse = fs::metadata(out.join("sparse")).unwrap();
        assert_eq!(sparse.len(), 20_971_527);
        assert!(sparse.blocks() * 512 < 1 << 20, "holes stay holes: {}", sparse.blocks());
    }
    let one = place.path("one.conf");
    let path = "/etc/postgresql/postgresql.conf";
    place.json(&["extract", path, "--of", "plain", "--out", one.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&one).unwrap(), "port = 5432\n");
}

#[test]
fn what_cannot_be_is_said_and_nothing_is_replaced_or_left() {
    let place = Place::new();
    let image = place.ext4("disk", &[], 32, fill);
    place.save(&image, "disk");
    fs::write(place.path("empty"), vec![0; 1 << 20]).unwrap();
    place.save(&place.path("empty"), "empty");
    let there = place.path("there");
    fs::write(&there, "precious").unwrap();
    let at = there.to_str().unwrap();
    for (words, why) in [
        (vec!["extract", "/etc", "--of", "disk", "--out", at], "exists"),
        (vec!["files", "/nowhere", "--of", "disk"], "not found"),
        (vec!["files", "/", "--of", "disk", "--partition", "7"], "no such partition; there are: 0"),
        (vec!["files", "/", "--of", "empty"], "holdfast backup export"),
    ] {
        let said = place.backup(&words);
        let text = String::from_utf8_lossy(&said.stderr).to_lowercase();
        assert!(!said.status.success() && text.contains(why), "{words:?}: {text}");
    }
    let here = place.path("here.img");
    fs::copy(&image, &here).unwrap();
    change(
        &here,
        &[
            "mknod pipe p".into(),
            "mknod disk b 8 0".into(),
            "symlink gone /no/where".into(),
            "symlink up ../../etc".into(),
        ],
    );
    place.save(&here, "here");
    let new = place.path("new");
    for (path, why) in [
        ("/pipe", "a device, a socket or a fifo"),
        ("/disk", "a device, a socket or a fifo"),
        ("/gone", "it is a link to `/no/where`"),
    ] {
        let said = place.backup(&["extract", path, "--of", "here", "--out", new.to_str().unwrap()]);
        let text = String::from_utf8_lossy(&said.stderr);
        assert!(!said.status.success() && text.contains(why), "{path}: {text}");
        assert!(new.symlink_metadata().is_err());
    }
    // A link that is named leads to what it names in the guest; one in a folder is a link again, and nothing goes through it.
    place.json(&["extract", "/up", "--of", "here", "--out", new.to_str().unwrap()]);
    assert!(new.join("postgresql/postgresql.conf").is_file() && !new.join("passwd").exists());
    let all = place.path("all");
    let told = place.json(&["extract", "/", "--of", "here", "--out", all.to_str().unwrap()]);
    assert_eq!(told["left_out"], 3, "with the fifo that was there: {told}");
    assert_eq!(fs::read_link(all.join("up")).unwrap(), Path::new("../../etc"));
    std::os::unix::fs::symlink(&all, place.path("onto")).unwrap();
    let said =
        place.backup(&["extract", "/etc", "--of", "here", "--out", place.path("onto").to_str().unwrap()]);
    assert!(!said.status.success() && String::from_utf8_lossy(&said.stderr).contains("is there already"));
    assert_eq!(fs::read_to_string(&there).unwrap(), "precious");
    let left = fs::read_dir(place.0.path()).unwrap().flatten();
    assert!(left.into_iter().all(|entry| !entry.file_name().to_string_lossy().contains("unfinished")));
}

#[test]
fn a_file_system_that_a_hostile_guest_wrote_leads_nowhere() {
    let place = Place::new(); // A31 in part, I17
    let image = place.ext4("disk", &["-O", "^metadata_csum"], 8, |folder| {
        fs::write(folder.join("file"), "x".repeat(9_000)).unwrap();
    });
    let good = fs::read(&image).unwrap();
    for seed in 0..16 {
        let mut bad = good.clone();
        // Where ext4 keeps what it knows: superblock, descriptors, bitmaps, the first inodes and folders.
        let mut chance = Chance::new(seed);
        for _ in 0..=seed % 8 {
            let at = 1_024 + chance.below(255 << 10);
            bad[at] = chance.below(256) as u8;
        }
        fs::write(&image, &bad).unwrap();
        let of = format!("bad{seed}");
        place.save(&image, &of);
        let out = place.path(&of);
        let said = place.backup(&["extract", "/", "--of", &of, "--out", out.to_str().unwrap()]);
        let text = String::from_utf8_lossy(&said.stderr);
        assert!(!text.contains("panicked"), "{seed}: {text}");
        assert!(matches!(said.status.code(), Some(0 | 1)), "{seed}: {said:?}");
        assert_eq!(out.exists(), said.status.success());
    }
}

/// Has `debugfs` change a file system.
fn change(image: &Path, commands: &[String]) {
    let mut debugfs = Command::new("debugfs");
    debugfs.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").arg("-w").arg("-f").arg("-").arg(image);
    let mut running =
        debugfs.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    running.stdin.take().unwrap().write_all(commands.join("\n").as_bytes()).unwrap();
    assert!(running.wait().unwrap().success());
}

#[test]
fn no_more_is_extracted_than_the_disk_holds_and_what_came_until_then_stays_i18() {
    let place = Place::new();
    let mut chance = Chance::new(1);
    let noise: Vec<u8> = (0..4 << 20).map(|_| chance.below(256) as u8).collect();
    let shared = place.ext4("shared", &[], 16, |folder| {
        fs::write(folder.join("0"), &noise).unwrap();
        (1..9).for_each(|name| fs::hard_link(folder.join("0"), folder.join(name.to_string())).unwrap());
    });
    // Each folder is in the one above under many names, so that there are 4^12 ways to the last one.
    let many = place.ext4("many", &["-O", "^has_journal"], 2, |folder| {
        fs::create_dir_all(folder.join(["a"; 12].join("/"))).unwrap();
    });
    let link = |depth: usize| {
        let above = "/a".repeat(depth);
        ["b", "c", "d"].map(|name| format!("ln {above}/a {above}/{name}"))
    };
    change(&many, &(0..11).flat_map(link).collect::<Vec<_>>());
    for (image, why) in [(&shared, "more than the 16.00 MiB of its disk"), (&many, "of its disk")] {
        let of = image.file_name().unwrap().to_str().unwrap();
        place.save(image, of);
        let folder = place.path(&format!("out-{of}"));
        fs::create_dir(&folder).unwrap();
        let out = folder.join("all");
        let said = place.backup(&["extract", "/", "--of", of, "--out", out.to_str().unwrap()]);
        let text = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.code() == Some(1) && text.contains(why), "{of}: {text}");
        assert!(!out.exists() && text.contains("all.") && text.contains(".unfinished"), "{text}");
        let left = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        let used = Command::new("du").args(["-s", "--apparent-size", "-B1"]).arg(&left).output().unwrap();
        let used = String::from_utf8(used.stdout).unwrap();
        let used: u64 = used.split_whitespace().next().unwrap().parse().unwrap();
        assert!(fs::read_dir(&left).unwrap().count() > 0 && used < 64 << 20, "{used}");
    }
    // A part of it comes back.
    let one = place.path("one");
    place.json(&["extract", "/3", "--of", "shared", "--out", one.to_str().unwrap()]);
    assert_eq!(fs::metadata(&one).unwrap().len(), 4 << 20);
}
