//! Who writes to a repository, as others see it, and whether such a writer is still alive.

use holdfast_backup::session::{Open, Writer};

/// The writer of another computer that was not heard of for so long, in microseconds, is taken for dead. Should it be alive, it
/// makes no point.
const DEAD_AFTER: i64 = 7 * 86_400_000_000;

/// This process.
pub fn here(now: i64) -> Writer {
    let process = std::process::id();
    let host = rustix::system::uname().nodename().to_string_lossy().chars().take(63).collect::<String>();
    let host = host.chars().filter(char::is_ascii_graphic).collect();
    Writer { host, boot: boot(), process, started: started(process).unwrap_or_default(), begun: now }
}

/// The computer, its start, and the space in which its process numbers count.
fn boot() -> String {
    let first = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.chars().filter(char::is_ascii_hexdigit).take(16).collect::<String>()
    };
    let space = std::fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned());
    let space: String = space.unwrap_or_default().chars().filter(char::is_ascii_digit).take(12).collect();
    format!("{}/{}/{space}", first("/etc/machine-id"), first("/proc/sys/kernel/random/boot_id"))
}

/// When a process started, in the clock ticks of this boot; nothing if there is none of that number.
fn started(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program stands in brackets, and may have anything in it.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Whether the writer of a session can be taken for dead: its process is gone, or its computer was started anew, or it is
/// another computer's and old.
pub fn is_over(session: &Open, now: i64) -> bool {
    let writer = &session.writer;
    let (here, there) = (boot(), &writer.boot);
    if here == *there {
        return started(writer.process) != Some(writer.started);
    }
    let part =
        |boot: &str, at: usize| boot.split('/').nth(at).map(str::to_owned).filter(|part| !part.is_empty());
    let is_same = part(&here, 0).is_some() && part(&here, 0) == part(there, 0);
    let was_restarted = is_same && part(there, 1).is_some() && part(&here, 1) != part(there, 1);
    was_restarted || now.checked_sub(writer.begun).is_none_or(|age| age > DEAD_AFTER)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use holdfast_backup::id::PackId;
    use std::process::{Command, Stdio};

    fn of(writer: Writer) -> Open {
        Open { name: PackId([1; 16]), point: None, writer, knows: [].into() }
    }

    #[test]
    fn a_writer_is_dead_once_its_process_or_the_start_of_its_computer_is_gone() {
        let now = crate::clock::wall_micros();
        assert!(!is_over(&of(here(now)), now));
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let writer = Writer { process: child.id(), started: started(child.id()).unwrap(), ..here(now) };
        assert!(!is_over(&of(writer.clone()), now));
        assert!(
            is_over(&of(Writer { started: writer.started + 1, ..writer.clone() }), now),
            "another of its number"
        );
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(is_over(&of(writer.clone()), now));
        let [machine, _, space] = writer.boot.split('/').collect::<Vec<_>>()[..] else { panic!() };
        let restarted = Writer { boot: format!("{machine}/0/{space}"), ..here(now) };
        assert_eq!(is_over(&of(restarted), now), !machine.is_empty());
        let other = Writer { boot: "0/0/0".into(), ..here(now) };
        assert!(!is_over(&of(other.clone()), now + DEAD_AFTER) && is_over(&of(other), now + DEAD_AFTER + 1));
    }
}
