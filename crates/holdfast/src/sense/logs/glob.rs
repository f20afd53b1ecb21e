//! The files that a path with `*`, `?` and `[..]` names.

use std::path::{Component, Path, PathBuf};

/// Entries of folders that are looked at for one pattern.
const MOST_LOOKED_AT: usize = 8_192;

/// Whether a path has wildcards.
#[must_use]
pub fn is_pattern(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.contains(['*', '?', '[']))
}

/// Whether a name fits a pattern: `*` is any text, `?` one character, `[a-z]` or `[!a-z]` one of a set. As in a
/// shell, a name that begins with a dot is only named by a pattern that does.
#[must_use]
pub fn fits(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // One star to go back to is enough: what an earlier one could still take, the last one can, too.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
        } else if let Some(next) = fits_one(&pattern[p..], name[n]) {
            p += next;
            n += 1;
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            p = at + 1;
            n = taken + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// How much of the pattern one character takes; `None` if it does not fit.
fn fits_one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '[' => {
            let not = pattern.get(1) == Some(&'!');
            let from = 1 + usize::from(not);
            // A bracket right at the start is one of the set.
            let close = pattern.iter().skip(from + 1).position(|c| *c == ']').map(|at| from + 1 + at);
            let Some(close) = close else { return (c == '[').then_some(1) };
            let set = &pattern[from..close];
            let mut found = false;
            let mut at = 0;
            while at < set.len() {
                if let [low, '-', high, ..] = set[at..] {
                    found |= (low..=high).contains(&c);
                    at += 3;
                } else {
                    found |= set[at] == c;
                    at += 1;
                }
            }
            (found != not).then_some(close + 1)
        }
        plain => (*plain == c).then_some(1),
    }
}

/// The paths that fit a pattern, in order, at most so many, and whether there were more. What cannot be looked
/// into is left out.
#[must_use]
pub fn paths(pattern: &Path, most: usize) -> (Vec<PathBuf>, bool) {
    let mut found = vec![PathBuf::new()];
    let (mut looked_at, mut more) = (0, false);
    for part in pattern.components() {
        let part = match part {
            Component::Normal(part) => part,
            Component::RootDir | Component::CurDir | Component::ParentDir | Component::Prefix(_) => {
                part.as_os_str()
            }
        };
        let wild = part.to_str().filter(|part| is_pattern(Path::new(part)));
        let Some(wild) = wild else {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        };
        let mut next = Vec::new();
        for folder in found {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                looked_at += 1;
                if looked_at > MOST_LOOKED_AT {
                    more = true;
                    break;
                }
                if entry.file_name().to_str().is_some_and(|name| fits(wild, name)) {
                    next.push(entry.path());
                }
            }
        }
        next.sort();
        found = next;
    }
    more |= found.len() > most;
    found.truncate(most);
    (found, more)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn names_fit_patterns_as_in_a_shell() {
        for (pattern, name, fit) in [
            ("*.log", "a.log", true),
            ("*.log", ".log", false),
            (".*", ".log", true),
            ("*.log", "a.log.1", false),
            ("a*b*c", "axxbyybzzc", true),
            ("a*b*c", "axxbyyb", false),
            ("?", "é", true),
            ("?", "", false),
            ("[a-c]1", "b1", true),
            ("[!a-c]1", "b1", false),
            ("[]x]", "]", true),
            ("[x", "[x", true),
            ("a[x", "ax", false),
            ("", "", true),
            ("**", "abc", true),
        ] {
            assert_eq!(fits(pattern, name), fit, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_that_goes_back_often_is_quick() {
        let name = "a".repeat(250);
        assert!(!fits(&format!("{}b", "*a".repeat(120)), &name));
    }

    #[test]
    fn folders_may_be_patterns_too_and_there_is_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a/x.log", "b/x.log", "b/y.log", "b/y.txt", "c/.log"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let all = |most| paths(&folder.path().join("*/*.log"), most);
        let names = |paths: &[PathBuf]| -> Vec<String> {
            paths.iter().map(|path| path.strip_prefix(folder.path()).unwrap().display().to_string()).collect()
        };
        let (found, more) = all(10);
        assert_eq!(
            (names(&found), more),
            (vec!["a/x.log".into(), "b/x.log".into(), "b/y.log".into()], false)
        );
        assert!(all(2).1);
        assert_eq!(paths(&folder.path().join("b/x.log"), 10).0.len(), 1);
        assert!(paths(Path::new("/nowhere/*"), 10).0.is_empty());
    }
}
