//! The configuration as written: bytes, and the TOML in them.
//!
//! Knows nothing of settings. Never takes more than [`LIMIT`] bytes, whatever a file claims to be, and
//! never waits for one.

use super::problem::{Problem, Problems};
use super::units::{self, quote};
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use toml::Spanned;
use toml::de::DeTable;

/// The longest configuration, in bytes.
pub const LIMIT: u64 = 1 << 20;
/// A larger file gets only its first syntax error told: looking for more would cost memory.
const SEARCHED: usize = 64 * 1024;

/// What a first file looks like, for hints.
pub const FIRST: &str = "a first file holds two lines, `[vm.orders]` and `disk = \"/var/lib/holdfast/orders.qcow2\"`; \
                         `holdfast init` writes one";

/// Reads the text of a configuration file.
///
/// # Errors
/// A [`Problem`] if there is none, if it is no plain file, too large, no text, or anybody may write it.
pub fn read(path: &Path) -> Result<String, Problem> {
    use rustix::fs::{Mode, OFlags};
    let cannot = |cause: String, hint: &str| Problem::whole("cannot read the configuration", cause, hint);
    // Not waiting, so that a FIFO without a writer is refused instead of waited for (A07).
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(rustix::io::Errno::NOENT) => {
            let hint = "write one with `holdfast init`, or name another: `--config FILE`";
            return Err(cannot("there is no such file".into(), hint));
        }
        Err(cause) => {
            return Err(cannot(std::io::Error::from(cause).to_string(), "name a file you may read"));
        }
    };
    let about = file.metadata().map_err(|cause| cannot(cause.to_string(), "try again"))?;
    if !about.is_file() {
        let cause = format!("it is {}, not a plain file", super::files::kind_of(about.file_type()));
        return Err(cannot(cause, "name a plain file"));
    }
    if about.mode() & 0o002 != 0 {
        let hint = "`chmod o-w` it: its commands are run with the daemon's rights";
        return Err(cannot(format!("anybody may write it (mode {:04o})", about.mode() & 0o7777), hint));
    }
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(|cause| cannot(cause.to_string(), "try again"))?;
    if bytes.len() as u64 > LIMIT {
        return Err(too_large());
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        cannot(
            format!("it is not text: byte {at} is not UTF-8"),
            "save it as UTF-8; a TOML file is plain text",
        )
    })
}

fn too_large() -> Problem {
    let cause = format!("it is larger than {}", units::write_size(LIMIT));
    Problem::whole("cannot read the configuration", cause, "a configuration is text; name the right file")
}

/// Reads TOML; `None` if it is not.
pub fn parse<'t>(text: &'t str, problems: &Problems) -> Option<Spanned<DeTable<'t>>> {
    if text.len() as u64 > LIMIT {
        problems.push(too_large());
        return None;
    }
    if let Some(at) = text.find('\0') {
        let cause = format!("byte {at} is NUL: this is no text");
        problems.push(Problem::whole("cannot read the configuration", cause, "name a plain text file"));
        return None;
    }
    let first = match DeTable::parse(text) {
        Ok(table) => return Some(table),
        Err(first) => first,
    };
    let mut errors = if text.len() <= SEARCHED { DeTable::parse_recoverable(text).1 } else { vec![first] };
    errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
    let mut last_line = None;
    let mut in_repeated_table = false;
    for error in errors {
        let place = error.span().unwrap_or(0..0);
        let start = text.floor_char_boundary(place.start.min(text.len()));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let repeated = error.message().starts_with("duplicate key");
        let header = text[line_start..].trim_start().starts_with('[');
        // What follows the first error of a line, or repeats a repeated table, is mostly its echo.
        if last_line.replace(line_start) != Some(line_start) && !(repeated && in_repeated_table && !header) {
            problems.push(syntax(text, place, error.message()));
        }
        in_repeated_table = repeated && (header || in_repeated_table);
    }
    None
}

/// A syntax error in our words where they help more than the parser's.
fn syntax(text: &str, place: Range<usize>, message: &str) -> Problem {
    let written = text.get(place.clone()).unwrap_or_default();
    if message.starts_with("duplicate key") {
        let cause = "a name stands only once in its table; which of the two was meant is not known";
        return Problem::at(
            place,
            format!("{} is written twice", quote(written)),
            cause,
            "remove or rename one",
        );
    }
    let hint = if message.starts_with("string values must be quoted") {
        "put texts, times and sizes in quotes, as in `memory = \"1GiB\"`"
    } else if message.contains("recur") {
        "nothing in this file needs to be nested that deep"
    } else if message.starts_with("key with no value") {
        "write `KEY = VALUE`, or `[TABLE]`"
    } else {
        "the file is TOML: `[TABLE]`, then lines of `KEY = VALUE`"
    };
    Problem::at(place, "this is not TOML", message, hint)
}
