//! `holdfast backup files` and `backup extract`: single files of a restore point, without restoring or mounting it.
//!
//! The file system was written by a guest (I17): it is read by a library in this process, which has no rights that its user has
//! not, and what comes out of it are names that are shown escaped and bytes that are written into new files. A link is never
//! followed on this side.

mod extract;
mod partition;

pub use extract::{ExtractArgs, extract};

use super::disk::{DiskArgs, Meant};
use crate::act::chain;
use crate::cli::{CliError, Exit, paint, print_json};
use clap::Args;
use ext4_view::{Ext4, Ext4Error, Ext4Read, FileType, Metadata};
use holdfast_backup::offered::Offered;
use partition::Partition;
use std::sync::Arc;

/// Bytes of blocks that are kept in memory.
const MOST: usize = 64 << 20;
/// So many entries of one folder are listed.
const ENTRIES_MOST: usize = 1_000_000;

/// Characters of a name that are shown.
const SHOWN_MOST: usize = 512;

/// In which file system.
#[derive(Args)]
pub struct FsArgs {
    #[command(flatten)]
    of: DiskArgs,
    /// Which partition; otherwise the first one with a file system that can be read and has this path.
    #[arg(long, value_name = "NUMBER")]
    partition: Option<u32>,
}

/// What to list.
#[derive(Args)]
pub struct FilesArgs {
    #[command(flatten)]
    of: FsArgs,
    /// The folder or file, as the guest names it.
    #[arg(default_value = "/")]
    path: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The bytes of a partition of a disk of a point.
struct Bytes {
    disk: Arc<Offered>,
    partition: Partition,
}

impl Ext4Read for Bytes {
    fn read(
        &mut self,
        start: u64,
        bytes: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        let Partition { bytes: own, .. } = &self.partition;
        let at = own.start.checked_add(start).filter(|at| at.saturating_add(bytes.len() as u64) <= own.end);
        let at = at.ok_or("it points beyond its own end")?;
        Ok(self.disk.read_at(at, bytes)?)
    }
}

/// A file system of a point, and where in the point it is.
struct Found {
    fs: Ext4,
    partition: u32,
    /// Bytes of that partition.
    size: u64,
    point: String,
}

/// Finds the file system that has this path.
fn open(args: &FsArgs, path: &str) -> Result<Found, CliError> {
    let Meant { repository, point, disk } = args.of.open()?;
    let disk = Arc::new(Offered::new(repository, disk, MOST));
    let refused = |cause: String, hint: &str| CliError::Said {
        error: format!("cannot read `{}` of point {}", path.escape_debug(), point),
        cause,
        hint: hint.into(),
    };
    let whole = "`holdfast backup export` writes the whole disk, for tools that can read it";
    let partitions = partition::partitions(disk.size(), |at, bytes| disk.read_at(at, bytes));
    let mut partitions =
        partitions.map_err(|error| refused(chain(&error), "`holdfast backup repair` says what is lost"))?;
    let numbers: Vec<String> = partitions.iter().map(|partition| partition.number.to_string()).collect();
    partitions.retain(|partition| args.partition.is_none_or(|number| number == partition.number));
    if partitions.is_empty() {
        let numbers = numbers.join(", ");
        return Err(refused(format!("there is no such partition; there are: {numbers}"), "name one of them"));
    }
    let (mut last, mut is_any) = (None, false);
    for partition in partitions {
        let (number, size) = (partition.number, partition.bytes.end - partition.bytes.start);
        let fs = Ext4::load(Box::new(Bytes { disk: Arc::clone(&disk), partition }));
        match fs.and_then(|fs| fs.symlink_metadata(path).map(|_| fs).inspect_err(|_| is_any = true)) {
            Ok(fs) => return Ok(Found { fs, partition: number, size, point }),
            Err(error) => last = Some(format!("partition {number}: {}", chain(&error))),
        }
    }
    let cause = last.unwrap_or_default();
    let hint = if is_any { "`holdfast backup files` lists what is there" } else { whole };
    Err(refused(cause, hint))
}

/// What went wrong with a path.
fn failed(found: &Found, path: &str) -> impl Fn(Ext4Error) -> CliError {
    let error = format!("cannot read `{}` of point {}", path.escape_debug(), found.point);
    move |cause| CliError::Said {
        error: error.clone(),
        cause: chain(&cause),
        hint: "`holdfast backup files` lists what is there; `backup verify` tells whether the point is whole"
            .into(),
    }
}

/// One entry, for people and JSON.
struct Entry {
    name: String,
    about: Metadata,
    to: Option<String>,
}

/// Lists a folder, or tells of a file.
pub fn files(args: &FilesArgs) -> Result<Exit, CliError> {
    let found = open(&args.of, &args.path)?;
    let entries = list(&found, &args.path).map_err(failed(&found, &args.path))?;
    if args.json {
        let docs: Vec<_> = entries.iter().map(doc).collect();
        print_json(&serde_json::json!({
            "v": 1, "id": found.point, "partition": found.partition, "path": args.path, "entries": docs,
        }))?;
        return Ok(Exit::Fine);
    }
    let mut table = paint::table(&["mode", "owner", "size", "changed (UTC)", "name"]);
    for entry in &entries {
        let Entry { name, about, to } = entry;
        let to = to.as_ref().map_or_else(String::new, |to| format!(" -> {to}"));
        table.add_row([
            mode(about),
            format!("{}:{}", about.uid(), about.gid()),
            about.len().to_string(),
            paint::utc_second(about.modified().seconds() as f64),
            holdfast_logs::escape(&format!("{name}{to}"), SHOWN_MOST),
        ]);
    }
    say!("{table}");
    Ok(Exit::Fine)
}

fn list(found: &Found, path: &str) -> Result<Vec<Entry>, Ext4Error> {
    let fs = &found.fs;
    let about = fs.metadata(path).or_else(|_| fs.symlink_metadata(path))?;
    if !about.is_dir() {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let to = fs.read_link(path).ok().map(|to| to.display().to_string());
        return Ok(vec![Entry { name, about: fs.symlink_metadata(path)?, to }]);
    }
    let mut entries = Vec::new();
    for entry in fs.read_dir(path)?.take(ENTRIES_MOST) {
        let entry = entry?;
        let name = entry.file_name().display().to_string();
        if name != "." && name != ".." {
            let about = fs.symlink_metadata(entry.path().as_path())?;
            let to = if about.is_symlink() { fs.read_link(entry.path().as_path()).ok() } else { None };
            let to = to.map(|to| to.display().to_string());
            entries.push(Entry { name, about, to });
        }
    }
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(entries)
}

/// As `ls -l` shows it.
fn mode(about: &Metadata) -> String {
    let mut text = kind(about.file_type()).1.to_string();
    for (at, letter) in "rwxrwxrwx".chars().enumerate() {
        let is_set = about.mode() >> (8 - at) & 1 == 1;
        text.push(if is_set { letter } else { '-' });
    }
    text
}

/// What it is: a word, and the letter of `ls`.
const fn kind(kind: FileType) -> (&'static str, char) {
    match kind {
        FileType::Directory => ("folder", 'd'),
        FileType::Regular => ("file", '-'),
        FileType::Symlink => ("link", 'l'),
        FileType::BlockDevice => ("block-device", 'b'),
        FileType::CharacterDevice => ("character-device", 'c'),
        FileType::Fifo => ("fifo", 'p'),
        FileType::Socket => ("socket", 's'),
    }
}

fn doc(entry: &Entry) -> serde_json::Value {
    let Entry { name, about, to } = entry;
    serde_json::json!({
        "name": name, "kind": kind(about.file_type()).0, "mode": about.mode() & 0o7777, "uid": about.uid(),
        "gid": about.gid(), "size": about.len(), "changed": about.modified().seconds(), "to": to,
    })
}
