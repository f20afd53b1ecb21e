//! An image that stands on a restore point: `holdfast backup restore --instant` offers it over NBD on a socket beside the image, while the
//! VM runs and its blocks come in. The name in the image is believed as that of a file is: only where the configuration allows it
//! (A31), and only if somebody listens there now.

use super::account::Account;
use rustix::fs::{AtFlags, CWD, Uid, chownat};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// How such an image calls it; the path of the socket follows.
pub const NAME: &str = "nbd+unix:///?socket=";
/// How long what the guest reads waits for a server that went away, in seconds: then the VM is paused, as with any other
/// disk that fails, and goes on once the point is offered again.
const RECONNECT: u32 = 5;

/// The socket that an image calls by this name. One whose path must be written otherwise in a URL is none of ours.
pub(super) fn socket(backing: &str) -> Option<&str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    backing.strip_prefix(NAME).filter(|path| path.starts_with('/') && path.bytes().all(plain))
}

/// Whether somebody listens on it.
pub(super) fn is_there(socket: &Path) -> bool {
    let is_socket = fs::symlink_metadata(socket).is_ok_and(|meta| meta.file_type().is_socket());
    is_socket && UnixStream::connect(socket).is_ok()
}

/// What QEMU is told of it.
pub(super) fn block(socket: &Path) -> Value {
    json!({ "driver": "nbd", "server": { "type": "unix", "path": socket.to_string_lossy() }, "reconnect-delay": RECONNECT })
}

/// Gives it to QEMU's user, who is the only one beside root to read from it then.
pub(super) fn hand_over(socket: &Path, account: Option<&Account>) -> Result<(), String> {
    let Some(account) = account else { return Ok(()) };
    let told =
        |e: std::io::Error| format!("cannot give {} to user `{}`: {e}", socket.display(), account.name);
    if fs::symlink_metadata(socket).map_err(told)?.uid() == account.uid {
        return Ok(());
    }
    let given = chownat(CWD, socket, Some(Uid::from_raw(account.uid)), None, AtFlags::SYMLINK_NOFOLLOW);
    given.map_err(|error| told(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_absolute_path_of_a_socket_is_meant() {
        assert_eq!(socket("nbd+unix:///?socket=/d/o-1.qcow2.offered"), Some("/d/o-1.qcow2.offered"));
        for name in [
            "nbd+unix:///?socket=relative",
            "nbd+unix:///?socket=",
            "nbd+unix:///export?socket=/d/x",
            "nbd+unix:///?socket=/d/x&socket=/d/y",
            "nbd+unix:///?socket=/d/%2e%2e/x",
            "nbd+unix:///?socket=/d/x y",
            "nbd://host/x",
            "/d/x",
        ] {
            assert_eq!(socket(name), None, "{name}");
        }
    }
}
