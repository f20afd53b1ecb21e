//! What the miner promises, over any lines.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::scan::{MOST_TOKENS, scan};
use super::token::{Token, What};
use super::*;
use proptest::prelude::*;

/// A line's tokens as `text:type` of values, and the text of the rest.
fn typed(line: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    scan(line, &mut tokens);
    let show = |token: &Token| match token.what {
        What::Value(value) => format!("{}:{value}", token.text(line)),
        What::Name => format!("{}:user", token.text(line)),
        What::Numbered => format!("{}:numbered", token.text(line)),
        What::Word | What::Mark => token.text(line).to_owned(),
    };
    tokens.iter().map(show).collect()
}

/// The template of each of these lines, once all were seen.
fn templates(lines: &[&str]) -> Vec<String> {
    let mut miner = Miner::default();
    let ids: Vec<PatternId> = lines.iter().map(|line| miner.add(line)).collect();
    let view = miner.view();
    ids.iter().map(|id| view.find(*id).unwrap().template.to_string()).collect()
}

/// The template that all these lines have in common.
fn template(lines: &[&str]) -> String {
    let mut all = templates(lines);
    all.dedup();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn each_type_of_value_is_known_by_its_form() {
    for (text, value) in [
        ("0", "number"),
        ("-1", "number"),
        ("+0.25", "number"),
        ("50%", "number"),
        ("6.1.7601.23505", "number"),
        ("v1.0.0", "number"),
        ("0x7fed806eb5d", "hex"),
        ("003a9260", "hex"),
        ("ffff3000", "hex"),
        ("10.251.73.220:50010", "address"),
        ("/10.10.34.11:45307", "address"),
        ("10.0.0.0/8", "address"),
        ("fe80::1ff:fe23:4567:890a", "address"),
        ("52:54:00:12:34:56", "address"),
        ("0000:00:1e.0", "address"),
        ("db1.orders.internal", "address"),
        ("proxy.example.edu:5070", "address"),
        ("localhost:8080", "address"),
        ("/var/lib/postgresql/16/main", "path"),
        ("./run", "path"),
        ("~/x", "path"),
        ("C:\\Windows\\win.ini", "path"),
        ("\\\\host\\share", "path"),
        ("0673dd71-34c5-4fbb-86c4-40623fbe45b4", "uuid"),
        ("a673dd71-34c5-4fbb-86c4-40623fbe45b4", "uuid"),
        ("15ms", "duration"),
        ("15 ms", "duration"),
        ("<1 sec", "duration"),
        ("64172MB", "size"),
        ("128 bytes", "size"),
        ("1522 bytes (1.48 KB)", "size"),
        ("08:16:53,123", "time"),
        ("20171223-22:15:5:60", "time"),
        ("2026-11-23T21:19:48.123Z", "time"),
        ("2026-11-23 21:19:48.123 +02:00", "time"),
        ("2016/9/27:20:30:31.455", "time"),
        ("10/Oct/2000:13:55:36 -0700", "time"),
        ("Fri Jul 01 08:16:53 PDT 2005", "time"),
        ("Jul  1 08:16:53", "time"),
        ("Fri, 01 Jul 2005 08:16:53 +0000", "time"),
        ("https://example.org/a?b=c#d", "url"),
        ("/v2/servers HTTP/1.1", "url"),
        ("true", "truth"),
        ("FALSE", "truth"),
        ("null", "truth"),
        ("blk_-3228470001178394592", "id"),
        ("part-01835.x", "id"),
    ] {
        assert_eq!(typed(text), [format!("{text}:{value}")]);
        assert_eq!(typed(&format!("at ({text}) now")), ["at", "(", &format!("{text}:{value}"), ")", "now"]);
    }
    assert_eq!(typed("relation \"orders\" is"), ["relation", "\"", "orders:quoted", "\"", "is"]);
    assert_eq!(typed("for user alice by"), ["for", "user", "alice:user", "by"]);
}

#[test]
fn words_stay_words() {
    for line in
        ["Input/output error", "java.io.IOException", "a-b", "restart", "x+", "BLOCK*", "Jan", "Mai", "fade"]
    {
        assert!(typed(line).iter().all(|token| !token.contains(':')), "{:?}", typed(line));
    }
    assert_eq!(typed("eth0 up"), ["eth0:numbered", "up"]);
    assert_eq!(typed("core.7830"), ["core", ".", "7830:number"]);
    assert_eq!(typed("node-31"), ["node", "-", "31:number"]);
    assert_eq!(typed("enabled.....0"), ["enabled", ".....", "0:number"]);
    assert_eq!(typed("ends here."), ["ends", "here", "."]);
    assert_eq!(typed("at 5."), ["at", "5:number", "."]);
    assert_eq!(typed("数据库 7 号"), ["数据库", "7:number", "号"]);
}

#[test]
fn a_value_is_a_variable_the_first_time_it_is_seen() {
    assert_eq!(template(&["took 5 ms, 3 rows from 10.0.0.1:80"]), "took <*> ms, <*> rows from <*>");
    assert_eq!(template(&["link eth0 is up"]), "link eth0 is up");
    assert_eq!(template(&["link eth0 is up", "link eth1 is up"]), "link <*> is up");
}

#[test]
fn a_unit_is_part_of_the_template_while_all_lines_have_it() {
    assert_eq!(template(&["took 1 ms", "took 2 ms"]), "took <*> ms");
    assert_eq!(template(&["took 1 ms", "took 2 seconds"]), "took <*>");
    assert_eq!(template(&["sent 10 bytes now", "sent 2000 bytes (1.95 KB) now"]), "sent <*> now");
}

#[test]
fn a_word_where_another_line_has_a_number_is_a_value() {
    assert_eq!(
        template(&["server reached state 7 at once", "server reached state running at once"]),
        "server reached state <*> at once"
    );
    assert_ne!(templates(&["state 7", "state running"])[0], "state running");
    assert_eq!(templates(&["stopped", "5"]), ["stopped", "<*>"], "one word alone proves nothing");
}

#[test]
fn few_words_in_a_place_are_statements_and_many_are_values() {
    let states =
        ["VM Started (Lifecycle Event)", "VM Paused (Lifecycle Event)", "VM Stopped (Lifecycle Event)"];
    assert_eq!(templates(&states), states);
    let names = ["anna", "bert", "carla", "dora", "emil", "fritz", "gerda", "hugo", "ida"];
    let lines: Vec<String> =
        names.iter().map(|name| format!("the queue of {name} was drained by force")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(template(&lines), "the queue of <*> was drained by force");
}

#[test]
fn a_name_that_is_the_rule_is_told_from_its_exceptions() {
    let mut lines = vec!["failure; rhost= user=root"; 60];
    lines.extend(["failure; rhost= user=guest", "failure; rhost= user=test"]);
    let mut miner = Miner::default();
    let ids: Vec<PatternId> = lines.iter().map(|line| miner.add(line)).collect();
    let view = miner.view();
    assert_eq!(view.find(ids[0]).unwrap().count, 60);
    assert_eq!(view.find(ids[0]).unwrap().template.to_string(), "failure; rhost= user=<*>");
    let even = ["opened for user a by 0", "opened for user b by 0", "opened for user c by 0"];
    assert_eq!(template(&even), "opened for user <*> by <*>");
}

#[test]
fn lists_of_any_length_are_one_variable() {
    assert_eq!(
        template(&["ask 10.0.0.1 to delete blk_1001", "ask 10.0.0.2 to delete blk_1001 blk_1002 blk_1003"]),
        "ask <*> to delete <*>"
    );
    assert_eq!(template(&["sizes 1 2 3", "sizes 4 5 6"]), "sizes <*> <*> <*>");
    assert_eq!(
        template(&["from 10.0.0.1 () at 5", "from 10.0.0.1 (a.example.com) at 5"]),
        "from <*> (<*>) at <*>"
    );
}

#[test]
fn values_of_many_forms_are_one_variable() {
    let lines = [
        "boot option unknown: 7",
        "boot option unknown: Some(3)",
        "boot option unknown: Run(Error(2))",
        "boot option unknown: { code: 5 }",
    ];
    assert_eq!(template(&lines), "boot option unknown: <*>");
    let longer =
        ["failed for reason 7", "failed for reason 7, retried 3 times", "failed for reason 7, then 8"];
    assert_eq!(templates(&longer)[0], "failed for reason <*>", "more text is no other form");
    assert_ne!(
        templates(&["stop at 5: 7 found", "stop at 5 found"])[1],
        "stop at <*>",
        "nor is another value"
    );
}

#[test]
fn two_words_that_change_together_are_two_variables() {
    let letters = |number: u32| char::from(b'a' + number as u8);
    let line = |number: u32| format!("registering class net.{0}{0}.T for class net.{0}.S", letters(number));
    let lines: Vec<String> = (0..9).map(line).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(template(&lines), "registering class <*> for class <*>");
    assert_eq!(templates(&lines[..5])[0], lines[0], "five prove nothing");
}

#[test]
fn a_number_is_given_once_and_kept_by_the_older_pattern() {
    let mut miner = Miner::default();
    let word = miner.add("server reached state running at once");
    let value = miner.add("server reached state 7 at once");
    assert_eq!((word, value), (PatternId(1), PatternId(1)));
    assert_eq!(miner.resolve(PatternId(2)), PatternId(1));
    assert_eq!(miner.add("something else"), PatternId(3));
    assert_eq!(miner.view().find(PatternId(2)).unwrap().id, PatternId(1));
    assert_eq!(miner.view().groups()[0].count, 2);
}

#[test]
fn lines_that_never_come_again_stay_within_the_limit_and_drive_out_themselves() {
    let limit = Limit { patterns: 1_000, bytes: 1 << 20 };
    let mut miner = Miner::new(limit);
    let known = "checkpoint complete: wrote 3 buffers";
    let id = miner.add(known);
    for _ in 0..10_000 {
        miner.add(known);
    }
    let letters = |mut number: u32| {
        let mut word = String::new();
        while number > 0 {
            word.push(char::from(b'a' + (number % 26) as u8));
            number /= 26;
        }
        word
    };
    for number in 1..100_000_u32 {
        let [a, b, c] = [number, number.wrapping_mul(7919), number.wrapping_mul(104_729)].map(letters);
        miner.add(&format!("{a} {b} {c} {}", "tail ".repeat((number % 50) as usize)));
        assert!(miner.bytes() < 3 * limit.bytes && miner.by_id.len() <= limit.patterns, "{}", miner.bytes());
    }
    assert!(miner.dropped() > 50_000);
    assert_eq!(miner.add(known), id, "what is known stays");
    assert!(miner.holes.len() < 100_000 && miner.merged.len() <= 4 * limit.patterns);
}

#[test]
fn a_line_of_ten_thousand_tokens_is_one_of_at_most_so_many() {
    let mut tokens = Vec::new();
    for line in ["=".repeat(10_000), "a ".repeat(10_000), "1 ".repeat(10_000), "\"a\" ".repeat(5_000)] {
        scan(&line, &mut tokens);
        assert!(tokens.len() <= MOST_TOKENS);
        let mut miner = Miner::default();
        let id = miner.add(&line);
        assert_eq!(miner.template(id).unwrap().fill(&miner.values(id, &line).unwrap()), collapsed(&line));
    }
}

#[test]
fn a_snapshot_of_another_version_or_with_a_contradiction_is_refused() {
    let mut miner = Miner::default();
    miner.add("one line");
    let mut document = serde_json::to_value(miner.snapshot()).unwrap();
    document["next"] = 1.into();
    let refused = Miner::restore(serde_json::from_value(document.clone()).unwrap()).unwrap_err();
    assert_eq!(refused, SnapshotError::Pattern { id: 1 });
    document["v"] = 9.into();
    let refused = Miner::restore(serde_json::from_value(document).unwrap()).unwrap_err();
    assert_eq!(refused, SnapshotError::Version { found: 9 });
}

/// A line with single blanks, and none at its ends.
fn collapsed(line: &str) -> String {
    let blank = |letter: char| letter.is_ascii() && (letter <= ' ' || letter == '\x7f');
    line.split(blank).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Lines as programs write them, of a few words and values, so that they meet.
fn lines() -> impl Strategy<Value = Vec<String>> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec!["disk", "sda", "failed", "ok", "user", "for", "=", "(", ")", ":", ",", "root", "state", "running"]),
        2 => prop::sample::select(vec!["5", "10.0.0.1:80", "/var/log", "0x5f", "eth0", "eth1", "12 ms", "true", "\"x\"", "blk_1234"]),
    ];
    let line = prop::collection::vec(piece, 0..9).prop_map(|pieces| pieces.join(" "));
    prop::collection::vec(line, 0..120)
}

proptest! {
    #[test]
    fn any_text_is_cut_into_tokens_that_cover_it(line in "\\PC{0,120}|[ -~\\x00-\\x1f]{0,200}") {
        let mut tokens = Vec::new();
        scan(&line, &mut tokens);
        prop_assert!(tokens.len() <= MOST_TOKENS);
        let mut again = String::new();
        for token in &tokens {
            prop_assert!(token.start < token.end && line.is_char_boundary(token.start as usize) && line.is_char_boundary(token.end as usize));
            if token.gap {
                again.push(' ');
            }
            again.push_str(token.text(&line));
        }
        prop_assert_eq!(collapsed(&again), collapsed(&line));
    }

    #[test]
    fn a_template_with_its_values_gives_the_line_back(line in "\\PC{0,120}|[ -~]{0,200}|([a-z]{1,8}[ =:/.,-]{1,2}[0-9a-f]{1,9}[ ]?){0,20}") {
        let mut miner = Miner::default();
        let id = miner.add(&line);
        let values = miner.values(id, &line).unwrap();
        prop_assert_eq!(collapsed(&miner.template(id).unwrap().fill(&values)), collapsed(&line));
    }

    #[test]
    fn values_fit_the_template_after_all_lines_too(lines in lines()) {
        let mut miner = Miner::default();
        let ids: Vec<PatternId> = lines.iter().map(|line| miner.add(line)).collect();
        let view = miner.view();
        for (id, line) in ids.iter().zip(&lines) {
            if let Some(values) = miner.values(*id, line) {
                prop_assert_eq!(miner.template(*id).unwrap().fill(&values), collapsed(line));
            }
            prop_assert!(view.find(*id).is_some());
        }
        prop_assert_eq!(view.groups().iter().map(|group| group.count).sum::<u64>(), lines.len() as u64);
    }

    #[test]
    fn the_same_lines_give_the_same_patterns_also_across_a_restart(lines in lines(), cut in 0usize..120, patterns in 8usize..60) {
        let limit = Limit { patterns, bytes: 1 << 20 };
        let mut whole = Miner::new(limit);
        let ids: Vec<PatternId> = lines.iter().map(|line| whole.add(line)).collect();
        let cut = cut.min(lines.len());
        let mut first = Miner::new(limit);
        let mut again: Vec<PatternId> = lines[..cut].iter().map(|line| first.add(line)).collect();
        let kept = serde_json::to_string(&first.snapshot()).unwrap();
        let mut second = Miner::restore(serde_json::from_str(&kept).unwrap()).unwrap();
        again.extend(lines[cut..].iter().map(|line| second.add(line)));
        prop_assert_eq!(ids, again);
        prop_assert_eq!(serde_json::to_string(&whole.snapshot()).unwrap(), serde_json::to_string(&second.snapshot()).unwrap());
    }

    #[test]
    fn numbers_only_rise_and_a_pattern_that_left_gives_its_number_to_nobody(lines in lines()) {
        let mut miner = Miner::new(Limit { patterns: 8, bytes: 1 << 20 });
        let mut newest = 0;
        for line in &lines {
            let id = miner.add(line).0;
            prop_assert!(id < miner.next);
            newest = newest.max(id);
            prop_assert!(miner.by_id.len() <= 9);
        }
        prop_assert!(newest <= lines.len() as u64);
    }

    #[test]
    fn any_bytes_are_mined(raws in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..30)) {
        let mut miner = Miner::new(Limit { patterns: 8, bytes: 1 << 14 });
        for raw in &raws {
            miner.add(&crate::clean(raw));
        }
        prop_assert!(miner.view().groups().len() <= 9);
    }
}

#[test]
fn a_reserved_number_is_not_given_and_a_lower_limit_is_kept_to() {
    let mut miner = Miner::default();
    miner.add("the first of all lines");
    miner.reserve(PatternId(40));
    assert_eq!(miner.add("another line with other words altogether"), PatternId(41));
    for n in 0..2_000 {
        let words = format!(
            "word{} stands here with nothing{} beside it at all",
            "x".repeat(n % 90),
            "y".repeat(n / 90)
        );
        miner.add(&words.replace(|c: char| c.is_ascii_digit(), ""));
    }
    miner.set_limit(Limit { patterns: 10, bytes: 1 << 20 });
    let mut last = PatternId(0);
    for n in 0..20 {
        last = miner.add(&format!("{} is new to everybody around", "z".repeat(n + 2)));
    }
    assert!(miner.view().find(last).is_some());
    assert!(miner.view().groups().len() < 2_000);
}
