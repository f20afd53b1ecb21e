//! The configuration as meant. A [`Config`] cannot be wrong: it only comes from [`Config::load`] and
//! [`Config::examine`], which refuse what is, all at once, each with its place, its cause and a way out.
//!
//! Never repairs or guesses, and never runs, opens or contacts anything that the file names.

mod app;
mod change;
#[cfg(test)]
mod examples;
mod file;
mod files;
mod limits;
mod logs;
mod number;
mod probe;
mod problem;
mod protect;
mod rules;
mod section;
mod settings;
#[cfg(test)]
mod tests;
pub mod units;
mod vm;

pub use app::{AppConfig, Expect, Password, Probe, Secret, SecretError, Target};
pub use change::VmChange;
pub use file::FIRST;
pub use limits::Limits;
pub use logs::{LogConfig, LogFrom, SourcesConfig, TlsConfig};
pub use number::{NumberConfig, NumberFrom};
pub use problem::{ConfigErrors, Kind, Problem, Remarks};
pub use protect::{BackupConfig, ProtectConfig, RepositoryConfig, SnapshotsConfig};
pub use units::{quote, quote_path, tame, write_duration, write_size};

use files::FileUse;
use holdfast_core::policy::{BrakePolicy, Period, Policies, VmPolicy};
use holdfast_core::subject::{AppName, HostName, MAX_NAME, VmName};
use holdfast_core::time::Duration;
use holdfast_drivers::qemu::QemuVm;
use problem::Problems;
use section::Section;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The name of the configuration file, where none is named.
pub const FILE: &str = "holdfast.toml";
/// So many VMs at most on one host, and so many applications in all of them.
const MOST_VMS: usize = 4_096;
const MOST_APPS: usize = 4_096;
/// The longest path of a Unix socket, in bytes (`sun_path` in unix(7), without its final NUL).
const LONGEST_SOCKET: usize = 107;

/// What one host's daemon is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The name of this host.
    pub host: HostName,
    /// The folder of journal, leases and run records; absolute.
    pub state: PathBuf,
    /// The socket that the command line talks to; absolute, at most 107 bytes.
    pub socket: PathBuf,
    /// How often everything is asked, 100 ms to 60 s.
    pub period: Duration,
    /// What closed incidents have taught is used; else it is only counted.
    pub use_lessons: bool,
    /// When too many look failed (I11).
    pub brake: BrakePolicy,
    /// How much of what VMs and host log is kept.
    pub logs: LogsConfig,
    /// How much of what is measured is kept.
    pub numbers: NumbersConfig,
    /// The user that QEMU runs as, where a VM names no other.
    pub user: Option<String>,
    /// Where logs come from that are no VM's own.
    pub sources: SourcesConfig,
    /// Where restore points are kept, by name.
    pub repositories: BTreeMap<String, RepositoryConfig>,
    /// The VMs; at least one.
    pub vms: BTreeMap<VmName, VmConfig>,
}

/// What is done with logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogsConfig {
    /// Bytes that are kept on disk.
    pub keep: u64,
    /// What is older leaves.
    pub keep_for: Duration,
}

/// What is done with numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumbersConfig {
    /// Bytes that are kept on disk.
    pub keep: u64,
}

/// One VM.
#[derive(Clone, Debug, PartialEq)]
pub struct VmConfig {
    /// What its driver must know. Each port that a probe asks is among its forwards.
    pub spec: QemuVm,
    /// What is wanted for it.
    pub policy: VmPolicy,
    /// Its applications.
    pub apps: BTreeMap<AppName, AppConfig>,
    /// Its logs, by name.
    pub logs: BTreeMap<String, LogConfig>,
    /// Its numbers that a user defined, by name.
    pub numbers: BTreeMap<String, NumberConfig>,
    /// Which restore points are made of it.
    pub protect: ProtectConfig,
}

impl VmConfig {
    /// What the guest agent runs just before a snapshot or a backup.
    pub fn hooks(&self) -> Vec<Vec<String>> {
        self.apps.values().filter_map(|app| app.quiesce.clone()).collect()
    }
}

/// Where the configuration of a daemon comes from, so that it can be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file, absolute.
    pub file: PathBuf,
    /// The state folder that was named beside it (`--state DIR`).
    pub state: Option<PathBuf>,
}

/// A configuration from a file, with what should be said about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// The file, absolute.
    pub path: PathBuf,
    /// What makes protection or safety weaker than it could be.
    pub warnings: Remarks,
}

impl Config {
    /// How a VM is backed up, and into which repository; nothing if it is not.
    pub fn backup_of(&self, vm: &VmName) -> Option<(&BackupConfig, &RepositoryConfig)> {
        let backup = self.vms.get(vm)?.protect.backup.as_ref()?;
        Some((backup, self.repositories.get(&backup.to)?))
    }

    /// Reads and checks a file, and looks at the files that it names.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(path: &Path) -> Result<Loaded, ConfigErrors> {
        Self::load_at(path, None)
    }

    /// Likewise, with another state folder if one is named beside it (`--state DIR`).
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load_at(path: &Path, state: Option<&Path>) -> Result<Loaded, ConfigErrors> {
        Self::examine_beside(&Self::read(path)?, path, state, None)
    }

    fn read(path: &Path) -> Result<String, ConfigErrors> {
        file::read(path).map_err(|problem| {
            let problems = Problems::default();
            problems.push(problem);
            ConfigErrors(problems.into_remarks(&path.to_string_lossy(), ""))
        })
    }

    /// The state folder and the socket that a file names, whatever else is wrong with it: a daemon that runs
    /// goes on with what it had, and can be asked while its file is being edited.
    ///
    /// # Errors
    /// Everything that is wrong, if it is so wrong that not even these can be told.
    pub fn places(path: &Path) -> Result<(PathBuf, PathBuf), ConfigErrors> {
        let (text, problems, folder) = (Self::read(path)?, Problems::default(), folder_of(path));
        let found = file::parse(&text, &problems).and_then(|table| {
            let top = Section::new("the top level".into(), 0..0, table.get_ref(), settings::TOP, &problems);
            let (period, patterns) = (top.time("period"), Cell::new(0));
            let (folder, problems) = (folder.as_path(), &problems);
            let frame = Frame { folder, period, period_place: None, user: None, patterns, problems };
            let (state, socket) = places(&top, &frame, &Surroundings::here());
            state.zip(socket)
        });
        found.ok_or_else(|| ConfigErrors(problems.into_remarks(&path.to_string_lossy(), &text)))
    }

    /// Reads and checks what is to replace `running`, which was made from the same origin.
    ///
    /// # Errors
    /// Everything that is wrong, at once; also what a running daemon cannot change.
    pub fn load_again(origin: &Origin, running: &Self) -> Result<Loaded, ConfigErrors> {
        let text = Self::read(&origin.file)?;
        let loaded = Self::examine_beside(&text, &origin.file, origin.state.as_deref(), Some(running))?;
        let problems = Problems::default();
        loaded.config.refuse_moves(running, &text, &problems);
        if problems.count() > 0 {
            return Err(ConfigErrors(problems.into_remarks(&origin.file.to_string_lossy(), &text)));
        }
        Ok(loaded)
    }

    /// Checks a text as if it stood in the file `path`, and looks at the files that it names.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn examine(text: &str, path: &Path) -> Result<Loaded, ConfigErrors> {
        Self::examine_beside(text, path, None, None)
    }

    /// Likewise, with another state folder; beside a configuration that is in force, what that does not name must be there.
    fn examine_beside(
        text: &str,
        path: &Path,
        state: Option<&Path>,
        running: Option<&Self>,
    ) -> Result<Loaded, ConfigErrors> {
        let problems = Problems::default();
        let warnings = Problems::default();
        let origin = path.to_string_lossy();
        let folder = folder_of(path);
        let (config, uses) = understand(text, &folder, &Surroundings::here(), &problems, &warnings);
        let config = match state {
            Some(state) => config.map(|config| config.at_state(state)),
            None => config,
        };
        let ran = |vm: &VmName| config.as_ref().is_some_and(|config| has_run(&config.state, vm));
        let was_named = |file: &FileUse| running.is_none_or(|running| running.names(file));
        files::check(&uses, |file| ran(&file.vm) && was_named(file), &problems, &warnings);
        match config {
            Some(config) if problems.count() == 0 => {
                vm::warn_of_unset_variables(&config, &warnings);
                let path = folder.join(path.file_name().unwrap_or(path.as_os_str()));
                Ok(Loaded { config, path, warnings: warnings.into_remarks(&origin, text) })
            }
            Some(_) | None => Err(ConfigErrors(problems.into_remarks(&origin, text))),
        }
    }

    /// Whether one of its VMs has this file.
    fn names(&self, file: &FileUse) -> bool {
        self.vms.get(&file.vm).is_some_and(|vm| vm::files(&vm.spec).any(|path| *path == file.path))
    }

    /// Checks a text as if it stood in the file `origin`, without looking at any file.
    #[cfg(test)]
    fn parse_in(text: &str, origin: &Path, here: &Surroundings) -> Result<Self, ConfigErrors> {
        let problems = Problems::default();
        let warnings = Problems::default();
        match understand(text, &folder_of(origin), here, &problems, &warnings).0 {
            Some(config) if problems.count() == 0 => Ok(config),
            Some(_) | None => Err(ConfigErrors(problems.into_remarks(&origin.to_string_lossy(), text))),
        }
    }

    /// A right text, without looking at any file.
    #[cfg(test)]
    pub fn parsed(text: &str) -> Self {
        let here = Surroundings { host: "atlas".into(), root: true, state_home: None };
        Self::parse_in(text, Path::new("/etc/holdfast.toml"), &here).expect("a right text")
    }

    /// What the engine must know of it.
    #[must_use]
    pub fn policies(&self) -> Policies {
        Policies {
            use_lessons: self.use_lessons,
            vms: self.vms.iter().map(|(name, vm)| (name.clone(), vm.policy.clone())).collect(),
            brake: self.brake,
            period: Period(self.period),
        }
    }

    /// The same with another state folder (`--state DIR`); the socket moves along.
    fn at_state(mut self, state: &Path) -> Self {
        self.state = std::path::absolute(state).unwrap_or_else(|_| state.to_owned());
        self.socket = socket_in(&self.state);
        self
    }
}

/// What the defaults depend on.
#[derive(Clone, Debug)]
pub struct Surroundings {
    host: String,
    root: bool,
    /// `$XDG_STATE_HOME`, or what stands for it.
    state_home: Option<PathBuf>,
}

impl Surroundings {
    /// This machine and this user.
    #[must_use]
    pub fn here() -> Self {
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            root: rustix::process::geteuid().is_root(),
            state_home: folder("XDG_STATE_HOME")
                .or_else(|| folder("HOME").map(|home| home.join(".local/state"))),
        }
    }

    fn host(&self) -> HostName {
        let safe = safe_name(&self.host).and_then(|name| name.parse().ok());
        safe.unwrap_or_else(|| "host".parse().expect("a plain word is a name"))
    }

    fn state(&self) -> Option<PathBuf> {
        if self.root {
            return Some("/var/lib/holdfast".into());
        }
        self.state_home.as_ref().map(|home| home.join("holdfast"))
    }
}

/// What is left of a text that may stand in a name: `Atlas.Example` is `atlas.example`; `None` if nothing is.
#[must_use]
pub fn safe_name(text: &str) -> Option<String> {
    let mut safe = String::new();
    for c in text.chars().map(|c| c.to_ascii_lowercase()) {
        let fits = c.is_ascii_alphanumeric() || (!safe.is_empty() && "-_.".contains(c));
        if fits && !(c == '.' && safe.ends_with('.')) && safe.len() < MAX_NAME {
            safe.push(c);
        }
    }
    (!safe.is_empty()).then_some(safe)
}

/// The state folder where none is named: what the command line looks in without a configuration.
#[must_use]
pub fn default_state() -> Option<PathBuf> {
    Surroundings::here().state()
}

/// The socket in a state folder.
#[must_use]
pub fn socket_in(state: &Path) -> PathBuf {
    state.join("holdfast.sock")
}

/// Whether a VM was ever started with this state folder: what is kept of its runs is there.
fn has_run(state: &Path, vm: &VmName) -> bool {
    state.join("run").join(vm.as_str()).join("run").exists()
}

/// The folder that relative paths start at.
fn folder_of(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| Path::new("/").join(path));
    absolute.parent().unwrap_or(Path::new("/")).to_owned()
}

/// What a whole file shares with the readers of its parts.
struct Frame<'d> {
    folder: &'d Path,
    period: Duration,
    /// Where the period is written, if it is.
    period_place: Option<std::ops::Range<usize>>,
    user: Option<String>,
    /// How many patterns were compiled so far.
    patterns: Cell<usize>,
    problems: &'d Problems,
}

/// Makes a configuration of a text, and tells which files it names. Notes everything that is wrong.
fn understand(
    text: &str,
    folder: &Path,
    here: &Surroundings,
    problems: &Problems,
    warnings: &Problems,
) -> (Option<Config>, Vec<FileUse>) {
    let Some(table) = file::parse(text, problems) else { return (None, Vec::new()) };
    if table.get_ref().is_empty() {
        problems.push(Problem::whole("the configuration is empty", "it names no VM", FIRST));
        return (None, Vec::new());
    }
    let top = Section::new("the top level".into(), 0..0, table.get_ref(), settings::TOP, problems);
    let frame = Frame {
        folder,
        period: top.time("period"),
        period_place: top.has("period").then(|| top.place("period")),
        user: vm::user(&top),
        patterns: Cell::new(0),
        problems,
    };
    let host = vm::name(&top, "host").unwrap_or_else(|| here.host());
    let brake = brake(&top, &frame);
    let (state, socket) = places(&top, &frame, here);
    let (logs, sources) = logs::read(&top, &frame);
    let mut claims = rules::Claims::default();
    let vms = vms(&top, &frame, &mut claims);
    claims.check(&vms, problems, warnings);
    let repositories = protect::repositories(&top, &frame);
    protect::check(&claims, &repositories, problems);
    let config = state.zip(socket).map(|(state, socket)| Config {
        host,
        state,
        socket,
        period: frame.period,
        use_lessons: top.word("learn") == "use",
        brake,
        logs,
        numbers: NumbersConfig {
            keep: top.section("numbers", "[numbers]".into(), settings::NUMBERS).size("keep"),
        },
        user: frame.user,
        sources,
        repositories,
        vms,
    });
    (config, claims.files)
}

fn brake(top: &Section<'_>, frame: &Frame<'_>) -> BrakePolicy {
    let table = top.section("brake", "[brake]".into(), settings::BRAKE);
    let brake = BrakePolicy {
        vms: table.count("vms"),
        percent: table.count("percent"),
        within: table.time("within"),
    };
    rules::brake(&brake, &table, frame);
    brake
}

/// The state folder and the socket.
fn places(top: &Section<'_>, frame: &Frame<'_>, here: &Surroundings) -> (Option<PathBuf>, Option<PathBuf>) {
    let written = |key| top.text(key).map(|path| frame.folder.join(path.into_inner()));
    let state = written("state").or_else(|| here.state());
    if state.is_none() && !top.has("state") {
        let cause = "neither XDG_STATE_HOME nor HOME is set";
        let hint = "write `state = \"FOLDER\"` above all tables";
        top.refuse(Problem::whole("no folder for the state is known", cause, hint));
    }
    let socket = written("socket").or_else(|| state.as_deref().map(socket_in));
    if let Some(length) =
        socket.as_ref().map(|path| path.as_os_str().len()).filter(|len| *len > LONGEST_SOCKET)
    {
        let key = if top.has("socket") { "socket" } else { "state" };
        let error = "the path of the socket is too long";
        let cause = format!("it has {length} bytes, the system takes at most {LONGEST_SOCKET}");
        let hint = "name a shorter path, as in `socket = \"/run/holdfast.sock\"`";
        top.refuse(Problem::at(top.place(key), error, cause, hint));
    }
    (state, socket)
}

fn vms(top: &Section<'_>, frame: &Frame<'_>, claims: &mut rules::Claims) -> BTreeMap<VmName, VmConfig> {
    let mut vms = BTreeMap::new();
    let sections = top.sections("vm", |name| format!("[vm.{}]", units::bare(name)), settings::VM);
    if sections.is_empty() && frame.problems.count() == 0 {
        top.refuse(Problem::at(top.place("vm"), "no VM is configured", "there is no `[vm.NAME]`", FIRST));
    }
    if sections.len() > MOST_VMS {
        let error = format!("{} VMs are configured", sections.len());
        let hint = "spread them over more hosts";
        let cause = format!("one host runs at most {MOST_VMS}");
        top.refuse(Problem::at(top.place("vm"), error, cause, hint));
        return vms;
    }
    let mut apps = 0;
    for (name, section) in sections {
        claims.names.insert(name.get_ref().clone());
        let Some(name) = vm::name_of(&name, "a VM", frame.problems) else { continue };
        if let Some(vm) = vm::read(&name, &section, frame, claims, &mut apps) {
            vms.insert(name, vm);
        }
    }
    vms
}
