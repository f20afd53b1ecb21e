//! Asks an application what its users would ask it, and says what came back.
//!
//! A probe makes a new connection each time (one that is open already stays alive when nobody takes new
//! ones; a number may well be asked in such a [`KeptSession`] one), ends by its limit, never panics, and reads at most [`MOST_HEARD`] bytes of an answer. It must
//! never tell our own trouble as the application's: that is [`ProbeFailure::Internal`].

mod command;
mod connection;
#[cfg(test)]
mod fake;
mod http;
mod mysql;
mod postgres;
mod redis;
mod session;
mod tcp;
#[cfg(test)]
mod tests;

pub use command::Command;
pub use http::{Http, Tls};
pub use mysql::Mysql;
pub use postgres::{Aside, Postgres, Untold};
pub use redis::Redis;
pub use session::KeptSession;
pub use tcp::Tcp;

use super::chain;
use crate::config::Expect;
use connection::Hearing;
use futures_util::FutureExt;
use holdfast_core::signal::{AppSign, ProbeFailure};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

/// Bytes of an answer that are read; more is a wrong answer.
pub const MOST_HEARD: u64 = 64 * 1024;
/// Characters of a text that are kept.
const LONGEST_TEXT: usize = 256;

/// One question to one application.
#[derive(Clone, Debug)]
pub enum Probe {
    /// A query to PostgreSQL, and a row written and read back where that is allowed.
    Postgres(Postgres),
    /// A query to MySQL or MariaDB.
    Mysql(Mysql),
    /// PING or GET to Redis.
    Redis(Redis),
    /// GET over HTTP/1.1 or HTTPS.
    Http(Http),
    /// A connection, and a greeting where one is expected.
    Tcp(Tcp),
    /// A program on this host.
    Command(Command),
}

impl Probe {
    /// The same, which also leaves there how much its application has written, if that tells such things.
    #[must_use]
    pub fn telling(mut self, written: Option<Aside>) -> Self {
        if let Self::Postgres(postgres) = &mut self {
            postgres.written = written;
        }
        self
    }
}

/// Where an application is reached: as configured, or as the driver forwards it. Never an address that a
/// guest told us (A16).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// A name or an address.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A password, which shows itself nowhere (A46).
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(password)")
    }
}

/// Asks once. Ends by `limit` at the latest, whatever the other side does.
pub async fn probe(probe: &Probe, limit: Duration) -> AppSign {
    let hearing = Hearing::new();
    let asked = Instant::now();
    let answer = async {
        match probe {
            Probe::Postgres(postgres) => postgres.ask(&hearing, limit).await,
            Probe::Mysql(mysql) => mysql.ask(&hearing).await,
            Probe::Redis(redis) => redis.ask(&hearing).await,
            Probe::Http(http) => http.ask(&hearing).await,
            Probe::Tcp(tcp) => tcp.ask(&hearing, limit).await,
            Probe::Command(command) => command.ask(&hearing).await,
        }
    };
    let ended = tokio::time::timeout(limit, AssertUnwindSafe(answer).catch_unwind()).await;
    if let Some(answered) = hearing.answered_at() {
        return AppSign::Answered { latency: answered.saturating_duration_since(asked) };
    }
    let trouble = match ended {
        Ok(Ok(Err(trouble))) => trouble,
        Ok(Ok(Ok(()))) => Trouble::internal("the probe ended without an answer"),
        Ok(Err(_panic)) => Trouble::internal("the probe broke, see the log of holdfast"),
        Err(_elapsed) => hearing.late(limit),
    };
    trouble.into()
}

/// What a query answers first, or a command prints: at most [`MOST_HEARD`] bytes of it, within `limit`. A query is asked
/// in the session that is kept, if any may be, and leaves one behind.
///
/// # Errors
/// Why there is none, escaped, for people.
pub async fn answer(probe: &Probe, kept: Option<&KeptSession>, limit: Duration) -> Result<String, String> {
    let hearing = Hearing::new();
    let answer = async {
        match probe {
            Probe::Postgres(postgres) => postgres.value(kept, &hearing, limit).await,
            Probe::Command(command) => command.print(&hearing).await,
            Probe::Mysql(_) | Probe::Redis(_) | Probe::Http(_) | Probe::Tcp(_) => {
                Err(Trouble::internal("it answers no queries"))
            }
        }
    };
    let trouble = match tokio::time::timeout(limit, AssertUnwindSafe(answer).catch_unwind()).await {
        Ok(Ok(Ok(answer))) => return Ok(answer),
        Ok(Ok(Err(trouble))) => trouble,
        Ok(Err(_panic)) => Trouble::internal("the question broke, see the log of holdfast"),
        Err(_elapsed) => hearing.late(limit),
    };
    Err(holdfast_logs::escape(&trouble.text, LONGEST_TEXT))
}

/// Why there was no right answer.
#[derive(Debug, PartialEq, Eq)]
struct Trouble {
    how: ProbeFailure,
    text: String,
}

impl Trouble {
    fn new(how: ProbeFailure, text: impl Into<String>) -> Self {
        Self { how, text: text.into() }
    }

    fn internal(text: impl Into<String>) -> Self {
        Self::new(ProbeFailure::Internal, text)
    }

    fn wrong(text: impl Into<String>) -> Self {
        Self::new(ProbeFailure::Wrong, text)
    }

    fn mismatch(text: impl Into<String>) -> Self {
        Self::new(ProbeFailure::Mismatch, text)
    }
}

impl From<Trouble> for AppSign {
    fn from(trouble: Trouble) -> Self {
        Self::Failed { how: trouble.how, text: holdfast_logs::escape(&trouble.text, LONGEST_TEXT) }
    }
}

/// An answer against the expected one, if one is expected.
fn compare(expected: Option<&Expect>, answer: Option<&str>) -> Result<(), Trouble> {
    match (expected, answer) {
        (None, _) => Ok(()),
        (Some(expected), Some(answer)) if expected.is(answer) => Ok(()),
        (Some(expected), Some(answer)) => {
            let answer: String = answer.chars().take(100).collect();
            Err(Trouble::mismatch(format!("answered `{answer}` instead of `{expected}`")))
        }
        (Some(expected), None) => Err(Trouble::mismatch(format!("answered nothing instead of `{expected}`"))),
    }
}
