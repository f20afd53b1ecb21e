//! Every whole line of a console also goes to the logbook. It never waits: what finds no room there is counted.

use crate::clock::Clock;
use crate::logbook::{Entry, Inlet, SourceName};
use holdfast_core::lease::Incarnation;
use holdfast_core::subject::{Subject, VmName};
use holdfast_logs::{Record, clean};

/// Who hears every whole line of a console, as it was written.
#[derive(Debug)]
pub struct Tap {
    inlet: Inlet,
    clock: Clock,
    subject: Subject,
    source: SourceName,
    incarnation: Incarnation,
}

impl Tap {
    /// For the console of this start of a VM.
    pub fn of(inlet: Inlet, clock: Clock, vm: &VmName, incarnation: Incarnation) -> Self {
        let (subject, source) = (Subject::Guest(vm.clone()), SourceName::new("console"));
        Self { inlet, clock, subject, source, incarnation }
    }

    /// Hears a line.
    pub fn hear(&mut self, line: &[u8]) {
        let text = clean(line).trim_end().to_owned();
        if text.is_empty() {
            return;
        }
        let at = self.clock.now();
        self.inlet.offer(Entry {
            subject: self.subject.clone(),
            incarnation: Some(self.incarnation),
            source: self.source.clone(),
            at,
            received: self.clock.wall(at),
            record: Record { text, ..Record::default() },
            place: None,
        });
    }
}
