//! Kept numbers: come back, bounded, through damage, a newer file and a full disk.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::measure::What;
use super::write::FILE;
use super::*;
use crate::logbook::Owner;
use holdfast_core::subject::{Subject, VmName};

const HOUR: u64 = 3_600;
/// The wall clock of these tests, beside the other.
const OFFSET: i64 = 1_700_000_000_000_000;

fn name(what: What) -> Name {
    let vm: VmName = "orders".parse().unwrap();
    let subject =
        if what == What::Latency { Subject::App(vm, "postgres".parse().unwrap()) } else { Subject::Vm(vm) };
    Name { subject, what }
}

fn moment(seconds: u64) -> Moment {
    Moment { at: Timestamp::from_secs(seconds), wall_offset: OFFSET }
}

/// Noise that anybody can have again, between 0 and 1.
fn noise(at: u64) -> f64 {
    let mixed = (at ^ 0x9E37_79B9).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 11;
    (mixed % 10_000) as f64 / 10_000.0
}

fn some(second: u64) -> Vec<Value> {
    let value = |what, value| Value { name: name(what), value, teaches: true, moments: Vec::new() };
    vec![
        value(What::Latency, ((4.0 + noise(second)) * 1e6).round() / 1e9),
        value(What::Resident, (1_u64 << 30) as f64 + (noise(second) * 1e6).floor() * 4_096.0),
        value(What::Processor, 0.5 * noise(second ^ 7)),
        value(What::Writes, 0.0),
    ]
}

/// Values from a time to another, written once a minute.
fn fill(ledger: &mut Ledger, from: u64, to: u64) {
    for second in (from..to).step_by(10) {
        ledger.put(moment(second), &some(second));
        if second % 60 == 0 {
            ledger.flush(Timestamp::from_secs(second));
        }
    }
    ledger.flush(Timestamp::from_secs(to));
}

/// One value, and what was read in each of its ten seconds.
fn of_seconds(second: u64) -> Value {
    let read = |at| (Timestamp::from_secs(at), (noise(at) * 100.0).floor());
    Value { moments: (second - 9..=second).map(read).collect(), ..some(second).remove(0) }
}

fn owner() -> Owner {
    Owner::Vm("orders".parse().unwrap())
}

fn wall(seconds: u64) -> f64 {
    seconds as f64 + OFFSET as f64 / 1e6
}

#[test]
fn values_come_back_fine_for_two_days_then_by_five_minutes_and_a_sample_takes_few_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(folder.path(), 64 << 20);
    let (from, to) = (1_000 * HOUR, 1_072 * HOUR);
    fill(&mut ledger, from, to);
    drop(ledger);
    let ledger = Ledger::open(folder.path(), 64 << 20);
    let shelf = ledger.shelf();
    let (found, rows) =
        shelf.rows(&owner(), "latency:postgres", (0.0, f64::INFINITY), Step::Fine).unwrap().unwrap();
    assert_eq!(found, name(What::Latency));
    let fine: Vec<&Row> = rows.iter().filter(|row| row.at as f64 >= wall(to - 47 * HOUR)).collect();
    assert_eq!(fine.len() as u64, 47 * HOUR / 10);
    for row in &fine {
        let second = row.at - wall(0) as u64;
        assert!((row.mean - (4.0 + noise(second)) / 1e3).abs() < 1e-6, "{row:?}");
    }
    let coarse: Vec<&Row> = rows.iter().filter(|row| (row.at as f64) < wall(from + 23 * HOUR)).collect();
    assert_eq!(coarse.len() as u64, 23 * 12);
    assert!(coarse.iter().all(|row| row.min < row.mean && row.mean < row.max));
    assert!(rows.is_sorted_by(|a, b| a.at < b.at));
    let listed = shelf.list(&owner(), wall(to - 24 * HOUR)).unwrap();
    assert_eq!(listed.len(), 4);
    let values = 4 * 49 * HOUR / 10;
    let bytes = ledger.counts().on_disk.load(Ordering::Relaxed);
    assert!(bytes < values * 4, "{bytes} bytes");
}

#[test]
fn what_is_kept_is_bounded_and_the_oldest_leaves_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(folder.path(), 40_000);
    fill(&mut ledger, 1_000 * HOUR, 1_030 * HOUR);
    let counts = ledger.counts();
    assert!(counts.on_disk.load(Ordering::Relaxed) <= 40_000 && counts.left.load(Ordering::Relaxed) > 0);
    let rows =
        ledger.shelf().rows(&owner(), "processor", (0.0, f64::INFINITY), Step::Fine).unwrap().unwrap().1;
    let last = rows.last().unwrap();
    assert_eq!(last.at, wall(1_030 * HOUR - 10) as u64);
    let fine = rows.windows(2).find(|two| two[1].at - two[0].at == 10).unwrap();
    assert!(fine[0].at > wall(1_005 * HOUR) as u64, "{fine:?}");
    ledger.set_keep(20_000);
    fill(&mut ledger, 1_030 * HOUR, 1_030 * HOUR + 60);
    assert!(counts.on_disk.load(Ordering::Relaxed) <= 20_000);
}

#[test]
fn a_damaged_file_is_set_aside_and_a_newer_one_left_alone_i7_i22() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    std::fs::write(&path, "this is no database, and long enough to be seen as none ".repeat(99)).unwrap();
    let mut ledger = Ledger::open(folder.path(), 64 << 20);
    assert!(ledger.is_open() && folder.path().join("numbers.sqlite.damaged-1").exists());
    fill(&mut ledger, 1_000 * HOUR, 1_001 * HOUR);
    drop(ledger);
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute(
        "UPDATE block SET content = x'00' WHERE rowid = (SELECT MIN(rowid) FROM block WHERE step = 10)",
        [],
    )
    .unwrap();
    db.execute_batch("PRAGMA user_version = 2").unwrap();
    drop(db);
    let before = std::fs::read(&path).unwrap();
    let mut ledger = Ledger::open(folder.path(), 64 << 20);
    assert!(!ledger.is_open());
    fill(&mut ledger, 1_001 * HOUR, 1_002 * HOUR);
    assert!(ledger.counts().failed.load(Ordering::Relaxed) > 0);
    assert!(matches!(ledger.shelf().list(&owner(), 0.0), Err(ShelfError::Nothing)));
    drop(ledger);
    assert_eq!(std::fs::read(&path).unwrap(), before, "left as it was");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("PRAGMA user_version = 1").unwrap();
    drop(db);
    let ledger = Ledger::open(folder.path(), 64 << 20);
    ledger.shelf().list(&owner(), 0.0).unwrap();
    assert_eq!(ledger.counts().damaged.load(Ordering::Relaxed), 1, "a damaged block is skipped and counted");
}

#[test]
fn a_full_disk_is_counted_and_what_waited_is_written_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(folder.path(), 64 << 20);
    fill(&mut ledger, 1_000 * HOUR, 1_000 * HOUR + 600);
    ledger.limit(true);
    fill(&mut ledger, 1_000 * HOUR + 600, 1_003 * HOUR);
    assert!(ledger.counts().failed.load(Ordering::Relaxed) > 0);
    ledger.limit(false);
    fill(&mut ledger, 1_003 * HOUR, 1_003 * HOUR + 60);
    let rows = ledger
        .shelf()
        .rows(&owner(), "latency:postgres", (0.0, f64::INFINITY), Step::Fine)
        .unwrap()
        .unwrap()
        .1;
    assert_eq!(rows.len() as u64, (3 * HOUR + 60) / 10, "nothing is missing");
    assert_eq!(ledger.counts().unkept.load(Ordering::Relaxed), 0);
}

#[test]
fn what_an_incident_was_is_kept_and_said_to_teach_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(folder.path(), 64 << 20);
    for second in (HOUR..2 * HOUR).step_by(10) {
        let teaches = second < HOUR + 1_800;
        let value = Value { name: name(What::Writes), value: 1.0, teaches, moments: Vec::new() };
        ledger.put(moment(second), &[value]);
    }
    ledger.flush(Timestamp::from_secs(2 * HOUR));
    let mut past = Vec::new();
    let see = |own| {
        past.extend::<Past>(own);
        true
    };
    ledger.shelf().past(Timestamp::from_secs(HOUR + 900), see).unwrap();
    let [(found, rows)] = past.as_slice() else { panic!("one series") };
    assert_eq!((found, rows.len()), (&name(What::Writes), 270));
    assert_eq!(rows.iter().filter(|row| row.teaches).count(), 90);
}

#[test]
fn what_was_read_each_second_is_there_for_an_hour_also_after_the_daemon_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (1_000 * HOUR, 1_003 * HOUR);
    let mut ledger = Ledger::open(folder.path(), 64 << 20);
    for second in (from..to).step_by(10) {
        ledger.put(moment(second), &[of_seconds(second)]);
        if second % 60 == 0 {
            ledger.flush(Timestamp::from_secs(second));
        }
    }
    std::mem::forget(ledger); // as kill -9: nothing is written at the end
    let shelf = Ledger::open(folder.path(), 64 << 20).shelf();
    let all = (0.0, f64::INFINITY);
    let rows = shelf.rows(&owner(), "latency:postgres", all, Step::Second).unwrap().unwrap().1;
    let second = |row: &Row| row.at - wall(0) as u64;
    assert!(rows.windows(2).all(|two| two[0].at < two[1].at), "in order, none twice");
    let newest: Vec<&Row> = rows.iter().filter(|row| second(row) > to - 3_000).collect();
    let written = (to - 60) - (to - 3_000); // but for the last minute
    assert_eq!(newest.len() as u64, written);
    assert!(newest.iter().all(|row| row.mean == (noise(second(row)) * 100.0).floor()));
    let oldest = rows.iter().filter(|row| second(row) < to - 2 * HOUR);
    assert_eq!(oldest.count() as u64, HOUR / 10, "what is older is there by ten seconds");
    let fine = shelf.rows(&owner(), "latency:postgres", all, Step::Fine).unwrap().unwrap().1;
    assert_eq!(fine.len() as u64, (to - 60 - from) / 10 + 1, "the same as ever");
}

#[test]
fn while_nothing_can_be_written_seconds_leave_before_what_is_kept_for_days() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (1_000 * HOUR, 1_060 * HOUR);
    let mut ledger = Ledger::open(folder.path(), 64 << 20);
    for second in (from..to).step_by(10) {
        ledger.put(moment(second), &[of_seconds(second)]);
    }
    assert!(ledger.counts().unkept.load(Ordering::Relaxed) > 0, "it is too much");
    ledger.flush(Timestamp::from_secs(to));
    let all = (0.0, f64::INFINITY);
    let rows = ledger.shelf().rows(&owner(), "latency:postgres", all, Step::Fine).unwrap().unwrap().1;
    let fine = rows.iter().filter(|row| row.at as f64 >= wall(to - 47 * HOUR)).count() as u64;
    assert_eq!(fine, 47 * HOUR / 10);
}
