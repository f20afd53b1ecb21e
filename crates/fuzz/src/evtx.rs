//! Windows event logs as an enemy writes them: records whose tokens are nearly good, in chunks and files with damaged heads.

use super::Chance;

/// Bytes of a chunk, of its head, and of the head of a file (Andreas Schuster, "Introducing the Microsoft Vista event log
/// file format", 2007).
const CHUNK: usize = 1 << 16;
const HEAD: usize = 512;
const FILE_HEAD: usize = 4_096;

/// Bytes before what a template holds.
const TEMPLATE_HEAD: usize = 24;
/// The time of events as Windows counts: 2026-11-23T21:19:48Z.
const TICKS: u64 = 134_399_423_880_000_000;

/// A chunk that is being written.
#[derive(Debug)]
pub struct Chunk {
    /// What is written so far.
    pub bytes: Vec<u8>,
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

impl Default for Chunk {
    fn default() -> Self {
        Self::new()
    }
}

impl Chunk {
    /// Begins one, with its head.
    #[must_use]
    pub fn new() -> Self {
        let mut bytes = vec![0; HEAD];
        bytes[..8].copy_from_slice(b"ElfChnk\0");
        Self { bytes }
    }

    /// Writes these bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes a number of four bytes.
    pub fn size(&mut self, size: usize) {
        self.push(&(size as u32).to_le_bytes());
    }

    /// A name that stands where it is used.
    fn name(&mut self, name: &str) {
        self.size(self.bytes.len() + 4);
        self.push(&[0; 6]);
        self.push(&(name.encode_utf16().count() as u16).to_le_bytes());
        self.push(&utf16(name));
        self.push(&[0; 2]);
    }

    fn open(&mut self, name: &str, has_attributes: bool) {
        self.push(&[if has_attributes { 0x41 } else { 0x01 }, 0xff, 0xff]);
        self.size(0);
        self.name(name);
        if has_attributes {
            self.size(0);
        }
    }

    fn element(&mut self, name: &str, id: u8, kind: u8) {
        self.open(name, false);
        self.push(&[0x02, 0x0e, id, 0, kind, 0x04]);
    }

    /// The template of an event: its number, level, provider, time, user and one value.
    fn template(&mut self) {
        self.push(&[0x0f, 1, 1, 0]);
        self.open("Event", false);
        self.push(&[0x02]);
        self.open("System", false);
        self.push(&[0x02]);
        self.open("Provider", true);
        self.push(&[0x06]);
        self.name("Name");
        self.push(&[0x05, 0x01, 4, 0]);
        self.push(&utf16("disk"));
        self.push(&[0x03]);
        self.element("EventID", 0, 0x06);
        self.element("Level", 1, 0x04);
        self.open("TimeCreated", true);
        self.push(&[0x06]);
        self.name("SystemTime");
        self.push(&[0x0e, 2, 0, 0x11, 0x03]);
        self.push(&[0x04]);
        self.open("EventData", false);
        self.push(&[0x02]);
        self.element("Data", 3, 0x01);
        self.element("Data", 4, 0x13);
        self.push(&[0x04, 0x04, 0x00]);
    }

    /// A record around what is written within; gives back where it begins.
    pub fn record(&mut self, content: impl FnOnce(&mut Self)) -> usize {
        let start = self.bytes.len();
        self.push(b"\x2a\x2a\0\0");
        self.push(&[0; 20]);
        self.bytes[start + 16..start + 24].copy_from_slice(&TICKS.to_le_bytes());
        content(self);
        let length = (self.bytes.len() - start + 4) as u32;
        self.push(&length.to_le_bytes());
        self.bytes[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
        self.bytes[44..48].copy_from_slice(&(start as u32).to_le_bytes());
        start
    }

    /// An instance of the template at a place, or of one that is written here; gives back its place.
    pub fn instance(&mut self, place: Option<usize>, device: &str) -> usize {
        self.push(&[0x0f, 1, 1, 0, 0x0c, 1]);
        self.size(7);
        let here = self.bytes.len() + 4;
        self.size(place.unwrap_or(here));
        if place.is_none() {
            self.push(&[0; TEMPLATE_HEAD]);
            let start = self.bytes.len();
            self.template();
            let length = (self.bytes.len() - start) as u32;
            self.bytes[start - 4..start].copy_from_slice(&length.to_le_bytes());
        }
        let device = utf16(device);
        let sid = [1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0];
        self.size(5);
        for (length, kind) in [(2, 0x06), (1, 0x04), (8, 0x11), (device.len(), 0x01), (sid.len(), 0x13)] {
            self.push(&[length as u8, (length >> 8) as u8, kind, 0]);
        }
        self.push(&[7, 0, 2]);
        self.push(&TICKS.to_le_bytes());
        self.push(&device);
        self.push(&sid);
        place.unwrap_or(here)
    }

    /// The chunk, as long as it must be.
    #[must_use]
    pub fn whole(mut self) -> Vec<u8> {
        self.bytes.resize(CHUNK, 0);
        self.bytes
    }
}

/// A chunk of two events of one template.
#[must_use]
pub fn good() -> Vec<u8> {
    let mut chunk = Chunk::new();
    let mut place = 0;
    chunk.record(|chunk| place = chunk.instance(None, r"\Device\Harddisk0\DR0"));
    chunk.record(|chunk| {
        chunk.instance(Some(place), "D1");
    });
    chunk.whole()
}

/// A file: a head, and chunks of which each may be damaged, cut, empty, or come twice.
pub fn file(chance: &mut Chance) -> Vec<u8> {
    let count = chance.below(6);
    let mut file = b"ElfFile\0".to_vec();
    file.resize(FILE_HEAD, 0);
    let chunks = if chance.once_in(4) { chance.draw() as u16 } else { count as u16 };
    for (at, value) in [(36, 1), (38, 3), (40, FILE_HEAD as u16), (42, chunks)] {
        file[at..at + 2].copy_from_slice(&u16::to_le_bytes(value));
    }
    for _ in 0..count {
        let mut next = chunk(chance);
        match chance.below(5) {
            0 => head(&mut next, chance),
            1 => next = vec![0; CHUNK],
            2 if file.len() > FILE_HEAD => next = file[file.len() - CHUNK..].to_vec(),
            _ => {}
        }
        file.extend(next);
    }
    match chance.below(6) {
        0 => file.truncate(chance.below(file.len() + 1)),
        1 => {
            let at = chance.below(FILE_HEAD);
            file[at] = chance.draw() as u8;
        }
        2 => file.extend((0..chance.below(CHUNK)).map(|_| b'*')),
        _ => {}
    }
    file
}

/// What a chunk says of itself, damaged: its mark, numbers of records, where they are, its tables of names and templates.
fn head(chunk: &mut [u8], chance: &mut Chance) {
    for _ in 0..1 + chance.below(8) {
        let at = 4 * chance.below(HEAD / 4);
        let value = *chance.one(&[0, 1, 511, 512, 513, 0xffff, 0x1_0000, 0x7fff_ffff, u32::MAX]);
        chunk[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}

/// A chunk: good events of a template that is used again, between such whose tokens are at random, or nearly.
pub fn chunk(chance: &mut Chance) -> Vec<u8> {
    let mut chunk = Chunk::new();
    let (mut places, mut template) = (vec![HEAD as u32], None);
    for _ in 0..1 + chance.below(40) {
        let is_good = chance.once_in(2);
        chunk.record(|chunk| {
            if is_good {
                let device: &str = chance.one::<&str>(&["", "D1", r"\Device\Harddisk0\DR0"]);
                template = Some(chunk.instance(template, device));
                places.extend(template.map(|place| place as u32));
                return;
            }
            for _ in 0..chance.below(60) {
                token(&mut chunk.bytes, &mut places, chance);
            }
        });
    }
    for _ in 0..chance.below(4) {
        let at = chance.below(chunk.bytes.len());
        chunk.bytes[at] = chance.draw() as u8;
    }
    chunk.whole()
}

fn token(chunk: &mut Vec<u8>, places: &mut Vec<u32>, chance: &mut Chance) {
    match chance.below(9) {
        0 | 1 => {
            let name = *chance.one(&["Event", "System", "Provider", "EventID", "EventData", "Data"]);
            chunk.push(if chance.once_in(4) { 0x41 } else { 0x01 });
            chunk.extend([0; 6]);
            chunk.extend((chunk.len() as u32 + 4).to_le_bytes());
            chunk.extend([0, 0, 0, 0, 0, 0, name.len() as u8, 0]);
            chunk.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
            chunk.extend([0, 0, 0x02]);
        }
        2 => chunk.push(0x04),
        3 => chunk.extend([0x05, 0x01, 2, 0, b'h', 0, b'i', 0]),
        4 => {
            chunk.extend([0x0c, 1, 0, 0, 0, 0]);
            chunk.extend(chance.one(places).to_le_bytes());
            chunk.extend([2, 0, 0, 0, 4, 0, *chance.one(&[0x01, 0x21, 0x08]), 0]);
            chunk.extend([0, 0, 0x21, 0, b'a', 0, b'b', 0]);
        }
        5 => {
            chunk.extend([0x0c, 1, 0, 0, 0, 0]);
            let here = chunk.len() as u32 + 4;
            places.push(here);
            chunk.extend(here.to_le_bytes());
            chunk.extend([0; 20]);
            chunk.extend((chance.below(400) as u32).to_le_bytes());
        }
        6 => chunk.extend([0x0e, chance.below(3) as u8, 0, 0x01]),
        7 => chunk.extend([0x0f, 1, 1, 0]),
        _ => chunk.push(chance.draw() as u8),
    }
}
