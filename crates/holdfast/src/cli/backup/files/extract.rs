//! `holdfast backup extract`: a file or a folder of a restore point, with all that is in it, as new files.
//!
//! Names come from a guest: each is one name in a folder that was made here a moment before, made anew or not at all, so no
//! link and no name that comes twice leads out of it (I17). What is not whole yet has another name, and nothing that is there is
//! replaced (I15). Folders may hold each other, and files share their blocks: no more is written than the disk holds (I18).

use super::{Found, FsArgs, failed, open};
use crate::act::chain;
use crate::cli::{CliError, Exit, print_json};
use clap::Args;
use ext4_view::{Ext4Error, Metadata, PathBuf as GuestPath};
use indicatif::ProgressBar;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;
/// Bytes that are left out if they are zeros.
const HOLE: usize = 64 << 10;
/// Folders may stand in each other so deep.
const DEEPEST: usize = 256;
/// A block of ext4 is no smaller, nor is what it has for each inode (bytes).
const LEAST: u64 = 1 << 10;
/// A folder may have so many entries more than that: each has itself and the one above.
const ENTRIES: u64 = 4;

/// What to bring back.
#[derive(Args)]
pub struct ExtractArgs {
    #[command(flatten)]
    of: FsArgs,
    /// The file or folder, as the guest names it.
    path: String,
    /// The new file or folder; nothing may be there yet.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What was brought back.
#[derive(Default)]
struct Done {
    files: u64,
    folders: u64,
    links: u64,
    bytes: u64,
    /// Devices, sockets and fifos, which are left out.
    left_out: u64,
    /// Entries of folders that were looked at.
    entries: u64,
    /// Bytes that were written: those of holes are not.
    written: u64,
}

/// Why it was not.
enum Trouble {
    Guest(Ext4Error),
    Here(io::Error),
    Deep,
    /// More of this than there can be.
    TooMuch(String),
}

impl From<Ext4Error> for Trouble {
    fn from(error: Ext4Error) -> Self {
        Self::Guest(error)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Here(error)
    }
}

/// Brings it back.
pub fn extract(args: &ExtractArgs) -> Result<Exit, CliError> {
    let out = &args.out;
    if out.symlink_metadata().is_ok() {
        return Err(CliError::Said {
            error: format!("`{}` is there already: it exists", out.display()),
            cause: "what is extracted never replaces anything: it might be the only copy (I15)".into(),
            hint: "name another, or move that one away".into(),
        });
    }
    let found = open(&args.of, &args.path)?;
    meant(&found, &args.path)?;
    let unfinished = unfinished(out);
    let spinner = if args.json { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    let (mut done, from) = (Done::default(), GuestPath::new(&args.path));
    let work = Work { found: &found, spinner: &spinner };
    let copied = work.copy(&from, &unfinished, 0, &mut done).and_then(|()| {
        let cwd = rustix::fs::CWD;
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(cwd, &unfinished, cwd, out, flags).map_err(|e| Trouble::Here(e.into()))?;
        super::super::fresh::sync_folder(out).map_err(Trouble::Here)
    });
    spinner.finish_and_clear();
    if let Err(trouble) = copied {
        if !matches!(trouble, Trouble::TooMuch(_)) {
            let _ours = fs::remove_dir_all(&unfinished).or_else(|_| fs::remove_file(&unfinished));
        }
        return Err(match trouble {
            Trouble::Guest(error) => failed(&found, &args.path)(error),
            Trouble::Here(source) => {
                CliError::Io { what: format!("write `{}`; nothing is left of it", out.display()), source }
            }
            Trouble::Deep => CliError::Said {
                error: format!("cannot extract `{}`", args.path.escape_debug()),
                cause: format!("its folders stand in each other more than {DEEPEST} deep"),
                hint: "extract one of those within it".into(),
            },
            Trouble::TooMuch(what) => CliError::Said {
                error: format!("`{}` is extracted in part", args.path.escape_debug()),
                cause: format!(
                    "it holds {what}: files of many names, or a file system that was made to fill this disk"
                ),
                hint: format!(
                    "what came until then is in `{}`; extract folders within it, or look at all of it with `backup mount`",
                    unfinished.display(),
                ),
            },
        });
    }
    tell(&found, args, &done)
}

/// What is named is a file or a folder, or a link that leads to one within its own file system.
fn meant(found: &Found, path: &str) -> Result<(), CliError> {
    let named = found.fs.symlink_metadata(path).map_err(failed(found, path))?;
    let said = |cause: String, hint: &str| CliError::Said {
        error: format!("cannot extract `{}` of point {}", path.escape_debug(), found.point),
        cause,
        hint: hint.into(),
    };
    let about = found.fs.metadata(path).map_err(|why| {
        if !named.file_type().is_symlink() {
            return failed(found, path)(why);
        }
        let to = found.fs.read_link(path).map(|to| to.display().to_string()).unwrap_or_default();
        let cause =
            format!("it is a link to `{}`, and that cannot be read: {}", to.escape_debug(), chain(&why));
        said(cause, "extract the folder that it is in: there it comes back as a link")
    })?;
    let kind = about.file_type();
    if kind.is_dir() || kind.is_regular_file() {
        return Ok(());
    }
    let cause = "it is a device, a socket or a fifo: these hold nothing".into();
    Err(said(cause, "`holdfast backup files` lists what there is beside it"))
}

fn tell(found: &Found, args: &ExtractArgs, done: &Done) -> Result<Exit, CliError> {
    let Done { files, folders, links, bytes, left_out, .. } = done;
    if args.json {
        print_json(&serde_json::json!({
            "v": 1, "id": found.point, "partition": found.partition, "path": args.path, "out": args.out,
            "files": files, "folders": folders, "links": links, "bytes": bytes, "left_out": left_out,
        }))?;
        return Ok(Exit::Fine);
    }
    let size = super::super::bytes(*bytes);
    say!("{}: {files} files, {folders} folders, {links} links, {size}", args.out.display());
    if *left_out > 0 {
        super::super::say_aside(&format!("note: {left_out} devices, sockets and fifos are left out"));
    }
    Ok(Exit::Fine)
}

/// The name of what is not whole yet, beside what it becomes.
fn unfinished(out: &Path) -> PathBuf {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    out.with_file_name(format!(".{name}.{}.unfinished", std::process::id()))
}

struct Work<'a> {
    found: &'a Found,
    spinner: &'a ProgressBar,
}

impl Work<'_> {
    /// Counts what is written: that is no more than the disk holds (I18).
    fn count(&self, bytes: u64, done: &mut Done) -> Result<(), Trouble> {
        let size = self.found.size;
        done.written = done.written.saturating_add(bytes);
        let held = super::super::bytes(size);
        if done.written > size {
            Err(Trouble::TooMuch(format!("more than the {held} of its disk")))
        } else {
            Ok(())
        }
    }

    /// Counts an entry of a folder.
    fn look(&self, done: &mut Done) -> Result<(), Trouble> {
        done.entries += 1;
        let most = self.found.size / LEAST * ENTRIES;
        if done.entries <= most {
            return Ok(());
        }
        Err(Trouble::TooMuch(format!("more than the {most} entries that its disk has room for")))
    }

    fn copy(&self, from: &GuestPath, to: &Path, depth: usize, done: &mut Done) -> Result<(), Trouble> {
        let fs = &self.found.fs;
        // What a person names may be a link; what stands in a folder is taken as it is.
        let about = if depth == 0 { fs.metadata(from)? } else { fs.symlink_metadata(from)? };
        self.spinner.set_message(format!("{}", from.display()));
        self.spinner.tick();
        let kind = about.file_type();
        if kind.is_dir() {
            self.folder(from, to, depth, &about, done)
        } else if kind.is_symlink() {
            done.links += 1;
            let target = fs.read_link(from)?;
            self.count(target.as_ref().len() as u64, done)?;
            Ok(symlink(OsStr::from_bytes(target.as_ref()), to)?)
        } else if kind.is_regular_file() {
            self.file(from, to, &about, done)
        } else {
            done.left_out += 1;
            Ok(())
        }
    }

    fn folder(
        &self,
        from: &GuestPath,
        to: &Path,
        depth: usize,
        about: &Metadata,
        done: &mut Done,
    ) -> Result<(), Trouble> {
        if depth == DEEPEST {
            return Err(Trouble::Deep);
        }
        fs::DirBuilder::new().mode(0o700).create(to)?;
        done.folders += 1;
        self.count(LEAST, done)?;
        for entry in self.found.fs.read_dir(from)? {
            let entry = entry?;
            self.look(done)?;
            let name = entry.file_name();
            let bytes: &[u8] = name.as_ref();
            if bytes != b"." && bytes != b".." && !bytes.contains(&b'/') {
                self.copy(&entry.path(), &to.join(OsStr::from_bytes(bytes)), depth + 1, done)?;
            }
        }
        Ok(fs::set_permissions(to, rights(about, 0o700))?) // it can be removed again
    }

    fn file(&self, from: &GuestPath, to: &Path, about: &Metadata, done: &mut Done) -> Result<(), Trouble> {
        let mut there = self.found.fs.open(from)?;
        let mut here = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
        let (mut bytes, before) = (vec![0; PIECE], done.written);
        loop {
            let read = there.read_bytes(&mut bytes)?;
            if read == 0 {
                break;
            }
            let written = write_sparse(&mut here, &bytes[..read])?;
            self.count(written, done)?;
            done.bytes += read as u64;
            self.spinner.tick();
        }
        let own = done.written - before;
        self.count(if own == 0 { 0 } else { LEAST.saturating_sub(own) }, done)?;
        here.set_len(about.len())?;
        let changed = u64::try_from(about.modified().seconds()).unwrap_or_default();
        here.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(changed))?;
        here.set_permissions(rights(about, 0o400))?;
        here.sync_all()?;
        done.files += 1;
        Ok(())
    }
}

/// Who may read and write it, and no more: a program with the rights of its owner is none here.
fn rights(about: &Metadata, least: u32) -> fs::Permissions {
    fs::Permissions::from_mode(u32::from(about.mode()) & 0o777 | least)
}

/// A file that is nothing but a large hole takes no room. How many bytes were written.
fn write_sparse(file: &mut File, bytes: &[u8]) -> io::Result<u64> {
    let mut written = 0;
    for piece in bytes.chunks(HOLE) {
        if piece.iter().all(|byte| *byte == 0) {
            file.seek(SeekFrom::Current(piece.len() as i64))?;
        } else {
            file.write_all(piece)?;
            written += piece.len() as u64;
        }
    }
    Ok(written)
}
