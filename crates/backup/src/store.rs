//! Where a repository lies: objects of bytes under names, each written once and whole.

mod files;
mod folder;
#[cfg(test)]
mod power;

pub use folder::Folder;

use std::io;

/// The longest name of an object.
pub const NAME_MOST: usize = 160;

/// A place for objects. Everything a repository asks of a disk or a server.
pub trait Store: Send + Sync {
    /// Writes an object that is not there yet. It is durable and whole when this returns, or not there at all.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if something else is there; anything that a disk or a network can say. Where a network
    /// fails, the object may be there yet, or come later.
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Reads so many bytes of an object from `offset` on; fewer at its end.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it is not there; anything that a disk or a network can say.
    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;

    /// Names and lengths of all objects of a folder and those below it, in the order of their names.
    ///
    /// # Errors
    /// Anything that a disk or a network can say. A folder that is not there is empty.
    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>>;

    /// Removes an object.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it is not there (of two who remove it at once, both may hear that it was); anything that a disk or a network can say.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// Lower-case words, numbers, `-` and `.` between slashes: nothing that leads elsewhere (A33, A36).
#[must_use]
pub fn is_name(name: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_');
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain);
    name.len() <= NAME_MOST && name.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_objects_are_plain() {
        assert!(is_name("points/orders/00000001-3f") && is_name("key.1") && !is_name("a/../b"));
    }
}
