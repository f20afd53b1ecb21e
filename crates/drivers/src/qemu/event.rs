//! What a hypervisor tells unasked, kept in a queue that a flood cannot push the important out of.

use super::untrusted::tame;
use serde_json::value::RawValue;
use std::collections::VecDeque;

/// One event, as QEMU sent it (QEMU document "QMP reference", section Events).
#[derive(Clone, Debug)]
pub struct Event {
    /// Its name in capitals, tamed.
    pub name: String,
    /// Its data, not parsed yet; at most [`MAX_DATA`] bytes.
    pub data: Option<Box<RawValue>>,
}

impl Event {
    /// The data as `T`; `None` if it is of another form.
    #[must_use]
    pub fn data<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(self.data.as_ref()?.get()).ok()
    }
}

/// Data longer than this is left out of its event: none that we know comes near.
pub const MAX_DATA: usize = 16 * 1024;
/// So many events wait at most.
const MOST: usize = 256;

/// Those that change what a VM is or does. Of each of these kinds the newest is never dropped.
const CRITICAL: [&str; 13] = [
    "SHUTDOWN",
    "POWERDOWN",
    "RESET",
    "STOP",
    "RESUME",
    "SUSPEND",
    "SUSPEND_DISK",
    "WAKEUP",
    "GUEST_PANICKED",
    "GUEST_CRASHLOADED",
    "WATCHDOG",
    "BLOCK_IO_ERROR",
    "BLOCK_IMAGE_CORRUPTED",
];

/// A queue of events with a limit and a rule: when it is full the oldest ordinary event goes; if all
/// are critical, the oldest that has a newer one of its kind. There are fewer critical kinds than
/// places, so the newest of each kind always stays, and what stays keeps its order.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<Event>,
    dropped: u64,
}

impl Queue {
    /// Puts an event in.
    pub fn push(&mut self, name: &str, data: Option<&RawValue>) {
        let name = tame(name, 64);
        let data = data.filter(|d| d.get().len() <= MAX_DATA).map(ToOwned::to_owned);
        self.waiting.push_back(Event { name, data });
        if self.waiting.len() > MOST {
            let victim = self.waiting.iter().position(|e| !is_critical(&e.name));
            self.waiting.remove(victim.unwrap_or_else(|| self.repeated()));
            self.dropped += 1;
        }
    }

    /// Takes the oldest.
    pub fn pop(&mut self) -> Option<Event> {
        self.waiting.pop_front()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many were dropped so far.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    fn repeated(&self) -> usize {
        let later = |at: usize, name: &str| self.waiting.iter().skip(at + 1).any(|e| e.name == name);
        (0..self.waiting.len()).find(|&at| later(at, &self.waiting[at].name)).unwrap_or(0)
    }
}

fn is_critical(name: &str) -> bool {
    CRITICAL.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop()).map(|e| e.name).collect()
    }

    #[test]
    fn a_flood_of_unknown_events_pushes_out_only_itself() {
        let mut queue = Queue::default(); // A18
        queue.push("STOP", None);
        for _ in 0..10_000 {
            queue.push("FLOOD", None);
        }
        queue.push("SHUTDOWN", None);
        for _ in 0..10_000 {
            queue.push("FLOOD", None);
        }
        let names = names(&mut queue);
        assert_eq!(names.len(), MOST);
        assert_eq!(names[..2], ["STOP", "SHUTDOWN"]);
        assert_eq!(queue.dropped(), 20_002 - 256);
    }

    #[test]
    fn a_flood_of_critical_events_leaves_the_newest_of_each_kind_in_order() {
        let mut queue = Queue::default();
        queue.push("GUEST_PANICKED", None);
        for _ in 0..10_000 {
            queue.push("RESET", None);
        }
        queue.push("SHUTDOWN", None);
        for _ in 0..10_000 {
            queue.push("WATCHDOG", None);
        }
        let mut names = names(&mut queue);
        names.dedup();
        assert_eq!(names, ["GUEST_PANICKED", "RESET", "SHUTDOWN", "WATCHDOG"]);
    }

    #[test]
    fn an_event_with_endless_data_is_kept_without_it() {
        let mut queue = Queue::default();
        let data = serde_json::value::to_raw_value(&"x".repeat(MAX_DATA)).ok();
        queue.push("STOP", data.as_deref());
        assert!(queue.pop().is_some_and(|event| event.data.is_none()));
    }
}
