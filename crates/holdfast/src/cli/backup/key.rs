//! `holdfast backup key`: who can open a repository.

use super::secret::{self, Secret};
use super::{RepositoryArgs, troubled};
use crate::act::chain;
use crate::cli::{CliError, Exit, paint, print_json};
use crate::place::RepositoryPlace;
use clap::{Args, Subcommand};
use holdfast_backup::repository::Trouble;
use holdfast_backup::slots::{self, Pair, SlotError};
use holdfast_backup::store::Store;
use std::path::PathBuf;

/// What to do with the keys.
#[derive(Subcommand)]
pub enum KeyCommand {
    /// Let another key or passphrase open the repository, too.
    Add(NewArgs),
    /// List the keys.
    List(ListArgs),
    /// Remove a key, never the one that you open the repository with.
    Remove(RemoveArgs),
    /// Put a new key or passphrase in place of the one that you open the repository with.
    Change(NewArgs),
}

/// A new key.
#[derive(Args)]
pub struct NewArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    /// The file that holds the new passphrase or key; if it is not there, a random key is put into it.
    #[arg(long, value_name = "FILE")]
    new_key_file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Of which repository.
#[derive(Args)]
pub struct ListArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Which key.
#[derive(Args)]
pub struct RemoveArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    /// Its name, as `list` shows it.
    key: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs one command.
pub fn key(command: &KeyCommand) -> Result<Exit, CliError> {
    match command {
        KeyCommand::Add(args) => new(args, false),
        KeyCommand::List(args) => list(args),
        KeyCommand::Remove(args) => remove(args),
        KeyCommand::Change(args) => new(args, true),
    }
}

/// The repository, and what opens it.
fn own(args: &RepositoryArgs) -> Result<(Box<dyn Store>, Vec<u8>), CliError> {
    let store = args.store()?;
    let secret = args.secret(&*store)?;
    Ok((store, secret))
}

fn new(args: &NewArgs, is_change: bool) -> Result<Exit, CliError> {
    let (folder, (opened, own)) = (&args.repository.repo, own(&args.repository)?);
    slots::list(&*opened, &own).map_err(refused(folder))?; // before a file is made
    let new: Secret = secret::for_another(&args.new_key_file)?;
    let put = if is_change { slots::change } else { slots::add };
    let name = put(&*opened, &own, new.bytes(), new.cost()).map_err(|error| {
        // Where the old one could not be taken away, the new one is there.
        if slots::list(&*opened, new.bytes()).is_err_and(opens_nothing) {
            new.forget(&args.new_key_file);
        }
        refused(folder)(error)
    })?;
    let name = name.trim_start_matches("keys/");
    if args.json {
        print_json(&serde_json::json!({
            "v": 1, "key": name, "key_file": args.new_key_file.to_string_lossy(),
        }))?;
        return Ok(Exit::Fine);
    }
    say!("key {name} opens the repository: what is in {}", args.new_key_file.display());
    if is_change {
        say!(
            "the one before opens it no more; a copy of the repository that somebody took may still be opened with it"
        );
    }
    Ok(Exit::Fine)
}

/// Whether it was seen that a secret opens no key of the repository, and not only that this cannot be told now.
fn opens_nothing(why: SlotError) -> bool {
    matches!(why, SlotError::Repository(Trouble::Key(_)))
}

fn list(args: &ListArgs) -> Result<Exit, CliError> {
    let folder = &args.repository.repo;
    let (store, own) = own(&args.repository)?;
    let slots = slots::list(&*store, &own).map_err(refused(folder))?;
    let name = |slot: &slots::Slot| slot.name.trim_start_matches("keys/").to_owned();
    if args.json {
        let docs: Vec<_> = slots
            .iter()
            .map(|slot| {
                serde_json::json!({
                    "v": 1, "key": name(slot), "yours": slot.is_own, "damaged": slot.cost.is_none(), "objects": word(slot.pair),
                    "memory_kib": slot.cost.map(|cost| cost.memory), "rounds": slot.cost.map(|cost| cost.rounds),
                })
            })
            .collect();
        print_json(&docs)?;
        return Ok(Exit::Fine);
    }
    let mut table = paint::table(&["key", "a try costs", ""]);
    for slot in &slots {
        let cost = slot
            .cost
            .map_or_else(|| "damaged".into(), |cost| format!("{} KiB, {} rounds", cost.memory, cost.rounds));
        let mut words = Vec::new();
        words.extend(slot.is_own.then_some("yours"));
        words.extend((slot.pair != Pair::Well && slot.pair != Pair::Strange).then(|| word(slot.pair)));
        table.add_row([name(slot), cost, words.join(", ")]);
    }
    say!("{table}");
    Ok(Exit::Fine)
}

/// How the two objects of a key are.
const fn word(pair: Pair) -> &'static str {
    match pair {
        Pair::Well => "both well",
        Pair::Alone => "one alone",
        Pair::Hurt => "one damaged",
        Pair::Differs => "not the same",
        Pair::Strange => "no key",
    }
}

fn remove(args: &RemoveArgs) -> Result<Exit, CliError> {
    let folder = &args.repository.repo;
    let name = format!("keys/{}", args.key);
    let (store, own) = own(&args.repository)?;
    slots::remove(&*store, &own, &name).map_err(refused(folder))?;
    if args.json {
        print_json(&serde_json::json!({ "v": 1, "key": args.key }))?;
        return Ok(Exit::Fine);
    }
    say!("key {} opens the repository no more", args.key);
    Ok(Exit::Fine)
}

fn refused(folder: &RepositoryPlace) -> impl Fn(SlotError) -> CliError {
    let folder = folder.clone();
    move |error| {
        let said = |error: SlotError, hint: &str| CliError::Said {
            error: "no key was changed".into(),
            cause: chain(&error),
            hint: hint.into(),
        };
        match error {
            SlotError::Repository(trouble) => troubled(&folder)(trouble),
            SlotError::TooMany => said(error, "remove one first"),
            SlotError::None(_) => said(error, "`holdfast backup key list` lists them"),
            SlotError::Last(_) => said(error, "open the repository with another key, or use `key change`"),
        }
    }
}
