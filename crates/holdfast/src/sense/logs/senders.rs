//! Who may send logs over the network, and whose they are: the address of the sender decides, never what a message
//! says of itself (I17).
//!
//! What comes from an address that nobody named is dropped and counted: kept, it would be a way for strangers to fill
//! the storage and to put words into this host's mouth.

use super::health::State;
use super::means::{Feed, Means, Said};
use holdfast_core::lease::Incarnation;
use holdfast_core::subject::Subject;
use holdfast_drivers::Driver;
use holdfast_logs::Record;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Messages of one sender within a second that are looked at: more packets are dropped and counted before that costs
/// much, more connections are kept waiting.
const MOST_MESSAGES: f64 = 20_000.0;
/// Bytes likewise.
const MOST_BYTES: f64 = 16.0 * 1024.0 * 1024.0;
/// Connections of one sender at a time.
pub const MOST_CONNECTIONS: usize = 32;
/// A connection that has sent enough for now is looked at again after this time.
const WAIT: Duration = Duration::from_millis(20);
/// How long it is believed which start of a VM runs.
const BELIEVED: Duration = Duration::from_millis(100);
/// Strangers and failed handshakes are told of in the log this often, at most.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// One who may send.
pub struct Sender {
    /// Its way to the inlet.
    pub feed: Feed,
    driver: Arc<dyn Driver>,
    believed: Mutex<Option<(Instant, Option<Incarnation>)>>,
    packets: Mutex<Allowance>,
    /// A flood of packets, which may be forged, takes nothing from those who can be kept waiting.
    streams: Mutex<Allowance>,
    connections: AtomicUsize,
}

impl Sender {
    /// What a record is worth here: with the start of the VM that runs now.
    #[must_use]
    pub fn said(&self, record: Record) -> Said {
        Said { record, incarnation: self.incarnation() }
    }

    fn incarnation(&self) -> Option<Incarnation> {
        let vm = self.feed.subject.vm()?;
        let mut believed = self.believed.lock().unwrap_or_else(PoisonError::into_inner);
        match *believed {
            Some((at, incarnation)) if at.elapsed() < BELIEVED => incarnation,
            Some(_) | None => {
                let incarnation = self.driver.places(vm).incarnation;
                *believed = Some((Instant::now(), incarnation));
                incarnation
            }
        }
    }

    /// Whether a message of so many bytes is within what a sender may send; else it is counted.
    #[must_use]
    pub fn may_send(&self, bytes: usize) -> bool {
        let may = spend(&self.packets, 1, bytes);
        if !may {
            self.feed.gauge.dropped(1);
        }
        may
    }

    /// Waits until what came over a connection is within what a sender may send.
    pub async fn until_it_may_send(&self, messages: usize, bytes: usize) {
        while !spend(&self.streams, messages, bytes) {
            tokio::time::sleep(WAIT).await;
        }
    }

    /// One more connection, if it may have one.
    #[must_use]
    pub fn connect(self: &Arc<Self>) -> Option<Connected> {
        let one_more = |count| (count < MOST_CONNECTIONS).then_some(count + 1);
        let taken = self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok().then(|| Connected(Arc::clone(self)))
    }
}

fn spend(allowance: &Mutex<Allowance>, messages: usize, bytes: usize) -> bool {
    let mut allowance = allowance.lock().unwrap_or_else(PoisonError::into_inner);
    allowance.spend(Instant::now(), messages, bytes)
}

/// A connection of a sender, as long as it is held.
pub struct Connected(pub Arc<Sender>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What may still be sent within this second.
struct Allowance {
    at: Instant,
    messages: f64,
    bytes: f64,
}

impl Allowance {
    fn new(at: Instant) -> Self {
        Self { at, messages: MOST_MESSAGES, bytes: MOST_BYTES }
    }

    fn spend(&mut self, now: Instant, messages: usize, bytes: usize) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.messages = (self.messages + passed * MOST_MESSAGES).min(MOST_MESSAGES);
        self.bytes = (self.bytes + passed * MOST_BYTES).min(MOST_BYTES);
        let (messages, bytes) = (messages as f64, bytes as f64);
        if self.messages < messages || self.bytes < bytes {
            return false;
        }
        self.messages -= messages;
        self.bytes -= bytes;
        true
    }
}

type Known = Arc<BTreeMap<IpAddr, Arc<Sender>>>;

/// All who may send, by their addresses.
#[derive(Clone)]
pub struct Senders(watch::Sender<Known>);

impl Default for Senders {
    fn default() -> Self {
        Self(watch::channel(Known::default()).0)
    }
}

impl Senders {
    /// From now on these may send. Who could before goes on as the same.
    pub fn configure(&self, means: &Means, source: &str, whose: &BTreeMap<IpAddr, Subject>) {
        let before = Arc::clone(&self.0.borrow());
        let known = whose.iter().map(|(address, subject)| {
            let same = before.get(address).filter(|sender| sender.feed.subject == *subject);
            let sender = same.cloned().unwrap_or_else(|| {
                let feed = means.feed(subject.clone(), source);
                feed.is(State::Waiting("nothing was received yet".into()));
                let allowance = || Mutex::new(Allowance::new(Instant::now()));
                Arc::new(Sender {
                    feed,
                    driver: Arc::clone(&means.driver),
                    believed: Mutex::new(None),
                    packets: allowance(),
                    streams: allowance(),
                    connections: AtomicUsize::new(0),
                })
            });
            (*address, sender)
        });
        self.0.send_replace(Arc::new(known.collect()));
    }

    /// Who has this address.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<Arc<Sender>> {
        self.0.borrow().get(&address.to_canonical()).cloned()
    }
}

/// Counts what is told of only now and then, for strangers choose how often it happens.
#[derive(Default)]
pub struct Sparing {
    told: Option<Instant>,
    count: u64,
}

impl Sparing {
    /// One more; how many there were since it was told last, when it is time to tell again.
    pub fn one(&mut self) -> Option<u64> {
        self.count += 1;
        if self.told.is_some_and(|at| at.elapsed() < TOLD_EVERY) {
            return None;
        }
        self.told = Some(Instant::now());
        Some(std::mem::take(&mut self.count))
    }
}

/// Tells of strangers, now and then.
#[derive(Default)]
pub struct Strangers(Sparing);

impl Strangers {
    /// One message or connection of a stranger was dropped.
    pub fn dropped(&mut self, listener: &Feed, address: IpAddr) {
        listener.gauge.dropped(1);
        if let Some(dropped) = self.0.one() {
            let listener = &listener.source;
            tracing::warn!(%listener, %address, dropped, "logs of an unknown sender are dropped; `address` of a log names it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_messages_may_be_sent_at_once_and_then_as_many_a_second() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let sent = |allowance: &mut Allowance, at: u64, bytes: usize| {
            let at = start + Duration::from_millis(at);
            (0..50_000).filter(|_| allowance.spend(at, 1, bytes)).count()
        };
        assert_eq!(sent(&mut allowance, 0, 100), 20_000);
        assert_eq!(sent(&mut allowance, 100, 100), 2_000);
        assert_eq!(sent(&mut allowance, 60_000, 64 * 1024), 256);
    }
}
