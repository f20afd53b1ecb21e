//! Guests that answer as an enemy would: damaged journals, event logs, files and lists of files. What is looked for is a
//! panic, a look that does not end, a record beyond its limits, and a word of the guest that goes back to it (I17, I18).
#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::testing::{FakeGuest, Lab, is_fit};
use super::tests::{LOG, entry, event, piece, refused, wide};
use super::*;
use holdfast_fuzz::{Chance, Damage, is_usual, run};
use std::sync::{Arc, Mutex};

/// Longer than any look may take.
const LONG: Duration = Duration::from_secs(30);
/// Guests that answer at the same time: looks at a file have pauses.
const GUESTS: usize = 16;
/// The pattern of files that is looked up.
const PATTERN: &str = "/var/log/*.log";

const WORDS: [&[u8]; 16] = [
    b"\n",
    b"\"__CURSOR\":\"s=a;i=9 --vacuum-time=1s\",",
    b"\"__CURSOR\":\"--help\",",
    b"\"__CURSOR\":\"s=$(reboot)\",",
    b"</Event>",
    b"<EventRecordID>18446744073709551615</EventRecordID>",
    b"<EventRecordID>99999999999999999999</EventRecordID>",
    b"\xff\xfe",
    b"\0",
    b"\x1b[2J",
    b"/var/log/../../etc/shadow.log\n",
    b"/var/log/$(reboot).log\n",
    b"/var/log/a\x07.log\n",
    b"[1,2,999,-1]",
    b"1e999",
    b"\\u0000",
];

/// What an honest guest answers to one question or another.
fn good() -> Vec<Vec<u8>> {
    let events = [event(40), event(41), event(u64::MAX)].concat();
    vec![
        [entry(1), entry(2), entry(3)].concat().into_bytes(),
        events.clone().into_bytes(),
        wide(&events),
        b"/var/log/app.log\n/var/log/b.log\n".to_vec(),
        b"2026-11-26T10:00:00Z ERROR no disk left\n\tat main.rs:1\n".to_vec(),
    ]
}

/// A guest that answers damaged so many times, and then no more; and all that it was asked.
fn enemy(damage: Damage<'_>, chance: &mut Chance, asked: &Arc<Mutex<Vec<GuestRead>>>) -> Arc<FakeGuest> {
    let mut answers: Vec<_> = (0..1 + chance.below(4))
        .map(|_| {
            let size = *chance.one(&[None, Some(0), Some(1), Some(64), Some(16 << 20), Some(u64::MAX)]);
            let code = *chance.one(&[None, Some(0), Some(0), Some(0), Some(1), Some(i64::MIN)]);
            Piece { size, code, ..piece(damage.input(chance)) }
        })
        .collect();
    let log = Arc::clone(asked);
    FakeGuest::new(Box::new(move |read| {
        log.lock().unwrap().push(read.clone());
        let answer = answers.pop().ok_or_else(|| refused("no more"))?;
        let most = match read {
            GuestRead::File { most, .. } => *most, // the driver sees to that
            GuestRead::Command(_) => usize::MAX,
        };
        Ok(Piece { bytes: answer.bytes[..answer.bytes.len().min(most)].to_vec(), ..answer })
    }))
}

/// A log of one kind, that goes on at some place or begins.
fn log(chance: &mut Chance) -> Box<dyn Pull> {
    let begins = chance.once_in(3);
    let place = |text: &str| (!begins).then(|| text.to_owned());
    let near_the_end = chance.once_in(2);
    match chance.below(3) {
        0 => Box::new(journal::Journal::new(place("s=a;i=1"))),
        1 => {
            let at = if near_the_end { "event 18446744073709551614" } else { "event 39" };
            Box::new(events::Events::new("System".into(), place(at)))
        }
        _ => {
            let at = if near_the_end { "guest 18446744073709551615 00000000" } else { "guest 0 00000000" };
            Box::new(file::GuestFile::new(LOG.into(), Format::Auto, place(at), chance.once_in(2)))
        }
    }
}

/// No word of a question may be the guest's, but for a cursor, a number, or a place.
fn is_ours(read: &GuestRead) -> bool {
    match read {
        GuestRead::File { path, .. } => path == LOG || *path == format!("{LOG}.1"),
        GuestRead::Command(words) => {
            let said = words.concat();
            let hostile = ["vacuum", "--help", "reboot", "shadow", "\u{1b}", "\u{7}"];
            !hostile.iter().any(|word| said.contains(word)) && said.len() < 1_000
        }
    }
}

/// Looks at a log until its guest answers no more; records that came, and whether all were fit.
async fn look(mut log: Box<dyn Pull>, driver: Arc<FakeGuest>) -> usize {
    let mut lab = Lab::new(driver);
    let guest = Guest { vm: "orders".parse().unwrap(), means: lab.means.clone() };
    let mut to = Joined::new(lab.means.feed(Subject::Guest(guest.vm.clone()), "log"));
    let (mut came, mut refusals) = (0, 0);
    while refusals < 2 {
        let pulled = tokio::time::timeout(LONG, log.pull(&guest, &mut to)).await;
        match pulled.expect("a look ends") {
            Ok(_) => {}
            Err(trouble) => {
                refusals += 1;
                let said = chain(&trouble);
                assert!(!said.chars().any(char::is_control) && said.len() < 2_000, "{said:?}");
            }
        }
        assert!(to.rest(true).await);
        while let Some(entry) = lab.outlet.waiting() {
            came += 1;
            assert!(is_fit(&entry.record), "{:?}", entry.record);
            assert!(entry.place.is_none_or(|place| place.len() < 300));
        }
    }
    came
}

#[test]
fn fuzz_logs_of_a_guest() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let good = good();
    let good: Vec<&[u8]> = good.iter().map(Vec::as_slice).collect();
    let damage = Damage { good: &good, words: &WORDS, most: 32 * 1024 };
    let mut came = 0;
    run("guest logs", 30, |chance| {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let looks: Vec<_> = (0..GUESTS).map(|_| look(log(chance), enemy(damage, chance, &asked))).collect();
        came += runtime.block_on(futures_util::future::join_all(looks)).into_iter().sum::<usize>();
        let asked = asked.lock().unwrap();
        assert!(asked.iter().all(is_ours), "{asked:?}");
    });
    assert!(!is_usual() || came > 100, "{came}");
}

#[test]
fn fuzz_lists_of_files_of_a_guest() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let good = good();
    let damage = Damage { good: &[&good[3]], words: &WORDS, most: 1 << 14 };
    let mut found = 0;
    run("guest lists", 2_000, |chance| {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let lab = Lab::new(enemy(damage, chance, &asked));
        let guest = Guest { vm: "orders".parse().unwrap(), means: lab.means.clone() };
        let paths = runtime.block_on(look_up(PATTERN, &guest)).unwrap_or_default();
        found += paths.len();
        for path in paths {
            let name = path.strip_prefix("/var/log/").expect("of this folder");
            assert!(!name.contains('/') && !name.chars().any(char::is_control), "{path:?}");
            assert!(name.ends_with(".log"), "{path:?}");
        }
    });
    assert!(!is_usual() || found > 100, "{found}");
}
