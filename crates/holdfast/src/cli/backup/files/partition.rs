//! Where the file systems of a disk begin: the whole disk, or a partition of an MBR or a GPT (UEFI specification, chapter 5).
//!
//! A guest wrote all of this. Only numbers are taken from it, and each lies within the disk.

use std::ops::Range;

const SECTOR: u64 = 512;
/// So many entries of a GPT are looked at; it has 128 as a rule.
const ENTRIES_MOST: u32 = 256;
/// The kind of the one partition that an MBR has where there is a GPT.
const PROTECTIVE: u8 = 0xee;
/// Kinds of partitions that hold others, which are not looked for.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, as Linux counts: from 1 on. 0 is the whole disk.
    pub number: u32,
    /// Which bytes of the disk it has.
    pub bytes: Range<u64>,
}

/// The partitions of a disk of this size: the whole disk alone if it has no table.
///
/// # Errors
/// As `read` says: it fills bytes from an offset on.
pub fn partitions<E>(
    size: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<Vec<Partition>, E> {
    let whole = vec![Partition { number: 0, bytes: 0..size }];
    let mut sector = [0; SECTOR as usize];
    if size < 2 * SECTOR {
        return Ok(whole);
    }
    read(0, &mut sector)?;
    if sector[510..] != [0x55, 0xaa] {
        return Ok(whole);
    }
    let entries: Vec<[u8; 16]> = sector[446..510].as_chunks().0.to_vec();
    let found = if entries.iter().any(|entry| entry[4] == PROTECTIVE) {
        of_gpt(size, &mut read)?
    } else {
        of_mbr(size, &entries)
    };
    Ok(if found.is_empty() { whole } else { found })
}

fn of_mbr(size: u64, entries: &[[u8; 16]]) -> Vec<Partition> {
    let four = |entry: &[u8; 16], at: usize| u64::from(number32(&entry[at..]));
    let partition = |(number, entry): (u32, &[u8; 16])| {
        let is_one = entry[4] != 0 && !EXTENDED.contains(&entry[4]);
        let (first, count) = (four(entry, 8), four(entry, 12));
        is_one.then(|| within(number, first, first + count, size)).flatten()
    };
    (1..).zip(entries).filter_map(partition).collect()
}

fn of_gpt<E>(size: u64, read: &mut impl FnMut(u64, &mut [u8]) -> Result<(), E>) -> Result<Vec<Partition>, E> {
    let mut head = [0; SECTOR as usize];
    read(SECTOR, &mut head)?;
    let (table, count, length) = (number64(&head[72..]), number32(&head[80..]), number32(&head[84..]));
    if &head[..8] != b"EFI PART" || !(128..=4_096).contains(&length) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for number in 0..count.min(ENTRIES_MOST) {
        let at = table.saturating_mul(SECTOR).saturating_add(u64::from(number) * u64::from(length));
        let mut entry = [0; 48];
        if at.saturating_add(entry.len() as u64) > size {
            break;
        }
        read(at, &mut entry)?;
        let (first, last) = (number64(&entry[32..]), number64(&entry[40..]));
        let is_one = entry[..16].iter().any(|byte| *byte != 0);
        found.extend(is_one.then(|| within(number + 1, first, last.saturating_add(1), size)).flatten());
    }
    Ok(found)
}

/// The partition of these sectors, if they lie within the disk.
fn within(number: u32, first: u64, end: u64, size: u64) -> Option<Partition> {
    let bytes = first.checked_mul(SECTOR)?..end.checked_mul(SECTOR)?;
    (bytes.start < bytes.end && bytes.end <= size).then_some(Partition { number, bytes })
}

fn number32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().copied().map_or(0, u32::from_le_bytes)
}

fn number64(bytes: &[u8]) -> u64 {
    bytes.first_chunk().copied().map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(disk: &[u8]) -> Vec<Partition> {
        let read = |at: u64, bytes: &mut [u8]| -> Result<(), std::convert::Infallible> {
            let at = at as usize;
            bytes.copy_from_slice(&disk[at..at + bytes.len()]);
            Ok(())
        };
        let Ok(found) = partitions(disk.len() as u64, read);
        found
    }

    fn mbr(disk: &mut [u8], entry: usize, kind: u8, first: u32, count: u32) {
        let at = 446 + 16 * entry;
        disk[at + 4] = kind;
        disk[at + 8..at + 12].copy_from_slice(&first.to_le_bytes());
        disk[at + 12..at + 16].copy_from_slice(&count.to_le_bytes());
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    }

    #[test]
    fn a_disk_without_a_table_is_one_and_an_mbr_has_four_at_most() {
        let mut disk = vec![0; 1 << 20];
        assert_eq!(of(&disk), [Partition { number: 0, bytes: 0..1 << 20 }]);
        mbr(&mut disk, 0, 0x83, 8, 16);
        mbr(&mut disk, 1, 0x05, 64, 16);
        mbr(&mut disk, 2, 0x83, 2_000, 100); // beyond the end
        mbr(&mut disk, 3, 0x82, 32, 8);
        let (first, fourth) = (8 * 512..24 * 512, 32 * 512..40 * 512);
        assert_eq!(
            of(&disk),
            [Partition { number: 1, bytes: first }, Partition { number: 4, bytes: fourth }]
        );
    }

    #[test]
    fn a_gpt_counts_where_its_mbr_says_so() {
        let mut disk = vec![0; 1 << 20];
        mbr(&mut disk, 0, PROTECTIVE, 1, 2_047);
        disk[512..520].copy_from_slice(b"EFI PART");
        disk[512 + 72] = 2;
        disk[512 + 80] = 128;
        disk[512 + 84] = 128;
        let entry = 1_024 + 128; // the second
        disk[entry] = 1;
        disk[entry + 32] = 40;
        disk[entry + 40] = 47;
        assert_eq!(of(&disk), [Partition { number: 2, bytes: 40 * 512..48 * 512 }]);
    }

    proptest! {
        #[test]
        fn whatever_a_guest_wrote_all_lie_within_the_disk(mut head in prop::collection::vec(any::<u8>(), 4_096), kind in any::<bool>()) {
            head[510..512].copy_from_slice(&[0x55, 0xaa]);
            if kind {
                head[450] = PROTECTIVE;
                head[512..520].copy_from_slice(b"EFI PART");
                head[584..600].copy_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, 128, 0, 0, 0, 128, 0, 0, 0]);
            }
            let size = head.len() as u64;
            prop_assert!(of(&head).iter().all(|found| found.bytes.start < found.bytes.end && found.bytes.end <= size));
        }
    }
}
