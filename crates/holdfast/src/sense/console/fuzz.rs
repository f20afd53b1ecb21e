//! Guests that write to their console as an enemy would. What is looked for is a panic, a line that is lost or comes twice,
//! and a word of the guest that is told untamed.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::logs::testing::{FakeGuest, Lab, is_fit};
use super::*;
use holdfast_core::lease::Incarnation;
use holdfast_core::subject::Subject;
use holdfast_fuzz::{Damage, is_usual, run, show};
use std::fs::File;
use std::io::Write;

const GOOD: [&[u8]; 4] = [
    b"[   61.0] Kernel panic - not syncing: sysrq\r\n",
    b"[  333.201122][  T123] BUG: x\r\n[  333.201123] Call Trace:\r\n[  333.201124]  <TASK>\r\n",
    b"EXT4-fs error (device vda1): ext4_lookup:1\norders login: ",
    b"2026-11-23 21:19:48 UTC [61] FATAL:  no\n\tcontinued\n",
];

const WORDS: [&[u8]; 10] = [
    b"\n",
    b"\r",
    b"\0",
    b"\x1b[2J\x1b[H",
    b"\x1b]0;title\x07",
    b"\x1bP",
    b"\xc2\x9b31m",
    b"\xff\xfe",
    b"\xe2\x80\xae",
    b"\x08\x08",
];

#[test]
fn fuzz_what_a_guest_writes_to_its_console() {
    let damage = Damage { good: &GOOD, words: &WORDS, most: 1 << 14 };
    let (mut told, mut kept) = (0, 0);
    run("console", 300, |chance| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        let mut file = File::create(&path).unwrap();
        let mut lab = Lab::new(FakeGuest::away());
        let feed = lab.means.feed(Subject::Guest("orders".parse().unwrap()), "console");
        let tap = Tap::of(feed, Incarnation(1));
        let mut console = Console::new(&path, Begin::At(0)).heard_by(tap);
        let (mut now, mut ends) = (Instant::now(), 0);
        for _ in 0..1 + chance.below(4) {
            let piece = damage.input(chance);
            ends += piece.iter().filter(|byte| **byte == b'\n').count() as u64;
            file.write_all(&piece).unwrap();
            now += Duration::from_millis(100 * chance.below(20) as u64);
            for sign in console.look(now).unwrap() {
                if let ConsoleSign::Finding(finding) = sign {
                    told += 1;
                    let line = &finding.line;
                    assert!(!line.chars().any(char::is_control) && line.len() < 4_096, "{line:?}");
                }
            }
            // Each line once: one that is too long is told when it is, and so counts before its end.
            assert!(
                console.tally().lines.abs_diff(ends) <= 1,
                "{} {ends} {}",
                console.tally().lines,
                show(&piece)
            );
        }
        drop(console);
        while let Some(entry) = lab.outlet.waiting() {
            kept += 1;
            assert!(is_fit(&entry.record), "{:?}", entry.record);
        }
    });
    assert!(!is_usual() || (told > 100 && kept > 500), "{told} {kept}");
}
