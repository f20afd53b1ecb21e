//! A bucket keeps what every store promises, in a server that checks signatures and preconditions; and what is told where it
//! does not.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../backup/tests/contract/mod.rs"]
mod contract;

use holdfast_backup::store::Store;
use holdfast_bucket::{BUCKET, Habit, KEY, SECRET, Server};
use holdfast_s3::{Access, Bucket, Failure, S3};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

fn access(folder: &Path, endpoint: &str, secret: &str) -> Access {
    let file = folder.join("s3.env");
    let text =
        format!("AWS_ACCESS_KEY_ID={KEY}\nAWS_SECRET_ACCESS_KEY={secret}\nAWS_ENDPOINT_URL={endpoint}\n");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    Access::of_file(&file).unwrap()
}

struct Place {
    folder: TempDir,
    server: Server,
}

impl Place {
    fn new(habit: Habit) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&folder.path().join("data"), habit).unwrap();
        Self { folder, server }
    }

    fn open(&self, place: &str) -> S3 {
        self.open_as(place, SECRET)
    }

    fn open_as(&self, place: &str, secret: &str) -> S3 {
        let bucket = Bucket::parse(place).unwrap().unwrap();
        S3::open(&bucket, &access(self.folder.path(), &self.server.endpoint(), secret)).unwrap()
    }
}

#[test]
fn a_bucket_keeps_its_promises() {
    let place = Place::new(Habit::Right);
    for (at, name) in ["s3://backups", "s3://backups/of/atlas", "s3://backups/of"].into_iter().enumerate() {
        let store = place.open(name);
        assert_eq!(store.is_empty().unwrap(), at != 2, "{name}: `of/atlas` lies in `of`");
        contract::keeps_its_promises(&store);
        assert!(!store.is_empty().unwrap());
        contract::knows_its_names(&store);
    }
    contract::has_one_winner(&place.open("s3://backups/two"));
    contract::lists_many(&place.open("s3://backups/many"), 2_345);
}

#[test]
fn an_answer_that_was_lost_is_no_refusal() {
    let place = Place::new(Habit::LosesAnswers);
    let store = place.open("s3://backups/a");
    store.put("packs/1", b"hello").unwrap();
    assert_eq!(store.put("packs/1", b"other").unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(store.read("packs/1", 0, 9).unwrap(), b"hello");
}

/// Passes on what is said to a server, but resets the first connection on which a megabyte was. Its address, and whether it did.
fn breaking(server: &str) -> (String, Arc<AtomicBool>) {
    let server = server.strip_prefix("http://").unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let broken = Arc::new(AtomicBool::new(false));
    let is_broken = Arc::clone(&broken);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut asks, mut server) = (client.unwrap(), TcpStream::connect(&server).unwrap());
            let (mut hears, mut says) = (asks.try_clone().unwrap(), server.try_clone().unwrap());
            let back = std::thread::spawn(move || std::io::copy(&mut says, &mut hears));
            let is_broken = Arc::clone(&is_broken);
            std::thread::spawn(move || {
                let (mut passed, mut some) = (0, [0; 4096]);
                while let Ok(read @ 1..) = asks.read(&mut some) {
                    passed += read;
                    if passed > 1 << 20 && !is_broken.swap(true, Ordering::Relaxed) {
                        break;
                    }
                    server.write_all(&some[..read]).unwrap();
                }
                let _ = (server.shutdown(Shutdown::Both), back.join());
                drop(asks); // with something in it that nobody read: that is a reset, and no end
            });
        }
    });
    (endpoint, broken)
}

#[test]
fn a_put_whose_connection_breaks_is_done_once() {
    let place = Place::new(Habit::Right);
    let (endpoint, is_broken) = breaking(&place.server.endpoint());
    let access = access(place.folder.path(), &endpoint, SECRET);
    let store = S3::open(&Bucket::parse("s3://backups/a").unwrap().unwrap(), &access).unwrap();
    let large: Vec<u8> = (0..4_000_000_u32).flat_map(u32::to_le_bytes).collect();
    store.put("packs/1", &large).unwrap();
    assert!(is_broken.load(Ordering::Relaxed));
    assert_eq!(store.read("packs/1", 0, usize::MAX).unwrap(), large);
    assert_eq!(store.put("packs/1", b"other").unwrap_err().kind(), ErrorKind::AlreadyExists);
}

#[test]
fn a_store_that_would_replace_objects_is_refused_before_anything_is_put() {
    for (habit, times) in [(Habit::Replaces, 2), (Habit::Refuses, 1)] {
        let place = Place::new(habit);
        for _ in 0..times {
            let store = place.open("s3://backups/a");
            let refused = store.put("packs/1", b"hello").unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unsupported, "{habit:?}: {refused}");
            assert!(Failure::in_error(&refused).unwrap().hint().contains("If-None-Match"), "{habit:?}");
            assert_eq!(store.list("packs").unwrap(), []);
            assert!(store.is_empty().unwrap());
        }
    }
}

#[test]
fn what_is_wrong_is_said_without_a_secret() {
    let place = Place::new(Habit::Right);
    let wrong = "x1y2z3-not-it";
    let store = place.open_as("s3://backups/a", wrong);
    let all = [
        store.list("packs").err(),
        store.read("repository", 0, 64).err(),
        store.put("packs/1", b"x").err(),
        store.remove("packs/1").err(),
    ];
    for refused in all.map(Option::unwrap) {
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");
        assert!(!format!("{refused:?} {refused}").contains(wrong), "{refused:?}");
    }
    let refused = store.list("packs").unwrap_err();
    assert!(refused.to_string().contains("403 SignatureDoesNotMatch"), "{refused}");
    assert!(Failure::in_error(&refused).unwrap().hint().contains("AWS_SECRET_ACCESS_KEY"));

    let refused = place.open("s3://other-bucket/a").read("repository", 0, 64).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput, "no bucket is not: no object. {refused}");
    assert!(refused.to_string().contains("NoSuchBucket"), "{refused}");
}

#[test]
fn a_server_that_is_not_there_or_busy_is_told_of_in_time() {
    let busy = Place::new(Habit::Busy);
    let refused = busy.open("s3://backups/a").put("packs/1", b"x").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ResourceBusy, "{refused}");
    assert!(refused.to_string().contains("503 SlowDown"), "{refused}");

    let Place { folder, server } = Place::new(Habit::Right);
    let endpoint = server.endpoint();
    drop(server);
    let store =
        S3::open(&Bucket::parse("s3://backups").unwrap().unwrap(), &access(folder.path(), &endpoint, SECRET))
            .unwrap();
    let refused = store.list("packs").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotConnected, "{refused}");
    assert!(refused.to_string().contains(&endpoint) && refused.to_string().contains("refused"), "{refused}");
}

#[test]
fn a_store_is_used_and_dropped_inside_another_runtime() {
    let place = Place::new(Habit::Right);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = place.open("s3://backups/a");
        store.put("packs/1", b"hello").unwrap();
        assert_eq!(store.read("packs/1", 0, 9).unwrap(), b"hello");
        assert!(Path::new(place.folder.path()).join("data").join(BUCKET).join("a/packs/1").is_file());
    });
}
