//! Since when a channel stands as it does.
//!
//! The engine says how a channel stands now, and of what is bad since when. That all is well it says anew with every
//! answer: how long that has been so is remembered here, by looking once a second. It decides nothing, and is
//! forgotten with the daemon: "since" is then when this daemon first saw it.

use crate::decide::{Desk, Inbox};
use holdfast_core::engine::{ChannelState, VmStatus};
use holdfast_core::lease::Incarnation;
use holdfast_core::signal::Channel;
use holdfast_core::subject::VmName;
use holdfast_core::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often is looked.
const EVERY: Duration = Duration::from_secs(1);
/// At so many VMs in one look: the loop that decides waits meanwhile, about 20 microseconds for each.
const AT_ONCE: usize = 64;

/// How a VM's channels stood when last looked at.
#[derive(Default)]
struct Stood {
    incarnation: Option<Incarnation>,
    channels: BTreeMap<Channel, (ChannelState, Timestamp)>,
}

/// Since when all channels stand as they do.
#[derive(Clone, Default)]
pub struct Standing(Arc<Mutex<BTreeMap<VmName, Stood>>>);

impl Standing {
    /// Looks until told to stop.
    pub async fn keep(self, inbox: Inbox, stop: CancellationToken) {
        let mut next = None;
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            let (standing, from) = (self.clone(), next.take());
            match inbox.look(move |desk| standing.look(desk, from.as_ref())).await {
                Ok(reached) => next = reached,
                Err(_stopping) => return,
            }
        }
    }

    /// Looks at some VMs, from this one on; returns where the next look begins, if any are left.
    fn look(&self, desk: &Desk, from: Option<&VmName>) -> Option<VmName> {
        let now = desk.clock.now();
        let mut names = desk.engine.vms().map(|(name, _)| name).skip_while(|name| from > Some(*name));
        for mut status in names.by_ref().take(AT_ONCE).filter_map(|name| desk.engine.status(name, now)) {
            self.complete(&mut status);
        }
        let next = names.next().cloned();
        if next.is_none() {
            self.stood().retain(|name, _| desk.engine.vm(name).is_some());
        }
        next
    }

    /// Says of each channel since when it stands as it does, and remembers it.
    pub fn complete(&self, status: &mut VmStatus) {
        let mut all = self.stood();
        let stood = all.entry(status.name.clone()).or_default();
        if stood.incarnation != status.incarnation {
            *stood = Stood { incarnation: status.incarnation, ..Stood::default() }; // it answers for itself
        }
        for channel in &mut status.channels {
            let seen = stood.channels.entry(channel.channel).or_insert((channel.state, channel.since));
            if seen.0 != channel.state {
                *seen = (channel.state, channel.since);
            }
            seen.1 = seen.1.min(channel.since);
            channel.since = seen.1;
        }
    }

    fn stood(&self) -> MutexGuard<'_, BTreeMap<VmName, Stood>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::engine::ChannelStatus;

    /// The agent's channel as the engine tells it: of a start, in a state, since then.
    fn told(incarnation: u64, state: ChannelState, since: u64) -> VmStatus {
        let channel = ChannelStatus {
            channel: Channel::Agent,
            state,
            since: Timestamp::from_secs(since),
            detail: String::new(),
        };
        VmStatus {
            name: "orders".parse().expect("a name"),
            state: "running".to_owned(),
            incarnation: Some(Incarnation(incarnation)),
            channels: vec![channel],
            apps: Vec::new(),
            incident: None,
            protection: "armed".to_owned(),
            note: None,
            busy: false,
            not_back: None,
            tries: (0, 3),
            isolated: None,
            counters: None,
        }
    }

    /// Since when, as people are told, in seconds.
    fn since(standing: &Standing, mut status: VmStatus) -> u64 {
        standing.complete(&mut status);
        status.channels[0].since.as_micros() / 1_000_000
    }

    #[test]
    fn what_is_said_anew_with_every_answer_has_been_so_since_the_first() {
        let standing = Standing::default();
        assert_eq!(since(&standing, told(1, ChannelState::Ok, 10)), 10);
        assert_eq!(since(&standing, told(1, ChannelState::Ok, 11)), 10);
        assert_eq!(since(&standing, told(1, ChannelState::Silent, 11)), 11, "silent since its last answer");
        assert_eq!(since(&standing, told(1, ChannelState::Ok, 30)), 30, "and well again since then");
    }

    #[test]
    fn a_new_start_answers_for_itself() {
        let standing = Standing::default();
        assert_eq!(since(&standing, told(1, ChannelState::Ok, 10)), 10);
        assert_eq!(since(&standing, told(2, ChannelState::Ok, 50)), 50);
    }

    #[test]
    fn what_is_known_to_be_so_for_longer_is_told_so() {
        let standing = Standing::default();
        assert_eq!(since(&standing, told(1, ChannelState::Bad, 20)), 20);
        assert_eq!(since(&standing, told(1, ChannelState::Bad, 15)), 15);
    }
}
