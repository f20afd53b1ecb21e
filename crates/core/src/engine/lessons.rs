//! What closed incidents teach, and whether that is used.

use super::Engine;
use crate::diagnosis::{Catalogue, Lessons};
use crate::incident::IncidentId;

impl Engine {
    /// What was learned so far.
    #[must_use]
    pub const fn lessons(&self) -> &Lessons {
        &self.lessons
    }

    /// The same, if the configuration wants it used.
    pub(super) fn lessons_in_use(&self) -> Option<&Lessons> {
        self.policies.use_lessons.then_some(&self.lessons)
    }

    /// An incident is over.
    pub(super) fn learn_from(&mut self, id: IncidentId) {
        let Some(incident) = self.incidents.get(&id) else { return };
        if self.lessons.learn(incident) && self.policies.use_lessons {
            self.teach(); // what is only counted changes no likelihood
        }
    }

    /// The catalogue as it is now: also after a restart, for it is not kept.
    pub(super) fn teach(&mut self) {
        self.is_taught = true;
        self.catalogue = self.lessons_in_use().map_or_else(Catalogue::standard, Catalogue::taught);
    }
}
