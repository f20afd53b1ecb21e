//! The most memory that the program takes to look at a file, however long the file is and whatever is in it (I18). It reads
//! from a pipe that is still open when it is measured: all has been read by then.

#![expect(clippy::unwrap_used, reason = "tests")]

use holdfast_fuzz::{Chance, evtx, memory};
use std::io::Write;
use std::process::{Child, Command, Stdio};

/// Resident memory at most, of a debug build whose code alone is 20 MiB: docs/logs.md and docs/metrics.md state it.
const MIB: u64 = 48;

/// The program, reading from a pipe.
struct Reading(Child);

impl Reading {
    fn start(words: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command.env_remove("HOLDFAST_STATE").env_remove("HOLDFAST_CONFIG").env("NO_COLOR", "1").args(words);
        Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Gives it this so many times; what it has taken at most by then, in bytes. It may end early, for it refuses much.
    fn given(mut self, piece: impl Fn(u64) -> Vec<u8>, times: u64) -> u64 {
        let mut stdin = self.0.stdin.take().unwrap();
        let (pid, mut most) = (self.0.id().to_string(), 0);
        let mut look = || most = most.max(memory::of(&pid, "VmHWM:").unwrap_or(0));
        for number in 0..times {
            look();
            if stdin.write_all(&piece(number)).is_err() {
                break;
            }
        }
        look();
        drop(stdin);
        while self.0.try_wait().unwrap().is_none() {
            look();
            std::thread::yield_now(); // what it makes of it at the end counts, too
        }
        most
    }
}

fn is_bounded(what: &str, words: &[&str], piece: impl Fn(u64) -> Vec<u8>, times: u64) {
    let most = Reading::start(words).given(piece, times);
    println!("{what}: {} KiB at most", most >> 10);
    assert!(most > 0, "{what}: it was never looked at");
    assert!(most < MIB << 20, "{what} took {most} bytes, and may take {MIB} MiB");
}

const LOGS: [&str; 3] = ["logs", "analyze", "-"];
const NUMBERS: [&str; 4] = ["metrics", "analyze", "-", "--json"];

#[test]
fn a_log_of_one_line_or_of_lines_that_never_come_again_takes_bounded_memory_a30() {
    is_bounded("one line of 256 MiB", &LOGS, |_| vec![b'x'; 1 << 20], 256);
    let unlike = |number: u64| {
        let mut chance = Chance::new(number);
        let mut word = || format!("w{:x}", chance.draw());
        (0..1_000)
            .map(|_| format!("{} {} {} took {}\n", word(), word(), word(), word()))
            .collect::<String>()
            .into()
    };
    is_bounded("300,000 unlike lines", &LOGS, unlike, 300);
    let form = [&LOGS[..], &["--format", "journal-json"]].concat();
    is_bounded("an entry of a journal without end", &form, |_| vec![b'['; 1 << 20], 128);
    let form = [&LOGS[..], &["--format", "event-xml"]].concat();
    is_bounded("an event in XML without end", &form, |_| b"<Event><Data>".repeat(80_000), 64);
    let form = [&LOGS[..], &["--format", "otlp"]].concat();
    is_bounded("a request of OTLP without end", &form, |_| b"{\"resourceLogs\":[".repeat(60_000), 64);
}

#[test]
fn an_evtx_file_of_hostile_chunks_without_end_takes_bounded_memory_a27_a28() {
    let form = [&LOGS[..], &["--format", "evtx"]].concat();
    let pieces = |number: u64| match number {
        0 => {
            let mut head = b"ElfFile\0".to_vec();
            head.resize(4_096, 0);
            head[38] = 3;
            head
        }
        _ => evtx::chunk(&mut Chance::new(number)),
    };
    is_bounded("1,000 hostile chunks", &form, pieces, 1_000);
}

#[test]
fn a_series_and_windows_without_end_take_bounded_memory() {
    is_bounded("a series of one line", &NUMBERS, |_| vec![b'1'; 1 << 20], 64);
    let rows = |number: u64| {
        let row = |at: u64| format!("{},{}\n", number * 10_000 + at, (at * at) % 977);
        (0..10_000).map(row).collect::<String>().into_bytes()
    };
    is_bounded("400,000 rows", &NUMBERS, rows, 40);
    let folder = tempfile::tempdir().unwrap();
    let train = folder.path().join("train.csv");
    std::fs::write(&train, "id,events\n1,a b\n2,a b\n3,a b c\n").unwrap();
    let words = ["logs", "analyze", "--train", train.to_str().unwrap(), "--score", "-"];
    let windows = |number: u64| match number {
        0 => b"id,events\n".to_vec(),
        _ => {
            let mut chance = Chance::new(number);
            let events: Vec<String> = (0..40_000).map(|_| format!("{:x}", chance.draw())).collect();
            format!("{number},{}\n", events.join(" ")).into_bytes()
        }
    };
    is_bounded("windows of ever new events", &words, windows, 40);
}
