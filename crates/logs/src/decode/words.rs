//! The words with which programs say how bad a line is.

use crate::record::Severity;

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
    postgres(text)
        .or_else(|| first(text))
        .or_else(|| has_time.then(|| among(text))?)
        .or_else(|| labelled(text))
}

fn near(text: &str) -> &str {
    &text[..text.floor_char_boundary(NEAR)]
}

fn postgres(text: &str) -> Option<Severity> {
    let (before, _) = near(text).split_once(":  ")?;
    let word = before.rsplit([' ', ']']).next()?;
    POSTGRES.iter().find(|(known, _)| *known == word).map(|(_, severity)| *severity)
}

fn first(text: &str) -> Option<Severity> {
    let word = text.split(' ').next()?;
    let said = match word.strip_prefix(['[', '<', '(']) {
        Some(inner) => inner.trim_end_matches(':').strip_suffix([']', '>', ')'])?,
        None => &word[..word.find(':')?],
    };
    severity(said)
}

fn among(text: &str) -> Option<Severity> {
    near(text).split(' ').filter(|word| !word.is_empty()).take(LOOKED_AT).find_map(|word| {
        let inner = word.trim_matches(['[', ']', ':', '|', '(', ')', '<', '>']);
        let is_marked = word.starts_with('[') || inner.bytes().all(|byte| byte.is_ascii_uppercase());
        is_marked.then(|| severity(inner))?
    })
}

/// `level=warn`, `"severity":"ERROR"`.
fn labelled(text: &str) -> Option<Severity> {
    let near = near(text);
    if !near.contains(['=', '{']) {
        return None;
    }
    for label in ["level=", "severity=", "\"level\":", "\"severity\":"] {
        let Some(at) = near.find(label) else { continue };
        let is_start = at == 0 || matches!(near.as_bytes()[at - 1], b' ' | b',' | b'{');
        let value = near[at + label.len()..].trim_start_matches([' ', '"']);
        let end = value.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(value.len());
        let ends = matches!(value.as_bytes().get(end), None | Some(b' ' | b'"' | b','));
        if is_start
            && ends
            && let Some(severity) = severity(&value[..end])
        {
            return Some(severity);
        }
    }
    None
}
