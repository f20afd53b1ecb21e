//! `docs/catalogue.md` is the fault catalogue as the engine has it. `BLESS=1` writes it anew.

#![expect(clippy::unwrap_used, reason = "tests")]

use holdfast_core::diagnosis::{Catalogue, level};
use holdfast_core::plan::{Remedy, ladder};
use std::fmt::Write;
use std::path::Path;

const HEAD: &str = "# The fault catalogue

Written by the test `catalogue_page` from the engine's own table; change the table, not this page
(`BLESS=1 cargo test -p holdfast-core --test catalogue_page`).

Each fault has a prior (one VM meets it about once in this time), a ladder of remedies, gentlest first, and for each
kind of evidence its probability under the fault beside that on a healthy VM. The weight of a statement is ten times the
decimal logarithm of their ratio, in decibans, times its strength (it grows with duration and shrinks with age). Kinds
that are not listed weigh nothing for that fault. Below the ladder stands where the numbers come from; what is judged is an order of magnitude, and
`holdfast learn` shows what your own incidents and drills have counted (with `learn = \"use\"` it is used). How often each fault is named rightly when it is
brought about on a real guest stands in [benchmarks.md](benchmarks.md), in the table of the matrix. Rungs marked `(later)` are not in this version.

Signs marked with `!` are conclusive: one of them is enough to act upon (I10). Otherwise two channels must agree.
";

#[test]
fn the_page_is_the_table() {
    let mut page = HEAD.to_owned();
    for row in Catalogue::standard().iter() {
        let days = row.once_in.as_secs() / 86_400;
        let often = if days % 365 == 0 { format!("{} years", days / 365) } else { format!("{days} days") };
        let rungs: Vec<String> = ladder(row.fault)
            .iter()
            .map(|remedy: &Remedy| {
                format!("{remedy}{}", if remedy.needs().is_none() { " (later)" } else { "" })
            })
            .collect();
        writeln!(page, "\n## {}\n", row.fault).unwrap();
        writeln!(
            page,
            "Level {:?}; it {}. Once in {often}. Ladder: {}.\n",
            level(row.fault),
            row.says,
            rungs.join(", ")
        )
        .unwrap();
        writeln!(page, "{}\n", row.from).unwrap();
        page.push_str("| channel | evidence | if so | if healthy | decibans |\n|---|---|---|---|---|\n");
        for (kind, likely) in row.seen {
            let weight = 10.0 * (likely / kind.if_healthy()).log10();
            let mark = if kind.is_conclusive() { " !" } else { "" };
            let channel = kind.channel().name();
            writeln!(
                page,
                "| {channel} | {kind:?}{mark} | {likely} | {} | {weight:+.1} |",
                kind.if_healthy()
            )
            .unwrap();
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/catalogue.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/catalogue.md is not what the engine has: run with BLESS=1");
}
