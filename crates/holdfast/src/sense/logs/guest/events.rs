//! An event log of a Windows guest, by the numbers of its records (`wevtutil`).

use super::{Guest, Pull, Trouble, bring};
use crate::sense::logs::joined::Joined;
use async_trait::async_trait;
use holdfast_drivers::Piece;
use holdfast_logs::{Record, decode};

/// Events asked for at once: with their texts, and two bytes a letter, about what an answer may hold.
const AT_ONCE: usize = 8;
/// After so many looks without news it is looked whether the log was cleared.
const LOOKS: u32 = 12;

/// An event log.
pub struct Events {
    name: String,
    /// The number of the last one read; without it, it begins with what comes next.
    last: Option<u64>,
    empty: u32,
}

impl Events {
    pub fn new(name: String, place: Option<String>) -> Self {
        let last = place.and_then(|place| place.strip_prefix("event ")?.parse().ok());
        Self { name, last, empty: 0 }
    }

    /// The number of the newest event; 0 if there is none.
    async fn newest(&self, guest: &Guest) -> Result<u64, Trouble> {
        let words = ["wevtutil", "qe", &self.name, "/c:1", "/rd:true", "/f:xml", "/uni:true"];
        let piece = guest.run(&words).await?;
        let newest = read(&piece)?;
        Ok(newest.last().map_or(0, |(number, _)| *number))
    }
}

#[async_trait]
impl Pull for Events {
    async fn pull(&mut self, guest: &Guest, to: &mut Joined) -> Result<Option<bool>, Trouble> {
        let Some(last) = self.last else {
            self.last = Some(self.newest(guest).await?);
            return Ok(Some(false));
        };
        if self.empty >= LOOKS {
            self.empty = 0;
            let newest = self.newest(guest).await?;
            if newest < last {
                self.last = Some(0); // it was cleared, and its numbers began again
                return Ok(Some(true));
            }
        }
        let (query, count) = (format!("/q:*[System[EventRecordID>{last}]]"), format!("/c:{AT_ONCE}"));
        let words = ["wevtutil", "qe", &self.name, &query, &count, "/f:RenderedXml", "/uni:true"];
        let piece = guest.run(&words).await?;
        let found = read(&piece)?;
        let newer: Vec<(u64, Record)> = found.into_iter().filter(|(number, _)| *number > last).collect();
        let Some(newest) = newer.iter().map(|(number, _)| *number).max() else {
            if piece.bytes.trim_ascii().is_empty() || piece.bytes.len() < 16 {
                self.empty += 1;
                return Ok(Some(false));
            }
            to.feed.gauge.dropped(1); // one event that is longer than an answer may be, or damaged
            self.last = last.checked_add(1); // behind the greatest number it begins anew, with what comes next
            return Ok(Some(true));
        };
        self.empty = 0;
        let more = newer.len() > 1;
        let records = newer.into_iter().map(|(number, record)| (record, format!("event {number}"))).collect();
        if !bring(to, &piece, records).await {
            return Ok(None);
        }
        self.last = Some(newest);
        Ok(Some(more))
    }
}

/// The events of an answer, with their numbers. One that was cut off at its end is left out.
fn read(piece: &Piece) -> Result<Vec<(u64, Record)>, Trouble> {
    let text = text(&piece.bytes);
    if piece.code != Some(0) && !text.contains("<Event") {
        return Err(Trouble::odd(text.as_bytes()));
    }
    let events = decode::event_xml(&text).records.into_iter().filter_map(|record| {
        let number = record.fields.iter().find(|(name, _)| name == "record")?.1.parse().ok()?;
        Some((number, record))
    });
    Ok(events.collect())
}

/// `wevtutil /uni:true` writes UTF-16; other programs of a guest may not.
fn text(bytes: &[u8]) -> String {
    let marked = bytes.starts_with(&[0xff, 0xfe]);
    if !marked && bytes.get(1) != Some(&0) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let units: Vec<u16> = bytes[if marked { 2 } else { 0 }..]
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .collect();
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
impl Events {
    /// As after many looks without news.
    pub fn set_empty(&mut self) {
        self.empty = LOOKS;
    }
}
