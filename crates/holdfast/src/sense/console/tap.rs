//! What a console says also goes to the logbook. It never waits: what finds no room there is counted.

use super::super::logs::health::State;
use super::super::logs::joined::Joint;
use super::super::logs::place::Place;
use super::super::logs::{Feed, Format, Said};
use holdfast_core::lease::Incarnation;
use holdfast_logs::{Record, Severity};

/// Who hears every whole line of a console, as it was written. Lines that belong together become one record.
#[derive(Debug)]
pub struct Tap {
    feed: Feed,
    joint: Joint,
    incarnation: Incarnation,
}

impl Tap {
    /// For the console of this start of a VM.
    pub fn of(feed: Feed, incarnation: Incarnation) -> Self {
        Self { feed, joint: Joint::new(), incarnation }
    }

    /// Hears a line, with the place behind it.
    pub fn hear(&mut self, line: &[u8], place: Place) {
        if let Some(record) = Format::Auto.record(line, self.feed.received()) {
            let done = self.joint.push(record, Some(place.to_string()), self.feed.micros());
            done.into_iter().for_each(|done| self.offer(done));
        }
    }

    /// So many bytes are not read: they are counted as one that was lost, and how many they are is kept with the rest.
    pub fn skips(&mut self, bytes: u64) {
        self.bring(i64::MAX);
        self.feed.gauge.dropped(1);
        let text = format!(
            "holdfast: {bytes} bytes of this console are left out here: they came faster than they are read"
        );
        self.offer((Record { text, severity: Some(Severity::Warning), ..Record::default() }, None));
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
        while let Some(done) = self.joint.rest(now) {
            self.offer(done);
        }
    }

    fn offer(&self, (record, place): (Record, Option<String>)) {
        self.feed.offer_at(Said { record, incarnation: Some(self.incarnation) }, place);
    }
}

/// The last record has no next line any more.
impl Drop for Tap {
    fn drop(&mut self) {
        self.bring(i64::MAX);
    }
}
