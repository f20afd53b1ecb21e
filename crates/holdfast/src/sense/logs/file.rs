//! Log files of this host: one path, or all that a pattern names.

use super::decode::Format;
use super::follow::{Begin, Follower, Look};
use super::health::State;
use super::joined::{Joined, WAITS};
use super::means::{Feed, Means};
use super::place::{Place, seconds};
use super::{chain, glob};
use crate::sense::wake::Wake;
use holdfast_core::subject::Subject;
use holdfast_logs::LONGEST_TEXT;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Files that one pattern may name; more are left out, and that is said.
const MOST_FILES: usize = 64;
/// Between two looks at what grows slowly, at least.
const PERIOD: Duration = Duration::from_millis(100);
/// Between two looks when there is more to read at once: about 12 MiB/s, and never a whole processor (I7).
const BREATH: Duration = Duration::from_millis(5);
/// How often a pattern is looked up.
const LOOK_UP: Duration = Duration::from_secs(1);
/// A file that is gone is forgotten after so long.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Files that were let go and are known again under another name.
const MOST_KNOWN: usize = 2 * MOST_FILES;

/// What is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLog {
    /// Whose log it is.
    pub subject: Subject,
    /// What the source is called, if not by its file.
    pub name: Option<&'static str>,
    /// A path, or a pattern of paths.
    pub path: PathBuf,
    /// How its lines are written.
    pub format: Format,
}

/// Follows until it is time to stop.
pub async fn follow(log: FileLog, means: Means) {
    let wake = Wake::new().ok(); // without it, there is a look each second
    let mut files = Files::new(log, means.clone());
    while !means.stop.is_cancelled() {
        files.look_up();
        let mut more = false;
        for path in files.paths() {
            if let Some(wake) = &wake {
                wake.watch_through(&path); // before the look, so that no change falls between
            }
            let Some(goes_on) = files.read(&path).await else { return };
            more |= goes_on;
        }
        if !means.wait(if more { BREATH } else { PERIOD }).await {
            return;
        }
        match &wake {
            _ if more => {}
            Some(wake) => {
                let longest = if files.is_waiting() { WAITS } else { LOOK_UP };
                let changed = tokio::time::timeout(longest, wake.changed());
                let _ = means.stop.run_until_cancelled(changed).await; // a look tells what it was
            }
            None => drop(means.wait(LOOK_UP - PERIOD).await),
        }
    }
}

/// The files of one source.
struct Files {
    log: FileLog,
    means: Means,
    followed: BTreeMap<PathBuf, Followed>,
    /// Told as long as no file is there.
    nothing: Option<Feed>,
    looked_up: Option<Instant>,
    /// What was let go, and how far it had been read.
    known: VecDeque<((u64, u64), u64)>,
}

struct Followed {
    /// Taken while it is read.
    follower: Option<Follower>,
    joined: Joined,
    missing_since: Option<Instant>,
}

impl Files {
    fn new(log: FileLog, means: Means) -> Self {
        let (followed, nothing, known) = (BTreeMap::new(), None, VecDeque::new());
        Self { log, means, followed, nothing, looked_up: None, known }
    }

    fn feed(&self, path: &Path) -> Feed {
        let name = self.log.name.map_or_else(|| format!("file {}", path.display()), ToOwned::to_owned);
        self.means.feed(self.log.subject.clone(), &name)
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.followed.keys().cloned().collect()
    }

    /// Looks which files there are, now and then.
    fn look_up(&mut self) {
        if self.looked_up.is_some_and(|at| at.elapsed() < LOOK_UP) {
            return;
        }
        let first = self.looked_up.replace(Instant::now()).is_none();
        let (paths, more) = if glob::is_pattern(&self.log.path) {
            glob::paths(&self.log.path, MOST_FILES)
        } else {
            (vec![self.log.path.clone()], false)
        };
        let feeds: Vec<Feed> = paths.iter().map(|path| self.feed(path)).collect();
        let place = |feed: &Feed| self.means.place(feed)?.parse::<Place>().ok();
        let newest = first.then(|| feeds.iter().filter_map(place).map(|place| place.read_at).max()).flatten();
        for (path, feed) in paths.into_iter().zip(feeds) {
            self.take_on(path, feed, first, newest);
        }
        let nothing = match (self.followed.is_empty(), more) {
            (true, _) => Some(State::Waiting("no file fits".into())),
            (false, true) => {
                Some(State::Failing(format!("more than {MOST_FILES} files fit; the rest is not read")))
            }
            (false, false) => None,
        };
        self.nothing = nothing.map(|state| {
            let feed = self.feed(&self.log.path);
            feed.is(state);
            feed
        });
    }

    /// `newest`: when some file of this pattern was read last, in the life before.
    fn take_on(&mut self, path: PathBuf, feed: Feed, first: bool, newest: Option<u64>) {
        if self.followed.contains_key(&path) || self.followed.len() >= MOST_FILES {
            return;
        }
        let meta = std::fs::metadata(&path).ok();
        let id = meta.as_ref().map(crate::sense::tail::id);
        // What was followed under another name, and is still, is not read a second time.
        let reads = |followed: &Followed| followed.follower.as_ref().and_then(Follower::reads);
        if id.is_some_and(|id| self.followed.values().filter_map(reads).any(|(other, _)| other == id)) {
            return;
        }
        let place = self.means.place(&feed).and_then(|place| place.parse().ok());
        let born = meta.and_then(|meta| meta.created().ok()).map(seconds);
        let is_news = newest.is_some_and(|newest| born.is_some_and(|born| born > newest));
        let known = self.known.iter().find(|(other, _)| Some(*other) == id);
        let begin = match (place, known) {
            (_, Some((_, offset))) => Begin::Behind(*offset),
            (Some(place), None) if first => Begin::At(place),
            // What is in it when we come first is of long ago; what comes later is news.
            (None, None) if first && id.is_some() && !is_news => Begin::End,
            (_, None) => Begin::Behind(0),
        };
        let follower = Some(Follower::new(&path, begin, LONGEST_TEXT));
        let joined = Joined::new(feed);
        self.followed.insert(path, Followed { follower, joined, missing_since: None });
    }

    /// Reads one file, once. Whether there is more; `None` when it is time to stop.
    async fn read(&mut self, path: &Path) -> Option<bool> {
        let followed = self.followed.get_mut(path)?;
        let mut follower = followed.follower.take()?;
        let before = follower.reads();
        let looked = tokio::task::spawn_blocking(move || {
            let look = follower.look(Instant::now());
            (follower, look)
        });
        let (follower, looked) = looked.await.ok()?;
        let after = follower.reads();
        followed.follower = Some(follower);
        let feed = followed.joined.feed.clone();
        let look = match looked {
            Ok(look) => look,
            Err(error) => {
                feed.is(State::Failing(chain(&error)));
                Look::default()
            }
        };
        if look.missing {
            let since = *followed.missing_since.get_or_insert_with(Instant::now);
            feed.is(State::Waiting("no such file".into()));
            if after.is_none() && since.elapsed() >= FORGOTTEN && glob::is_pattern(&self.log.path) {
                self.followed.remove(path);
            }
        } else {
            followed.missing_since = None;
            if after.is_some() {
                feed.is(State::Following);
            }
        }
        if let Some(old) = before.filter(|(id, _)| after.is_none_or(|(new, _)| new != *id)) {
            self.known.push_back(old);
            self.known.drain(..self.known.len().saturating_sub(MOST_KNOWN));
        }
        self.bring(path, look).await
    }

    async fn bring(&mut self, path: &Path, look: Look) -> Option<bool> {
        let (stop, format) = (&self.means.stop, self.log.format);
        let Some(Followed { joined, .. }) = self.followed.get_mut(path) else { return Some(false) };
        if look.skipped > 0 || look.gap {
            joined.feed.gauge.dropped(1);
            let (source, skipped) = (&joined.feed.source, look.skipped);
            if skipped > 0 {
                tracing::warn!(%source, skipped, "lines of a log were skipped: it grew too fast, or was moved away");
            } else {
                tracing::info!(%source, "a log is read from its beginning: where it was read to last is not found again");
            }
        }
        let more = look.more;
        let bringing = async {
            for line in look.lines {
                let Some(record) = format.record(&line.text, joined.feed.received()) else { continue };
                if !joined.bring(record.into(), Some(line.place.to_string())).await {
                    return false;
                }
            }
            joined.rest(false).await
        };
        stop.run_until_cancelled(bringing).await?.then_some(more)
    }

    /// Whether a record of some file waits for its next line.
    fn is_waiting(&self) -> bool {
        self.followed.values().any(|followed| followed.joined.is_waiting())
    }
}

#[cfg(test)]
mod tests;
