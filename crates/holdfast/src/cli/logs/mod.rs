//! `holdfast logs analyze FILE...`: which kinds of lines a log has, and which of them are known to be bad.
//! With `--train` and `--score`: which windows, counted before, are unusual. Reads each file once, as a stream; needs no daemon and no configuration.

mod analysis;
#[cfg(test)]
mod fuzz;
mod habits;
mod input;
mod joined;
mod lines;
mod report;
mod scores;
mod show;
mod signs;
mod sources;
mod stored;
pub use stored::moment;
mod table;
mod timeline;
mod wide;

use super::{CliError, Exit, Place, wait_for};
use analysis::{Analysis, MOST_REMEMBERED};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use input::Form;
use std::path::{Path, PathBuf};

/// What can be done with logs.
#[derive(Subcommand)]
pub enum LogsCommand {
    /// Find the patterns of any log, and the lines known to be bad.
    Analyze(AnalyzeArgs),
    /// Show where logs come from, and how each source is.
    Sources(sources::SourcesArgs),
    /// Show what a VM or this host has logged: the same as `holdfast logs VM`, also for a VM named like a command.
    Show(stored::ShowArgs),
    /// Show the kinds of lines that a VM or this host has logged, with how often and when.
    Patterns(stored::PatternsArgs),
}

/// One of the commands, or whose logs to show.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct LogsArgs {
    #[command(subcommand)]
    command: Option<LogsCommand>,
    #[command(flatten)]
    show: stored::ShowArgs,
}

/// Which logs, and how they are shown.
#[derive(Args)]
pub struct AnalyzeArgs {
    /// Files, read one after the other; `-` is standard input.
    #[arg(required_unless_present = "score", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the files are.
    #[arg(long, value_enum, default_value_t = Format::Auto)]
    format: Format,
    /// Print JSON.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print, for each line, its pattern: `line,cluster,template`.
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "patterns")]
    csv: Option<Csv>,
    /// Also write it all into this HTML file: a page that needs nothing else.
    #[arg(long, value_name = "REPORT", conflicts_with_all = ["csv", "score"])]
    html: Option<PathBuf>,
    /// Look at each line by itself, also where it goes on the one before it, as in a stack trace. `--csv` always does.
    #[arg(long, conflicts_with = "score")]
    single_lines: bool,
    /// Instead of lines, learn from windows: rows of `id,events` or of `id` and counts.
    #[arg(long, value_name = "CSV", requires = "score", conflicts_with_all = ["files", "format"])]
    train: Option<PathBuf>,
    /// Judge these windows by what was learned: prints `id,score,flag`, or with `--json` the reasons too.
    #[arg(long, value_name = "CSV", requires = "train", conflicts_with_all = ["files", "format"])]
    score: Option<PathBuf>,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Found by its first bytes; of lines, the head of a syslog message is no part of the pattern, and JSON is read.
    Auto,
    /// Lines, each a message as it is.
    Plain,
    /// Lines with the head of a syslog message; those without are counted.
    Syslog,
    /// What `journalctl -o json` prints.
    JournalJson,
    /// A JSON object on each line, as programs write their own logs, or Docker a container's.
    Json,
    /// A Windows event log.
    Evtx,
    /// What `wevtutil qe LOG /f:xml` prints.
    EventXml,
    /// OpenTelemetry: requests in JSON, one a line, or one in protobuf.
    Otlp,
}

/// What is printed as CSV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Csv {
    /// The pattern of each line.
    Patterns,
}

/// Which files were read, and which lines are whose.
pub struct Sources {
    /// Name, and lines before it.
    files: Vec<(String, u64)>,
    are_syslog: bool,
    /// All are read line by line.
    are_lines: bool,
}

impl Sources {
    fn files(&self) -> Vec<&str> {
        self.files.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// What is counted: lines, or records.
    fn one(&self) -> &'static str {
        if self.are_lines { "line" } else { "record" }
    }

    /// So many of them.
    fn counted(&self, count: u64) -> String {
        format!("{count} {}{}", self.one(), if count == 1 { "" } else { "s" })
    }

    /// A line's number; of several files with its file.
    fn place(&self, line: u64) -> String {
        match self.files.iter().rev().find(|(_, before)| line > *before) {
            Some((name, before)) if self.files.len() > 1 => format!("{name}:{}", line - before),
            Some(_) | None => line.to_string(),
        }
    }
}

/// Carries out one of them.
pub fn logs(args: &LogsArgs, place: &Place) -> Result<Exit, CliError> {
    match &args.command {
        Some(LogsCommand::Analyze(args)) => analyze(args),
        Some(LogsCommand::Sources(args)) => wait_for(sources::sources(&place.client()?, args)),
        Some(LogsCommand::Show(args)) => wait_for(stored::show(&place.client()?, args)),
        Some(LogsCommand::Patterns(args)) => wait_for(stored::patterns(&place.client()?, args)),
        None => wait_for(stored::show(&place.client()?, &args.show)),
    }
}

fn analyze(args: &AnalyzeArgs) -> Result<Exit, CliError> {
    if let (Some(train), Some(score)) = (&args.train, &args.score) {
        let form = if args.json { scores::Form::Json } else { scores::Form::Csv };
        return scores::score(train, score, form);
    }
    if let Some(report) = &args.html {
        refuse_own(report, &args.files)?;
        super::page::is_writable(report).map_err(|source| cannot_write(report, source))?;
    }
    let inputs = args.files.iter().map(|path| input::open(path)).collect::<Result<Vec<_>, _>>()?;
    let bar = progress(args, inputs.iter().map(|input| input.bytes).sum());
    let mut analysis = Analysis::new(args.csv.is_some(), !args.single_lines && args.csv.is_none());
    let mut sources =
        Sources { files: Vec::new(), are_syslog: args.format == Format::Syslog, are_lines: true };
    for input in inputs {
        sources.files.push((input.name.clone(), analysis.lines));
        let read = input::read(input, args.format, &mut analysis, &bar);
        if read.is_err() || analysis.is_full() {
            bar.finish_and_clear();
        }
        sources.are_lines &= matches!(read?, Form::Lines | Form::Json);
        if analysis.is_full() {
            return Err(too_many());
        }
    }
    analysis.end();
    bar.finish_and_clear();
    if let Some(report) = &args.html {
        let page = report::page(&analysis, &sources);
        std::fs::write(report, page).map_err(|source| cannot_write(report, source))?;
    }
    match args.csv {
        Some(Csv::Patterns) => show::patterns_csv(&analysis),
        None if args.json => show::as_json(&analysis, &sources)?,
        None => show::people(&analysis, &sources, args.html.as_deref()),
    }
    Ok(Exit::Fine)
}

fn cannot_write(report: &Path, source: std::io::Error) -> CliError {
    CliError::Io { what: format!("write {}", holdfast_logs::escape(&report.to_string_lossy(), 200)), source }
}

/// A report must not take the place of a log that it is about.
fn refuse_own(report: &Path, files: &[PathBuf]) -> Result<(), CliError> {
    let Ok(own) = report.canonicalize() else { return Ok(()) };
    if files.iter().all(|file| file.canonicalize().ok().as_ref() != Some(&own)) {
        return Ok(());
    }
    Err(CliError::Said {
        error: format!(
            "cannot write the report to `{}`",
            holdfast_logs::escape(&report.to_string_lossy(), 200)
        ),
        cause: "it is one of the files that are to be read".into(),
        hint: "name another file: `--html report.html`".into(),
    })
}

fn too_many() -> CliError {
    CliError::Said {
        error: "cannot print the pattern of each line".into(),
        cause: format!(
            "there are more than {MOST_REMEMBERED} lines, and each takes memory until the last is read"
        ),
        hint: "leave `--csv` out for patterns with counts, or analyze the log in parts".into(),
    }
}

fn progress(args: &AnalyzeArgs, bytes: u64) -> ProgressBar {
    let has_pipe = args.files.iter().any(|path| path == Path::new("-"));
    let (bar, form) = match () {
        () if args.json || args.csv.is_some() => return ProgressBar::hidden(),
        () if has_pipe => (ProgressBar::no_length(), "{bytes} read, {bytes_per_sec}  {elapsed}"),
        () => (
            ProgressBar::new(bytes),
            "{bar:40} {bytes}/{total_bytes}, {bytes_per_sec}  {elapsed} of about {duration}",
        ),
    };
    if let Ok(style) = ProgressStyle::with_template(form) {
        bar.set_style(style);
    }
    bar
}
