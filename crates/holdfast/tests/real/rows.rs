//! A client that writes rows for as long as it lives and remembers which were acknowledged.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::lab::{BOOT, Lab, SOON, runtime};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, UNIX_EPOCH};

/// A writer takes no longer for an answer.
const ANSWER: Duration = Duration::from_secs(3);
/// Who asks once waits longer: a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// A row, and when it was known to be in, in seconds since 1970.
type Acked = (i64, f64);

/// Writes until it is dropped or counted.
pub struct Rows {
    acked: Arc<Mutex<Vec<Acked>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Rows {
    /// Starts to write; the first row is in before this returns.
    pub fn start(lab: &Lab) -> Self {
        let (acked, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (rows, over, address) = (Arc::clone(&acked), Arc::clone(&stop), address(lab));
        let thread = std::thread::spawn(move || write(&address, &rows, &over));
        let started = Self { acked, stop, thread: Some(thread) };
        started.wait_for_more(lab);
        started
    }

    fn acked(&self) -> MutexGuard<'_, Vec<Acked>> {
        self.acked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more row is acknowledged.
    pub fn wait_for_more(&self, lab: &Lab) {
        let before = self.acked().len();
        lab.until(BOOT, "a client gets a row in", |_| self.acked().len() > before);
    }

    /// The same, while no daemon runs.
    pub fn wait_for_more_without_daemon(&self) {
        let (before, began) = (self.acked().len(), std::time::Instant::now());
        while self.acked().len() <= before {
            assert!(began.elapsed() < BOOT, "no client gets a row in");
            std::thread::sleep(PAUSE);
        }
    }

    /// What is acknowledged so far.
    pub fn so_far(&self) -> Vec<i64> {
        self.acked().iter().map(|(id, _)| *id).collect()
    }

    /// What was acknowledged by that time, in seconds since 1970.
    pub fn by(&self, time: f64) -> Vec<i64> {
        self.acked().iter().filter(|(_, acked)| *acked < time).map(|(id, _)| *id).collect()
    }

    /// Stops; what was acknowledged.
    pub fn stop(mut self) -> Vec<i64> {
        self.end();
        self.so_far()
    }

    /// Stops, and asserts that every acknowledged row is there.
    pub fn all_there(mut self, lab: &Lab) {
        self.end();
        let acked = std::mem::take(&mut *self.acked());
        let found = there(lab);
        let lost: Vec<&Acked> = acked.iter().filter(|(id, _)| !found.contains(id)).collect();
        assert!(lost.is_empty(), "{} acknowledged, lost: {lost:?}\n{}", acked.len(), lab.story());
        assert!(!acked.is_empty());
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        self.end();
    }
}

/// The rows that its database has.
pub fn there(lab: &Lab) -> BTreeSet<i64> {
    told(lab, "select id from rows_kept").iter().map(|id| id.parse().unwrap()).collect()
}

/// What its database answers, once it does: the first field of each row.
pub fn told(lab: &Lab, query: &str) -> Vec<String> {
    let mut rows = None;
    lab.until(SOON, query, |lab| {
        rows = ask(&address(lab), query);
        rows.is_some()
    });
    rows.unwrap()
}

/// Its disk is the one of a point: every row is there that was acknowledged before that, and not every one of those after it.
pub fn assert_of_point(lab: &Lab, before: &[i64], later: &[i64]) {
    let there = there(lab);
    let lost: Vec<&i64> = before.iter().filter(|id| !there.contains(id)).collect();
    assert!(lost.is_empty(), "{} acknowledged before the point, lost: {lost:?}", before.len());
    assert!(later.is_empty() || later.iter().any(|id| !there.contains(id)), "it is no earlier moment");
}

/// Its tables and indexes are sound, as `pg_amcheck` in the guest finds. What that finds wrong is on the console.
pub fn assert_sound(lab: &Lab) {
    lab.in_guest(
        "orders",
        "cd / && su postgres -c '$(ls -d /usr/lib/postgresql/*/bin)/pg_amcheck --all --install-missing \
         --heapallindexed -h /run/postgresql' >/run/amcheck 2>&1 && su postgres -c \
         'psql -h /run/postgresql orders -c \"create role sound\"' >>/run/amcheck 2>&1 || cat /run/amcheck >/dev/ttyS0",
    );
    lab.until(BOOT, "pg_amcheck finds nothing wrong", |lab| {
        let found = ask(&address(lab), "select rolname from pg_roles where rolname = 'sound'");
        found.is_some_and(|found| !found.is_empty())
    });
}

/// Where the database of `orders` is reached.
pub fn address(lab: &Lab) -> String {
    address_of(lab, "orders")
}

/// Where the database of this VM is reached.
pub fn address_of(lab: &Lab, vm: &str) -> String {
    lab.vm(vm)["address"]["postgres"].as_str().unwrap().to_owned()
}

/// Asks the database once: the first field of each row.
pub fn ask(address: &str, query: &str) -> Option<Vec<String>> {
    ask_as(address, "orders", "orders", query)
}

/// The same as another role, in another database.
pub fn ask_as(address: &str, role: &str, database: &str, query: &str) -> Option<Vec<String>> {
    runtime().block_on(async {
        let client = connect_within(PATIENCE, address, role, database).await.ok()?;
        let rows = tokio::time::timeout(PATIENCE, client.simple_query(query)).await.ok()?.ok()?;
        let first = |message: tokio_postgres::SimpleQueryMessage| {
            let tokio_postgres::SimpleQueryMessage::Row(row) = message else { return None };
            row.get(0).map(ToOwned::to_owned)
        };
        Some(rows.into_iter().filter_map(first).collect())
    })
}

/// A connection, served by the runtime that this is called in; or why there is none, as the server says it.
pub async fn connect(address: &str, role: &str, database: &str) -> Result<tokio_postgres::Client, String> {
    connect_within(ANSWER, address, role, database).await
}

async fn connect_within(
    limit: Duration,
    address: &str,
    role: &str,
    database: &str,
) -> Result<tokio_postgres::Client, String> {
    let (host, port) = address.rsplit_once(':').unwrap();
    let mut config = tokio_postgres::Config::new();
    config.host(host).port(port.parse().unwrap()).user(role).dbname(database);
    let connected = tokio::time::timeout(limit, config.connect(tokio_postgres::NoTls)).await;
    let (client, connection) = connected.map_err(|late| late.to_string())?.map_err(|error| {
        error.as_db_error().map_or_else(|| error.to_string(), |said| said.message().to_owned())
    })?;
    tokio::spawn(connection);
    Ok(client)
}

/// A row whose acknowledgement did not come is never written again under its number.
fn write(address: &str, acked: &Mutex<Vec<Acked>>, stop: &AtomicBool) {
    runtime().block_on(async {
        let mut id = 0_i64;
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(PAUSE).await;
            let Ok(client) = connect(address, "orders", "orders").await else { continue };
            let table = "create table if not exists rows_kept (id bigint primary key)";
            if tokio::time::timeout(PATIENCE, client.batch_execute(table)).await.is_err() {
                continue;
            }
            while !stop.load(Ordering::Relaxed) {
                id += 1;
                let row = format!("insert into rows_kept values ({id})");
                match tokio::time::timeout(ANSWER, client.batch_execute(&row)).await {
                    Ok(Ok(())) => {
                        let now = UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
                        acked.lock().unwrap_or_else(PoisonError::into_inner).push((id, now));
                    }
                    Ok(Err(_)) | Err(_) => break,
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    });
}
