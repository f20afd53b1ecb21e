//! Rotation in all its forms, between looks and between two lives of the daemon.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use holdfast_fuzz::memory::{Peak, alone};
use proptest::prelude::*;
use rustix::fs::{CWD, Mode};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

struct Lab {
    folder: TempDir,
    now: Instant,
    written: u32,
    follower: Follower,
    last: Option<Place>,
    got: Vec<String>,
    gaps: u32,
}

impl Lab {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let follower = Follower::new(&folder.path().join("orders.log"), Begin::Behind(0), 64);
        Self { folder, now: Instant::now(), written: 0, follower, last: None, got: Vec::new(), gaps: 0 }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn path(&self) -> PathBuf {
        self.at("orders.log")
    }

    fn append_to(&mut self, path: &Path, count: u32) {
        let mut file = File::options().append(true).create(true).open(path).unwrap();
        for _ in 0..count {
            self.written += 1;
            writeln!(file, "2026-11-26 line {}", self.written).unwrap();
        }
    }

    fn append(&mut self, count: u32) {
        self.append_to(&self.path(), count);
    }

    /// One look, and then as many as there is more to read.
    fn look(&mut self) {
        loop {
            let look = self.follower.look(self.now).unwrap();
            self.gaps += u32::from(look.gap);
            for line in look.lines {
                self.last = Some(line.place);
                self.got.push(String::from_utf8(line.text).unwrap().trim_end().to_owned());
            }
            if !look.more {
                return;
            }
        }
    }

    /// Looks for long enough that a replaced file is left.
    fn look_on(&mut self) {
        for _ in 0..5 {
            self.look();
            self.now += QUIET;
        }
    }

    /// The daemon is started again, with the place that was kept with the last line.
    fn restart(&mut self) {
        let begin = self.last.map_or(Begin::Behind(0), Begin::At);
        self.follower = Follower::new(&self.path(), begin, 64);
    }

    fn all(&self) -> Vec<String> {
        (1..=self.written).map(|n| format!("2026-11-26 line {n}")).collect()
    }

    fn check(&self) {
        assert_eq!(self.got, self.all());
    }
}

#[test]
fn a_renamed_file_is_read_to_its_end_while_its_writer_has_it() {
    let mut lab = Lab::new();
    lab.append(3);
    lab.look();
    fs::rename(lab.path(), lab.at("orders.log.1")).unwrap();
    lab.look();
    lab.append_to(&lab.at("orders.log.1"), 2); // nothing new is there yet
    lab.look();
    File::create(lab.path()).unwrap();
    lab.append_to(&lab.at("orders.log.1"), 2); // the writer has not opened the new one
    lab.look();
    lab.append(2);
    lab.look_on();
    lab.check();
}

#[test]
fn a_writer_that_never_lets_go_does_not_keep_the_new_file_waiting_for_ever() {
    let mut lab = Lab::new();
    lab.append(1);
    lab.look();
    fs::rename(lab.path(), lab.at("orders.log.1")).unwrap();
    fs::write(lab.path(), "new\n").unwrap();
    for _ in 0..40 {
        lab.append_to(&lab.at("orders.log.1"), 1);
        lab.look();
        lab.now += Duration::from_secs(1);
    }
    assert!(lab.got.contains(&"new".to_owned()));
}

#[test]
fn a_file_that_was_copied_and_truncated_is_read_to_its_end_from_the_copy() {
    let mut lab = Lab::new();
    lab.append(20);
    lab.look();
    lab.append(5);
    fs::copy(lab.path(), lab.at("orders.log.1")).unwrap();
    File::options().write(true).open(lab.path()).unwrap().set_len(0).unwrap();
    lab.look();
    lab.append(30); // past the old place at once
    lab.look_on();
    lab.append(1);
    lab.look_on();
    lab.check();
}

#[test]
fn a_truncated_file_that_has_grown_past_the_old_place_is_read_from_its_start() {
    let mut lab = Lab::new();
    lab.append(2);
    lab.look();
    fs::write(lab.path(), "").unwrap();
    lab.append(40);
    lab.look_on();
    lab.check();
}

#[test]
fn a_link_that_leads_elsewhere_now_is_followed() {
    let mut lab = Lab::new();
    let (one, two) = (lab.at("orders-1.log"), lab.at("orders-2.log"));
    lab.append_to(&one, 2);
    symlink(&one, lab.path()).unwrap();
    lab.look();
    lab.append_to(&one, 2);
    lab.append_to(&two, 2);
    symlink("orders-2.log", lab.at("next")).unwrap();
    fs::rename(lab.at("next"), lab.path()).unwrap();
    lab.look_on();
    lab.append_to(&two, 1);
    lab.look_on();
    lab.check();
}

#[test]
fn a_deleted_file_is_let_go_and_its_return_is_read_from_its_start() {
    let mut lab = Lab::new();
    lab.append(2);
    lab.look();
    fs::remove_file(lab.path()).unwrap();
    lab.look_on();
    assert!(lab.follower.reads().is_none(), "its disk space is free");
    lab.append(2);
    lab.look_on();
    lab.check();
}

#[test]
fn after_a_restart_it_goes_on_where_it_was_also_in_what_was_moved_or_copied() {
    for copy in [false, true] {
        let mut lab = Lab::new();
        lab.append(3);
        lab.look();
        lab.append(3);
        if copy {
            fs::copy(lab.path(), lab.at("orders.log-20261126")).unwrap();
            File::options().write(true).open(lab.path()).unwrap().set_len(0).unwrap();
        } else {
            fs::rename(lab.path(), lab.at("orders.log-20261126")).unwrap();
        }
        lab.append(3);
        lab.restart();
        lab.look_on();
        lab.check();
        lab.restart();
        lab.append(1);
        lab.look_on();
        lab.check();
    }
}

#[test]
fn a_place_that_is_gone_is_told_and_what_is_there_is_read() {
    let mut lab = Lab::new();
    lab.append(3);
    lab.look();
    fs::remove_file(lab.path()).unwrap();
    lab.append(3);
    lab.restart();
    lab.look_on();
    assert_eq!(lab.gaps, 1);
    lab.check();
}

#[test]
fn a_half_line_waits_also_over_a_restart_and_the_last_of_a_file_counts() {
    let mut lab = Lab::new();
    fs::write(lab.path(), "one\ntw").unwrap();
    lab.look_on();
    assert_eq!(lab.got, ["one"]);
    lab.restart();
    File::options().append(true).open(lab.path()).unwrap().write_all(b"o\nthree").unwrap();
    lab.look_on();
    assert_eq!(lab.got, ["one", "two"]);
    fs::rename(lab.path(), lab.at("orders.log.1")).unwrap();
    fs::write(lab.path(), "four\n").unwrap();
    lab.look_on();
    assert_eq!(lab.got, ["one", "two", "three", "four"]);
}

#[test]
fn a30_what_is_not_a_plain_file_is_refused_without_waiting_and_its_return_is_welcome() {
    let mut lab = Lab::new();
    let make: [&dyn Fn(&Path); 4] = [
        &|path| rustix::fs::mknodat(CWD, path, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap(),
        &|path| symlink("/dev/zero", path).unwrap(),
        &|path| fs::create_dir(path).unwrap(),
        &|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
    ];
    for make in make {
        make(&lab.path());
        assert!(matches!(lab.follower.look(lab.now), Err(TailError::NotAFile(_))));
        fs::remove_file(lab.path()).or_else(|_| fs::remove_dir(lab.path())).unwrap();
    }
    lab.append(2);
    lab.look_on();
    lab.check();
}

#[test]
fn a30_a_line_without_an_end_and_an_endless_file_cost_little() {
    alone("sense::logs::follow::tests::a30_a_line_without_an_end_and_an_endless_file_cost_little", endless);
}

fn endless() {
    let peak = Peak::start();
    let mut lab = Lab::new();
    fs::write(lab.path(), vec![b'x'; 300_000]).unwrap();
    lab.look();
    assert_eq!(lab.got.iter().map(String::len).collect::<Vec<_>>(), [64]);
    File::options().write(true).open(lab.path()).unwrap().set_len(1 << 40).unwrap();
    let look = lab.follower.look(lab.now).unwrap();
    assert!(look.skipped > (1 << 40) - (1 << 20), "{}", look.skipped);
    peak.is_below("an endless file", 4);
}

#[test]
fn a_packed_file_is_no_log() {
    let mut lab = Lab::new();
    fs::write(lab.path(), b"\x1f\x8b\x08\0\0\0").unwrap();
    assert!(matches!(lab.follower.look(lab.now), Err(TailError::Io { .. })));
}

/// What happens to a log.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u32),
    Look,
    Rename,
    Copy,
    Swap,
    Wait,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1u32..30).prop_map(Step::Write),
        4 => Just(Step::Look),
        1 => Just(Step::Rename),
        1 => Just(Step::Copy),
        1 => Just(Step::Swap),
        2 => Just(Step::Wait),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

/// Rotation `number`: what was rotated once is not rotated again, as by date.
fn rotate(lab: &mut Lab, step: Step, number: usize) {
    let to = lab.at(&format!("orders.log-{number:03}"));
    if !lab.path().exists() {
        return;
    }
    match step {
        Step::Rename => fs::rename(lab.path(), to).unwrap(),
        Step::Copy => {
            fs::copy(lab.path(), to).unwrap();
            File::options().write(true).open(lab.path()).unwrap().set_len(0).unwrap();
        }
        Step::Swap => {
            fs::rename(lab.path(), to).unwrap();
            let target = lab.at(&format!("new-{number:03}"));
            fs::write(&target, "").unwrap();
            symlink(&target, lab.path()).unwrap();
        }
        Step::Write(_) | Step::Look | Step::Wait | Step::Restart => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn whatever_is_rotated_no_line_is_lost_or_told_twice(steps in steps()) {
        let mut lab = Lab::new();
        lab.append(1); // a file that nobody has seen cannot be known again
        lab.look();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Write(count) => lab.append(count),
                Step::Look => lab.look(),
                Step::Wait => lab.look_on(),
                Step::Restart => lab.restart(),
                Step::Rename | Step::Copy | Step::Swap => {
                    // One rotation at a time: two between looks leave a file that nobody has seen.
                    lab.append(1);
                    lab.look_on();
                    lab.append(2);
                    rotate(&mut lab, step, number);
                    // What is written before the look is found all the same.
                    if number % 2 == 0 {
                        lab.append(40);
                    }
                    if number % 3 == 0 {
                        lab.restart();
                    }
                    lab.look_on();
                }
            }
        }
        lab.look_on();
        prop_assert_eq!(lab.gaps, 0);
        let wrong = lab.got.iter().zip(lab.all()).position(|(got, wrote)| *got != wrote);
        let wrong = wrong.map(|at| lab.got[at.saturating_sub(1)..].iter().take(4).collect::<Vec<_>>());
        prop_assert!(lab.got == lab.all(), "{} of {}, wrong from {:?}", lab.got.len(), lab.written, wrong);
    }

    #[test]
    fn no_text_is_a_place_by_chance(text in "(file )?[0-9a-f -]{0,40}") {
        if let Ok(place) = text.parse::<Place>() {
            prop_assert_eq!(place.to_string().parse::<Place>().ok(), Some(place));
        }
    }
}
