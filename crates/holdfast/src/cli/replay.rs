//! `holdfast replay FILE`: the same inputs through the same engine must give the same actions, byte for byte;
//! `--with other.toml` shows what another policy would have done.

use super::paint::{Tone, tint};
use super::{CliError, Exit, Place, print_json};
use crate::config::Config;
use crate::disk::Folder;
use crate::journal::Entry;
use crate::journal::reader::{Item, Reader};
use crate::state::JOURNAL;
use clap::Args;
use holdfast_core::action::Action;
use holdfast_core::engine::Engine;
use holdfast_core::input::Input;
use holdfast_core::policy::Policies;
use holdfast_core::time::Timestamp;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Differences that are shown; the rest is counted.
const SHOWN: usize = 40;

/// What to replay.
#[derive(Args)]
pub struct ReplayArgs {
    /// A segment of a journal (`STATE/journal/*.hfj`), a journal, or a state folder; that of the daemon if
    /// none is named.
    file: Option<PathBuf>,
    /// Decide with the policies of this configuration instead.
    #[arg(long, value_name = "FILE")]
    with: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    v: u32,
    segments: u64,
    records: u64,
    actions: u64,
    same: u64,
    different: u64,
    /// Records whose inputs could not be read.
    troubles: Vec<String>,
    differences: Vec<Difference>,
}

/// One step that came out otherwise.
#[derive(Debug, Serialize)]
struct Difference {
    record: u64,
    at: Timestamp,
    recorded: Vec<String>,
    replayed: Vec<String>,
}

/// Replays. Exit code 1 if the same policy gave other actions, or the journal is damaged.
pub fn replay(args: &ReplayArgs, place: &Place) -> Result<Exit, CliError> {
    let policies = args.with.as_deref().map(Config::load).transpose()?.map(|loaded| loaded.config.policies());
    let path = match &args.file {
        Some(file) => file.clone(),
        None => place.state_folder()?,
    };
    let outcome = run(reader(&path)?, policies.as_ref());
    if outcome.segments == 0 && outcome.troubles.is_empty() {
        return Err(CliError::Said {
            error: format!("there is no journal in {}", crate::config::quote_path(&path)),
            cause: "it has no segment, a file that ends in `.hfj`".into(),
            hint: "name a segment, a folder of segments, or the state folder of a daemon".into(),
        });
    }
    if args.json {
        print_json(&outcome)?;
    } else {
        show(&outcome, args.with.as_deref());
    }
    let well = outcome.troubles.is_empty() && (outcome.different == 0 || args.with.is_some());
    Ok(if well { Exit::Fine } else { Exit::Failed })
}

fn reader(path: &Path) -> Result<Reader<Entry>, CliError> {
    let io = |source| CliError::Io { what: format!("read the journal {}", path.display()), source };
    if path.is_file() {
        return Reader::file(path).map_err(io);
    }
    let inside = path.join(JOURNAL);
    let (root, folder) = if inside.is_dir() { (path, JOURNAL) } else { (path, ".") };
    Reader::folder(Arc::new(Folder::new(root)), folder).map_err(io)
}

fn run(items: Reader<Entry>, policies: Option<&Policies>) -> Outcome {
    let mut outcome = Outcome { v: 1, ..Outcome::default() };
    let mut engine: Option<Engine> = None;
    for item in items {
        match item {
            Item::Segment(_) => outcome.segments += 1,
            // With the same policy each segment proves itself; with another one the first goes on.
            Item::Checkpoint(_) if policies.is_some() && engine.is_some() => {}
            Item::Checkpoint(checkpoint) => match serde_json::from_slice::<Engine>(&checkpoint.bytes) {
                Ok(mut found) => {
                    // An engine that knows no VM yet is told in its turn, by an input that follows.
                    let began = found.vms().next().is_some();
                    if let Some(policies) = policies.filter(|_| began) {
                        let _ = found.step(checkpoint.at, &Input::Configured(policies.clone()));
                    }
                    engine = Some(found);
                }
                Err(cause) => outcome.troubles.push(format!("a checkpoint is not understood: {cause}")),
            },
            Item::Record(record) => {
                let Some(engine) = &mut engine else { continue };
                outcome.records += 1;
                let input = swap(&record.body.input, policies);
                let replayed = engine.step(record.at, &input).actions;
                compare(&mut outcome, record.n, record.at, &record.body.actions, &replayed);
            }
            Item::Trouble(trouble) => outcome.troubles.push(trouble.to_string()),
        }
    }
    outcome
}

fn swap(input: &Input, policies: Option<&Policies>) -> Input {
    match (input, policies) {
        (Input::Configured(_), Some(policies)) => Input::Configured(policies.clone()),
        _ => input.clone(),
    }
}

fn compare(outcome: &mut Outcome, record: u64, at: Timestamp, recorded: &[Action], replayed: &[Action]) {
    outcome.actions += recorded.len() as u64;
    let bytes = |actions: &[Action]| serde_json::to_vec(actions).unwrap_or_default();
    if bytes(recorded) == bytes(replayed) {
        outcome.same += 1;
        return;
    }
    outcome.different += 1;
    if outcome.differences.len() < SHOWN {
        let names = |actions: &[Action]| -> Vec<String> {
            actions.iter().map(|action| format!("{} {}", action.order.name(), action.vm)).collect()
        };
        outcome.differences.push(Difference {
            record,
            at,
            recorded: names(recorded),
            replayed: names(replayed),
        });
    }
}

fn show(outcome: &Outcome, with: Option<&Path>) {
    for trouble in &outcome.troubles {
        say!("{} {trouble}", tint(Tone::Bad, "damaged:"));
    }
    let words = |names: &[String]| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    for difference in &outcome.differences {
        say!(
            "{}  record {}: {}; {} {}",
            tint(Tone::Dim, &difference.at.to_string()),
            difference.record,
            words(&difference.recorded),
            tint(Tone::Warm, "now:"),
            words(&difference.replayed),
        );
    }
    let verdict = match (outcome.different, with) {
        (0, _) if outcome.records == 0 => tint(Tone::Warm, "there is nothing to compare"),
        (0, None) => tint(Tone::Good, "the same actions, byte for byte"),
        (0, Some(_)) => "the other policy would have done the same".to_owned(),
        (n, None) => tint(Tone::Bad, &format!("{n} steps came out otherwise")),
        (n, Some(_)) => format!("{n} steps would have come out otherwise"),
    };
    say!(
        "{} records in {} segments, {} actions: {verdict}",
        outcome.records,
        outcome.segments,
        outcome.actions
    );
}
