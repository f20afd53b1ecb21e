//! What is wrong with a configuration, said so that a person can put it right: what failed, why, and
//! the way out, with the place in the file.
//!
//! Never repeats a secret: passwords in the file are masked before any line of it is shown (A46).

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet, renderer::DecorStyle};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;

/// So many problems are told; more are only counted. Whoever has more starts over anyway.
const MOST_TOLD: usize = 40;
/// A longer line is named but not shown.
const LONGEST_LINE: usize = 512;
/// Two places further apart than this are not shown in one picture.
const LONGEST_PICTURE: usize = 16 * 1024;

/// One thing that is wrong, or weak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What failed, on what.
    pub error: String,
    /// Why.
    pub cause: String,
    /// The way out.
    pub hint: String,
    /// Where, in bytes of the text; `None` if it is about the whole file.
    pub place: Option<Range<usize>>,
    /// A second place that matters, and why.
    pub see: Option<Box<(Range<usize>, String)>>,
}

impl Problem {
    /// A problem at a place of the text.
    #[must_use]
    pub fn at(
        place: Range<usize>,
        error: impl Into<String>,
        cause: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { place: Some(place), ..Self::whole(error, cause, hint) }
    }

    /// A problem of the whole file.
    #[must_use]
    pub fn whole(error: impl Into<String>, cause: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { error: error.into(), cause: cause.into(), hint: hint.into(), place: None, see: None }
    }

    /// The same, also pointing at a second place.
    #[must_use]
    pub fn see(mut self, place: Range<usize>, why: impl Into<String>) -> Self {
        self.see = Some(Box::new((place, why.into())));
        self
    }
}

/// Collects problems while a file is read, so that all are told at once. From the thousandth on they are
/// only counted.
#[derive(Debug, Default)]
pub struct Problems {
    kept: RefCell<Vec<Problem>>,
    count: Cell<usize>,
}

/// So many problems are kept while a file is read.
const MOST_KEPT: usize = 1_000;

impl Problems {
    /// Adds one.
    pub fn push(&self, problem: Problem) {
        self.count_one();
        if !self.is_full() {
            self.kept.borrow_mut().push(problem);
        }
    }

    /// Counts one that nobody could be told.
    pub fn count_one(&self) {
        self.count.set(self.count.get() + 1);
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.get()
    }

    /// Whether more would only be counted, so that no hint needs to be worked out for them.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.kept.borrow().len() >= MOST_KEPT
    }

    /// Ready to be shown, in the order of the file.
    #[must_use]
    pub fn into_remarks(self, origin: &str, text: &str) -> Remarks {
        let mut told = self.kept.into_inner();
        told.sort_by_key(|problem| problem.place.as_ref().map_or(0, |place| place.start));
        told.truncate(MOST_TOLD);
        let untold = self.count.get() - told.len();
        let text = if told.is_empty() { String::new() } else { mask(text) };
        let origin = origin.chars().flat_map(super::units::escape).collect();
        Remarks { origin, text, told, untold }
    }
}

/// Remarks on one file, in the order of the file, ready to be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remarks {
    origin: String,
    /// The text, with secrets masked byte by byte, so that all places still fit.
    text: String,
    told: Vec<Problem>,
    untold: usize,
}

/// Everything that is wrong with a configuration: a [`Config`](super::Config) was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.render(Kind::Error, false))]
pub struct ConfigErrors(pub Remarks);

/// How grave remarks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The file is refused.
    Error,
    /// The file is accepted, protection or safety is weaker than it could be.
    Warning,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

impl Remarks {
    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// The file they are about, fit to be shown.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The remarks that are told, at most 40.
    #[must_use]
    pub fn told(&self) -> &[Problem] {
        &self.told
    }

    /// All of them, told or only counted.
    #[must_use]
    pub fn count(&self) -> usize {
        self.told.len() + self.untold
    }

    /// For people: each with its line, a caret, the cause and the hint.
    #[must_use]
    pub fn render(&self, kind: Kind, colour: bool) -> String {
        let each: Vec<String> = self.told.iter().map(|problem| self.picture(problem, kind, colour)).collect();
        let mut text = each.join("\n\n");
        if self.untold > 0 {
            text.push_str(&format!("\n\nand {} more of the kind `{kind}`, not shown", self.untold));
        }
        text
    }

    /// For programs: `[{error, cause, hint, line, column}]`, lines and columns from 1, in characters,
    /// `null` where the remark is about the whole file.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.told
            .iter()
            .map(|problem| {
                let at = problem.place.as_ref().map(|place| self.position(place.start));
                json!({
                    "error": problem.error,
                    "cause": problem.cause,
                    "hint": problem.hint,
                    "line": at.map(|at| at.0),
                    "column": at.map(|at| at.1),
                })
            })
            .collect()
    }

    fn picture(&self, problem: &Problem, kind: Kind, colour: bool) -> String {
        let level = match kind {
            Kind::Error => Level::ERROR,
            Kind::Warning => Level::WARNING,
        };
        let title = level.primary_title(problem.error.as_str());
        let group = match &problem.place {
            None => title.element(annotate_snippets::Origin::path(self.origin.as_str())),
            Some(place) => match self.snippet(place, problem.see.as_deref()) {
                Some(snippet) => title.element(snippet),
                None => {
                    let (line, column) = self.position(place.start);
                    let origin = annotate_snippets::Origin::path(self.origin.as_str());
                    title.element(origin.line(line).char_column(column))
                }
            },
        };
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let picture = renderer.decor_style(DecorStyle::Ascii).render(&[group]);
        let (bold, plain) = if colour { ("\u{1b}[1m", "\u{1b}[0m") } else { ("", "") };
        let Problem { cause, hint, .. } = problem;
        format!("{picture}\n{bold}cause{plain}: {cause}\n{bold}hint{plain}:  {hint}")
    }

    /// The lines around a place, unless they are too long to be shown.
    fn snippet<'t>(
        &'t self,
        place: &Range<usize>,
        see: Option<&'t (Range<usize>, String)>,
    ) -> Option<Snippet<'t, annotate_snippets::Annotation<'t>>> {
        let place = self.clamp(place);
        let see = see
            .map(|(other, why)| (self.clamp(other), why.as_str()))
            .filter(|(other, _)| other.start.abs_diff(place.start) < LONGEST_PICTURE);
        let first = see.as_ref().map_or(place.start, |(other, _)| other.start.min(place.start));
        let last = see.as_ref().map_or(place.end, |(other, _)| other.end.max(place.end));
        let start = self.text[..first].rfind('\n').map_or(0, |at| at + 1);
        let end = self.text[last..].find('\n').map_or(self.text.len(), |at| last + at);
        let shown = &self.text[start..end];
        if shown.lines().any(|line| line.len() > LONGEST_LINE) {
            return None;
        }
        let inside = |range: &Range<usize>| range.start - start..range.end - start;
        let mut snippet = Snippet::source(shown)
            .path(self.origin.as_str())
            .line_start(self.position(start).0)
            .annotation(AnnotationKind::Primary.span(inside(&place)));
        if let Some((other, why)) = &see {
            snippet = snippet.annotation(AnnotationKind::Context.span(inside(other)).label(*why));
        }
        Some(snippet)
    }

    /// A range that lies within the text and on characters, and ends on the line where it starts.
    fn clamp(&self, place: &Range<usize>) -> Range<usize> {
        let start = self.text.floor_char_boundary(place.start.min(self.text.len()));
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let end = self.text.floor_char_boundary(place.end.clamp(start, line_end));
        start..end
    }

    /// Line and column of a byte, from 1, in characters.
    fn position(&self, at: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(at.min(self.text.len()))];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// Words whose values are never shown.
const SECRETS: [&str; 4] = ["password", "passwd", "secret", "token"];

/// The text with each secret overwritten by `*`, byte by byte, so that no place moves: the password in
/// `scheme://user:password@host`, what follows `password =`, and what follows `password_env =` where
/// that can be no name of a variable.
fn mask(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let lower = text.to_ascii_lowercase();
    for (at, _) in lower.match_indices("://") {
        let rest = &text.as_bytes()[at + 3..];
        let until = rest.iter().position(|b| b"\"'\n".contains(b)).unwrap_or(rest.len());
        let Some(end) = rest[..until].iter().rposition(|b| *b == b'@') else { continue };
        if let Some(colon) = rest[..end].iter().position(|b| *b == b':') {
            bytes[at + 3 + colon + 1..at + 3 + end].fill(b'*');
        }
    }
    for word in SECRETS {
        for (at, _) in lower.match_indices(word) {
            let after = at + word.len();
            if let Some(value) = value_after(text, after) {
                bytes[value].fill(b'*');
            } else if lower[after..].starts_with("_env")
                && let Some(value) =
                    value_after(text, after + 4).filter(|value| !is_variable(&text[value.clone()]))
            {
                bytes[value].fill(b'*');
            }
        }
    }
    // Only whole runs between ASCII marks were overwritten, so this is still UTF-8.
    String::from_utf8(bytes).unwrap_or_default()
}

/// Where the value stands if `=` or `:` follows a key that ends at `at`: up to its quote or its line's end.
fn value_after(text: &str, at: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let blanks = |from: usize| {
        from + bytes[from..].iter().position(|b| !b" \t\"'".contains(b)).unwrap_or(bytes.len() - from)
    };
    let equals = blanks(at);
    if !matches!(bytes.get(equals), Some(b'=' | b':')) {
        return None;
    }
    let value = blanks(equals + 1);
    let end = bytes[value..].iter().position(|b| b"\"'\n".contains(b)).unwrap_or(bytes.len() - value);
    Some(value..value + end)
}

/// Whether a text can name an environment variable here: capital letters, digits and `_`. Small letters
/// are not taken, so that hardly any password is taken for a name and shown.
#[must_use]
pub fn is_variable(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn remarks(text: &str, problem: Problem) -> Remarks {
        let problems = Problems::default();
        problems.push(problem);
        problems.into_remarks("f.toml", text)
    }

    #[test]
    fn a46_no_secret_of_the_file_is_ever_shown() {
        for (text, shown) in [
            ("probe = \"postgres://me:hunter2@guest/db\"", "probe = \"postgres://me:*******@guest/db\""),
            ("probe = 'redis://:p@ss@guest'", "probe = 'redis://:****@guest'"),
            ("url = \"http://guest:8080/a\"", "url = \"http://guest:8080/a\""),
            ("password = \"hunter2\"\nx = 1", "password = \"*******\"\nx = 1"),
            ("a = { \"db_Password\" = 'ü' }", "a = { \"db_Password\" = '**' }"),
            ("password_file = \"/etc/pw\"", "password_file = \"/etc/pw\""),
            ("x = \"a?token=abc\"", "x = \"a?token=***\""),
            ("password =", "password ="),
            ("password_env = \"hunter2\"", "password_env = \"*******\""),
            ("password_env = \"PG_PW\"", "password_env = \"PG_PW\""),
            ("password = \"\"\"\nhunter2\"\"\"", "password = \"\"\"\nhunter2\"\"\""),
        ] {
            assert_eq!(mask(text), shown);
        }
    }

    #[test]
    fn a_place_outside_the_text_or_inside_a_character_is_shown_all_the_same() {
        let text = "a = \"ü\"\nb = 2";
        for (start, end) in [(0, usize::MAX), (6, 7), (500, 3), (13, 13), (14, 15)] {
            let place = start..end;
            let shown = remarks(text, Problem::at(place, "bad", "because", "do")).render(Kind::Error, false);
            assert!(shown.starts_with("error: bad\n"), "{shown}");
            assert!(shown.ends_with("cause: because\nhint:  do"), "{shown}");
        }
    }

    #[test]
    fn colour_is_only_there_when_asked_for() {
        let remarks = remarks("a = 1", Problem::at(0..1, "e", "c", "h"));
        assert!(remarks.render(Kind::Error, true).contains('\u{1b}'));
        assert!(!remarks.render(Kind::Error, false).contains('\u{1b}'));
    }

    #[test]
    fn a01_a_flood_of_problems_is_counted_and_not_told() {
        let problems = Problems::default();
        for _ in 0..100_000 {
            problems.push(Problem::at(0..1, "e", "c", "h"));
        }
        let remarks = problems.into_remarks("f.toml", "a = 1");
        assert_eq!((remarks.told().len(), remarks.count()), (MOST_TOLD, 100_000));
        assert!(remarks.render(Kind::Error, false).contains("and 99960 more"));
    }

    #[test]
    fn a_line_too_long_to_show_is_named() {
        let text = format!("x = 1\ny = \"{}\"", "a".repeat(100_000));
        let remarks = remarks(&text, Problem::at(10..11, "e", "c", "h"));
        assert_eq!(remarks.render(Kind::Error, false), "error: e\n--> f.toml:2:5\ncause: c\nhint:  h");
    }

    proptest! {
        #[test]
        fn masking_keeps_every_place(text in "(.|\n|password *= *\"|://|:|@|\"){0,60}") {
            prop_assert_eq!(mask(&text).len(), text.len());
        }

        #[test]
        fn no_text_and_no_place_panics(text in "(.|\n|\t|\r|\u{1b}){0,80}", a in 0usize..100, b in 0usize..100, c in 0usize..100) {
            let problem = Problem::at(a..b, "e", "c", "h").see(c..a, "there");
            let remarks = remarks(&text, problem);
            prop_assert!(!remarks.render(Kind::Error, true).is_empty());
            let plain = remarks.render(Kind::Warning, false);
            prop_assert!(!plain.contains('\x1b'));
        }
    }
}
