//! Windows as they come, of one source: each is judged by those before it, and then learned.

use super::habits::{Habits, Room};
use super::judgement::Judgement;
use super::model::Model;
use super::window::Window;
use serde::{Deserialize, Serialize};

/// Windows before anything is said.
const FIRST: u64 = 32;

/// Windows between two models.
const BETWEEN: u64 = 64;

/// What was learned so many windows ago weighs half.
const HALF_LIFE: u32 = 2_048;

/// Less than offline: a model is made again and again, beside many other sources.
const ROOM: Room = Room { vectors: 512, counts: 1 << 16, columns: 96 };

/// What was going on during a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum During {
    /// Nothing that is known.
    Quiet,
    /// An incident: such a window is judged, and never learned.
    Incident,
}

/// The habits of one source, and what they say of each window. A new habit is one
/// after three windows, or up to 30 where windows break off.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Watch {
    habits: Habits,
    /// Made again of the habits where it was not kept.
    #[serde(skip)]
    model: Option<Model>,
    /// Windows that were learned when the model was made.
    made_at: u64,
}

impl Default for Watch {
    fn default() -> Self {
        Self::with_room(ROOM)
    }
}

impl Watch {
    /// One that knows nothing yet, and may remember so much.
    #[must_use]
    pub fn with_room(room: Room) -> Self {
        Self { habits: Habits::new(room, Some(HALF_LIFE)), model: None, made_at: 0 }
    }

    /// Judges the window by those before it, and learns it unless it belongs to an incident. Of the first windows
    /// nothing is said.
    pub fn window(&mut self, window: &Window, during: During) -> Option<Judgement> {
        if self.model.is_none() && self.habits.windows() >= FIRST {
            self.model = self.habits.model();
        }
        let judgement = self.model.as_ref().map(|model| model.judge(window));
        match during {
            During::Incident => {}
            During::Quiet => self.learn(window),
        }
        judgement
    }

    fn learn(&mut self, window: &Window) {
        self.habits.learn(window);
        let windows = self.habits.windows();
        if windows == FIRST || windows >= self.made_at + BETWEEN {
            self.model = self.habits.model();
            self.made_at = windows;
        }
    }

    /// What it has learned.
    #[must_use]
    pub fn habits(&self) -> &Habits {
        &self.habits
    }
}
