//! Hostile servers and clients: good talks, damaged. What is looked for is a panic, a talk that never ends, an answer of
//! another length, and memory that grows with what the other side says (I17, I18).

#![expect(clippy::unwrap_used, reason = "tests")]

use holdfast_fuzz::{Damage, is_usual, memory, run};
use holdfast_nbd::client::Client;
use holdfast_nbd::server::{Disk, serve};
use holdfast_nbd::{ALLOCATION, NbdError};
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};

/// What one side reads is given; what it writes is kept.
struct Script<'a> {
    input: &'a [u8],
    written: Arc<Mutex<Vec<u8>>>,
}

impl<'a> Script<'a> {
    fn of(input: &'a [u8]) -> Self {
        Self { input, written: Arc::default() }
    }
}

impl Read for Script<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.input.read(bytes)
    }
}

impl Write for Script<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.written.lock().unwrap();
        if written.len() < 1 << 20 {
            written.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Small;

impl Disk for Small {
    fn size(&self) -> u64 {
        96 << 10
    }

    fn read_at(&self, _: u64, bytes: &mut [u8]) -> io::Result<()> {
        bytes.fill(5);
        Ok(())
    }
}

/// What a client does here; the lengths of what it got.
fn talk<S: Read + Write>(stream: S) -> Result<Vec<usize>, NbdError> {
    let mut client = Client::connect(stream, "disk", &[ALLOCATION, "qemu:dirty-bitmap:since"])?;
    let size = client.export().size;
    let mut told = [0; 2];
    client.map(|which, begin, extent| {
        assert_eq!(told[which], begin);
        told[which] += extent.length;
        assert!(extent.length > 0 && told[which] <= size);
    })?;
    for at in 0..3 {
        client.ask(at * 4_096, 4_096)?;
    }
    let mut lengths = Vec::new();
    for _ in 0..3 {
        lengths.extend(client.receive()?.1.map(|bytes| bytes.len()));
    }
    client.disconnect()?;
    Ok(lengths)
}

/// What both sides of a good talk said: the server, the client.
fn good() -> (Vec<u8>, Vec<u8>) {
    struct Heard(std::os::unix::net::UnixStream, Arc<Mutex<Vec<u8>>>);
    impl Read for Heard {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            self.0.read(bytes)
        }
    }
    impl Write for Heard {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = self.0.write(bytes)?;
            self.1.lock().unwrap().extend_from_slice(&bytes[..count]);
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let (client, server) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::<Mutex<Vec<u8>>>::default());
    let said = Arc::clone(&server);
    let thread = std::thread::spawn(move || serve(Heard(theirs, said), "disk", &Small));
    assert_eq!(talk(Heard(ours, Arc::clone(&client))).unwrap(), [4_096; 3]);
    thread.join().unwrap().unwrap();
    (server.lock().unwrap().clone(), client.lock().unwrap().clone())
}

const WORDS: [&[u8]; 12] = [
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\0\0\0\x01",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\x06\0\0\0\0",
    b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\x02",
    b"\x66\x8e\x33\xef\0\x01\0\0\0\0\0\0\0\0\0\x02\0\0\0\0",
    b"\x66\x8e\x33\xef\0\0\0\x02\0\0\0\0\0\0\0\x02\0\0\0\x0c\0\0\0\0\0\0\0\0\0\0\x10\0",
    b"\x66\x8e\x33\xef\0\x01\x80\x01\0\0\0\0\0\0\0\x03\0\0\0\x06\0\0\0\x05\0\0",
    b"\x66\x8e\x33\xef\0\x01\0\x05\0\0\0\0\0\0\0\x01\0\0\0\x0c\0\0\0\x01\0\0\0\x01\0\0\0\0",
    b"\x25\x60\x95\x13\0\0\0\0\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\0\x7f\xff\xff\xff",
    b"IHAVEOPT\0\0\0\x0a\0\0\0\x0c\0\0\0\x04disk\xff\xff\xff\xff",
];

#[test]
fn fuzz_hostile_servers() {
    let (good, _) = good();
    let damage = Damage { good: &[&good], words: &WORDS, most: 1 << 16 };
    let (mut well, mut refused) = (0, 0);
    run("fuzz_hostile_servers", 20_000, |chance| match talk(Script::of(&damage.input(chance))) {
        Ok(lengths) => {
            assert!(lengths.iter().all(|length| *length == 4_096), "{lengths:?}");
            well += 1;
        }
        Err(error) => {
            assert!(error.to_string().len() < 400, "{error}");
            refused += 1;
        }
    });
    assert!(!is_usual() || (well > 1_000 && refused > 1_000), "{well} well, {refused} refused");
}

#[test]
fn fuzz_hostile_clients() {
    let (_, good) = good();
    let damage = Damage { good: &[&good], words: &WORDS, most: 1 << 16 };
    let (mut well, mut refused) = (0, 0);
    run("fuzz_hostile_clients", 20_000, |chance| {
        match serve(Script::of(&damage.input(chance)), "disk", &Small) {
            Ok(()) => well += 1,
            Err(_) => refused += 1,
        }
    });
    assert!(!is_usual() || (well > 1_000 && refused > 1_000), "{well} well, {refused} refused");
}

#[test]
fn a_good_talk_that_is_cut_anywhere_ends_in_an_error() {
    let (good, _) = good();
    for length in 0..good.len() {
        assert!(talk(Script::of(&good[..length])).is_err(), "{length}");
    }
    assert!(talk(Script::of(&good)).is_ok());
}

#[test]
fn lengths_that_lie_take_no_memory() {
    memory::alone("lengths_that_lie_take_no_memory", || {
        let (good, _) = good();
        let peak = memory::Peak::start();
        for at in 0..good.len() - 4 {
            for lie in [u32::MAX, 1 << 31, 64 << 20] {
                let mut lying = good.clone();
                lying[at..at + 4].copy_from_slice(&lie.to_be_bytes());
                let _ = talk(Script::of(&lying));
            }
        }
        peak.is_below("a client of a lying server", 4);
    });
}
