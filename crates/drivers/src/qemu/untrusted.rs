//! Words and lists from a stranger: a guest, its agent, or a hypervisor that it may have taken over.
//!
//! Everything is cut and made printable where it comes in, so that nothing further in can be surprised
//! (I17, I18). Nothing from here may ever be run, dialled, opened or used as a path.

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// The longest text kept, in characters.
pub const MAX_TEXT: usize = 256;

/// Cuts `text` to `most` characters and escapes those that a terminal or a reader could stumble over:
/// control characters and the invisible ones that turn text around (Unicode TR 36).
#[must_use]
pub fn tame(text: &str, most: usize) -> String {
    let mut tamed = String::with_capacity(text.len().min(most));
    for (count, c) in text.chars().enumerate() {
        if count == most {
            tamed.push('…');
            break;
        }
        if is_sly(c) { tamed.extend(c.escape_unicode()) } else { tamed.push(c) }
    }
    tamed
}

fn is_sly(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A string from a stranger: at most [`MAX_TEXT`] characters, printable.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(String);

impl Text {
    /// The text, tamed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyString;
        impl Visitor<'_> for AnyString {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(tame(text, MAX_TEXT)))
            }
        }
        deserializer.deserialize_str(AnyString)
    }
}

/// The first `MOST` of a list from a stranger, and how many more there were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Few<T, const MOST: usize> {
    /// Those that were kept.
    pub kept: Vec<T>,
    /// How many were not.
    pub left_out: u64,
}

impl<T, const MOST: usize> Default for Few<T, MOST> {
    fn default() -> Self {
        Self { kept: Vec::new(), left_out: 0 }
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Few<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyList<T, const MOST: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for AnyList<T, MOST> {
            type Value = Few<T, MOST>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut few = Few::default();
                while few.kept.len() < MOST {
                    match list.next_element()? {
                        Some(item) => few.kept.push(item),
                        None => return Ok(few),
                    }
                }
                while list.next_element::<IgnoredAny>()?.is_some() {
                    few.left_out += 1;
                }
                Ok(few)
            }
        }
        deserializer.deserialize_seq(AnyList(PhantomData))
    }
}

/// What `text` means in base 64 (RFC 4648, section 4), at most `most` bytes of it. `None` if it is not
/// base 64. Line breaks are not expected and not accepted.
#[must_use]
pub fn unbase64(text: &str, most: usize) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let digits = digits.strip_suffix(b"==").or_else(|| digits.strip_suffix(b"=")).unwrap_or(digits);
    let mut bytes = Vec::with_capacity((digits.len() / 4 * 3 + 3).min(most));
    let (mut held, mut bits) = (0_u32, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = (held << 6) | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            if bytes.len() < most {
                bytes.push((held >> bits) as u8);
            }
            held &= (1 << bits) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escape_codes_and_turned_around_text_are_made_visible() {
        assert_eq!(tame("a\u{1b}[2Jb\n", 99), "a\\u{1b}[2Jb\\u{a}");
        assert_eq!(tame("evil\u{202e}txt.exe", 99), "evil\\u{202e}txt.exe");
        assert_eq!(tame("Ünïcødé 数据库", 99), "Ünïcødé 数据库");
    }

    #[test]
    fn a_long_text_is_cut_by_characters() {
        assert_eq!(tame("äöüß", 2), "äö…");
        let text: Text = serde_json::from_str(&format!("{:?}", "x".repeat(10_000))).unwrap();
        assert_eq!(text.as_str().chars().count(), MAX_TEXT + 1);
    }

    #[test]
    fn a_million_items_become_a_few_and_a_number() {
        let list = format!("[{}1]", "1,".repeat(999_999));
        let few: Few<u32, 256> = serde_json::from_str(&list).unwrap();
        assert_eq!((few.kept.len(), few.left_out), (256, 999_744));
    }

    #[test]
    fn base_64_is_read_and_bounded() {
        assert_eq!(unbase64("aGVsbG8=", 99).unwrap(), b"hello");
        assert_eq!(unbase64("aGVsbG8h", 3).unwrap(), b"hel");
        assert_eq!(unbase64("", 99).unwrap(), b"");
        assert_eq!(unbase64("a\nb", 99), None);
    }

    proptest! {
        #[test]
        fn any_text_becomes_printable(text in ".*", most in 0_usize..300) {
            let tamed = tame(&text, most);
            prop_assert!(tamed.chars().all(|c| !is_sly(c)));
            prop_assert!(tamed.chars().count() <= most * 10 + 1);
        }

        #[test]
        fn any_digits_are_read_or_refused(text in ".*") {
            let _ = unbase64(&text, 64);
        }
    }
}
