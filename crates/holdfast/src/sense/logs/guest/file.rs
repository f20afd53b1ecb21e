//! A file in a guest, piece by piece, through rotation.

use super::{Guest, Pull, Trouble, bring};
use crate::sense::logs::Format;
use crate::sense::logs::joined::Joined;
use crate::sense::tail::{Lines, MEMORY};
use async_trait::async_trait;
use holdfast_drivers::{DriverError, GuestRead, Piece};
use holdfast_logs::LONGEST_TEXT;
use std::time::{Duration, Instant};

/// Bytes read at once.
const MOST_BYTES: usize = 32 * 1024;
/// Bytes that may be left unread; beyond it, old ones are skipped.
const MOST_BEHIND: u64 = 16 << 20;

/// Pieces of a rotated file that are read at once, and the pause before each.
const MOST_REST: u32 = 256;
const BREATH: Duration = Duration::from_millis(50);

/// Bytes before a place, and the checksum of the last of them, at most [`MEMORY`]: by it a file is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spot {
    offset: u64,
    sum: u32,
}

impl Spot {
    const START: Self = Self { offset: 0, sum: 0 };

    fn read(text: &str) -> Option<Self> {
        let (offset, sum) = text.strip_prefix("guest ")?.split_once(' ')?;
        Some(Self { offset: offset.parse().ok()?, sum: u32::from_str_radix(sum, 16).ok()? })
    }

    fn write(self) -> String {
        format!("guest {} {:08x}", self.offset, self.sum)
    }

    /// How many bytes before it are looked at.
    fn memory(self) -> usize {
        usize::try_from(self.offset).map_or(MEMORY, |offset| offset.min(MEMORY))
    }
}

/// Where to begin.
enum Begin {
    /// At the end of what is there: it is of long ago.
    End,
    /// At this place.
    At(Spot),
}

/// A file in a guest.
pub struct GuestFile {
    path: String,
    format: Format,
    begin: Begin,
    lines: Lines,
}

/// A piece of a file, without the bytes before it that only served to know it again.
struct Next {
    piece: Piece,
    behind: usize,
    size: u64,
}

impl GuestFile {
    /// `first`: the source begins; a file that it comes upon later is read from its start.
    pub fn new(path: String, format: Format, place: Option<String>, first: bool) -> Self {
        let begin = match place.as_deref().and_then(Spot::read) {
            Some(spot) => Begin::At(spot),
            None if first => Begin::End,
            None => Begin::At(Spot::START),
        };
        Self { path, format, begin, lines: Lines::new(LONGEST_TEXT) }
    }

    /// What follows a place, if the file still has it.
    async fn next(&self, guest: &Guest, path: &str, spot: Spot) -> Result<Option<Next>, Trouble> {
        let behind = spot.memory();
        let offset = spot.offset - behind as u64;
        let read = GuestRead::File { path: path.to_owned(), offset, most: MOST_BYTES + behind };
        let piece = match guest.read(&read).await {
            Err(Trouble::Driver(DriverError::Refused { why, .. })) if is_missing(&why) => {
                return Err(Trouble::Missing);
            }
            piece => piece?,
        };
        let size = piece.size.unwrap_or(0);
        let known = size >= spot.offset
            && piece.bytes.len() >= behind
            && (behind == 0 || crc32fast::hash(&piece.bytes[..behind]) == spot.sum);
        Ok(known.then_some(Next { piece, behind, size }))
    }

    /// Brings what follows a place; the new place, or `None` when nobody takes records any more.
    async fn bring(&mut self, to: &mut Joined, from: Spot, next: &Next) -> Option<Spot> {
        let begin = from.offset - next.behind as u64;
        let bytes = &next.piece.bytes;
        let spot = |end: usize| Spot {
            offset: begin.saturating_add(end as u64), // a guest may say that its file is endless
            sum: crc32fast::hash(&bytes[end.saturating_sub(MEMORY)..end]),
        };
        let (mut records, received) = (Vec::new(), to.feed.received());
        let format = self.format;
        self.lines.feed(&bytes[next.behind..], Instant::now(), |line, used| {
            if let Some(record) = format.record(line, received) {
                records.push((record, spot(next.behind + used).write()));
            }
        });
        bring(to, &next.piece, records).await.then(|| spot(bytes.len()))
    }

    /// The file was truncated, or another has its name. What was left of it is looked for where it is moved to by
    /// most; then the new one is read from its start.
    async fn rotated(
        &mut self,
        guest: &Guest,
        to: &mut Joined,
        mut from: Spot,
    ) -> Result<Option<bool>, Trouble> {
        let moved = format!("{}.1", self.path);
        for piece in 0.. {
            if piece == MOST_REST {
                to.feed.gauge.dropped(1);
                break;
            }
            tokio::time::sleep(BREATH).await; // others need the agent, too
            match self.next(guest, &moved, from).await {
                Ok(Some(next)) => {
                    let Some(spot) = self.bring(to, from, &next).await else { return Ok(None) };
                    from = spot;
                    if next.size <= spot.offset || next.piece.bytes.len() == next.behind {
                        break;
                    }
                }
                Ok(None) | Err(Trouble::Missing) => {
                    to.feed.gauge.dropped(1); // what was left unread, if anything was
                    break;
                }
                Err(trouble) => {
                    self.begin = Begin::At(from);
                    return Err(trouble);
                }
            }
        }
        if let Some(half) = self.lines.finish() {
            let record = self.format.record(&half, to.feed.received());
            let said = record.map(|record| to.bring(record.into(), None));
            if let Some(said) = said
                && !said.await
            {
                return Ok(None);
            }
        }
        self.begin = Begin::At(Spot::START);
        Ok(Some(true))
    }
}

/// Whether a guest says that a file or a folder is not there.
pub(super) fn is_missing(why: &str) -> bool {
    why.contains("No such file") || why.contains("cannot find the")
}

#[async_trait]
impl Pull for GuestFile {
    async fn pull(&mut self, guest: &Guest, to: &mut Joined) -> Result<Option<bool>, Trouble> {
        let from = match self.begin {
            Begin::At(spot) => spot,
            Begin::End => {
                let found = self.next(guest, &self.path, Spot::START).await;
                let size = match found {
                    Ok(next) => next.map_or(0, |next| next.size),
                    Err(trouble) => {
                        if matches!(trouble, Trouble::Missing) {
                            self.begin = Begin::At(Spot::START); // what comes is news
                        }
                        return Err(trouble);
                    }
                };
                self.begin = Begin::At(self.spot_at(guest, size).await?);
                return Ok(Some(false));
            }
        };
        let Some(next) = self.next(guest, &self.path, from).await? else {
            return self.rotated(guest, to, from).await;
        };
        if next.size - from.offset > MOST_BEHIND {
            to.feed.gauge.dropped(1);
            self.lines = Lines::new(LONGEST_TEXT);
            self.begin = Begin::At(self.spot_at(guest, next.size).await?);
            return Ok(Some(true));
        }
        let Some(spot) = self.bring(to, from, &next).await else { return Ok(None) };
        self.begin = Begin::At(spot);
        Ok(Some(next.size > spot.offset && spot.offset > from.offset))
    }
}

impl GuestFile {
    /// The place with so many bytes before it.
    async fn spot_at(&self, guest: &Guest, offset: u64) -> Result<Spot, Trouble> {
        let memory = Spot { offset, sum: 0 }.memory();
        let read =
            GuestRead::File { path: self.path.clone(), offset: offset - memory as u64, most: memory.max(1) };
        let piece = guest.read(&read).await?;
        let before = &piece.bytes[..piece.bytes.len().min(memory)];
        Ok(Spot { offset, sum: crc32fast::hash(before) })
    }
}
