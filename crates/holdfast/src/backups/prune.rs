//! Restore points that need not be kept are removed after a scheduled backup: by a process of its own, as a backup is, for
//! one VM after another, in one repository at most once an hour.

use super::run::ask;
use crate::clock;
use crate::config::{Config, RepositoryConfig};
use holdfast_core::protect::Keep;
use holdfast_core::subject::VmName;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A repository is not pruned again before this time is over.
const AGAIN: Duration = Duration::from_secs(3_600);

/// What came of the last prune of a VM's points.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PruneDoc {
    /// When it ended, in seconds since 1970.
    pub at: f64,
    /// So many points went.
    pub points: u64,
    /// So many bytes went. What a point that went alone needed goes a day later.
    pub bytes: u64,
    /// Why nothing went, if that failed.
    pub error: Option<String>,
}

/// Which repositories are to be pruned, and which are being pruned.
#[derive(Debug, Default)]
pub struct Pruner {
    wanted: BTreeMap<String, BTreeSet<VmName>>,
    begun: BTreeMap<String, Instant>,
    running: BTreeSet<String>,
    /// Why each repository was last not pruned: told once.
    told: BTreeMap<String, String>,
}

/// What is to be pruned now.
pub struct Batch {
    /// The repository's name.
    pub to: String,
    /// The VMs.
    pub vms: BTreeSet<VmName>,
}

impl Pruner {
    /// A backup was made by schedule: its repository is to be pruned.
    pub fn want(&mut self, to: &str, vm: &VmName) {
        self.wanted.entry(to.to_owned()).or_default().insert(vm.clone());
    }

    /// What may begin now. It counts as begun.
    pub fn begin(&mut self, now: Instant) -> Vec<Batch> {
        let rests = |to: &String| {
            let is_soon = self.begun.get(to).is_some_and(|begun| now.duration_since(*begun) < AGAIN);
            !is_soon && !self.running.contains(to)
        };
        let ready: Vec<String> = self.wanted.keys().filter(|to| rests(to)).cloned().collect();
        let begin = |to: String| {
            let vms = self.wanted.remove(&to)?;
            self.begun.insert(to.clone(), now);
            self.running.insert(to.clone());
            Some(Batch { to, vms })
        };
        ready.into_iter().filter_map(begin).collect()
    }

    /// A batch is over.
    pub fn end(&mut self, to: &str) {
        self.running.remove(to);
    }

    /// Whether this is worth a word: why a repository was not pruned is told once.
    pub fn is_news(&mut self, to: &str, error: Option<&str>) -> bool {
        match error {
            Some(why) => self.told.insert(to.to_owned(), reason(why)) != Some(reason(why)),
            None => {
                self.told.remove(to);
                true
            }
        }
    }
}

/// The reason without its numbers: a clock that is wrong is wrong by other seconds each time.
fn reason(why: &str) -> String {
    why.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// What `backup prune --json` tells.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    points: Vec<Point>,
    removed: Sum,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Point {
    stays: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Sum {
    bytes: u64,
}

/// What is needed to prune the points of one VM.
pub struct Prune {
    vm: VmName,
    keep: Keep,
    repository: RepositoryConfig,
    state: PathBuf,
}

impl Prune {
    /// As it is configured now; nothing if all is to be kept.
    pub fn of(config: &Config, vm: &VmName) -> Option<Self> {
        let (backup, repository) = config.backup_of(vm)?;
        let repository = repository.clone();
        Some(Self { vm: vm.clone(), keep: backup.keep?, repository, state: config.state.clone() })
    }

    /// Prunes, unless it is stopped before.
    pub async fn run(&self, stop: &CancellationToken) -> Option<PruneDoc> {
        let asked = prune(&self.vm, &self.keep, &self.repository, &self.state);
        let told = stop.run_until_cancelled(asked).await?; // its process is killed with it
        let at = clock::wall_seconds();
        Some(match told {
            Ok(told) => {
                let points = told.points.iter().filter(|point| !point.stays).count() as u64;
                PruneDoc { at, points, bytes: told.removed.bytes, error: None }
            }
            Err(why) => PruneDoc { at, points: 0, bytes: 0, error: Some(why) },
        })
    }
}

async fn prune(
    vm: &VmName,
    keep: &Keep,
    repository: &RepositoryConfig,
    state: &Path,
) -> Result<Told, String> {
    let told = ask(&words(vm, keep), repository, state).await.map_err(|said| said.to_string())?;
    serde_json::from_slice(&told).map_err(|error| error.to_string())
}

fn words(vm: &VmName, keep: &Keep) -> Vec<String> {
    let kinds = [
        ("last", keep.last),
        ("hourly", keep.hourly),
        ("daily", keep.daily),
        ("weekly", keep.weekly),
        ("monthly", keep.monthly),
        ("yearly", keep.yearly),
    ];
    let mut words: Vec<String> = ["backup", "prune", "--json", "--of", vm.as_str()].map(Into::into).into();
    for (kind, count) in kinds.into_iter().filter(|(_, count)| *count > 0) {
        words.extend([format!("--keep-{kind}"), count.to_string()]);
    }
    words
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_pruned_for_all_who_want_it_and_not_again_within_the_hour() {
        let (mut pruner, begin): (Pruner, _) = (Pruner::default(), Instant::now());
        let vm = |name: &str| name.parse::<VmName>().unwrap();
        pruner.want("main", &vm("a"));
        pruner.want("main", &vm("b"));
        let batches = pruner.begin(begin);
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].vms, BTreeSet::from([vm("a"), vm("b")]));
        pruner.want("main", &vm("a"));
        pruner.want("other", &vm("c"));
        let batches = pruner.begin(begin + AGAIN);
        assert_eq!(batches.iter().map(|batch| batch.to.as_str()).collect::<Vec<_>>(), ["other"], "main runs");
        pruner.end("main");
        assert!(pruner.begin(begin + AGAIN / 2).is_empty());
        assert_eq!(pruner.begin(begin + AGAIN).len(), 1);
    }

    #[test]
    fn why_nothing_is_pruned_is_told_once() {
        let mut pruner = Pruner::default();
        assert!(pruner.is_news("main", Some("the clock went backwards: it is 70 s behind")));
        assert!(!pruner.is_news("main", Some("the clock went backwards: it is 65 s behind")));
        assert!(pruner.is_news("main", Some("the repository is gone")));
        assert!(pruner.is_news("main", None));
        assert!(pruner.is_news("main", Some("the repository is gone")));
    }

    #[test]
    fn only_what_is_asked_for_is_said() {
        let keep = Keep { last: 3, weekly: 4, ..Keep::default() };
        let words = words(&"a".parse().unwrap(), &keep).join(" ");
        assert_eq!(words, "backup prune --json --of a --keep-last 3 --keep-weekly 4");
    }
}
