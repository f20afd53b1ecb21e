//! One figure: what was measured, what it must be, how loaded the machine was; as a line and as JSON.

use serde_json::{Value, json};

/// What a value is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Millis,
    Percent,
    Times,
    Mebibytes,
    Count,
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Millis => "ms",
            Self::Percent => "%",
            Self::Times => "x",
            Self::Mebibytes => "MiB",
            Self::Count => "",
        }
    }

    fn show(self, value: f64) -> String {
        let digits = match self {
            Self::Seconds | Self::Times | Self::Percent => 2,
            Self::Millis | Self::Mebibytes => 1,
            Self::Count => 0,
        };
        let space = if self.name().is_empty() { "" } else { " " };
        format!("{value:.digits$}{space}{}", self.name())
    }
}

/// What the issue asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Must {
    /// Nothing: shown for what it explains.
    Shown,
    AtMost(f64),
    AtLeast(f64),
}

/// The processes that wanted to run, over the last minute: the least and the most while a figure was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    pub least: f64,
    pub most: f64,
}

impl Load {
    /// Now.
    pub fn now() -> Self {
        let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
        Self { least: load, most: load }
    }

    /// Takes in another look.
    pub fn look_again(&mut self) {
        let now = Self::now();
        *self = Self { least: self.least.min(now.least), most: self.most.max(now.most) };
    }
}

/// One line of the result.
#[derive(Clone, Debug)]
pub struct Row {
    figure: &'static str,
    what: String,
    unit: Unit,
    values: Vec<f64>,
    must: Must,
    /// Something that makes it not met whatever the value is.
    wrong: Option<String>,
    note: String,
    more: Value,
}

impl Row {
    /// A figure; its median is what counts.
    pub fn new(figure: &'static str, what: impl Into<String>, unit: Unit, values: Vec<f64>) -> Self {
        let (must, note) = (Must::Shown, String::new());
        Self { figure, what: what.into(), unit, values, must, wrong: None, note, more: Value::Null }
    }

    pub fn must(mut self, must: Must) -> Self {
        self.must = must;
        self
    }

    /// Said beside the line.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Not met, whatever the value is, if there is a reason.
    pub fn unless(mut self, wrong: Option<String>) -> Self {
        self.wrong = wrong;
        self
    }

    /// Kept in the JSON only.
    pub fn with(mut self, more: Value) -> Self {
        self.more = more;
        self
    }

    /// `None`: nothing is asked.
    pub fn met(&self) -> Option<bool> {
        let met = match self.must {
            Must::Shown => return self.wrong.as_ref().map(|_| false),
            Must::AtMost(most) => median(&self.values).is_some_and(|value| value <= most),
            Must::AtLeast(least) => median(&self.values).is_some_and(|value| value >= least),
        };
        Some(met && self.wrong.is_none())
    }

    fn told(&self) -> String {
        let notes = self.wrong.iter().chain(Some(&self.note).filter(|note| !note.is_empty()));
        notes.cloned().collect::<Vec<_>>().join("; ")
    }

    fn verdict(&self) -> &'static str {
        match self.met() {
            None => "",
            Some(true) => "met",
            Some(false) => "NOT MET",
        }
    }

    /// The line for people.
    pub fn line(&self, load: Load) -> String {
        let shown = |value: Option<f64>| value.map_or("-".into(), |value| self.unit.show(value));
        let (least, most) = ends(&self.values);
        let several = self.values.len() > 1;
        let must = match self.must {
            Must::Shown => String::new(),
            Must::AtMost(most) => format!("<= {}", self.unit.show(most)),
            Must::AtLeast(least) => format!(">= {}", self.unit.show(least)),
        };
        cells(
            [
                self.figure,
                &self.what,
                &shown(median(&self.values)),
                &shown(least.filter(|_| several)),
                &shown(most.filter(|_| several)),
                &self.values.len().to_string(),
                &must,
                self.verdict(),
                &format!("{:.1}-{:.1}", load.least, load.most),
            ],
            &self.told(),
        )
    }

    /// The same for programs.
    pub fn json(&self, load: Load) -> Value {
        let (least, most) = ends(&self.values);
        let must = match self.must {
            Must::Shown => Value::Null,
            Must::AtMost(most) => json!({ "at_most": most }),
            Must::AtLeast(least) => json!({ "at_least": least }),
        };
        json!({ "figure": self.figure, "what": self.what, "unit": self.unit.name(), "n": self.values.len(),
            "median": median(&self.values), "min": least, "max": most, "values": self.values, "must": must,
            "met": self.met(), "note": self.told(), "load": [load.least, load.most], "more": self.more })
    }
}

/// The line above all others.
pub fn heading() -> String {
    cells(["figure", "what", "median", "min", "max", "n", "must", "", "load"], "")
}

fn cells([figure, what, median, min, max, n, must, met, load]: [&str; 9], note: &str) -> String {
    let line = format!(
        "{figure:<12} {what:<52} {median:>11} {min:>11} {max:>11} {n:>4}  {must:<13} {met:<7}  {load:<9}  {note}"
    );
    line.trim_end().to_owned()
}

/// The middle one, or the mean of the middle two.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    let upper = sorted.get(half)?;
    Some(if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[half - 1], *upper) } else { *upper })
}

fn ends(values: &[f64]) -> (Option<f64>, Option<f64>) {
    let least = values.iter().copied().min_by(f64::total_cmp);
    (least, values.iter().copied().max_by(f64::total_cmp))
}

/// How often each word comes, most often first, as in `AppDown 4, none 1`.
pub fn tally<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for word in words {
        *counts.entry(word).or_insert(0_u32) += 1;
    }
    let mut counts: Vec<(&str, u32)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.iter().map(|(word, count)| format!("{word} {count}")).collect::<Vec<_>>().join(", ")
}
