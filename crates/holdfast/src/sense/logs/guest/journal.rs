//! The journal of a guest with systemd, by cursor.

use super::{Guest, Pull, Trouble};
use crate::sense::logs::joined::Joined;
use crate::sense::logs::means::Said;
use async_trait::async_trait;
use holdfast_logs::decode;

/// Bytes asked for at once: with the form of the agent's answer well under its limit.
const MOST_BYTES: usize = 45_000;
/// Letters of a cursor.
const LONGEST_CURSOR: usize = 256;
/// What is told of an entry; its cursor and times always are. A field has at most 4 KiB there (journalctl(1), `--all`).
const FIELDS: &str = "--output-fields=MESSAGE,PRIORITY,SYSLOG_IDENTIFIER,_COMM,_PID,_SYSTEMD_UNIT,_TRANSPORT,_HOSTNAME,MESSAGE_ID";

/// A guest's journal.
pub struct Journal {
    /// Behind what was read; without it, it begins with what comes next.
    cursor: Option<String>,
}

impl Journal {
    pub fn new(place: Option<String>) -> Self {
        Self { cursor: place.filter(|cursor| is_cursor(cursor)) }
    }
}

/// A cursor goes back into the guest as an argument of `journalctl`, so it must be one.
fn is_cursor(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "=;-".contains(c);
    (1..=LONGEST_CURSOR).contains(&text.len()) && text.starts_with("s=") && text.chars().all(fits)
}

#[async_trait]
impl Pull for Journal {
    async fn pull(&mut self, guest: &Guest, to: &mut Joined) -> Result<Option<bool>, Trouble> {
        let script =
            format!("journalctl -q -o json --no-pager {FIELDS} \"$1\" | head -n 200 | head -c {MOST_BYTES}");
        let from = match &self.cursor {
            Some(cursor) => format!("--after-cursor={cursor}"),
            None => "--lines=1".to_owned(),
        };
        let piece = guest.run(&["sh", "-c", &script, "journal", &from]).await?;
        // An entry that was cut off is asked for again.
        let whole = piece.bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut records = Vec::new();
        for line in piece.bytes[..whole].split(|byte| *byte == b'\n') {
            let Ok(entry) = decode::journal(line) else { continue };
            if let Some(cursor) = entry.cursor.filter(|cursor| is_cursor(cursor)) {
                records.push((entry.record, cursor));
            }
        }
        let Some((_, last)) = records.last() else {
            if piece.bytes.len() >= MOST_BYTES {
                to.feed.gauge.dropped(1); // one entry that is longer than an answer may be
                self.cursor = None;
                return Ok(Some(true));
            }
            return if piece.bytes.is_empty() { Ok(Some(false)) } else { Err(Trouble::odd(&piece.bytes)) };
        };
        let (last, count) = (last.clone(), records.len());
        if self.cursor.is_none() {
            self.cursor = Some(last); // what was there when we came is of long ago
            return Ok(Some(false));
        }
        let more = piece.bytes.len() > MOST_BYTES / 2 || count == 200;
        for (record, cursor) in records {
            let said = Said { record, incarnation: Some(piece.incarnation) };
            if !to.bring_entry(said, Some(cursor)).await {
                return Ok(None);
            }
        }
        self.cursor = Some(last);
        Ok(Some(more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_cursor_goes_back_into_the_guest() {
        assert!(is_cursor("s=0639cafa;i=1a;b=66df;m=4c4b40;t=5e9;x=1b2c"));
        for text in ["", "x", "--help", "s=1 --vacuum-time=1s", "s=$(reboot)", "s=`x`", "s=1\n"] {
            assert!(!is_cursor(text), "{text}");
        }
        assert!(!is_cursor(&format!("s={}", "1".repeat(300))));
    }
}
