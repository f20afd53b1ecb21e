//! Real faults, for drills. Nothing here is ever used outside of one.

use super::launch::{DISK_DEVICE, DISK_NODE, NIC};
use super::live::Live;
use super::machine::Machine;
use super::snapshot::node_of;
use super::untrusted::tame;
use crate::{DriverError, Injection};
use holdfast_core::signal::RunState;
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

const INJECT: &str = "inject a fault into";
const LIMIT: Duration = Duration::from_secs(5);
/// A script in a busy guest takes its time.
const SCRIPT_LIMIT: Duration = Duration::from_secs(25);
/// A guest that says nothing to a script for so long has begun it, and maybe not survived it.
const CONSENT: Duration = Duration::from_secs(1);
/// The node that fails every write.
const ERROR_NODE: &str = "hf-errors";
/// The node that holds the device's place while nodes are changed, and what it stands on. It fails all
/// requests: should it ever stay, nothing is lost in it.
const PLACEHOLDER: &str = "hf-place";
const NOTHING: &str = "hf-nothing";

impl Machine {
    /// Injects a fault, or takes it back.
    pub async fn inject(&self, fault: &Injection) -> Result<(), DriverError> {
        let deadline = Instant::now() + LIMIT;
        let live = self.running()?;
        let signal = |signal| live.process.signal(signal).map_err(|e| self.refused(INJECT, e.to_string()));
        match fault {
            Injection::Kill => signal(Signal::KILL),
            Injection::Stop => signal(Signal::STOP),
            Injection::Unstop => signal(Signal::CONT),
            Injection::DiskError(fails) => self.fail_disk(&live, *fails, deadline).await,
            Injection::DiskSlow(rate) => {
                let rate = rate.unwrap_or(0);
                let slow = json!({ "id": format!("{DISK_DEVICE}/virtio-backend"), "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": rate, "iops_rd": 0, "iops_wr": 0 });
                self.tell_qemu(&live, "block_set_io_throttle", slow, deadline).await
            }
            Injection::LinkDown(down) => {
                let cable = json!({ "name": NIC, "up": !down });
                self.tell_qemu(&live, "set_link", cable, deadline).await
            }
            Injection::Check(script) => {
                let deadline = Instant::now() + SCRIPT_LIMIT;
                let end = {
                    let (_turn, mut session) = self.agent_session(INJECT, SCRIPT_LIMIT, deadline).await?;
                    session.exec(&shell(script)).await
                };
                let end = end.map_err(|error| self.agent_failed(INJECT, SCRIPT_LIMIT, &error))?;
                let said = tame(String::from_utf8_lossy(&end.output).trim(), 200);
                if end.code == Some(0) { Ok(()) } else { Err(self.refused(INJECT, said)) }
            }
            Injection::Script(script) => {
                let (_turn, mut session) = self.agent_session(INJECT, LIMIT, deadline).await?;
                match tokio::time::timeout(CONSENT, session.start(&shell(script))).await {
                    Ok(Err(error)) if !error.is_unknown() => Err(self.agent_failed(INJECT, LIMIT, &error)),
                    Ok(_) | Err(_) => Ok(()),
                }
            }
        }
    }

    async fn tell_qemu(
        &self,
        live: &Live,
        command: &'static str,
        arguments: Value,
        deadline: Instant,
    ) -> Result<(), DriverError> {
        let told = live.run(command, arguments, deadline).await;
        told.map_err(|error| self.unconfirmed(INJECT, LIMIT, &error))
    }

    /// Puts a node that fails every write between the disk and its device, or takes it out. The device
    /// lets go of one node only for another, so a placeholder of the same size stands in for a moment,
    /// while the guest is paused. A guest that was paused before stays so: to let it run on is a remedy.
    async fn fail_disk(&self, live: &Live, fails: bool, deadline: Instant) -> Result<(), DriverError> {
        let _turn = self.turn(deadline).await?;
        let tell = |command, arguments| self.tell_qemu(live, command, arguments, deadline);
        let connect = |node: &str| json!({ "path": DISK_DEVICE, "property": "drive", "value": node });
        let nodes = self.disk_nodes(live, deadline).await?;
        if nodes.iter().any(|node| node.name == ERROR_NODE) == fails {
            return Ok(());
        }
        if nodes.iter().any(|node| node.name.starts_with(super::backup::FILTER)) {
            return Err(self.refused(INJECT, "a backup of it runs"));
        }
        let disk = self.disk_node(live, deadline).await?;
        let size = nodes.iter().find(|node| node.name == disk).map(|node| node.image.size);
        let size = size.ok_or_else(|| self.refused(INJECT, "its disk node was not found"))?;
        let before = live.state(deadline).await.map_err(|e| self.unconfirmed(INJECT, LIMIT, &e))?;
        tell("stop", Value::Null).await?;
        tell("blockdev-add", json!({ "driver": "null-co", "node-name": NOTHING, "size": size })).await?;
        tell("blockdev-add", failing(PLACEHOLDER, NOTHING, &["read", "write", "flush"])).await?;
        tell("qom-set", connect(PLACEHOLDER)).await?;
        if fails {
            tell("blockdev-add", failing(ERROR_NODE, &disk, &["write", "flush"])).await?;
            tell("qom-set", connect(ERROR_NODE)).await?;
        } else {
            tell("blockdev-del", json!({ "node-name": ERROR_NODE })).await?;
            tell("qom-set", connect(&disk)).await?;
        }
        tell("blockdev-del", json!({ "node-name": PLACEHOLDER })).await?;
        tell("blockdev-del", json!({ "node-name": NOTHING })).await?;
        if before == RunState::Running {
            tell("cont", Value::Null).await?;
        }
        Ok(())
    }

    /// The node that the disk is without us: an overlay, where snapshots were taken since the start.
    pub(super) async fn disk_node(&self, live: &Live, deadline: Instant) -> Result<String, DriverError> {
        let Some(tree) = self.tree(INJECT).await? else { return Ok(DISK_NODE.to_owned()) };
        let nodes = live.nodes(deadline).await.map_err(|e| self.unconfirmed(INJECT, LIMIT, &e))?;
        let node = node_of(&nodes, &self.files().path(tree.top()));
        Ok(node.unwrap_or(DISK_NODE).to_owned())
    }

    async fn disk_nodes(&self, live: &Live, deadline: Instant) -> Result<Vec<Node>, DriverError> {
        let nodes = live.call("query-named-block-nodes", json!({ "flat": true }), deadline).await;
        nodes.map_err(|error| self.unconfirmed(INJECT, LIMIT, &error))
    }
}

fn shell(script: &str) -> [String; 3] {
    ["/bin/sh", "-c", script].map(ToOwned::to_owned)
}

/// A node that fails these kinds of requests to `below` with an I/O error.
fn failing(name: &str, below: &str, kinds: &[&str]) -> Value {
    let errors: Vec<Value> =
        kinds.iter().map(|kind| json!({ "event": "none", "iotype": kind, "errno": 5 })).collect();
    json!({ "driver": "blkdebug", "node-name": name, "image": below, "inject-error": errors })
}

#[derive(Debug, Deserialize)]
struct Node {
    #[serde(rename = "node-name")]
    name: String,
    image: Image,
}

#[derive(Debug, Deserialize)]
struct Image {
    #[serde(rename = "virtual-size")]
    size: u64,
}
