//! Numbers that users define: asked for again and again, while their VM runs.
//!
//! What answers is a stranger: it has so long, so much to say, and must say a number. Why it does not is told once, until
//! it does again, and shown beside the series. It is never taken for trouble of the VM (I10).

use super::numbers::{Name, Numbers, Reading, What};
use super::probe::{self, KeptSession, Probe};
use crate::clock::Clock;
use crate::config::{AppConfig, NumberConfig, NumberFrom, VmConfig};
use holdfast_core::lease::Incarnation;
use holdfast_core::subject::{AppName, Subject, VmName};
use holdfast_drivers::{Driver, DriverError, GuestRead, Piece};
use holdfast_logs::escape;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Questions at a time, of all VMs; the others wait.
const MOST_ASKED: usize = 8;
/// No number is larger: what counts beyond that is no number of anything.
const LARGEST: f64 = 1e18;
/// Characters of an answer that are shown, and of a reason.
const SHOWN: usize = 60;
const WHY_MOST: usize = 200;

/// What it takes to ask.
pub struct Means {
    pub vm: VmName,
    pub driver: Arc<dyn Driver>,
    pub numbers: Numbers,
    pub clock: Clock,
    /// The incarnation that runs; `None`: nobody is asked.
    pub running: watch::Receiver<Option<Incarnation>>,
    /// Whose turn it is.
    pub questions: Arc<Semaphore>,
    pub stop: CancellationToken,
}

/// The turns of all who ask.
pub fn questions() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MOST_ASKED))
}

/// What is asked: a number, and the application that a query goes to.
type Asked = (NumberConfig, Option<AppConfig>);

/// The tasks that ask, by the name of the number.
type Tasks = BTreeMap<String, (Asked, JoinSet<()>)>;

/// The numbers of one VM that are followed, each by a task that ends when it is dropped.
#[derive(Default)]
pub struct Followed {
    tasks: Tasks,
    /// The session that is kept with each application that queries go to.
    kept: BTreeMap<AppName, KeptSession>,
}

impl Followed {
    /// Follows those that are configured now, and no longer those that are not. What stays as it is goes on.
    pub fn configure(&mut self, vm: &VmConfig, means: impl Fn() -> Means) {
        let app = |number: &NumberConfig| vm.apps.get(asked_app(number)?).cloned();
        let asked: BTreeMap<&String, Asked> =
            vm.numbers.iter().map(|(name, number)| (name, (number.clone(), app(number)))).collect();
        self.tasks.retain(|name, (before, _)| asked.get(name) == Some(before));
        self.kept.retain(|app, _| vm.apps.contains_key(app));
        for (name, asked) in asked {
            let kept = asked_app(&asked.0).map(|app| self.kept.entry(app.clone()).or_default().clone());
            self.tasks.entry(name.clone()).or_insert_with(|| {
                let mut tasks = JoinSet::new();
                tasks.spawn(follow(means(), kept, name.clone(), asked.clone()));
                (asked, tasks)
            });
        }
    }
}

const fn asked_app(number: &NumberConfig) -> Option<&AppName> {
    match &number.from {
        NumberFrom::Query { app, .. } => Some(app),
        NumberFrom::Command(_) | NumberFrom::GuestCommand(_) => None,
    }
}

/// One number, and what is told of it.
struct Followup {
    name: Name,
    numbers: Numbers,
    fails: bool,
}

impl Followup {
    /// Why it cannot be had is told once, until it can again.
    fn fails(&mut self, why: String) {
        if !std::mem::replace(&mut self.fails, true) {
            warn!(number = %self.name, why, "a number cannot be had");
        }
        self.numbers.trouble(&self.name, Some(why));
    }

    fn is_well(&mut self) {
        if std::mem::replace(&mut self.fails, false) {
            info!(number = %self.name, "a number can be had again");
        }
        self.numbers.trouble(&self.name, None);
    }
}

/// Nobody asks any more: nothing is wrong with it either.
impl Drop for Followup {
    fn drop(&mut self) {
        self.numbers.trouble(&self.name, None);
    }
}

async fn follow(means: Means, kept: Option<KeptSession>, name: String, (number, app): Asked) {
    let name = Name { subject: Subject::Vm(means.vm.clone()), what: What::Own(name) };
    let mut told = Followup { name, numbers: means.numbers.clone(), fails: false };
    let mut ticker = tokio::time::interval(number.every);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = means.stop.cancelled() => return,
            _ = ticker.tick() => {}
        }
        if means.running.borrow().is_none() {
            continue;
        }
        let Ok(turn) = means.questions.acquire().await else { return };
        let answer = means.ask(&number, app.as_ref(), kept.as_ref()).await;
        drop(turn);
        match answer.and_then(|answer| read(&answer).map_err(Unanswered::Wrong)) {
            Ok(value) => {
                let reading = if number.is_total { Reading::Total(value) } else { Reading::Value(value) };
                means.numbers.tell(told.name.clone(), means.clock.now(), reading);
                told.is_well();
            }
            Err(Unanswered::Wrong(why)) => told.fails(why),
            Err(Unanswered::NotNow) => {}
        }
    }
}

/// Why there is no number.
#[derive(Debug, PartialEq, Eq)]
enum Unanswered {
    /// It could not be asked just now, which is nobody's fault.
    NotNow,
    /// It was asked.
    Wrong(String),
}

impl Means {
    async fn ask(
        &self,
        number: &NumberConfig,
        app: Option<&AppConfig>,
        kept: Option<&KeptSession>,
    ) -> Result<String, Unanswered> {
        let probe = match &number.from {
            NumberFrom::Command(argv) => Probe::Command(probe::Command { argv: argv.clone() }),
            NumberFrom::GuestCommand(argv) => {
                let asked = GuestRead::Command(argv.clone());
                return printed(self.driver.read(&self.vm, &asked, number.timeout).await);
            }
            NumberFrom::Query { query, .. } => {
                let app = app.ok_or_else(|| Unanswered::Wrong("its application is gone".into()))?;
                match super::convert::probe(app, &self.driver.places(&self.vm)) {
                    Ok(Probe::Postgres(postgres)) => {
                        Probe::Postgres(probe::Postgres { query: query.clone(), ..postgres })
                    }
                    Ok(_) => return Err(Unanswered::Wrong("its application answers no queries".into())),
                    Err(holdfast_core::signal::AppSign::Failed { text, .. }) => {
                        return Err(Unanswered::Wrong(text));
                    }
                    Err(holdfast_core::signal::AppSign::Answered { .. }) => return Err(Unanswered::NotNow),
                }
            }
        };
        probe::answer(&probe, kept, number.timeout).await.map_err(Unanswered::Wrong)
    }
}

/// What a command in the guest printed, if it ended well.
fn printed(read: Result<Piece, DriverError>) -> Result<String, Unanswered> {
    let piece = match read {
        Ok(piece) => piece,
        Err(DriverError::Blocked { .. } | DriverError::NotRunning(_)) => return Err(Unanswered::NotNow),
        Err(error) => return Err(Unanswered::Wrong(escape(&super::chain(&error), WHY_MOST))),
    };
    let text = String::from_utf8_lossy(&piece.bytes).into_owned();
    match piece.code {
        Some(0) => Ok(text),
        code => {
            let ended =
                code.map_or_else(|| "did not end by itself".into(), |code| format!("exit code {code}"));
            let said = if text.trim().is_empty() { String::new() } else { format!(": {}", text.trim()) };
            Err(Unanswered::Wrong(escape(&format!("in the guest, {ended}{said}"), WHY_MOST)))
        }
    }
}

/// The number in an answer, which is that and nothing else.
fn read(answer: &str) -> Result<f64, String> {
    let text = answer.trim();
    if text.is_empty() {
        return Err("it answers nothing, and a number is wanted".into());
    }
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    match text.parse::<f64>().ok().filter(|_| digits) {
        Some(number) if number.abs() <= LARGEST => Ok(number),
        Some(_) => Err(format!("it answers `{}`, which is larger than {LARGEST:e}", escape(text, SHOWN))),
        None => Err(format!("it answers `{}`, which is no number", escape(text, SHOWN))),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_number_and_nothing_else() {
        for (answer, value) in [("42\n", 42.0), (" -0.5 ", -0.5), ("1.5e3", 1_500.0), ("+7", 7.0)] {
            assert_eq!(read(answer), Ok(value));
        }
        for answer in
            ["", "\n", "nan", "inf", "-infinity", "42 rows", "1\n2", "0x10", "1,5", "e", "1e400", "1e19"]
        {
            assert!(read(answer).is_err(), "{answer:?}");
        }
    }

    #[test]
    fn a_hostile_answer_is_shown_tame_and_short() {
        let why = read(&format!("\x1b[2J\u{202e}{}", "x".repeat(100_000))).unwrap_err();
        assert!(why.starts_with("it answers `\\x1b[2J\\u{202e}xxx") && why.len() < 120, "{why}");
    }

    #[test]
    fn a_guest_that_cannot_be_asked_just_now_is_no_failure_and_one_that_fails_is() {
        let vm: VmName = "a".parse().unwrap();
        let blocked = DriverError::Blocked { what: "read", vm: vm.clone(), why: "silent".into() };
        assert_eq!(printed(Err(blocked)), Err(Unanswered::NotNow));
        assert_eq!(printed(Err(DriverError::NotRunning(vm))), Err(Unanswered::NotNow));
        let piece = |code, text: &str| {
            let (incarnation, bytes) = (Incarnation(1), text.as_bytes().to_vec());
            printed(Ok(Piece { incarnation, bytes, size: None, code }))
        };
        assert_eq!(piece(Some(0), "7\n"), Ok("7\n".into()));
        let failed = |text: &str| Err(Unanswered::Wrong(text.into()));
        assert_eq!(
            piece(Some(2), "no\x07 such file\n"),
            failed("in the guest, exit code 2: no\\x07 such file")
        );
        assert_eq!(piece(None, ""), failed("in the guest, did not end by itself"));
    }
}
