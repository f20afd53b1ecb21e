//! What a console says also goes to the logbook. It never waits: what finds no room there is counted.

use super::super::logs::health::State;
use super::super::logs::{Feed, Format, Said};
use holdfast_core::lease::Incarnation;
use holdfast_logs::{Join, Record};

/// Who hears every whole line of a console, as it was written. Lines that belong together become one record.
#[derive(Debug)]
pub struct Tap {
    feed: Feed,
    join: Join,
    incarnation: Incarnation,
}

impl Tap {
    /// For the console of this start of a VM.
    pub fn of(feed: Feed, incarnation: Incarnation) -> Self {
        Self { feed, join: Join::new(), incarnation }
    }

    /// Hears a line.
    pub fn hear(&mut self, line: &[u8]) {
        if let Some(record) = Format::Auto.record(line, self.feed.received()) {
            let done = self.join.push(record, self.feed.micros());
            done.into_iter().for_each(|record| self.offer(record));
        }
    }

    /// Brings what has waited long enough for its next line.
    pub fn rest(&mut self) {
        self.bring(self.feed.micros());
    }

    /// The console is like this now.
    pub fn is(&self, state: State) {
        self.feed.gauge.set(state); // a trouble is told in the log by whoever follows it
    }

    fn bring(&mut self, now: i64) {
        while let Some(record) = self.join.rest(now) {
            self.offer(record);
        }
    }

    fn offer(&self, record: Record) {
        self.feed.offer(Said { record, incarnation: Some(self.incarnation) });
    }
}

/// The last record has no next line any more.
impl Drop for Tap {
    fn drop(&mut self) {
        self.bring(i64::MAX);
    }
}
