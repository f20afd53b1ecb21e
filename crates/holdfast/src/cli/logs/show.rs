//! An analysis on screen, as JSON, as CSV. Whatever a stranger wrote is escaped.

use super::super::paint::{self, Tone, tint};
use super::super::{CliError, print_json};
use super::Sources;
use super::analysis::{Analysis, Finding, is_notice};
use holdfast_logs::{Group, PatternId, Rule, Template, escape};
use serde_json::{Value, json};
use std::fmt::Write;

/// Patterns that are shown on screen; the rest is counted.
const SHOWN: usize = 40;

/// Characters of a template.
const LONGEST_TEMPLATE: usize = 4_096;

/// Bytes that are printed at once.
const CHUNK: usize = 1 << 16;

/// For people.
pub fn people(analysis: &Analysis, sources: &Sources) {
    let view = analysis.view();
    let groups = by_lines(view.groups());
    let findings = analysis.findings();
    let bad = findings.iter().filter(|finding| !is_notice(finding.rule)).count();
    let verdict = match bad {
        0 => tint(Tone::Good, "nothing known to be bad"),
        _ => tint(
            Tone::Bad,
            &format!("{} known to be bad", counted(bad as u64, "kind of line", "kinds of lines")),
        ),
    };
    let patterns = counted(groups.len() as u64, "pattern", "patterns");
    say!("{}, {patterns}: {verdict}", counted(analysis.lines, "line", "lines"));
    remarks(analysis, sources);
    if !findings.is_empty() {
        say!("\n{}", tint(Tone::Bold, "known lines, the worst first"));
        findings.iter().for_each(|finding| show(finding, sources));
    }
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
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn remarks(analysis: &Analysis, sources: &Sources) {
    let remark = |count: u64, one: &str, many: &str| {
        if count > 0 {
            say!("{}", counted(count, one, many));
        }
    };
    let headless = if sources.are_syslog { analysis.headless } else { 0 };
    remark(analysis.cut, "line is longer than what is looked at", "lines are longer than what is looked at");
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
}

fn show(finding: &Finding, sources: &Sources) {
    let tone = if is_notice(finding.rule) { Tone::Dim } else { Tone::Bad };
    let lines = match finding.lines {
        1 => format!("line {}", sources.place(finding.first)),
        many => {
            format!("{many} lines, {} to {}", sources.place(finding.first), sources.place(finding.last))
        }
    };
    say!("  {}  {}: {lines}", tint(tone, finding.rule.name), finding.rule.means);
    if !finding.rule.speaks_for.is_empty() {
        say!("      {}", tint(Tone::Dim, &format!("speaks for {}", faults(finding.rule).join(", "))));
    }
    say!("      {}", finding.example);
}

/// The faults that may be behind a line, by name.
fn faults(rule: &Rule) -> Vec<String> {
    rule.speaks_for.iter().map(|fault| format!("{fault:?}")).collect()
}

fn by_lines(groups: &[Group]) -> Vec<&Group> {
    let mut groups: Vec<&Group> = groups.iter().collect();
    groups.sort_by_key(|group| (std::cmp::Reverse(group.count), group.id));
    groups
}

fn template(group: &Group) -> String {
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
                "example": analysis.example(group.id) })
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
                "example": finding.example })
        })
        .collect();
    print_json(&json!({ "v": 1, "files": sources.files(), "lines": analysis.lines, "bytes": analysis.bytes,
        "cut": analysis.cut, "forgotten": analysis.dropped(), "findings": findings, "patterns": patterns }))
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
