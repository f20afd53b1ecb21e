//! Patterns that were made one too early, and what becomes of them.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use proptest::prelude::*;

/// The patterns of these lines, one by one, and the miner.
fn mined<'a>(lines: impl IntoIterator<Item = &'a str>) -> (Vec<PatternId>, Miner) {
    let mut miner = Miner::default();
    let ids = lines.into_iter().map(|line| miner.add(line)).collect();
    (ids, miner)
}

/// A word that is like no other.
fn word(number: usize) -> String {
    let digits = format!("{number:04}");
    digits.bytes().map(|digit| char::from(digit - b'0' + b'g')).collect()
}

/// A number where later only `opened` and `closed` stand.
fn doors() -> impl Iterator<Item = &'static str> {
    let lines = |n: usize| {
        if n.is_multiple_of(2) {
            "connection opened established now"
        } else {
            "connection closed established now"
        }
    };
    std::iter::once("connection 7 established now").chain((0..2_000).map(lines))
}

#[test]
fn few_words_that_a_number_made_one_are_told_apart_again() {
    let (ids, mut miner) = mined(doors());
    let (parent, one, other) = (ids[0], ids[2_000], ids[1_999]);
    assert!(parent != one && parent != other && one != other);
    assert_eq!(miner.template(one).unwrap().to_string(), "connection closed established now");
    assert_eq!(miner.template(parent).unwrap().to_string(), "connection <*> established now");
    assert_eq!(
        (miner.came_of(one), miner.came_of(other), miner.came_of(parent)),
        (Some(parent), Some(parent), None)
    );
    let first = ids.iter().position(|id| *id != parent).unwrap();
    assert!(ids[..first].iter().all(|id| *id == parent) && first < 500, "what was given stays: {first}");
    assert!(
        ids[first..].iter().all(|id| *id == one || *id == other),
        "and each line goes to its own from then on"
    );
    assert_eq!(miner.add("connection 8 established now"), parent);
    assert_eq!(miner.add("connection halved established now"), parent, "what is rare stays a value");
    let view = miner.view();
    assert_eq!(view.groups().len(), 3, "nothing joins them again");
    assert_eq!(view.groups().iter().map(|group| group.count).sum::<u64>(), ids.len() as u64 + 2);
    assert_eq!(view.find(one).unwrap().of, Some(parent));
    assert_eq!(view.split_off(parent).collect::<Vec<_>>().len(), 2);
    assert_eq!(view.split_off(one).count(), 0);
}

#[test]
fn a_word_that_decides_what_else_stands_in_the_line_is_a_statement() {
    let line = |n: usize| match n % 4 {
        0 => format!("backup job ended cleanly with {n} after all"),
        1 => format!("backup job ended badly with /var/run/{} after all", word(n)),
        _ => format!("backup job ended {n} with {n} after all"),
    };
    let lines: Vec<String> = (2..1_000).map(line).collect();
    let (ids, miner) = mined(lines.iter().map(String::as_str));
    let found: std::collections::BTreeSet<String> =
        ids.iter().map(|id| miner.template(*id).unwrap().to_string()).collect();
    let expected = [
        "backup job ended <*> with <*> after all",
        "backup job ended badly with <*> after all",
        "backup job ended cleanly with <*> after all",
    ];
    assert!(found.iter().eq(expected), "{found:?}");
    let by_chance =
        |n: usize| format!("backup job ended {} with {n} after all", ["cleanly", "badly", "7", "8"][n % 4]);
    let lines: Vec<String> = (0..4_000).map(by_chance).collect();
    let (_, miner) = mined(lines.iter().map(String::as_str));
    assert_eq!(
        miner.view().groups().len(),
        1,
        "half of the lines have a number, and nothing else goes with the words"
    );
}

#[test]
fn names_many_words_exceptions_and_what_is_assigned_stay_variables() {
    let one = |line: &dyn Fn(usize) -> String| {
        let lines: Vec<String> = (0..6_000).map(line).collect();
        let (ids, miner) = mined(lines.iter().map(String::as_str));
        assert!(ids[64..].iter().all(|id| *id == ids[5_999]), "{}", lines[1]);
        assert_eq!(miner.came_of(ids[5_999]), None);
    };
    let pick = |n: usize, of: usize| word(n * 7_919 % of);
    one(&|n| format!("server reached state {} at once", if n == 0 { "7".into() } else { pick(n, 12) }));
    one(&|n| format!("session opened for user {} by nobody", if n == 0 { "7".into() } else { pick(n, 2) }));
    one(&|n| format!("server has mode={} set at once", if n == 0 { "7".into() } else { pick(n, 2) }));
    one(&|n| {
        format!(
            "server reached state {} at once",
            if n % 50 == 0 {
                word(1)
            } else if n % 51 == 0 {
                "7".into()
            } else {
                word(0)
            }
        )
    });
    one(&|n| format!("server reached state {} at once", if n % 9 == 0 { "7".into() } else { pick(n, 2) }));
}

#[test]
fn what_was_split_off_is_widened_with_its_parent_and_both_stay_while_either_comes() {
    let (ids, mut miner) = mined(doors());
    let (parent, child) = (ids[0], ids[2_000]);
    assert_ne!(miner.add("connection 7 established 12"), PatternId(0));
    assert_eq!(miner.add("connection 7 established now"), parent);
    let after = miner.add("connection closed established 12");
    assert_eq!(
        (after, miner.template(after).unwrap().to_string()),
        (child, "connection closed established <*>".to_owned())
    );
    let limit = Limit { patterns: 40, bytes: 1 << 20 };
    miner.set_limit(limit);
    for n in 0..4_000 {
        miner.add(&format!("{} is {} and {}", word(n), word(n * 3 % 7_001), word(n * 5 % 7_001)));
        assert!(miner.by_id.len() <= limit.patterns);
    }
    assert_eq!(
        miner.add("connection closed established 3"),
        child,
        "what comes often stays, and its parent with it"
    );
    assert_eq!(miner.came_of(child), Some(parent));
}

#[test]
fn a_census_is_bounded_and_counted() {
    let mut miner = Miner::new(Limit { patterns: 1_000, bytes: 1 << 20 });
    for n in 0..20_000 {
        let end = if n % 2 == 0 { "7".to_owned() } else { word(n % 6) };
        miner.add(&format!("{} was {} with {end} {end} {end} {end}", word(n / 4), word(n / 4 * 7 % 9_001)));
        assert!(miner.bytes() < 3 << 20, "{}", miner.bytes());
    }
    let counted = miner.bytes;
    miner.count_bytes();
    assert_eq!(miner.bytes, counted);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_same_lines_are_split_the_same_also_across_a_restart(seed in any::<u64>(), cut in 0usize..1_500, patterns in 4usize..30) {
        let mut chance = seed | 1;
        let mut next = |most: u64| { chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1); (chance >> 33) % most };
        let lines: Vec<String> = (0..1_500).map(|_| match next(10) {
            0 => format!("{} came {} here for {}", word(next(5) as usize), next(3), word(next(40) as usize)),
            1 if next(40) == 0 => format!("door {} is left {} now", next(9), next(5)),
            _ => format!("door {} is left {} now", ["open", "shut"][next(2) as usize], ["quite", "hardly", "not"][next(3) as usize]),
        }).collect();
        let limit = Limit { patterns, bytes: 1 << 20 };
        let mut whole = Miner::new(limit);
        let ids: Vec<PatternId> = lines.iter().map(|line| whole.add(line)).collect();
        let mut first = Miner::new(limit);
        let mut again: Vec<PatternId> = lines[..cut].iter().map(|line| first.add(line)).collect();
        let kept = serde_json::to_string(&first.snapshot()).unwrap();
        let mut second = Miner::restore(serde_json::from_str(&kept).unwrap()).unwrap();
        again.extend(lines[cut..].iter().map(|line| second.add(line)));
        prop_assert_eq!(&ids, &again);
        prop_assert_eq!(serde_json::to_string(&whole.snapshot()).unwrap(), serde_json::to_string(&second.snapshot()).unwrap());
        for id in ids {
            prop_assert!(whole.came_of(id).is_none_or(|of| of < id));
            prop_assert!(whole.family(id).is_none_or(|family| family.root <= family.parent && family.parent < id));
        }
    }
}
