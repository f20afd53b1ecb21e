//! A program on this host that knows how to check: exit status 0 is the right answer.
//!
//! Run without a shell, with an empty environment, in a process group of its own that is killed at the
//! end whatever happens. It must never see our environment, our descriptors or our input (A47, A49).

use super::super::awaited;
use super::super::program::{Group, program};
use super::connection::Hearing;
use super::{Trouble, chain};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Child;

/// Bytes of its output that are kept.
const KEPT: usize = 4 * 1024;
/// Bytes of output after which it is ended.
const MOST_PRINTED: usize = 1 << 20;

/// A program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments.
    pub argv: Vec<String>,
}

impl Command {
    pub(super) async fn ask(&self, hearing: &Hearing) -> Result<(), Trouble> {
        hearing.running();
        let Printed { status, said, .. } = self.run(Errors::Among).await?;
        self.judge(status, &said)?;
        hearing.answered();
        Ok(())
    }

    /// What it prints, without its errors.
    pub(super) async fn print(&self, hearing: &Hearing) -> Result<String, Trouble> {
        hearing.running();
        let Printed { status, said, errors } = self.run(Errors::Apart).await?;
        self.judge(status, if errors.is_empty() { &said } else { &errors })?;
        Ok(said)
    }

    /// Runs it to its end.
    async fn run(&self, errors: Errors) -> Result<Printed, Trouble> {
        let (mut child, output, errors) = self.start(errors)?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Trouble::internal("the program has no process id"))?;
        let group = Group(pid); // dropped before the child is, so the id still is the child's
        let (mut output, mut errors) = (Output::of(Some(output)), Output::of(errors));
        // The exit is seen before the child is collected: until then its id is nobody else's.
        let unseen =
            |error: std::io::Error| Trouble::internal(format!("cannot watch `{}`: {error}", self.name()));
        let exit = pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(|error| unseen(error.into()))?;
        let exit = awaited(exit).map_err(unseen)?;
        loop {
            tokio::select! {
                biased;
                seen = exit.readable() => {
                    drop(seen.map_err(unseen)?);
                    break;
                }
                () = output.read() => {}
                () = errors.read() => {}
            }
            if output.printed.saturating_add(errors.printed) > MOST_PRINTED {
                return Err(Trouble::wrong(format!("`{}` printed more than 1 MiB", self.name())));
            }
        }
        drop(group); // what it left behind
        output.read_rest();
        errors.read_rest();
        let status = child.wait().await.map_err(|error| Trouble::internal(chain(&error)))?;
        Ok(Printed { status, said: output.text(), errors: errors.text() })
    }

    fn name(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }

    fn start(&self, errors: Errors) -> Result<(Child, Receiver, Option<Receiver>), Trouble> {
        let mut command = program(&self.argv).ok_or_else(|| Trouble::internal("no program is configured"))?;
        let failed =
            |error: std::io::Error| Trouble::internal(format!("cannot run `{}`: {error}", self.name()));
        let (reader, writer) = std::io::pipe().map_err(failed)?;
        let output = Receiver::from_owned_fd(reader.into()).map_err(failed)?;
        let apart = match errors {
            Errors::Among => {
                command.stdout(writer.try_clone().map_err(failed)?).stderr(writer);
                None
            }
            Errors::Apart => {
                let (errors, end) = std::io::pipe().map_err(failed)?;
                command.stdout(writer).stderr(end);
                Some(Receiver::from_owned_fd(errors.into()).map_err(failed)?)
            }
        };
        let child = command.spawn().map_err(failed)?;
        Ok((child, output, apart))
    }

    fn judge(&self, status: ExitStatus, text: &str) -> Result<(), Trouble> {
        let said = if text.is_empty() { String::new() } else { format!(": {text}") };
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(()),
            // What shells and `env` say when they could not run what was asked.
            (Some(code @ (126 | 127)), _) => {
                Err(Trouble::internal(format!("`{}` could not run, exit code {code}{said}", self.name())))
            }
            (Some(code), _) => Err(Trouble::wrong(format!("exit code {code}{said}"))),
            (None, signal) => {
                Err(Trouble::wrong(format!("ended by signal {}{said}", signal.unwrap_or_default())))
            }
        }
    }
}

/// What becomes of what it prints to standard error.
#[derive(Clone, Copy)]
enum Errors {
    /// It stands among the rest.
    Among,
    /// It tells why it failed, and is no part of what it prints.
    Apart,
}

/// What a program printed, and how it ended.
struct Printed {
    status: ExitStatus,
    said: String,
    errors: String,
}

struct Output {
    pipe: Option<Receiver>,
    kept: Vec<u8>,
    printed: usize,
}

impl Output {
    const fn of(pipe: Option<Receiver>) -> Self {
        Self { pipe, kept: Vec::new(), printed: 0 }
    }

    /// Waits for output and takes it; for ever once there is none to come.
    async fn read(&mut self) {
        match &self.pipe {
            None => std::future::pending().await,
            Some(pipe) => {
                if pipe.readable().await.is_err() || !self.take() {
                    self.pipe = None;
                }
            }
        }
    }

    /// What is there already, after the end of the program.
    fn read_rest(&mut self) {
        for _ in 0..KEPT {
            let before = self.printed;
            if !self.take() || self.printed == before {
                return;
            }
        }
    }

    /// Takes a piece; `false` at the end.
    fn take(&mut self) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        let mut piece = [0; KEPT];
        match pipe.try_read(&mut piece) {
            Ok(0) => false,
            Ok(count) => {
                let room = KEPT - self.kept.len();
                self.kept.extend_from_slice(&piece[..count.min(room)]);
                self.printed += count;
                true
            }
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).trim().to_owned()
    }
}
