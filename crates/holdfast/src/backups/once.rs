//! Why something does not go is told once, as it is so each time that it is tried.

use std::collections::BTreeMap;

/// What was told last of each.
#[derive(Debug, Default)]
pub struct Once(BTreeMap<String, String>);

impl Once {
    /// Whether this is worth a word of whoever has this name: another reason than before, or none any more.
    pub fn is_news(&mut self, of: &str, error: Option<&str>) -> bool {
        match error {
            Some(why) => self.0.insert(of.to_owned(), reason(why)) != Some(reason(why)),
            None => self.0.remove(of).is_some(),
        }
    }
}

/// The reason without its numbers: a clock that is wrong is wrong by other seconds each time.
fn reason(why: &str) -> String {
    why.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_once_and_again_after_it_was_over() {
        let mut once = Once::default();
        assert!(!once.is_news("main", None), "it goes, as ever");
        assert!(once.is_news("main", Some("the clock went backwards: it is 70 s behind")));
        assert!(!once.is_news("main", Some("the clock went backwards: it is 65 s behind")));
        assert!(once.is_news("other", Some("the clock went backwards: it is 65 s behind")));
        assert!(once.is_news("main", Some("the repository is gone")));
        assert!(once.is_news("main", None));
        assert!(once.is_news("main", Some("the repository is gone")));
    }
}
