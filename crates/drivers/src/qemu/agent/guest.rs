//! The questions we put to a guest agent, and the form of its answers. Each fails with the
//! [`AgentError`] that says how.

use super::super::untrusted::{Few, Text, unbase64};
use super::super::wire::ReadError;
use super::{AgentError, Session};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// The guest's operating system, in its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Os {
    /// As `debian`.
    #[serde(default)]
    pub id: Option<Text>,
    /// As `Debian GNU/Linux 12 (bookworm)`.
    #[serde(default)]
    pub pretty_name: Option<Text>,
    /// As `12`.
    #[serde(default)]
    pub version_id: Option<Text>,
    /// As `6.1.0-56-amd64`.
    #[serde(default)]
    pub kernel_release: Option<Text>,
}

/// One mounted file system.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GuestFs {
    /// Where it is mounted.
    pub mountpoint: Text,
    /// As `ext4`.
    #[serde(rename = "type", default)]
    pub kind: Text,
    /// Bytes used; old agents do not tell.
    #[serde(default)]
    pub used_bytes: Option<u64>,
    /// Bytes in all; old agents do not tell.
    #[serde(default)]
    pub total_bytes: Option<u64>,
}

/// One network interface. Its addresses are the guest's claim: they are shown, never dialled (A16).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Interface {
    /// As `eth0`.
    pub name: Text,
    /// The MAC address.
    #[serde(default)]
    pub hardware_address: Option<Text>,
    /// Its addresses.
    #[serde(default)]
    pub ip_addresses: Few<Address, 64>,
}

/// One address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Address {
    /// As the guest wrote it.
    pub ip_address: Text,
    /// Bits of the network part.
    #[serde(default)]
    pub prefix: Option<u16>,
}

/// Whether file systems are frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Freeze {
    /// Writes go through.
    Thawed,
    /// Writes wait.
    Frozen,
}

/// How a command in the guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandEnd {
    /// Its exit code, if it ended by itself.
    pub code: Option<i64>,
    /// What it printed, output then errors; at most 64 KiB, untamed.
    pub output: Vec<u8>,
}

/// So much of what a command prints is kept.
pub const MAX_OUTPUT: usize = 64 * 1024;

#[derive(Deserialize)]
struct Started {
    pid: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Progress {
    exited: bool,
    #[serde(default)]
    exitcode: Option<i64>,
    #[serde(default)]
    out_data: Option<String>,
    #[serde(default)]
    err_data: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Chunk {
    buf_b64: String,
    #[serde(default)]
    eof: bool,
}

#[derive(Deserialize)]
struct Seeked {
    position: u64,
}

/// How often a running command is asked after: the first time at once, then ever less.
const ASK_AGAIN: [Duration; 4] = [
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(150),
];

impl Session<'_> {
    async fn run(&mut self, command: &str, arguments: Value) -> Result<(), AgentError> {
        self.call::<serde::de::IgnoredAny>(command, arguments).await.map(drop)
    }

    /// Are you there?
    pub async fn ping(&mut self) -> Result<(), AgentError> {
        self.run("guest-ping", Value::Null).await
    }

    /// Which system is it?
    pub async fn os(&mut self) -> Result<Os, AgentError> {
        self.call("guest-get-osinfo", Value::Null).await
    }

    /// Which file systems are mounted, and how full are they?
    pub async fn file_systems(&mut self) -> Result<Few<GuestFs, 256>, AgentError> {
        self.call("guest-get-fsinfo", Value::Null).await
    }

    /// Which interfaces and addresses does the guest claim?
    pub async fn interfaces(&mut self) -> Result<Few<Interface, 256>, AgentError> {
        self.call("guest-network-get-interfaces", Value::Null).await
    }

    /// Are file systems frozen?
    pub async fn freeze_state(&mut self) -> Result<Freeze, AgentError> {
        self.call("guest-fsfreeze-status", Value::Null).await
    }

    /// Freezes all file systems and tells how many. The caller sees to the thaw (I16), also after an
    /// error.
    pub async fn freeze(&mut self) -> Result<u64, AgentError> {
        match self.call("guest-fsfreeze-freeze", Value::Null).await? {
            0 => Err(AgentError::Absurd("froze nothing")), // A17
            count => Ok(count),
        }
    }

    /// Tells a guest that goes on with a saved memory what time it is, in microseconds since 1970, and thaws it if it was
    /// saved frozen.
    pub async fn wake(&mut self, now: i64) -> Result<(), AgentError> {
        if self.freeze_state().await? == Freeze::Frozen {
            self.thaw().await?;
        }
        self.run("guest-set-time", json!({ "time": now.saturating_mul(1_000) })).await
    }

    /// Thaws until the guest says that nothing is frozen.
    pub async fn thaw(&mut self) -> Result<(), AgentError> {
        for _ in 0..3 {
            self.run("guest-fsfreeze-thaw", Value::Null).await?;
            if self.freeze_state().await? == Freeze::Thawed {
                return Ok(());
            }
        }
        Err(AgentError::Absurd("thaws and stays frozen"))
    }

    /// Sets the guest's clock, in nanoseconds since 1970.
    pub async fn set_time(&mut self, nanos: i64) -> Result<(), AgentError> {
        self.run("guest-set-time", json!({ "time": nanos })).await
    }

    /// Asks the guest to power down. It answers only to refuse: silence until the end of the session
    /// is consent.
    pub async fn shut_down(&mut self) -> Result<(), AgentError> {
        match self.run("guest-shutdown", json!({ "mode": "powerdown" })).await {
            Err(AgentError::Silent(_) | AgentError::Garbage(ReadError::Closed)) => Ok(()),
            other => other,
        }
    }

    /// Starts a program in the guest and does not wait for its end. `argv` comes from the
    /// configuration or from ourselves, never from a guest.
    pub async fn start(&mut self, argv: &[String]) -> Result<(), AgentError> {
        self.begin(argv, false).await.map(drop)
    }

    /// The same, keeping what it prints; its number, to ask after it with [`Session::ended`].
    pub async fn begin(&mut self, argv: &[String], capture: bool) -> Result<i64, AgentError> {
        let (path, args) = argv.split_first().ok_or(AgentError::Absurd("was given an empty command"))?;
        let order = json!({ "path": path, "arg": args, "capture-output": capture });
        Ok(self.call::<Started>("guest-exec", order).await?.pid)
    }

    /// Runs a program in the guest to its end, within the time of this session. `argv` as for
    /// [`Session::start`].
    pub async fn exec(&mut self, argv: &[String]) -> Result<CommandEnd, AgentError> {
        let pid = self.begin(argv, true).await?;
        for turn in 0_usize.. {
            if let Some(end) = self.ended(pid).await? {
                return Ok(end);
            }
            tokio::time::sleep(ASK_AGAIN[turn.min(ASK_AGAIN.len() - 1)].min(self.left())).await;
        }
        Err(AgentError::Silent(self.limit))
    }

    /// How a program ended that was begun; `None` while it runs. It can be asked for once.
    pub async fn ended(&mut self, pid: i64) -> Result<Option<CommandEnd>, AgentError> {
        let progress: Progress = self.call("guest-exec-status", json!({ "pid": pid })).await?;
        if !progress.exited {
            return Ok(None);
        }
        let mut output = Vec::new();
        for text in [progress.out_data, progress.err_data].into_iter().flatten() {
            let more = unbase64(&text, MAX_OUTPUT - output.len());
            output.extend(more.ok_or(AgentError::Absurd("sends output that is not base 64"))?);
        }
        Ok(Some(CommandEnd { code: progress.exitcode, output }))
    }

    /// Reads a piece of a file of the guest: how long the file is, and at most `most` bytes from `offset` on.
    pub async fn read_file_at(
        &mut self,
        path: &str,
        offset: u64,
        most: usize,
    ) -> Result<(u64, Vec<u8>), AgentError> {
        let handle: i64 = self.call("guest-file-open", json!({ "path": path, "mode": "r" })).await?;
        let piece = self.read_piece(handle, offset, most).await;
        if piece.as_ref().map_or_else(AgentError::is_answer, |_| true) {
            self.run("guest-file-close", json!({ "handle": handle })).await?;
        }
        piece
    }

    async fn read_piece(
        &mut self,
        handle: i64,
        offset: u64,
        most: usize,
    ) -> Result<(u64, Vec<u8>), AgentError> {
        let size = self.seek(handle, 0, "end").await?;
        if size <= offset {
            return Ok((size, Vec::new()));
        }
        self.seek(handle, offset, "set").await?;
        Ok((size, self.read_open_file(handle, most).await?))
    }

    async fn seek(&mut self, handle: i64, offset: u64, whence: &str) -> Result<u64, AgentError> {
        let place = json!({ "handle": handle, "offset": offset, "whence": whence });
        Ok(self.call::<Seeked>("guest-file-seek", place).await?.position)
    }

    /// Reads a file of the guest, at most `most` bytes of it.
    pub async fn read_file(&mut self, path: &str, most: usize) -> Result<Vec<u8>, AgentError> {
        let handle: i64 = self.call("guest-file-open", json!({ "path": path, "mode": "r" })).await?;
        let content = self.read_open_file(handle, most).await;
        if content.as_ref().map_or_else(AgentError::is_answer, |_| true) {
            self.run("guest-file-close", json!({ "handle": handle })).await?;
        }
        content
    }

    async fn read_open_file(&mut self, handle: i64, most: usize) -> Result<Vec<u8>, AgentError> {
        let mut content = Vec::new();
        while content.len() < most {
            let question = json!({ "handle": handle, "count": (most - content.len()).min(128 * 1024) });
            let chunk: Chunk = self.call("guest-file-read", question).await?;
            let bytes = unbase64(&chunk.buf_b64, most - content.len());
            let bytes = bytes.ok_or(AgentError::Absurd("sends a file that is not base 64"))?;
            let empty = bytes.is_empty();
            content.extend(bytes);
            if chunk.eof || empty {
                break;
            }
        }
        Ok(content)
    }
}
