//! `holdfast logs analyze FILE...`: which kinds of lines a log has, and which of them are known to be bad.
//! With `--train` and `--score`: which windows, counted before, are unusual. Reads each file once, as a stream; needs no daemon and no configuration.

mod analysis;
mod lines;
mod scores;
mod show;
mod sources;
mod stored;
mod table;

use super::{CliError, Exit, Place, wait_for};
use analysis::{Analysis, MOST_REMEMBERED};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use lines::Lines;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Bytes that are read at once.
const BUFFER: usize = 1 << 18;

/// Bytes between two looks at how far it is.
const STRIDE: u64 = 4 << 20;

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
    /// What stands before each message.
    #[arg(long, value_enum, default_value_t = Format::Auto)]
    format: Format,
    /// Print JSON.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print, for each line, its pattern: `line,cluster,template`.
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "patterns")]
    csv: Option<Csv>,
    /// Instead of lines, learn from windows: rows of `id,events` or of `id` and counts.
    #[arg(long, value_name = "CSV", requires = "score", conflicts_with_all = ["files", "format"])]
    train: Option<PathBuf>,
    /// Judge these windows by what was learned: prints `id,score,flag`, or with `--json` the reasons too.
    #[arg(long, value_name = "CSV", requires = "train", conflicts_with_all = ["files", "format"])]
    score: Option<PathBuf>,
}

/// What stands before each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The head of a syslog message where there is one.
    Auto,
    /// Nothing: the whole line is the message.
    Plain,
    /// The head of a syslog message; lines without are counted.
    Syslog,
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
}

impl Sources {
    fn files(&self) -> Vec<&str> {
        self.files.iter().map(|(name, _)| name.as_str()).collect()
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
    let inputs = args.files.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    let bar = progress(args, inputs.iter().map(|input| input.bytes).sum());
    let mut analysis = Analysis::new(args.format, args.csv.is_some());
    let mut sources = Sources { files: Vec::new(), are_syslog: args.format == Format::Syslog };
    for input in inputs {
        let name = input.name.clone();
        sources.files.push((name.clone(), analysis.lines));
        let read = read(input, &mut analysis, &bar);
        if read.is_err() {
            bar.finish_and_clear();
        }
        read.map_err(|cause| cannot_read(&name, cause))?;
        if analysis.is_full() {
            bar.finish_and_clear();
            return Err(too_many());
        }
    }
    bar.finish_and_clear();
    match args.csv {
        Some(Csv::Patterns) => show::patterns_csv(&analysis),
        None if args.json => show::as_json(&analysis, &sources)?,
        None => show::people(&analysis, &sources),
    }
    Ok(Exit::Fine)
}

/// A file that is open.
struct Input {
    name: String,
    /// How long it is, if it says.
    bytes: u64,
    stream: Box<dyn Read>,
}

/// Opens a file, or standard input. A pipe, a device or a folder in place of a file is refused: it may never end.
fn open(path: &Path) -> Result<Input, CliError> {
    let name = holdfast_logs::escape(&path.to_string_lossy(), 200);
    if path == Path::new("-") {
        return Ok(Input { name, bytes: 0, stream: Box::new(std::io::stdin()) });
    }
    let metadata = std::fs::metadata(path).map_err(|cause| cannot_read(&name, cause))?;
    if !metadata.is_file() {
        let cause = if metadata.is_dir() { "it is a folder" } else { "it is no file, and may never end" };
        return Err(CliError::Said {
            error: format!("cannot read `{name}`"),
            cause: cause.into(),
            hint: "name files, or pipe lines in: `COMMAND | holdfast logs analyze -`".into(),
        });
    }
    let file = File::open(path).map_err(|cause| cannot_read(&name, cause))?;
    Ok(Input { name, bytes: metadata.len(), stream: Box::new(file) })
}

fn cannot_read(name: &str, cause: std::io::Error) -> CliError {
    CliError::Said {
        error: format!("cannot read `{name}`"),
        cause: cause.to_string(),
        hint: "name files that you may read; `-` is standard input".into(),
    }
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

/// Reads one input to its end.
fn read(input: Input, analysis: &mut Analysis, bar: &ProgressBar) -> std::io::Result<()> {
    let mut lines = Lines::new(BufReader::with_capacity(BUFFER, input.stream));
    let mut since = 0;
    while !analysis.is_full() {
        let Some(line) = lines.next(|line| analysis.add(line))? else { break };
        analysis.bytes += line.bytes;
        analysis.cut += u64::from(line.cut);
        since += line.bytes;
        if since >= STRIDE {
            bar.inc(since);
            since = 0;
        }
    }
    bar.inc(since);
    Ok(())
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
