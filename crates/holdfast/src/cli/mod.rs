//! The command line: one file per command. Parses, calls, prints; never decides.
//!
//! Exit codes: 0 fine, 1 failed, 2 wrong usage or configuration, 3 not healthy.

#[macro_use]
mod paint;
mod backup;
mod check;
mod complain;
mod demo;
mod doctor;
mod drill;
mod explain;
mod guest;
mod incidents;
mod init;
mod learn;
mod logs;
mod metrics;
mod page;
mod points;
mod prove;
mod reload;
mod replay;
mod rows;
mod simulate;
mod snapshot;
mod status;
mod vm;
mod watch;

pub use paint::on_terminal;

use crate::client::{Client, ClientError};
use crate::config::{self, Config, ConfigErrors, Loaded, Origin};
use clap::{CommandFactory, Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Fault tolerance for virtual machines: sees what is wrong and why, makes it harmless, brings the service
/// back, and checks that it stays back.
#[derive(Parser)]
#[command(name = "holdfast", version, max_term_width = 100, propagate_version = true)]
struct Args {
    /// The configuration file.
    #[arg(long, global = true, env = "HOLDFAST_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The state folder: chooses which daemon is meant, so that several can run side by side.
    #[arg(long, global = true, env = "HOLDFAST_STATE", value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon in the foreground.
    Run,
    /// Have the daemon read its configuration again; if anything is wrong, the one before stays in force.
    Reload {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Tell what is wrong in a configuration file.
    Check {
        /// The file; `holdfast.toml` if none is named.
        file: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write a first configuration file: the VMs that run, disk images in named folders, or the demo VM.
    Init {
        /// Look for disk images here.
        folders: Vec<PathBuf>,
        /// The file to write.
        #[arg(long, short, value_name = "FILE", default_value = config::FILE)]
        output: PathBuf,
        /// Replace it if it exists.
        #[arg(long)]
        force: bool,
    },
    /// Tell what this machine lacks, and how to get it.
    Doctor {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show hosts, VMs, guests and applications, and how they are.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// The same, live.
    Watch {
        /// Print JSON: the status twice a second, a line each.
        #[arg(long)]
        json: bool,
    },
    /// Show what closed incidents and drills have taught: which remedy helped how often, which evidence was seen.
    Learn {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Explain an incident: what was seen, what was ruled out, what was done, and why.
    Explain {
        /// Its number.
        id: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List incidents, newest first.
    Incidents {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Only the open ones.
        #[arg(long)]
        open: bool,
    },
    /// Show what happened lately, line by line.
    Events {
        /// Go on as it happens.
        #[arg(long, short)]
        follow: bool,
        /// Print one JSON document a line.
        #[arg(long)]
        json: bool,
        /// So many lines.
        #[arg(long, short = 'n', default_value_t = 50)]
        lines: usize,
    },
    /// Look at VMs, and tell them what to do.
    Vm {
        #[command(subcommand)]
        command: vm::VmCommand,
    },
    /// Show what VMs and this host have logged, or analyze any log: its patterns, and the lines known to be bad.
    Logs(Box<logs::LogsArgs>),
    /// Save disk images as restore points, and restore them.
    Backup {
        #[command(subcommand)]
        command: Box<backup::BackupCommand>,
    },
    /// Take snapshots of VMs, and go back to them.
    Snapshot {
        #[command(subcommand)]
        command: snapshot::SnapshotCommand,
    },
    /// List all restore points of a VM, snapshots and backups: how far each is proved, its age, what it takes.
    Points(points::PointsArgs),
    /// Prove that a restore point works: boot it in a sandbox without a network, and ask its applications.
    Prove(prove::ProveArgs),
    /// Agree that an incident is ended by going back to a snapshot, which loses what came after it.
    Approve(snapshot::ApproveArgs),
    /// Inject a real fault into a VM on purpose, and measure what happens.
    Drill {
        #[command(subcommand)]
        command: drill::DrillCommand,
    },
    /// Show what is measured of VMs and this host over time, or judge any numbers: what is unusual in them.
    Metrics {
        #[command(subcommand)]
        command: metrics::MetricsCommand,
    },
    /// Run recorded inputs through the engine again, and compare its actions byte for byte.
    Replay(replay::ReplayArgs),
    /// Run simulated worlds from random seeds, with every invariant checked at every step.
    Simulate(simulate::SimulateArgs),
    /// Watch a database come back from the dead five times.
    Demo(demo::DemoArgs),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print a manual page, or write them all.
    Man {
        /// The page of this command, as in `holdfast man vm stop`.
        #[arg(value_name = "COMMAND", conflicts_with = "into")]
        of: Vec<String>,
        /// Write the pages of all commands into this folder.
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
}

/// What a command ended with, for the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0
    Fine,
    /// 1
    Failed,
    /// 2
    Usage,
    /// 3
    NotHealthy,
}

/// What a command says, and the exit code it ends with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// For standard output.
    pub out: String,
    /// For standard error.
    pub err: String,
    /// 0 fine, 1 failed, 2 wrong usage or configuration, 3 not healthy.
    pub code: u8,
}

impl Answer {
    fn say(&self) -> Exit {
        paint::text(&self.out);
        paint::aside(&self.err);
        match self.code {
            0 => Exit::Fine,
            2 => Exit::Usage,
            3 => Exit::NotHealthy,
            _ => Exit::Failed,
        }
    }
}

/// What went wrong, for people.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The daemon did not answer well.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The daemon could not start or ended badly.
    #[error(transparent)]
    Daemon(#[from] crate::daemon::DaemonError),
    /// A drill could not be held.
    #[error(transparent)]
    Drill(#[from] crate::drill::DrillError),
    /// A file or the terminal failed.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Something else, said whole.
    #[error("{error}")]
    Said {
        /// What failed.
        error: String,
        /// Why.
        cause: String,
        /// The way out.
        hint: String,
    },
    /// What was named cannot be the name of anything.
    #[error("{error}")]
    Usage {
        /// What was named.
        error: String,
        /// Why it is none.
        cause: String,
        /// The way out.
        hint: String,
    },
}

impl CliError {
    /// What a command that fails so exits with.
    const fn code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Usage { .. } => 2,
            Self::Client(_) | Self::Daemon(_) | Self::Drill(_) | Self::Io { .. } | Self::Said { .. } => 1,
        }
    }
}

/// Runs one command.
pub fn main() -> ExitCode {
    let args = Args::try_parse().unwrap_or_else(|wrong| complain::refuse(&wrong));
    let ended = dispatch(args);
    if paint::could_not_say() {
        return ExitCode::from(1); // and that is told already
    }
    match ended {
        Ok(Exit::Fine) => ExitCode::SUCCESS,
        Ok(Exit::Failed) => ExitCode::from(1),
        Ok(Exit::Usage) => ExitCode::from(2),
        Ok(Exit::NotHealthy) => ExitCode::from(3),
        Err(error) => {
            complain::complain(&error);
            ExitCode::from(error.code())
        }
    }
}

fn dispatch(args: Args) -> Result<Exit, CliError> {
    let place = Place { config: args.config, state: args.state };
    match args.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "holdfast", &mut script);
            paint::text(&String::from_utf8_lossy(&script));
            Ok(Exit::Fine)
        }
        Command::Man { of, into } => manual(&of, into.as_deref()),
        Command::Check { file, json } => {
            let place = Place { config: file.or(place.config), ..place };
            Ok(check::check(&place, json, paint::on_terminal(&std::io::stderr())).say())
        }
        Command::Init { folders, output, force } => {
            let asked =
                init::Init { path: output, force, folders, demo: guest::found(), ..init::Init::default() };
            Ok(init::init(&asked).say())
        }
        Command::Doctor { json } => wait_for(doctor::doctor(&place, json)),
        Command::Backup { command } => backup::backup(&command, &place),
        Command::Metrics { command } => metrics::metrics(&command, &place),
        Command::Logs(args) => logs::logs(&args, &place),
        Command::Replay(replay) => replay::replay(&replay, &place),
        Command::Simulate(simulate) => simulate::simulate(&simulate),
        Command::Run => {
            let (config, file) = place.load()?;
            let origin = Origin { file, state: place.state };
            crate::daemon::run(config, origin).map(|()| Exit::Fine).map_err(CliError::from)
        }
        Command::Reload { json } => reload::reload(&place, json),
        Command::Status { json } => wait_for(status::status(&place.client()?, json)),
        Command::Watch { json } => wait_for(watch::watch(&place.client()?, json)),
        Command::Learn { json } => wait_for(learn::learn(&place.client()?, json)),
        Command::Explain { id, json } => wait_for(explain::explain(&place.client()?, id, json)),
        Command::Incidents { json, open } => wait_for(incidents::incidents(&place.client()?, json, open)),
        Command::Events { follow, json, lines } => {
            wait_for(incidents::events(&place.client()?, follow, json, lines))
        }
        Command::Vm { command } => wait_for(vm::vm(&place.client()?, command)),
        Command::Snapshot { command } => wait_for(snapshot::snapshot(&place.client()?, command)),
        Command::Points(args) => wait_for(points::points(&place.client()?, &args)),
        Command::Prove(args) => wait_for(prove::prove(&place.client()?, &args)),
        Command::Approve(args) => wait_for(snapshot::approve(&place.client()?, &args)),
        Command::Drill { command } => wait_for(drill::drill(&place, command)),
        Command::Demo(demo) => wait_for(demo::demo(&demo)),
    }
}

fn wait_for<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| CliError::Io { what: "start".into(), source })?;
    runtime.block_on(work)
}

fn manual(of: &[String], into: Option<&Path>) -> Result<Exit, CliError> {
    let mut all = Args::command();
    if let Some(folder) = into {
        let written = clap_mangen::generate_to(all, folder);
        written.map_err(|source| CliError::Io {
            what: format!("write the pages into {}", folder.display()),
            source,
        })?;
        return Ok(Exit::Fine);
    }
    all.build();
    let mut command = &all;
    for name in of {
        command = command.find_subcommand(name).ok_or_else(|| CliError::Usage {
            error: format!("there is no command {}", crate::config::quote(&of.join(" "))),
            cause: format!(
                "{} has no {}",
                command.get_bin_name().unwrap_or("holdfast"),
                crate::config::quote(name)
            ),
            hint: "`holdfast help` lists them".into(),
        })?;
    }
    let mut page = Vec::new();
    let printed = clap_mangen::Man::new(command.clone()).render(&mut page);
    printed.map_err(|source| CliError::Io { what: "print the manual page".into(), source })?;
    paint::text(&String::from_utf8_lossy(&page));
    Ok(Exit::Fine)
}

/// Where configuration and state are, as named on the command line or found.
struct Place {
    config: Option<PathBuf>,
    state: Option<PathBuf>,
}

impl Place {
    /// This file, with the state that it names.
    #[cfg(test)]
    fn of(file: &Path) -> Self {
        Self { config: Some(file.to_owned()), state: None }
    }

    /// The configuration file: named, in this folder, or the system's.
    fn file(&self) -> PathBuf {
        let system = Path::new("/etc/holdfast/holdfast.toml");
        match &self.config {
            Some(file) => file.clone(),
            None if Path::new(config::FILE).exists() || !system.exists() => config::FILE.into(),
            None => system.into(),
        }
    }

    /// What the file says, with what should be said about it.
    fn examine(&self) -> Result<Loaded, ConfigErrors> {
        Config::load_at(&self.file(), self.state.as_deref())
    }

    /// What the file says, and its whole path.
    fn load(&self) -> Result<(Config, PathBuf), CliError> {
        let loaded = self.examine()?;
        if !loaded.warnings.is_empty() {
            let colour = paint::on_terminal(&std::io::stderr());
            paint::aside(&format!("{}\n", loaded.warnings.render(config::Kind::Warning, colour)));
        }
        Ok((loaded.config, loaded.path))
    }

    /// The way to the daemon: of the named state folder, of the configuration, or of the default folder.
    fn client(&self) -> Result<Client, CliError> {
        if self.state.is_none() && (self.config.is_some() || self.file().exists()) {
            return Ok(Client::new(&Config::places(&self.file())?.1));
        }
        Ok(Client::new(&config::socket_in(&self.state_folder()?)))
    }

    /// The state folder, chosen in the same way.
    fn state_folder(&self) -> Result<PathBuf, CliError> {
        if let Some(state) = &self.state {
            return Ok(std::path::absolute(state).unwrap_or_else(|_| state.clone()));
        }
        if self.config.is_some() || self.file().exists() {
            return Ok(Config::places(&self.file())?.0);
        }
        config::default_state().ok_or_else(|| CliError::Said {
            error: "cannot tell which daemon is meant".into(),
            cause: "there is no configuration file here, and no home folder".into(),
            hint: "name its state folder with --state DIR".into(),
        })
    }
}

/// Prints a document as JSON.
fn print_json_line<T: serde::Serialize>(document: &T) -> Result<(), CliError> {
    let line = serde_json::to_string(document).map_err(std::io::Error::from);
    say!("{}", line.map_err(|source| CliError::Io { what: "print JSON".into(), source })?);
    Ok(())
}

fn print_json<T: serde::Serialize>(document: &T) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(document).map_err(std::io::Error::from);
    let text = text.map_err(|source| CliError::Io { what: "print JSON".into(), source })?;
    say!("{text}");
    Ok(())
}
