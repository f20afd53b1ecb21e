//! Who asks, and where: the standard AWS variables, from the environment or from a file that only its owner reads.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use url::Url;

const KEY: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const TOKEN: &str = "AWS_SESSION_TOKEN";
const REGION: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];
const ENDPOINT: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
const BUNDLE: &str = "AWS_CA_BUNDLE";
const ALL: [&str; 8] = [KEY, SECRET, TOKEN, REGION[0], REGION[1], ENDPOINT[0], ENDPOINT[1], BUNDLE];
/// Stores other than Amazon's have no regions; this one is what they expect to see signed.
const ANY_REGION: &str = "us-east-1";
/// A file is no longer than this.
const LONGEST: u64 = 16 << 10;
/// What others must not be able to do with a file that has secrets in it: anything; and the group, to write.
const OTHERS: u32 = 0o027;

/// What opens a store. It is never shown.
pub struct Access {
    pub(crate) key: String,
    pub(crate) secret: String,
    pub(crate) token: Option<String>,
    pub(crate) region: String,
    /// Without a slash at its end; nothing for Amazon's own.
    pub(crate) endpoint: Option<String>,
    /// Certificates that are believed beside those of the system, as PEM.
    pub(crate) bundle: Option<Vec<u8>>,
}

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file cannot be read.
    #[error("`{path}` cannot be read: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others can read it.
    #[error("`{path}` has secrets in it and is open to others (mode {mode:o})")]
    Open {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A line of it is not understood. What it says is not told: it may be a secret.
    #[error("line {line} of `{path}` is none of `NAME=VALUE` with a name that is known")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1 on.
        line: usize,
    },
    /// Something is not said.
    #[error("`{0}` is not set")]
    Missing(&'static str),
    /// The endpoint is none.
    #[error("`{0}` is not the address of a store")]
    Endpoint(&'static str),
}

impl AccessError {
    /// What can be done.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::File { .. } => "name a file that is there and can be read with `--s3-file`",
            Self::Open { .. } => "`chmod 600` it; if others have seen the keys, make new ones",
            Self::Line { .. } | Self::Missing(_) => {
                "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION or AWS_ENDPOINT_URL are needed, in the environment \
                 or as lines of a file that `--s3-file` names"
            }
            Self::Endpoint(_) => {
                "write it as `https://HOST` or `https://HOST:PORT`, without names, keys or a bucket in it"
            }
        }
    }
}

impl Access {
    /// As the environment of this process says.
    ///
    /// # Errors
    /// If something is missing or cannot be meant.
    pub fn of_environment() -> Result<Self, AccessError> {
        Self::of(|name| std::env::var(name).ok())
    }

    /// As a file says, and nothing else: lines of `NAME=VALUE`, empty ones, and such as begin with `#`.
    ///
    /// # Errors
    /// If it cannot be read or is open to others, or something in it is missing or cannot be meant.
    pub fn of_file(path: &Path) -> Result<Self, AccessError> {
        let failed = |source| AccessError::File { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let known = file.metadata().map_err(failed)?;
        if !known.is_file() {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is no file")));
        }
        let mode = known.permissions().mode() & 0o777;
        if mode & OTHERS != 0 {
            return Err(AccessError::Open { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.take(LONGEST).read_to_string(&mut text).map_err(failed)?;
        let told = told(&text).map_err(|line| AccessError::Line { path: path.to_owned(), line })?;
        Self::of(|name| told.get(name).map(|value| (*value).to_owned()))
    }

    fn of(get: impl Fn(&str) -> Option<String>) -> Result<Self, AccessError> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, get(name)?)));
        let need = |name: &'static str| get(name).ok_or(AccessError::Missing(name));
        let endpoint = first(ENDPOINT).map(|(name, value)| endpoint(name, &value)).transpose()?;
        let region = match first(REGION) {
            Some((_, region)) => region,
            None if endpoint.is_some() => ANY_REGION.to_owned(),
            None => return Err(AccessError::Missing(REGION[0])),
        };
        let bundle = get(BUNDLE).map(|path| {
            let read = std::fs::read(&path);
            read.map_err(|source| AccessError::File { path: path.into(), source })
        });
        Ok(Self {
            key: need(KEY)?,
            secret: need(SECRET)?,
            token: get(TOKEN),
            region,
            endpoint,
            bundle: bundle.transpose()?,
        })
    }

    /// Where the store is, for people.
    pub(crate) fn shown(&self) -> String {
        self.endpoint.clone().unwrap_or_else(|| format!("Amazon S3 in {}", self.region))
    }
}

/// What the lines of a file say; or the number of one that says nothing.
fn told(text: &str) -> Result<BTreeMap<&str, &str>, usize> {
    let mut told = BTreeMap::new();
    for (at, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or(at)?;
        let (name, value) = (name.trim_end(), value.trim_start());
        let quoted = |mark: char| value.strip_prefix(mark).and_then(|value| value.strip_suffix(mark));
        let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
        if !ALL.contains(&name) {
            return Err(at);
        }
        told.insert(name, value);
    }
    Ok(told)
}

fn endpoint(name: &'static str, value: &str) -> Result<String, AccessError> {
    let url = Url::parse(value).map_err(|_| AccessError::Endpoint(name))?;
    let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    let is_one = matches!(url.scheme(), "http" | "https") && url.host().is_some() && url.path() == "/";
    let plain = value.trim_end_matches('/').to_owned();
    (is_plain && is_one && url.fragment().is_none()).then_some(plain).ok_or(AccessError::Endpoint(name))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::fs;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s3.env");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    fn read(text: &str, mode: u32) -> Result<Access, AccessError> {
        let (_folder, path) = file(text, mode);
        Access::of_file(&path)
    }

    const LEAST: &str = "AWS_ACCESS_KEY_ID=me\nAWS_SECRET_ACCESS_KEY=x1y2z3\n";

    #[test]
    fn a_file_says_who_asks_and_where() {
        let text = format!(
            "# of the backups\n\n{LEAST}AWS_SESSION_TOKEN='a=b'\nAWS_ENDPOINT_URL = \"http://s3.x:9000/\"\n"
        );
        let access = read(&text, 0o600).unwrap();
        assert_eq!((&access.key[..], &access.secret[..]), ("me", "x1y2z3"));
        assert_eq!(access.token.as_deref(), Some("a=b"));
        assert_eq!((access.endpoint.as_deref(), &access.region[..]), (Some("http://s3.x:9000"), "us-east-1"));
        let access = read(&format!("{LEAST}AWS_REGION=eu-west-1\n"), 0o640).unwrap();
        assert_eq!((access.endpoint.as_deref(), &access.region[..]), (None, "eu-west-1"));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let text = format!("{LEAST}AWS_REGION=eu-west-1\n");
        for mode in [0o644, 0o604, 0o620, 0o602, 0o777] {
            let refused = read(&text, mode).err().unwrap();
            assert!(matches!(refused, AccessError::Open { .. }), "{mode:o}: {refused}");
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_said_and_no_secret() {
        for (more, why) in [
            ("", "`AWS_REGION` is not set"),
            ("AWS_REGION=\n", "`AWS_REGION` is not set"),
            ("AWS_REGON=x1y2z3\n", "line 3 of"),
            ("x1y2z3\n", "line 3 of"),
            ("AWS_ENDPOINT_URL=s3.x\n", "`AWS_ENDPOINT_URL` is not the address of a store"),
            ("AWS_ENDPOINT_URL=https://a:x1y2z3@s3.x\n", "`AWS_ENDPOINT_URL` is not"),
            ("AWS_ENDPOINT_URL=https://s3.x/bucket\n", "`AWS_ENDPOINT_URL` is not"),
            ("AWS_ENDPOINT_URL_S3=ftp://s3.x\n", "`AWS_ENDPOINT_URL_S3` is not"),
            ("AWS_REGION=a\nAWS_CA_BUNDLE=/nothing/here.pem\n", "`/nothing/here.pem` cannot be read"),
        ] {
            let said = read(&format!("{LEAST}{more}"), 0o600).err().unwrap();
            let said = format!("{said} {}", said.hint());
            assert!(said.contains(why) && !said.contains("x1y2z3"), "{more}: {said}");
        }
        let said = read("AWS_ACCESS_KEY_ID=me\nAWS_REGION=a\n", 0o600).err().unwrap().to_string();
        assert_eq!(said, "`AWS_SECRET_ACCESS_KEY` is not set");
        assert!(matches!(Access::of_file(Path::new("/")), Err(AccessError::File { .. })));
    }
}
