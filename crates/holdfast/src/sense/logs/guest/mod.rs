//! Logs inside a guest, read through its agent: journal, files, Windows event logs.
//!
//! The agent does one thing at a time and belongs to the guest. It is asked for little at a time, ever more seldom
//! while there is nothing new, and not at all while it is silent, frozen, or needed by an incident. Its answers are
//! only data (I17): a cursor, a number or a name that goes back to it is checked to be one.

mod events;
mod file;
mod journal;

use super::chain;
use super::health::State;
use super::joined::{Joined, WAITS};
use super::means::{Feed, Means, Said};
use super::{Format, glob};
use async_trait::async_trait;
use holdfast_core::subject::{Subject, VmName};
use holdfast_drivers::{DriverError, GuestRead, Piece};
use holdfast_logs::{Record, escape};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The whole of one question, with the time that a command takes in a slow guest.
const LIMIT: Duration = Duration::from_secs(10);
/// The wait when there is more.
const SOON: Duration = Duration::from_millis(200);
/// The wait when there is nothing new: at first, and at most.
const IDLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// The wait when the agent cannot be asked.
const LATER: Duration = Duration::from_secs(2);
/// The wait when it refuses.
const REFUSED: Duration = Duration::from_secs(10);
/// How often a pattern is looked up.
const LOOK_UP: Duration = Duration::from_secs(15);
/// Files that one pattern may name.
const MOST_FILES: usize = 16;
/// Characters of what a guest said that are shown.
const SHOWN: usize = 200;

/// A log in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestLog {
    /// Which guest.
    pub vm: VmName,
    /// Whose log it is.
    pub subject: Subject,
    /// What is read.
    pub what: What,
}

/// What is read in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Its systemd journal.
    Journal,
    /// A Windows event log.
    Events(String),
    /// A file, or a pattern of files in one folder.
    File(String, Format),
}

/// Why nothing was read this time.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// The agent was not asked, or did not answer.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// It is not there, which may be as it should.
    #[error("no such file")]
    Missing,
    /// What it answered is no log.
    #[error("the guest answers: {0}")]
    Odd(String),
}

impl Trouble {
    fn odd(bytes: &[u8]) -> Self {
        Self::Odd(escape(String::from_utf8_lossy(bytes).trim(), SHOWN))
    }
}

/// Something that can be read bit by bit.
#[async_trait]
trait Pull: Send {
    /// Reads what is next and brings it. Whether there is more; `None` when nobody takes records any more.
    async fn pull(&mut self, guest: &Guest, to: &mut Joined) -> Result<Option<bool>, Trouble>;
}

/// The way to one guest.
struct Guest {
    vm: VmName,
    means: Means,
}

impl Guest {
    async fn read(&self, what: &GuestRead) -> Result<Piece, Trouble> {
        Ok(self.means.driver.read(&self.vm, what, LIMIT).await?)
    }

    async fn run(&self, words: &[&str]) -> Result<Piece, Trouble> {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        self.read(&GuestRead::Command(words)).await
    }
}

/// Brings what one piece held, each record with the place behind it. `false` when nobody takes records any more.
async fn bring(to: &mut Joined, piece: &Piece, records: Vec<(Record, String)>) -> bool {
    for (record, place) in records {
        let said = Said { record, incarnation: Some(piece.incarnation) };
        if !to.bring(said, Some(place)).await {
            return false;
        }
    }
    true
}

/// Reads until it is time to stop.
pub async fn follow(log: GuestLog, means: Means) {
    let guest = Guest { vm: log.vm.clone(), means: means.clone() };
    let place = |feed: &Feed| means.place(feed);
    let reading = async {
        match log.what {
            What::Journal => {
                let feed = means.feed(log.subject, "journal");
                let journal = journal::Journal::new(place(&feed));
                keep_on(Box::new(journal), &guest, feed).await;
            }
            What::Events(name) => {
                let feed = means.feed(log.subject, &format!("event log {name}"));
                let events = events::Events::new(name, place(&feed));
                keep_on(Box::new(events), &guest, feed).await;
            }
            What::File(path, format) => files(&path, format, &log.subject, &guest).await,
        }
    };
    means.stop.run_until_cancelled(reading).await;
}

/// One log, for ever.
async fn keep_on(mut log: Box<dyn Pull>, guest: &Guest, feed: Feed) {
    let (mut pace, mut to) = (Pace::default(), Joined::new(feed.clone()));
    loop {
        let pulled = log.pull(guest, &mut to).await;
        let Some(wait) = pace.after(&feed, pulled) else { return };
        if !nap(wait, std::iter::once(&mut to)).await {
            return;
        }
    }
}

/// Waits; what waits for its next line is brought meanwhile. `false` when nobody takes records any more.
async fn nap(wait: Duration, all: impl Iterator<Item = &mut Joined>) -> bool {
    let waiting: Vec<&mut Joined> = all.filter(|joined| joined.is_waiting()).collect();
    let first = if waiting.is_empty() { wait } else { wait.min(WAITS) };
    tokio::time::sleep(first).await;
    for joined in waiting {
        if !joined.rest(false).await {
            return false;
        }
    }
    tokio::time::sleep(wait - first).await;
    true
}

/// All files of a pattern, one after the other.
async fn files(pattern: &str, format: Format, subject: &Subject, guest: &Guest) {
    let is_pattern = glob::is_pattern(pattern.as_ref());
    let all = guest.means.feed(subject.clone(), &format!("guest file {pattern}"));
    let mut known: BTreeMap<String, (Joined, file::GuestFile)> = BTreeMap::new();
    let (mut pace, mut looked_up) = (Pace::default(), None::<Instant>);
    loop {
        if looked_up.is_none_or(|at| is_pattern && at.elapsed() >= LOOK_UP) {
            let paths = if is_pattern { look_up(pattern, guest).await } else { Ok(vec![pattern.to_owned()]) };
            let paths = match paths {
                Ok(paths) => paths,
                Err(trouble) => {
                    let wait = pace.after(&all, Err(trouble)).unwrap_or(LATER);
                    tokio::time::sleep(wait).await;
                    continue;
                }
            };
            let first = looked_up.replace(Instant::now()).is_none();
            known.retain(|path, _| paths.contains(path));
            for path in paths.into_iter().take(MOST_FILES) {
                known.entry(path).or_insert_with_key(|path| {
                    let feed = guest.means.feed(subject.clone(), &format!("guest file {path}"));
                    let place = guest.means.place(&feed);
                    let file = file::GuestFile::new(path.clone(), format, place, first);
                    (Joined::new(feed), file)
                });
            }
            if is_pattern {
                let nothing = known.is_empty().then(|| State::Waiting("no file fits".into()));
                all.is(nothing.unwrap_or(State::Following));
            }
        }
        let mut shortest = IDLE.1;
        let mut more = false;
        for (to, file) in known.values_mut() {
            let pulled = file.pull(guest, to).await;
            more |= matches!(pulled, Ok(Some(true)));
            let mut one = Pace { idle: pace.idle };
            let Some(wait) = one.after(&to.feed, pulled) else { return };
            shortest = shortest.min(wait);
        }
        pace.idle = if more { None } else { Some(pace.next_idle()) };
        let wait = if more { SOON } else { shortest };
        if !nap(wait, known.values_mut().map(|(to, _)| to)).await {
            return;
        }
    }
}

/// The files in the guest that fit. Its answer only chooses among those: one folder, and names that fit.
async fn look_up(pattern: &str, guest: &Guest) -> Result<Vec<String>, Trouble> {
    let (folder, names) = pattern.rsplit_once('/').unwrap_or(("", pattern));
    let start = if folder.is_empty() { "/" } else { folder };
    let piece = guest.run(&["find", start, "-maxdepth", "1", "-type", "f", "-name", names]).await?;
    let found = String::from_utf8_lossy(&piece.bytes);
    let mut paths: Vec<String> = found
        .lines()
        .filter_map(|line| line.strip_prefix(folder)?.strip_prefix('/'))
        .filter(|name| !name.contains('/') && !name.chars().any(char::is_control) && glob::fits(names, name))
        .map(|name| format!("{folder}/{name}"))
        .collect();
    paths.sort();
    paths.dedup();
    // A folder that is not there yet has no file that fits, and those that come with it are read from their starts.
    if paths.is_empty() && piece.code != Some(0) && !file::is_missing(&found) {
        return Err(Trouble::odd(&piece.bytes));
    }
    Ok(paths)
}

/// How long to wait: less while there is more, ever longer while there is nothing.
#[derive(Default)]
struct Pace {
    idle: Option<Duration>,
}

impl Pace {
    fn next_idle(&self) -> Duration {
        self.idle.map_or(IDLE.0, |idle| (idle * 2).min(IDLE.1))
    }

    /// Notes how a source is; how long to wait, and `None` when all is over.
    fn after(&mut self, feed: &Feed, pulled: Result<Option<bool>, Trouble>) -> Option<Duration> {
        Some(match pulled {
            Ok(None) => return None,
            Ok(Some(true)) => {
                feed.is(State::Following);
                self.idle = None;
                SOON
            }
            Ok(Some(false)) => {
                feed.is(State::Following);
                *self.idle.insert(self.next_idle())
            }
            Err(Trouble::Driver(DriverError::NotRunning(_))) => {
                feed.is(State::Waiting("the VM does not run".into()));
                LATER
            }
            Err(Trouble::Driver(DriverError::Blocked { why, .. })) => {
                feed.is(State::Waiting(why));
                LATER
            }
            Err(Trouble::Missing) => {
                feed.is(State::Waiting(Trouble::Missing.to_string()));
                IDLE.1
            }
            Err(trouble) => {
                feed.is(State::Failing(chain(&trouble)));
                REFUSED
            }
        })
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
