//! `holdfast backup cat`: a disk of a restore point to standard output, by the second reader of the format.

use super::{place_parser, secret};
use crate::cli::{CliError, Exit};
use crate::place::RepositoryPlace;
use clap::Args;
use holdfast_backup::cat::{self, Reader};
use holdfast_backup::id::RepositoryId;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

/// What to write.
#[derive(Args)]
pub struct CatArgs {
    /// The folder of the repository.
    #[arg(long, env = "HOLDFAST_REPO", value_name = "DIR", value_parser = place_parser())]
    repo: RepositoryPlace,
    /// The file that holds its key or passphrase; otherwise the key of this user.
    #[arg(long, env = "HOLDFAST_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The point: `NAME/NUMBER`.
    #[arg(long, value_name = "POINT", value_parser = point)]
    point: (String, u64),
    /// Which disk; the first, if none is named.
    #[arg(long, value_name = "DISK")]
    disk: Option<String>,
}

fn point(text: &str) -> Result<(String, u64), String> {
    let parts = text.split_once('/').and_then(|(vm, number)| Some((vm.to_owned(), number.parse().ok()?)));
    let parts = parts.filter(|(vm, _)| holdfast_backup::point::is_name(vm));
    parts.ok_or_else(|| format!("`{text}` is no point: write `NAME/NUMBER`, as `backup list` shows it"))
}

/// Writes it.
pub fn cat(args: &CatArgs) -> Result<Exit, CliError> {
    let failed = |error: io::Error| CliError::Said {
        error: format!("cannot read point {}/{} of `{}`", args.point.0, args.point.1, args.repo),
        cause: error.to_string(),
        hint: "what was written is not whole; `holdfast backup verify` names what is hurt".into(),
    };
    if io::stdout().is_terminal() {
        return failed_on_terminal();
    }
    let root = args.repo.folder().ok_or_else(|| not_a_folder(&args.repo))?;
    let id = cat::identify(root).map_err(failed)?;
    let secret = secret::of(args.key_file.as_deref(), RepositoryId(id))?;
    let reader = Reader::open(root, &secret).map_err(failed)?;
    let mut out = io::stdout().lock();
    let (vm, number) = &args.point;
    let written = reader.cat((vm, *number), args.disk.as_deref(), &mut out);
    written.and_then(|()| out.flush()).map_err(failed)?;
    Ok(Exit::Fine)
}

fn not_a_folder(place: &RepositoryPlace) -> CliError {
    CliError::Said {
        error: format!("cannot read `{place}` this way"),
        cause: "the second reader shares nothing with the rest of this program, and reads folders alone".into(),
        hint: "copy all objects below it into a folder, under the same names, and name that; or use `holdfast backup export`"
            .into(),
    }
}

fn failed_on_terminal() -> Result<Exit, CliError> {
    Err(CliError::Said {
        error: "a disk is not written to a terminal".into(),
        cause: "it is an image of many bytes".into(),
        hint: "add `> FILE`, or a program that reads it".into(),
    })
}
