//! A disk that a QEMU or a `qemu-nbd` holds still and offers over NBD.
//!
//! One connection; whoever waits for bytes also takes in those of the others, and asks for some more ahead.

use super::ranges::{AtLeast, AtMost};
use holdfast_backup::block::BLOCK;
use holdfast_backup::point::PAGE;
use holdfast_backup::save::Source;
use holdfast_nbd::client::{Client, Cookie};
use holdfast_nbd::{ALLOCATION, DIRTY_BITMAP, IS_DIRTY, IS_HOLE, NbdError, READS_ZERO};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// So much is asked for with one request (bytes).
const PIECE: u64 = 1 << 20;
/// What one reader reads from its begin to its end (bytes).
const PAGE_BYTES: u64 = (PAGE * BLOCK) as u64;
/// So many pieces are asked for before they are wanted.
const AHEAD: usize = 4;
/// So many pieces are in memory or on the way; those that nobody took for longest are given up.
const PIECES_MOST: usize = 48;
/// Longer silence of the server is an error.
const SILENCE: Duration = Duration::from_secs(60);
/// The port of NBD.
const PORT: u16 = 10_809;

/// Where a disk is offered, as a URI says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    at: At,
    export: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    Unix(PathBuf),
    Tcp(String, u16),
}

/// A URI of a disk; nothing if it is none of NBD.
pub fn place(uri: &str) -> Option<Result<Place, &'static str>> {
    let is_nbd = uri.starts_with("nbd://") || uri.starts_with("nbd+unix://");
    is_nbd.then(|| read_place(uri))
}

fn read_place(uri: &str) -> Result<Place, &'static str> {
    let uri = url::Url::parse(uri).map_err(|_| "it is no URI")?;
    let export = plain(uri.path().strip_prefix('/').unwrap_or_default())?;
    if uri.scheme() == "nbd" {
        let host = uri.host_str().filter(|host| !host.is_empty()).ok_or("it names no host")?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        return Ok(Place { at: At::Tcp(host.to_owned(), uri.port().unwrap_or(PORT)), export });
    }
    let socket = uri.query_pairs().find(|(key, _)| key == "socket").map(|(_, value)| value.into_owned());
    let socket = socket.filter(|socket| !socket.is_empty()).ok_or("it names no `?socket=PATH`")?;
    Ok(Place { at: At::Unix(socket.into()), export })
}

/// What stands for itself in a URI, without its `%20`.
fn plain(text: &str) -> Result<String, &'static str> {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = (digit(), digit());
        bytes
            .push((high.zip(low).map(|(high, low)| 16 * high + low)).ok_or("a `%` has no two digits")? as u8);
    }
    String::from_utf8(bytes).map_err(|_| "the name of the export is not UTF-8")
}

impl Place {
    /// An export on a socket.
    pub fn unix(socket: &Path, export: &str) -> Self {
        Self { at: At::Unix(socket.to_owned()), export: export.to_owned() }
    }

    /// The name of the export.
    pub fn export(&self) -> &str {
        &self.export
    }

    fn stream(&self) -> io::Result<Stream> {
        let stream = match &self.at {
            At::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
            At::Tcp(host, port) => Stream::Tcp(TcpStream::connect((host.as_str(), *port))?),
        };
        match &stream {
            Stream::Unix(stream) => {
                stream
                    .set_read_timeout(Some(SILENCE))
                    .and_then(|()| stream.set_write_timeout(Some(SILENCE)))?;
            }
            Stream::Tcp(stream) => {
                stream.set_nodelay(true)?;
                stream
                    .set_read_timeout(Some(SILENCE))
                    .and_then(|()| stream.set_write_timeout(Some(SILENCE)))?;
            }
        }
        Ok(stream)
    }
}

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(bytes),
            Self::Tcp(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // neither keeps anything back
    }
}

/// Why a disk is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Nobody is there.
    #[error("nobody offers it there")]
    Connect(#[source] io::Error),
    /// It is not offered, or not well.
    #[error(transparent)]
    Nbd(#[from] NbdError),
}

/// The disk.
pub struct Remote {
    size: u64,
    holes: Vec<Range<u64>>,
    /// What each bitmap says that was asked for and is there.
    changed: BTreeMap<String, Vec<Range<u64>>>,
    /// What will be wanted, in order and apart.
    wanted: Vec<Range<u64>>,
    pieces: Mutex<Pieces>,
    client: Mutex<Client<Stream>>,
}

/// What is here or on the way, by the byte where it begins.
#[derive(Default)]
struct Pieces {
    all: BTreeMap<u64, Piece>,
    /// All that begins before it was asked for by somebody, if it will be wanted at all.
    end: u64,
}

enum Piece {
    /// On the way.
    Asked(Cookie),
    /// The bytes, and how many of them nobody took yet.
    Here(Vec<u8>, usize),
}

impl Remote {
    /// Connects, and asks what is a hole and, by these bitmaps, what changed. All of it will be wanted, unless that is said
    /// ([`Remote::want`]).
    ///
    /// # Errors
    /// If it is not to be had.
    pub fn open(place: &Place, bitmaps: &[String], now: Option<&str>) -> Result<Self, RemoteError> {
        let now = now.map(|export| holes(place, export)).transpose()?.unwrap_or_default();
        let names: Vec<String> = bitmaps.iter().map(|bitmap| format!("{DIRTY_BITMAP}{bitmap}")).collect();
        let contexts: Vec<&str> = [ALLOCATION].into_iter().chain(names.iter().map(|name| &**name)).collect();
        let stream = place.stream().map_err(RemoteError::Connect)?;
        let mut client = Client::connect(stream, &place.export, &contexts)?;
        let size = client.export().size;
        let (mut holes, mut unwritten) = (AtMost::default(), AtMost::default());
        let mut dirty: Vec<AtLeast> = bitmaps.iter().map(|_| AtLeast::default()).collect();
        client.map(|which, begin, extent| {
            let range = begin..begin + extent.length;
            match which {
                0 if extent.flags & READS_ZERO != 0 => holes.add(range, size),
                0 if extent.flags & IS_HOLE != 0 => unwritten.add(range, size),
                which @ 1.. if extent.flags & IS_DIRTY != 0 => dirty[which - 1].add(range, size),
                _ => {}
            }
        })?;
        let told = bitmaps.iter().zip(dirty).zip(1..).filter(|(_, which)| client.has_context(*which));
        let changed = told.map(|((bitmap, dirty), _)| (bitmap.clone(), dirty.all())).collect();
        // What was not written until now, and was a hole a moment ago, was one in the moment that is offered.
        let mut holes = [holes.all(size), both(&now, &unwritten.all(size))].concat();
        holes.sort_by_key(|hole| hole.start);
        let (pieces, client) = (Mutex::default(), Mutex::new(client));
        let mut remote = Self { size, holes, changed, wanted: Vec::new(), pieces, client };
        remote.want(None);
        Ok(remote)
    }

    /// What changed, in order and apart, as the bitmap says; nothing if it is not there.
    pub fn changed(&self, bitmap: &str) -> Option<&[Range<u64>]> {
        self.changed.get(bitmap).map(Vec::as_slice)
    }

    /// What will be wanted, in order and apart; nothing is all.
    pub fn want(&mut self, wanted: Option<&[Range<u64>]>) {
        let all = 0..self.size;
        self.wanted = without(wanted.unwrap_or(std::slice::from_ref(&all)), &self.holes);
    }

    /// Ends the talk in good order.
    pub fn close(self) {
        let client = self.client.into_inner().unwrap_or_else(PoisonError::into_inner);
        let _ = client.disconnect(); // all that was wanted is here
    }

    /// The next pieces that will be wanted, from this byte on.
    fn pieces_from(&self, offset: u64) -> impl Iterator<Item = Range<u64>> {
        let first = self.wanted.partition_point(|range| range.end <= offset);
        let cut = move |range: &Range<u64>| {
            let (start, end) = (range.start.max(offset / PIECE * PIECE), range.end);
            (start / PIECE..end.div_ceil(PIECE))
                .map(move |at| (at * PIECE).max(start)..((at + 1) * PIECE).min(end))
        };
        self.wanted[first..].iter().flat_map(cut).filter(move |piece| piece.end > offset)
    }

    /// Copies bytes of one piece.
    fn read_piece(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        loop {
            if take(&mut lock(&self.pieces).all, offset, bytes) {
                return Ok(());
            }
            let mut client = lock(&self.client);
            // Somebody may have got it while we waited for our turn.
            if take(&mut lock(&self.pieces).all, offset, bytes) {
                return Ok(());
            }
            self.ask(&mut client, offset, bytes.len() as u64).map_err(io::Error::other)?;
            let (cookie, answer) = client.receive().map_err(io::Error::other)?;
            self.put(cookie, answer)?;
        }
    }

    /// How far it is alike from this byte on, and whether it is a hole.
    fn alike(&self, offset: u64) -> (u64, bool) {
        let hole = self.holes.get(self.holes.partition_point(|hole| hole.end <= offset));
        if let Some(hole) = hole.filter(|hole| hole.start <= offset) {
            return (hole.end, true);
        }
        let far = hole.map_or(u64::MAX, |hole| hole.start).min((offset / PIECE + 1) * PIECE);
        match self.pieces_from(offset).next() {
            Some(piece) if piece.start <= offset => (piece.end, false),
            Some(piece) => (piece.start.min(far), false),
            None => (far, false),
        }
    }

    /// Has the bytes at `offset` on their way, and some that will be wanted after them.
    fn ask(&self, client: &mut Client<Stream>, offset: u64, length: u64) -> Result<(), NbdError> {
        let mut next = self.pieces_from(offset).take(AHEAD + 1).collect::<Vec<_>>();
        if next.first().is_none_or(|piece| piece.start > offset || piece.end < offset + length) {
            next.insert(0, offset..offset + length); // not foreseen
        }
        let mut pieces = lock(&self.pieces);
        for piece in next {
            let is_first = piece.contains(&offset);
            // Of another page that is being read, the first ones may have been taken already.
            let is_due =
                is_first || piece.start / PAGE_BYTES == offset / PAGE_BYTES || piece.start >= pieces.end;
            let has_room = is_first || pieces.all.len() < PIECES_MOST;
            if is_due && has_room && !pieces.all.contains_key(&piece.start) {
                let cookie = client.ask(piece.start, (piece.end - piece.start) as u32)?;
                pieces.all.insert(piece.start, Piece::Asked(cookie));
                pieces.end = pieces.end.max(piece.end);
            }
        }
        Ok(())
    }

    fn put(&self, cookie: Cookie, answer: Result<Vec<u8>, holdfast_nbd::Refusal>) -> io::Result<()> {
        let mut pieces = lock(&self.pieces);
        let asked =
            pieces.all.iter().find(|(_, piece)| matches!(piece, Piece::Asked(known) if *known == cookie));
        let Some(start) = asked.map(|(start, _)| *start) else { return Ok(()) };
        match answer {
            Ok(bytes) => {
                let left = bytes.len();
                pieces.all.insert(start, Piece::Here(bytes, left));
            }
            Err(refusal) => {
                pieces.all.remove(&start);
                return Err(io::Error::other(format!("the NBD server says at byte {start}: {refusal}")));
            }
        }
        // Pages are read upwards: what is lowest was passed by.
        while pieces.all.len() > PIECES_MOST {
            let passed = |(at, piece): (&u64, &Piece)| {
                (*at != start && matches!(piece, Piece::Here(..))).then_some(*at)
            };
            let Some(lowest) = pieces.all.iter().find_map(passed) else { break };
            pieces.all.remove(&lowest);
        }
        Ok(())
    }
}

/// The holes of an export.
fn holes(place: &Place, export: &str) -> Result<Vec<Range<u64>>, RemoteError> {
    let stream = place.stream().map_err(RemoteError::Connect)?;
    let mut client = Client::connect(stream, export, &[ALLOCATION])?;
    let (size, mut holes) = (client.export().size, AtMost::default());
    client.map(|_, begin, extent| {
        if extent.flags & READS_ZERO != 0 {
            holes.add(begin..begin + extent.length, size);
        }
    })?;
    client.disconnect()?;
    Ok(holes.all(size))
}

/// Copies bytes out of a piece that is here.
fn take(pieces: &mut BTreeMap<u64, Piece>, offset: u64, bytes: &mut [u8]) -> bool {
    let Some((start, Piece::Here(piece, left))) = pieces.range_mut(..=offset).next_back() else {
        return false;
    };
    let from = (offset - *start) as usize;
    let Some(there) = piece.get(from..from + bytes.len()) else { return false };
    bytes.copy_from_slice(there);
    *left = left.saturating_sub(bytes.len());
    if *left == 0 {
        let start = *start;
        pieces.remove(&start);
    }
    true
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What lies in both; each in order and apart.
fn both(one: &[Range<u64>], other: &[Range<u64>]) -> Vec<Range<u64>> {
    let (mut found, mut at) = (Vec::new(), 0);
    for range in one {
        while other.get(at).is_some_and(|other| other.end <= range.start) {
            at += 1;
        }
        let near = other[at..].iter().take_while(|other| other.start < range.end);
        found.extend(near.map(|other| range.start.max(other.start)..range.end.min(other.end)));
    }
    found
}

/// The ranges without the holes; both in order and apart.
fn without(ranges: &[Range<u64>], holes: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    let mut holes = holes.iter().peekable();
    for range in ranges {
        let mut at = range.start;
        while let Some(hole) = holes.peek().filter(|hole| hole.start < range.end) {
            if hole.start > at {
                left.push(at..hole.start);
            }
            at = at.max(hole.end);
            if hole.end > range.end {
                break; // it may reach into the next one, too
            }
            holes.next();
        }
        if at < range.end {
            left.push(at..range.end);
        }
    }
    left
}

impl Source for Remote {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let (end, is_hole) = self.alike(at);
            let long = (end - at).min(rest.len() as u64);
            let (part, tail) = rest.split_at_mut(long as usize);
            if is_hole {
                part.fill(0);
            } else {
                self.read_piece(at, part)?;
            }
            (at, rest) = (at + long, tail);
        }
        Ok(())
    }

    fn is_hole(&self, span: &Range<u64>) -> bool {
        let first = self.holes.partition_point(|hole| hole.end <= span.start);
        self.holes.get(first).is_some_and(|hole| hole.start <= span.start && span.end <= hole.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_says_where_a_disk_is_offered() {
        let unix = |path: &str, export: &str| Place { at: At::Unix(path.into()), export: export.into() };
        assert_eq!(place("nbd+unix:///disk0?socket=/run/a%20b"), Some(Ok(unix("/run/a b", "disk0"))));
        assert_eq!(place("nbd+unix:///?socket=s"), Some(Ok(unix("s", ""))));
        assert_eq!(place("nbd+unix:///a%2Fb?socket=s"), Some(Ok(unix("s", "a/b"))));
        let tcp = |host: &str, port| Place { at: At::Tcp(host.into(), port), export: "x".into() };
        assert_eq!(place("nbd://atlas/x"), Some(Ok(tcp("atlas", 10_809))));
        assert_eq!(place("nbd://[::1]:7/x"), Some(Ok(tcp("::1", 7))));
        for wrong in
            ["nbd+unix:///x", "nbd+unix:///x?socket=", "nbd:///x", "nbd+unix:///%f?socket=s", "nbd://a:b/"]
        {
            assert!(place(wrong).is_some_and(|place| place.is_err()), "{wrong}");
        }
        assert_eq!(place("disk.img"), None);
    }

    #[test]
    fn what_lies_in_both_is_found() {
        assert_eq!(both(&[0..10, 20..30], &[5..25, 28..40]), [5..10, 20..25, 28..30]);
        assert_eq!(both(&[0..10, 20..30], &[10..20, 30..40]), []);
        assert_eq!(both(&[0..100, 200..300], &[1..2, 3..4, 250..400]), [1..2, 3..4, 250..300]);
    }

    #[test]
    fn holes_are_left_out_of_what_is_wanted() {
        assert_eq!(without(&[0..10, 11..12], &[]), [0..10, 11..12]);
        assert_eq!(without(&[0..10, 20..30], &[0..2, 5..6, 8..25]), [2..5, 6..8, 25..30]);
        assert_eq!(without(&[0..10, 20..30], &[0..40, 50..60]), []);
        assert_eq!(without(&[5..10, 20..30], &[0..3, 40..50]), [5..10, 20..30]);
    }
}
