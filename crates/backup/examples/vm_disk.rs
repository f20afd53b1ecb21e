//! The disk of a small database VM, made by a seed: 4 GiB of which 1.9 are in use, and a change of 2 % of it in writes of
//! 4 KiB, as `benches/backup.sh` measures with. Nothing of it comes from a real disk, so everybody can make the same one.
//!
//! usage: `vm_disk image FILE SEED`, `vm_disk change FILE RANGES SEED` (writes; RANGES gets lines `OFFSET LENGTH`),
//! `vm_disk copy FROM TO RANGES` (those bytes alone, and to the disk)

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Error};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// The disk.
const SIZE: u64 = 4 << 30;
/// A page of the database, and of a write.
const PAGE: usize = 8 << 10;
const WRITE: usize = 4 << 10;
/// 79 MiB of them.
const WRITES: usize = 79 * 256;

/// Numbers by a seed: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    /// The smaller ones far more often than the larger ones, as words and instructions are.
    fn rank(&mut self, most: u64) -> u64 {
        let most = 1 + self.below(most);
        let most = 1 + self.below(most);
        self.below(most)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for eight in bytes.chunks_mut(8) {
            eight.copy_from_slice(&self.next().to_le_bytes()[..eight.len()]);
        }
    }
}

/// What a part of the disk holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Rows of tables.
    Heap,
    /// Keys of an index of them.
    Keys,
    /// Lines of logs and sources.
    Text,
    /// Programs and libraries.
    Code,
    /// What is compressed already.
    Noise,
}

/// A file, or a part of one.
struct Extent {
    kind: Kind,
    at: Range<u64>,
    seed: u64,
}

/// How the disk is laid out: files one after the other, with free space between them.
fn layout(seed: u64) -> Vec<Extent> {
    let (mut random, mut extents, mut at) = (Random(seed), Vec::new(), MIB);
    loop {
        let (kind, most) = match random.below(1_000) {
            0..60 => (Kind::Heap, 64 * MIB),
            60..90 => (Kind::Keys, 32 * MIB),
            90..560 => (Kind::Text, 4 * MIB),
            560..890 => (Kind::Code, 8 * MIB),
            _ => (Kind::Noise, 8 * MIB),
        };
        let page = PAGE as u64;
        let length = (most / 8 + random.below(most)) / page * page;
        let free = random.below(14 * MIB) / page * page;
        if at + length + MIB > SIZE {
            return extents;
        }
        extents.push(Extent { kind, at: at..at + length, seed: random.next() });
        at += length + free;
    }
}

/// Writes pages, lines and instructions.
struct Writer {
    random: Random,
    words: Vec<String>,
    instructions: Vec<Vec<u8>>,
    row: u64,
    line: String,
}

impl Writer {
    /// Words and instructions are those of the disk, whatever part of it is written.
    fn new(seed: u64) -> Self {
        let mut random = Random(4);
        let words = (0..2_000).map(|_| {
            let length = 3 + random.below(7);
            (0..length).map(|_| char::from(b"etaoinshrdlucmfwypvbgk"[random.rank(22) as usize])).collect()
        });
        let words = words.collect();
        let instructions = (0..600).map(|_| {
            let mut bytes = vec![0; 1 + random.below(6) as usize];
            random.fill(&mut bytes);
            bytes
        });
        let instructions = instructions.collect();
        Self { random: Random(seed), words, instructions, row: seed % 1_000_000, line: String::new() }
    }

    fn page(&mut self, kind: Kind, page: &mut [u8]) {
        match kind {
            Kind::Heap => self.heap(page),
            Kind::Keys => self.keys(page),
            Kind::Text => self.text(page),
            Kind::Code => self.code(page),
            Kind::Noise => self.random.fill(page),
        }
    }

    /// A head, pointers to rows from the front, the rows from the back.
    fn heap(&mut self, page: &mut [u8]) {
        page.fill(0);
        self.random.fill(&mut page[4..10]); // log position and checksum
        let (mut front, mut back, free) = (24, page.len(), self.random.rank(PAGE as u64 / 2) as usize);
        loop {
            self.row += 1;
            self.line.clear();
            let state = ["open", "paid", "sent", "done"][self.random.rank(4) as usize];
            let _ = write!(self.line, r#"{{"state": "{state}", "currency": "EUR", "note": ""#);
            let words = 1 + self.random.below(5);
            for _ in 0..words {
                let word = self.random.rank(2_000) as usize;
                let _ = write!(self.line, "{} ", self.words[word]);
            }
            let length = (40 + self.line.len()).next_multiple_of(8);
            if front + 4 + length + free > back {
                return;
            }
            back -= length;
            page[front..front + 2].copy_from_slice(&(back as u16).to_le_bytes());
            page[front + 2..front + 4].copy_from_slice(&(length as u16 * 2).to_le_bytes());
            front += 4;
            let row = &mut page[back..back + length];
            row[..4].copy_from_slice(&((self.row / 40) as u32).to_le_bytes()); // the transaction
            row[12..14].copy_from_slice(&(front as u16 / 4).to_le_bytes());
            row[14..16].copy_from_slice(&[6, 9]);
            row[16..24].copy_from_slice(&self.row.to_le_bytes());
            let time = 800_000_000_000_000 + self.row * 1_000_000 + self.random.below(1_000_000);
            row[24..32].copy_from_slice(&time.to_le_bytes());
            row[32..36].copy_from_slice(&(self.random.below(100_000) as u32).to_le_bytes());
            row[36..40].copy_from_slice(&(self.random.rank(20_000) as u32).to_le_bytes());
            row[40..40 + self.line.len()].copy_from_slice(self.line.as_bytes());
        }
    }

    /// Keys in order, each with the place of its row; a third of the page is free.
    fn keys(&mut self, page: &mut [u8]) {
        page.fill(0);
        self.random.fill(&mut page[4..10]);
        let used = 24 + (page.len() - 24) * 2 / 3 / 16 * 16;
        for entry in page[24..used].chunks_exact_mut(16) {
            self.row += 1 + self.random.below(3);
            entry[..4].copy_from_slice(&(self.random.below(80_000) as u32).to_le_bytes());
            entry[4..6].copy_from_slice(&(1 + self.random.below(60) as u16).to_le_bytes());
            entry[6] = 16;
            entry[8..].copy_from_slice(&self.row.to_le_bytes());
        }
    }

    fn text(&mut self, page: &mut [u8]) {
        self.line.clear();
        while self.line.len() < page.len() {
            self.row += 1;
            let (second, process) = (self.row / 20, self.random.rank(40));
            let (minute, second) = (second / 60 % 60, second % 60);
            let _ = write!(self.line, "Nov 27 09:{minute:02}:{second:02} db1 app[{}]: ", 400 + process);
            for _ in 0..4 + self.random.below(8) {
                let word = self.random.rank(2_000) as usize;
                let _ = write!(self.line, "{} ", self.words[word]);
            }
            let _ = writeln!(self.line, "in {} us", self.random.below(10_000));
        }
        page.copy_from_slice(&self.line.as_bytes()[..page.len()]);
    }

    fn code(&mut self, page: &mut [u8]) {
        let mut at = 0;
        while at < page.len() {
            let instruction = &self.instructions[self.random.rank(600) as usize];
            let mut bytes = [0; 10];
            bytes[..instruction.len()].copy_from_slice(instruction);
            let mut length = instruction.len();
            if self.random.below(6) == 0 {
                let near = self.random.rank(4_096) as u16;
                bytes[length..length + 2].copy_from_slice(&near.to_le_bytes());
                length += 4;
            }
            let length = length.min(page.len() - at);
            page[at..at + length].copy_from_slice(&bytes[..length]);
            at += length;
        }
    }
}

fn image(file: &str, seed: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).open(file)?;
    file.set_len(SIZE)?;
    let mut bytes = vec![0; MIB as usize];
    for extent in layout(seed) {
        let mut writer = Writer::new(extent.seed);
        let mut at = extent.at.start;
        while at < extent.at.end {
            let length = (extent.at.end - at).min(MIB) as usize;
            bytes[..length].chunks_exact_mut(PAGE).for_each(|page| writer.page(extent.kind, page));
            file.write_all_at(&bytes[..length], at)?;
            at += length as u64;
        }
    }
    file.sync_all()
}

/// Halves of pages of the tables, each written once, wherever chance has it: rows that are all new.
fn change(file: &str, ranges: &str, seed: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(file)?;
    let heaps: Vec<Range<u64>> =
        layout(seed).into_iter().filter(|extent| extent.kind == Kind::Heap).map(|extent| extent.at).collect();
    let pages: u64 = heaps.iter().map(|heap| (heap.end - heap.start) / WRITE as u64).sum();
    let mut random = Random(!seed);
    let mut chosen = BTreeSet::new();
    while chosen.len() < WRITES {
        chosen.insert(random.below(pages));
    }
    let (mut writer, mut page, mut list) = (Writer::new(!seed), vec![0; PAGE], String::new());
    let (mut heaps, mut before) = (heaps.iter(), 0);
    let mut heap = heaps.next().ok_or_else(|| Error::other("no tables"))?;
    for number in chosen {
        while number - before >= (heap.end - heap.start) / WRITE as u64 {
            before += (heap.end - heap.start) / WRITE as u64;
            heap = heaps.next().ok_or_else(|| Error::other("no tables"))?;
        }
        let at = heap.start + (number - before) * WRITE as u64;
        writer.page(Kind::Heap, &mut page);
        let half = if at.is_multiple_of(PAGE as u64) { &page[..WRITE] } else { &page[WRITE..] };
        file.write_all_at(half, at)?;
        let _ = writeln!(list, "{at} {WRITE}");
    }
    std::fs::write(ranges, list)?;
    file.sync_all()
}

fn copy(from: &str, to: &str, ranges: &str) -> io::Result<()> {
    let (from, to) = (File::open(from)?, OpenOptions::new().write(true).open(to)?);
    let mut bytes = vec![0; 64 * KIB as usize];
    for line in std::fs::read_to_string(ranges)?.lines() {
        let number = |word: Option<&str>| word.and_then(|word| word.parse::<usize>().ok());
        let mut words = line.split(' ');
        let (Some(at), Some(length)) = (number(words.next()), number(words.next())) else {
            return Err(Error::other(format!("`{line}` is no range")));
        };
        bytes.resize(length, 0);
        from.read_exact_at(&mut bytes, at as u64)?;
        to.write_all_at(&bytes, at as u64)?;
    }
    to.sync_all()
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["image", file, seed] => seed.parse().map_err(Error::other).and_then(|seed| image(file, seed)),
        ["change", file, ranges, seed] => {
            seed.parse().map_err(Error::other).and_then(|seed| change(file, ranges, seed))
        }
        ["copy", from, to, ranges] => copy(from, to, ranges),
        _ => Err(Error::other("image FILE SEED | change FILE RANGES SEED | copy FROM TO RANGES")),
    };
    if let Err(error) = done {
        eprintln!("vm_disk: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
