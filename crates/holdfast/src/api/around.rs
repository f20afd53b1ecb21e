//! The lines around one that proves something, for `explain`.
//!
//! An explanation never fails for want of them: then it says why they are not there. They are a stranger's, and so
//! escaped and bounded (A40, I18).

use super::logs::{Logs, seconds};
use super::shape::ExplainDoc;
use crate::logbook::{Around, Owner, Quoted, Stored};
use holdfast_core::engine::Engine;
use holdfast_core::evidence::{Evidence, Kind, Quote};
use holdfast_core::incident::Incident;
use holdfast_core::signal::Channel;
use holdfast_logs::escape;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;

/// Records shown before the one that proves it, and as many after.
const EACH: usize = 3;
/// Lines of one record, and characters of a line.
const MOST_LINES: usize = 12;
const LONGEST: usize = 240;
/// Statements whose lines are looked for.
const MOST_QUOTES: usize = 8;

/// The line that proves a statement, with those around it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AroundDoc {
    /// Why they cannot be shown; `null` if they are.
    pub missing: Option<String>,
    /// The records, the oldest first; none if they are missing.
    pub records: Vec<NearDoc>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NearDoc {
    /// Its number among all that are kept.
    pub number: u64,
    /// When, as its source says, in seconds since the epoch.
    pub time: Option<f64>,
    /// When it was received.
    pub received: f64,
    /// Where it came from.
    pub source: String,
    /// How bad it is.
    pub severity: Option<String>,
    /// What was said; lines are divided by `\n`.
    pub text: String,
    /// It is the one that proves it.
    pub proves: bool,
}

impl AroundDoc {
    fn missing(why: &str) -> Self {
        Self { missing: Some(why.into()), records: Vec::new() }
    }

    fn of(around: Around) -> Self {
        match around {
            Around::Lines { proof, records } => {
                let records = records.iter().map(|stored| near(stored, proof)).collect();
                Self { missing: None, records }
            }
            Around::Left => {
                Self::missing("the lines around it are no longer kept: they made room for newer ones")
            }
            Around::Unwritten => {
                Self::missing("the lines around it are not written yet: ask again in a moment")
            }
            Around::Unknown => Self::missing("the line is not among those that are kept"),
        }
    }
}

fn near(stored: &Stored, proof: u64) -> NearDoc {
    let mut lines: Vec<String> =
        stored.record.text.lines().take(MOST_LINES).map(|line| escape(line, LONGEST)).collect();
    if stored.record.text.lines().nth(MOST_LINES).is_some() {
        lines.push("…".into());
    }
    NearDoc {
        number: stored.number,
        time: stored.record.time.map(seconds),
        received: seconds(stored.received),
        source: escape(stored.source.as_str(), LONGEST),
        severity: stored.severity.map(|severity| severity.name().to_owned()),
        text: lines.join("\n"),
        proves: stored.number == proof,
    }
}

/// What PostgreSQL told our probe when it did not let it in: it says the same to its own log, with the same user, so its line
/// is found by these words. Of nobody else is it known that both are alike.
fn refusal(evidence: &Evidence) -> Option<&str> {
    let (_, said) = evidence.text.split_once(": FATAL: ").filter(|_| evidence.kind == Kind::AppDenied)?;
    Some(said.rsplit_once(" (").map_or(said, |(words, _)| words))
}

/// The lines that the evidence of an incident quotes, the weightiest first, each with its place among it.
pub fn quotes(engine: &Engine, incident: &Incident) -> Vec<(usize, Quoted)> {
    let diagnosis = incident.named.as_ref().unwrap_or(&incident.diagnosis);
    let quoted = |evidence: &Evidence| {
        let told = || Some(Quote { at: evidence.at, line: refusal(evidence)?.to_owned() });
        let quote = evidence.quote.clone().or_else(told)?;
        let of_host = evidence.kind.channel() == Channel::Host;
        let owner = if of_host { Owner::Host } else { Owner::of(&incident.subject) };
        let at = i64::try_from(quote.at.as_micros()).unwrap_or(i64::MAX);
        let at = at.saturating_add(engine.wall_offset(quote.at));
        Some(Quoted { owner, at, line: quote.line })
    };
    let mut evidence: Vec<_> = diagnosis.evidence.iter().enumerate().collect();
    evidence.sort_by_key(|(_, weighed)| (!weighed.counts, Reverse(weighed.weight.abs())));
    let quotes = evidence.into_iter().filter_map(|(n, weighed)| Some((n, quoted(&weighed.evidence)?)));
    quotes.take(MOST_QUOTES).collect()
}

/// Shows the lines around those that are quoted, each at its statement. `now` is in microseconds since 1970.
pub async fn show_lines(logs: &Logs, doc: &mut ExplainDoc, quotes: Vec<(usize, Quoted)>, now: i64) {
    if quotes.is_empty() {
        return;
    }
    let (places, quotes): (Vec<usize>, Vec<Quoted>) = quotes.into_iter().unzip();
    let found = logs.read(move |shelf, gone| {
        quotes.iter().map(|quoted| shelf.around(quoted, now, EACH, gone)).collect::<Result<Vec<_>, _>>()
    });
    let lines: Vec<AroundDoc> = match found.await {
        Ok(found) => found.into_iter().map(AroundDoc::of).collect(),
        Err(refused) => vec![AroundDoc::missing(&refused.2); places.len()],
    };
    for (place, lines) in places.into_iter().zip(lines) {
        if let Some(evidence) = doc.evidence.get_mut(place) {
            // Whether a log holds what a probe was told is not known: there may be none.
            let is_there = lines.missing.is_none() || evidence.channel != Channel::Application.name();
            evidence.lines = Some(lines).filter(|_| is_there);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use holdfast_core::time::Timestamp;
    use holdfast_logs::Rules;

    fn told(kind: Kind, text: &str) -> Evidence {
        let at = Timestamp::from_secs(7);
        Evidence { kind, app: None, since: at, at, strength: 1, text: text.into(), quote: None }
    }

    #[test]
    fn what_postgresql_told_our_probe_is_looked_for_in_its_log_for_that_user_alone() {
        let text = "postgres refuses our credentials: FATAL: password authentication failed for user \"probe\" (28P01)";
        let denied = told(Kind::AppDenied, text);
        let words = refusal(&denied).unwrap();
        let log =
            |user| format!("pg 2026-11-23 [77] FATAL:  password authentication failed for user \"{user}\"");
        assert!(
            log("probe").contains(words) && !log("orders").contains(words) && !log("probe2").contains(words),
            "{words}"
        );
        let known = Rules::standard().find(&log("probe")).unwrap(); // or its record would not be looked at
        assert_eq!(known.rule.name, "postgres-login-refused");
        assert_eq!(refusal(&told(Kind::AppWrong, text)), None);
        assert_eq!(refusal(&told(Kind::AppDenied, "redis refuses our credentials: WRONGPASS invalid")), None);
    }
}
