//! Lines that belong together are brought as one record: stack traces, an oops, what PostgreSQL says to a message.
//!
//! A record that waits for its next line has not been brought, so the place that goes with the others lies before it:
//! after a kill it is read again, and nothing is lost.

use super::means::{Feed, Said};
use holdfast_core::lease::Incarnation;
use holdfast_logs::{Join, Record};
use std::collections::VecDeque;
use std::time::Duration;

/// What the kernel is called in a journal.
const KERNEL: &str = "kernel";
/// Begun records whose beginnings are remembered.
const MOST_BEGINNINGS: usize = 64;
/// A record that waits has waited long enough after this time.
pub const WAITS: Duration = Duration::from_micros(holdfast_logs::PATIENCE.unsigned_abs() + 1_000);

/// Lines that become records, each with a place before which nothing waits.
#[derive(Debug)]
pub struct Joint {
    join: Join,
    /// The place behind the last line.
    behind: Option<String>,
    /// Of records that were begun: which, and the place before it.
    begun: VecDeque<(u64, Option<String>)>,
}

impl Joint {
    /// Nothing waits yet.
    #[must_use]
    pub fn new() -> Self {
        Self { join: Join::new(), behind: None, begun: VecDeque::new() }
    }

    /// Takes a line with the place behind it, at a time that never goes back (microseconds); a record that is complete.
    pub fn push(
        &mut self,
        line: Record,
        place: Option<String>,
        now: i64,
    ) -> Option<(Record, Option<String>)> {
        let before = self.join.begun();
        let done = self.join.push(line, now);
        if self.join.begun() > before && self.begun.len() < MOST_BEGINNINGS {
            self.begun.push_back((self.join.begun(), self.behind.take()));
        }
        self.behind = place;
        done.map(|record| (record, self.place()))
    }

    /// A record that has waited long enough at that time.
    pub fn rest(&mut self, now: i64) -> Option<(Record, Option<String>)> {
        let record = self.join.rest(now)?;
        Some((record, self.place()))
    }

    fn place(&mut self) -> Option<String> {
        let Some(oldest) = self.join.oldest() else {
            self.begun.clear();
            return self.behind.clone();
        };
        while self.begun.front().is_some_and(|(number, _)| *number < oldest) {
            self.begun.pop_front();
        }
        self.begun.front().filter(|(number, _)| *number == oldest).and_then(|(_, place)| place.clone())
    }
}

/// The way of a source that brings lines.
pub struct Joined {
    /// The way of its records.
    pub feed: Feed,
    joint: Joint,
    incarnation: Option<Incarnation>,
}

impl Joined {
    /// For this source.
    #[must_use]
    pub fn new(feed: Feed) -> Self {
        Self { feed, joint: Joint::new(), incarnation: None }
    }

    /// Whether a record waits for its next line; then [`Joined::rest`] is to be called after [`WAITS`].
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.joint.join.oldest().is_some()
    }

    /// Takes a line with the place behind it, and brings what is complete. `false` when nobody takes records any more.
    pub async fn bring(&mut self, said: Said, place: Option<String>) -> bool {
        if self.incarnation != said.incarnation && !self.rest(true).await {
            return false; // what another start of the VM said is not continued
        }
        self.incarnation = said.incarnation;
        if !self.rest(false).await {
            return false;
        }
        match self.joint.push(said.record, place, self.feed.micros()) {
            Some(done) => self.deliver(done).await,
            None => true,
        }
    }

    /// Brings an entry of a journal, in its order: what a program says there is whole. The kernel's lines are not.
    pub async fn bring_entry(&mut self, said: Said, place: Option<String>) -> bool {
        if said.record.program == KERNEL {
            return self.bring(said, place).await;
        }
        if !self.rest(true).await {
            return false;
        }
        self.joint.behind.clone_from(&place);
        self.feed.bring(said, place).await
    }

    /// Brings what has waited long enough, or all. `false` when nobody takes records any more.
    pub async fn rest(&mut self, all: bool) -> bool {
        let now = if all { i64::MAX } else { self.feed.micros() };
        while let Some(done) = self.joint.rest(now) {
            if !self.deliver(done).await {
                return false;
            }
        }
        true
    }

    async fn deliver(&mut self, (record, place): (Record, Option<String>)) -> bool {
        self.feed.bring(Said { record, incarnation: self.incarnation }, place).await
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::Format;
    use super::super::testing::{FakeGuest, Lab};
    use super::*;
    use holdfast_core::subject::Subject;

    async fn say(joined: &mut Joined, line: &str, place: u32) {
        let record = Format::Auto.record(line.as_bytes(), 0).unwrap();
        assert!(joined.bring(record.into(), Some(place.to_string())).await);
    }

    #[tokio::test]
    async fn lines_that_belong_together_are_one_record_and_no_place_lies_behind_one_that_waits() {
        let mut lab = Lab::new(FakeGuest::away());
        let feed = lab.means.feed(Subject::Guest("orders".parse().unwrap()), "file");
        let mut joined = Joined::new(feed);
        let lines = [
            "2026-11-26 10:00:00.000 UTC [7] ERROR:  duplicate key",
            "2026-11-26 10:00:00.000 UTC [7] DETAIL:  Key (id)=(1) already exists.",
            "2026-11-26 10:00:00.100 UTC [7] LOG:  checkpoint starting",
        ];
        for (place, line) in (1..).zip(lines) {
            say(&mut joined, line, place).await;
        }
        let first = lab.next().await;
        assert_eq!(first.record.text.lines().count(), 2, "{}", first.record.text);
        assert_eq!(first.place.as_deref(), Some("2"), "the third line waits");
        assert!(joined.is_waiting() && lab.outlet.waiting().is_none());
        assert!(joined.rest(true).await);
        assert_eq!(lab.next().await.place.as_deref(), Some("3"));
        assert!(!joined.is_waiting());
    }

    #[tokio::test]
    async fn a_record_that_waits_longest_holds_the_place_of_all_back() {
        let mut lab = Lab::new(FakeGuest::away());
        let feed = lab.means.feed(Subject::Guest("orders".parse().unwrap()), "file");
        let mut joined = Joined::new(feed);
        for place in 0..200 {
            // One program waits while another talks.
            let line = if place == 1 {
                "<11>Nov 26 10:00:00 h slow[1]: x"
            } else {
                "<11>Nov 26 10:00:00 h app[2]: y"
            };
            say(&mut joined, line, place).await;
        }
        let (mut seen, mut entries) = (0, Vec::new());
        joined.rest(true).await;
        while let Some(entry) = lab.outlet.waiting() {
            seen += 1;
            entries.push((entry.record.program.clone(), entry.place.map(|place| place.to_string())));
        }
        assert_eq!(seen, 200);
        let slow = entries.iter().position(|(program, _)| program == "slow").unwrap();
        assert!(
            entries[..slow].iter().all(|(_, place)| place.as_deref().is_none_or(|place| place == "0")),
            "{entries:?}"
        );
        assert_eq!(entries.last().unwrap().1.as_deref(), Some("199"));
    }
}
