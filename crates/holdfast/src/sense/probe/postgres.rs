//! PostgreSQL and what speaks its protocol: a login, a query, and a row that is kept.

use super::connection::{Heard, Hearing, connect};
use super::session::{KeptSession, Session};
use super::{Password, Target, Trouble, chain, compare};
use crate::config::Expect;
use futures_util::future::join;
use holdfast_core::signal::ProbeFailure;
use holdfast_core::written::Written;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Config, Connection, NoTls, SimpleQueryMessage, SimpleQueryRow};

/// The query if none is configured.
#[cfg(test)]
pub const QUERY: &str = "select 1";
/// The table for the row that is written, to be made by the owner of the database.
pub const TABLE: &str = "create table holdfast_probe (id int primary key, at timestamptz)";

/// How much it has written: rows changed, bytes of its log, and since when it counts rows, which a crash ends (PostgreSQL
/// manual, 28.2 and 9.27). Whoever may log in may see it.
const WRITTEN: &str = "select coalesce(sum(tup_inserted + tup_updated + tup_deleted), 0)::bigint, \
     pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, \
                     '0/0')::bigint, \
     coalesce(extract(epoch from greatest(max(stats_reset), (select stats_reset from pg_stat_bgwriter))) * 1000000, \
              0)::bigint \
     from pg_stat_database";

/// Where an answer leaves how much was written, or that nobody can tell.
#[derive(Clone, Debug, Default)]
pub struct Aside(Arc<Mutex<Option<Result<Written, Untold>>>>);

/// Why it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untold {
    /// It cannot tell: it is another sort of server, or another version.
    Never,
    /// It is busy.
    Now,
}

/// It has so long to tell, so that what it answered is not kept waiting.
const TELLING: Duration = Duration::from_millis(500);

impl Aside {
    /// What was left there.
    pub fn take(&self) -> Option<Result<Written, Untold>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, told: Result<Written, Untold>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
    }
}

/// Who logs in where.
pub(super) type Login = (Target, String, Option<Password>, String);

/// A question to PostgreSQL.
#[derive(Clone, Debug)]
pub struct Postgres {
    /// Where.
    pub at: Target,
    /// The role to log in as.
    pub user: String,
    /// Its password, if it has one. SCRAM costs us about 4,096 rounds of HMAC each time.
    pub password: Option<Password>,
    /// The database.
    pub database: String,
    /// What is asked, in one round trip of the simple protocol.
    pub query: String,
    /// What the first column of the first row must be, as text.
    pub expect: Option<Expect>,
    /// Also write row 1 of `holdfast_probe` and read it back, each in its own transaction.
    pub write: bool,
    /// Once it has answered it is asked how much it has written.
    pub written: Option<Aside>,
}

impl Postgres {
    pub(super) async fn ask(&self, hearing: &Arc<Hearing>, limit: Duration) -> Result<(), Trouble> {
        self.converse(hearing, async |client| {
            self.talk(client, limit).await?;
            hearing.answered(); // what follows is no matter of whether it does
            if let Some(aside) = &self.written {
                tell_written(client, aside).await;
            }
            Ok(())
        })
        .await
    }

    /// The first field of the first row of its query, which is asked to change nothing and to end in time; in the session
    /// that is kept, if there is one.
    pub(super) async fn value(
        &self,
        kept: Option<&KeptSession>,
        hearing: &Arc<Hearing>,
        limit: Duration,
    ) -> Result<String, Trouble> {
        let mut turn = match kept {
            Some(kept) => kept.turn(limit / 4).await,
            None => None,
        };
        let before = match &mut turn {
            Some(turn) => turn.take(self, limit / 4).await,
            None => None,
        };
        let mut session = match before {
            Some(session) => {
                hearing.joined(); // if it comes late now, it is an answer that is late
                session
            }
            None => Session::open(self, hearing).await?,
        };
        let told = session.converse(async |client: &Client| self.inquire(client, limit).await).await;
        let sound = told.as_ref().err().is_none_or(Told::is_said);
        let answer = told.map_err(|told| told.judged(&session.hearing));
        match turn.filter(|_| sound) {
            Some(turn) => turn.leave(session),
            None => session.close().await,
        }
        answer
    }

    async fn inquire(&self, client: &Client, limit: Duration) -> Result<String, Told> {
        let most = limit.as_millis().max(1);
        let set = format!("set default_transaction_read_only = on; set statement_timeout = {most}");
        client.simple_query(&set).await?;
        let rows = client.simple_query(&self.query).await?;
        let value = first(&rows).map(ToOwned::to_owned);
        value.ok_or_else(|| Trouble::wrong("the query answers no row, or nothing in it").into())
    }

    /// Logs in, says something, and takes its leave.
    async fn converse<T>(
        &self,
        hearing: &Arc<Hearing>,
        say: impl AsyncFnOnce(&Client) -> Result<T, Told>,
    ) -> Result<T, Trouble> {
        let (client, connection) = self.login(hearing).await?;
        let talk = async {
            let told = say(&client).await.map_err(|told| told.judged(hearing));
            drop(client); // so that the connection says goodbye and ends
            told
        };
        join(talk, connection).await.0
    }

    pub(super) async fn login(
        &self,
        hearing: &Arc<Hearing>,
    ) -> Result<(Client, Connection<Heard, NoTlsStream>), Trouble> {
        let stream = connect(&self.at, hearing).await?;
        let mut config = Config::new();
        config.user(&self.user).dbname(&self.database).application_name("holdfast");
        if let Some(password) = &self.password {
            config.password(&password.0);
        }
        config.connect_raw(stream, NoTls).await.map_err(|error| judge(&error, hearing))
    }

    pub(super) fn as_login(&self) -> Login {
        (self.at.clone(), self.user.clone(), self.password.clone(), self.database.clone())
    }

    async fn talk(&self, client: &Client, limit: Duration) -> Result<(), Told> {
        if self.write {
            // So that a write which hangs does not stay behind in the server, once a second.
            let most = limit.as_millis().max(1);
            client.simple_query(&format!("set statement_timeout = {most}")).await?;
        }
        let rows = client.simple_query(&self.query).await?;
        compare(self.expect.as_ref(), first(&rows))?;
        if self.write {
            write_and_read(client).await?;
        }
        Ok(())
    }
}

async fn tell_written(client: &Client, aside: &Aside) {
    aside.put(match tokio::time::timeout(TELLING, client.simple_query(WRITTEN)).await {
        Ok(Ok(rows)) => written(&rows).ok_or(Untold::Never),
        Ok(Err(error)) if error.as_db_error().is_some() => Err(Untold::Never),
        Ok(Err(_lost)) => Err(Untold::Now),
        Err(_late) => Err(Untold::Now),
    });
}

fn written(messages: &[SimpleQueryMessage]) -> Option<Written> {
    let row = row(messages)?;
    let number = |at: usize| row.try_get(at).ok().flatten();
    Some(Written {
        rows: number(0)?.parse().ok()?,
        log: number(1)?.parse().ok()?,
        since: number(2)?.parse().ok()?,
    })
}

async fn write_and_read(client: &Client) -> Result<(), Told> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let now = format!("timestamptz 'epoch' + interval '{now} microseconds'");
    let write = format!(
        "insert into holdfast_probe (id, at) values (1, {now}) on conflict (id) do update set at = excluded.at"
    );
    client.simple_query(&write).await.map_err(without_table)?;
    let read = format!("select at >= {now} from holdfast_probe where id = 1");
    let rows = client.simple_query(&read).await.map_err(without_table)?;
    match first(&rows) {
        Some("t") => Ok(()),
        _ => Err(Trouble::wrong("a row that was written and committed cannot be read back").into()),
    }
}

/// A missing table is a missing preparation, not a broken database.
fn without_table(error: tokio_postgres::Error) -> Told {
    match error.code().map(tokio_postgres::error::SqlState::code) {
        Some("42P01") => Told::Trouble(Trouble::internal(format!("holdfast_probe is missing: {TABLE}"))),
        _ => Told::Error(error),
    }
}

/// The first column of the first row.
fn first(messages: &[SimpleQueryMessage]) -> Option<&str> {
    row(messages)?.try_get(0).ok().flatten()
}

/// The first row.
fn row(messages: &[SimpleQueryMessage]) -> Option<&SimpleQueryRow> {
    messages
        .iter()
        .find_map(|message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None })
}

enum Told {
    Trouble(Trouble),
    Error(tokio_postgres::Error),
}

impl Told {
    /// The server itself said so: with the session nothing is wrong.
    fn is_said(&self) -> bool {
        match self {
            Self::Trouble(_) => true,
            Self::Error(error) => error.as_db_error().is_some(),
        }
    }

    fn judged(self, hearing: &Hearing) -> Trouble {
        match self {
            Self::Trouble(trouble) => trouble,
            Self::Error(error) => judge(&error, hearing),
        }
    }
}

impl From<Trouble> for Told {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<tokio_postgres::Error> for Told {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Error(error)
    }
}

fn judge(error: &tokio_postgres::Error, hearing: &Hearing) -> Trouble {
    if let Some(said) = error.as_db_error() {
        let code = said.code().code();
        return Trouble::new(meaning(code), format!("{}: {} ({code})", said.severity(), said.message()));
    }
    let text = chain(error);
    if text.contains("password missing") {
        return Trouble::new(ProbeFailure::Denied, "asks for a password and none is configured");
    }
    if text.contains("unsupported") && !hearing.too_much() {
        return Trouble::internal(text);
    }
    hearing.broken(error)
}

/// What an error of the server says of it (PostgreSQL manual, appendix A).
fn meaning(code: &str) -> ProbeFailure {
    match code {
        "57P03" => ProbeFailure::Starting,
        "53300" => ProbeFailure::Exhausted,
        "3D000" | "42501" => ProbeFailure::Denied,
        _ if code.starts_with("28") => ProbeFailure::Denied,
        _ => ProbeFailure::Wrong,
    }
}
