//! The drill's own client: writes rows, remembers which were acknowledged, and counts them afterwards.

use crate::config::{AppConfig, Password, Secret, VmConfig};
use holdfast_core::subject::AppName;
use holdfast_drivers::Places;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A row that is not acknowledged within this is given up and written again under another number.
const ROW_LIMIT: Duration = Duration::from_secs(2);
/// The pause between rows, and between tries to connect.
const PAUSE: Duration = Duration::from_millis(25);
const TABLE: &str = "create table if not exists holdfast_drill (run text, id bigint, at timestamptz default now(), primary key (run, id))";

/// How an application is reached by a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// The application.
    pub app: String,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// As whom; `None` where there are no users.
    pub user: Option<String>,
    /// Which database.
    pub database: Option<String>,
    /// `postgres`, `mysql`, `redis`, `http`, `tcp`.
    pub kind: String,
    /// Where its password is, for a client that may read it; never the password.
    pub password: Option<Secret>,
}

/// How the applications of a VM are reached from this host.
pub fn reach(vm: &VmConfig, places: &Places) -> Vec<Reach> {
    let one = |(name, app): (&AppName, &AppConfig)| {
        let (host, port) = crate::sense::resolve(app.probe.target()?, places)?;
        let (user, database) = app.probe.login();
        let (kind, password) = (app.probe.scheme().to_owned(), app.password.clone());
        Some(Reach { app: name.to_string(), host, port, user, database, kind, password })
    };
    vm.apps.iter().filter_map(one).collect()
}

/// What the writer has seen so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Rows acknowledged.
    pub acked: u64,
    /// When the last one was.
    pub last: Option<Instant>,
    /// The longest time without one since [`Writer::mark`], until the last one.
    pub longest_gap: Duration,
    /// Why the last try brought none.
    pub trouble: Option<String>,
}

/// How the database is reached, and the password for it.
#[derive(Clone, Debug)]
pub struct Login {
    reach: Reach,
    password: Option<Password>,
}

/// A client that writes rows until it is told to stop.
pub struct Writer {
    stop: CancellationToken,
    seen: watch::Receiver<Seen>,
    marks: watch::Sender<u64>,
    task: tokio::task::JoinHandle<Vec<i64>>,
    run: String,
    login: Login,
}

/// Why the rows could not be counted.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// The database refused or failed.
    #[error("the drill's client cannot use the database")]
    Database(#[from] tokio_postgres::Error),
    /// The client ended.
    #[error("the drill's client ended unexpectedly")]
    Ended,
}

impl Writer {
    /// Starts writing.
    pub fn start(reach: Reach, password: Option<Password>) -> Self {
        let login = Login { reach, password };
        let run = format!("{}-{}", std::process::id(), jiff::Timestamp::now().as_microsecond());
        let stop = CancellationToken::new();
        let (seen_to, seen) = watch::channel(Seen::default());
        let (marks, marked) = watch::channel(0);
        let task = tokio::spawn(write(login.clone(), run.clone(), stop.clone(), seen_to, marked));
        Self { stop, seen, marks, task, run, login }
    }

    /// How it reaches the database.
    pub fn login(&self) -> Login {
        self.login.clone()
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// From now on the longest gap is measured afresh.
    pub fn mark(&self) {
        self.marks.send_modify(|mark| *mark += 1);
    }

    /// Stops, and counts: rows acknowledged, and those of them that are missing.
    pub async fn finish(self) -> Result<(u64, u64), WriterError> {
        self.stop.cancel();
        let acked = self.task.await.map_err(|_| WriterError::Ended)?;
        let client = connect(&self.login).await?;
        let rows = client.query("select id from holdfast_drill where run = $1", &[&self.run]).await?;
        let kept: std::collections::BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
        let lost = acked.iter().filter(|id| !kept.contains(id)).count();
        client.execute("delete from holdfast_drill where run = $1", &[&self.run]).await?;
        Ok((acked.len() as u64, lost as u64))
    }
}

/// A connection as the drill's client.
pub async fn connect(login: &Login) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let Login { reach, password } = login;
    let mut config = tokio_postgres::Config::new();
    if let Some(password) = password {
        config.password(password.reveal());
    }
    config.host(&reach.host).port(reach.port).connect_timeout(ROW_LIMIT);
    config.user(reach.user.as_deref().unwrap_or("postgres"));
    config.dbname(reach.database.as_deref().unwrap_or("postgres"));
    let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
    tokio::spawn(connection); // ends when the client is dropped
    Ok(client)
}

async fn write(
    login: Login,
    run: String,
    stop: CancellationToken,
    seen_to: watch::Sender<Seen>,
    marked: watch::Receiver<u64>,
) -> Vec<i64> {
    let (mut acked, mut seen, mut mark) = (Vec::new(), Seen::default(), 0);
    let mut client: Option<tokio_postgres::Client> = None;
    let mut id = 0_i64;
    while !stop.is_cancelled() {
        id += 1;
        let began = Instant::now();
        match tokio::time::timeout(ROW_LIMIT, row(&mut client, &login, &run, id)).await {
            Ok(Ok(())) => {
                let now = Instant::now();
                if std::mem::replace(&mut mark, *marked.borrow()) != mark {
                    seen.longest_gap = Duration::ZERO;
                }
                let gap = seen.last.map_or(Duration::ZERO, |last| now - last);
                let longest_gap = seen.longest_gap.max(gap);
                seen = Seen { acked: seen.acked + 1, last: Some(now), longest_gap, trouble: None };
                acked.push(id);
            }
            Ok(Err(cause)) => (client, seen.trouble) = (None, Some(crate::act::chain(&cause))),
            Err(_) => {
                (client, seen.trouble) = (None, Some(format!("no answer in {} s", ROW_LIMIT.as_secs())))
            }
        }
        let _ = seen_to.send(seen.clone()); // nobody may be looking
        tokio::time::sleep(PAUSE.saturating_sub(began.elapsed())).await;
    }
    acked
}

async fn row(
    client: &mut Option<tokio_postgres::Client>,
    login: &Login,
    run: &str,
    id: i64,
) -> Result<(), tokio_postgres::Error> {
    if client.is_none() {
        let fresh = connect(login).await?;
        fresh.batch_execute(TABLE).await?;
        *client = Some(fresh);
    }
    let Some(client) = client else { return Ok(()) };
    client.execute("insert into holdfast_drill (run, id) values ($1, $2)", &[&run, &id]).await.map(|_| ())
}
