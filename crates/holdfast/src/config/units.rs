//! Times, sizes and commands as people write them, and back.
//!
//! Every number needs its unit: `10` could be seconds or minutes, and a wrong guess costs an outage.

use holdfast_core::time::Duration;
use std::path::Path;

/// Why a time or a size was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Nothing was written.
    #[error("nothing is written")]
    Empty,
    /// A minus sign.
    #[error("it is negative")]
    Negative,
    /// A decimal point or comma.
    #[error("it is not a whole number; take a smaller unit instead, as in `1500ms` for 1.5s")]
    NotWhole,
    /// No digits where a number was due.
    #[error("a number was expected where {0} stands")]
    NotANumber(String),
    /// Digits without a unit.
    #[error("{number} has no unit; units are {units}")]
    NoUnit {
        /// The digits.
        number: String,
        /// The units there are.
        units: &'static str,
    },
    /// `G`, which some read as 10^9 and some as 2^30.
    #[error("`{0}` could mean `{0}iB` or `{0}B`, which differ by up to a tenth")]
    Ambiguous(String),
    /// An unknown unit.
    #[error("{unit} is no unit; units are {units}")]
    NoSuchUnit {
        /// What was written.
        unit: String,
        /// The units there are.
        units: &'static str,
    },
    /// `30m 1h`, `1s 1s`.
    #[error("units go from large to small, each once")]
    Order,
    /// More than 64 bits.
    #[error("it is larger than any number here can be")]
    TooLarge,
}

const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const TIME_UNITS: &str = "ms, s, m, h and d";

const SIZES: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
];
const SIZE_UNITS: &str = "KiB, MiB, GiB, TiB, kB, MB, GB and TB";

/// Reads `500ms`, `1s`, `15m`, `1h 30m` or `2d`.
///
/// # Errors
/// [`UnitError`] for everything else, down to negative, fractional and overflowing numbers.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(UnitError::Empty);
    }
    let mut total = 0u64;
    let mut last = u64::MAX;
    while !rest.is_empty() {
        let (number, unit, after) = split(rest, TIME_UNITS)?;
        let Some((_, millis)) = TIMES.iter().find(|(name, _)| *name == unit) else {
            return Err(UnitError::NoSuchUnit { unit: quote(unit), units: TIME_UNITS });
        };
        if *millis >= last {
            return Err(UnitError::Order);
        }
        last = *millis;
        let part = number.checked_mul(*millis).ok_or(UnitError::TooLarge)?;
        total = total.checked_add(part).ok_or(UnitError::TooLarge)?;
        rest = after.trim_start();
    }
    Ok(Duration::from_millis(total))
}

/// Reads `512MiB`, `1 GiB` or `2GB`, in bytes.
///
/// # Errors
/// [`UnitError`] for everything else; `1G` is refused because it has two meanings.
pub fn size(text: &str) -> Result<u64, UnitError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(UnitError::Empty);
    }
    let (number, unit, after) = split(text, SIZE_UNITS)?;
    if !after.trim().is_empty() {
        return Err(UnitError::NoSuchUnit {
            unit: quote(&text[text.len() - after.len()..]),
            units: SIZE_UNITS,
        });
    }
    if ["K", "k", "M", "G", "T"].contains(&unit) {
        return Err(UnitError::Ambiguous(unit.to_owned()));
    }
    let Some((_, bytes)) = SIZES.iter().find(|(name, _)| *name == unit) else {
        return Err(UnitError::NoSuchUnit { unit: quote(unit), units: SIZE_UNITS });
    };
    number.checked_mul(*bytes).ok_or(UnitError::TooLarge)
}

/// The number and the unit at the start, and what follows them.
fn split<'t>(text: &'t str, units: &'static str) -> Result<(u64, &'t str, &'t str), UnitError> {
    if text.starts_with('-') {
        return Err(UnitError::Negative);
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    if digits == 0 {
        return Err(UnitError::NotANumber(quote(text)));
    }
    let (number, rest) = text.split_at(digits);
    if rest.starts_with(['.', ',']) {
        return Err(UnitError::NotWhole);
    }
    let rest = rest.trim_start();
    let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_alphabetic()).len();
    let (unit, after) = rest.split_at(letters);
    if unit.is_empty() {
        return Err(if after.is_empty() || after.starts_with(|c: char| c.is_ascii_digit()) {
            UnitError::NoUnit { number: quote(number), units }
        } else {
            UnitError::NoSuchUnit { unit: quote(after), units }
        });
    }
    let number = number.parse().map_err(|_| UnitError::TooLarge)?;
    Ok((number, unit, after))
}

/// A time as [`duration`] reads it: `1h 30m`. Exact to the millisecond.
#[must_use]
pub fn write_duration(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut parts = Vec::new();
    for (unit, each) in TIMES {
        if millis >= each {
            parts.push(format!("{}{unit}", millis / each));
            millis %= each;
        }
    }
    parts.join(" ")
}

/// A size as [`size`] reads it: `512MiB`. Exact where the size is a whole number of KiB.
#[must_use]
pub fn write_size(bytes: u64) -> String {
    let binary = &SIZES[..4];
    let is_whole = |each: u64| bytes > 0 && bytes.is_multiple_of(each);
    let (unit, each) = binary.iter().find(|(_, each)| is_whole(*each)).unwrap_or(&SIZES[3]);
    format!("{}{unit}", bytes / each)
}

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// Nothing was written.
    #[error("it is empty")]
    Empty,
    /// A quote without its end.
    #[error("the quote {0} is never closed")]
    OpenQuote(char),
    /// A backslash at the very end.
    #[error("it ends with a lone backslash")]
    LoneBackslash,
    /// A character that only a shell understands.
    #[error("`{0}` is for a shell, and no shell runs this command")]
    Shell(char),
    /// NUL or another control character.
    #[error("it holds the control character {0:?}")]
    Control(char),
}

/// Splits a command into words: blanks part them, `'..'` and `".."` keep them together, a backslash
/// takes the next character as it is. What only a shell would understand is refused, not passed on.
///
/// # Errors
/// [`WordsError`], with the first character that is not understood.
pub fn words(text: &str) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' | '"' => quoted(c, &mut chars, word.get_or_insert_default())?,
            '\\' => word.get_or_insert_default().push(chars.next().ok_or(WordsError::LoneBackslash)?),
            '|' | '&' | ';' | '<' | '>' | '(' | ')' | '$' | '`' | '*' | '?' => {
                return Err(WordsError::Shell(c));
            }
            c if c.is_control() => return Err(WordsError::Control(c)),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if words.first().is_none_or(String::is_empty) {
        return Err(WordsError::Empty);
    }
    Ok(words)
}

/// The rest of a quoted word, up to and with its closing `quote`.
fn quoted(quote: char, chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), WordsError> {
    let double = quote == '"';
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return Ok(()),
            '\\' if double => word.push(chars.next().ok_or(WordsError::LoneBackslash)?),
            '$' | '`' if double => return Err(WordsError::Shell(c)),
            c if c.is_control() => return Err(WordsError::Control(c)),
            c => word.push(c),
        }
    }
    Err(WordsError::OpenQuote(quote))
}

/// The longest piece of somebody's text that a message repeats, in characters; paths may be longer.
const SHOWN: usize = 48;
const SHOWN_PATH: usize = 240;

/// A piece of somebody's text inside a message: in backticks, escaped, and short.
#[must_use]
pub fn quote(text: &str) -> String {
    cut(text, SHOWN)
}

/// A path inside a message: likewise, a little longer.
#[must_use]
pub fn quote_path(path: &Path) -> String {
    cut(&path.to_string_lossy(), SHOWN_PATH)
}

/// A key inside the name of a table: as written where TOML lets it stand bare, else quoted and short.
#[must_use]
pub fn bare(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if key.chars().all(plain) && (1..=SHOWN).contains(&key.len()) {
        return key.to_owned();
    }
    format!("\"{}\"", quote(key).trim_matches('`'))
}

fn cut(text: &str, most: usize) -> String {
    let mut shown: String = text.chars().take(most).flat_map(escape).collect();
    if text.chars().nth(most).is_some() {
        shown.push_str("..");
    }
    format!("`{shown}`")
}

/// Text for a terminal, whole: its lines stay lines, and nothing in it is obeyed (A40).
#[must_use]
pub fn tame(text: &str) -> String {
    let line = |line: &str| line.chars().flat_map(escape).collect::<String>();
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Control codes and invisible characters as `\u{..}`, quotes and all others as they are.
pub fn escape(c: char) -> impl Iterator<Item = char> {
    let plain = matches!(c, '\'' | '"' | '\\');
    plain.then_some(c).into_iter().chain((!plain).then(|| c.escape_debug()).into_iter().flatten())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_time_reads_as_people_write_it() {
        for (text, millis) in [
            ("500ms", 500),
            ("1s", 1_000),
            ("15m", 900_000),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
            ("1h 30m", 5_400_000),
            ("1h30m", 5_400_000),
            (" 2 m 5 s ", 125_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn a03_a_wrong_time_is_refused_with_its_reason() {
        let refused = |text: &str| duration(text).unwrap_err();
        assert_eq!(refused(""), UnitError::Empty);
        assert_eq!(refused("-1s"), UnitError::Negative);
        assert_eq!(refused("1.5s"), UnitError::NotWhole);
        assert_eq!(refused("1e9s"), UnitError::NoSuchUnit { unit: "`e`".into(), units: TIME_UNITS });
        assert_eq!(refused("nan"), UnitError::NotANumber("`nan`".into()));
        assert_eq!(refused("10"), UnitError::NoUnit { number: "`10`".into(), units: TIME_UNITS });
        assert_eq!(refused("1 2s"), UnitError::NoUnit { number: "`1`".into(), units: TIME_UNITS });
        assert_eq!(
            refused("1 fortnight"),
            UnitError::NoSuchUnit { unit: "`fortnight`".into(), units: TIME_UNITS }
        );
        assert_eq!(refused("30m 1h"), UnitError::Order);
        assert_eq!(refused("1s 1s"), UnitError::Order);
        assert_eq!(refused("18446744073709551616s"), UnitError::TooLarge);
        assert_eq!(refused("18446744073709551615s"), UnitError::TooLarge);
        assert_eq!(refused("213503982334d 23h"), UnitError::TooLarge);
    }

    #[test]
    fn a03_a_size_reads_as_people_write_it_and_a_wrong_one_is_refused() {
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert_eq!(size("1 GiB"), Ok(1 << 30));
        assert_eq!(size("2GB"), Ok(2_000_000_000));
        assert_eq!(write_size(0), "0KiB");
        let refused = |text: &str| size(text).unwrap_err();
        assert_eq!(refused("1G"), UnitError::Ambiguous("G".into()));
        assert_eq!(refused("-1GiB"), UnitError::Negative);
        assert_eq!(refused("99999999TiB"), UnitError::TooLarge);
        assert_eq!(refused("1024"), UnitError::NoUnit { number: "`1024`".into(), units: SIZE_UNITS });
        assert_eq!(refused("1gib"), UnitError::NoSuchUnit { unit: "`gib`".into(), units: SIZE_UNITS });
        assert_eq!(refused("1GiB 1MiB"), UnitError::NoSuchUnit { unit: "` 1MiB`".into(), units: SIZE_UNITS });
        assert_eq!(refused("inf"), UnitError::NotANumber("`inf`".into()));
    }

    #[test]
    fn a_command_is_split_without_a_shell() {
        assert_eq!(words("systemctl restart 'my app'").unwrap(), ["systemctl", "restart", "my app"]);
        assert_eq!(words(r#"a "b \" c" d\ e ''"#).unwrap(), ["a", "b \" c", "d e", ""]);
        assert_eq!(words("cost '$5'").unwrap(), ["cost", "$5"]);
        for (text, error) in [
            ("", WordsError::Empty),
            ("''", WordsError::Empty),
            ("a | b", WordsError::Shell('|')),
            ("a; reboot", WordsError::Shell(';')),
            ("a $(id)", WordsError::Shell('$')),
            ("a \"$HOME\"", WordsError::Shell('$')),
            ("a 'b", WordsError::OpenQuote('\'')),
            ("a \\", WordsError::LoneBackslash),
            ("a\0b", WordsError::Control('\0')),
        ] {
            assert_eq!(words(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a02_what_is_repeated_in_a_message_is_escaped_and_short() {
        assert_eq!(quote("a\u{1b}[2Jb"), "`a\\u{1b}[2Jb`");
        assert_eq!(quote("\u{202e}x"), "`\\u{202e}x`");
        assert_eq!(quote(&"a".repeat(4096)).len(), SHOWN + 4);
        assert_eq!(quote("it's \"so\""), "`it's \"so\"`");
    }

    proptest! {
        #[test]
        fn a_time_is_written_as_it_is_read(millis in 0u64..10_000_000_000_000) {
            let time = Duration::from_millis(millis);
            prop_assert_eq!(duration(&write_duration(time)), Ok(time));
        }

        #[test]
        fn a_size_is_written_as_it_is_read(kib in 1u64..1 << 40) {
            prop_assert_eq!(size(&write_size(kib << 10)), Ok(kib << 10));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = (duration(&text), size(&text), words(&text), quote(&text));
        }

        #[test]
        fn quoted_words_come_back_whole(parts in proptest::collection::vec("[^'\\x00-\\x1f\\x7f-\\x9f]{1,8}", 1..5)) {
            let text: Vec<String> = parts.iter().map(|part| format!("'{part}'")).collect();
            prop_assert_eq!(words(&text.join(" ")).unwrap(), parts);
        }
    }
}
