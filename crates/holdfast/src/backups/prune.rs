//! Restore points that need not be kept are removed after a scheduled backup: by a process of its own, as a backup is, for
//! one VM after another, in one repository at most once an hour. As nothing goes before a newer one is verified (I12), the
//! newest is read back for it, where that lets others go.

use super::once::Once;
use super::run::{Answer, Said, answer, ask};
use crate::clock;
use crate::config::{Config, Limits, RepositoryConfig};
use holdfast_core::protect::Keep;
use holdfast_core::subject::VmName;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A repository is not pruned again before this time is over.
const AGAIN: Duration = Duration::from_secs(3_600);

/// No point of a VM is read back for it while one was within this time (seconds): what waits for that goes later.
const READ_AGAIN: f64 = 86_400.0;

/// What came of the last prune of a VM's points.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PruneDoc {
    /// When it ended, in seconds since 1970.
    pub at: f64,
    /// So many points went.
    pub points: u64,
    /// So many bytes went. What a point that went alone needed goes a day later.
    pub bytes: u64,
    /// The point that was read back for it, and was well: older ones go once a newer one is verified.
    #[serde(default)]
    pub verified: Option<String>,
    /// Why nothing went, or not all that need not be kept.
    pub error: Option<String>,
}

/// Which repositories are to be pruned, and which are being pruned.
#[derive(Debug, Default)]
pub struct Pruner {
    wanted: BTreeMap<String, BTreeSet<VmName>>,
    begun: BTreeMap<String, Instant>,
    running: BTreeSet<String>,
    /// Why each repository was last not pruned.
    told: Once,
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

    /// Whether why a repository was not pruned is worth a word; what went always is.
    pub fn is_news(&mut self, to: &str, error: Option<&str>) -> bool {
        self.told.is_news(to, error) || error.is_none()
    }
}

/// What `backup prune --json` tells.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    points: Vec<Point>,
    worth: Vec<Worth>,
    removed: Sum,
}

impl Told {
    /// The point that is to be read back now, so that others may go.
    fn worth(&self, now: f64) -> Option<&str> {
        let is_soon = |at: f64| (0.0..READ_AGAIN).contains(&(now - at));
        let due = |worth: &&Worth| !worth.verified.is_some_and(is_soon);
        self.worth.iter().find(due).map(|worth| &worth.id[..])
    }
}

/// A point that others wait for.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Worth {
    id: String,
    /// When one of its VM was last read back.
    verified: Option<f64>,
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

/// What `backup verify --json` tells.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Read {
    points: Vec<Whole>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Whole {
    why: Option<String>,
}

/// What is needed to prune the points of one VM.
pub struct Prune {
    vm: VmName,
    keep: Keep,
    /// How fast a point is read back at most.
    limits: Limits,
    repository: RepositoryConfig,
    state: PathBuf,
}

impl Prune {
    /// As it is configured now; nothing if all is to be kept.
    pub fn of(config: &Config, vm: &VmName) -> Option<Self> {
        let (backup, repository) = config.backup_of(vm)?;
        let (keep, limits) = (backup.keep?, backup.limits);
        let (repository, state) = (repository.clone(), config.state.clone());
        Some(Self { vm: vm.clone(), keep, limits, repository, state })
    }

    /// Prunes, unless `may` says no or it is stopped before. Where a point is read back for it, which may take long, `may` is asked
    /// again.
    pub async fn run<F: Future<Output = bool>>(
        &self,
        stop: &CancellationToken,
        may: impl Fn() -> F,
    ) -> Option<PruneDoc> {
        if stop.is_cancelled() || !may().await {
            return None;
        }
        let mut doc = PruneDoc { at: 0.0, points: 0, bytes: 0, verified: None, error: None };
        let done = stop.run_until_cancelled(self.all(&mut doc, may)).await?; // its process is killed with it
        (doc.at, doc.error) = (clock::wall_seconds(), done.err());
        Some(doc)
    }

    async fn all<F: Future<Output = bool>>(
        &self,
        doc: &mut PruneDoc,
        may: impl Fn() -> F,
    ) -> Result<(), String> {
        let told = self.prune(doc).await?;
        let Some(point) = told.worth(clock::wall_seconds()) else { return Ok(()) };
        self.verify(point).await?;
        doc.verified = Some(point.to_owned());
        if may().await {
            self.prune(doc).await?;
        }
        Ok(())
    }

    async fn prune(&self, doc: &mut PruneDoc) -> Result<Told, String> {
        let asked = ask(&words(&self.vm, &self.keep), &self.repository, &self.state).await;
        let told: Told = serde_json::from_slice(&asked.map_err(|said| said.to_string())?)
            .map_err(|error| error.to_string())?;
        doc.points += told.points.iter().filter(|point| !point.stays).count() as u64;
        doc.bytes += told.removed.bytes;
        Ok(told)
    }

    /// Has a point read back.
    async fn verify(&self, point: &str) -> Result<(), String> {
        let mut words: Vec<String> = ["backup", "verify", "--json", "--point", point].map(Into::into).into();
        words.extend(self.limits.words());
        let answer = answer(&words, &self.repository, &self.state).await;
        let hurt = answer.map_or_else(|said| Some(said.to_string()), |answer| what_is_wrong(&answer));
        hurt.map_or(Ok(()), |why| {
            Err(format!("`{point}` was read back, so that older ones may go, and is not verified: {why}"))
        })
    }
}

/// What was wrong with the point that was read.
fn what_is_wrong(answer: &Answer) -> Option<String> {
    let errors = answer.errors.as_ref()?;
    let read: Read = serde_json::from_slice(&answer.said).unwrap_or_default();
    let why = read.points.into_iter().find_map(|point| point.why);
    Some(why.map_or_else(|| Said::of(errors).to_string(), |why| crate::config::tame(&why)))
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
    fn a_point_is_read_back_only_where_others_wait_for_it_and_once_a_day() {
        let worth = |told: &str, now| {
            let told: Told = serde_json::from_str(told).unwrap();
            told.worth(now).map(ToOwned::to_owned)
        };
        let told = r#"{"v":1,"worth":[{"id":"a/7","verified":1000.0}]}"#;
        assert_eq!(worth(told, 2_000.0), None, "one was a while ago");
        assert_eq!(worth(told, 87_400.0).as_deref(), Some("a/7"));
        assert_eq!(worth(told, 0.0).as_deref(), Some("a/7"), "the clock was wrong");
        assert_eq!(worth(&told.replace("1000.0", "null"), 2_000.0).as_deref(), Some("a/7"));
        assert_eq!(worth(r#"{"v":1,"worth":[]}"#, 2_000.0), None);
    }

    #[test]
    fn why_a_point_is_not_verified_is_what_was_found_or_what_the_program_says() {
        let wrong = |said: &str, errors: Option<&str>| {
            what_is_wrong(&Answer { said: said.into(), errors: errors.map(ToOwned::to_owned) })
        };
        assert_eq!(wrong(r#"{"points":[{"id":"a/7","whole":true,"why":null}]}"#, None), None);
        let hurt = r#"{"points":[{"id":"a/7","whole":false,"why":"block 1 is missing"}]}"#;
        assert_eq!(wrong(hurt, Some("")).as_deref(), Some("block 1 is missing"));
        let said = wrong("", Some("error: it cannot be used\ncause: it is away\nhint: -"));
        assert_eq!(said.as_deref(), Some("it cannot be used: it is away"));
    }

    #[tokio::test]
    async fn nothing_is_asked_of_a_repository_that_may_not_be_pruned_i12() {
        let path = crate::place::RepositoryPlace::Folder("/nowhere".into());
        let repository = RepositoryConfig { path, key_file: None, s3_file: None };
        let (vm, keep) = ("a".parse().unwrap(), Keep { last: 1, ..Keep::default() });
        let prune = Prune { vm, keep, limits: Limits::default(), repository, state: "/nowhere".into() };
        let stop = CancellationToken::new();
        assert_eq!(prune.run(&stop, || std::future::ready(false)).await, None);
        stop.cancel();
        assert_eq!(prune.run(&stop, || std::future::ready(true)).await, None);
    }

    #[test]
    fn only_what_is_asked_for_is_said() {
        let keep = Keep { last: 3, weekly: 4, ..Keep::default() };
        let words = words(&"a".parse().unwrap(), &keep).join(" ");
        assert_eq!(words, "backup prune --json --of a --keep-last 3 --keep-weekly 4");
    }
}
