//! What of a database lies on which file system of its guest, so that one that fills is named with what it holds.
//!
//! PostgreSQL is asked where its tablespaces and its data are, now and then, as its probe logs in; who may not know is
//! told nothing, and nothing depends on it. What it answers is only shown, never opened or run (I17).

use super::probe::{self, Probe};
use crate::config::AppConfig;
use holdfast_core::lease::Incarnation;
use holdfast_core::signal::{AgentSign, Seen};
use holdfast_core::subject::{AppName, VmName};
use holdfast_drivers::{Driver, Glimpse};
use holdfast_logs::escape;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// When it is asked again: while its VM does not run, when it did not answer, and once it has.
const OFF: Duration = Duration::from_secs(5);
const MUTE: Duration = Duration::from_secs(30);
const TOLD: Duration = Duration::from_secs(300);
/// Places of one database that are looked at.
const MOST_PLACES: usize = 64;
/// Names that are shown of one file system, and characters of a name.
const MOST_NAMES: usize = 2;
const LONGEST_NAME: usize = 48;
/// Characters of all names of one file system.
const LONGEST: usize = 128;
/// Of so many file systems some may not have been told: what seems to lie on one may lie on another.
const MANY: usize = 15;
/// One line for each place: what it is, a tab, where it is. `data_directory` is told only to whom it concerns.
const QUERY: &str = "select coalesce(string_agg(what || E'\\t' || place, E'\\n'), '') from (
    (select 'tablespace ' || spcname as what, pg_tablespace_location(oid) as place from pg_tablespace
        where pg_tablespace_location(oid) <> '' order by spcname limit 63)
    union all select 'the data', setting from pg_settings where name = 'data_directory') as found";

/// Where something is in a guest, and what it is.
type Place = (String, String);

/// Where the data of the applications of one guest lie.
#[derive(Clone, Debug)]
pub struct Lying(watch::Sender<BTreeMap<AppName, Vec<Place>>>);

impl Lying {
    /// Nobody knows yet.
    pub fn new() -> Self {
        Self(watch::channel(BTreeMap::new()).0)
    }

    /// Names each file system with what lies on it, as far as is known: on the deepest that its path leads through.
    pub fn name(&self, glimpses: &mut [Glimpse]) {
        let known = self.0.borrow();
        let mounts: Vec<String> = glimpses.iter().filter_map(|glimpse| mount(glimpse).cloned()).collect();
        if known.is_empty() || mounts.len() >= MANY {
            return;
        }
        let mut named: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (app, places) in &*known {
            for (path, what) in places {
                let through = mounts.iter().filter(|mount| leads_through(path, mount));
                if let Some(mount) = through.max_by_key(|mount| mount.len()) {
                    named.entry(mount).or_default().push(format!("{what} of {app}"));
                }
            }
        }
        for glimpse in glimpses.iter_mut() {
            let names = mount(glimpse).and_then(|mount| named.get(mount.as_str()));
            let told = names.map(|names| list(names));
            if let (Some(told), Seen::Agent(AgentSign::FileSystem { holds, .. })) = (told, &mut glimpse.seen)
            {
                *holds = told;
            }
        }
    }
}

const fn mount(glimpse: &Glimpse) -> Option<&String> {
    let Seen::Agent(AgentSign::FileSystem { mount, .. }) = &glimpse.seen else { return None };
    Some(mount)
}

fn leads_through(path: &str, mount: &str) -> bool {
    let rest = path.strip_prefix(mount.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn list(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(MOST_NAMES).map(String::as_str).collect();
    match names.len().saturating_sub(MOST_NAMES) {
        0 => escape(&shown.join(" and "), LONGEST),
        more => escape(&format!("{} and {more} more", shown.join(", ")), LONGEST),
    }
}

/// What it takes to ask.
pub struct Means {
    pub vm: VmName,
    pub driver: Arc<dyn Driver>,
    /// The incarnation that runs; `None`: nobody is asked.
    pub running: watch::Receiver<Option<Incarnation>>,
    pub lying: Lying,
    pub stop: CancellationToken,
}

/// Asks an application where its data lie, if it is one that knows, until it is time to stop.
pub async fn follow(means: Means, name: AppName, app: AppConfig) {
    if !matches!(app.probe, crate::config::Probe::Postgres { .. }) {
        return;
    }
    let mut wait = Duration::ZERO;
    while means.stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_some() {
        if means.running.borrow().is_none() {
            wait = OFF;
            continue;
        }
        wait = MUTE;
        if let Some(places) = means.ask(&app).await {
            means.lying.0.send_modify(|known| drop(known.insert(name.clone(), places)));
            wait = TOLD;
        }
    }
}

impl Means {
    async fn ask(&self, app: &AppConfig) -> Option<Vec<Place>> {
        let Ok(Probe::Postgres(postgres)) = super::convert::probe(app, &self.driver.places(&self.vm)) else {
            return None;
        };
        let probe = Probe::Postgres(probe::Postgres { query: QUERY.into(), ..postgres });
        let answer = probe::answer(&probe, None, app.timeout).await;
        answer.map(|answer| read(&answer)).inspect_err(|why| debug!(why, "where data lie is not known")).ok()
    }
}

/// The places in an answer. What is no absolute path is none.
fn read(answer: &str) -> Vec<Place> {
    let place = |line: &str| {
        let (what, path) = line.split_once('\t')?;
        path.starts_with('/').then(|| (path.to_owned(), escape(what, LONGEST_NAME)))
    };
    answer.lines().filter_map(place).take(MOST_PLACES).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn glimpses(mounts: &[&str]) -> Vec<Glimpse> {
        let one = |mount: &&str| Glimpse {
            vm: "orders".parse().unwrap(),
            incarnation: Incarnation(1),
            app: None,
            seen: Seen::Agent(AgentSign::FileSystem {
                mount: (*mount).to_owned(),
                used: 1,
                total: 2,
                read_only: false,
                holds: String::new(),
            }),
        };
        mounts.iter().map(one).collect()
    }

    fn held(answer: &str, mounts: &[&str]) -> Vec<String> {
        let lying = Lying::new();
        lying.0.send_modify(|known| drop(known.insert("postgres".parse().unwrap(), read(answer))));
        let mut glimpses = glimpses(mounts);
        lying.name(&mut glimpses);
        let holds = |glimpse: &Glimpse| {
            let Seen::Agent(AgentSign::FileSystem { holds, .. }) = &glimpse.seen else {
                panic!("{glimpse:?}")
            };
            holds.clone()
        };
        glimpses.iter().map(holds).collect()
    }

    #[test]
    fn what_lies_on_a_file_system_is_what_its_path_leads_through_last() {
        let answer = "tablespace ts1\t/srv/ts1/data\ntablespace ts10\t/srv/ts10\nthe data\t/var/lib/postgresql/15/main\n";
        assert_eq!(
            held(answer, &["/", "/srv/ts1", "/srv"]),
            ["the data of postgres", "tablespace ts1 of postgres", "tablespace ts10 of postgres"]
        );
        assert_eq!(
            held(answer, &["/"]),
            ["tablespace ts1 of postgres, tablespace ts10 of postgres and 1 more"]
        );
        assert_eq!(held("", &["/"]), [""]);
    }

    #[test]
    fn of_many_file_systems_nothing_is_guessed() {
        let many: Vec<String> = (0..MANY).map(|n| format!("/{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(held("the data\t/3/main\n", &many).iter().all(String::is_empty));
    }

    #[test]
    fn a_hostile_answer_is_bounded_and_tame() {
        let line = format!("tablespace \x1b[2J{}\t/srv\nno path\tsrv\nno tab\n", "x".repeat(1_000));
        let places = read(&line.repeat(10_000));
        assert_eq!(places.len(), MOST_PLACES);
        assert!(places.iter().all(|(_, what)| what.chars().count() <= LONGEST_NAME));
        assert!(held(&line, &["/srv"])[0].starts_with("tablespace \\x1b[2Jxxx"));
        assert!(held(&line.repeat(50), &["/srv"])[0].chars().count() <= 128);
    }
}
