//! Numbers over time: `holdfast metrics show` asks the daemon for those of its VMs; `holdfast metrics analyze` puts any
//! series through the detector that judges those, and needs no daemon.

mod csv;
#[cfg(test)]
mod fuzz;
mod report;
mod show;

use super::paint::{self, Tone, tint};
use super::{CliError, Exit, Place, print_json, wait_for};
use clap::{Args, Subcommand};
use csv::{CsvError, Row, Rows};
use holdfast_core::evidence::series::{Learn, Series, Sight, Verdict};
use holdfast_core::time::Timestamp;
use indicatif::{ProgressBar, ProgressStyle};
use report::Sketch;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Rows between two looks at how far it is.
const STRIDE: u64 = 4_096;
/// What is at least this probable is told as a finding. Nothing acts on it, and a person who asks would rather see five
/// things of which one is real than miss that one.
const TOLD: f64 = 0.2;
/// Findings that are kept: of more, the least certain leave.
const KEPT: usize = 1_000;
/// Bytes of scores that are printed at once.
const PRINTED: usize = 65_536;

/// Numbers over time.
#[derive(Subcommand)]
pub enum MetricsCommand {
    /// Show what is measured of a VM or of this host: all series, or how one was.
    Show(show::ShowArgs),
    /// Tell what is unusual in a series of numbers, from a CSV file.
    Analyze(AnalyzeArgs),
}

/// What to analyze.
#[derive(Args)]
pub struct AnalyzeArgs {
    /// The file: a line for each measurement, `timestamp,value`, oldest first; `-` for standard input.
    file: PathBuf,
    /// Print how anomalous each row is, 0 to 1, as CSV: `timestamp,score`.
    #[arg(long, conflicts_with_all = ["json", "html"])]
    csv: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Also draw it, into this HTML file.
    #[arg(long, value_name = "REPORT")]
    html: Option<PathBuf>,
}

/// One thing that was found, from its first row to its last.
#[derive(Clone, Debug)]
pub struct Found {
    /// When it was first told, as the file writes it.
    written: String,
    /// The same.
    at: Timestamp,
    /// When it began: earlier than it was told.
    from: Timestamp,
    /// The last row on which it held.
    until: Timestamp,
    /// The greatest probability that something was wrong.
    probability: f64,
    /// What was seen then.
    sight: Sight,
    /// The same as a sentence.
    says: String,
}

impl Found {
    /// When it was first told, for people: as the file writes it, unless that is a bare number.
    fn when(&self) -> String {
        let bare = self.written.parse::<f64>().is_ok();
        if bare { paint::utc(seconds(self.at)) } else { self.written.clone() }
    }

    /// How long it held, for people.
    fn lasted(&self) -> String {
        let lasted = self.until.since(self.from);
        if lasted.is_zero() { "one row".into() } else { holdfast_core::time::show(lasted) }
    }
}

/// Runs it.
pub fn metrics(command: &MetricsCommand, place: &Place) -> Result<Exit, CliError> {
    match command {
        MetricsCommand::Show(args) => wait_for(show::show(&place.client()?, args)),
        MetricsCommand::Analyze(args) => analyze(args),
    }
}

fn analyze(args: &AnalyzeArgs) -> Result<Exit, CliError> {
    if let Some(file) = &args.html {
        super::page::is_writable(file).map_err(|source| cannot_write(file, source))?;
    }
    let (from, size) = open(&args.file)?;
    let bar = progress(size, args.csv || args.json);
    let name = name(&args.file);
    let mut analysis = Analysis::new(name.clone());
    let mut printed = String::from(if args.csv { "timestamp,score\n" } else { "" });
    let mut rows = Rows::new(from);
    while let Some(row) = rows.next() {
        let row = row.map_err(|cause| unreadable(&args.file, &cause))?;
        let verdict = analysis.add(&row);
        if args.csv {
            printed += &format!("{},{:.6}\n", row.written, verdict.probability);
            if printed.len() >= PRINTED {
                paint::text(&std::mem::take(&mut printed));
                if paint::is_unread() {
                    return Ok(Exit::Fine);
                }
            }
        }
        if analysis.rows.is_multiple_of(STRIDE) {
            bar.set_position(rows.bytes());
        }
    }
    bar.finish_and_clear();
    analysis.close();
    if let Some(file) = &args.html {
        let rows = analysis.disorder().map_or_else(
            || format!("{} rows", analysis.rows),
            |disorder| format!("{} rows ({disorder})", analysis.rows),
        );
        let page = report::page(&name, &rows, &analysis.sketch, &analysis.found, analysis.left_out);
        std::fs::write(file, page).map_err(|source| cannot_write(file, source))?;
    }
    if args.csv {
        paint::text(&printed);
    } else if args.json {
        print_json(&analysis.document())?;
    } else {
        analysis.show(args.html.as_deref());
    }
    Ok(Exit::Fine)
}

fn cannot_write(file: &Path, source: std::io::Error) -> CliError {
    CliError::Io { what: format!("write {}", holdfast_logs::escape(&file.to_string_lossy(), 200)), source }
}

/// The file, and how long it is if that is known.
fn open(file: &Path) -> Result<(Box<dyn BufRead>, Option<u64>), CliError> {
    if file.as_os_str() == "-" {
        return Ok((Box::new(BufReader::new(std::io::stdin())), None));
    }
    let io = |source| CliError::Io { what: format!("read {}", file.display()), source };
    let opened = File::open(file).map_err(io)?;
    let about = opened.metadata().map_err(io)?;
    Ok((Box::new(BufReader::with_capacity(1 << 16, opened)), about.is_file().then_some(about.len())))
}

fn progress(size: Option<u64>, hidden: bool) -> ProgressBar {
    let Some(size) = size.filter(|_| !hidden) else { return ProgressBar::hidden() };
    let bar = ProgressBar::new(size);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes}  {elapsed} of about {duration}")
    {
        bar.set_style(style);
    }
    bar
}

/// What the series is called in sentences: the name of its file.
fn name(file: &Path) -> String {
    if file.as_os_str() == "-" {
        return "the series".into();
    }
    file.file_stem().map_or_else(|| "the series".into(), |stem| stem.to_string_lossy().into_owned())
}

fn unreadable(file: &Path, cause: &CsvError) -> CliError {
    let what = if file.as_os_str() == "-" { "standard input".into() } else { file.display().to_string() };
    CliError::Said {
        error: format!("cannot read {what} as a series"),
        cause: crate::act::chain(cause),
        hint: "each line is `timestamp,value`, such as `2026-04-01 00:05:00,0.25`; see docs/metrics.md"
            .into(),
    }
}

/// What is known of a series while it is read.
struct Analysis {
    name: String,
    series: Series,
    sketch: Sketch,
    rows: u64,
    missing: u64,
    /// The latest time of a row with a value; rows before it, and other rows at it.
    latest: Option<Timestamp>,
    back: u64,
    repeated: u64,
    first: Option<String>,
    last: String,
    open: Option<Found>,
    found: Vec<Found>,
    left_out: u64,
}

impl Analysis {
    fn new(name: String) -> Self {
        Self {
            name,
            series: Series::new(),
            sketch: Sketch::new(),
            rows: 0,
            missing: 0,
            latest: None,
            back: 0,
            repeated: 0,
            first: None,
            last: String::new(),
            open: None,
            found: Vec::new(),
            left_out: 0,
        }
    }

    fn add(&mut self, row: &Row) -> Verdict {
        self.hear(row);
        let verdict = self.series.observe(row.at, row.value, Learn::Yes);
        self.rows += 1;
        self.missing += u64::from(!row.value.is_finite());
        self.back += u64::from(self.latest.is_some_and(|latest| row.at < latest));
        self.repeated += u64::from(self.latest == Some(row.at));
        if row.value.is_finite() {
            self.latest = self.latest.max(Some(row.at));
        }
        self.first.get_or_insert_with(|| row.written.clone());
        self.last.clone_from(&row.written);
        self.sketch.add(row.at, if row.value.is_finite() { row.value } else { f64::NAN }, verdict.wrong);
        self.follow(row, &verdict);
        verdict
    }

    /// Before a row is looked at, nothing has come since the one before: that may be a finding of its own.
    fn hear(&mut self, row: &Row) {
        let silence = self.series.silence(row.at);
        let Some(sight) = silence.sight.filter(|_| silence.probability >= TOLD) else { return };
        let says = sight.say(&self.name);
        let written = row.written.clone();
        let (from, until, probability) = (sight.since, row.at, silence.probability);
        self.keep(Found { written, at: row.at, from, until, probability, sight, says });
    }

    /// Opens a finding where something is told, follows it while it holds, and closes it.
    fn follow(&mut self, row: &Row, verdict: &Verdict) {
        if verdict.probability >= TOLD
            && let Some(sight) = &verdict.sight
        {
            let now = Found {
                written: row.written.clone(),
                at: row.at,
                from: sight.since,
                until: row.at,
                probability: verdict.probability,
                sight: sight.clone(),
                says: sight.say(&self.name),
            };
            self.open = Some(match self.open.take() {
                None => now,
                Some(begun) if begun.probability >= now.probability => Found { until: row.at, ..begun },
                Some(begun) => Found { written: begun.written, at: begun.at, from: begun.from, ..now },
            });
        } else if verdict.wrong >= TOLD {
            if let Some(open) = &mut self.open {
                open.until = row.at;
            }
        } else {
            self.close();
        }
    }

    /// Ends the open finding.
    fn close(&mut self) {
        if let Some(done) = self.open.take() {
            self.keep(done);
        }
    }

    /// Keeps a finding. Of too many, the least certain leave.
    fn keep(&mut self, done: Found) {
        self.found.push(done);
        if self.found.len() > KEPT {
            let least = |a: &(usize, f64), b: &(usize, f64)| a.1.total_cmp(&b.1);
            let all = self.found.iter().map(|found| found.probability).enumerate();
            if let Some((least, _)) = all.min_by(least) {
                self.found.remove(least);
                self.left_out += 1;
            }
        }
    }

    fn document(&self) -> serde_json::Value {
        let found: Vec<_> = self
            .found
            .iter()
            .map(|found| {
                serde_json::json!({ "at": found.written, "from": seconds(found.from), "until": seconds(found.until),
                    "probability": found.probability, "kind": found.sight.kind.name(), "value": found.sight.value,
                    "usual": found.sight.usual, "says": found.says })
            })
            .collect();
        serde_json::json!({ "v": 1, "name": self.name, "rows": self.rows, "missing": self.missing,
            "back": self.back, "repeated": self.repeated,
            "first": self.first, "last": self.last, "season_s": self.series.season().map(|season| season.as_secs_f64()),
            "findings": found, "left_out": self.left_out })
    }

    /// Which rows are out of order, and what is made of them.
    fn disorder(&self) -> Option<String> {
        let rows = |count: u64, one: &str, many: &str| match count {
            0 => None,
            1 => Some(format!("1 row {one}")),
            count => Some(format!("{count} rows {many}")),
        };
        let back = rows(
            self.back,
            "goes back in time, and is taken for one at the latest time before it",
            "go back in time, and are taken for rows at the latest time before them",
        );
        let repeated = rows(
            self.repeated,
            "repeats a time, and is judged after the one before",
            "repeat a time, and are judged one after the other",
        );
        let said: Vec<String> = back.into_iter().chain(repeated).collect();
        (!said.is_empty()).then(|| said.join("; "))
    }

    fn show(&self, html: Option<&Path>) {
        if !self.found.is_empty() {
            let mut table = paint::table(&["when", "for", "certain", "what"]);
            for found in &self.found {
                let tone = if found.probability >= 0.9 { Tone::Bad } else { Tone::Warm };
                table.add_row([
                    crate::config::tame(&found.when()),
                    found.lasted(),
                    tint(tone, &format!("{:.1} %", found.probability * 100.0)),
                    crate::config::tame(&found.says),
                ]);
            }
            say!("{table}\n");
        }
        let season = self.series.season().map_or_else(
            || "no season".to_owned(),
            |season| format!("it repeats every {}", holdfast_core::time::show(season)),
        );
        let findings = match self.found.len() {
            0 => "nothing unusual".to_owned(),
            1 => "1 finding".to_owned(),
            many => format!("{many} findings"),
        };
        let more = if self.left_out > 0 {
            format!(", {} less certain ones left out", self.left_out)
        } else {
            String::new()
        };
        let missing =
            if self.missing > 0 { format!(", {} without a value", self.missing) } else { String::new() };
        say!("{} rows{missing}, {season}: {findings}{more}", self.rows);
        if let Some(said) = self.disorder() {
            say!("{said}");
        }
        if let Some(file) = html {
            say!("drawn in {}", crate::config::tame(&file.display().to_string()));
        }
    }
}

/// Seconds since 1970.
fn seconds(at: Timestamp) -> f64 {
    at.as_micros() as f64 / 1e6
}
