//! Starts a process that outlives us (I7): its own session, no terminal, no pipe to us, a log file
//! instead of our output, nothing of our environment, and its own control group where there is one.
//!
//! It stays our child only so that the kernel tells us how it ended; when we die, `init` takes it over.

use super::account::Account;
use super::cgroup::Cgroup;
use super::process::Process;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What to start, and as whom.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The program, with its whole path.
    pub program: &'a Path,
    /// Its arguments.
    pub args: &'a [String],
    /// As this user; `None`: as ourselves.
    pub account: Option<&'a Account>,
    /// The folder it works in.
    pub folder: &'a Path,
    /// Where its output and errors go; what is there already is kept as `NAME.1`.
    pub log: &'a Path,
    /// Its control group.
    pub cgroup: Option<&'a Cgroup>,
}

/// The whole environment of what we start.
pub const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

impl Launch<'_> {
    /// Starts it. It is running, or about to fail by itself, when this returns.
    ///
    /// # Errors
    /// It was not started.
    pub fn start(&self) -> io::Result<Process> {
        rotate(self.log)?;
        let log = open_log(self.log)?;
        // `setsid` becomes the program itself, so the number we get is the program's.
        let setsid = find_program("setsid").ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "the program `setsid` is missing (package util-linux)")
        })?;
        let mut command = Command::new(setsid);
        command.arg(self.program).args(self.args).current_dir(self.folder);
        command.env_clear().env("PATH", PATH).env("LANG", "C.UTF-8");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        if let Some(account) = self.account {
            command.uid(account.uid).gid(account.gid);
        }
        let mut child = command.spawn()?;
        let process = match Process::hold(child.id()) {
            Ok(process) => process,
            Err(error) => {
                // "Not started" is taken for a proof of death (I1): so it is made true.
                child.kill()?;
                child.wait()?;
                return Err(error);
            }
        };
        if let Err(error) = spare_no_more(child.id()) {
            tracing::warn!(%error, "a VM is spared as we are when the host has no memory left");
        }
        if let Some(cgroup) = self.cgroup
            && let Err(error) = cgroup.add(child.id())
        {
            tracing::warn!(%error, group = %cgroup.path().display(), "a VM stays in our own control group");
        }
        Ok(process)
    }
}

/// The kernel is told to spare us when memory is short (`OOMScoreAdjust`), and what we start inherits that: a VM is to
/// be no better than any other process. Raising it is always allowed.
fn spare_no_more(pid: u32) -> io::Result<()> {
    let path = format!("/proc/{pid}/oom_score_adj");
    let spared = std::fs::read_to_string(&path)?.trim().starts_with('-');
    if spared { std::fs::write(path, "0") } else { Ok(()) }
}

/// Where a program is, in the folders that programs are in, whatever our own `PATH` says.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    PATH.split(':').chain(["/usr/local/bin"]).map(|folder| Path::new(folder).join(name)).find(|p| p.is_file())
}

/// Puts what a log holds aside as `NAME.1`, so that a new one begins and at most two exist.
///
/// # Errors
/// As the file system says; a missing log is none.
pub fn rotate(log: &Path) -> io::Result<()> {
    match std::fs::rename(log, aside(log)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn aside(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

/// Opens a log for appending, never through a link.
fn open_log(log: &Path) -> io::Result<File> {
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(nofollow).open(log)
}

/// Cuts a log that has grown beyond `most` bytes to nothing: its writer appends, so it goes on at the
/// start. What a guest can make its hypervisor say must not fill the host's disk (I18).
///
/// # Errors
/// As the file system says.
pub fn bound(log: &Path, most: u64) -> io::Result<()> {
    let nofollow = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new().write(true).custom_flags(nofollow.bits() as i32).open(log)?;
    let meta = file.metadata()?;
    if meta.is_file() && meta.len() > most { file.set_len(0) } else { Ok(()) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::process::Presence;
    use super::*;
    use holdfast_core::lease::ExitStatus;
    use std::io::{BufRead, BufReader};
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(20); // only keeps a test from hanging

    fn launch(folder: &Path, program: &str, args: &[&str]) -> Process {
        let args: Vec<String> = args.iter().map(|&a| a.to_owned()).collect();
        let (program, log) = (find_program(program).unwrap(), folder.join("log"));
        Launch { program: &program, args: &args, account: None, folder, log: &log, cgroup: None }
            .start()
            .unwrap()
    }

    /// Waits until `setsid` has done its work and has become the program: a few milliseconds after the start.
    async fn settled(process: &Process, program: &str) -> PathBuf {
        let proc = PathBuf::from(format!("/proc/{}", process.pid()));
        let read = |file: &str| std::fs::read_to_string(proc.join(file)).unwrap();
        while read("comm").trim_end() != program || read("environ").is_empty() {
            tokio::task::yield_now().await;
        }
        proc
    }

    /// Not a test of its own: the part of a daemon that is killed by the test below.
    #[tokio::test]
    async fn play_the_daemon_that_is_killed() {
        let Some(folder) = std::env::var_os("HOLDFAST_TEST_LAUNCH") else { return };
        let process = launch(Path::new(&folder), "sleep", &["1000"]);
        settled(&process, "sleep").await;
        println!("\nlaunched {}", serde_json::to_string(process.id()).unwrap());
        std::future::pending::<()>().await;
    }

    #[tokio::test]
    async fn what_we_start_outlives_a_kill_of_us_and_our_whole_group() {
        let folder = tempfile::tempdir().unwrap(); // I7
        let mut daemon = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "qemu::spawn::tests::play_the_daemon_that_is_killed", "--nocapture"])
            .env("HOLDFAST_TEST_LAUNCH", folder.path())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines().map_while(Result::ok);
        let line = lines.find_map(|line| line.strip_prefix("launched ").map(ToOwned::to_owned)).unwrap();
        let id = serde_json::from_str(&line).unwrap();
        let group = rustix::process::Pid::from_raw(daemon.id().cast_signed()).unwrap();
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
        daemon.wait().unwrap();
        let Presence::Here(orphan) = Process::find(&id).unwrap() else { panic!("it died with us") };
        assert!(!orphan.has_exited().unwrap());
        assert_eq!(orphan.kill(LONG).await.unwrap(), Some(ExitStatus::Unknown)); // not our child
        assert!(matches!(Process::find(&id).unwrap(), Presence::Gone(_)));
    }

    #[tokio::test]
    async fn the_kernel_does_not_spare_it_as_it_spares_us() {
        let folder = tempfile::tempdir().unwrap();
        let process = launch(folder.path(), "sleep", &["1000"]);
        let path = format!("/proc/{}/oom_score_adj", process.pid());
        let score = || std::fs::read_to_string(&path).unwrap();
        assert!(!score().starts_with('-'), "{}", score());
        if std::fs::write(&path, "-900").is_ok() {
            assert_eq!(score(), "-900\n");
            spare_no_more(process.pid()).unwrap();
            assert_eq!(score(), "0\n");
        }
        std::fs::write(&path, "300").unwrap();
        spare_no_more(process.pid()).unwrap();
        assert_eq!(score(), "300\n", "what is spared less than others stays so");
        process.kill(LONG).await.unwrap();
    }

    #[tokio::test]
    async fn it_has_its_own_session_no_input_and_nothing_of_our_environment() {
        let folder = tempfile::tempdir().unwrap();
        let process = launch(folder.path(), "sleep", &["1000"]);
        let proc = settled(&process, "sleep").await;
        let stat = std::fs::read_to_string(proc.join("stat")).unwrap();
        let session = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap().to_owned();
        assert_eq!(session, process.pid().to_string());
        assert_eq!(std::fs::read_link(proc.join("fd/0")).unwrap(), Path::new("/dev/null"));
        assert_eq!(std::fs::read_link(proc.join("fd/2")).unwrap(), folder.path().join("log"));
        let environment = std::fs::read_to_string(proc.join("environ")).unwrap();
        assert_eq!(environment, format!("LANG=C.UTF-8\0PATH={PATH}\0"));
        process.kill(LONG).await.unwrap();
    }

    #[tokio::test]
    async fn its_words_go_to_a_log_that_is_kept_once_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        for word in ["first", "second", "third"] {
            let process = launch(folder.path(), "sh", &["-c", &format!("echo {word} >&2; exit 7")]);
            assert_eq!(process.exited().await.unwrap(), ExitStatus::Code(7));
        }
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "third\n");
        assert_eq!(std::fs::read_to_string(folder.path().join("log.1")).unwrap(), "second\n");
        bound(&log, 6).unwrap();
        assert_eq!(log.metadata().unwrap().len(), 6);
        bound(&log, 5).unwrap();
        assert_eq!(log.metadata().unwrap().len(), 0);
    }

    #[test]
    fn a_log_that_became_a_link_or_a_pipe_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        std::fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(bound(&link, 0).is_err() && open_log(&link).is_err());
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(bound(&pipe, 0).is_err());
    }
}
