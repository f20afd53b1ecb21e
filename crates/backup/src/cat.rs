//! A second reader, written from `docs/backup-format.md` alone: it shares nothing with the rest of this crate, so what it reads right
//! the page tells right, and nobody needs this program to get a disk back. It is slow, and only reads.

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

type Name = [u8; 16];
const BLOCK: usize = 262_144;
const PIECE: usize = 4_096;
const HOLE: Name = [0; 16];

fn wrong<T>(why: impl Into<String>) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, why.into()))
}

/// A repository in a folder.
pub struct Reader {
    root: PathBuf,
    repository: Name,
    blocks: [u8; 32],
    seals: XChaCha20Poly1305,
    places: HashMap<Name, Vec<(Name, u64, usize)>>,
}

/// Cuts a value off.
fn take<const N: usize>(rest: &mut &[u8]) -> io::Result<[u8; N]> {
    rest.split_off(..N)
        .map_or_else(|| wrong("something is too short"), |head| Ok(*head.first_chunk().expect("N")))
}

fn text(rest: &mut &[u8]) -> io::Result<String> {
    let length = usize::from(take::<1>(rest)?[0]);
    let name = rest.split_off(..length).map(|name| String::from_utf8_lossy(name).into_owned());
    name.map_or_else(|| wrong("a name is cut"), Ok)
}

fn hex(name: &Name) -> String {
    name.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn short(key: &[u8; 32], bytes: &[u8]) -> Name {
    let mut name = [0; 16];
    name.copy_from_slice(&blake3::keyed_hash(key, bytes).as_bytes()[..16]);
    name
}

fn decrypt(cipher: &XChaCha20Poly1305, nonce: &[u8], context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (content, tag) = sealed.split_at_checked(sealed.len().checked_sub(16)?)?;
    let (nonce, tag, mut content) =
        (XNonce::try_from(nonce).ok()?, Tag::try_from(tag).ok()?, content.to_vec());
    cipher.decrypt_inout_detached(&nonce, context, (&mut content[..]).into(), &tag).ok()?;
    Some(content)
}

/// Which repository this is: 16 bytes.
///
/// # Errors
/// If there is none.
pub fn identify(root: &Path) -> io::Result<[u8; 16]> {
    let head = fs::read(root.join("repository")).unwrap_or_default();
    if let Some(id) = head.strip_prefix(b"HFREPO\0\x01").and_then(|id| id.try_into().ok()) {
        return Ok(id);
    }
    // Every other object says it, too.
    for entry in fs::read_dir(root.join("index")).into_iter().flatten() {
        if let Some(mut rest) = fs::read(entry?.path())?.strip_prefix(b"HFINDEX\x01") {
            return take(&mut rest);
        }
    }
    wrong("there is no repository of version 1 here")
}

/// Memory and rounds, one with the other, that are spent on all keys.
const SPENT_MOST: u64 = 8 << 20;

/// The master key that this secret opens.
fn master(root: &Path, secret: &[u8], repository: &Name) -> io::Result<Vec<u8>> {
    let mut slots = Vec::new();
    for entry in fs::read_dir(root.join("keys"))? {
        let slot = fs::read(entry?.path())?;
        if slot.starts_with(b"HFKEY\0\0\x01") && slot.len() == 108 {
            let costs = [0, 1, 2].map(|at| u32::from_le_bytes(slot[8..].as_chunks().0[at]));
            slots.push((u64::from(costs[0]) * u64::from(costs[1]), costs, slot));
        }
    }
    slots.sort();
    slots.dedup();
    let mut spent = 0_u64;
    let opened = slots.into_iter().find_map(|(cost, [memory, rounds, lanes], slot)| {
        spent = spent.saturating_add(cost);
        let is_usual = memory <= 1 << 20 && rounds <= 64 && lanes <= 64 && spent <= SPENT_MOST;
        let params = Params::new(memory, rounds, lanes, Some(32)).ok().filter(|_| is_usual)?;
        let (argon, mut key) = (Argon2::new(Algorithm::Argon2id, Version::V0x13, params), [0; 32]);
        argon.hash_password_into(secret, &slot[20..36], &mut key).ok()?;
        let cipher = XChaCha20Poly1305::new((&key).into());
        decrypt(&cipher, &slot[36..60], &[&slot[..60], repository].concat(), &slot[60..])
    });
    opened.map_or_else(|| wrong("this secret opens none of the keys"), Ok)
}

impl Reader {
    /// Opens the repository in this folder.
    ///
    /// # Errors
    /// If there is none, or the secret does not open it.
    pub fn open(root: &Path, secret: &[u8]) -> io::Result<Self> {
        let repository = identify(root)?;
        let master = master(root, secret, &repository)?;
        let derived = |what: &str| blake3::derive_key(&format!("holdfast backup 1: {what}"), &master);
        let seals = XChaCha20Poly1305::new((&derived("seals")).into());
        let (blocks, places) = (derived("blocks"), HashMap::new());
        let mut reader = Self { root: root.to_owned(), repository, blocks, seals, places };
        for entry in fs::read_dir(root.join("index"))? {
            let content = reader.object(&entry?.path(), b"HFINDEX\x01")?;
            reader.index(&content)?;
        }
        Ok(reader)
    }

    fn unseal(&self, object: &Name, offset: u64, sealed: &[u8]) -> Option<Vec<u8>> {
        decrypt(&self.seals, &[&object[..], &offset.to_le_bytes()].concat(), &self.repository, sealed)
    }

    fn object(&self, path: &Path, magic: &[u8; 8]) -> io::Result<Vec<u8>> {
        let bytes = fs::read(path)?;
        let rest = bytes.strip_prefix(magic).and_then(|rest| rest.strip_prefix(&self.repository));
        let opened = rest.and_then(|rest| rest.split_first_chunk::<16>());
        let content = opened.and_then(|(name, sealed)| self.unseal(name, 40, sealed));
        content.map_or_else(|| wrong(format!("`{}` is damaged, or something else", path.display())), Ok)
    }

    fn index(&mut self, mut rest: &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            let pack = take::<16>(&mut rest)?;
            for _ in 0..u32::from_le_bytes(take(&mut rest)?) {
                let block = take::<16>(&mut rest)?;
                let offset = u32::from_le_bytes(take(&mut rest)?);
                let length = u32::from_le_bytes(take(&mut rest)?);
                if take::<1>(&mut rest)? != [0] {
                    take::<16>(&mut rest)?;
                }
                self.places.entry(block).or_default().push((pack, offset.into(), length as usize));
            }
        }
        Ok(())
    }

    /// The content of a block: wherever it lies, what its name says.
    fn block(&self, name: &Name, depth: usize) -> Option<Vec<u8>> {
        let places = self.places.get(name).filter(|_| depth <= 8)?;
        places.iter().find_map(|place| self.block_at(name, place, depth))
    }

    fn block_at(
        &self,
        name: &Name,
        (pack, offset, length): &(Name, u64, usize),
        depth: usize,
    ) -> Option<Vec<u8>> {
        let id = hex(pack);
        let mut file = fs::File::open(self.root.join("packs").join(&id[..2]).join(&id)).ok()?;
        file.seek(SeekFrom::Start(*offset)).ok()?;
        let mut sealed = vec![0; (*length).min(BLOCK + 58)];
        file.read_exact(&mut sealed).ok()?;
        let record = self.unseal(pack, *offset, &sealed)?;
        let (form, mut rest) = record.strip_prefix(&record[..1]).map(|rest| (record[0], rest))?;
        take::<16>(&mut rest).ok().filter(|is| is == name)?;
        let (mut content, mut mask) = (vec![0; BLOCK], u64::MAX);
        if matches!(form, 3 | 4) {
            content = self.block(&take(&mut rest).ok()?, depth + 1)?;
            take::<1>(&mut rest).ok()?;
            mask = u64::from_le_bytes(take(&mut rest).ok()?);
        }
        let body =
            if matches!(form, 2 | 4) { zstd::bulk::decompress(rest, BLOCK).ok()? } else { rest.to_vec() };
        if matches!(form, 1 | 2) {
            content = body;
        } else {
            let mut body = &body[..];
            for (_, piece) in content.chunks_mut(PIECE).enumerate().filter(|(at, _)| mask >> at & 1 == 1) {
                let (new, left) = body.split_at_checked(piece.len())?;
                piece.copy_from_slice(new);
                body = left;
            }
        }
        (short(&self.blocks, &content) == *name).then_some(content)
    }

    /// The point of this number of a VM: its disks, by name, size and pages.
    fn disks(&self, vm: &str, number: u64) -> io::Result<Vec<(String, u64, Vec<Name>)>> {
        let path = self.root.join("points").join(vm).join(format!("{number:020}"));
        let content = self.object(&path, b"HFPOINT\x01")?;
        let mut rest = &content[..];
        if take::<1>(&mut rest)? != [1]
            || text(&mut rest)? != vm
            || u64::from_le_bytes(take(&mut rest)?) != number
        {
            return wrong(format!("`{}` is another point, or of a later version", path.display()));
        }
        take::<8>(&mut rest)?; // when it was taken
        let [count] = take(&mut rest)?;
        let mut disks = Vec::new();
        for _ in 0..count.min(64) {
            let (name, size) = (text(&mut rest)?, u64::from_le_bytes(take(&mut rest)?));
            let pages = size.min(1 << 48).div_ceil(BLOCK as u64).div_ceil(256);
            disks.push((name, size, (0..pages).map(|_| take(&mut rest)).collect::<Result<_, _>>()?));
        }
        Ok(disks)
    }

    /// Writes a disk of a point, the first if none is named.
    ///
    /// # Errors
    /// If anything of it cannot be read; what was written until then is right.
    pub fn cat(&self, (vm, number): (&str, u64), disk: Option<&str>, out: &mut dyn Write) -> io::Result<()> {
        let disks = self.disks(vm, number)?;
        let found = disks.iter().find(|(name, ..)| disk.is_none_or(|disk| disk == name));
        let Some((_, size, pages)) = found else { return wrong("the point has no such disk") };
        let mut left = *size;
        for page in pages {
            let names = if *page == HOLE { Some(vec![0; 16 * 256]) } else { self.block(page, 0) };
            let Some(names) = names else { return wrong(format!("page {} is lost", hex(page))) };
            for name in names.as_chunks::<16>().0.iter().take(left.div_ceil(BLOCK as u64).min(256) as usize) {
                let length = left.min(BLOCK as u64) as usize;
                let block = if *name == HOLE { Some(vec![0; length]) } else { self.block(name, 0) };
                let block = block.filter(|block| block.len() == length);
                let Some(block) = block else { return wrong(format!("block {} is lost", hex(name))) };
                out.write_all(&block)?;
                left -= length as u64;
            }
        }
        Ok(())
    }
}
