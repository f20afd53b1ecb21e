//! What is meant for one application: how it is asked, and how it is restarted.
//!
//! Holds where a password is, never the password: that is read when it is needed, and never shown.

use holdfast_core::time::Duration;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One application in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppConfig {
    /// How it is asked.
    pub probe: Probe,
    /// An answer later than this is none; 50 ms to 60 s.
    pub timeout: Duration,
    /// Also write a row and read it back (postgres only).
    pub write: bool,
    /// Where the probe's password is.
    pub password: Option<Secret>,
    /// How the guest agent restarts it: a program and its arguments, without a shell.
    pub restart: Option<Vec<String>>,
    /// What the guest agent runs just before a snapshot or a backup, as a checkpoint: less is then to be repaired where
    /// it is restored.
    pub quiesce: Option<Vec<String>>,
    /// A second opinion that the guest agent runs; status 0 is a pass.
    pub check: Option<Vec<String>>,
}

/// How an application is asked. Only the configuration names whom to ask, never a guest (A16).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A query to PostgreSQL.
    Postgres {
        /// Whom to ask.
        target: Target,
        /// As this user.
        user: String,
        /// In this database.
        db: String,
        /// This.
        query: String,
        /// What the first field of the first row must be; `None`: anything.
        expect: Option<Expect>,
    },
    /// A query to MySQL or MariaDB.
    Mysql {
        /// Whom to ask.
        target: Target,
        /// As this user.
        user: String,
        /// In this database; `None`: in none.
        db: Option<String>,
        /// This.
        query: String,
        /// What the first field of the first row must be; `None`: anything.
        expect: Option<Expect>,
    },
    /// `PING` to Redis or Valkey.
    Redis {
        /// Whom to ask.
        target: Target,
        /// As this user; `None`: the default one.
        user: Option<String>,
        /// In this database.
        db: u32,
    },
    /// A GET by HTTP, or HTTPS with a certificate that browsers would trust.
    Http {
        /// HTTPS.
        tls: bool,
        /// Whom to ask.
        target: Target,
        /// What the `Host` header says.
        host: String,
        /// Path and query, from `/` on.
        path: String,
        /// The status it must answer, 100 to 599.
        status: u16,
        /// What the body must hold; `None`: anything.
        contains: Option<Expect>,
    },
    /// A TCP connection that opens.
    Tcp {
        /// Whom to ask.
        target: Target,
    },
    /// A command on this host; status 0 is an answer. The program is named by its absolute path.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
    },
}

impl Probe {
    /// Whom it asks; `None` for a command.
    #[must_use]
    pub const fn target(&self) -> Option<&Target> {
        match self {
            Self::Postgres { target, .. }
            | Self::Mysql { target, .. }
            | Self::Redis { target, .. }
            | Self::Http { target, .. }
            | Self::Tcp { target } => Some(target),
            Self::Command { .. } => None,
        }
    }

    /// Whom it asks, to be changed.
    pub const fn target_mut(&mut self) -> Option<&mut Target> {
        match self {
            Self::Postgres { target, .. }
            | Self::Mysql { target, .. }
            | Self::Redis { target, .. }
            | Self::Http { target, .. }
            | Self::Tcp { target } => Some(target),
            Self::Command { .. } => None,
        }
    }

    /// As whom and in which database it asks, where there are such.
    #[must_use]
    pub fn login(&self) -> (Option<String>, Option<String>) {
        match self {
            Self::Postgres { user, db, .. } => (Some(user.clone()), Some(db.clone())),
            Self::Mysql { user, db, .. } => (Some(user.clone()), db.clone()),
            Self::Redis { user, .. } => (user.clone(), None),
            Self::Http { .. } | Self::Tcp { .. } | Self::Command { .. } => (None, None),
        }
    }

    /// The kind of probe, as written: `postgres`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        match self {
            Self::Postgres { .. } => "postgres",
            Self::Mysql { .. } => "mysql",
            Self::Redis { .. } => "redis",
            Self::Http { .. } => "http",
            Self::Tcp { .. } => "tcp",
            Self::Command { .. } => "command",
        }
    }
}

/// Whom a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// This port of this VM's guest; the driver knows where it is reached.
    Guest(u16),
    /// This host, by name or address, and port.
    Address(String, u16),
}

impl Target {
    /// The port that is asked.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Guest(port) | Self::Address(_, port) => *port,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest(port) => write!(f, "guest:{port}"),
            Self::Address(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Address(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// What an answer must be or hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Exactly this text.
    Text(String),
    /// Something that fits this pattern.
    Pattern(Pattern),
}

impl From<&str> for Expect {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// As in messages: the text, or the pattern between slashes.
impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Pattern(pattern) => write!(f, "/{}/", pattern.0.as_str()),
        }
    }
}

impl Expect {
    /// Whether a whole answer is what was expected.
    #[must_use]
    pub fn is(&self, answer: &str) -> bool {
        match self {
            Self::Text(text) => text == answer,
            Self::Pattern(pattern) => pattern.0.is_match(answer),
        }
    }

    /// Whether what was expected is somewhere in an answer.
    #[must_use]
    pub fn is_in(&self, answer: &str) -> bool {
        match self {
            Self::Text(text) => answer.contains(text.as_str()),
            Self::Pattern(pattern) => pattern.0.is_match(answer),
        }
    }
}

/// A regular expression that takes linear time and bounded memory on every answer (A08).
#[derive(Clone)]
pub struct Pattern(regex::Regex);

/// The longest pattern as written, and the largest as compiled, in bytes.
const LONGEST_PATTERN: usize = 1_024;
const LARGEST_PATTERN: usize = 256 * 1024;

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// Why it is none, or is too large, on one line.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if text.len() > LONGEST_PATTERN {
            return Err(PatternError::Long(text.len()));
        }
        let mut builder = regex::RegexBuilder::new(text);
        builder.size_limit(LARGEST_PATTERN).dfa_size_limit(LARGEST_PATTERN).nest_limit(50);
        match builder.build() {
            Ok(regex) => Ok(Self(regex)),
            Err(regex::Error::CompiledTooBig(_)) => Err(PatternError::Large),
            Err(error) => {
                // Its last line tells the cause, those before it draw the pattern.
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default();
                Err(PatternError::Wrong(last.trim_start_matches("error: ").to_owned()))
            }
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_str().fmt(f)
    }
}

/// Why a pattern was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is longer than 1 KiB.
    #[error("the pattern has {0} bytes, at most {LONGEST_PATTERN} are taken")]
    Long(usize),
    /// It would need more than 256 KiB.
    #[error("the pattern needs more memory than it may; repeat less, as in `x{{1,100}}`")]
    Large,
    /// It is not a pattern.
    #[error("the pattern is wrong: {0}")]
    Wrong(String),
}

/// Where a password is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Secret {
    /// In this file, alone, with or without an end of line.
    File(PathBuf),
    /// In this environment variable of the daemon.
    Variable(String),
}

/// A password, in memory only: it can be used, and not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// The password, for the one who asks for it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Why a password could not be had. Never tells what was read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set, or not text.
    #[error("the environment variable `{0}` is not set")]
    Unset(String),
    /// The file cannot be read.
    #[error("cannot read the password file {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It is a link, a folder, a device or a FIFO (A07).
    #[error("the password file {path} is {kind}, not a plain file")]
    NotPlain {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Others than its owner may read or write it (A06).
    #[error("others than its owner may use the password file {path} (mode {mode:04o})")]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It belongs to somebody else.
    #[error("the password file {path} belongs to user {owner}, not to the daemon or root")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// It is empty, longer than 1 KiB, has several lines or is no text.
    #[error("the password file {0} must hold one line of at most {LONGEST_PASSWORD} bytes")]
    NotOneLine(PathBuf),
}

const LONGEST_PASSWORD: usize = 1_024;

impl Secret {
    /// Reads the password.
    ///
    /// # Errors
    /// [`SecretError`] if it is not there, or not kept as a secret.
    pub fn read(&self) -> Result<Password, SecretError> {
        match self {
            Self::Variable(name) => {
                std::env::var(name).map(Password).map_err(|_| SecretError::Unset(name.clone()))
            }
            Self::File(path) => read_file(path),
        }
    }
}

fn read_file(path: &Path) -> Result<Password, SecretError> {
    use rustix::fs::{Mode, OFlags};
    let failed = |source| SecretError::Io { path: path.to_owned(), source };
    let looked = std::fs::symlink_metadata(path).map_err(failed)?;
    if !looked.is_file() {
        let kind = super::files::kind_of(looked.file_type());
        return Err(SecretError::NotPlain { path: path.to_owned(), kind });
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|cause| failed(cause.into()))?;
    let file = std::fs::File::from(file);
    // What was opened is what counts, not what was looked at before.
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        let kind = super::files::kind_of(about.file_type());
        return Err(SecretError::NotPlain { path: path.to_owned(), kind });
    }
    if about.mode() & 0o077 != 0 {
        return Err(SecretError::Open { path: path.to_owned(), mode: about.mode() & 0o7777 });
    }
    if about.uid() != 0 && about.uid() != rustix::process::geteuid().as_raw() {
        return Err(SecretError::Foreign { path: path.to_owned(), owner: about.uid() });
    }
    let mut text = String::new();
    let not_one_line = || SecretError::NotOneLine(path.to_owned());
    file.take(LONGEST_PASSWORD as u64 + 3).read_to_string(&mut text).map_err(|_| not_one_line())?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.len() > LONGEST_PASSWORD || line.contains(char::is_control) {
        return Err(not_one_line());
    }
    Ok(Password(line.to_owned()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a08_a_pattern_that_would_explode_is_refused_and_a_nasty_one_is_fast() {
        assert_eq!(Pattern::new("(a{1000}){1000}").unwrap_err(), PatternError::Large);
        assert_eq!(Pattern::new(&"a".repeat(1_025)).unwrap_err(), PatternError::Long(1_025));
        assert!(matches!(Pattern::new(&"(".repeat(1_000)).unwrap_err(), PatternError::Wrong(_)));
        let error = Pattern::new("[a-").unwrap_err().to_string();
        assert_eq!(error, "the pattern is wrong: unclosed character class");
        // A back-tracking engine would need 2^40 steps here.
        let nasty = Expect::Pattern(Pattern::new("^(a+)+$").unwrap());
        assert!(!nasty.is(&format!("{}!", "a".repeat(4_096))));
    }

    #[test]
    fn an_answer_is_compared_whole_or_searched() {
        let text = Expect::Text("ok".into());
        assert!(text.is("ok") && !text.is("not ok") && text.is_in("not ok"));
        let pattern = Expect::Pattern(Pattern::new("^[0-9]+$").unwrap());
        assert!(pattern.is("42") && !pattern.is("x42") && !pattern.is_in("x42"));
    }

    #[test]
    fn a06_a_password_is_only_read_from_a_file_that_its_owner_alone_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pw");
        std::fs::write(&path, "hunter2\n").unwrap();
        let read = |mode: u32| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Secret::File(path.clone()).read()
        };
        assert_eq!(read(0o600).unwrap().reveal(), "hunter2");
        assert_eq!(read(0o400).unwrap().reveal(), "hunter2");
        for mode in [0o644, 0o640, 0o604, 0o620, 0o601] {
            assert!(matches!(read(mode), Err(SecretError::Open { mode: found, .. }) if found == mode));
        }
    }

    #[test]
    fn a07_a_password_is_not_read_through_a_link_or_from_anything_but_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("pw"), "hunter2").unwrap();
        std::fs::set_permissions(at("pw"), std::fs::Permissions::from_mode(0o600)).unwrap();
        symlink(at("pw"), at("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        let kind = |path: PathBuf| match Secret::File(path).read() {
            Err(SecretError::NotPlain { kind, .. }) => kind,
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(at("link")), "a symbolic link");
        assert_eq!(kind(at("fifo")), "a FIFO");
        assert_eq!(kind(dir.path().to_owned()), "a folder");
        assert_eq!(kind("/dev/null".into()), "a character device");
    }

    #[test]
    fn a_password_is_one_short_line_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pw");
        let read = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            Secret::File(path.clone()).read()
        };
        assert_eq!(read(b"a b\r\n").unwrap().reveal(), "a b");
        for text in [&b""[..], b"\n", b"a\nb\n", b"\xff\xfe", &[b'a'; 2_000], b"a\0"] {
            assert!(matches!(read(text), Err(SecretError::NotOneLine(_))), "{text:?}");
        }
        assert_eq!(format!("{:?}", read(b"hunter2").unwrap()), "Password(..)");
        let unset = Secret::Variable("HOLDFAST_SURELY_NOT_SET".into()).read().unwrap_err();
        assert_eq!(unset.to_string(), "the environment variable `HOLDFAST_SURELY_NOT_SET` is not set");
    }
}
