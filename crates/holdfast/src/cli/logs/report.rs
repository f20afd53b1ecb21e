//! An analysis as one HTML page: what is known to be bad, when it was, and which patterns there are. All that came from a
//! log is escaped.

use super::super::page::{self, escape};
use super::super::paint;
use super::Sources;
use super::analysis::{Analysis, Finding, is_notice};
use super::habits::Odd;
use super::show::{again, by_lines, counted, far, faults, template, time, verdict};
use super::timeline::Slices;
use holdfast_logs::{Group, Severity};
use std::fmt::Write;

/// Patterns that are listed.
const MOST_PATTERNS: usize = 1_000;

/// Unusual things that are listed.
const MOST_ODD: usize = 200;

/// Columns of the drawing.
const COLUMNS: usize = 240;

/// Size of the drawing, in its own units, and the room for numbers at its left and dates below.
const WIDE: f64 = 1_200.0;
const HIGH: f64 = 180.0;
const LEFT: f64 = 70.0;
const BELOW: f64 = 22.0;

/// Colours of the bars: ordinary lines, warnings, errors and worse.
const STYLE: &str = "
:root { --usual: #1f5fa8; --warning: #b26a00; --error: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --usual: #7db4f0; --warning: #ffb74d; --error: #ff8a80; } }
h2 { font-size: 1.1rem; margin-top: 2rem; }
.usual { fill: var(--usual); } .warning { fill: var(--warning); } .error { fill: var(--error); }
.bad { color: var(--error); }
code { overflow-wrap: anywhere; white-space: pre-wrap; }
.n { white-space: nowrap; font-variant-numeric: tabular-nums; }
";

/// The page.
pub fn page(analysis: &Analysis, sources: &Sources) -> String {
    let view = analysis.view();
    let groups = by_lines(view.groups());
    let findings = analysis.findings();
    let mut body = format!("<p>{}</p>\n", summary(analysis, sources, groups.len(), &findings));
    for note in &analysis.notes {
        let _ = writeln!(body, "<p class=\"bad\">{}.</p>", escape(note));
    }
    let odd = analysis.habits.odd();
    let slices = analysis.timeline.slices(COLUMNS);
    if let Some(far) = far(&slices, sources) {
        let _ = writeln!(body, "<p>{}.</p>", escape(&far));
    }
    if !slices.stretches.is_empty() {
        body += &drawing(&slices, &marks(&findings, &odd));
    }
    if !findings.is_empty() {
        body += "<h2>Known lines, the worst first</h2>\n";
        body += &known(&findings, sources);
    }
    if !odd.is_empty() {
        body += "<h2>Unusual, the most surprising first</h2>\n";
        body += &unusual(&odd, sources);
    }
    if !groups.is_empty() {
        body += "<h2>Patterns, the most lines first</h2>\n";
        body += &patterns(&groups, analysis, sources);
    }
    page::whole(&sources.files().join(", "), STYLE, &body)
}

fn summary(analysis: &Analysis, sources: &Sources, patterns: usize, findings: &[&Finding]) -> String {
    let bad = findings.iter().filter(|finding| !is_notice(finding.rule)).count();
    let mut text = format!(
        "{}, {}: {}.",
        sources.counted(analysis.lines),
        counted(patterns as u64, "pattern", "patterns"),
        verdict(bad, analysis)
    );
    for (count, what) in [
        (analysis.skipped, "could not be read, and are left out"),
        (analysis.cut, "are longer than what is looked at"),
        (analysis.dropped(), "patterns of few lines were forgotten for want of room"),
        (analysis.habits.unlooked, "times without lines were not searched for what is missing"),
        (analysis.habits.uncompared, "minutes were not compared with the others as a whole"),
    ] {
        if count > 0 {
            let _ = write!(text, " {count} {what}.");
        }
    }
    text
}

/// Bars over time: errors at the bottom, warnings upon them, then all others; and a mark where something known began.
fn drawing(slices: &Slices, marks: &[(i64, &str, &str)]) -> String {
    let from = slices.stretches.first().map_or(0, |(at, _)| *at);
    let until = slices.stretches.last().map_or(1, |(at, _)| at.saturating_add(slices.seconds));
    let span = (until - from).max(1) as f64;
    let x = |at: i64| LEFT + (at - from) as f64 / span * (WIDE - LEFT);
    let most = slices.most().max(1);
    let wide = ((WIDE - LEFT) * slices.seconds as f64 / span).max(1.5);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDE} {}\" role=\"img\" aria-label=\"lines over time\">\n",
        HIGH + BELOW
    );
    for (at, counts) in &slices.stretches {
        let errors = counts.from(Severity::Error);
        let warnings = counts.from(Severity::Warning);
        let mut top = HIGH;
        for (class, lines) in
            [("error", errors), ("warning", warnings - errors), ("usual", counts.lines() - warnings)]
        {
            if lines > 0 {
                let high = (HIGH - 12.0) * lines as f64 / most as f64;
                top -= high;
                let _ = write!(
                    svg,
                    "<rect class=\"{class}\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{high:.1}\">",
                    x(*at),
                    (wide - 0.5).max(1.0)
                );
                let _ = writeln!(svg, "<title>{}: {lines}</title></rect>", time(*at, slices.seconds));
            }
        }
    }
    for (at, sign, name) in marks.iter().filter(|(at, ..)| (from..=until).contains(at)) {
        let _ = writeln!(
            svg,
            "<text class=\"bad\" x=\"{:.1}\" y=\"10\">{sign}<title>{}</title></text>",
            x(*at) - 4.0,
            escape(name)
        );
    }
    let _ = writeln!(svg, "<text x=\"{}\" y=\"20\" text-anchor=\"end\">{most}</text>", LEFT - 8.0);
    for (at, anchor) in [(from, "start"), (from + (until - from) / 2, "middle"), (until, "end")] {
        let (x, y) = (x(at), HIGH + 18.0);
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{}</text>",
            paint::utc(at as f64)
        );
    }
    svg + "</svg>\n<p>Times are UTC, if the log names its zone. Red: errors and worse; orange: warnings; ▾: a known line for the first time; ▿: something unusual.</p>\n"
}

/// What is marked in the drawing: when, how, and what it is.
fn marks<'a>(findings: &[&'a Finding], odd: &[&Odd]) -> Vec<(i64, &'static str, &'a str)> {
    let known = findings.iter().filter(|finding| !is_notice(finding.rule));
    let known =
        known.filter_map(|finding| Some((finding.time?.div_euclid(1_000_000), "▾", finding.rule.name)));
    let odd = odd.iter().map(|odd| (odd.time.div_euclid(1_000_000), "▿", odd.statement.sort.name()));
    known.chain(odd.take(MOST_ODD)).collect()
}

fn unusual(odd: &[&Odd], sources: &Sources) -> String {
    let mut table =
        "<table>\n<tr><th>time</th><th>what</th><th>dB</th><th>noticed after</th><th>why</th></tr>\n"
            .to_owned();
    for odd in odd.iter().take(MOST_ODD) {
        let _ = writeln!(
            table,
            "<tr><td class=\"n\">{}</td><td class=\"n bad\">{}{}</td><td class=\"n\">{:.0}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            time(odd.time.div_euclid(1_000_000), 1),
            odd.statement.sort.name(),
            again(odd.times),
            odd.statement.decibans,
            escape(&sources.place(odd.line)),
            escape(&odd.statement.says)
        );
    }
    table += "</table>\n";
    if odd.len() > MOST_ODD {
        let _ = writeln!(table, "<p>And {} more: <code>--json</code> has all.</p>", odd.len() - MOST_ODD);
    }
    table
}

fn known(findings: &[&Finding], sources: &Sources) -> String {
    let mut table = "<table>\n<tr><th>rule</th><th>lines</th><th>what it means</th></tr>\n".to_owned();
    for finding in findings {
        let class = if is_notice(finding.rule) { "n" } else { "n bad" };
        let _ = write!(
            table,
            "<tr><td class=\"{class}\">{}</td><td class=\"n\">{}</td><td>{}",
            escape(finding.rule.name),
            finding.lines,
            escape(finding.rule.means)
        );
        if !finding.rule.speaks_for.is_empty() {
            let _ = write!(table, "; speaks for {}", escape(&faults(finding.rule).join(", ")));
        }
        for (line, example) in &finding.examples {
            let _ = write!(
                table,
                "<br><span class=\"n\">{}</span> <code>{}</code>",
                escape(&sources.place(*line)),
                escape(example)
            );
        }
        table += "</td></tr>\n";
    }
    table + "</table>\n"
}

fn patterns(groups: &[&Group], analysis: &Analysis, sources: &Sources) -> String {
    let mut table =
        "<table>\n<tr><th>lines</th><th>first</th><th>last</th><th>pattern</th></tr>\n".to_owned();
    for group in groups.iter().take(MOST_PATTERNS) {
        let _ = writeln!(
            table,
            "<tr><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td><code title=\"{}\">{}</code></td></tr>",
            group.count,
            escape(&sources.place(group.first)),
            escape(&sources.place(group.last)),
            escape(analysis.example(group.id)),
            escape(&template(group))
        );
    }
    table += "</table>\n";
    if groups.len() > MOST_PATTERNS {
        let _ =
            writeln!(table, "<p>And {} more: <code>--json</code> has all.</p>", groups.len() - MOST_PATTERNS);
    }
    table
}
