//! One backup: the moment, the process that saves it, and the end, whatever happens to any of them.

use super::BackupDoc;
use super::prune::PruneDoc;
use crate::act::chain;
use crate::config::{Limits, RepositoryConfig};
use crate::protect::{ProtectError, Protector};
use crate::sense::program::program;
use holdfast_core::action::Work;
use holdfast_core::lease::Incarnation;
use holdfast_core::subject::VmName;
use holdfast_core::written::Marks;
use holdfast_drivers::Driver;
use holdfast_drivers::qemu::{Moment, Qemu, Still};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How long QEMU may take to begin or to end.
const LIMIT: Duration = Duration::from_secs(30);
/// What the guest may feel of a beginning is over by then: hooks, freeze and thaw.
const FROZEN: Duration = Duration::from_secs(240);
/// The end of a VM is seen within this time.
const SEEN: Duration = Duration::from_secs(2);
/// The longest line, and the most that is kept of errors (bytes).
const LINE_MOST: usize = 64 << 10;
/// The most that is read of a list of points (bytes).
const LIST_MOST: u64 = 32 << 20;
/// Of two that have to go where memory is short, it is this one, and not the daemon.
const SPARED_LAST: &str = "500";

/// What is to be done.
pub struct Job {
    pub vm: VmName,
    pub to: String,
    pub repository: RepositoryConfig,
    pub driver: Arc<Qemu>,
    pub protector: Protector,
    /// The state folder, for what is kept where the daemon has no home.
    pub state: PathBuf,
    /// Who asked.
    pub by: String,
    /// What its agent runs before.
    pub hooks: Vec<Vec<String>>,
    /// How fast it is read at most.
    pub limits: Limits,
    pub cancel: CancellationToken,
}

/// What is told of it.
pub enum News {
    Begun(Moment),
    /// The VM is off, and its disk can be read.
    Off {
        size: u64,
        warning: Option<String>,
    },
    Progress(Progress),
    Ended(End),
    /// What held the disk still may still do so.
    Left,
    /// Its points were pruned, or were to be.
    Pruned(PruneDoc),
}

/// How it ended.
pub enum End {
    Done { id: String, progress: Progress, why_all: Option<String>, warning: Option<String> },
    Failed { error: String, cause: String, hint: String },
    Cancelled,
}

impl End {
    /// The same of a VM that was ended while it was read.
    fn of_one_that_ended(self) -> Self {
        match self {
            Self::Failed { error, cause, .. } if is_of_disk(&error, &cause) => Self::Failed {
                error,
                cause: "the vm was ended while it was read, as by a stop, or to go back to a restore point: the moment went \
                        with its QEMU"
                    .into(),
                hint: "no point was made, and none was harmed; what was saved is not saved twice: try again once it runs"
                    .into(),
            },
            end @ (Self::Failed { .. } | Self::Done { .. } | Self::Cancelled) => end,
        }
    }
}

/// Whether it failed to read the disk, and not by its repository.
fn is_of_disk(error: &str, cause: &str) -> bool {
    cause.contains("NBD")
        || cause.contains("the disk cannot be read")
        || error.starts_with("cannot read the disk")
}

/// What `backup image` tells: how far it is and, in its last line, what came of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Progress {
    size: u64,
    read: u64,
    skipped: u64,
    added: u64,
    resumed: u64,
    id: Option<String>,
    why_all: Option<String>,
    warning: Option<String>,
}

impl Progress {
    pub fn note(&self, doc: &mut BackupDoc) {
        (doc.size, doc.read, doc.skipped, doc.added) = (self.size, self.read, self.skipped, self.added);
        doc.resumed = self.resumed;
    }
}

impl Job {
    /// Makes a restore point, telling how it goes.
    pub async fn run<F: Future<Output = bool>>(&self, tell: &impl Fn(News) -> F) -> End {
        if self.driver.places(&self.vm).pid.is_none() {
            return self.run_off(tell).await;
        }
        let _held = self.protector.hold(&self.vm);
        let written = self.protector.written(&self.vm).await;
        let moment = match self.hold_still().await {
            Ok(moment) => moment,
            Err(cause) => {
                tell(News::Left).await;
                let hint = || "no point was made; `holdfast vm show` tells how it stands".into();
                return End::Failed {
                    error: format!("cannot hold the disk of vm `{}` still", self.vm),
                    hint: cause.way_out().unwrap_or_else(hint),
                    cause: chain(&cause),
                };
            }
        };
        let read = self.driver.places(&self.vm).incarnation;
        tell(News::Begun(moment.clone())).await;
        let end = self.save(self.words_of_moment(&moment, &written), tell).await;
        let end = self.told_why(end, read).await;
        let made = matches!(end, End::Done { .. });
        if let Err(error) = self.driver.end_backup(&self.vm, &moment, made, LIMIT).await {
            let why = chain(&error);
            warn!(vm = %self.vm, why, "what held the disk still is taken down later");
            tell(News::Left).await;
        }
        end
    }

    /// What saved it sees no more than a broken pipe where the QEMU that it read has ended, and our driver hears of that end at
    /// about the same time.
    async fn told_why(&self, end: End, read: Option<Incarnation>) -> End {
        let gone = || self.driver.places(&self.vm).incarnation != read;
        let until = Instant::now() + SEEN;
        while matches!(end, End::Failed { .. }) && !gone() && Instant::now() < until {
            tokio::time::sleep(SEEN / 20).await;
        }
        if gone() { end.of_one_that_ended() } else { end }
    }

    /// The engine is told before the guest may be frozen, so that this is taken for no fault.
    async fn hold_still(&self) -> Result<Moment, ProtectError> {
        self.protector.announce(&self.by, &self.vm, Work::Freeze, FROZEN).await?;
        let still = Still { to: self.to.clone(), hooks: self.hooks.clone() };
        let moment = self.driver.begin_backup(&self.vm, &still, LIMIT).await;
        self.protector.work_done(&self.by, &self.vm, Work::Freeze).await;
        Ok(moment?)
    }

    /// Runs the process that saves it, with these words.
    pub(super) async fn save<F: Future<Output = bool>>(
        &self,
        words: Vec<String>,
        tell: &impl Fn(News) -> F,
    ) -> End {
        let failed = |cause: String| End::Failed {
            error: format!("cannot save vm `{}`", self.vm),
            cause,
            hint: "no point was made, and none was harmed; what was saved is not saved twice".into(),
        };
        let mut command = child(&words, &self.repository, &self.state);
        let mut child = match command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) => return failed(format!("the program that saves it did not start: {error}")),
        };
        spare_others(&child);
        let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
            return failed("the program that saves it says nothing".into());
        };
        let (said, errors) = tokio::select! {
            both = async { tokio::join!(hear(out, tell), last_words(err)) } => both,
            () = self.cancel.cancelled() => {
                let _gone = child.start_kill();
                let _ended = child.wait().await;
                return End::Cancelled;
            }
        };
        match (child.wait().await, said) {
            (Ok(status), Some(mut progress)) if status.success() && progress.id.is_some() => {
                let (id, why_all) = (progress.id.take().unwrap_or_default(), progress.why_all.take());
                let warning = progress.warning.take();
                End::Done { id, progress, why_all, warning }
            }
            (Ok(status), _) if errors.is_empty() => failed(format!("the program that saves it: {status}")),
            (Err(error), _) => failed(format!("the program that saves it was lost: {error}")),
            (Ok(_), _) => match Said::found(&errors) {
                Some(Said { error, cause, hint }) => {
                    let told = |text: Option<String>| text.unwrap_or_default();
                    End::Failed { error, cause: told(cause), hint: told(hint) }
                }
                None => failed(crate::config::tame(errors.trim())),
            },
        }
    }

    fn words_of_moment(&self, moment: &Moment, written: &Marks) -> Vec<String> {
        let written = Some(written).filter(|written| !written.is_empty());
        let written = written.and_then(|written| serde_json::to_string(written).ok());
        let taken = format!("--taken={}", moment.taken);
        let mut words: Vec<&str> = vec![&taken, "--begins", &moment.begins, "--holes", moment.holes];
        words.extend(moment.frozen.then_some("--consistent"));
        words.extend(moment.bitmaps.iter().flat_map(|bitmap| ["--bitmap", bitmap]));
        words.extend(written.iter().flat_map(|written| ["--written", written]));
        let more = words.into_iter().map(ToOwned::to_owned);
        words_of(&moment.uri, &self.vm, self.limits).into_iter().chain(more).collect()
    }
}

/// The words that have a disk saved which is offered there.
pub fn words_of(uri: &str, vm: &VmName, limits: Limits) -> Vec<String> {
    let words = ["backup", "image", uri, "--json", "--progress", "--of", vm.as_str()];
    words.map(ToOwned::to_owned).into_iter().chain(limits.words()).collect()
}

/// The words of `holdfast backup`, run by this program at the lowest priority, with a repository.
pub fn child(words: &[String], repository: &RepositoryConfig, state: &Path) -> Command {
    ourselves(&["nice", "-n", "19", "ionice", "-c", "3", "-t"], words, repository, state)
}

/// The same at a priority that comes `before`. What this program is called is no matter: it is the one that runs, also after
/// another was installed in its place.
pub fn ourselves(before: &[&str], words: &[String], repository: &RepositoryConfig, state: &Path) -> Command {
    let exe = format!("/proc/{}/exe", std::process::id());
    let mut argv: Vec<String> = before.iter().copied().chain([&*exe]).map(Into::into).collect();
    argv.extend_from_slice(words);
    argv.extend(["--repo".to_owned(), repository.path.to_string()]);
    if let Some(key) = &repository.key_file {
        argv.extend(["--key-file".to_owned(), key.display().to_string()]);
    }
    if let Some(file) = &repository.s3_file {
        argv.extend(["--s3-file".to_owned(), file.display().to_string()]);
    }
    let mut command = program(&argv).expect("there are words");
    // Where its keys are, and what it keeps to be faster the next time. A service has no home.
    command.env("XDG_CACHE_HOME", state.join("cache"));
    for name in ["HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    command
}

fn spare_others(child: &Child) {
    let Some(pid) = child.id() else { return };
    if let Err(error) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), SPARED_LAST) {
        tracing::debug!(%error, "a backup is spared as we are where memory is short");
    }
}

/// Hears line after line; the last one.
async fn hear<F: Future<Output = bool>>(out: ChildStdout, tell: &impl Fn(News) -> F) -> Option<Progress> {
    let (mut reader, mut line, mut last) = (BufReader::new(out), Vec::new(), None);
    loop {
        line.clear();
        let mut bounded = (&mut reader).take(LINE_MOST as u64);
        match bounded.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return last,
            Ok(_) => {}
        }
        if let Ok(progress) = serde_json::from_slice::<Progress>(&line) {
            tell(News::Progress(progress.clone())).await;
            last = Some(progress);
        }
    }
}

pub async fn last_words(err: ChildStderr) -> String {
    let (mut kept, mut err) = (Vec::new(), err);
    let _cut = (&mut err).take(LINE_MOST as u64).read_to_end(&mut kept).await;
    let _rest = tokio::io::copy(&mut err, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).into_owned()
}

/// When the newest point of a VM in a repository was taken, in seconds since 1970; nothing if there is none. Or why that
/// cannot be told.
pub async fn newest(repository: &RepositoryConfig, vm: &VmName, state: &Path) -> Result<Option<f64>, String> {
    let points = list(repository, vm, state).await?;
    Ok(points.iter().rev().find_map(|point| point["taken"].as_f64()))
}

/// The points of a VM in a repository, oldest first, as `backup list --json` tells them; or why they cannot be told.
pub async fn list(
    repository: &RepositoryConfig,
    vm: &VmName,
    state: &Path,
) -> Result<Vec<serde_json::Value>, String> {
    let words = ["backup", "list", "--json", "--of", vm.as_str()].map(ToOwned::to_owned);
    let said = ask(&words, repository, state).await.map_err(|said| said.to_string())?;
    serde_json::from_slice(&said).map_err(|error| error.to_string())
}

/// What our own command line says when it fails.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Said {
    /// What failed.
    pub error: String,
    /// Why, if that is told.
    pub cause: Option<String>,
    /// The way out, if that is told.
    #[serde(default)]
    pub hint: Option<String>,
}

impl Said {
    /// What it wrote, tamed; all of it where that is nothing of the kind.
    pub fn of(errors: &str) -> Self {
        Self::found(errors).unwrap_or_else(|| Self {
            error: crate::config::tame(errors.trim()),
            cause: None,
            hint: None,
        })
    }

    /// What it said last: a line of JSON where it was asked for that, and lines for people otherwise.
    fn found(errors: &str) -> Option<Self> {
        let tame = |text: &str| crate::config::tame(text.trim());
        let in_json = errors.lines().rev().find_map(|line| serde_json::from_str::<Self>(line).ok());
        if let Some(Self { error, cause, hint }) = in_json {
            let (cause, hint) = (cause.as_deref().map(tame), hint.as_deref().map(tame));
            return Some(Self { error: tame(&error), cause, hint });
        }
        let find = |what: &str| errors.lines().rev().find_map(|line| line.strip_prefix(what)).map(tame);
        Some(Self { error: find("error:")?, cause: find("cause:"), hint: find("hint:") })
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self { error, cause: Some(cause), .. } => write!(to, "{error}: {cause}"),
            Self { error, cause: None, .. } => to.write_str(error),
        }
    }
}

/// Runs our own command line with a repository; what it prints, if it ends well. Its process ends with whoever waits for it.
pub async fn ask(words: &[String], repository: &RepositoryConfig, state: &Path) -> Result<Vec<u8>, Said> {
    let Answer { said, errors } = answer(words, repository, state).await?;
    errors.map_or(Ok(said), |errors| Err(Said::of(&errors)))
}

/// What our own command line said.
pub struct Answer {
    /// What it printed.
    pub said: Vec<u8>,
    /// What it wrote aside, if it did not end well.
    pub errors: Option<String>,
}

/// The same of one that says something also where it does not end well.
pub async fn answer(words: &[String], repository: &RepositoryConfig, state: &Path) -> Result<Answer, Said> {
    let failed = |error: String| Said { error, cause: None, hint: None };
    let mut command = child(words, repository, state);
    let started = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = started.map_err(|error| failed(error.to_string()))?;
    spare_others(&child);
    let (Some(mut out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed("the program that is asked says nothing".into()));
    };
    let mut said = Vec::new();
    let mut bounded = (&mut out).take(LIST_MOST);
    let (heard, errors) = tokio::join!(bounded.read_to_end(&mut said), last_words(err));
    heard.map_err(|error| failed(error.to_string()))?;
    let ended = child.wait().await.map_err(|error| failed(error.to_string()))?;
    Ok(Answer { said, errors: (!ended.success()).then_some(errors) })
}

#[cfg(test)]
mod tests {
    use super::{End, Progress, Said};

    #[test]
    fn a_backup_of_a_vm_that_was_ended_says_so_and_no_broken_pipe() {
        let why = |cause: &str| {
            let [error, cause, hint] = ["cannot save `db`", cause, "-"].map(ToOwned::to_owned);
            match (End::Failed { error, cause, hint }).of_one_that_ended() {
                End::Failed { cause, .. } => cause,
                End::Done { .. } | End::Cancelled => String::new(),
            }
        };
        let ended = why("the disk cannot be read at byte 512: Broken pipe");
        assert!(
            ended.starts_with("the vm was ended while it was read") && !ended.contains("pipe"),
            "{ended}"
        );
        assert_eq!(why("the NBD connection failed while reading: Broken pipe"), ended);
        assert_eq!(why("the repository is full"), "the repository is full", "that would be so again");
        let done =
            || End::Done { id: "db/1".into(), progress: Progress::default(), why_all: None, warning: None };
        assert!(matches!(done().of_one_that_ended(), End::Done { .. }), "all had been read before");
        assert!(matches!(End::Cancelled.of_one_that_ended(), End::Cancelled));
    }

    #[test]
    fn what_our_own_command_says_last_is_read_from_json_and_from_lines() {
        let said = Said {
            error: "it cannot".into(),
            cause: Some("it is \\u{1b}[away".into()),
            hint: Some("wait".into()),
        };
        let line = r#"{"v":1,"error":"it cannot","cause":"it is \u001b[away","hint":"wait","exit":1}"#;
        assert_eq!(Said::of(&format!("a note\n{line}\n")), said);
        assert_eq!(Said::of("error: it cannot\ncause: it is \u{1b}[away\nhint:  wait\n"), said);
        assert_eq!(Said::of("Killed\n").to_string(), "Killed");
        assert_eq!(Said::of(line).to_string(), "it cannot: it is \\u{1b}[away");
    }
}
