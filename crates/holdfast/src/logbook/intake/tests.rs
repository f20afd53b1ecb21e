//! Records come in, are understood and kept, whatever they say and however many they are.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::disk::Folder;
use crate::logbook::{Around, Inlet, Query, Quoted, SearchError};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

struct Lab {
    desk: Desk,
    inlet: Inlet,
    told: Arc<Mutex<Vec<Finding>>>,
    circumstances: watch::Sender<Circumstances>,
}

fn lab(folder: &Path) -> Lab {
    let (clock, _) = Clock::start(Arc::new(Folder::new(folder)), "boot", Timestamp::ZERO);
    let (inlet, outlet) = Inlet::new();
    let (circumstances, seen) = watch::channel(Circumstances::default());
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    let tell = Box::new(move |finding| telling.lock().unwrap().push(finding));
    let store = Store::open(folder, Room::default());
    let intake = Intake { store, outlet, clock, circumstances: seen, tell };
    Lab { desk: Desk { intake, minds: BTreeMap::new(), seconds: 0 }, inlet, told, circumstances }
}

fn entry(vm: &str, at: Timestamp, text: &str) -> Entry {
    Entry {
        subject: Subject::Guest(vm.parse().unwrap()),
        incarnation: Some(Incarnation(1)),
        source: SourceName::new("console"),
        at,
        received: 1_000_000,
        record: Record { text: text.to_owned(), ..Record::default() },
        place: None,
    }
}

fn owner(vm: &str) -> Owner {
    Owner::Vm(vm.parse().unwrap())
}

impl Lab {
    fn say(&mut self, text: &str) {
        let now = self.desk.intake.clock.now();
        self.desk.take(entry("orders", now, text));
    }

    fn records(&self) -> Vec<Stored> {
        let shelf = self.desk.intake.store.shelf();
        shelf.search(&Query::newest(owner("orders"), 2_000), &AtomicBool::new(false)).unwrap().records
    }

    fn told(&self) -> Vec<Finding> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

#[test]
fn a_known_line_is_told_kept_and_shown_with_the_lines_around_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut lab = lab(folder.path());
    lab.say("calm before the storm");
    lab.say("[   61.000001] Kernel panic - not syncing: sysrq \u{202e}triggered\x1b[31m crash");
    lab.say("nothing comes after");
    lab.desk.each_second();
    let told = lab.told();
    let [Finding { number, told: Told::Known { rule, line }, incarnation, .. }] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!((rule.name, *incarnation), ("kernel-panic", Some(Incarnation(1))));
    assert!(line.contains("\\u{202e}") && line.chars().all(|c| !c.is_control()), "{line:?}");
    let shelf = lab.desk.intake.store.shelf();
    let noted = shelf.noted(&owner("orders"), i64::MIN, i64::MAX).unwrap();
    assert_eq!((noted[0].sort.as_str(), noted[0].name.as_str()), ("known", "kernel-panic"));
    let at = noted[0].received;
    let quoted = Quoted { owner: owner("orders"), at, line: line.clone() };
    let around = shelf.around(&quoted, at + 60_000_000, 1, &AtomicBool::new(false)).unwrap();
    let Around::Lines { proof, records: around } = around else { panic!("{around:?}") };
    let texts: Vec<&str> = around.iter().map(|stored| &*stored.record.text).collect();
    assert_eq!((texts[0], proof, texts[2]), ("calm before the storm", *number, "nothing comes after"));
    assert_eq!(around[1].rule.as_deref(), Some("kernel-panic"));
    assert_eq!(around[1].severity, Some(rule.severity), "as bad as its rule says");
}

#[test]
fn what_only_a_kernel_says_does_not_count_from_another_program_i17() {
    let folder = tempfile::tempdir().unwrap();
    let mut lab = lab(folder.path());
    let line = "Kernel panic - not syncing: says who?";
    for (program, counts) in [("webapp", false), ("kernel", true)] {
        let mut entry = entry("orders", Timestamp::from_secs(1), line);
        entry.record.program = program.to_owned();
        lab.desk.take(entry);
        assert_eq!(!lab.told().is_empty(), counts, "{program}");
    }
}

#[test]
fn a_flood_of_one_known_line_is_told_a_few_times_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut lab = lab(folder.path());
    for _ in 0..1_000 {
        lab.desk.take(entry(
            "orders",
            Timestamp::from_secs(5),
            "[   61.0] Kernel panic - not syncing: again",
        ));
    }
    assert_eq!(lab.told().len(), 20);
    assert_eq!(lab.desk.intake.store.counts().findings.load(Ordering::Relaxed), 1_000);
}

#[test]
fn a_pattern_keeps_its_number_over_restarts_and_a_kill_gives_no_number_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = lab(folder.path());
    first.say("connection from 10.0.0.1 port 17 accepted");
    first.say("checkpoint complete after 12 ms");
    first.desk.finish();
    drop(first);
    let mut second = lab(folder.path());
    second.say("checkpoint complete after 99 ms");
    second.say("a third sort of line was never here before");
    second.desk.each_second();
    let ids: Vec<u64> = second.records().iter().map(|stored| stored.pattern).collect();
    assert_eq!((ids[1], ids.len()), (ids[2], 4));
    let third = ids[3];
    drop(second); // kill -9: what it learned was not kept
    let mut after = lab(folder.path());
    after.say("connection from 10.9.9.9 port 4 accepted");
    after.say("and the fourth one says something else again");
    after.desk.each_second();
    let ids: Vec<u64> = after.records().iter().map(|stored| stored.pattern).collect();
    assert_eq!(ids[4], ids[0], "known from before");
    assert!(ids[5] > third, "{ids:?}");
    let patterns = after.desk.mind(&owner("orders"), Timestamp::ZERO).patterns();
    let connection = patterns.iter().find(|known| known.id.0 == ids[0]).unwrap();
    assert_eq!(
        (connection.template.as_str(), connection.tally.count),
        ("connection from <*> port <*> accepted", 2)
    );
    assert_eq!(connection.tally.severities[Severity::Info as usize], 2);
}

#[test]
fn patterns_that_became_one_are_found_by_one_number() {
    let folder = tempfile::tempdir().unwrap();
    let mut lab = lab(folder.path());
    let words = [
        "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliet", "kilo",
        "lima", "mike",
    ];
    for word in words.iter().chain(&words) {
        lab.say(&format!("the service {word} has started on this machine"));
    }
    lab.desk.each_second();
    let mind = lab.desk.mind(&owner("orders"), Timestamp::ZERO);
    let patterns = mind.patterns();
    assert_eq!((patterns.len(), patterns[0].tally.count), (1, 26), "{patterns:?}");
    let members: BTreeSet<u64> = mind.members(patterns[0].id).into_iter().collect();
    assert!(members.len() > 1);
    let query = Query { patterns: Some(members), ..Query::newest(owner("orders"), 100) };
    let shelf = lab.desk.intake.store.shelf();
    assert_eq!(shelf.search(&query, &AtomicBool::new(false)).unwrap().records.len(), 26);
}

#[test]
fn a_pattern_that_was_split_is_found_with_what_was_split_off_and_is_no_news() {
    let folder = tempfile::tempdir().unwrap();
    let mut lab = lab(folder.path());
    lab.say("connection 7 established now");
    for n in 0..600 {
        lab.say(if n % 2 == 0 {
            "connection opened established now"
        } else {
            "connection closed established now"
        });
    }
    lab.desk.each_second();
    let patterns = lab.desk.mind(&owner("orders"), Timestamp::ZERO).patterns();
    let parent = patterns.iter().find(|known| known.of.is_none()).unwrap();
    assert_eq!(parent.template, "connection <*> established now");
    let children: Vec<&Known> = patterns.iter().filter(|known| known.of == Some(parent.id)).collect();
    assert_eq!((children.len(), patterns.len()), (2, 3), "{patterns:?}");
    assert_eq!(patterns.iter().map(|known| known.tally.count).sum::<u64>(), 601);
    let shelf = lab.desk.intake.store.shelf();
    let mut found = |id| {
        let members = lab.desk.mind(&owner("orders"), Timestamp::ZERO).members(id).into_iter().collect();
        let query = Query { patterns: Some(members), ..Query::newest(owner("orders"), 1_000) };
        shelf.search(&query, &AtomicBool::new(false)).unwrap().records.len() as u64
    };
    assert_eq!((found(parent.id), found(children[0].id)), (601, children[0].tally.count));
    assert!(lab.told().is_empty());
}

#[test]
fn a_vm_that_does_not_run_is_not_missed_i10() {
    let folder = tempfile::tempdir().unwrap();
    let mut lab = lab(folder.path());
    let off = BTreeSet::from(["orders".parse().unwrap()]);
    let troubled = BTreeSet::from([owner("orders")]);
    lab.circumstances.send_replace(Circumstances { off, troubled });
    lab.say("last words");
    assert_eq!(lab.desk.during(&owner("orders")), During::Incident);
    lab.desk.each_second();
    assert!(lab.told().is_empty());
}

#[test]
fn whatever_floods_in_takes_bounded_memory_r33() {
    let folder = tempfile::tempdir().unwrap();
    let mut lab = lab(folder.path());
    let mut offered = 0_u64;
    for round in 0..25_u64 {
        // What arrives in a tenth of a second at 100,000 a second, each line unlike the others, from many VMs; some
        // of 64 KiB that no source may send.
        for n in 0..10_000_u64 {
            let mix = (round * 10_000 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let long = if n % 500 == 0 { "x".repeat(64 << 10) } else { String::new() };
            let text = format!("word{} {:x} says{} {long}", mix % 977, mix, mix % 31);
            let vm = format!("v{}", mix % 300);
            offered += 1;
            lab.inlet.offer(entry(&vm, Timestamp::from_millis(round * 100), &text));
        }
        for _ in 0..2_000 {
            let Some(entry) = lab.desk.intake.outlet.waiting() else { break };
            lab.desk.take_some(entry);
        }
        assert!(lab.desk.intake.store.waiting() <= 4 << 20);
        assert!(lab.desk.minds.len() <= MOST_MINDS);
    }
    let counts = lab.desk.intake.store.counts();
    let taken = counts.records.load(Ordering::Relaxed);
    let waiting = std::iter::from_fn(|| lab.desk.intake.outlet.waiting()).count() as u64;
    assert_eq!(taken + waiting + lab.inlet.dropped(), offered, "each is taken or counted");
    lab.desk.bound_habits();
    let habits: usize = lab.desk.minds.values().flat_map(Mind::habits).map(|(.., bytes)| bytes).sum();
    assert!(habits <= HABITS, "{habits}");
    let miners: usize = lab.desk.minds.values().map(Mind::bytes).sum();
    assert!(miners <= 2 * MINERS, "{miners}");
}

#[test]
fn without_a_file_to_keep_it_in_it_is_still_understood_and_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("logs.sqlite")).unwrap();
    let mut lab = lab(folder.path());
    lab.say("[   61.0] Kernel panic - not syncing: nobody keeps it");
    lab.desk.each_second();
    assert_eq!(lab.told().len(), 1);
    let shelf = lab.desk.intake.store.shelf();
    let found = shelf.search(&Query::newest(owner("orders"), 1), &AtomicBool::new(false));
    assert!(matches!(found, Err(SearchError::Nothing)));
}
