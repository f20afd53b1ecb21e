//! A fake agent, played by the test: honest, away, rotating, hostile.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::testing::{Answer, FakeGuest, Lab};
use super::*;
use holdfast_core::lease::Incarnation;
use holdfast_fuzz::memory::{Peak, alone};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

pub fn piece(bytes: impl Into<Vec<u8>>) -> Piece {
    Piece { incarnation: Incarnation(3), bytes: bytes.into(), size: None, code: Some(0) }
}

pub fn refused(why: &str) -> DriverError {
    DriverError::Refused { what: "read a log in", vm: "orders".parse().unwrap(), why: why.into() }
}

fn start(lab: &Lab, what: What) -> tokio::task::JoinHandle<()> {
    let vm: VmName = "orders".parse().unwrap();
    let subject = Subject::Guest(vm.clone());
    tokio::spawn(follow(GuestLog { vm, subject, what }, lab.means.clone()))
}

async fn end(lab: &Lab, task: tokio::task::JoinHandle<()>) {
    lab.means.stop.cancel();
    task.await.unwrap();
}

/// Answers in this order, then nothing new; and what was asked.
fn script(answers: Vec<Result<Piece, DriverError>>) -> (Arc<FakeGuest>, Arc<Mutex<Vec<GuestRead>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (mut answers, log) = (VecDeque::from(answers), Arc::clone(&asked));
    let answer: Answer = Box::new(move |read| {
        log.lock().unwrap().push(read.clone());
        answers.pop_front().unwrap_or_else(|| Ok(piece("")))
    });
    (FakeGuest::new(answer), asked)
}

pub fn entry(number: u32) -> String {
    format!(
        r#"{{"__CURSOR":"s=a;i={number}","__REALTIME_TIMESTAMP":"1764150000000000","MESSAGE":"message {number}","PRIORITY":"3"}}"#
    ) + "\n"
}

#[tokio::test]
async fn what_the_agent_logs_of_our_own_questions_is_not_a_log_of_the_guest() {
    let of_agent = |number: u32, priority: u32, text: &str| {
        format!(
            r#"{{"__CURSOR":"s=a;i={number}","MESSAGE":"{text}","PRIORITY":"{priority}","SYSLOG_IDENTIFIER":"qemu-ga"}}"#
        ) + "\n"
    };
    let (guest, _) = script(vec![
        Ok(piece(entry(1))), // of long ago
        Ok(piece(
            [
                of_agent(2, 6, "info: guest-exec called: journalctl"),
                of_agent(3, 4, "warning: guest-shutdown called, mode: powerdown"),
                of_agent(4, 6, "info: the agent starts"),
                entry(5),
            ]
            .concat(),
        )),
    ]);
    let mut lab = Lab::new(guest);
    let task = start(&lab, What::Journal);
    let told = ["warning: guest-shutdown called, mode: powerdown", "info: the agent starts", "message 5"];
    assert_eq!(lab.texts(3).await, told);
    end(&lab, task).await;
}

#[tokio::test]
async fn a_journal_is_read_by_cursor_and_goes_on_there_after_a_restart() {
    let (guest, asked) = script(vec![
        Ok(piece(entry(1))), // of long ago
        Ok(piece([entry(2), entry(3)].concat() + "{\"__CURSOR\":\"s=a;i=4\",\"MESS")),
    ]);
    let mut lab = Lab::new(guest);
    let task = start(&lab, What::Journal);
    let first = lab.next().await;
    assert_eq!((first.record.text.as_str(), first.incarnation), ("message 2", Some(Incarnation(3))));
    assert_eq!((first.source.as_str(), first.place.as_deref()), ("journal", Some("s=a;i=2")));
    assert_eq!(lab.texts(1).await, ["message 3"]);
    end(&lab, task).await;
    let last = |asked: &Mutex<Vec<GuestRead>>| match asked.lock().unwrap().last() {
        Some(GuestRead::Command(words)) => words.last().unwrap().clone(),
        other => panic!("{other:?}"),
    };
    assert!(last(&asked).starts_with("--after-cursor=s=a;i="), "{asked:?}");
    let (guest, asked) = script(vec![Ok(piece(entry(4)))]);
    let mut lab = Lab::going_on(guest, lab.places);
    let task = start(&lab, What::Journal);
    assert_eq!(lab.texts(1).await, ["message 4"]);
    assert_eq!(asked.lock().unwrap().len(), 1);
    assert_eq!(last(&asked), "--after-cursor=s=a;i=3");
    end(&lab, task).await;
}

#[tokio::test]
async fn i17_a_hostile_journal_names_no_command_and_no_cursor() {
    let evil = r#"{"__CURSOR":"s=1 --vacuum-size=1","MESSAGE":"x"}"#.to_owned() + "\n";
    let (guest, asked) = script(vec![Ok(piece(evil)), Ok(piece("sh: journalctl: not found\n"))]);
    let lab = Lab::new(guest);
    let task = start(&lab, What::Journal);
    let reading = lab.until("journal", |reading| matches!(reading.state, State::Failing(_))).await;
    assert!(reading.state.why().unwrap().starts_with("the guest answers: "), "{reading:?}");
    for read in asked.lock().unwrap().iter() {
        let GuestRead::Command(words) = read else { panic!("{read:?}") };
        assert!(!words.iter().any(|word| word.contains("vacuum")), "{words:?}");
    }
    end(&lab, task).await;
}

#[tokio::test]
async fn an_agent_that_is_needed_silent_or_refuses_is_told_as_such() {
    let vm: VmName = "orders".parse().unwrap();
    for (error, name, why) in [
        (DriverError::NotRunning(vm.clone()), "waiting", "the VM does not run"),
        (
            DriverError::Blocked { what: "read", vm: vm.clone(), why: "an order".into() },
            "waiting",
            "an order",
        ),
        (refused("guest-exec has been disabled"), "failing", "guest-exec has been disabled"),
        (DriverError::Late { what: "read", vm, limit: LIMIT }, "failing", "did not end"),
    ] {
        let (guest, _) = script(vec![Err(error)]);
        let lab = Lab::new(guest);
        let task = start(&lab, What::Journal);
        let reading = lab.until("journal", |reading| reading.state.why() != Some("not looked at yet")).await;
        assert_eq!(reading.state.name(), name);
        assert!(reading.state.why().unwrap().contains(why), "{reading:?}");
        end(&lab, task).await;
    }
}

pub fn event(number: u64) -> String {
    format!(
        "<Event xmlns='http://schemas.microsoft.com/win/2004/08/events/event'><System><Provider Name='disk'/>\
         <EventID>7</EventID><Level>2</Level><TimeCreated SystemTime='2026-11-23T21:19:48.1234567Z'/>\
         <EventRecordID>{number}</EventRecordID><Channel>System</Channel><Computer>WIN</Computer></System>\
         <RenderingInfo Culture='en-US'><Message>bad block {number}</Message></RenderingInfo></Event>"
    )
}

pub fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[tokio::test]
async fn events_of_a_fake_windows_guest_are_read_by_number_also_after_the_log_was_cleared() {
    let mut answers = vec![
        Ok(piece(wide(&event(40)))),                              // the newest, of long ago
        Ok(piece(wide(&[event(41), event(42)].concat()))),        // wide, as wevtutil writes
        Ok(piece(format!("{}{}", event(43), &event(44)[..200]))), // cut off
    ];
    answers.push(Ok(piece(event(44))));
    let (guest, asked) = script(answers);
    let mut lab = Lab::new(guest);
    let task = start(&lab, What::Events("System".into()));
    let texts = lab.texts(4).await;
    assert!(
        texts.iter().zip(41..).all(|(text, number)| text.contains(&format!("bad block {number}"))),
        "{texts:?}"
    );
    let place = lab.places.values().next().unwrap();
    assert_eq!(place, "event 44");
    end(&lab, task).await;
    let asked = asked.lock().unwrap();
    let queries: Vec<&String> = asked
        .iter()
        .filter_map(|read| match read {
            GuestRead::Command(words) => words.iter().find(|word| word.starts_with("/q:")),
            GuestRead::File { .. } => None,
        })
        .collect();
    assert_eq!(queries[..2], ["/q:*[System[EventRecordID>40]]", "/q:*[System[EventRecordID>42]]"]);
}

#[tokio::test]
async fn a_cleared_event_log_is_read_from_its_start() {
    let (guest, _) = script(vec![Ok(piece(event(5))), Ok(piece(event(1)))]);
    let lab = Lab::new(guest);
    let feed = lab.means.feed(Subject::Guest("orders".parse().unwrap()), "event log System");
    let guest = Guest { vm: "orders".parse().unwrap(), means: lab.means.clone() };
    let mut to = Joined::new(feed.clone());
    let mut events = events::Events::new("System".into(), Some("event 9".into()));
    events.set_empty();
    assert_eq!(events.pull(&guest, &mut to).await.unwrap(), Some(true)); // 5 is less than 9
    assert_eq!(events.pull(&guest, &mut to).await.unwrap(), Some(false));
    assert!(to.rest(true).await);
    assert_eq!(feed.gauge.read().records, 1);
}

/// What waits, 8 MiB, and one answer: nobody takes records, and the guest has ever more, as much as an answer may hold.
#[test]
fn i18_a_guest_with_an_endless_journal_is_kept_waiting_in_bounded_memory() {
    alone(
        "sense::logs::guest::tests::i18_a_guest_with_an_endless_journal_is_kept_waiting_in_bounded_memory",
        || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(endless_journal());
        },
    );
}

async fn endless_journal() {
    let peak = Peak::start();
    let (mut number, long) = (0, "x".repeat(4_000));
    let guest = FakeGuest::new(Box::new(move |_| {
        let entries = (0..15).map(|_| {
            number += 1;
            entry(number).replace("message", &long)
        });
        Ok(piece(entries.collect::<String>()))
    }));
    let lab = Lab::new(guest);
    let feed = lab.means.feed(Subject::Guest("orders".parse().unwrap()), "journal");
    let guest = Guest { vm: "orders".parse().unwrap(), means: lab.means.clone() };
    let (mut journal, mut to) = (journal::Journal::new(Some("s=a;i=0".into())), Joined::new(feed.clone()));
    let looks = async { while journal.pull(&guest, &mut to).await.unwrap() == Some(true) {} };
    // It waits for room, for ever: the time only says how long that is looked at.
    assert!(tokio::time::timeout(Duration::from_secs(2), looks).await.is_err(), "it is kept waiting");
    assert!(feed.gauge.read().records > 1_000, "{:?}", feed.gauge.read());
    peak.is_below("an endless journal", 24);
}

/// Found by `fuzz_logs_of_a_guest`: the number behind the greatest one.
#[tokio::test]
async fn i17_an_event_with_the_greatest_number_is_not_the_end_of_the_source() {
    let (driver, asked) = script(vec![Ok(piece(event(u64::MAX))), Ok(piece(event(3))), Ok(piece(event(4)))]);
    let lab = Lab::new(driver);
    let feed = lab.means.feed(Subject::Guest("orders".parse().unwrap()), "event log System");
    let guest = Guest { vm: "orders".parse().unwrap(), means: lab.means.clone() };
    let mut to = Joined::new(feed.clone());
    let mut events = events::Events::new("System".into(), Some("event 2".into()));
    assert_eq!(events.pull(&guest, &mut to).await.unwrap(), Some(false));
    assert_eq!(events.pull(&guest, &mut to).await.unwrap(), Some(true)); // 3 is not behind it
    assert_eq!(feed.gauge.read().dropped, 1);
    assert_eq!(events.pull(&guest, &mut to).await.unwrap(), Some(false)); // begins anew: 4 is of long ago
    assert_eq!(events.pull(&guest, &mut to).await.unwrap(), Some(false));
    let Some(GuestRead::Command(last)) = asked.lock().unwrap().last().cloned() else { panic!() };
    assert!(last.contains(&"/q:*[System[EventRecordID>4]]".to_owned()), "{last:?}");
}

/// Files of a fake guest, and those that `find` names.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Disk {
    fn append(&self, path: &str, text: &str) {
        self.0.lock().unwrap().entry(path.into()).or_default().extend_from_slice(text.as_bytes());
    }

    fn rename(&self, from: &str, to: &str) {
        let mut files = self.0.lock().unwrap();
        let content = files.remove(from).unwrap();
        files.insert(to.into(), content);
    }

    fn guest(&self) -> Arc<FakeGuest> {
        let disk = self.clone();
        FakeGuest::new(Box::new(move |read| {
            let files = disk.0.lock().unwrap();
            match read {
                GuestRead::File { path, offset, most } => {
                    let missing =
                        || refused(&format!("failed to open file '{path}': No such file or directory"));
                    let content = files.get(path).ok_or_else(missing)?;
                    let from = usize::try_from(*offset).unwrap().min(content.len());
                    let bytes = content[from..content.len().min(from + most)].to_vec();
                    Ok(Piece { size: Some(content.len() as u64), code: None, ..piece(bytes) })
                }
                GuestRead::Command(_) => {
                    let evil = "/etc/shadow\n/var/log/../shadow.log\n/var/log/x/y.log\n";
                    Ok(piece(files.keys().map(|path| format!("{path}\n")).collect::<String>() + evil))
                }
            }
        }))
    }
}

pub const LOG: &str = "/var/log/app.log";

#[tokio::test]
async fn a_file_in_a_guest_is_read_through_rotation_and_a_restart() {
    let disk = Disk::default();
    disk.append(LOG, "of long ago\n");
    let mut lab = Lab::new(disk.guest());
    let task = start(&lab, What::File(LOG.into(), Format::Plain));
    lab.until("guest file /var/log/app.log", |reading| reading.state == State::Following).await;
    disk.append(LOG, "one\ntwo\nthr");
    assert_eq!(lab.texts(2).await, ["one", "two"]);
    end(&lab, task).await;
    disk.append(LOG, "ee\nfour\n");
    disk.rename(LOG, "/var/log/app.log.1");
    disk.append(LOG, "five\n");
    let mut lab = Lab::going_on(disk.guest(), lab.places);
    let task = start(&lab, What::File(LOG.into(), Format::Plain));
    assert_eq!(lab.texts(3).await, ["three", "four", "five"]);
    end(&lab, task).await;
}

#[tokio::test]
async fn a_file_that_is_not_there_yet_is_waited_for() {
    let disk = Disk::default();
    let (lab, guest) = (Lab::new(disk.guest()), "orders".parse().unwrap());
    let feed = lab.means.feed(Subject::Guest("orders".parse().unwrap()), "file");
    let guest = Guest { vm: guest, means: lab.means.clone() };
    let mut to = Joined::new(feed.clone());
    let mut file = file::GuestFile::new(LOG.into(), Format::Plain, None, true);
    assert!(matches!(file.pull(&guest, &mut to).await, Err(Trouble::Missing)));
    disk.append(LOG, &"0123456789abcde\n".repeat(5_000)); // 80 kB
    while file.pull(&guest, &mut to).await.unwrap() == Some(true) {}
    assert!(to.rest(true).await);
    assert_eq!((feed.gauge.read().records, feed.gauge.read().dropped), (5_000, 0));
    disk.0.lock().unwrap().insert(LOG.into(), b"new\n".to_vec()); // truncated, and nothing kept
    while file.pull(&guest, &mut to).await.unwrap() == Some(true) {}
    assert!(to.rest(true).await);
    assert_eq!((feed.gauge.read().records, feed.gauge.read().dropped), (5_001, 1));
}

#[tokio::test]
async fn i18_a_guest_that_lies_about_its_file_costs_nothing() {
    let mut turn = 0_u64;
    let liar = FakeGuest::new(Box::new(move |read| {
        let GuestRead::File { most, .. } = read else { return Err(refused("no")) };
        turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let size = [0, 1, 64, 40_000, 1 << 40, u64::MAX][(turn >> 33) as usize % 6];
        let bytes = vec![b'x'; (turn >> 40) as usize % (most + 1)];
        Ok(Piece { size: Some(size), code: None, ..piece(bytes) })
    }));
    let lab = Lab::new(liar);
    let feed = lab.means.feed(Subject::Guest("orders".parse().unwrap()), "file");
    let guest = Guest { vm: "orders".parse().unwrap(), means: lab.means.clone() };
    let mut to = Joined::new(feed.clone());
    for place in [None, Some("guest 18446744073709551615 00000000".to_owned())] {
        let mut file = file::GuestFile::new(LOG.into(), Format::Plain, place, true);
        for _ in 0..40 {
            // It may be endless in one answer: what matters is that each look ends.
            let pulled = tokio::time::timeout(Duration::from_secs(5), file.pull(&guest, &mut to)).await;
            assert!(pulled.is_ok());
        }
    }
}

#[tokio::test]
async fn i17_of_what_a_guest_names_only_files_of_the_pattern_are_read() {
    let disk = Disk::default();
    for name in ["/var/log/a.log", "/var/log/b.log", "/var/log/c.txt"] {
        disk.append(name, "x\n");
    }
    let lab = Lab::new(disk.guest());
    let guest = Guest { vm: "orders".parse().unwrap(), means: lab.means.clone() };
    let found = look_up("/var/log/*.log", &guest).await.unwrap();
    assert_eq!(found, ["/var/log/a.log", "/var/log/b.log"]);
}

/// What a real guest said: the folder came with the first file, which was taken for one of long ago and not read.
#[tokio::test]
async fn a_folder_that_is_not_there_yet_is_no_trouble_and_has_no_file() {
    let says = |text: &str| Ok(Piece { code: Some(1), ..piece(text) });
    let missing = says("find: /var/log/app: No such file or directory\n");
    let (driver, _asked) = script(vec![missing, says("find: unrecognized: -maxdepth\n")]);
    let lab = Lab::new(driver);
    let guest = Guest { vm: "orders".parse().unwrap(), means: lab.means.clone() };
    assert_eq!(look_up("/var/log/app/*.log", &guest).await.unwrap(), Vec::<String>::new());
    assert!(matches!(look_up("/var/log/app/*.log", &guest).await, Err(Trouble::Odd(_))));
}

/// A real systemd journal: journald with an empty `/run` of its own, which ends with it.
struct Journald(std::process::Child);

impl Journald {
    /// `None` where it cannot be had: not root, or no systemd.
    fn start() -> Option<Self> {
        let program = "/lib/systemd/systemd-journald";
        if !rustix::process::geteuid().is_root() || !std::path::Path::new(program).exists() {
            return None;
        }
        let script = format!(
            "mount -t tmpfs journal /run && mkdir -p /run/systemd/journal /run/log/journal/$(cat /etc/machine-id) \
             && exec {program}"
        );
        let mut command = std::process::Command::new("unshare");
        let null = std::process::Stdio::null;
        command.args(["-m", "sh", "-c", &script]).stdin(null()).stdout(null()).stderr(null());
        let mut journald = Self(command.spawn().ok()?);
        for _ in 0..200 {
            if journald.run(&["test", "-S", "/run/systemd/journal/stdout"]).status.success() {
                return Some(journald);
            }
            if journald.0.try_wait().ok()?.is_some() {
                return None; // no namespaces here
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// Runs a command where its journal is.
    fn run(&self, words: &[&str]) -> std::process::Output {
        let pid = self.0.id().to_string();
        let mut command = std::process::Command::new("nsenter");
        command.args(["-t", &pid, "-m", "--"]).args(words).output().unwrap()
    }

    fn say(&self, text: &str) {
        assert!(self.run(&["sh", "-c", "echo \"$1\" | systemd-cat -t app", "say", text]).status.success());
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_real_systemd_journal_is_read_from_cursor_to_cursor_by_a_fake_agent() {
    let Some(journald) = Journald::start() else { return };
    let journald = Arc::new(Mutex::new(journald));
    let say = |text: &str| journald.lock().unwrap().say(text);
    say("<3>of long ago");
    let agent = || {
        let journald = Arc::clone(&journald);
        FakeGuest::new(Box::new(move |read| {
            let GuestRead::Command(words) = read else { panic!("{read:?}") };
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let output = journald.lock().unwrap().run(&words);
            Ok(piece([output.stdout, output.stderr].concat()))
        }))
    };
    let mut lab = Lab::new(agent());
    let task = start(&lab, What::Journal);
    lab.until("journal", |reading| reading.state == State::Following).await;
    say("<3>$(reboot) \"quoted\" \u{1b}[2J größer");
    let entry = lab.next().await;
    assert_eq!(entry.record.text, "$(reboot) \"quoted\"  größer");
    assert_eq!(
        (entry.record.program.as_str(), entry.record.severity),
        ("app", holdfast_logs::Severity::from_syslog(3))
    );
    end(&lab, task).await;
    for number in 1..=500 {
        if number % 100 == 1 {
            let script = "for i in $(seq $1 $(($1 + 99))); do echo \"<6>line $i\"; done | systemd-cat -t app";
            journald.lock().unwrap().run(&["sh", "-c", script, "say", &number.to_string()]);
        }
    }
    let mut lab = Lab::going_on(agent(), lab.places);
    let task = start(&lab, What::Journal);
    let all: Vec<String> = (1..=500).map(|number| format!("line {number}")).collect();
    assert!(lab.texts(500).await == all, "each once, in order");
    end(&lab, task).await;
}
