//! A disk of a restore point as a qcow2 image (version 3, clusters as long as a block), as QEMU reads it: nobody is locked in.
//!
//! So every block becomes a cluster, and a hole none. Where everything lies is known before the
//! first byte is written.

use crate::block::BLOCK;
use crate::id::BlockId;
use crate::point::Disk;
use crate::read_back::Again;
use crate::repository::{Repository, Trouble};
use crate::restore::{RestoreError, Target};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

const CLUSTER: u64 = BLOCK as u64;
/// Entries of a table of one cluster.
const ENTRIES: u64 = CLUSTER / 8;
/// References that a cluster counts, of 16 bits each.
const COUNTS: u64 = CLUSTER / 2;
/// Set in an entry of a table: the cluster is used once.
const COPIED: u64 = 1 << 63;
/// Bytes of the header.
const HEADER: u32 = 104;
const NOWHERE: u32 = u32::MAX;

/// Where everything lies in the image.
#[derive(Debug)]
pub struct Layout {
    size: u64,
    /// For each block of the disk the number of its data cluster.
    data: Vec<u32>,
    count: u64,
}

impl Layout {
    /// For a disk.
    ///
    /// # Errors
    /// If one of its pages cannot be read.
    pub fn of(repository: &Repository, disk: &Disk) -> Result<Self, Trouble> {
        let blocks = Disk::blocks(disk.size) as usize;
        let (mut data, mut count) = (Vec::with_capacity(blocks), 0);
        for page in 0..disk.pages.len() {
            for name in repository.page(disk, page)?.into_iter().take(blocks - data.len()) {
                if name == BlockId::HOLE {
                    data.push(NOWHERE);
                } else {
                    data.push(count);
                    count += 1;
                }
            }
        }
        Ok(Self { size: disk.size.div_ceil(512) * 512, data, count: u64::from(count) })
    }

    /// Clusters of the first table, of the second ones, and the first cluster of data.
    fn tables(&self) -> (u64, u64, u64) {
        let second = (self.data.len() as u64).div_ceil(ENTRIES);
        let first = second.div_ceil(ENTRIES).max(1);
        (first, second, 1 + first + second)
    }

    /// Clusters of the table of counts, and of the counts.
    fn counts(&self) -> (u64, u64) {
        let used = self.tables().2 + self.count;
        let (mut table, mut counts) = (1, 1);
        while counts * COUNTS < used + table + counts || table * ENTRIES < counts {
            counts = (used + table + counts).div_ceil(COUNTS);
            table = counts.div_ceil(ENTRIES).max(1);
        }
        (table, counts)
    }

    /// Bytes of the image.
    #[must_use]
    pub fn length(&self) -> u64 {
        let (table, counts) = self.counts();
        (self.tables().2 + self.count + table + counts) * CLUSTER
    }

    /// Writes everything but the data.
    ///
    /// # Errors
    /// If the image cannot be written.
    pub fn write_tables(&self, image: &dyn Target) -> io::Result<()> {
        let (first, second, data) = self.tables();
        let (table, counts) = self.counts();
        let (end, counts_at) = (data + self.count, data + self.count + table);
        image.write_at(0, &self.header(second, end * CLUSTER, table as u32))?;
        let entries = |from: u64, count: u64| {
            (0..count).flat_map(|at| (((from + at) * CLUSTER) | COPIED).to_be_bytes()).collect::<Vec<u8>>()
        };
        image.write_at(CLUSTER, &entries(1 + first, second))?;
        for (number, blocks) in self.data.chunks(ENTRIES as usize).enumerate() {
            let entry = |block: &u32| match *block {
                NOWHERE => [0; 8],
                block => (((data + u64::from(block)) * CLUSTER) | COPIED).to_be_bytes(),
            };
            let bytes: Vec<u8> = blocks.iter().flat_map(entry).collect();
            image.write_at((1 + first + number as u64) * CLUSTER, &bytes)?;
        }
        let places: Vec<u8> = (0..counts).flat_map(|at| ((counts_at + at) * CLUSTER).to_be_bytes()).collect();
        image.write_at(end * CLUSTER, &places)?;
        let used = counts_at + counts;
        for number in 0..counts {
            let ones = (used - number * COUNTS).min(COUNTS) as usize;
            image.write_at((counts_at + number) * CLUSTER, &[0, 1].repeat(ones))?;
        }
        Ok(())
    }

    /// Reads again what [`Self::write_tables`] wrote.
    ///
    /// # Errors
    /// If it cannot be read, or is something else.
    pub fn compare_tables(&self, image: &dyn Again) -> Result<(), RestoreError> {
        let same = Same { image, differs: AtomicU64::new(NOTHING), at: AtomicU64::new(0) };
        self.write_tables(&same)
            .map_err(|source| RestoreError::Again { at: same.at.load(Ordering::Relaxed), source })?;
        match same.differs.into_inner() {
            NOTHING => Ok(()),
            at => Err(RestoreError::Differs { at }),
        }
    }

    /// Where this byte of the disk lies in the image. Blocks that are neighbours, with no hole between them, are neighbours there.
    fn place(&self, offset: u64) -> Option<u64> {
        let block = usize::try_from(offset / CLUSTER).ok()?;
        let place = self.data.get(block).filter(|place| **place != NOWHERE)?;
        Some((self.tables().2 + u64::from(*place)) * CLUSTER + offset % CLUSTER)
    }

    /// What was found of the disk, as bytes of the image.
    #[must_use]
    pub fn in_image(&self, found: RestoreError) -> RestoreError {
        if let RestoreError::Differs { at } = found {
            return RestoreError::Differs { at: self.place(at).unwrap_or(at) };
        }
        found
    }

    fn header(&self, second: u64, counts_at: u64, counts: u32) -> Vec<u8> {
        let mut out = b"QFI\xfb".to_vec();
        out.extend_from_slice(&3_u32.to_be_bytes());
        out.extend_from_slice(&[0; 12]); // no backing file (A31)
        out.extend_from_slice(&CLUSTER.trailing_zeros().to_be_bytes());
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(&[0; 4]); // not encrypted
        out.extend_from_slice(&(second as u32).to_be_bytes());
        out.extend_from_slice(&CLUSTER.to_be_bytes());
        out.extend_from_slice(&counts_at.to_be_bytes());
        out.extend_from_slice(&counts.to_be_bytes());
        out.extend_from_slice(&[0; 12]); // no snapshots
        out.extend_from_slice(&[0; 24]); // no features
        out.extend_from_slice(&4_u32.to_be_bytes()); // counts of 16 bits
        out.extend_from_slice(&HEADER.to_be_bytes());
        out.resize(HEADER as usize + 8, 0); // no extensions
        out
    }
}

/// Takes the bytes of a disk into a qcow2 image.
pub struct Qcow2<'a> {
    layout: &'a Layout,
    image: &'a dyn Target,
}

impl<'a> Qcow2<'a> {
    /// Into this image.
    #[must_use]
    pub const fn new(layout: &'a Layout, image: &'a dyn Target) -> Self {
        Self { layout, image }
    }
}

impl Target for Qcow2<'_> {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "it is no block of this disk");
        self.image.write_at(self.layout.place(offset).ok_or_else(wrong)?, bytes)
    }

    fn expect(&self, span: &Range<u64>) {
        if let Some(start) = self.layout.place(span.start) {
            self.image.expect(&(start..start + (span.end - span.start)));
        }
    }
}

/// A disk in a qcow2 image that was written, read again.
pub struct Placed<'a> {
    layout: &'a Layout,
    image: &'a dyn Again,
}

impl<'a> Placed<'a> {
    /// In this image.
    #[must_use]
    pub const fn new(layout: &'a Layout, image: &'a dyn Again) -> Self {
        Self { layout, image }
    }
}

impl Again for Placed<'_> {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        match self.layout.place(offset) {
            Some(place) => self.image.read_at(place, bytes),
            None => {
                bytes.fill(0); // a hole has no place
                Ok(())
            }
        }
    }
}

const NOTHING: u64 = u64::MAX;

/// Takes what is there already, and keeps where it is something else.
struct Same<'a> {
    image: &'a dyn Again,
    differs: AtomicU64,
    at: AtomicU64,
}

impl Target for Same<'_> {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.at.store(offset, Ordering::Relaxed);
        let mut there = vec![0; bytes.len()];
        self.image.read_at(offset, &mut there)?;
        if let Some(at) = there.iter().zip(bytes).position(|(there, written)| there != written) {
            self.differs.fetch_min(offset + at as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}
