//! Looks at a VM from outside: its process and its QEMU.

use super::live::{Life, Live};
use super::machine::{Machine, Starts};
use super::sign::{self, BalloonStats, BlockStats};
use super::spec::Network;
use super::untrusted::{Few, Text};
use super::{process, spawn};
use crate::Glimpse;
use holdfast_core::action::Found;
use holdfast_core::lease::Sighting;
use holdfast_core::signal::{AgentPort, HypervisorSign, ProcessSign, ProcessState, Seen};
use holdfast_witness::Eyewitness;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long an inspection waits for the run state; without it the VM is found running all the same.
const RUN_STATE: Duration = Duration::from_millis(700);
/// How long a process is asked that is stopped and so will not answer.
const STOPPED: Duration = Duration::from_millis(250);
/// A console or a log larger than this is cut (I18).
const LOG_MOST: u64 = 16 << 20;

/// A counter of a network interface of this host.
fn packets(interface: &str, counter: &str) -> Option<u64> {
    process::read_small(&format!("/sys/class/net/{interface}/statistics/{counter}")).ok()?.trim().parse().ok()
}

impl Machine {
    /// Whether it lives. What could not be told before is looked for again.
    pub async fn inspect(&self, deadline: Instant) -> Found {
        if matches!(*self.life.borrow(), Life::Unclear(_))
            && let Ok(_turn) = self.turn(deadline).await
        {
            self.look(&Starts::now());
        }
        let life = self.life.borrow().clone();
        match life {
            Life::Dead(proof) => Found::Dead(proof),
            Life::Unclear(why) => Found::Unclear { why },
            Life::Running(live) => {
                let state = live.state(deadline.min(Instant::now() + RUN_STATE)).await.ok();
                let seen = Sighting::of(Eyewitness::here(), live.incarnation);
                Found::Running { seen, pid: live.process.pid(), state, lease: None }
            }
        }
    }

    /// One look at the process, at QEMU's main loop, and at what the devices have done.
    pub async fn poll(&self, limit: Duration) -> Vec<Glimpse> {
        let Ok(live) = self.running() else { return Vec::new() };
        let mut glimpses = Vec::new();
        let mut see = |seen| glimpses.push(self.glimpse(&live, seen));
        let began = Instant::now();
        let stopped = live.process.sample().is_ok_and(|sample| sample.state == ProcessState::Stopped);
        let limit = if stopped { limit.min(STOPPED) } else { limit };
        match live.state(began + limit).await {
            Ok(state) => {
                see(Seen::Hypervisor(HypervisorSign::Answered { state, latency: began.elapsed() }));
                if let Some(counters) = self.counters(&live, Instant::now() + limit).await {
                    see(Seen::Hypervisor(HypervisorSign::Counters(counters)));
                }
            }
            Err(error) => {
                tracing::debug!(vm = %self.name, %error, "no run state");
                see(Seen::Hypervisor(HypervisorSign::NoAnswer { waited: began.elapsed() }));
            }
        }
        // Last, so that it is as fresh as the silence it may explain.
        if let Ok(sample) = live.process.sample() {
            let (state, cpu, rss) = (sample.state, sample.cpu, sample.rss);
            see(Seen::Process(ProcessSign::Alive { state, cpu, rss }));
        }
        for log in [self.folder.console(), self.folder.log()] {
            let _not_there = spawn::bound(&log, LOG_MOST);
        }
        glimpses
    }

    pub(super) fn glimpse(&self, live: &Live, seen: Seen) -> Glimpse {
        Glimpse { vm: self.name.clone(), incarnation: live.incarnation, app: None, seen }
    }

    async fn counters(&self, live: &Arc<Live>, deadline: Instant) -> Option<holdfast_core::signal::Counters> {
        let disks: Few<BlockStats, 64> = live.call("query-blockstats", Value::Null, deadline).await.ok()?;
        let place = json!({ "path": "/machine/peripheral/balloon0", "property": "guest-stats" });
        let balloon: Option<BalloonStats> = live.call("qom-get", place, deadline).await.ok();
        let mut counters = sign::counters(&disks.kept, balloon.as_ref());
        if let Network::Tap { interface, .. } = &self.spec().network {
            // What the host receives on its side of the cable, the guest has sent.
            counters.packets_sent = packets(interface, "rx_packets");
            counters.packets_received = packets(interface, "tx_packets");
        }
        Some(counters)
    }

    /// Whether the guest has the agent's port open, from QEMU, for an agent that gave no answer.
    pub(super) async fn agent_port(&self, live: &Live, deadline: Instant) -> AgentPort {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Chardev {
            label: Text,
            filename: Text,
            frontend_open: bool,
        }
        let all: Result<Few<Chardev, 64>, _> = live.call("query-chardev", Value::Null, deadline).await;
        let Ok(all) = all else { return AgentPort::Unknown };
        match all.kept.iter().find(|chardev| chardev.label.as_str() == "agent") {
            Some(chardev) if !chardev.frontend_open => AgentPort::Closed,
            // We have let go of it, so whoever is still connected is somebody else.
            Some(chardev) if chardev.filename.as_str().starts_with("disconnected:") => AgentPort::Open,
            Some(_) | None => AgentPort::Unknown,
        }
    }
}
