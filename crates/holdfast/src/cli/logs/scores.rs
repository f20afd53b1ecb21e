//! `holdfast logs analyze --train FILE --score FILE`: learns from windows, without labels, and judges others.

use super::super::paint;
use super::super::{CliError, Exit};
use super::input::{Input, open};
use super::table::{Names, Row, Table, TableError};
use holdfast_logs::{Habits, Judgement, Reason, Room, escape};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

/// Bytes that are printed at once.
const CHUNK: usize = 1 << 16;

/// Characters of an id.
const LONGEST_ID: usize = 200;

/// How judgements are printed.
#[derive(Clone, Copy)]
pub enum Form {
    /// `id,score,flag`.
    Csv,
    /// A document a line, with reasons.
    Json,
}

/// Learns from the rows of one file, and judges each row of another.
pub fn score(train: &Path, score: &Path, form: Form) -> Result<Exit, CliError> {
    let (train, score) = (open(train)?, open(score)?);
    let mut names = Names::default();
    let mut habits = Habits::new(Room::default(), None);
    each(train, &mut names, |row, _| {
        if row.split.as_deref().is_none_or(|split| split.eq_ignore_ascii_case("train")) {
            habits.learn(&row.window);
        }
        true
    })?;
    let model = habits.model().ok_or_else(nothing_learned)?;
    let mut out = String::with_capacity(2 * CHUNK);
    match form {
        Form::Csv => out.push_str("id,score,flag\n"),
        Form::Json => {}
    }
    each(score, &mut names, |row, names| {
        let judgement = model.judge(&row.window);
        match form {
            Form::Csv => push_row(&mut out, &row.id, &judgement),
            Form::Json => push_document(&mut out, &row.id, &judgement, names),
        }
        if out.len() >= CHUNK {
            paint::text(&out);
            out.clear();
        }
        !paint::is_unread() && !paint::could_not_say()
    })?;
    paint::text(&out);
    Ok(Exit::Fine)
}

/// Each row of a file, until no more are wanted.
fn each(input: Input, names: &mut Names, mut take: impl FnMut(Row, &Names) -> bool) -> Result<(), CliError> {
    let name = input.name.clone();
    let mut table = Table::new(input.buffered());
    while let Some(row) = table.next(names).map_err(|cause| no_windows(&name, &cause))? {
        if !take(row, names) {
            break;
        }
    }
    Ok(())
}

fn push_row(out: &mut String, id: &str, judgement: &Judgement) {
    let id = escape(id, LONGEST_ID);
    let quoted = if id.contains([',', '"']) { format!("\"{}\"", id.replace('"', "\"\"")) } else { id };
    let written = writeln!(out, "{quoted},{:.6},{}", judgement.score, u8::from(judgement.is_unusual));
    debug_assert!(written.is_ok(), "a String takes all");
}

fn push_document(out: &mut String, id: &str, judgement: &Judgement, names: &Names) {
    let name = |number| names.name(number);
    let reasons: Vec<Value> = judgement.reasons.iter().map(|reason| as_json(reason, names)).collect();
    let score = (judgement.score * 1e6).round() / 1e6;
    let document = json!({ "v": 1, "id": escape(id, LONGEST_ID), "score": score,
        "flag": judgement.is_unusual, "says": judgement.says(name), "reasons": reasons });
    let written = writeln!(out, "{document}");
    debug_assert!(written.is_ok(), "a String takes all");
}

fn as_json(reason: &Reason, names: &Names) -> Value {
    let name = |pattern: &u32| names.name(*pattern);
    match reason {
        Reason::Unseen { pattern, count } => {
            json!({ "kind": "unseen", "pattern": name(pattern), "count": count, "usual": 0 })
        }
        Reason::Missing { pattern, usual } => {
            json!({ "kind": "missing", "pattern": name(pattern), "count": 0, "usual": usual })
        }
        Reason::Count { pattern, count, usual } => {
            json!({ "kind": "count", "pattern": name(pattern), "count": count, "usual": usual })
        }
        Reason::Step { before, after } => {
            json!({ "kind": "step", "before": before.as_ref().map(name), "after": after.as_ref().map(name) })
        }
    }
}

fn no_windows(name: &str, cause: &TableError) -> CliError {
    let mut why = cause.to_string();
    if let Some(source) = std::error::Error::source(cause) {
        why.push_str(&format!(": {source}"));
    }
    CliError::Said {
        error: format!("cannot read windows from `{name}`"),
        cause: why,
        hint: "a row is a window: `id,events` with events between blanks, or `id` and counts".into(),
    }
}

fn nothing_learned() -> CliError {
    CliError::Said {
        error: "cannot learn what is usual".into(),
        cause: "the file of `--train` has no rows, or none with `train` in its column `split`".into(),
        hint: "give it windows of a time when all was well".into(),
    }
}
