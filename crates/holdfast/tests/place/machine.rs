//! A disk that becomes a restore point while a QEMU without a guest has it open.

use super::{Begun, Place, until};
use serde_json::Value;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output};

pub fn qemu(program: &str, words: &[&str]) -> Output {
    let output = Command::new(program).args(words).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}; install Debian's qemu-utils"))
}

/// A QEMU without a guest that has `disk.qcow2` open, with a control socket.
pub struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Place {
    pub fn machine(&self) -> Machine {
        let disk = self.text("disk.qcow2");
        let node = format!("driver=qcow2,node-name=disk,file.driver=file,file.filename={disk}");
        let socket = |name: &str| format!("unix:{},server=on,wait=off", self.text(name));
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-M", "none", "-nodefaults", "-display", "none", "-blockdev", &node]);
        qemu.args(["-qmp", &socket("qmp"), "-qmp", &socket("awake")]);
        let mut machine = Machine(qemu.spawn().expect("Debian's qemu-system-x86"));
        let is_awake = || {
            let mut greeting = UnixStream::connect(self.path("awake")).ok()?;
            greeting.read_exact(&mut [0]).ok()
        };
        until("QEMU starts", || {
            assert!(machine.0.try_wait().unwrap().is_none(), "QEMU ended");
            is_awake().is_some()
        });
        machine
    }

    /// Has `disk.qcow2` become the point `disk/1`, which is offered when this returns.
    pub fn instant(&self, more: &[&str]) -> Begun {
        let words = ["restore", "--instant", "disk.qcow2", "--qmp", "qmp", "--json", "--point", "disk/1"];
        let mut begun = Begun::of(&mut self.command(&[&words, more].concat()));
        until("the point is offered", || {
            assert!(!begun.has_ended(), "{}", begun.said());
            UnixStream::connect(self.path("disk.qcow2.offered")).is_ok()
        });
        begun
    }

    /// Whether `disk.qcow2` still stands on the point.
    pub fn needs_point(&self) -> bool {
        let told = qemu("qemu-img", &["info", "-U", "--output=json", &self.text("disk.qcow2")]);
        let told: Value = serde_json::from_slice(&told.stdout).unwrap();
        told["backing-filename"].is_string()
    }
}

#[track_caller]
pub fn assert_same(one: &str, format: &str, other: &str) {
    let compared = qemu("qemu-img", &["compare", "-f", "raw", "-F", format, one, other]);
    assert!(compared.status.success(), "{compared:?}");
}
