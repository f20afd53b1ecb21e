//! What a start needs besides its disk: asked before a VM that runs is ended to be started again, whatever its disk will be
//! then, and by the start itself.

use super::machine::Machine;
use super::record::Port;
use super::spec::{Network, QemuVm};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::Path;

impl Machine {
    /// Whether all is there that its next start needs besides the disk.
    ///
    /// # Errors
    /// A sentence: what is not.
    pub(super) async fn has_the_rest(&self) -> Result<(), String> {
        let (spec, own) = (self.spec(), self.running().is_ok().then(|| self.record().ports));
        let looked = tokio::task::spawn_blocking(move || {
            files_there(&spec)?;
            // Of one that does not run there is nothing to end, and its start tells.
            own.map_or(Ok(()), |own| ports_free(&spec.network, &own))
        });
        looked.await.map_err(|e| e.to_string())?
    }
}

/// The program that runs it is there, and what its guest boots from.
pub(super) fn files_there(spec: &QemuVm) -> Result<(), String> {
    let program = spec.program().map_err(|error| error.to_string())?;
    for file in std::iter::once(program.as_path()).chain(boots_from(spec)) {
        std::fs::metadata(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    }
    Ok(())
}

/// Nothing has this name; who cannot look does not know.
pub(super) fn is_missing(file: &Path) -> bool {
    file.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// What the guest boots from besides its disk.
pub(super) fn boots_from(spec: &QemuVm) -> impl Iterator<Item = &Path> {
    let kernel = spec.kernel.iter();
    kernel.flat_map(|kernel| std::iter::once(&kernel.image).chain(&kernel.initrd)).map(AsRef::as_ref)
}

/// Nobody else listens where its ports are to be reached; its `own` ones are its QEMU's.
fn ports_free(network: &Network, own: &[Port]) -> Result<(), String> {
    let Network::User(forwards) = network else { return Ok(()) };
    let is_own = |port: u16| own.iter().any(|own| own.listen.port() == port);
    for listen in forwards.iter().map(|forward| forward.listen) {
        if listen.port() == 0 || is_own(listen.port()) {
            continue;
        }
        if TcpListener::bind(listen).is_err_and(|error| error.kind() == ErrorKind::AddrInUse) {
            return Err(format!("somebody else listens on {listen}, which is to lead to a port of it"));
        }
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::spec::{Forward, Kernel};
    use super::*;

    #[test]
    fn a_kernel_an_initrd_or_a_program_that_is_not_there_is_named() {
        let place = tempfile::tempdir().unwrap();
        let [kernel, initrd, program] = ["kernel", "initrd", "program"].map(|name| place.path().join(name));
        let spec = QemuVm {
            kernel: Some(Kernel {
                image: kernel.clone(),
                initrd: Some(initrd.clone()),
                cmdline: String::new(),
            }),
            program: Some(program.clone()),
            ..QemuVm::plain("/d/x")
        };
        let files = [program, kernel, initrd];
        for file in &files {
            let told = files_there(&spec).unwrap_err();
            assert!(told.starts_with(&format!("cannot read {}: No such file", file.display())), "{told}");
            std::fs::write(file, "").unwrap();
        }
        assert_eq!(files_there(&spec), Ok(()));
    }

    #[test]
    fn a_port_is_free_unless_somebody_else_listens_there() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = other.local_addr().unwrap();
        let network = |listen| Network::User(vec![Forward { listen, guest: 80 }]);
        let told = ports_free(&network(listen), &[]).unwrap_err();
        assert!(told.contains(&format!("listens on {listen}")), "{told}");
        assert_eq!(ports_free(&network(listen), &[Port { listen, guest: 22 }]), Ok(()), "its own QEMU");
        assert_eq!(ports_free(&network("127.0.0.1:0".parse().unwrap()), &[]), Ok(()), "one is chosen");
        drop(other);
        assert_eq!(ports_free(&network(listen), &[]), Ok(()));
    }
}
