//! What a program of this host prints: a configured command, and `journalctl` for the host's own journal.
//!
//! It is started again when it ends, ever later while it fails, and ends with us whatever happens: it gets no
//! terminal, no environment of ours, and little of the machine.

use super::health::State;
use super::joined::{Joined, WAITS};
use super::means::Means;
use super::{Format, chain};
use crate::sense::awaited;
use crate::sense::program::{Group, program};
use crate::sense::tail::Lines;
use holdfast_core::subject::Subject;
use holdfast_logs::{LONGEST_TEXT, Record, decode, escape};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, pidfd_open, prlimit, setpriority_process};
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStderr, ChildStdout};

/// The wait before it is started again: at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// What has run so long has not failed at once.
const RAN_WELL: Duration = Duration::from_secs(60);
/// Bytes read at once.
const PIECE: usize = 16 * 1024;
/// Bytes of its errors that are kept.
const ERRORS: usize = 512;
/// Characters of them that are shown.
const SHOWN: usize = 160;
/// It gives way to everything else.
const NICE: i32 = 10;
/// Its limits: open files, bytes of memory of its own, and no core file.
const FILES: u64 = 256;
const MEMORY: u64 = 1 << 30;
/// Ends a program with the thread that started it, should we be killed (setpriv(1)).
const SETPRIV: &str = "/usr/bin/setpriv";

/// Which program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramLog {
    /// Whose log it is.
    pub subject: Subject,
    /// What the source is called.
    pub name: String,
    /// What is run.
    pub what: What,
}

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A configured command.
    Command(Vec<String>, Format),
    /// This host's journal.
    Journal,
}

impl What {
    fn argv(&self, place: Option<&str>) -> Vec<String> {
        match self {
            Self::Command(argv, _) => argv.clone(),
            Self::Journal => {
                let from =
                    place.map_or_else(|| "--lines=0".into(), |place| format!("--after-cursor={place}"));
                let words = ["journalctl", "--follow", "--quiet", "--no-pager", "--output=json", &from];
                words.map(ToOwned::to_owned).into()
            }
        }
    }

    fn longest(&self) -> usize {
        match self {
            Self::Command(..) => LONGEST_TEXT,
            Self::Journal => 4 * LONGEST_TEXT,
        }
    }

    /// The record of a line, and the place behind it.
    fn record(&self, line: &[u8], received: i64) -> Option<(Record, Option<String>)> {
        match self {
            Self::Command(_, format) => Some((format.record(line, received)?, None)),
            Self::Journal => {
                let entry = decode::journal(line).ok()?;
                Some((entry.record, entry.cursor))
            }
        }
    }
}

/// Why a program gives no lines any more.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("cannot run `{0}`")]
    Start(String, #[source] io::Error),
    #[error("it ended with {status}{said}")]
    Failed { status: ExitStatus, said: String },
    #[error("cannot read what it prints")]
    Read(#[source] io::Error),
}

/// Reads until it is time to stop.
pub async fn follow(log: ProgramLog, means: Means) {
    let feed = means.feed(log.subject.clone(), &log.name);
    let mut joined = Joined::new(feed.clone());
    let mut place = means.place(&feed);
    let reading = async {
        let mut wait = AGAIN.0;
        loop {
            let began = Instant::now();
            match run(&log.what, &mut joined, &mut place).await {
                Ok(true) => feed.is(State::Waiting("it ended by itself, and is started again".into())),
                Ok(false) => return,
                Err(error) => feed.is(State::Failing(chain(&error))),
            }
            wait = if began.elapsed() >= RAN_WELL { AGAIN.0 } else { wait };
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(AGAIN.1);
        }
    };
    means.stop.run_until_cancelled(reading).await;
}

/// Runs it to its end. `false` when nobody takes records any more.
async fn run(what: &What, joined: &mut Joined, place: &mut Option<String>) -> Result<bool, Ended> {
    let argv = what.argv(place.as_deref());
    let name = argv.first().cloned().unwrap_or_default();
    let failed = |error| Ended::Start(name.clone(), error);
    let (mut child, pid) = start(argv).map_err(failed)?;
    let group = Group(pid); // dropped before the child is collected
    let exit = pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(|error| failed(error.into()))?;
    let exit = awaited(exit).map_err(failed)?;
    let (mut out, mut err) = (child.stdout.take(), Errors { pipe: child.stderr.take(), kept: Vec::new() });
    let feed = joined.feed.clone();
    feed.is(State::Following);
    let mut lines = Lines::new(what.longest());
    let mut piece = vec![0; PIECE];
    loop {
        let length = tokio::select! {
            biased;
            read = read(&mut out, &mut piece) => read.map_err(Ended::Read)?,
            () = err.read() => continue,
            () = tokio::time::sleep(WAITS), if joined.is_waiting() => {
                if !joined.rest(false).await {
                    return Ok(false);
                }
                continue;
            }
            // It has ended, and nothing is left in the pipe: what it left behind may hold it open for ever.
            _ = exit.readable() => 0,
        };
        let mut records = Vec::new();
        let mut take = |line: &[u8]| records.extend(what.record(line, feed.received()));
        if length == 0 {
            lines.finish().iter().for_each(|half| take(half));
        } else {
            lines.feed(&piece[..length], Instant::now(), |line, _| take(line));
        }
        for (record, behind) in records {
            place.clone_from(&behind);
            let taken = match what {
                What::Command(..) => joined.bring(record.into(), behind).await,
                What::Journal => joined.bring_entry(record.into(), behind).await,
            };
            if !taken {
                return Ok(false);
            }
        }
        if length == 0 {
            break;
        }
    }
    if !joined.rest(true).await {
        return Ok(false);
    }
    drop(group);
    let status = child.wait().await.map_err(Ended::Read)?;
    if status.success() {
        return Ok(true);
    }
    err.read_rest().await;
    Err(Ended::Failed { status, said: err.text() })
}

fn start(mut argv: Vec<String>) -> io::Result<(Child, Pid)> {
    if std::path::Path::new(SETPRIV).exists() {
        argv.splice(0..0, [SETPRIV, "--pdeathsig", "KILL", "--"].map(ToOwned::to_owned));
    }
    let mut command = program(&argv).ok_or_else(|| io::Error::other("no program is named"))?;
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("the program has no process id"))?;
    // Within moments of its start; one that is gone already needs no limits.
    let _ = setpriority_process(Some(pid), NICE);
    for (resource, most) in [(Resource::Core, 0), (Resource::Nofile, FILES), (Resource::Data, MEMORY)] {
        let _ = prlimit(Some(pid), resource, Rlimit { current: Some(most), maximum: Some(most) });
    }
    Ok((child, pid))
}

/// A piece of its output; for ever once there is none to come.
async fn read(out: &mut Option<ChildStdout>, piece: &mut [u8]) -> io::Result<usize> {
    let Some(pipe) = out else { return std::future::pending().await };
    let length = pipe.read(piece).await?;
    if length > 0 {
        return Ok(length);
    }
    *out = None; // it may close its output and run on
    std::future::pending().await
}

/// The last of its errors.
struct Errors {
    pipe: Option<ChildStderr>,
    kept: Vec<u8>,
}

impl Errors {
    async fn read(&mut self) {
        let Some(pipe) = &mut self.pipe else { return std::future::pending().await };
        if keep(pipe, &mut self.kept).await == 0 {
            self.pipe = None;
        }
    }

    /// What is there already, after its end.
    async fn read_rest(&mut self) {
        while self.pipe.is_some() {
            if tokio::time::timeout(Duration::from_millis(20), self.read()).await.is_err() {
                return;
            }
        }
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        let last = text.trim().lines().last().unwrap_or_default();
        if last.is_empty() { String::new() } else { format!(": {}", escape(last, SHOWN)) }
    }
}

async fn keep(pipe: &mut (impl AsyncRead + Unpin), kept: &mut Vec<u8>) -> usize {
    let mut piece = [0; ERRORS];
    let length = pipe.read(&mut piece).await.unwrap_or(0);
    kept.extend_from_slice(&piece[..length]);
    kept.drain(..kept.len().saturating_sub(ERRORS));
    length
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::testing::{FakeGuest, Lab};
    use super::*;
    use std::path::Path;

    fn host() -> Subject {
        Subject::Host("atlas".parse().unwrap())
    }

    fn script(script: &str) -> ProgramLog {
        let argv = ["sh", "-c", script].map(ToOwned::to_owned).into();
        let what = What::Command(argv, Format::Plain);
        ProgramLog { subject: host(), name: "command test".into(), what }
    }

    fn lives(pid: &str) -> bool {
        // One that has ended and was not collected yet is a zombie.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    }

    async fn gone(pid: &str) {
        for _ in 0..400 {
            if !lives(pid) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{pid} lives");
    }

    #[tokio::test]
    async fn each_line_is_a_record_and_a_command_that_ends_is_started_again() {
        let mut lab = Lab::new(FakeGuest::away());
        let task = tokio::spawn(follow(script("echo one; printf two"), lab.means.clone()));
        assert_eq!(lab.texts(4).await, ["one", "two", "one", "two"]);
        lab.means.stop.cancel();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_command_that_fails_is_told_with_what_it_said() {
        let lab = Lab::new(FakeGuest::away());
        let task = tokio::spawn(follow(script("echo no such thing >&2; exit 3"), lab.means.clone()));
        let failing = |reading: &super::super::health::Reading| matches!(reading.state, State::Failing(_));
        let reading = lab.until("command test", failing).await;
        assert_eq!(reading.state.why(), Some("it ended with exit status: 3: no such thing"));
        lab.means.stop.cancel();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn it_ends_with_us_and_so_does_what_it_started() {
        let mut lab = Lab::new(FakeGuest::away());
        let log = script("sleep 1000 & echo $!; echo $$; sleep 1; ulimit -n; wait");
        let task = tokio::spawn(follow(log, lab.means.clone()));
        let pids = lab.texts(2).await;
        assert_eq!(lab.texts(1).await, [FILES.to_string()]);
        assert!(pids.iter().all(|pid| lives(pid)));
        lab.means.stop.cancel();
        task.await.unwrap();
        for pid in pids {
            gone(&pid).await;
        }
    }

    #[tokio::test]
    async fn what_it_leaves_behind_holds_nothing_up() {
        let mut lab = Lab::new(FakeGuest::away());
        let task = tokio::spawn(follow(script("sleep 1000 & echo $!"), lab.means.clone()));
        let first = lab.texts(1).await.remove(0);
        let second = lab.texts(1).await.remove(0); // it was started again
        gone(&first).await;
        lab.means.stop.cancel();
        task.await.unwrap();
        gone(&second).await;
    }

    #[tokio::test]
    async fn a_flood_is_kept_waiting_and_never_fills_our_memory() {
        let mut lab = Lab::new(FakeGuest::away());
        let task = tokio::spawn(follow(script("yes"), lab.means.clone()));
        tokio::time::sleep(Duration::from_millis(300)).await;
        let reading = lab.until("command test", |_| true).await;
        assert!(reading.records <= 16 * 1024, "{reading:?}");
        assert_eq!(lab.texts(40_000).await.len(), 40_000);
        lab.means.stop.cancel();
        task.await.unwrap();
    }

    #[test]
    fn a_journal_goes_on_behind_its_cursor() {
        let entry = br#"{"__CURSOR":"s=1;i=2","MESSAGE":"hello","PRIORITY":"6"}"#;
        let (record, place) = What::Journal.record(entry, 0).unwrap();
        assert_eq!((record.text.as_str(), place.as_deref()), ("hello", Some("s=1;i=2")));
        assert_eq!(What::Journal.argv(place.as_deref()).last().unwrap(), "--after-cursor=s=1;i=2");
        assert_eq!(What::Journal.argv(None).last().unwrap(), "--lines=0");
    }

    #[tokio::test]
    async fn the_journal_of_this_host_is_followed_or_the_reason_is_told() {
        if !Path::new("/usr/bin/journalctl").exists() {
            return;
        }
        let lab = Lab::new(FakeGuest::away());
        let log = ProgramLog { subject: host(), name: "journal".into(), what: What::Journal };
        let task = tokio::spawn(follow(log, lab.means.clone()));
        lab.until("journal", |reading| reading.state.why() != Some("not looked at yet")).await;
        lab.means.stop.cancel();
        task.await.unwrap();
    }
}
