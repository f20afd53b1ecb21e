//! `s3://bucket/prefix`: the name of a place in an S3 store.

use std::fmt;

/// What such names begin with.
const SCHEME: &str = "s3://";
/// Names of buckets are this long.
const BUCKET: std::ops::RangeInclusive<usize> = 3..=63;
/// The longest prefix: a key has up to 1024 bytes, and the names of objects need 160.
const PREFIX_MOST: usize = 512;

/// A bucket, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The bucket.
    pub name: String,
    /// What all keys begin with, without slashes at its ends; may be empty.
    pub prefix: String,
}

/// Why a name is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBucket {
    /// The bucket has no name that a bucket can have.
    #[error(
        "`{0}` is no name of a bucket: they have 3 to 63 lower-case letters, digits, `-` and `.`, and begin and end with \
         a letter or digit"
    )]
    Name(String),
    /// The prefix has something in it that means something else to somebody.
    #[error(
        "`{0}` is no prefix: between slashes stand letters, digits, `-`, `_`, `=` and `.`, which is not the first; \
         512 bytes in all"
    )]
    Prefix(String),
}

impl Bucket {
    /// The place of this name; nothing if it is no name of this kind.
    ///
    /// # Errors
    /// If the name of the bucket, or the prefix, is none.
    pub fn parse(name: &str) -> Option<Result<Self, NoBucket>> {
        let rest = name.strip_prefix(SCHEME)?;
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        if !is_bucket(name) {
            return Some(Err(NoBucket::Name(name.to_owned())));
        }
        if !(prefix.is_empty() || is_prefix(prefix)) {
            return Some(Err(NoBucket::Prefix(prefix.to_owned())));
        }
        Some(Ok(Self { name: name.to_owned(), prefix: prefix.to_owned() }))
    }
}

fn is_bucket(name: &str) -> bool {
    let edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    BUCKET.contains(&bytes.len())
        && bytes.iter().all(|byte| edge(byte) || matches!(byte, b'-' | b'.'))
        && bytes.first().is_some_and(edge)
        && bytes.last().is_some_and(edge)
        && !name.contains("..")
}

fn is_prefix(prefix: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'=' | b'.');
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain);
    prefix.len() <= PREFIX_MOST && prefix.split('/').all(is_part)
}

impl fmt::Display for Bucket {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        write!(to, "{SCHEME}{}{slash}{}", self.name, self.prefix)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_and_a_prefix_are_told_apart() {
        for (name, bucket, prefix, shown) in [
            ("s3://backups", "backups", "", "s3://backups"),
            ("s3://backups/", "backups", "", "s3://backups"),
            ("s3://b-1.x/a/B_2=c.d/", "b-1.x", "a/B_2=c.d", "s3://b-1.x/a/B_2=c.d"),
        ] {
            let parsed = Bucket::parse(name).unwrap().unwrap();
            assert_eq!((&parsed.name[..], &parsed.prefix[..]), (bucket, prefix), "{name}");
            assert_eq!(parsed.to_string(), shown);
        }
        assert_eq!(Bucket::parse("/mnt/s3://x"), None);
    }

    #[test]
    fn nothing_else_is_a_name() {
        let long = format!("s3://abc/{}", "a".repeat(PREFIX_MOST + 1));
        for name in [
            "s3://",
            "s3:///a",
            "s3://ab",
            "s3://Abc",
            "s3://a_c",
            "s3://-abc",
            "s3://abc-",
            "s3://a..c",
            "s3://a c",
            "s3://key:secret@abc",
        ] {
            assert!(matches!(Bucket::parse(name), Some(Err(NoBucket::Name(_)))), "{name}");
        }
        for name in [
            "s3://abc//a",
            "s3://abc/../a",
            "s3://abc/a//b",
            "s3://abc/a b",
            "s3://abc/a?b",
            "s3://abc/ü",
            &long,
        ] {
            assert!(matches!(Bucket::parse(name), Some(Err(NoBucket::Prefix(_)))), "{name}");
        }
    }
}
