//! Makes a stranger's bytes fit to be matched, and to be shown.

use crate::record::LONGEST_TEXT;
use std::borrow::Cow;
use std::fmt::Write;

/// Bytes of one line that are kept; the rest is cut off.
pub const LONGEST_LINE: usize = 4_096;

/// The text of one line: at most [`LONGEST_LINE`] bytes of it, without terminal sequences (ECMA-48:
/// CSI, OSC, DCS and the short ones) and without control characters; a tab or a carriage return inside
/// the line becomes a space. What is not UTF-8 becomes U+FFFD. Costs nothing for an ordinary line.
#[must_use]
pub fn clean(raw: &[u8]) -> Cow<'_, str> {
    clean_line(&raw[..raw.len().min(LONGEST_LINE)])
}

/// A text of several lines, which stay divided by `\n`; else as [`clean`], at most [`LONGEST_TEXT`] bytes of it.
#[must_use]
pub fn clean_text(raw: &[u8]) -> Cow<'_, str> {
    let raw = &raw[..raw.len().min(LONGEST_TEXT)];
    let raw = raw.strip_suffix(b"\n").unwrap_or(raw);
    if !raw.contains(&b'\n') {
        return within(clean_line(raw), LONGEST_TEXT);
    }
    let mut text = String::with_capacity(raw.len());
    for line in raw.split(|byte| *byte == b'\n') {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&clean_line(line));
    }
    within(Cow::Owned(text), LONGEST_TEXT)
}

/// As much of a text as fits into so many bytes.
pub(crate) fn within(text: Cow<'_, str>, most: usize) -> Cow<'_, str> {
    let end = text.floor_char_boundary(most);
    match text {
        text if end == text.len() => text,
        Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
        Cow::Owned(mut text) => {
            text.truncate(end);
            Cow::Owned(text)
        }
    }
}

/// One line, however long.
fn clean_line(raw: &[u8]) -> Cow<'_, str> {
    let raw = raw.strip_suffix(b"\n").unwrap_or(raw);
    let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
    if raw.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return String::from_utf8_lossy(raw);
    }
    let text = String::from_utf8_lossy(raw);
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(letter) = rest.next() {
        match letter {
            '\x1b' => skip_sequence(&mut rest),
            '\u{9b}' => skip_until_final(&mut rest),
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => skip_string(&mut rest),
            '\t' | '\r' | '\n' => kept.push(' '),
            letter if letter.is_control() => {}
            letter => kept.push(letter),
        }
    }
    Cow::Owned(kept)
}

/// After ESC.
fn skip_sequence(rest: &mut std::str::Chars<'_>) {
    let mut ahead = rest.clone();
    match ahead.next() {
        Some('[') => {
            *rest = ahead;
            skip_until_final(rest);
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            *rest = ahead;
            skip_string(rest);
        }
        // Intermediate bytes, then one final byte, as in `ESC ( B`.
        Some(' '..='/') => {
            while let Some(' '..='/') = ahead.clone().next() {
                ahead.next();
            }
            if let Some('0'..='~') = ahead.clone().next() {
                ahead.next();
            }
            *rest = ahead;
        }
        Some('0'..='~') => *rest = ahead,
        Some(_) | None => {}
    }
}

/// A control sequence: parameters, then one byte from `@` to `~`. Anything else ends it and stays.
fn skip_until_final(rest: &mut std::str::Chars<'_>) {
    loop {
        match rest.clone().next() {
            Some(' '..='?') => {
                rest.next();
            }
            Some('@'..='~') => {
                rest.next();
                return;
            }
            Some(_) | None => return,
        }
    }
}

/// A control string: up to BEL or ST. One that never ends takes the rest of the line with it.
fn skip_string(rest: &mut std::str::Chars<'_>) {
    while let Some(letter) = rest.next() {
        match letter {
            '\x07' | '\u{9c}' => return,
            '\x1b' => {
                if rest.clone().next() == Some('\\') {
                    rest.next();
                }
                return;
            }
            _ => {}
        }
    }
}

/// A stranger's text, safe on a terminal and in a log: control characters and the invisible ones that
/// reorder or hide text are written out (`\n`, `\x1b`, `\u{202e}`), and it has at most `max` characters,
/// the last being `…` where something was cut off. Markup is the business of whoever shows it as markup.
#[must_use]
pub fn escape(text: &str, max: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(max));
    let mut used = 0;
    let mut cut_at = 0; // where the mark goes if the next piece does not fit
    for letter in text.chars() {
        let before = shown.len();
        let width = push_escaped(&mut shown, letter);
        if used + width > max {
            shown.truncate(if used < max { before } else { cut_at });
            if max > 0 {
                shown.push('…');
            }
            return shown;
        }
        if used < max {
            cut_at = before;
        }
        used += width;
    }
    shown
}

/// Adds one character as it is shown; returns how many characters that took.
fn push_escaped(shown: &mut String, letter: char) -> usize {
    let start = shown.len();
    let written = match letter {
        '\n' => shown.write_str("\\n"),
        '\r' => shown.write_str("\\r"),
        '\t' => shown.write_str("\\t"),
        letter if u32::from(letter) < 0x20 || letter == '\x7f' => {
            write!(shown, "\\x{:02x}", u32::from(letter))
        }
        letter if letter.is_control() || is_unseen(letter) => {
            write!(shown, "\\u{{{:x}}}", u32::from(letter))
        }
        letter => {
            shown.push(letter);
            return 1;
        }
    };
    debug_assert!(written.is_ok(), "a String takes all");
    shown.len() - start
}

/// Characters without a shape of their own, with which a text can pretend to be another one (Unicode
/// TR 36: bidirectional controls, joiners, separators, variation selectors, tags, private use).
const fn is_unseen(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e000}'..='\u{f8ff}'
        | '\u{e0000}'..='\u{e0fff}' | '\u{f0000}'..='\u{10ffff}')
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_ordinary_line_is_borrowed_as_it_is() {
        assert!(matches!(clean(b"[    0.000000] Linux version 6.1.0\r\n"), Cow::Borrowed(_)));
        assert_eq!(clean(b"[    0.000000] Linux version 6.1.0\r\n"), "[    0.000000] Linux version 6.1.0");
    }

    #[test]
    fn terminal_sequences_are_taken_out() {
        for (raw, text) in [
            (&b"\x1b[1;31mKernel panic\x1b[0m - not syncing"[..], "Kernel panic - not syncing"),
            (b"a\x1b]0;title\x07b", "ab"),
            (b"a\x1b]0;title\x1b\\b", "ab"),
            (b"a\x1b(Bb\x1bcc\x1bMd", "abcd"),
            (b"\xc2\x9b31mred", "red"),
            (b"a\x1b]never ends", "a"),
            (b"a\x1b", "a"),
            (b"a\x1b[", "a"),
            (b"a\x1b[12", "a"),
            ("a\u{1b}[1é".as_bytes(), "aé"),
            (b"a\x1bP1;2|abc\x1b\\b", "ab"),
        ] {
            assert_eq!(clean(raw), text, "{raw:?}");
        }
    }

    #[test]
    fn control_characters_are_taken_out_and_blanks_stay_blanks() {
        assert_eq!(clean(b"a\tb\rc\0d\x08e\x7ff"), "a b cdef");
        assert_eq!(clean(b"ok\xff\xfe"), "ok\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_sequence_that_never_ends_takes_one_line_and_not_the_next() {
        assert_eq!(clean_text(b"one\x1b]0;\r\n\ntwo\tthree\n"), "one\n\ntwo three");
        assert_eq!(clean_text(b""), "");
        assert_eq!(clean_text(&[0xff; 2 * LONGEST_TEXT]).len(), LONGEST_TEXT - LONGEST_TEXT % 3);
    }

    #[test]
    fn a_long_line_is_cut() {
        assert_eq!(clean(&[b'x'; 10_000]).len(), LONGEST_LINE);
        let split = [&[b'x'; LONGEST_LINE - 1][..], "é".as_bytes()].concat();
        assert!(clean(&split).ends_with('\u{fffd}'));
    }

    #[test]
    fn what_is_shown_cannot_move_the_cursor_or_turn_the_text_around() {
        assert_eq!(escape("a\x1b[2Jb", 100), "a\\x1b[2Jb");
        assert_eq!(escape("a\nb\r\tc\0\u{85}", 100), "a\\nb\\r\\tc\\x00\\u{85}");
        assert_eq!(escape("abc\u{202e}def\u{feff}", 100), "abc\\u{202e}def\\u{feff}");
        assert_eq!(escape("数据库 ist müde 🦀", 100), "数据库 ist müde 🦀");
    }

    #[test]
    fn what_is_shown_is_short_and_says_when_it_was_cut() {
        assert_eq!(escape("abcdef", 6), "abcdef");
        assert_eq!(escape("abcdefg", 6), "abcde…");
        assert_eq!(escape("abcde\x1b", 6), "abcde…");
        assert_eq!(escape("\x1b\x1b", 6), "\\x1b…");
        assert_eq!(escape("ab", 1), "…");
        assert_eq!(escape("ab", 0), "");
        assert_eq!(escape("", 0), "");
    }

    proptest! {
        #[test]
        fn cleaning_any_bytes_leaves_no_control_character(raw in proptest::collection::vec(any::<u8>(), 0..5_000)) {
            let text = clean(&raw);
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert!(text.len() <= 3 * LONGEST_LINE);
        }

        #[test]
        fn showing_any_text_keeps_its_bound(text in ".{0,80}", max in 0usize..100) {
            let shown = escape(&text, max);
            prop_assert!(shown.chars().count() <= max);
            prop_assert!(!shown.chars().any(|c| c.is_control() || is_unseen(c)));
            prop_assert!(max < 10 * 80 || !shown.ends_with('…'));
        }

        #[test]
        fn an_escaped_text_is_escaped_no_further(text in "[ -~\\x00-\\x1f]{0,40}") {
            let once = escape(&text, 1_000);
            prop_assert_eq!(escape(&once, 1_000), once);
        }
    }

    #[test]
    fn a_million_escapes_cost_a_moment() {
        let raw = b"\x1b[".repeat(LONGEST_LINE / 2);
        assert_eq!(clean(&raw), "");
        assert_eq!(escape(&"\x1b".repeat(1 << 20), 256).chars().count(), 253); // 63 whole ones, and the mark
        assert_eq!(std::str::from_utf8(&raw).unwrap().len(), LONGEST_LINE);
    }
}
