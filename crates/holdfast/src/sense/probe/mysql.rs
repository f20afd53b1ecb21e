//! MySQL and MariaDB: a login and a query.
//!
//! The client library makes its own connections, tidies up after itself for as long as it takes, and
//! knows no limit on an answer. So it talks to a relay on loopback, which is this probe's own connection:
//! counted, bounded, and gone when the probe is.

use super::connection::{Heard, Hearing, connect};
use super::{MOST_HEARD, Password, Target, Trouble, compare};
use crate::config::Expect;
use futures_util::future::{Either, select};
use holdfast_core::signal::ProbeFailure;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, OptsBuilder, Row, Value};
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// The query if none is configured.
#[cfg(test)]
pub const QUERY: &str = "select 1";
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_millis(200);

/// A question to MySQL.
#[derive(Clone, Debug)]
pub struct Mysql {
    /// Where.
    pub at: Target,
    /// The user to log in as.
    pub user: String,
    /// Its password, if it has one.
    pub password: Option<Password>,
    /// The database; none is an answer too.
    pub database: Option<String>,
    /// What is asked.
    pub query: String,
    /// What the first column of the first row must be, as text.
    pub expect: Option<Expect>,
}

impl Mysql {
    pub(super) async fn ask(&self, hearing: &Arc<Hearing>) -> Result<(), Trouble> {
        let stream = connect(&self.at, hearing).await?;
        let relay = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(no_relay)?;
        let port = relay.local_addr().map_err(no_relay)?.port();
        let talk = pin!(self.talk(port, hearing));
        let carry = pin!(carry(relay, stream));
        match select(talk, carry).await {
            Either::Left((told, carry)) => {
                // The farewell is on its way; nobody waits long for its end.
                let _ = tokio::time::timeout(FAREWELL, carry).await;
                told
            }
            Either::Right(((), talk)) => talk.await,
        }
    }

    async fn talk(&self, port: u16, hearing: &Hearing) -> Result<(), Trouble> {
        let options = OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(port)
            .user(Some(&self.user))
            .pass(self.password.as_ref().map(|password| &password.0))
            .db_name(self.database.as_ref())
            .prefer_socket(false) // the server would name a path on this host, and we would open it (I17)
            .max_allowed_packet(Some(MOST_HEARD as usize)) // and not asked for
            .wait_timeout(Some(60))
            .stmt_cache_size(0);
        let judged = |error: Error| judge(&error, hearing);
        let mut connection = Conn::new(options).await.map_err(judged)?;
        let told = match connection.query_first::<Row, _>(&self.query).await {
            Ok(row) => {
                let answer = row.as_ref().and_then(|row| row.as_ref(0)).and_then(text);
                compare(self.expect.as_ref(), answer.as_deref())
            }
            Err(error) => Err(judged(error)),
        };
        if told.is_ok() {
            hearing.answered();
        }
        // A server that is left without a word logs an aborted connection.
        let _ = tokio::time::timeout(FAREWELL, connection.disconnect()).await;
        told
    }
}

async fn carry(relay: TcpListener, mut stream: Heard) {
    if let Ok((mut client, _)) = relay.accept().await {
        drop(relay); // one client, no other
        let _ = client.set_nodelay(true);
        // Its errors are noted by the stream itself.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut stream).await;
    }
}

fn no_relay(error: std::io::Error) -> Trouble {
    Trouble::internal(format!("cannot open a port on loopback: {error}"))
}

/// A value of the text protocol.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::Int(_)
        | Value::UInt(_)
        | Value::Float(_)
        | Value::Double(_)
        | Value::Date(..)
        | Value::Time(..) => Some(value.as_sql(true)),
    }
}

fn judge(error: &Error, hearing: &Hearing) -> Trouble {
    match error {
        Error::Server(said) => {
            let text = format!("{} ({}, {})", said.message, said.code, said.state);
            Trouble::new(meaning(said.code), text)
        }
        Error::Driver(mysql_async::DriverError::UnknownAuthPlugin { name }) => {
            Trouble::internal(format!("cannot log in by `{name}`"))
        }
        Error::Driver(_) | Error::Io(_) | Error::Other(_) | Error::Url(_) => hearing.broken(error),
    }
}

/// What an error of the server says of it (MySQL manual, "Server Error Message Reference").
const fn meaning(code: u16) -> ProbeFailure {
    match code {
        // Too many connections, of all or of this user; a user's resources used up.
        1040 | 1203 | 1226 => ProbeFailure::Exhausted,
        // Access denied (login, database, table, command), unknown database, host blocked or unknown,
        // password expired, account locked.
        1044 | 1045 | 1049 | 1129 | 1130 | 1142 | 1143 | 1227 | 1698 | 1820 | 1862 | 3118 => {
            ProbeFailure::Denied
        }
        // Shutting down: it says so, and will be back or be refused.
        1053 => ProbeFailure::Starting,
        _ => ProbeFailure::Wrong,
    }
}
