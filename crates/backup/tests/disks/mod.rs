//! Disks in memory, to be saved and to be restored to.

#![allow(dead_code, reason = "each test file uses its own part")]

use holdfast_backup::restore::{Onto, Target};
use holdfast_backup::save::Source;
use std::io;
use std::sync::Mutex;

/// A disk that holds still.
#[derive(Clone)]
pub struct Image(pub Vec<u8>);

impl Source for Image {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        bytes.copy_from_slice(&self.0[offset as usize..][..bytes.len()]);
        Ok(())
    }
}

/// A disk that is restored.
pub struct Restored(pub Mutex<Vec<u8>>);

impl Target for Restored {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap()[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

impl Onto for Restored {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        bytes.copy_from_slice(&self.0.lock().unwrap()[offset as usize..][..bytes.len()]);
        Ok(())
    }
}
