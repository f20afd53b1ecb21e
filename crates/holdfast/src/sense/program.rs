//! Programs of this host that we start: without a shell, with an empty environment and nothing of ours, and never
//! left behind (A47, A49).

use rustix::process::{Pid, Signal, kill_process_group};
use std::process::Stdio;
use tokio::process::Command;

/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program as it is to be started, in a process group of its own; its output is yet to be set. `None` for no words.
pub fn program(argv: &[String]) -> Option<Command> {
    let (program, arguments) = argv.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH).env("LANG", "C.UTF-8").current_dir("/");
    command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    Some(command)
}

/// Kills the whole group when it goes out of scope, whatever the reason. Drop it before its first process is
/// collected: until then the number is nobody else's.
pub struct Group(pub Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // It fails when all are gone, which is what is wanted.
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}
