//! Follows the serial console of one VM, as its hypervisor writes it to a file.
//!
//! Another program owns the file: it may be truncated, replaced, or grow without end and without a
//! newline. A look reads a bounded piece and never waits; what is not a plain file is refused (A30).

#[cfg(test)]
mod fuzz;
mod tap;

pub use tap::Tap;

use super::findings::Findings;
use super::logs::health::State;
use super::logs::place::{Marker, Place};
use super::tail::{Lines, Links, Open, TailError, id};
use super::wake::Wake;
use holdfast_core::signal::ConsoleSign;
use holdfast_logs::LONGEST_LINE;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Between two looks, at least.
const PERIOD: Duration = Duration::from_millis(100);
/// Bytes read at one look.
const MOST_A_LOOK: u64 = 64 * 1024;
/// Bytes that may be left unread; beyond it, old ones are skipped, so that findings are never of long ago.
const MOST_BEHIND: u64 = 1 << 20;
/// How often the count of lines is told, at most.
const COUNT_PERIOD: Duration = Duration::from_secs(1);

/// Where to begin in a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At its end: what is in it has been seen, or is of long ago.
    End,
    /// At this byte; a file that is shorter is read from its start.
    At(u64),
    /// Behind what was kept of it before we came; another file is read from its start, for all in it came since. What is
    /// there already is kept, and no sign of anything: it may be of long ago.
    Behind(Place),
}

/// What was read so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Lines, the half ones not counted.
    pub lines: u64,
    /// Bytes that were skipped because they came too fast.
    pub skipped: u64,
    /// Findings that were one too many.
    pub untold: u64,
}

/// One console.
#[derive(Debug)]
pub struct Console {
    path: PathBuf,
    begin: Begin,
    /// What lies before this byte was written while nobody watched.
    old: u64,
    open: Option<Open>,
    lines: Lines,
    findings: Findings,
    tap: Option<Tap>,
    uncounted: u32,
    counted_at: Option<Instant>,
    tally: Tally,
}

/// Looks when the file changes, at most every 100 ms, and each second in any case, and sends what was
/// seen, until nobody wants it any more. Reading is done on a thread of its own, for it may block.
pub async fn follow(mut console: Console, out: mpsc::Sender<ConsoleSign>) {
    let wake = Wake::new().ok(); // without it, there is a look every 100 ms
    let mut told = None;
    while !out.is_closed() {
        if let Some(wake) = &wake {
            wake.watch(&console.path); // before the look, so that no change falls between
        }
        let looked = tokio::task::spawn_blocking(move || {
            let signs = console.look(Instant::now());
            (console, signs)
        });
        let Ok((same, signs)) = looked.await else { return };
        console = same;
        for sign in report(signs, &mut told) {
            if out.send(sign).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(PERIOD).await;
        if let Some(wake) = &wake {
            tokio::select! {
                () = wake.changed() => {}
                () = out.closed() => {}
            }
        }
    }
}

/// The signs of a look; a trouble is logged when it is a new one.
fn report(looked: Result<Vec<ConsoleSign>, TailError>, told: &mut Option<String>) -> Vec<ConsoleSign> {
    match looked {
        Ok(signs) => {
            *told = None;
            signs
        }
        Err(error) => {
            let error = super::chain(&error);
            if told.as_ref() != Some(&error) {
                tracing::warn!(error, "the console of a vm cannot be followed");
                *told = Some(error);
            }
            Vec::new()
        }
    }
}

impl Console {
    pub fn new(path: impl Into<PathBuf>, begin: Begin) -> Self {
        Self {
            path: path.into(),
            begin,
            old: 0,
            open: None,
            lines: Lines::new(LONGEST_LINE),
            findings: Findings::new(),
            tap: None,
            uncounted: 0,
            counted_at: None,
            tally: Tally::default(),
        }
    }

    /// The same, with somebody who hears every line.
    pub fn heard_by(mut self, tap: Tap) -> Self {
        self.tap = Some(tap);
        self
    }

    /// What was read so far.
    #[cfg(test)]
    pub fn tally(&self) -> Tally {
        Tally { untold: self.findings.untold(), ..self.tally }
    }

    /// Reads what is new, at most 64 KiB. A file that is not there yet is no error.
    pub fn look(&mut self, now: Instant) -> Result<Vec<ConsoleSign>, TailError> {
        let mut signs = Vec::new();
        let looked = self.read(now, &mut signs);
        if let Some(tap) = &mut self.tap {
            tap.rest();
            tap.is(match (&looked, &self.open) {
                (Err(error), _) => State::Failing(super::chain(error)),
                (Ok(()), Some(_)) => State::Following,
                (Ok(()), None) => State::Waiting("there is no console yet".into()),
            });
        }
        self.tell_count(now, &mut signs);
        looked.map(|()| signs)
    }

    fn read(&mut self, now: Instant, signs: &mut Vec<ConsoleSign>) -> Result<(), TailError> {
        let path = self.path.clone();
        let failed = |source| TailError::Io { path: path.clone(), source };
        let meta = match std::fs::symlink_metadata(&self.path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        if !meta.is_file() {
            self.open = None;
            return Err(TailError::NotAFile(path));
        }
        if self.open.as_ref().is_none_or(|open| open.id != id(&meta)) {
            self.finish_old(now, signs).map_err(failed)?;
            self.reopen()?;
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        let size = open.size().map_err(failed)?;
        if size == open.offset {
            if let Some(line) = self.lines.rested(now) {
                signs.extend(self.findings.find(line, now).map(ConsoleSign::Finding));
            }
            return Ok(());
        }
        if size < open.offset || !open.is_known().map_err(failed)? {
            open.go_to(0);
            self.old = 0;
            self.lines = Lines::new(LONGEST_LINE);
        }
        if size - open.offset > MOST_BEHIND {
            let to = size - MOST_A_LOOK;
            let skipped = to - open.offset;
            self.tally.skipped += skipped;
            open.go_to(to);
            self.lines = Lines::new(LONGEST_LINE);
            if let Some(tap) = &mut self.tap {
                tap.skips(skipped);
            }
        }
        self.take(now, signs).map_err(failed)
    }

    /// The rest of a file that was replaced, as far as one look goes.
    fn finish_old(&mut self, now: Instant, signs: &mut Vec<ConsoleSign>) -> io::Result<()> {
        if let Some(open) = &mut self.open {
            if open.is_known()? {
                self.take(now, signs)?;
            }
            self.begin = Begin::At(0); // the new one is read from its start
        }
        self.lines = Lines::new(LONGEST_LINE);
        self.open = None;
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), TailError> {
        let mut open = Open::new(&self.path, Links::Refused)?;
        let failed = |source| TailError::Io { path: self.path.clone(), source };
        let size = open.size().map_err(failed)?;
        let offset = match self.begin {
            Begin::End => size,
            Begin::At(offset) if offset <= size => offset,
            Begin::At(_) => 0,
            Begin::Behind(place) if place.is_in(&open).map_err(failed)? => place.offset,
            Begin::Behind(_) => 0,
        };
        self.old = if matches!(self.begin, Begin::Behind(_)) { size } else { 0 };
        open.remember(offset).map_err(failed)?;
        self.begin = Begin::At(0);
        self.open = Some(open);
        Ok(())
    }

    fn take(&mut self, now: Instant, signs: &mut Vec<ConsoleSign>) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let mut marker = Marker::new(open)?;
        open.read_on(MOST_A_LOOK, |piece, begin| {
            marker.read(piece);
            self.lines.feed(piece, now, |line, used| {
                let behind = begin + used as u64;
                self.tally.lines += 1;
                if let Some(tap) = &mut self.tap {
                    tap.hear(line, marker.place(behind));
                }
                if behind <= self.old {
                    return;
                }
                self.uncounted = self.uncounted.saturating_add(1);
                signs.extend(self.findings.find(line, now).map(ConsoleSign::Finding));
            });
        })?;
        Ok(())
    }

    fn tell_count(&mut self, now: Instant, signs: &mut Vec<ConsoleSign>) {
        let due = self.counted_at.is_none_or(|at| now.saturating_duration_since(at) >= COUNT_PERIOD);
        if due && self.uncounted > 0 {
            signs.push(ConsoleSign::Lines(self.uncounted));
            self.uncounted = 0;
            self.counted_at = Some(now);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use holdfast_core::signal::FindingKind;
    use rustix::fs::{CWD, Mode};
    use std::fs::File;
    use std::io::Write;
    use tempfile::TempDir;

    const PANIC: &[u8] = b"[   61.0] Kernel panic - not syncing: sysrq\r\n";

    struct Lab {
        folder: TempDir,
        now: Instant,
    }

    impl Lab {
        fn new() -> Self {
            Self { folder: TempDir::new().unwrap(), now: Instant::now() }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("console")
        }

        fn append(&self, bytes: &[u8]) {
            let file = File::options().append(true).create(true).open(self.path());
            file.unwrap().write_all(bytes).unwrap();
        }

        fn console(&self, begin: Begin) -> Console {
            Console::new(self.path(), begin)
        }

        /// Lines counted, and the kinds found, by looks that are a second apart until nothing comes.
        fn look(&mut self, console: &mut Console) -> (u32, Vec<FindingKind>) {
            let (mut lines, mut kinds) = (0, Vec::new());
            loop {
                self.now += COUNT_PERIOD;
                let place = |console: &Console| console.open.as_ref().map(|open| open.offset);
                let before = place(console);
                let signs = console.look(self.now).unwrap();
                if signs.is_empty() && place(console) == before {
                    return (lines, kinds);
                }
                for sign in signs {
                    match sign {
                        ConsoleSign::Lines(count) => lines += count,
                        ConsoleSign::Finding(finding) => kinds.push(finding.kind),
                    }
                }
            }
        }
    }

    #[test]
    fn what_was_there_before_is_not_told_unless_asked_for() {
        let mut lab = Lab::new();
        lab.append(PANIC);
        let mut end = lab.console(Begin::End);
        let mut start = lab.console(Begin::At(0));
        assert_eq!(lab.look(&mut end), (0, vec![]));
        assert_eq!(lab.look(&mut start), (1, vec![FindingKind::KernelPanic]));
        lab.append(b"one\ntwo\n");
        assert_eq!(lab.look(&mut end), (2, vec![]));
        assert_eq!(lab.look(&mut start), (2, vec![]));
    }

    #[test]
    fn a_file_that_comes_later_is_read_from_its_start() {
        let mut lab = Lab::new();
        let mut console = lab.console(Begin::End);
        assert_eq!(lab.look(&mut console), (0, vec![]));
        lab.append(PANIC);
        assert_eq!(lab.look(&mut console).1, []);
        std::fs::remove_file(lab.path()).unwrap();
        assert_eq!(lab.look(&mut console), (0, vec![]));
        lab.append(PANIC);
        assert_eq!(lab.look(&mut console), (1, vec![FindingKind::KernelPanic]));
    }

    #[test]
    fn lines_are_counted_at_most_once_a_second_and_findings_told_at_once() {
        let lab = Lab::new();
        let mut console = lab.console(Begin::At(0));
        let at = |millis| lab.now + Duration::from_millis(millis);
        lab.append(b"one\n");
        assert_eq!(console.look(at(0)).unwrap(), [ConsoleSign::Lines(1)]);
        lab.append(b"two\n");
        lab.append(PANIC);
        let signs = console.look(at(100)).unwrap();
        assert!(
            matches!(&signs[..], [ConsoleSign::Finding(found)] if found.kind == FindingKind::KernelPanic)
        );
        lab.append(b"three\n");
        assert_eq!(console.look(at(999)).unwrap(), []);
        assert_eq!(console.look(at(1_000)).unwrap(), [ConsoleSign::Lines(3)]);
    }

    #[test]
    fn what_came_while_nobody_watched_is_kept_and_no_sign_of_anything() {
        let mut lab = Lab::new();
        lab.append(b"seen\n");
        let open = Open::new(&lab.path(), Links::Refused).unwrap();
        let mut marker = Marker::new(&open).unwrap();
        marker.read(b"seen\n");
        let place = marker.place(5);
        lab.append(PANIC);
        let mut same = lab.console(Begin::Behind(place));
        assert_eq!((lab.look(&mut same), same.tally().lines), ((0, vec![]), 1));
        lab.append(PANIC);
        assert_eq!(lab.look(&mut same), (1, vec![FindingKind::KernelPanic]), "news is a sign");
        // Another file has come in its place: all in it is kept, and again no sign.
        std::fs::write(lab.path(), PANIC.repeat(3)).unwrap();
        let mut other = lab.console(Begin::Behind(place));
        assert_eq!((lab.look(&mut other), other.tally().lines), ((0, vec![]), 3));
        std::fs::write(lab.path(), PANIC).unwrap();
        assert_eq!(
            lab.look(&mut other),
            (1, vec![FindingKind::KernelPanic]),
            "it was cut: what is in it came now"
        );
    }

    #[test]
    fn what_is_skipped_of_a_flood_is_counted_and_told_among_the_lines() {
        use super::super::logs::testing::{FakeGuest, Lab as Logs};
        use holdfast_core::{lease::Incarnation, subject::Subject};
        let (mut lab, mut logs) = (Lab::new(), Logs::new(FakeGuest::away()));
        let feed = logs.means.feed(Subject::Guest("orders".parse().unwrap()), "console");
        let gauge = feed.gauge.clone();
        let mut console = lab.console(Begin::At(0)).heard_by(Tap::of(feed, Incarnation(1)));
        lab.append(b"before\n");
        lab.look(&mut console);
        let line = "flood ".repeat(9) + "flood\n";
        lab.append(&line.repeat(40_000).into_bytes());
        lab.look(&mut console);
        drop(console);
        let texts: Vec<String> =
            std::iter::from_fn(|| logs.outlet.waiting()).map(|entry| entry.record.text).collect();
        assert_eq!(texts[0], "before");
        let skipped = 60 * 40_000 - MOST_A_LOOK;
        assert!(texts[1].starts_with(&format!("holdfast: {skipped} bytes of this console")), "{}", texts[1]);
        assert!(
            texts[3..].iter().all(|text| *text == line.trim_end()) && texts.len() > 1_000,
            "{}",
            texts.len()
        );
        assert_eq!(gauge.read().dropped, 1);
    }

    #[test]
    fn a_half_line_waits_for_its_other_half() {
        let mut lab = Lab::new();
        let mut console = lab.console(Begin::At(0));
        lab.append(&PANIC[..30]);
        assert_eq!(console.look(lab.now).unwrap(), []);
        lab.append(&PANIC[30..]);
        assert_eq!(lab.look(&mut console), (1, vec![FindingKind::KernelPanic]));
    }

    #[test]
    fn a_prompt_without_an_end_is_seen_once_when_it_rests() {
        let mut lab = Lab::new();
        let mut console = lab.console(Begin::At(0));
        lab.append(b"orders login: ");
        assert_eq!(console.look(lab.now).unwrap(), []);
        assert_eq!(lab.look(&mut console), (0, vec![FindingKind::BootFinished]));
        assert_eq!(lab.look(&mut console), (0, vec![]));
    }

    #[test]
    fn a_new_start_that_truncates_the_file_is_read_from_its_start() {
        let mut lab = Lab::new();
        let mut console = lab.console(Begin::At(0));
        lab.append(b"a long line of the last life that leaves no end behind");
        lab.look(&mut console);
        std::fs::write(lab.path(), PANIC).unwrap();
        assert_eq!(lab.look(&mut console), (1, vec![FindingKind::KernelPanic]));
        // The same when it has grown past the old place before it is looked at.
        std::fs::write(lab.path(), [PANIC, PANIC].concat().as_slice()).unwrap();
        lab.look(&mut console);
        std::fs::write(lab.path(), [b"one\n", &PANIC.repeat(4)[..]].concat()).unwrap();
        assert_eq!(lab.look(&mut console), (5, vec![FindingKind::KernelPanic; 4]));
    }

    #[test]
    fn a_rotated_file_is_read_to_its_end_and_the_new_one_from_its_start() {
        let mut lab = Lab::new();
        let mut console = lab.console(Begin::End);
        lab.append(b"old\n");
        lab.look(&mut console);
        lab.append(PANIC);
        std::fs::rename(lab.path(), lab.folder.path().join("console.1")).unwrap();
        lab.append(b"new\n");
        assert_eq!(lab.look(&mut console), (2, vec![FindingKind::KernelPanic]));
    }

    #[test]
    fn what_is_not_a_plain_file_is_refused_and_its_return_is_welcome() {
        let mut lab = Lab::new();
        let mut console = lab.console(Begin::End);
        lab.append(b"one\n");
        lab.look(&mut console);
        let secret = lab.folder.path().join("secret");
        std::fs::write(&secret, PANIC).unwrap();
        let make: [&dyn Fn(); 3] = [
            &|| rustix::fs::mknodat(CWD, lab.path(), rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap(),
            &|| std::os::unix::fs::symlink(&secret, lab.path()).unwrap(),
            &|| std::os::unix::fs::symlink("/dev/zero", lab.path()).unwrap(),
        ];
        for make in make {
            std::fs::remove_file(lab.path()).unwrap();
            make();
            assert!(matches!(console.look(lab.now), Err(TailError::NotAFile(_))));
        }
        std::fs::remove_file(lab.path()).unwrap();
        std::fs::create_dir(lab.path()).unwrap();
        assert!(matches!(console.look(lab.now), Err(TailError::NotAFile(_))));
        std::fs::remove_dir(lab.path()).unwrap();
        lab.append(PANIC);
        assert_eq!(lab.look(&mut console), (1, vec![FindingKind::KernelPanic]));
    }

    #[test]
    fn a_line_without_an_end_costs_4_kib() {
        let mut lab = Lab::new();
        let mut console = lab.console(Begin::At(0));
        lab.append(&vec![b'x'; 500_000]);
        assert_eq!(lab.look(&mut console), (1, vec![]));
        assert!(console.lines.holds() <= 2 * LONGEST_LINE);
        lab.append(b"\n");
        lab.append(PANIC);
        assert_eq!(lab.look(&mut console), (1, vec![FindingKind::KernelPanic]));
    }

    #[test]
    fn an_endless_sparse_file_is_skipped_to_its_end() {
        let mut lab = Lab::new();
        let mut console = lab.console(Begin::At(0));
        lab.append(PANIC);
        lab.look(&mut console);
        File::options().write(true).open(lab.path()).unwrap().set_len(1 << 40).unwrap();
        lab.append(b"\n");
        lab.append(PANIC);
        assert_eq!(lab.look(&mut console).1, [FindingKind::KernelPanic]);
        assert!(console.tally().skipped > (1 << 40) - (1 << 20));
    }

    #[test]
    fn a_flood_is_read_piece_by_piece() {
        let lab = Lab::new();
        let mut console = lab.console(Begin::At(0));
        lab.append(&b"0123456789abcde\n".repeat(50_000)); // 800 kB
        assert_eq!(console.look(lab.now).unwrap(), [ConsoleSign::Lines(4_096)]); // 64 KiB
        assert_eq!(console.tally(), Tally { lines: 4_096, skipped: 0, untold: 0 });
    }

    #[tokio::test]
    async fn a_console_is_followed_until_nobody_listens() {
        let lab = Lab::new();
        let (out, mut signs) = mpsc::channel(4);
        let task = tokio::spawn(follow(lab.console(Begin::At(0)), out));
        lab.append(PANIC);
        assert!(matches!(signs.recv().await, Some(ConsoleSign::Finding(_))));
        assert_eq!(signs.recv().await, Some(ConsoleSign::Lines(1)));
        drop(signs);
        task.await.unwrap();
    }
}
