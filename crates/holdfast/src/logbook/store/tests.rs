//! Kept, found again, bounded, and unharmed by what disks do.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::open::FILE;
use super::*;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;

fn secs(secs: u64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn stored(vm: &str, at: u64, text: &str) -> Stored {
    Stored {
        number: 0,
        subject: Subject::Guest(vm.parse().unwrap()),
        incarnation: Some(Incarnation(3)),
        source: SourceName::new("console"),
        at: secs(at),
        received: i64::try_from(at).unwrap() * 1_000_000,
        severity: None,
        pattern: 1,
        rule: None,
        record: Record { text: text.to_owned(), ..Record::default() },
    }
}

fn owner(vm: &str) -> Owner {
    Owner::Vm(vm.parse().unwrap())
}

fn find(store: &Store, query: &Query) -> Vec<String> {
    let found = store.shelf().search(query, &AtomicBool::new(false)).unwrap();
    found.records.into_iter().map(|stored| stored.record.text).collect()
}

fn newest(store: &Store, vm: &str, limit: usize) -> Vec<String> {
    find(store, &Query::newest(owner(vm), limit))
}

/// Says so many lines of so many bytes, a flush each second.
fn say(store: &mut Store, vm: &str, from: u64, lines: u64, bytes: usize) {
    for at in from..from + lines {
        // Digits of a small generator: nothing that compresses well.
        let mut state = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b'!' + (state % 90) as u8)
        });
        store.put(stored(vm, at, &noise.take(bytes).collect::<String>()), None);
        store.flush(secs(at));
    }
}

#[test]
fn what_was_kept_is_found_by_time_severity_pattern_source_and_words() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), Room::default());
    for at in 0..500 {
        let severity = (at % 100 == 7).then_some(Severity::Error);
        let source = SourceName::new(if at % 2 == 0 { "console" } else { "file /var/log/x" });
        let line = Stored { severity, source, pattern: 1 + at % 3, ..stored("a", at, &format!("line {at}")) };
        store.put(line, None);
        store.put(stored("b", at, "of another"), None);
        if at % 10 == 0 {
            store.flush(secs(at));
        }
    }
    store.flush(secs(500));
    let all = Query::newest(owner("a"), 1_000);
    assert_eq!(find(&store, &all).len(), 500);
    assert_eq!(newest(&store, "a", 3), ["line 497", "line 498", "line 499"]);
    let late = Query { since: Some(498_000_000), ..all.clone() };
    assert_eq!(find(&store, &late), ["line 498", "line 499"]);
    let early = Query { until: Some(1_000_000), ..all.clone() };
    assert_eq!(find(&store, &early), ["line 0", "line 1"]);
    let bad = Query { severity: Some(Severity::Warning), limit: 2, ..all.clone() };
    assert_eq!(find(&store, &bad), ["line 307", "line 407"]);
    let pattern = Query { patterns: Some(BTreeSet::from([3])), limit: 1, ..all.clone() };
    assert_eq!(find(&store, &pattern), ["line 497"]);
    assert_eq!(find(&store, &Query { patterns: Some(BTreeSet::from([9])), ..all.clone() }).len(), 0);
    assert_eq!(find(&store, &Query { source: Some("file".into()), ..all.clone() }).len(), 250);
    let words = Query { grep: regex::Regex::new("ne 4[89]$").ok(), ..all.clone() };
    assert_eq!(find(&store, &words), ["line 48", "line 49"]);
    assert_eq!(newest(&store, "nobody", 3), [""; 0]);
    let gone = store.shelf().search(&all, &AtomicBool::new(true)).unwrap();
    assert_eq!((gone.ended, gone.records.len()), (Ended::BrokenOff, 0));
}

#[test]
fn who_follows_sees_each_line_once_whatever_becomes_of_its_block() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), Room::default());
    let (mut after, mut seen) = (0, 0);
    for at in 0..2_000 {
        say(&mut store, "a", at, 1, 40);
        if at % 7 == 0 {
            let query = Query { after: Some(after), ..Query::newest(owner("a"), 5) };
            let found = store.shelf().search(&query, &AtomicBool::new(false)).unwrap();
            assert!(found.records.iter().all(|stored| stored.number > after));
            seen += found.records.len();
            after = found.through;
        }
    }
    loop {
        let query = Query { after: Some(after), ..Query::newest(owner("a"), 5) };
        let found = store.shelf().search(&query, &AtomicBool::new(false)).unwrap();
        seen += found.records.len();
        after = found.through;
        if found.ended == Ended::Whole {
            break;
        }
    }
    assert_eq!(seen, 2_000);
    let blocks: i64 =
        store.db.as_ref().unwrap().query_row("SELECT COUNT(*) FROM block", [], |row| row.get(0)).unwrap();
    assert!(blocks < 50, "small blocks become one: {blocks}");
}

/// Every second a line on the console and one in a file, of which those at 50 s are known.
fn console_and_file(store: &mut Store, known: &str) -> Vec<u64> {
    let line = |at: u64| if at == 50 { known.to_owned() } else { format!("line {at}") };
    let mut numbers = Vec::new();
    for at in 0..100 {
        let rule = (at == 50).then(|| "kernel-panic".into());
        numbers.push(store.put(Stored { rule, ..stored("a", at, &line(at)) }, None));
        let source = SourceName::new("file /var/log/other");
        store.put(Stored { source, ..stored("a", at, &format!("other {at}")) }, None);
    }
    store.flush(secs(100));
    numbers
}

fn texts_around(store: &Store, at: u64, line: &str, each: usize) -> (u64, Vec<String>) {
    let at = i64::try_from(at).unwrap() * 1_000_000;
    let quoted = Quoted { owner: owner("a"), at, line: line.into() };
    match store.shelf().around(&quoted, 3_600_000_000, each, &AtomicBool::new(false)).unwrap() {
        Around::Lines { proof, records } => {
            (proof, records.into_iter().map(|stored| stored.record.text).collect())
        }
        missing @ (Around::Left | Around::Unwritten | Around::Unknown) => panic!("{line}: {missing:?}"),
    }
}

#[test]
fn a_line_is_found_again_with_the_lines_of_its_source_around_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), Room::default());
    let numbers = console_and_file(&mut store, "[ 50.0] Kernel panic - not syncing: \u{202e}oops");
    let told = "[ 50.0] Kernel panic - not syncing: \\u{202e}oops";
    let (proof, texts) = texts_around(&store, 48, told, 2);
    assert_eq!(proof, numbers[50]);
    assert_eq!(texts[..2], ["line 48", "line 49"], "the console's own, and no other's");
    assert_eq!(texts[3..], ["line 51", "line 52"]);
    assert_eq!(texts_around(&store, 53, told, 0).1.len(), 1);
    let cut = format!("Nov 26 12:00:50 orders {}…", &told[..30]);
    assert!(texts_around(&store, 50, &told[8..], 1).1[1].contains("Kernel panic"), "without its time");
    assert!(is_nowhere(&store, 50, &cut), "what is left of it is too little to know it by");
}

fn is_nowhere(store: &Store, at: i64, line: &str) -> bool {
    ask_around(store, at, line, 3_600_000_000) == Around::Unknown
}

fn ask_around(store: &Store, at: i64, line: &str, now: i64) -> Around {
    let quoted = Quoted { owner: owner("a"), at: at * 1_000_000, line: line.into() };
    store.shelf().around(&quoted, now, 2, &AtomicBool::new(false)).unwrap()
}

#[test]
fn a_line_that_is_not_there_is_said_to_have_left_to_be_on_its_way_or_to_be_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), Room::default());
    console_and_file(&mut store, "Kernel panic - not syncing: oops");
    let panic = "Kernel panic - not syncing: oops";
    assert_eq!(ask_around(&store, 90, panic, 200_000_000), Around::Unknown, "it came at another time");
    assert_eq!(ask_around(&store, 90, "Out of memory: Killed", 91_000_000), Around::Unwritten);
    assert_eq!(ask_around(&store, -50, panic, 200_000_000), Around::Left, "all that is kept is younger");
    let stranger = Quoted { owner: owner("b"), at: 50_000_000, line: panic.into() };
    let found = store.shelf().around(&stranger, 200_000_000, 2, &AtomicBool::new(false)).unwrap();
    assert_eq!(found, Around::Left, "of another VM nothing is found, and nothing of this one");
}

#[test]
fn what_is_unusual_is_found_by_its_sentence_as_it_was_noted() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), Room::default());
    let numbers = console_and_file(&mut store, "nothing");
    let text = "`line <*>` came 90 times within a minute".to_owned();
    store.note(Noted {
        number: numbers[70],
        subject: Subject::Guest("a".parse().unwrap()),
        source: SourceName::new("console"),
        at: secs(71),
        received: 71_000_000,
        sort: "burst".into(),
        name: "1".into(),
        severity: None,
        decibans: 40.0,
        text: text.clone(),
    });
    store.flush(secs(101));
    let (proof, texts) = texts_around(&store, 71, &format!("console: {text}"), 1);
    assert_eq!((proof, texts), (numbers[70], ["line 69", "line 70", "line 71"].map(str::to_owned).to_vec()));
}

#[test]
fn what_was_written_outlives_the_daemon_with_the_places_of_its_sources() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), Room::default());
    store.put(stored("a", 1, "kept"), Some("byte 17".into()));
    store.note(Noted {
        number: 1,
        subject: Subject::Guest("a".parse().unwrap()),
        source: SourceName::new("console"),
        at: secs(1),
        received: 5,
        sort: "known".into(),
        name: "kernel-panic".into(),
        severity: Some(Severity::Critical),
        decibans: 0.0,
        text: "Kernel panic".into(),
    });
    store.flush(secs(1));
    store.put(stored("a", 2, "lost with it"), Some("byte 99".into()));
    drop(store); // as kill -9 does: nothing is written at the end
    let mut store = Store::open(folder.path(), Room::default());
    assert_eq!(newest(&store, "a", 9), ["kept"]);
    let places = store.shelf().places().unwrap();
    assert_eq!(
        places,
        [(owner("a"), SourceName::new("console"), "byte 17".into())],
        "where what was written ends"
    );
    assert_eq!(store.put(stored("a", 3, "more"), None), 2, "numbers rise over restarts");
    let noted = store.shelf().noted(&owner("a"), 0, 9).unwrap();
    assert_eq!((noted[0].name.as_str(), noted[0].severity), ("kernel-panic", Some(Severity::Critical)));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(folder.path().join(FILE)).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_vm_that_floods_drives_out_only_its_own_i18() {
    let folder = tempfile::tempdir().unwrap();
    let room = Room { keep: 1 << 20, ..Room::default() };
    let mut store = Store::open(folder.path(), room);
    say(&mut store, "calm", 0, 100, 1_000);
    for at in 100..1_100 {
        for _ in 0..4 {
            say(&mut store, "loud", at, 1, 2_000);
        }
    }
    assert_eq!(newest(&store, "calm", 1_000).len(), 100, "older than all of the other, and still there");
    let kept: u64 = store.owners.values().map(|owner| owner.size).sum();
    assert!(kept <= room.keep, "{kept}");
    assert!(store.counts().left.load(Ordering::Relaxed) > 1_000);
    let bytes: i64 =
        store.db.as_ref().unwrap().query_row("SELECT SUM(size) FROM block", [], |row| row.get(0)).unwrap();
    assert_eq!(bytes.cast_unsigned(), kept);
    let file = std::fs::metadata(folder.path().join(FILE)).unwrap().len();
    assert!(file < 2 * room.keep, "{file}");
}

#[test]
fn what_is_too_old_leaves_by_the_clock_that_only_goes_forward_i20() {
    let folder = tempfile::tempdir().unwrap();
    let room = Room { keep_for: Duration::from_secs(3_600), ..Room::default() };
    let mut store = Store::open(folder.path(), room);
    say(&mut store, "a", 10, 10, 70_000);
    say(&mut store, "a", 5_000, 10, 70_000);
    store.flush(secs(5_100));
    assert_eq!(newest(&store, "a", 100).len(), 10);
    let far =
        Stored { received: i64::MAX / 2, ..stored("a", 5_101, "the wall clock is a thousand years ahead") };
    store.put(far, None);
    store.flush(secs(5_300));
    assert_eq!(newest(&store, "a", 100).len(), 11);
}

#[test]
fn a_full_disk_is_waited_out_and_counted_i7() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), Room::default());
    say(&mut store, "a", 0, 10, 1_000);
    let pages = |store: &Store, most: i64| {
        store.db.as_ref().unwrap().pragma_update(None, "max_page_count", most).unwrap();
    };
    pages(&store, 1); // as small as it is
    say(&mut store, "a", 10, 4_000, 4_000);
    assert!(store.waiting() <= 4 << 20, "{}", store.waiting());
    let unkept = store.counts().unkept.load(Ordering::Relaxed);
    assert!(unkept > 2_000, "{unkept}");
    assert!(store.told.is_some(), "a person is told");
    pages(&store, 1 << 30);
    store.flush(secs(20_000));
    assert_eq!(store.waiting(), 0);
    let last = find(&store, &Query::newest(owner("a"), 2_000)).len() as u64;
    assert_eq!(last, store.counts().kept.load(Ordering::Relaxed).min(2_000));
}

/// A real file system of two megabytes, unmounted at the end.
struct Tiny(tempfile::TempDir);

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn on_a_small_disk_room_is_left_for_the_journal_and_on_a_full_one_it_waits_r25() {
    let tiny = Tiny(tempfile::tempdir().unwrap());
    let (path, none) = (tiny.0.path().to_owned(), rustix::mount::MountFlags::empty());
    let mounted = rustix::mount::mount("tmpfs", &path, "tmpfs", none, Some(c"size=4m"));
    assert!(mounted.is_ok(), "this test mounts a tmpfs; it needs root with CAP_SYS_ADMIN: {mounted:?}");
    let mut store = Store::open(&path, Room::default());
    say(&mut store, "a", 0, 3_000, 4_000);
    let left = || {
        let disk = rustix::fs::statvfs(&path).unwrap();
        disk.f_bavail * disk.f_frsize
    };
    assert!(left() > 100_000, "the journal must be written, too: {}", left());
    assert_eq!(store.counts().unkept.load(Ordering::Relaxed), 0);
    assert_eq!(newest(&store, "a", 10).len(), 10);
    // Another one fills the disk.
    let filler = std::fs::File::create(path.join("filler")).unwrap();
    while std::io::Write::write(&mut &filler, &[0; 4_096]).is_ok() {}
    say(&mut store, "a", 3_000, 2_000, 4_000);
    assert!(store.waiting() <= 4 << 20);
    std::fs::remove_file(path.join("filler")).unwrap();
    store.put(stored("a", 6_000, "and it goes on"), None);
    store.flush(secs(6_000));
    assert_eq!((store.waiting(), newest(&store, "a", 1)), (0, vec!["and it goes on".to_owned()]));
}

#[test]
fn a_damaged_block_is_skipped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), Room::default());
    say(&mut store, "a", 0, 5, 70_000);
    let spoil = "UPDATE block SET content = CAST(zeroblob(40) || content AS BLOB) WHERE first = 2";
    store.db.as_ref().unwrap().execute(spoil, []).unwrap();
    store.db.as_ref().unwrap().execute("UPDATE block SET crc = crc + 1 WHERE first = 4", []).unwrap();
    let found = store.shelf().search(&Query::newest(owner("a"), 9), &AtomicBool::new(false)).unwrap();
    assert_eq!((found.records.len(), found.damaged), (3, 2));
    store.put(stored("a", 9, "and it goes on"), None);
    store.flush(secs(9));
    assert_eq!(newest(&store, "a", 1), ["and it goes on"]);
}

fn names(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_damaged_file_is_set_aside_at_the_start_or_later_i7_i22() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    std::fs::write(&path, "this is not a database, whatever it says it is".repeat(100)).unwrap();
    let mut store = Store::open(folder.path(), Room::default());
    say(&mut store, "a", 0, 3, 10);
    assert_eq!(newest(&store, "a", 9).len(), 3);
    assert!(names(folder.path()).contains("logs.sqlite.damaged-1"));
    // Later: the disk loses all of it but the start, while it is open.
    let size = std::fs::metadata(&path).unwrap().len();
    store
        .db
        .as_ref()
        .unwrap()
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA cache_size = 0")
        .unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(
        &file,
        &vec![0xa5; usize::try_from(size).unwrap().max(40_960) - 4_096],
        4_096,
    )
    .unwrap();
    for at in 10..200 {
        say(&mut store, "a", at, 1, 3_000);
    }
    assert!(names(folder.path()).contains("logs.sqlite.damaged-2"));
    assert!(!newest(&store, "a", 9).is_empty(), "and it goes on in a new one");
}

#[test]
fn a_newer_file_is_left_alone_and_what_is_no_file_refused_i22() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path(), Room::default()));
    let path = folder.path().join(FILE);
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 2).unwrap();
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(db);
    let before = std::fs::read(&path).unwrap();
    let mut store = Store::open(folder.path(), Room::default());
    assert!(!store.is_open());
    say(&mut store, "a", 0, 3_000, 5_000);
    assert!(store.waiting() <= 4 << 20);
    drop(store);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir(other.path().join(FILE)).unwrap();
    assert!(!Store::open(other.path(), Room::default()).is_open());
    let link = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc/passwd", link.path().join(FILE)).unwrap();
    assert!(!Store::open(link.path(), Room::default()).is_open());
}

#[test]
fn sources_findings_and_places_without_end_take_a_bounded_room_i18() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), Room::default());
    for round in 0..4_u64 {
        for n in 0..1_500 {
            let source = SourceName::new(&format!("file {round} {n}"));
            store.put(Stored { source: source.clone(), ..stored("a", round, "x") }, Some("1".into()));
            let (subject, sort, name) = (Subject::Guest("a".parse().unwrap()), "new".into(), "7".into());
            let (at, text) = (secs(round), "y".into());
            let noted = Noted {
                number: 1,
                subject,
                source,
                at,
                received: 0,
                sort,
                name,
                severity: None,
                decibans: 30.0,
                text,
            };
            store.note(noted);
        }
        store.flush(secs(round * 100));
    }
    let shelf = store.shelf();
    assert!(shelf.places().unwrap().len() <= 1_000 + 1_500);
    store.flush(secs(1_000));
    let places = shelf.places().unwrap();
    assert_eq!(places.len(), 1_000);
    assert!(places.iter().all(|(_, source, _)| source.as_str().starts_with("file 3")), "the newest stay");
    let rows = "SELECT COUNT(*) FROM noted";
    let rows: i64 = store.db.as_ref().unwrap().query_row(rows, [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 2_000);
}

#[test]
fn what_was_learned_comes_back_and_a_damaged_lesson_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), Room::default());
    store.keep_mind(&owner("a"), &vec![1, 2, 3], secs(1));
    store.keep_mind(&owner("a"), &vec![4, 5], secs(2));
    assert_eq!(store.mind::<Vec<u32>>(&owner("a")), Some(vec![4, 5]));
    assert_eq!(store.mind::<Vec<u32>>(&owner("b")), None);
    assert_eq!(store.mind::<String>(&owner("a")), None, "of another form");
    store.db.as_ref().unwrap().execute("UPDATE mind SET crc = 0", []).unwrap();
    assert_eq!(store.mind::<Vec<u32>>(&owner("a")), None);
    assert_eq!(store.counts().damaged.load(Ordering::Relaxed), 1);
    store.set_room(Room { keep: 4 * 60, ..Room::default() });
    for at in 0..20 {
        store.keep_mind(&owner(&format!("v{at}")), &vec![at; 9], secs(at));
    }
    let kept = (0..20).filter(|at| store.mind::<Vec<u64>>(&owner(&format!("v{at}"))).is_some()).count();
    assert!((1..10).contains(&kept), "{kept}");
    assert!(store.mind::<Vec<u64>>(&owner("v19")).is_some(), "the newest stays");
}
