//! A point boots in its sandbox, and is asked what its users would ask it.

use super::inside::{Check, Inside, NOT_HERE};
use crate::config::tame;
use crate::sense::host::waited_for_processors;
use crate::sense::{convert, probe};
use holdfast_core::point::Grade;
use holdfast_core::signal::AppSign;
use holdfast_core::subject::AppName;
use holdfast_drivers::Places;
use holdfast_drivers::qemu::sandbox::{Sandbox, was_locked_out};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is asked.
const ASK: Duration = Duration::from_millis(250);
/// A trial runs when nobody else wants the processor, so its answers may take long.
const PATIENCE: Duration = Duration::from_secs(5);
/// So long the agent of a guest that serves its users is waited for.
const AGENT: Duration = Duration::from_secs(30);
/// The end of its QEMU is heard of within this.
const HEARD: Duration = Duration::from_millis(100);
/// The longest words of a check that are kept, in characters.
const WORDS: usize = 240;

/// What is said of one whose applications answered, and no more than that is known.
const UNCHECKED: &str = "its applications answered, but no check of its data was made";

/// Fewer rows come and go.
const ROWS_LEAST: u64 = 1_000;

/// How many rows a check says that it counted.
pub fn rows(words: &str) -> Option<u64> {
    let (before, _) = words.rsplit_once(" rows in ")?;
    before.rsplit(' ').next()?.parse().ok()
}

/// How an application did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// As its users want it, so long after the start.
    Right(Duration),
    /// Not, and why.
    None(String),
    /// It was not asked, and why.
    NotAsked(&'static str),
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing wrong was found.
    Sound,
    /// Something is wrong.
    Wrong,
    /// It could not be made, or not to its end.
    Open,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Of which application.
    pub app: AppName,
    /// What the check is called.
    pub check: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What it said, tamed.
    pub text: String,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// When its agent answered, after the start.
    pub booted: Option<Duration>,
    /// When all its applications served.
    pub served: Option<Duration>,
    /// Each of them.
    pub apps: BTreeMap<AppName, Answer>,
    /// What its checks found.
    pub findings: Vec<Finding>,
    /// Why it is of no use.
    pub failed: Option<String>,
}

impl Told {
    /// How far that proves the point.
    pub fn grade(&self) -> Grade {
        let is_served = self.has_asked() && self.all_answered();
        let is_wrong = self.findings.iter().any(|finding| finding.verdict == Verdict::Wrong);
        match self.up() {
            None => Grade::Taken,
            Some(_) if is_served && !is_wrong => Grade::AppChecked,
            Some(_) => Grade::Booted,
        }
    }

    fn has_asked(&self) -> bool {
        self.apps.values().any(|answer| !matches!(answer, Answer::NotAsked(_)))
    }

    /// Whether anything was found to be sound.
    fn has_checked(&self) -> bool {
        self.findings.iter().any(|finding| finding.verdict == Verdict::Sound)
    }

    fn all_answered(&self) -> bool {
        !self.apps.values().any(|answer| matches!(answer, Answer::None(_)))
    }

    /// Compares the rows that were counted with those of the last trial: a table that a bad script emptied is well otherwise.
    pub fn compare(&mut self, before: Option<u64>) {
        let counted = self.findings.iter().find_map(|finding| Some((finding, rows(&finding.text)?)));
        let (Some((finding, now)), Some(before)) = (counted, before) else { return };
        if before >= ROWS_LEAST && now < before / 2 {
            let text = format!("{now}, of {before} when a point was last tried");
            let app = finding.app.clone();
            self.findings.push(Finding { app, check: "the count of rows", verdict: Verdict::Wrong, text });
        }
    }

    /// How long its users would have waited; nothing if it is of no use to them.
    pub fn up(&self) -> Option<Duration> {
        self.served.or(self.booted).filter(|_| self.failed.is_none())
    }

    /// All of it for people, in a sentence or a few.
    pub fn words(&self) -> String {
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        let mut words = Vec::new();
        words.extend(self.failed.clone());
        words.extend(self.booted.map(|booted| format!("booted in {}", seconds(booted))));
        // Before all else that is said, as what is kept of it is bounded.
        words
            .extend((self.grade() == Grade::AppChecked && !self.has_checked()).then(|| UNCHECKED.to_owned()));
        for (app, answer) in &self.apps {
            words.push(match answer {
                Answer::Right(after) => format!("{app} answered after {}", seconds(*after)),
                Answer::None(why) => format!("{app} did not answer: {why}"),
                Answer::NotAsked(why) => format!("{app} was not asked: {why}"),
            });
        }
        for Finding { app, check, verdict, text } in &self.findings {
            let how = match verdict {
                Verdict::Sound => "",
                Verdict::Wrong => "found something wrong: ",
                Verdict::Open => "tells nothing: ",
            };
            words.push(format!("{check} of {app}: {how}{text}"));
        }
        words.join("; ")
    }
}

/// Watches one until all is known, or the time is over. Why nothing is known, if somebody else ended it.
pub async fn watch(
    sandbox: &Sandbox,
    apps: &[Inside],
    budget: Duration,
    told: &mut Told,
) -> Result<(), String> {
    let (began, deadline) = (Instant::now(), Instant::now() + budget);
    let waited = waited_for_processors();
    for inside in apps {
        let answer = match &inside.app {
            Ok(_) => Answer::None("it was not asked yet".into()),
            Err(why) => Answer::NotAsked(why),
        };
        told.apps.insert(inside.name.clone(), answer);
    }
    let failed = tokio::select! {
        biased;
        ended = sandbox.ended() => Some(its_end(ended)?),
        stuck = tokio::time::timeout_at(deadline, boot(sandbox, apps, began, told)) => stuck.unwrap_or_default(),
    };
    told.failed = failed;
    let is_up = told.up().is_some();
    if told.failed.is_none() && !(is_up && told.all_answered()) {
        was_in_time(budget, waited, waited_for_processors())?;
    }
    if told.failed.is_none() && !is_up {
        told.failed = Some(format!("it did not boot within {} s", budget.as_secs()));
    }
    if told.failed.is_some() {
        let lines = sandbox.last_lines();
        let why = lines.iter().find(|line| line.contains("panic")).or(lines.last());
        let last = why.map(|line| format!("; its console says: {line}"));
        told.failed = told.failed.take().map(|why| why + &last.unwrap_or_default());
        return Ok(());
    }
    if told.booted.is_some() {
        check(sandbox, apps, deadline, told).await;
        if let Ok(ended) = tokio::time::timeout(HEARD, sandbox.ended()).await {
            its_end(ended)?; // what its checks did not tell, it did not keep back
        }
    }
    Ok(())
}

/// A trial gets what nobody else wants of this host: where that was too little, it says nothing of the point that its time was over.
fn was_in_time(budget: Duration, before: Option<Duration>, after: Option<Duration>) -> Result<(), String> {
    let waited = after.zip(before).map_or(Duration::ZERO, |(after, before)| after.saturating_sub(before));
    if waited < budget / 2 {
        return Ok(());
    }
    Err(format!(
        "its time, {} s, was over, and for {} s of it somebody waited for a processor of this host, which a trial is the last to get: \
         that says nothing of the point; give it more time (`within` of `protect.prove`), or try it while less runs here",
        budget.as_secs(),
        waited.as_secs()
    ))
}

/// What the end of its QEMU says of the point: nothing, where somebody else ended it.
fn its_end((said, signal): (String, Option<i32>)) -> Result<String, String> {
    if was_locked_out(&said) {
        return Err(format!(
            "what it stands on is written to, as while the room of a deleted snapshot is given back, and that says nothing \
             of the point: try it again once `holdfast snapshot list` tells of no merge; its QEMU said: {said}"
        ));
    }
    // Of a signal that asks it to end it only tells.
    let asked = said.contains("terminating on signal").then(|| said.clone());
    let killed = signal.map(|signal| format!("its QEMU was ended by signal {signal}"));
    match killed.or(asked) {
        None => Ok(format!("its QEMU ended and said: {said}")),
        Some(how) => Err(format!(
            "{how}, which no trial sends: somebody did, or the kernel, as a trial is the first to go where memory is \
             short; that says nothing of the point"
        )),
    }
}

async fn check(sandbox: &Sandbox, apps: &[Inside], deadline: Instant, told: &mut Told) {
    for inside in apps.iter().filter(|inside| inside.app.is_ok()) {
        for check in &inside.checks {
            let finding = run(sandbox, &inside.name, check, deadline).await;
            told.findings.push(finding);
        }
    }
}

/// Asks until all have answered. Why it will never be, if that is so.
async fn boot(sandbox: &Sandbox, apps: &[Inside], began: Instant, told: &mut Told) -> Option<String> {
    loop {
        if told.booted.is_none() && has_agent(sandbox).await {
            told.booted = Some(began.elapsed());
        }
        for inside in apps {
            ask(sandbox, inside, began, told).await;
        }
        if told.has_asked() && told.all_answered() {
            told.served = told.served.or_else(|| Some(began.elapsed()));
        }
        let has_waited = told.served.is_some_and(|served| began.elapsed() > served + AGENT);
        if told.all_answered() && (told.booted.is_some() || has_waited) {
            return None;
        }
        if let Some(why) = sandbox.stuck().await {
            return Some(why.into());
        }
        tokio::time::sleep(ASK).await;
    }
}

async fn has_agent(sandbox: &Sandbox) -> bool {
    let Ok(mut session) = sandbox.agent().session(Duration::from_secs(2)).await else { return false };
    session.ping().await.is_ok()
}

async fn ask(sandbox: &Sandbox, inside: &Inside, began: Instant, told: &mut Told) {
    let (Ok(app), Some(Answer::None(_))) = (&inside.app, told.apps.get(&inside.name)) else { return };
    let places = Places { ports: sandbox.ports(), ..Places::default() };
    let sign = match convert::probe(app, &places) {
        Ok(question) => probe::probe(&question, PATIENCE.max(app.timeout)).await,
        Err(sign) => sign,
    };
    let answer = match sign {
        AppSign::Answered { .. } => Answer::Right(began.elapsed()),
        AppSign::Failed { text, .. } => Answer::None(text),
    };
    told.apps.insert(inside.name.clone(), answer);
}

async fn run(sandbox: &Sandbox, app: &AppName, check: &Check, deadline: Instant) -> Finding {
    let left = deadline.saturating_duration_since(Instant::now());
    let ended = async {
        let mut session = sandbox.agent().session(left).await?;
        session.exec(&check.argv).await
    };
    let (verdict, text) = match ended.await {
        Ok(end) => {
            let said = String::from_utf8_lossy(&end.output);
            let last: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
            let last = last.iter().skip(last.len().saturating_sub(3)).copied().collect::<Vec<_>>().join("; ");
            let verdict = match end.code {
                Some(0) => Verdict::Sound,
                Some(NOT_HERE) => Verdict::Open,
                Some(_) | None => Verdict::Wrong,
            };
            (verdict, last)
        }
        Err(error) => (Verdict::Open, error.to_string()),
    };
    let text: String = tame(&text).chars().take(WORDS).collect();
    Finding { app: app.clone(), check: check.name, verdict, text }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn told(rows: &str) -> Told {
        let app: AppName = "postgres".parse().unwrap();
        let text = format!("nothing wrong in 3 databases, 22 MB; {rows} rows in orders");
        let finding = Finding { app: app.clone(), check: "pg_amcheck", verdict: Verdict::Sound, text };
        let right = Answer::Right(Duration::from_secs(3));
        let apps = BTreeMap::from([(app, right)]);
        let up = Some(Duration::from_secs(3));
        Told { booted: up, served: up, apps, findings: vec![finding], failed: None }
    }

    #[test]
    fn a_trial_that_had_no_processor_says_nothing_of_its_point() {
        let secs = Duration::from_secs;
        let was = |after| was_in_time(secs(100), Some(secs(1_000)), after);
        assert_eq!(was(Some(secs(1_049))), Ok(()), "it had half of its time at least");
        assert!(
            was(Some(secs(1_050))).unwrap_err().contains("for 50 s of it somebody waited for a processor")
        );
        assert_eq!(was(None), Ok(()), "this kernel does not tell");
        assert_eq!(was(Some(secs(0))), Ok(()));
    }

    #[test]
    fn a_database_that_lost_half_of_its_rows_is_not_checked() {
        for (rows, before, grade) in [
            ("20214", None, Grade::AppChecked),
            ("20214", Some(40_000), Grade::AppChecked),
            ("19999", Some(40_000), Grade::Booted),
            ("0", Some(999), Grade::AppChecked),
            ("too many to count", Some(40_000), Grade::AppChecked),
        ] {
            let mut told = told(rows);
            told.compare(before);
            assert_eq!(told.grade(), grade, "{rows} {before:?}: {}", told.words());
        }
    }

    #[test]
    fn where_no_check_could_be_made_that_is_said_first_and_the_answers_count() {
        let is_said = |told: &Told| told.words().contains(UNCHECKED);
        let mut checked = told("1");
        assert!(!is_said(&checked), "{}", checked.words());
        checked.findings[0].verdict = Verdict::Open;
        checked.findings[0].text = "the guest has no pg_amcheck".into();
        assert_eq!((checked.grade(), is_said(&checked)), (Grade::AppChecked, true), "{}", checked.words());
        let words = checked.words();
        assert!(words.starts_with(&format!("booted in 3.0 s; {UNCHECKED}; ")), "{words}");
        assert!(
            words.ends_with("pg_amcheck of postgres: tells nothing: the guest has no pg_amcheck"),
            "{words}"
        );
        checked.findings.clear();
        assert!(is_said(&checked), "there was none to be made: {}", checked.words());
        checked.failed = Some("its kernel panicked".into());
        assert!(!is_said(&checked), "it is not app-checked anyway: {}", checked.words());
    }

    #[test]
    fn a_trial_that_somebody_else_ended_says_nothing_of_the_point() {
        let said = || "it said nothing".to_owned();
        for signal in [9, 6, 11] {
            let why = its_end((said(), Some(signal))).unwrap_err();
            assert!(why.contains(&format!("signal {signal}")) && why.contains("memory is short"), "{why}");
        }
        let locked = "Is another process using the image [/vm/orders.qcow2]?".to_owned();
        assert!(
            its_end((locked, None)).unwrap_err().contains("snapshot list"),
            "a merge is not the fault of a point"
        );
        let asked = "qemu-system-x86_64: terminating on signal 15 from pid 7 (kill)".to_owned();
        assert!(its_end((asked, None)).unwrap_err().contains("signal 15 from pid 7"));
        assert_eq!(its_end((said(), None)), Ok("its QEMU ended and said: it said nothing".into()));
    }

    #[test]
    fn what_did_not_boot_or_answer_is_worth_less() {
        let mut dead = told("1");
        dead.failed = Some("its kernel panicked".into());
        assert_eq!(dead.grade(), Grade::Taken);
        let mut silent = told("1");
        silent.apps.values_mut().for_each(|answer| *answer = Answer::None("refused".into()));
        assert_eq!(silent.grade(), Grade::Booted);
        let mut alone = told("1");
        alone.apps.values_mut().for_each(|answer| *answer = Answer::NotAsked("it is elsewhere"));
        assert_eq!(alone.grade(), Grade::Booted);
        assert!(alone.words().contains("was not asked: it is elsewhere"), "{}", alone.words());
        assert_eq!(Told::default().grade(), Grade::Taken);
    }
}
