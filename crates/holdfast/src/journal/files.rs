//! The names of segment files. A number is never used twice in one folder.

use super::recover::Known;
use crate::disk::Disk;
use std::io;

/// The name of a segment in its folder; `kept` for one that is never removed because it is damaged.
pub fn name(folder: &str, number: u64, kept: bool) -> String {
    let file = format!("{number:08}.{}hfj", if kept { "damaged." } else { "" });
    if folder.is_empty() { file } else { format!("{folder}/{file}") }
}

/// The segments of a folder, by their names alone, oldest first.
///
/// # Errors
/// The folder cannot be listed.
pub fn segments(disk: &dyn Disk, folder: &str) -> io::Result<Vec<Known>> {
    let known = |name: &str, bytes: u64| {
        let (number, kept) = parse(name)?;
        let file = self::name(folder, number, kept);
        Some(Known { number, file, bytes, after: None, kept })
    };
    let listed = disk.list(folder)?;
    let mut found: Vec<_> = listed.iter().filter_map(|file| known(&file.name, file.bytes)).collect();
    found.sort_by_key(|segment| (segment.number, segment.kept));
    Ok(found)
}

fn parse(name: &str) -> Option<(u64, bool)> {
    let stem = name.strip_suffix(".hfj")?;
    let (digits, kept) = match stem.strip_suffix(".damaged") {
        Some(digits) => (digits, true),
        None => (stem, false),
    };
    let number = digits.parse().ok().filter(|number| *number < u64::from(u32::MAX))?;
    (self::name("", number, kept) == name).then_some((number, kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_would_write_are_ours() {
        assert_eq!(parse("00000007.hfj"), Some((7, false)));
        assert_eq!(parse("00000007.damaged.hfj"), Some((7, true)));
        assert_eq!(parse("123456789.hfj"), Some((123_456_789, false)));
        for foreign in
            ["7.hfj", "00000007.hfj.new", "+0000007.hfj", "x.hfj", ".hfj", "00000007", "99999999999.hfj"]
        {
            assert_eq!(parse(foreign), None, "{foreign}");
        }
    }
}
