//! A process that ends with whoever started it: the kernel kills it when we die, however that comes about.

use super::spawn::{self, find_program};
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use tokio::sync::watch;

/// How often it is looked whether it ended by itself.
const LOOK: Duration = Duration::from_millis(20);
/// So much is kept of what it said to us (bytes).
const WORDS: u64 = 64 << 10;

/// One that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Bound {
    pid: u32,
    /// Gone, or told, the thread that holds the process ends it.
    end: mpsc::Sender<()>,
    /// How it ended, once it is gone.
    gone: watch::Receiver<Option<Gone>>,
}

/// How one ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// What it said.
    pub said: String,
    /// The signal that ended it, if one did that was not ours.
    pub signal: Option<i32>,
}

impl Bound {
    /// Starts the command that [`command`] began, and holds it by a thread of this name.
    ///
    /// # Errors
    /// A sentence: there is no such process.
    pub fn start(
        name: &str,
        launch: impl FnOnce() -> io::Result<Child> + Send + 'static,
    ) -> Result<Self, String> {
        let (end, told) = mpsc::channel();
        let (say_gone, gone) = watch::channel(None);
        let (say_started, started) = mpsc::channel();
        // The kernel ends it with the thread that started it, so that thread stays until it is gone.
        let hold = move || {
            let child = launch();
            let _nobody_waits = say_started.send(child.as_ref().map(Child::id).map_err(ToString::to_string));
            let Ok(mut child) = child else { return };
            let (mut is_over, mut signal) = (false, None);
            while !is_over {
                match child.try_wait() {
                    Ok(None) => is_over = !matches!(told.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout)),
                    Ok(Some(status)) => (is_over, signal) = (true, status.signal()),
                    Err(_) => is_over = true,
                }
            }
            let _ended = child.kill();
            let _reaped = child.wait();
            let mut words = Vec::new();
            if let Some(said) = child.stderr.take() {
                let _cut = said.take(WORDS).read_to_end(&mut words);
            }
            let said = String::from_utf8_lossy(&words).into_owned();
            say_gone.send_replace(Some(Gone { said, signal }));
        };
        let thread = std::thread::Builder::new().name(name.into()).spawn(hold);
        thread.map_err(|error| format!("no thread for it: {error}"))?;
        let pid = started.recv().map_err(|_| "its thread ended".to_owned())??;
        Ok(Self { pid, end, gone })
    }

    /// Its process.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Has it end. It may be there a moment longer.
    pub fn end(&self) {
        let _gone = self.end.send(());
    }

    /// Waits until it is gone; how that came.
    pub async fn gone(&self) -> Gone {
        let mut gone = self.gone.clone();
        let ended = gone.wait_for(Option::is_some).await;
        ended.ok().and_then(|ended| ended.clone()).unwrap_or_default()
    }

    /// What it said, if it is gone.
    #[must_use]
    pub fn said(&self) -> Option<String> {
        self.gone.borrow().as_ref().map(|gone| gone.said.clone())
    }
}

/// A command to which the program and its words are to be added: it is killed when the thread dies that starts it. `ready` is
/// what the shell does before.
///
/// # Errors
/// What it needs is not installed.
pub fn command(ready: &str) -> io::Result<Command> {
    let mut command = Command::new(program("setpriv", "util-linux")?);
    command.args(["--pdeathsig", "KILL"]);
    // Whoever started it may be dead before it asks to be told of that.
    let script = format!(r#"[ "$PPID" = "$0" ] && {ready} exec "$@""#);
    let us = std::process::id().to_string();
    command.arg(program("sh", "dash")?).args(["-c", &script, &us]);
    command.env_clear().env("PATH", spawn::PATH).env("LANG", "C.UTF-8");
    Ok(command)
}

/// Where a program is; where it is not, which package has it.
///
/// # Errors
/// It is not installed.
pub fn program(name: &str, package: &str) -> io::Result<std::path::PathBuf> {
    let missing = || format!("the program `{name}` is missing (package {package})");
    find_program(name).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, missing()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[tokio::test]
    async fn what_it_said_is_known_once_it_is_gone_and_dropping_it_ends_it() {
        let run = |script: &'static str| {
            Bound::start("bound", move || {
                let mut command = command("")?;
                command.args(["/bin/sh", "-c", script]).stdin(Stdio::null()).stderr(Stdio::piped()).spawn()
            })
        };
        let gone = run("echo no such image >&2; exit 1").unwrap().gone().await;
        assert_eq!(gone, Gone { said: "no such image\n".into(), signal: None });
        let gone = run("echo oh >&2; kill -9 $$").unwrap().gone().await;
        assert_eq!(gone, Gone { said: "oh\n".into(), signal: Some(9) });
        let endless = run("exec sleep 1000").unwrap();
        assert_eq!(endless.said(), None);
        endless.end();
        assert_eq!(endless.gone().await, Gone::default(), "that signal was ours");
        let endless = run("exec sleep 1000").unwrap();
        let mut gone = endless.gone.clone();
        drop(endless);
        gone.wait_for(Option::is_some).await.unwrap();
    }

    #[test]
    fn what_is_missing_is_said_with_its_package() {
        let why = program("qemu-of-another-world", "qemu-utils").unwrap_err().to_string();
        assert_eq!(why, "the program `qemu-of-another-world` is missing (package qemu-utils)");
    }
}
