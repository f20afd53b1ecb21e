//! The drawn report: the series, how sure the detector was, and what it found, in one HTML page that needs nothing
//! else. However long the series, the drawing has a bounded number of columns.

use super::Found;
use crate::cli::page::{self, escape};
use crate::cli::paint;
use holdfast_core::time::Timestamp;
use std::fmt::Write;

/// Columns of a drawing before neighbours are merged.
const MOST: usize = 2_048;
/// Size of the drawing, in its own units: width, height of the curve, of the strip below it, and the gap between.
const WIDE: f64 = 1_200.0;
const CURVE: f64 = 300.0;
const STRIP: f64 = 60.0;
const GAP: f64 = 14.0;
/// Room for the numbers at the left.
const LEFT: f64 = 70.0;

/// Some rows, as one column of the drawing.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Column {
    from: Timestamp,
    low: f64,
    high: f64,
    wrong: f64,
}

/// A series as it will be drawn: least and greatest value of each column.
#[derive(Debug)]
pub struct Sketch {
    columns: Vec<Column>,
    /// Rows in a column.
    rows: u64,
    /// Rows in the last one.
    filled: u64,
    until: Timestamp,
}

impl Sketch {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self { columns: Vec::new(), rows: 1, filled: 1, until: Timestamp::ZERO }
    }

    /// Adds a row; its value may be missing.
    pub fn add(&mut self, at: Timestamp, value: f64, wrong: f64) {
        let at = at.max(self.until); // time that goes back stands still
        self.until = at;
        let row = Column { from: at, low: value, high: value, wrong };
        match self.columns.last_mut() {
            Some(last) if self.filled < self.rows => {
                *last = joined(*last, row);
                self.filled += 1;
            }
            _ => {
                if self.columns.len() == MOST {
                    self.columns =
                        self.columns.chunks(2).map(|two| joined(two[0], two[two.len() - 1])).collect();
                    self.rows *= 2;
                }
                self.columns.push(row);
                self.filled = 1;
            }
        }
    }

    /// From where to where the time goes.
    fn span(&self) -> (f64, f64) {
        let from = self.columns.first().map_or(0.0, |column| seconds(column.from));
        (from, seconds(self.until).max(from + 1.0))
    }

    /// The least and the greatest value.
    fn range(&self) -> (f64, f64) {
        let low = self.columns.iter().map(|column| column.low).fold(f64::INFINITY, f64::min);
        let high = self.columns.iter().map(|column| column.high).fold(f64::NEG_INFINITY, f64::max);
        if low.is_finite() && high.is_finite() { (low, high) } else { (0.0, 0.0) }
    }
}

/// Two columns as one: `min` and `max` pass over what is missing.
fn joined(a: Column, b: Column) -> Column {
    Column { from: a.from, low: a.low.min(b.low), high: a.high.max(b.high), wrong: a.wrong.max(b.wrong) }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_micros() as f64 / 1e6
}

/// The page.
pub fn page(name: &str, rows: &str, sketch: &Sketch, found: &[Found], left_out: u64) -> String {
    let (from, until) = sketch.span();
    let body = format!(
        "<p>{rows}, {} to {} UTC. {}</p>\n{}{}",
        paint::utc(from),
        paint::utc(until),
        counted(found.len(), left_out),
        drawing(sketch, found),
        table(found)
    );
    page::whole(name, STYLE, &body)
}

fn counted(found: usize, left_out: u64) -> String {
    match (found, left_out) {
        (0, _) => "Nothing unusual was found.".to_owned(),
        (1, 0) => "One finding.".to_owned(),
        (n, 0) => format!("{n} findings."),
        (n, more) => format!("The {n} most certain findings of {}.", n as u64 + more),
    }
}

fn drawing(sketch: &Sketch, found: &[Found]) -> String {
    let (from, until) = sketch.span();
    let (low, high) = sketch.range();
    let x = |at: f64| LEFT + (at - from) / (until - from) * (WIDE - LEFT);
    // halves first: the range of two finite numbers may not be finite
    let spread = (high / 2.0 - low / 2.0).max(f64::MIN_POSITIVE);
    let y = |value: f64| CURVE - ((value / 2.0 - low / 2.0) / spread).clamp(0.0, 1.0) * (CURVE - 10.0);
    let (top, bottom) = (CURVE + GAP, CURVE + GAP + STRIP);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDE} {}\" role=\"img\" aria-label=\"the series, and how sure the detector was\">\n",
        bottom + 22.0
    );
    for item in found {
        let (a, b) = (x(seconds(item.from)), x(seconds(item.until)));
        let _ = writeln!(
            svg,
            "<rect class=\"found\" x=\"{a:.1}\" y=\"0\" width=\"{:.1}\" height=\"{bottom}\"><title>{}</title></rect>",
            (b - a).max(2.0),
            escape(&item.says)
        );
    }
    let (mut curve, mut strip, mut pen) = (String::new(), String::new(), 'M');
    for column in &sketch.columns {
        let at = x(seconds(column.from));
        let wrong = bottom - column.wrong.clamp(0.0, 1.0) * STRIP;
        let _ = write!(strip, "M{at:.1} {bottom}V{wrong:.1}");
        if column.low.is_finite() {
            let _ = write!(curve, "{pen}{at:.1} {:.1}V{:.1}", y(column.low), y(column.high));
        }
        pen = if column.low.is_finite() { 'L' } else { 'M' };
    }
    let _ = writeln!(svg, "<path class=\"curve\" d=\"{curve}\"/>\n<path class=\"wrong\" d=\"{strip}\"/>");
    for (text, at) in
        [(number(high), 12.0), (number(low), CURVE), ("certain".into(), top + 10.0), ("0".into(), bottom)]
    {
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{at}\" text-anchor=\"end\">{text}</text>", LEFT - 8.0);
    }
    for (at, anchor) in [(from, "start"), ((from + until) / 2.0, "middle"), (until, "end")] {
        let (x, y, date) = (x(at), bottom + 18.0, paint::utc(at));
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{date}</text>");
    }
    svg + "</svg>\n"
}

fn table(found: &[Found]) -> String {
    if found.is_empty() {
        return String::new();
    }
    let mut table = "<table>\n<tr><th>when</th><th>for</th><th>certain</th><th>what</th></tr>\n".to_owned();
    for item in found {
        let _ = writeln!(
            table,
            "<tr><td>{}</td><td>{}</td><td>{:.1} %</td><td>{}</td></tr>",
            escape(&item.when()),
            item.lasted(),
            item.probability * 100.0,
            escape(&item.says)
        );
    }
    table + "</table>\n"
}

/// A number as short as it can be read.
fn number(value: f64) -> String {
    if value != 0.0 && !(1e-3..1e7).contains(&value.abs()) {
        format!("{value:.2e}")
    } else {
        format!("{value:.5}").trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// Colours for light and for dark.
const STYLE: &str = "
:root { --curve: #1f5fa8; --wrong: #b3261e; --found: #b3261e22; }
@media (prefers-color-scheme: dark) { :root { --curve: #7db4f0; --wrong: #ff8a80; --found: #ff8a8033; } }
.curve { fill: none; stroke: var(--curve); stroke-width: 1; }
.wrong { fill: none; stroke: var(--wrong); stroke-width: 1.2; }
.found { fill: var(--found); }
td:nth-child(-n+3) { white-space: nowrap; font-variant-numeric: tabular-nums; }
";
