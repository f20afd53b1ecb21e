//! A client that writes one row after the other, remembers which were acknowledged, and is back as soon as the
//! database is: tries to connect overlap, because one that began while the guest booted hangs until long after the
//! guest is up; and as soon as the database has answered one of them, no other is begun, because each costs a
//! guest that has little.

use crate::end;
use crate::world::{boot_time, wait};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::{Client as Database, Config, NoTls};

/// A row that is not acknowledged within this is given up, never to be written again under its number.
const ROW_LIMIT: Duration = Duration::from_secs(3);
/// A try is given up when the database has said nothing for so long; the next one begins so long after it began;
/// and no more than so many wait at once.
const WORD_LIMIT: Duration = Duration::from_secs(2);
const TRY_EVERY: Duration = Duration::from_millis(200);
const TRIES: usize = 8;
/// What a client asks first, and the answer that this database has no encryption.
const ASK: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const PLAIN: u8 = b'N';
/// The pause between two rows.
const PAUSE: Duration = Duration::from_millis(25);
const LONG: Duration = Duration::from_secs(180);

/// What it has seen.
#[derive(Default)]
struct Seen {
    acked: Vec<i64>,
    /// It writes no more rows for the time being, so that it costs its guest nothing.
    idle: bool,
    /// Since boot: when the connection that is used was made, when its first row was acknowledged.
    connected: f64,
    first: Option<f64>,
}

/// Writes until it is counted or dropped.
pub struct Client {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    address: String,
    table: String,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// Starts to write; its first row is in when this returns.
    pub fn start(address: &str) -> Self {
        static TABLES: AtomicU32 = AtomicU32::new(0);
        let table = format!("bench_rows_{}", TABLES.fetch_add(1, Ordering::Relaxed));
        let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let (to, over, place, name) =
            (Arc::clone(&seen), Arc::clone(&stop), address.to_owned(), table.clone());
        let thread = std::thread::spawn(move || runtime().block_on(write(&place, &name, &to, &over)));
        let client = Self { seen, stop, address: address.to_owned(), table, thread: Some(thread) };
        wait(LONG, Duration::from_millis(50), "a client gets a row in", || {
            (client.acked() > 0).then_some(())
        });
        client
    }

    /// Rows acknowledged so far.
    pub fn acked(&self) -> usize {
        lock(&self.seen).acked.len()
    }

    /// Lets it rest, or waits until it writes again.
    pub fn write(&self, busy: bool) {
        lock(&self.seen).idle = !busy;
        let acked = self.acked();
        if busy {
            let more = || (self.acked() > acked).then_some(());
            wait(LONG, Duration::from_millis(20), "a client gets a row in", more);
        }
    }

    /// Waits for a row over a connection that was made after `time` (since boot); when it was acknowledged.
    pub fn back_after(&self, time: f64) -> f64 {
        wait(LONG, Duration::from_millis(20), "the client gets a row in again", || {
            let seen = lock(&self.seen);
            seen.first.filter(|_| seen.connected > time)
        })
    }

    /// Stops, and counts: rows acknowledged, and how many of them are missing.
    pub fn count(mut self) -> (usize, usize) {
        self.end();
        let query = format!("select id from {}", self.table);
        let kept: BTreeSet<i64> = wait(LONG, Duration::from_millis(500), "the rows can be counted", || {
            runtime().block_on(async {
                let database = connect(&self.address, &AtomicBool::new(false)).await?;
                let rows = timeout(LONG, database.query(&query, &[])).await.ok()?.ok()?;
                Some(rows.iter().map(|row| row.get(0)).collect())
            })
        });
        let seen = lock(&self.seen);
        (seen.acked.len(), seen.acked.iter().filter(|id| !kept.contains(id)).count())
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A connection to a database that has said its first word.
async fn first_word(address: String) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(&ASK).await.ok()?;
    (stream.read_u8().await.ok()? == PLAIN).then_some(stream)
}

async fn log_in(stream: TcpStream) -> Option<Database> {
    let mut config = Config::new();
    config.user("orders").dbname("orders");
    let (client, connection) = timeout(LONG, config.connect_raw(stream, NoTls)).await.ok()?.ok()?;
    tokio::spawn(connection);
    Some(client)
}

/// The first of many overlapping tries that comes through.
async fn connect(address: &str, stop: &AtomicBool) -> Option<Database> {
    let mut tries = JoinSet::new();
    let mut next = tokio::time::interval(TRY_EVERY);
    while !stop.load(Ordering::Relaxed) && !end::is_stopped() {
        tokio::select! {
            _ = next.tick() => if tries.len() < TRIES {
                tries.spawn(timeout(WORD_LIMIT, first_word(address.to_owned())));
            },
            Some(ended) = tries.join_next() => if let Ok(Ok(Some(stream))) = ended {
                tries.abort_all();
                if let Some(client) = log_in(stream).await {
                    return Some(client);
                }
            },
        }
    }
    None
}

async fn write(address: &str, table: &str, seen: &Mutex<Seen>, stop: &AtomicBool) {
    let make = format!("create table if not exists {table} (id bigint primary key)");
    let (mut id, mut made) = (0_i64, false);
    while let Some(database) = connect(address, stop).await {
        let connected = boot_time();
        if !made {
            made = matches!(timeout(ROW_LIMIT, database.batch_execute(&make)).await, Ok(Ok(())));
            if !made {
                continue;
            }
        }
        {
            let mut seen = lock(seen);
            (seen.connected, seen.first) = (connected, None);
        }
        while !stop.load(Ordering::Relaxed) {
            if lock(seen).idle {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            id += 1;
            let row = format!("insert into {table} values ({id})");
            match timeout(ROW_LIMIT, database.batch_execute(&row)).await {
                Ok(Ok(())) => {
                    let mut seen = lock(seen);
                    seen.acked.push(id);
                    seen.first.get_or_insert_with(boot_time);
                }
                Ok(Err(_)) | Err(_) => break,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
