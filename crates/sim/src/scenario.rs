//! Story files: read, run, compared with the timeline they expect, or blessed with the one they get.

use crate::checker::Violation;
use crate::faults::{Happening, PersonWish};
use crate::run::{Options, Run};
use crate::story::{RULE, Story, StoryError, When};
use holdfast_core::diagnosis::Fault;
use holdfast_core::plan::Remedy;
use holdfast_core::time::{Duration, Timestamp};
use std::path::{Path, PathBuf};

/// What came of a story.
#[derive(Clone, Debug)]
pub struct Told {
    /// The confirmed faults, and the remedies that were tried for each.
    pub outcomes: Vec<(Fault, Vec<Remedy>)>,
    /// What Holdfast did and said.
    pub timeline: Vec<String>,
    /// Invariants that did not hold.
    pub violations: Vec<Violation>,
    /// How long the story was.
    pub lasted: Duration,
    /// Numbered points that the daemon passed: where it could have crashed.
    pub points: u64,
    /// Inputs that the engine took in.
    pub inputs: u64,
}

/// The end of a story that does not say when it ends: so long after its last event.
const AFTERMATH: Duration = Duration::from_secs(120);
/// `T_CONV` of SAFETY.md for one host: the longest boot and a minute.
const GRACE: Duration = Duration::from_secs(60);

/// Runs a story.
#[must_use]
pub fn tell(story: &Story, options: Options) -> Told {
    let lasts = lasts(story);
    let mut run = Run::new(story.clone(), options);
    run.until(Timestamp::ZERO + lasts);
    run.timeline.end(run.world.now, &run.daemon.engine);
    if story.heals.is_some() && run.checker.violations.is_empty() {
        run.checker.converged(&run.daemon.engine, &run.world);
    }
    let incidents = run.daemon.engine.incidents();
    let outcomes = incidents
        .filter(|incident| incident.is_confirmed())
        .map(|incident| (incident.fault(), incident.attempts.iter().map(|attempt| attempt.remedy).collect()));
    Told {
        outcomes: outcomes.collect(),
        timeline: run.timeline.lines,
        violations: run.checker.violations,
        lasted: lasts,
        points: run.daemon.points,
        inputs: run.steps,
    }
}

/// When a story ends.
#[must_use]
pub fn lasts(story: &Story) -> Duration {
    let last = story.events.iter().map(|event| match event.when {
        When::At(at) => at + event.lasting.unwrap_or_default(),
        When::Every { period, times } => period * times + event.lasting.unwrap_or_default(),
        When::Upon(_) => Duration::ZERO,
    });
    let told = story.until.unwrap_or_else(|| last.max().unwrap_or_default() + AFTERMATH);
    let boot = story.vms.iter().map(|vm| vm.policy.boot_limit).max().unwrap_or_default();
    let heals = |at: Duration| at.max(announced(story));
    story.heals.map_or(told, |at| story.until.unwrap_or_default().max(heals(at) + boot + GRACE))
}

/// When the last announced work is to be over: until then silence is expected, and nothing follows from it.
fn announced(story: &Story) -> Duration {
    let ends = story.events.iter().filter_map(|event| match (&event.when, &event.what) {
        (When::At(at), Happening::Person(_, PersonWish::Announce(_, lasts))) => Some(*at + *lasts),
        (When::At(_) | When::Every { .. } | When::Upon(_), _) => None,
    });
    ends.max().unwrap_or_default()
}

/// What is wrong with a story file.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It cannot be read or written.
    #[error("cannot open `{path}`")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no story.
    #[error("`{path}` is no story")]
    NoStory {
        /// The file.
        path: PathBuf,
        /// The line, and what is wrong there.
        #[source]
        source: StoryError,
    },
    /// An invariant did not hold.
    #[error("`{path}`: {violation}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// Which.
        violation: Violation,
    },
    /// Holdfast did something else than the file says.
    #[error("{path}:{line}: {what}; if that is right, say BLESS=1 and review the change")]
    Differs {
        /// The file.
        path: PathBuf,
        /// The first line that differs.
        line: usize,
        /// What was expected, and what came.
        what: String,
    },
}

/// Runs the story in a file and compares its timeline. With `bless` the file gets the new timeline.
///
/// # Errors
/// If the file cannot be read, tells no story, breaks an invariant, or expects something else.
pub fn check_file(path: &Path, bless: bool) -> Result<Told, ScenarioError> {
    let file = |source| ScenarioError::File { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(file)?;
    let story: Story =
        text.parse().map_err(|source| ScenarioError::NoStory { path: path.to_owned(), source })?;
    let told = tell(&story, Options::default());
    if bless {
        let head = text.split_once(&format!("{RULE}\n")).map_or(text.trim_end(), |(head, _)| head.trim_end());
        let mut new = format!("{head}\n{RULE}\n{}\n", told.timeline.join("\n"));
        if told.timeline.is_empty() {
            new = format!("{head}\n{RULE}\n");
        }
        std::fs::write(path, new).map_err(file)?;
    }
    if let Some(violation) = told.violations.first() {
        return Err(ScenarioError::Broken { path: path.to_owned(), violation: violation.clone() });
    }
    if !bless {
        compare(path, &text, &told.timeline)?;
    }
    Ok(told)
}

fn compare(path: &Path, text: &str, timeline: &[String]) -> Result<(), ScenarioError> {
    let differs = |line, what| Err(ScenarioError::Differs { path: path.to_owned(), line, what });
    let Some(rule) = text.lines().position(|line| line == RULE) else {
        return differs(text.lines().count(), "there is no timeline".to_owned());
    };
    let expected: Vec<&str> = text.lines().skip(rule + 1).collect();
    for at in 0..expected.len().max(timeline.len()) {
        let line = rule + 2 + at;
        match (expected.get(at), timeline.get(at)) {
            (Some(expected), Some(came)) if expected == came => {}
            (Some(expected), Some(came)) => {
                return differs(line, format!("expected {expected:?}, came {came:?}"));
            }
            (Some(expected), None) => return differs(line, format!("expected {expected:?}, came nothing")),
            (None, Some(came)) => return differs(line, format!("expected the end, came {came:?}")),
            (None, None) => {}
        }
    }
    Ok(())
}
