//! The tables of the file, from which settings are taken one by one.
//!
//! Never stops at the first problem: what is wrong is noted, its default stands in, and reading goes on.

use super::problem::{Problem, Problems};
use super::settings::{Kind, Setting};
use super::units::{self, quote};
use holdfast_core::time::Duration;
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::LazyLock;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The longest text in it, in bytes.
const LONGEST_TEXT: usize = 4_096;
/// The longest list in it.
const LONGEST_LIST: usize = 64;

/// One table of the file. Settings are taken from it by key; one that is none of the table is refused.
pub struct Section<'d> {
    /// What messages call it: `[vm.orders]`.
    pub name: String,
    place: Range<usize>,
    table: &'d DeTable<'d>,
    settings: &'static [Setting],
    problems: &'d Problems,
}

/// A text and its place.
pub type Text = Spanned<String>;

impl<'d> Section<'d> {
    /// A table that may hold these settings. Refuses keys that are none of them.
    pub fn new(
        name: String,
        place: Range<usize>,
        table: &'d DeTable<'d>,
        settings: &'static [Setting],
        problems: &'d Problems,
    ) -> Self {
        let section = Self { name, place, table, settings, problems };
        for (key, _) in table.iter() {
            if !settings.iter().any(|setting| setting.key == key.get_ref().as_ref()) {
                section.unknown(key.get_ref(), key.span());
            }
        }
        section
    }

    fn unknown(&self, key: &str, place: Range<usize>) {
        if self.problems.is_full() {
            return self.problems.count_one();
        }
        let keys: Vec<&str> = self.settings.iter().map(|setting| setting.key).collect();
        let hint = nearest(key, &keys).map_or_else(
            || format!("settings of {} are {}", self.name, keys.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        let error = format!("unknown setting {} in {}", quote(key), self.name);
        let cause = "nothing would honour it, so it is not accepted";
        let hint = if key.contains("password") && keys.contains(&"password_file") {
            "put it alone into a file of mode 600, and name that: `password_file = \"PATH\"`".to_owned()
        } else {
            hint
        };
        self.problems.push(Problem::at(place, error, cause, hint));
    }

    /// Adds a problem.
    pub fn refuse(&self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Where problems go.
    pub fn problems(&self) -> &'d Problems {
        self.problems
    }

    /// The setting's description.
    fn setting(&self, key: &str) -> &'static Setting {
        self.settings.iter().find(|setting| setting.key == key).expect("the reader asks for listed settings")
    }

    /// Whether it is written.
    pub fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    /// Where it is written; if it is not, where its table begins.
    pub fn place(&self, key: &str) -> Range<usize> {
        self.table.get(key).map_or_else(|| self.place.clone(), Spanned::span)
    }

    /// Refuses a setting that is written but would not be honoured here.
    pub fn pointless(&self, key: &str, cause: &str, hint: &str) {
        if let Some((written, _)) = self.table.get_key_value(key) {
            let error = format!("`{key}` means nothing in {}", self.name);
            self.refuse(Problem::at(written.span(), error, cause, hint));
        }
    }

    /// Takes a setting with `read`, which tells what is wrong in a cause. What is not written, or
    /// wrong, is read from the default.
    fn take<T>(&self, key: &str, read: impl Fn(&DeValue<'_>, &Kind) -> Result<T, Wrong>) -> T {
        let setting = self.setting(key);
        self.written(key, &read).unwrap_or_else(|| {
            let default = DeValue::parse(setting.default).expect("defaults are TOML");
            read(default.get_ref(), &setting.kind).ok().expect("defaults are allowed")
        })
    }

    /// Takes a setting if it is written, and right.
    fn written<T>(&self, key: &str, read: impl Fn(&DeValue<'_>, &Kind) -> Result<T, Wrong>) -> Option<T> {
        let value = self.table.get(key)?;
        let setting = self.setting(key);
        let (error, cause, at) = match read(value.get_ref(), &setting.kind) {
            Ok(value) => return Some(value),
            Err(Wrong::Type) => {
                let found = article(value.get_ref().type_str());
                let cause = format!("`{key}`: {}", setting.about);
                (format!("`{key}` must be {}, not {found}", setting.kind.noun()), cause, None)
            }
            Err(Wrong::Value(cause)) if matches!(setting.kind, Kind::Word(_)) => {
                (format!("`{key}` has no such value"), cause, None)
            }
            Err(Wrong::Value(cause)) => (format!("`{key}` is not {}", setting.kind.noun()), cause, None),
            Err(Wrong::Range(cause)) => (format!("`{key}` is out of range"), cause, None),
            Err(Wrong::Inside(cause, at)) => {
                (format!("`{key}` is not {}", setting.kind.noun()), cause, Some(at))
            }
        };
        let default = match setting.default {
            "" => String::new(),
            default => format!("; by default {default}"),
        };
        let hint = format!("write {}{default}", setting.kind.allowed());
        self.refuse(Problem::at(at.unwrap_or_else(|| value.span()), error, cause, hint));
        None
    }

    /// A time.
    pub fn time(&self, key: &str) -> Duration {
        self.take(key, read_time)
    }

    /// A time without a default, if it is written.
    pub fn time_if_any(&self, key: &str) -> Option<Duration> {
        self.written(key, read_time)
    }

    /// A size in bytes.
    pub fn size(&self, key: &str) -> u64 {
        self.take(key, read_size)
    }

    /// A size without a default, in bytes, if it is written.
    pub fn size_if_any(&self, key: &str) -> Option<u64> {
        self.written(key, read_size)
    }

    /// A whole number.
    pub fn count(&self, key: &str) -> u32 {
        self.take(key, read_count)
    }

    /// A whole number without a default, if it is written.
    pub fn count_if_any(&self, key: &str) -> Option<u32> {
        self.written(key, read_count)
    }

    /// `true` or `false`.
    pub fn flag(&self, key: &str) -> bool {
        self.take(key, |value, _| value.as_bool().ok_or(Wrong::Type))
    }

    /// One of the words of the setting.
    pub fn word(&self, key: &str) -> &'static str {
        self.take(key, |value, kind| {
            let Kind::Word(words) = kind else { return Err(Wrong::Type) };
            let written = value.as_str().ok_or(Wrong::Type)?;
            words.iter().copied().find(|word| *word == written).ok_or_else(|| {
                let near = nearest(written, words);
                let near = near.map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
                Wrong::Value(format!("{} is not known here{near}", quote(written)))
            })
        })
    }

    /// A text, if it is written and neither empty nor endless.
    pub fn text(&self, key: &str) -> Option<Text> {
        let text = self.written(key, |value, _| plain_text(value))?;
        Some(Spanned::new(self.place(key), text))
    }

    /// A text, or its default.
    pub fn text_or_default(&self, key: &str) -> String {
        self.take(key, |value, _| plain_text(value))
    }

    /// A list of texts.
    pub fn texts(&self, key: &str) -> Vec<Text> {
        self.take(key, |value, _| list(value))
    }

    /// A command as its words, if one is written: split from a text, or a list of words.
    pub fn command(&self, key: &str) -> Option<Vec<String>> {
        self.written(key, |value, _| match value.as_str() {
            Some(_) => units::words(&plain_text(value)?).map_err(|cause| {
                let way = "; what needs a shell is written [\"sh\", \"-c\", \"..\"]";
                let way = if matches!(cause, units::WordsError::Shell(_)) { way } else { "" };
                Wrong::Value(format!("{cause}{way}"))
            }),
            None => {
                let words: Vec<String> = list(value)?.into_iter().map(Spanned::into_inner).collect();
                if words.is_empty() { Err(Wrong::Value("it is empty".into())) } else { Ok(words) }
            }
        })
    }

    /// Whether the setting is written as a list.
    pub fn is_list(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|value| value.get_ref().is_array())
    }

    /// A text, or the text of `{ matches = ".." }`, with `true` for the latter.
    pub fn answer(&self, key: &str) -> Option<(Text, bool)> {
        let (text, pattern) = self.written(key, |value, _| {
            let Some(table) = value.as_table() else { return Ok((plain_text(value)?, false)) };
            if let Some((other, _)) = table.iter().find(|(key, _)| key.get_ref() != "matches") {
                let cause = format!("{} is not known here", quote(other.get_ref()));
                return Err(Wrong::Inside(cause, other.span()));
            }
            let pattern = table.get("matches").ok_or_else(|| Wrong::Value("`matches` is missing".into()))?;
            Ok((plain_text(pattern.get_ref())?, true))
        })?;
        Some((Spanned::new(self.place(key), text), pattern))
    }

    /// The table of that key with its own settings; an empty one if it is not written.
    pub fn section(&self, key: &str, name: String, settings: &'static [Setting]) -> Self {
        static NOTHING: LazyLock<DeTable<'static>> = LazyLock::new(DeTable::new);
        let wrong = |value: &DeValue<'_>| if value.is_table() { Ok(()) } else { Err(Wrong::Type) };
        let table = match self.written(key, |value, _| wrong(value)) {
            Some(()) => self.table.get(key).and_then(|value| value.get_ref().as_table()),
            None => None,
        };
        Self::new(name, self.place(key), table.unwrap_or_else(|| &NOTHING), settings, self.problems)
    }

    /// The tables in the table of that key, by their names: `[vm.A]`, `[vm.B]`.
    pub fn sections(
        &self,
        key: &str,
        name: impl Fn(&str) -> String,
        settings: &'static [Setting],
    ) -> Vec<(Text, Self)> {
        let about = self.setting(key);
        let Some(value) = self.table.get(key) else { return Vec::new() };
        let mut found = Vec::new();
        let Some(table) = value.get_ref().as_table() else {
            self.not_a_table(key, value, about);
            return Vec::new();
        };
        for (inner, value) in table.iter() {
            match value.get_ref().as_table() {
                Some(table) => {
                    let name = name(inner.get_ref());
                    let section = Self::new(name, value.span(), table, settings, self.problems);
                    found.push((Spanned::new(inner.span(), inner.get_ref().to_string()), section));
                }
                None => self.not_a_table(inner.get_ref(), value, about),
            }
        }
        found
    }

    fn not_a_table(&self, key: &str, value: &Spanned<DeValue<'_>>, about: &Setting) {
        let found = article(value.get_ref().type_str());
        let error = format!("{} must be a table, not {found}", quote(key));
        let cause = format!("`{}`: {}", about.key, about.about);
        self.refuse(Problem::at(value.span(), error, cause, format!("write {}", about.kind.allowed())));
    }
}

fn read_count(value: &DeValue<'_>, kind: &Kind) -> Result<u32, Wrong> {
    let Kind::Count { least, most } = kind else { return Err(Wrong::Type) };
    let number = value.as_integer().ok_or(Wrong::Type)?;
    let large = || Wrong::Range(format!("{} is too large or too small", quote(number.as_str())));
    let wide = i128::from_str_radix(number.as_str(), number.radix()).map_err(|_| large())?;
    ranged(wide, i128::from(*least), i128::from(*most), i128::to_string)?;
    u32::try_from(wide).map_err(|_| large())
}

fn read_size(value: &DeValue<'_>, kind: &Kind) -> Result<u64, Wrong> {
    let Kind::Size { least, most } = kind else { return Err(Wrong::Type) };
    let size = units::size(value.as_str().ok_or(Wrong::Type)?)?;
    ranged(size, *least, *most, |size| units::write_size(*size))
}

fn read_time(value: &DeValue<'_>, kind: &Kind) -> Result<Duration, Wrong> {
    let Kind::Time { least, most } = kind else { return Err(Wrong::Type) };
    let time = units::duration(value.as_str().ok_or(Wrong::Type)?)?;
    ranged(time, *least, *most, |time| units::write_duration(*time))
}

/// What is wrong with a value.
enum Wrong {
    /// It is of another type.
    Type,
    /// It cannot be read, with the cause.
    Value(String),
    /// It is too little or too much.
    Range(String),
    /// Something inside it cannot be read.
    Inside(String, Range<usize>),
}

impl From<units::UnitError> for Wrong {
    fn from(cause: units::UnitError) -> Self {
        Self::Value(cause.to_string())
    }
}

fn ranged<T: Ord>(value: T, least: T, most: T, show: impl Fn(&T) -> String) -> Result<T, Wrong> {
    match (value.cmp(&least), value.cmp(&most)) {
        (Ordering::Less, _) => Err(Wrong::Range(format!("{} is less than {}", show(&value), show(&least)))),
        (_, Ordering::Greater) => Err(Wrong::Range(format!("{} is more than {}", show(&value), show(&most)))),
        (Ordering::Equal | Ordering::Greater, Ordering::Equal | Ordering::Less) => Ok(value),
    }
}

fn plain_text(value: &DeValue<'_>) -> Result<String, Wrong> {
    let text = value.as_str().ok_or(Wrong::Type)?;
    if text.trim().is_empty() {
        return Err(Wrong::Value("it is empty".into()));
    }
    if text.len() > LONGEST_TEXT {
        return Err(Wrong::Value(format!("it is longer than {LONGEST_TEXT} bytes")));
    }
    if let Some(c) = text.chars().find(|c| c.is_control() && *c != '\n' && *c != '\t') {
        return Err(Wrong::Value(format!("it holds the control character {c:?}")));
    }
    Ok(text.to_owned())
}

fn list(value: &DeValue<'_>) -> Result<Vec<Text>, Wrong> {
    let array = value.as_array().ok_or(Wrong::Type)?;
    if array.len() > LONGEST_LIST {
        return Err(Wrong::Range(format!("it has {} entries, at most {LONGEST_LIST} are read", array.len())));
    }
    let text = |value: &Spanned<DeValue<'_>>| match plain_text(value.get_ref()) {
        Ok(text) => Ok(Spanned::new(value.span(), text)),
        Err(Wrong::Type) => {
            let found = article(value.get_ref().type_str());
            Err(Wrong::Inside(format!("this entry is {found}, not text"), value.span()))
        }
        Err(Wrong::Value(cause) | Wrong::Range(cause) | Wrong::Inside(cause, _)) => {
            Err(Wrong::Inside(cause, value.span()))
        }
    };
    array.iter().map(text).collect()
}

fn article(type_name: &str) -> String {
    let vowel = type_name.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {type_name}", if vowel { "an" } else { "a" })
}

/// The word most like `written`, if one is like it at all: at most a third of its letters differ.
#[must_use]
pub fn nearest<'w>(written: &str, words: &[&'w str]) -> Option<&'w str> {
    let written: Vec<char> = written.chars().take(64).collect();
    let most = (written.len() / 3).max(1);
    words
        .iter()
        .take(512)
        .map(|word| (distance(&written, word), *word))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, word)| word)
}

/// How many letters must be put in, taken out, replaced or swapped with their neighbour (optimal
/// string alignment), to make one word of the other.
fn distance(a: &[char], b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
