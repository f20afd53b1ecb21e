//! An analysis on screen, as JSON, as CSV. Whatever a stranger wrote is escaped.

use super::super::paint::{self, Tone, tint};
use super::super::{CliError, print_json};
use super::Sources;
use super::analysis::{Analysis, Finding, is_notice};
use super::habits::{Odd, Span};
use super::timeline::{Counts, Slices};
use holdfast_logs::{Group, PatternId, Rule, Severity, Template, View, escape};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::path::Path;

/// Patterns that are shown on screen; the rest is counted.
const SHOWN: usize = 40;

/// Unusual things that are shown on screen.
const MOST_ODD: usize = 20;

/// Rows of the timeline on screen, and in JSON.
const ROWS: usize = 16;
const STRETCHES: usize = 128;

/// Rows without lines that are shown one after the other.
const MOST_EMPTY: i64 = 3;

/// Seconds of a mean year.
const SECONDS_A_YEAR: i64 = 31_556_952;

/// Characters of the longest bar.
const BAR: u64 = 30;

/// Characters of a template.
const LONGEST_TEMPLATE: usize = 4_096;

/// Bytes that are printed at once.
const CHUNK: usize = 1 << 16;

/// For people.
pub fn people(analysis: &Analysis, sources: &Sources, report: Option<&Path>) {
    let view = analysis.view();
    let groups = by_lines(view.groups());
    let findings = analysis.findings();
    let bad = findings.iter().filter(|finding| !is_notice(finding.rule)).count();
    let odd = analysis.habits.odd();
    let patterns = counted(groups.len() as u64, "pattern", "patterns");
    let tone = if bad > 0 || !odd.is_empty() { Tone::Bad } else { Tone::Good };
    let verdict = verdict(bad, analysis);
    say!("{}, {patterns}: {}", sources.counted(analysis.lines), tint(tone, &verdict));
    remarks(analysis, sources);
    if !findings.is_empty() {
        say!("\n{}", tint(Tone::Bold, "known lines, the worst first"));
        findings.iter().for_each(|finding| show(finding, sources));
    }
    unusual(&odd, sources);
    timeline(analysis, sources);
    if !groups.is_empty() {
        say!("\n{}", tint(Tone::Bold, "patterns, the most lines first"));
        let mut table = paint::table(&["lines", "first", "last", "pattern"]);
        for group in groups.iter().take(SHOWN) {
            let place = |line| sources.place(line);
            let row = [group.count.to_string(), place(group.first), place(group.last), shown(group)];
            table.add_row(row);
        }
        say!("{table}");
    }
    if groups.len() > SHOWN {
        say!("and {} more: `--json` has all", groups.len() - SHOWN);
    }
    if let Some(report) = report {
        say!("\nwritten to {}", escape(&report.to_string_lossy(), 200));
    }
}

/// What was found, in a few words: of so many kinds of lines known to be bad.
pub fn verdict(bad: usize, analysis: &Analysis) -> String {
    let known = match bad {
        0 => "nothing known to be bad".to_owned(),
        bad => format!("{} known to be bad", counted(bad as u64, "kind of line", "kinds of lines")),
    };
    let odd = analysis.habits.count();
    match analysis.habits.span() {
        _ if odd > 0 => format!("{known}, {}", counted(odd, "thing unusual", "things unusual")),
        Span::Enough => format!("{known}, nothing unusual"),
        Span::Short => format!("{known}; less than an hour does not show what is unusual"),
        Span::Timeless => format!("{known}; without times nobody can say what is unusual"),
    }
}

/// What the log's own habits do not explain.
fn unusual(odd: &[&Odd], sources: &Sources) {
    if odd.is_empty() {
        return;
    }
    say!("\n{}", tint(Tone::Bold, "unusual, the most surprising first"));
    for odd in odd.iter().take(MOST_ODD) {
        let (sort, decibans) = (odd.statement.sort.name(), odd.statement.decibans);
        let (at, line) = (time(odd.time.div_euclid(1_000_000), 1), sources.place(odd.line));
        let one = sources.one();
        say!("  {at}  {}: {decibans:.0} dB, {one} {line}{}", tint(Tone::Bad, sort), again(odd.times));
        say!("      {}", odd.statement.says);
    }
    if odd.len() > MOST_ODD {
        say!("  and {} more: `--json` has all", odd.len() - MOST_ODD);
    }
}

/// How many times it was, if it was not once.
pub fn again(times: u64) -> String {
    if times > 1 { format!(", {times} times") } else { String::new() }
}

/// How many lines at what time, if there are several times.
fn timeline(analysis: &Analysis, sources: &Sources) {
    let slices = analysis.timeline.slices(ROWS);
    if let Some(far) = far(&slices, sources) {
        say!("\n{far}");
    }
    if slices.stretches.len() < 2 {
        return;
    }
    say!(
        "\n{}",
        tint(
            Tone::Bold,
            &format!(
                "{}s over time (UTC, if the log names its zone), {} a row",
                sources.one(),
                slices.width()
            )
        )
    );
    let most = slices.most().max(1);
    for (place, (at, counts)) in slices.stretches.iter().enumerate() {
        match slices.gap(place) {
            0 => {}
            gap @ 1..=MOST_EMPTY => (1..=gap).for_each(|back| {
                say!("  {}  {:>9}", time(at - (gap + 1 - back) * slices.seconds, slices.seconds), 0);
            }),
            _ => say!("  ..."),
        }
        let lines = counts.lines();
        let bar = "█".repeat((lines * BAR).div_ceil(most) as usize);
        let (tone, said) = told(counts);
        let row = format!("{}  {lines:>9}  {bar}{said}", time(*at, slices.seconds));
        say!("  {}", tint(tone, row.trim_end()));
    }
}

/// Of lines that are left out of those over time: how many, and why.
pub fn far(slices: &Slices, sources: &Sources) -> Option<String> {
    let year = slices.far_time? / SECONDS_A_YEAR + 1970;
    let (have, are) = if slices.far == 1 { ("has", "is") } else { ("have", "are") };
    let lines = sources.counted(slices.far);
    Some(format!(
        "{lines} {have} a time of another age (as about the year {year}), and {are} left out of those over time"
    ))
}

/// When a stretch begins: to the second, where it is shorter than a minute.
pub fn time(at: i64, seconds: i64) -> String {
    if seconds < 60 { paint::utc_second(at as f64) } else { paint::utc(at as f64) }
}

/// What is bad in a stretch, and how bad.
fn told(counts: &Counts) -> (Tone, String) {
    let bad: Vec<String> = Severity::ALL
        .into_iter()
        .rev()
        .filter(|severity| *severity >= Severity::Warning && counts.of(*severity) > 0)
        .map(|severity| format!("{} {}", counts.of(severity), severity.name()))
        .collect();
    let tone = if counts.from(Severity::Error) > 0 { Tone::Bad } else { Tone::Plain };
    let said = if bad.is_empty() { String::new() } else { format!("  {}", bad.join(", ")) };
    (tone, said)
}

pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn remarks(analysis: &Analysis, sources: &Sources) {
    let remark = |count: u64, one: &str, many: &str| {
        if count > 0 {
            say!("{}", counted(count, one, many));
        }
    };
    analysis.notes.iter().for_each(|note| say!("{}", tint(Tone::Bad, note)));
    let headless = if sources.are_syslog { analysis.headless } else { 0 };
    remark(
        analysis.followers,
        "line goes on the one before it, and has no pattern of its own",
        "lines go on those before them, and have no patterns of their own",
    );
    remark(analysis.cut, "line is longer than what is looked at", "lines are longer than what is looked at");
    remark(
        analysis.skipped,
        "entry could not be read, and is left out",
        "entries could not be read, and are left out",
    );
    remark(
        headless,
        "line does not begin as a syslog message does, and is taken whole",
        "lines do not begin as a syslog message does, and are taken whole",
    );
    remark(
        analysis.dropped(),
        "pattern of few lines was forgotten for want of room",
        "patterns of few lines were forgotten for want of room",
    );
    remark(
        analysis.habits.unlooked,
        "time without lines was not searched for what is missing: there are too few lines for so long a time",
        "times without lines were not searched for what is missing: there are too few lines for so long a time",
    );
    remark(
        analysis.habits.uncompared,
        "minute was not compared with the others as a whole: there are too few lines for so long a time",
        "minutes were not compared with the others as a whole: there are too few lines for so long a time",
    );
}

fn show(finding: &Finding, sources: &Sources) {
    let tone = if is_notice(finding.rule) { Tone::Dim } else { Tone::Bad };
    let lines = match finding.lines {
        1 => format!("{} {}", sources.one(), sources.place(finding.first)),
        many => {
            let (first, last) = (sources.place(finding.first), sources.place(finding.last));
            format!("{}, {first} to {last}", sources.counted(many))
        }
    };
    say!("  {}  {}: {lines}", tint(tone, finding.rule.name), finding.rule.means);
    if !finding.rule.speaks_for.is_empty() {
        say!("      {}", tint(Tone::Dim, &format!("speaks for {}", faults(finding.rule).join(", "))));
    }
    say!("      {}", finding.example());
}

/// The faults that may be behind a line, by name.
pub fn faults(rule: &Rule) -> Vec<String> {
    rule.speaks_for.iter().map(|fault| format!("{fault:?}")).collect()
}

pub fn by_lines(groups: &[Group]) -> Vec<&Group> {
    let mut groups: Vec<&Group> = groups.iter().collect();
    groups.sort_by_key(|group| (std::cmp::Reverse(group.count), group.id));
    groups
}

pub fn template(group: &Group) -> String {
    escape(&group.template.to_string(), LONGEST_TEMPLATE)
}

/// A template in a table.
fn shown(group: &Group) -> String {
    let template = template(group);
    if template.is_empty() { tint(Tone::Dim, "(nothing)") } else { template }
}

/// For scripts.
pub fn as_json(analysis: &Analysis, sources: &Sources) -> Result<(), CliError> {
    let view = analysis.view();
    let patterns: Vec<Value> = by_lines(view.groups())
        .into_iter()
        .map(|group| {
            json!({ "id": group.id, "lines": group.count, "first": group.first, "last": group.last,
                "template": template(group), "variables": variables(&group.template),
                "example": analysis.example(group.id), "of": group.of })
        })
        .collect();
    let findings: Vec<Value> = analysis
        .findings()
        .into_iter()
        .map(|finding| {
            json!({ "rule": finding.rule.name, "means": finding.rule.means,
                "kind": format!("{:?}", finding.rule.kind), "bad": !is_notice(finding.rule),
                "severity": format!("{:?}", finding.rule.severity), "speaks_for": faults(finding.rule),
                "lines": finding.lines, "first": finding.first, "last": finding.last,
                "example": finding.example() })
        })
        .collect();
    print_json(
        &json!({ "v": 1, "files": sources.files(), "lines": analysis.lines, "followers": analysis.followers, "bytes": analysis.bytes,
        "cut": analysis.cut, "skipped": analysis.skipped, "forgotten": analysis.dropped(), "notes": analysis.notes,
        "findings": findings, "unusual": odd_things(analysis, &view), "timeline": stretches(analysis), "patterns": patterns }),
    )
}

fn odd_things(analysis: &Analysis, view: &View) -> Value {
    let pattern = |id| view.find(id).map_or(id, |group| group.id);
    let judged = match analysis.habits.span() {
        Span::Enough => "yes",
        Span::Short => "too_short",
        Span::Timeless => "no_times",
    };
    let odd: Vec<Value> = analysis
        .habits
        .odd()
        .into_iter()
        .map(|odd| {
            let said = &odd.statement;
            json!({ "sort": said.sort.name(), "time": odd.time.div_euclid(1_000_000), "line": odd.line,
                "pattern": said.pattern.map(pattern), "decibans": said.decibans,
                "times": odd.times, "says": said.says })
        })
        .collect();
    json!({ "judged": judged, "unlooked": analysis.habits.unlooked, "uncompared": analysis.habits.uncompared, "dropped": analysis.habits.dropped,
        "found": odd })
}

fn stretches(analysis: &Analysis) -> Value {
    let slices = analysis.timeline.slices(STRETCHES);
    let rows: Vec<Value> = slices
        .stretches
        .iter()
        .map(|(from, counts)| {
            let said: Map<String, Value> = Severity::ALL
                .into_iter()
                .filter(|severity| counts.of(*severity) > 0)
                .map(|severity| (severity.name().to_owned(), json!(counts.of(severity))))
                .collect();
            json!({ "from": from, "lines": counts.lines(), "severities": said })
        })
        .collect();
    json!({ "seconds": slices.seconds, "timeless": analysis.timeline.timeless,
        "far": slices.far, "stretches": rows })
}

fn variables(template: &Template) -> Vec<Vec<&'static str>> {
    let names = |values: holdfast_logs::Values| values.iter().map(holdfast_logs::Value::name).collect();
    template.variables().map(names).collect()
}

/// The pattern of each line, as `line,cluster,template`.
pub fn patterns_csv(analysis: &Analysis) {
    let view = analysis.view();
    let mut out = String::with_capacity(2 * CHUNK);
    out.push_str("line,cluster,template\n");
    for (line, id) in analysis.remembered().iter().enumerate() {
        let (id, template) = match view.find(*id) {
            Some(group) => (group.id, template(group)),
            None => (*id, String::new()),
        };
        push_row(&mut out, line + 1, id, &template);
        if out.len() >= CHUNK {
            paint::text(&out);
            out.clear();
        }
        if paint::is_unread() || paint::could_not_say() {
            return;
        }
    }
    paint::text(&out);
}

fn push_row(out: &mut String, line: usize, id: PatternId, template: &str) {
    let written = writeln!(out, "{line},{},\"{}\"", id.0, template.replace('"', "\"\""));
    debug_assert!(written.is_ok(), "a String takes all");
}
