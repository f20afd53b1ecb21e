//! How much of a disk's time backups may take.

use super::settings::{IOPS_MOST, RATE_LEAST, RATE_MOST};
use super::units;
use serde::{Deserialize, Serialize};

/// What is read or written in a second at most; what is not given is not bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes.
    pub limit: Option<u64>,
    /// Operations: reads of up to 256 KiB, writes of up to 1 MiB.
    pub iops: Option<u32>,
}

impl Limits {
    /// These, and for what they do not bound, others.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self { limit: self.limit.or(others.limit), iops: self.iops.or(others.iops) }
    }

    /// The same bounds everywhere: of the configuration, of the command line and of the API.
    ///
    /// # Errors
    /// What is out of which, for people.
    pub fn check(self) -> Result<(), String> {
        let shown = |rate: u64| format!("{}/s", units::write_size(rate));
        let (least, most) = (shown(RATE_LEAST), shown(RATE_MOST));
        if self.limit.is_some_and(|limit| !(RATE_LEAST..=RATE_MOST).contains(&limit)) {
            return Err(format!("`limit` is from {least} to {most}"));
        }
        if self.iops.is_some_and(|iops| !(1..=IOPS_MOST).contains(&iops)) {
            return Err(format!("`iops` is from 1 to {IOPS_MOST}"));
        }
        Ok(())
    }

    /// As the words of a command line.
    #[must_use]
    pub fn words(self) -> Vec<String> {
        let limit = self.limit.map(|limit| ["--limit".to_owned(), rate(limit)]);
        let iops = self.iops.map(|iops| ["--iops".to_owned(), iops.to_string()]);
        limit.into_iter().chain(iops).flatten().collect()
    }
}

/// So many bytes a second as `--limit` takes them, and never more.
fn rate(limit: u64) -> String {
    if limit.is_multiple_of(1_000) {
        format!("{}kB/s", limit / 1_000)
    } else {
        format!("{}KiB/s", (limit >> 10).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_exactly_where_it_can_be_written_and_never_as_more() {
        for (limit, told) in
            [(50 << 20, "51200KiB/s"), (2_000_000, "2000kB/s"), (65_537, "64KiB/s"), (1, "1KiB/s")]
        {
            assert_eq!(rate(limit), told);
        }
        let (limit, iops) = (Some(2_000_000), Some(200));
        assert_eq!(Limits { limit, iops }.words(), ["--limit", "2000kB/s", "--iops", "200"]);
        assert_eq!(Limits::default().words(), Vec::<String>::new());
        let refused = Limits { limit: Some(1), iops }.check();
        assert_eq!(refused, Err("`limit` is from 64KiB/s to 1TiB/s".to_owned()));
        let iops = |count| Limits { limit: Some(64 << 10), iops: Some(count) }.check();
        assert!(iops(1).is_ok() && iops(1_000_000).is_ok() && iops(0).is_err() && iops(1_000_001).is_err());
        let iops = Some(200);
        let (asked, configured) = (Limits { limit, iops: None }, Limits { limit: Some(1), iops });
        assert_eq!(asked.or(configured), Limits { limit, iops });
    }
}
