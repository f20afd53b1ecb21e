//! The server as a process, which can be killed and started again in the same place.

use crate::service::{Habit, Server};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

const ROOT: &str = "HOLDFAST_BUCKET_ROOT";
const PORT: &str = "HOLDFAST_BUCKET_PORT";
const HABIT: &str = "HOLDFAST_BUCKET_HABIT";
/// What it says once it listens, before its port.
const LISTENS: &str = "the bucket is at port ";

/// A server, until it is killed or dropped.
pub struct Process {
    child: Child,
    port: u16,
    /// What it says later, as that it takes long, is heard by nobody; but it ends if it cannot say it.
    _says: BufReader<ChildStdout>,
}

/// Serves until the end if this process is to be the server. A test of this name must call it: [`Process::start`] starts the
/// program of the test again with that test alone.
///
/// # Panics
/// If it cannot serve.
pub fn serve_if_asked() {
    let Ok(root) = std::env::var(ROOT) else { return };
    let port = std::env::var(PORT).ok().and_then(|port| port.parse().ok()).unwrap_or(0);
    let habit = Habit::of(&std::env::var(HABIT).unwrap_or_default());
    let server = Server::start_at(Path::new(&root), port, habit).expect("a server");
    println!("\n{LISTENS}{}", server.port());
    // Whoever started it holds the other end.
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
}

impl Process {
    /// Serves this folder, on this port or, if it is 0, on one that is free. `test` calls [`serve_if_asked`].
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start(test: &str, root: &Path, port: u16, habit: Habit) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--exact", test, "--nocapture"]).env(ROOT, root);
        command.env(PORT, port.to_string()).env(HABIT, habit.word());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut says = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let mut lines = says.by_ref().lines().map_while(Result::ok);
        let port = lines.find_map(|line| line.strip_prefix(LISTENS)?.parse().ok());
        let mut process = Self { child, port: 0, _says: says };
        process.port = port.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(process)
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Kills it, without a word. Its port.
    pub fn kill(mut self) -> u16 {
        self.end();
        self.port
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
