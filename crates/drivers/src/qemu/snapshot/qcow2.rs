//! An empty overlay, written without QEMU: it shows what it stands on, until something is written to it (QEMU document
//! "Qcow2 Image File Format", version 3).

use super::super::launch::Format;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

const MAGIC: [u8; 4] = *b"QFI\xfb";
const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Bytes of the disk that one entry of the first table is of.
const PER_ENTRY: u64 = CLUSTER * CLUSTER / 8;
const HEADER: u32 = 104;
/// The extension that holds the layout of the backing file.
const BACKING_FORMAT: u32 = 0xe279_2aca;
/// Disks of more bytes are refused: the first table of a larger one would need more than one block of counts.
pub const SIZE_MOST: u64 = 1 << 50;

/// How large the disk is that an image holds, in bytes.
///
/// # Errors
/// If the image cannot be read, or is none.
pub fn virtual_size(image: &Path, format: Format) -> io::Result<u64> {
    let mut file = File::open(image)?;
    match format {
        Format::Raw => Ok(file.metadata()?.len().next_multiple_of(512)),
        Format::Qcow2 => {
            let mut head = [0; 32];
            file.read_exact(&mut head)?;
            let size = head.last_chunk().copied().map(u64::from_be_bytes).unwrap_or_default();
            let is_one = head.starts_with(&MAGIC);
            is_one.then_some(size).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is no qcow2"))
        }
    }
}

/// Writes an empty overlay of a disk of this size into a new file, durably. `backing` is the name of the image that it
/// stands on, seen from its own folder.
///
/// # Errors
/// If it cannot be written, or would be larger than [`SIZE_MOST`].
pub fn write_overlay(file: &mut File, size: u64, backing: &str, format: Format) -> io::Result<()> {
    write(file, size, Some((backing, format)))
}

/// The same of a disk that stands on nothing, and so is all zeros.
///
/// # Errors
/// As for [`write_overlay`].
pub fn write_empty(file: &mut File, size: u64) -> io::Result<()> {
    write(file, size, None)
}

fn write(file: &mut File, size: u64, backing: Option<(&str, Format)>) -> io::Result<()> {
    if size > SIZE_MOST || backing.is_some_and(|(name, _)| name.len() > 1023) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the disk or its name is too large"));
    }
    let entries = size.div_ceil(PER_ENTRY).max(1);
    let table = (entries * 8).div_ceil(CLUSTER);
    let clusters = 3 + table; // the head, the table of counts, one block of counts, the first table
    file.write_all(&head(size, entries, backing))?;
    file.seek(SeekFrom::Start(CLUSTER))?;
    file.write_all(&(2 * CLUSTER).to_be_bytes())?;
    file.seek(SeekFrom::Start(2 * CLUSTER))?;
    file.write_all(&[0_u8, 1].repeat(usize::try_from(clusters).map_err(io::Error::other)?))?;
    file.set_len(clusters * CLUSTER)?;
    file.sync_all()
}

fn head(size: u64, entries: u64, backing: Option<(&str, Format)>) -> Vec<u8> {
    let extension = backing.map_or_else(Vec::new, |(_, format)| extension(format));
    let name = backing.map_or("", |(name, _)| name);
    let name_at = if backing.is_some() { u64::from(HEADER) + extension.len() as u64 + 8 } else { 0 };
    let mut head = Vec::new();
    head.extend_from_slice(&MAGIC);
    let mut word = |bytes: &[u8]| head.extend_from_slice(bytes);
    word(&3_u32.to_be_bytes());
    word(&name_at.to_be_bytes());
    word(&(name.len() as u32).to_be_bytes());
    word(&CLUSTER_BITS.to_be_bytes());
    word(&size.to_be_bytes());
    word(&0_u32.to_be_bytes()); // not encrypted
    word(&(entries as u32).to_be_bytes());
    word(&(3 * CLUSTER).to_be_bytes()); // the first table
    word(&CLUSTER.to_be_bytes()); // the table of counts, one cluster of it
    word(&1_u32.to_be_bytes());
    word(&0_u32.to_be_bytes()); // no internal snapshots
    word(&[0; 8]);
    word(&[0; 24]); // no features
    word(&4_u32.to_be_bytes()); // counts of 16 bits
    word(&HEADER.to_be_bytes());
    word(&extension);
    word(&[0; 8]); // no more extensions
    word(name.as_bytes());
    head
}

/// What says how the backing file is laid out.
fn extension(format: Format) -> Vec<u8> {
    let layout = format.name().as_bytes();
    let mut bytes = [BACKING_FORMAT, layout.len() as u32].map(u32::to_be_bytes).concat();
    bytes.extend_from_slice(layout);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::process::Command;

    fn qemu_img(args: &[&str]) -> String {
        let output = Command::new("qemu-img").args(args).output().expect("qemu-img, package qemu-utils");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn qemu_finds_no_fault_in_an_overlay_and_reads_what_it_stands_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (size, format) in [(512_u64, Format::Raw), (1 << 20, Format::Qcow2), (5 << 40, Format::Qcow2)] {
            let (base, overlay) = (path("base"), path("overlay"));
            let text = |path: &Path| path.to_str().unwrap().to_owned();
            qemu_img(&["create", "-q", "-f", format.name(), &text(&base), &size.to_string()]);
            assert_eq!(virtual_size(&base, format).unwrap(), size);
            if format == Format::Raw {
                std::fs::write(&base, [7; 512]).unwrap();
            }
            write_overlay(&mut File::create(&overlay).unwrap(), size, "base", format).unwrap();
            assert_eq!(virtual_size(&overlay, Format::Qcow2).unwrap(), size);
            qemu_img(&["check", "-q", "-f", "qcow2", &text(&overlay)]);
            let told = qemu_img(&["info", "--output=json", &text(&overlay)]);
            assert!(told.contains(r#""backing-filename": "base""#), "{told}");
            assert!(told.contains(&format!(r#""backing-filename-format": "{}""#, format.name())), "{told}");
            if size <= 1 << 20 {
                qemu_img(&[
                    "compare",
                    "-q",
                    "-f",
                    "qcow2",
                    "-F",
                    format.name(),
                    &text(&overlay),
                    &text(&base),
                ]);
            }
        }
    }

    #[test]
    fn qemu_finds_no_fault_in_an_empty_disk_that_stands_on_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty");
        write_empty(&mut File::create(&path).unwrap(), 3 << 30).unwrap();
        let text = path.to_str().unwrap();
        qemu_img(&["check", "-q", "-f", "qcow2", text]);
        let told = qemu_img(&["info", "--output=json", text]);
        assert!(told.contains(r#""virtual-size": 3221225472"#) && !told.contains("backing"), "{told}");
    }

    #[test]
    fn a_disk_without_end_is_refused() {
        let mut file = tempfile::tempfile().unwrap();
        assert!(write_overlay(&mut file, SIZE_MOST + 1, "base", Format::Raw).is_err());
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
}
