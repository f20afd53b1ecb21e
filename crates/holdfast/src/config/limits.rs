//! How much of a disk's time backups may take.

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
        let (asked, configured) = (Limits { limit, iops: None }, Limits { limit: Some(1), iops });
        assert_eq!(asked.or(configured), Limits { limit, iops });
    }
}
