//! A store on a disk that is full.

use holdfast_backup::store::Store;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// There is no room after so many objects of this folder.
pub struct Full<S>(pub S, pub &'static str, pub AtomicU64);

impl<S: Store> Store for Full<S> {
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let left = |left: u64| left.checked_sub(1);
        if name.starts_with(self.1)
            && self.2.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_err()
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.put(name, bytes)
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.0.read(name, offset, length)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        self.0.list(folder)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
}
