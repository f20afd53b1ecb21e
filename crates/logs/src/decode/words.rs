//! The words with which programs say how bad a line is.

use crate::record::Severity;
use memchr::{memchr_iter, memrchr2};

const WORDS: [(&str, Severity); 26] = [
    ("trace", Severity::Debug),
    ("debug", Severity::Debug),
    ("dbg", Severity::Debug),
    ("verbose", Severity::Debug),
    ("fine", Severity::Debug),
    ("finer", Severity::Debug),
    ("finest", Severity::Debug),
    ("info", Severity::Info),
    ("information", Severity::Info),
    ("informational", Severity::Info),
    ("log", Severity::Info),
    ("system", Severity::Info),
    ("notice", Severity::Notice),
    ("note", Severity::Notice),
    ("warn", Severity::Warning),
    ("warning", Severity::Warning),
    ("err", Severity::Error),
    ("error", Severity::Error),
    ("severe", Severity::Error),
    ("fatal", Severity::Critical),
    ("critical", Severity::Critical),
    ("crit", Severity::Critical),
    ("panic", Severity::Critical),
    ("alert", Severity::Alert),
    ("emerg", Severity::Emergency),
    ("emergency", Severity::Emergency),
];

/// PostgreSQL's own, each with a colon and two blanks behind it. What is fatal ends one session.
const POSTGRES: [(&str, Severity); 17] = [
    ("LOG", Severity::Info),
    ("ERROR", Severity::Error),
    ("FATAL", Severity::Error),
    ("PANIC", Severity::Critical),
    ("WARNING", Severity::Warning),
    ("NOTICE", Severity::Notice),
    ("INFO", Severity::Info),
    ("DEBUG1", Severity::Debug),
    ("DEBUG2", Severity::Debug),
    ("DEBUG3", Severity::Debug),
    ("DEBUG4", Severity::Debug),
    ("DEBUG5", Severity::Debug),
    ("DETAIL", Severity::Info),
    ("HINT", Severity::Info),
    ("CONTEXT", Severity::Info),
    ("STATEMENT", Severity::Info),
    ("QUERY", Severity::Info),
];

/// Words behind a time that may be the one.
const LOOKED_AT: usize = 6;

/// Bytes in which the prefix of a PostgreSQL line ends, and in which `level=` stands.
const NEAR: usize = 192;

/// A word of any case, if it says how bad.
pub fn severity(word: &str) -> Option<Severity> {
    WORDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, severity)| *severity)
}

/// How bad a line is, from a known word in a known place: PostgreSQL's mark; the first word if it ends with a
/// colon or stands in brackets; behind a time, one of the first words in capitals or brackets; `level=error`.
pub fn of_line(text: &str, has_time: bool) -> Option<Severity> {
    let near = &text.as_bytes()[..text.len().min(NEAR)];
    postgres(near)
        .or_else(|| first(text))
        .or_else(|| has_time.then(|| among(near))?)
        .or_else(|| labelled(near))
}

/// A word in bytes.
fn said(word: &[u8]) -> Option<Severity> {
    std::str::from_utf8(word).ok().and_then(severity)
}

fn postgres(near: &[u8]) -> Option<Severity> {
    let colon = memchr_iter(b':', near).find(|colon| near[colon + 1..].starts_with(b"  "))?;
    let start = memrchr2(b' ', b']', &near[..colon]).map_or(0, |before| before + 1);
    let word = &near[start..colon];
    POSTGRES.iter().find(|(known, _)| known.as_bytes() == word).map(|(_, severity)| *severity)
}

fn first(text: &str) -> Option<Severity> {
    let word = text.split(' ').next()?;
    let said = match word.strip_prefix(['[', '<', '(']) {
        Some(inner) => inner.trim_end_matches(':').strip_suffix([']', '>', ')'])?,
        None => &word[..word.find(':')?],
    };
    severity(said)
}

fn among(near: &[u8]) -> Option<Severity> {
    let is_mark = |byte: &u8| matches!(byte, b'[' | b']' | b':' | b'|' | b'(' | b')' | b'<' | b'>');
    near.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).take(LOOKED_AT).find_map(|word| {
        if !word[0].is_ascii_uppercase() && !is_mark(&word[0]) {
            return None;
        }
        let start = word.iter().position(|byte| !is_mark(byte))?;
        let end = word.iter().rposition(|byte| !is_mark(byte))? + 1;
        let inner = &word[start..end];
        let is_marked = word[0] == b'[' || inner.iter().all(u8::is_ascii_uppercase);
        is_marked.then(|| said(inner))?
    })
}

/// `level=warn`, `"severity":"ERROR"`.
fn labelled(near: &[u8]) -> Option<Severity> {
    let is_label = |before: &[u8]| {
        [&b"level"[..], b"severity"].iter().any(|label| {
            let start = before.strip_suffix(*label);
            start.is_some_and(|start| matches!(start.last(), None | Some(b' ' | b',' | b'{' | b'"')))
        })
    };
    // in JSON a colon stands behind a label, in all else an equals sign
    memchr_iter(if near.starts_with(b"{") { b':' } else { b'=' }, near).find_map(|at| {
        let before = near[..at].strip_suffix(b"\"").unwrap_or(&near[..at]);
        if !is_label(before) {
            return None;
        }
        let value = near[at + 1..].trim_ascii_start();
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        let end = value.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(value.len());
        matches!(value.get(end), None | Some(b' ' | b'"' | b',')).then(|| said(&value[..end]))?
    })
}
