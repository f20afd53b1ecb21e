//! `docs/rules.md` is the table of known lines as the program has it. `BLESS=1` writes it anew.

#![expect(clippy::unwrap_used, reason = "tests")]

use holdfast_logs::{Rule, Rules};
use std::fmt::Write;
use std::path::Path;

const HEAD: &str = r##"# Known lines

Written by the test `rules_page` from the rules themselves; change those, not this page
(`BLESS=1 cargo test -p holdfast-logs --test rules_page`).

A rule knows one kind of line that a system or a database writes, and says what it means and which fault may be behind it.
`holdfast logs analyze` shows them all. The daemon makes evidence of the kinds marked `*`, and of a line whose first fault is a cause that
no other channel shows: connections used up, damaged data or image, broken replication, waiting locks, and storage, hardware or links of
the host. A person is told of those; none of them alone has anything restarted.

## A rule

The rules are rows in `crates/logs/src/rules`, a file for each family:

```rust
Rule {
    name: "raid-disk-failed",                  // as it is shown; lower case, never changed again
    means: "A disk of a software RAID failed and was taken out", // a plain sentence without a full stop
    kind: Kind::DiskFailing,                   // what it tells
    severity: Severity::Error,                 // Notice, Warning, Error, Critical
    speaks_for: &[Fault::HostFailing, Fault::StorageLost], // the likeliest first; none for a notice
    by: By::Kernel,                            // or By::Anyone
    needs: ": Disk failure on ",               // a literal that every such line holds
    pattern: r"md/raid\d*:\w+: Disk failure on \w+, disabling device", // "" if the literal says it all
    unless: "",                                // lines that also hold this are not meant
    examples: &["[   77.000000] md/raid1:md0: Disk failure on sdb1, disabling device."],
    not: &["monitor: Disk failure on sdb1, disabling device."], // near misses: nobody's lines
    source: "Linux drivers/md/raid1.c, raid5.c, raid10.c", // who prints it
},
```

- All literals are one automaton, run once over the first 1,024 bytes of a line. Only where a literal stands is its pattern tried.
  So choose a literal that ordinary lines do not hold, of eight letters or more, from the constant part of the message.
- Patterns are regular expressions without look-around or back-references; the time is proportional to the length of the line,
  whatever is in it. They see bytes, and ASCII classes.
- `By::Kernel` means that the message stands where the kernel writes it: at the start of the line, or behind its time stamp, level or
  syslog name. A program that merely repeats a kernel's line is not believed. Give it to everything the kernel prints.
- The first rule that fits names the line: rules of an evidence before all others, then in the order of the families and files.
- A message is in the words of its own source, in English. If you are not sure of them, look them up, or leave the rule out.

To add one: write the row with a line from the field or the source, near misses that merely mention it, and lines that tell the opposite
("recovered", "link is up"); run `cargo test -p holdfast-logs`, and write this page anew. The tests hold every rule to being found by its
own examples first, and all rules to leaving all near misses and a set of ordinary lines alone.

A new rule takes a kind without `*`: it is shown, and told of where its first fault is such a cause. To make a kind evidence, see
`Kind::is_evidence`, the daemon's `sense/findings.rs` and the [catalogue](catalogue.md); that needs scenarios.

## Limits

- Only English. A guest with another language has other texts for its databases and for Windows.
- Windows events are known by their text; their numbers are named for readers. None is of a kind with `*`, so of them the engine hears only
  causes: damaged data and used-up connections. That is meant. What tells of a stop (events 1001, 6008, 41) is written after the next start, of
  a guest that is well again. A stop screen has no mark by which it is known to be the kernel's own, and a program must not speak for its kernel.
  A disk is "near capacity" for Windows when a tenth is left, which its agent tells better.
- A line of `By::Anyone` can be written by anybody who can write to that log. To act, the engine wants a second channel beside it,
  but for the evidence that the [catalogue](catalogue.md) marks with `!`.
"##;

#[test]
fn the_page_is_the_rules() {
    let mut page = HEAD.to_owned();
    let count = Rules::standard().iter().count();
    write!(page, "\n## All {count} of them\n").unwrap();
    for (family, rules) in Rules::families() {
        write!(page, "\n### {family}\n\n").unwrap();
        page.push_str(
            "| rule | meaning | kind | severity | speaks for | who prints it |\n|---|---|---|---|---|---|\n",
        );
        rules.iter().for_each(|rule| row(&mut page, rule));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rules.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/rules.md is not what the program has: run with BLESS=1");
}

fn row(page: &mut String, rule: &Rule) {
    let star = if rule.kind.is_evidence() { "*" } else { "" };
    let kernel = if rule.is_by_kernel() { " (kernel only)" } else { "" };
    let faults: Vec<String> = rule.speaks_for.iter().map(|fault| format!("{fault:?}")).collect();
    writeln!(
        page,
        "| `{}` | {} | {:?}{star} | {:?} | {} | {}{kernel} |",
        rule.name,
        rule.means,
        rule.kind,
        rule.severity,
        faults.join(", "),
        rule.source
    )
    .unwrap();
}
