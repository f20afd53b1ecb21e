//! Colours, times and tables for people; plain text when piped.

use super::complain::cannot_print;
use comfy_table::{ContentArrangement, Table, presets};
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Prints a line to standard output, as `println!` does, but never panics: see [`text`].
macro_rules! say {
    () => { $crate::cli::paint::text("\n") };
    ($($words:tt)*) => { $crate::cli::paint::text(&format!("{}\n", format_args!($($words)*))) };
}

/// Nobody reads standard output any more.
static UNREAD: AtomicBool = AtomicBool::new(false);
/// It could not be written to: the disk behind it is full, say.
static UNSAID: AtomicBool = AtomicBool::new(false);

/// Prints to standard output. That its reader has had enough (`| head -1`) is no failure: what is left is
/// then said to nobody, and the command ends as it would have.
pub fn text(text: &str) {
    let mut out = std::io::stdout().lock();
    let Err(cause) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) else { return };
    if cause.kind() == std::io::ErrorKind::BrokenPipe {
        UNREAD.store(true, Ordering::Relaxed);
    } else if !UNSAID.swap(true, Ordering::Relaxed) {
        cannot_print(&cause);
    }
}

/// Prints to standard error, where that can be done.
pub fn aside(text: &str) {
    drop(std::io::stderr().lock().write_all(text.as_bytes())); // nobody is left to be told
}

/// Whether nobody reads any more: what goes on for ever ends.
pub fn is_unread() -> bool {
    UNREAD.load(Ordering::Relaxed)
}

/// Whether something could not be printed.
pub fn could_not_say() -> bool {
    UNSAID.load(Ordering::Relaxed)
}

/// A colour, by what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Well.
    Good,
    /// Doubtful, or under way.
    Warm,
    /// Bad.
    Bad,
    /// In the background.
    Dim,
    /// A heading.
    Bold,
    /// Nothing special.
    Plain,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Warm => "33",
            Self::Bad => "31",
            Self::Dim => "2",
            Self::Bold => "1",
            Self::Plain => "0",
        }
    }

    /// The tone of a state word of VMs, applications, channels or incidents.
    pub fn of(state: &str) -> Self {
        match state {
            "running" | "ok" | "recovered" | "healed" | "done" | "armed" => Self::Good,
            "failed" | "held" | "bad" | "Confirmed" | "braked" => Self::Bad,
            "silent" | "starting" | "suspected" | "waiting" | "recovering" | "verifying" | "maintenance"
            | "observe" | "paused" => Self::Warm,
            "unknown" | "stopped" | "off" | "closed" | "absorbed" | "superseded" => Self::Dim,
            _ => Self::Plain,
        }
    }
}

/// Whether a person with colours reads this stream.
pub fn on_terminal(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// A text in a tone, if a person reads it on a terminal.
pub fn tint(tone: Tone, text: &str) -> String {
    let coloured = on_terminal(&std::io::stdout());
    if coloured && tone != Tone::Plain {
        format!("\x1b[{}m{text}\x1b[0m", tone.code())
    } else {
        text.to_owned()
    }
}

/// A state word in its own tone.
pub fn state(word: &str) -> String {
    tint(Tone::of(word), word)
}

/// A table without lines, as wide as the terminal.
pub fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(head.iter().map(|word| tint(Tone::Dim, word)));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Seconds since the epoch as local time of day.
pub fn clock(at: f64) -> String {
    let zoned = jiff::Timestamp::from_microsecond((at * 1e6) as i64)
        .map(|at| at.to_zoned(jiff::tz::TimeZone::system()));
    zoned.map_or_else(|_| "?".into(), |at| at.strftime("%H:%M:%S%.3f").to_string())
}

/// Seconds since the epoch as a date and time.
pub fn date(at: f64) -> String {
    let zoned = jiff::Timestamp::from_microsecond((at * 1e6) as i64)
        .map(|at| at.to_zoned(jiff::tz::TimeZone::system()));
    zoned.map_or_else(|_| "?".into(), |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// Seconds since the epoch as a date and time in UTC.
pub fn utc(at: f64) -> String {
    let at = jiff::Timestamp::from_microsecond((at * 1e6) as i64);
    at.map_or_else(|_| "?".into(), |at| at.strftime("%Y-%m-%d %H:%M").to_string())
}

/// The same to the second.
pub fn utc_second(at: f64) -> String {
    let at = jiff::Timestamp::from_microsecond((at * 1e6) as i64);
    at.map_or_else(|_| "?".into(), |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// How far that lies in the future, by the clock of here; nothing if it does not.
pub fn ahead(at: f64) -> Option<String> {
    let ahead = crate::clock::ahead(at)?;
    Some(format!("in {} (clock?)", crate::api::shape::spoken(ahead.as_secs_f64())))
}

/// How long ago that was. What is to come says that a clock is wrong, or was.
pub fn ago(at: f64) -> String {
    if let Some(ahead) = ahead(at) {
        return ahead;
    }
    let now = jiff::Timestamp::now().as_microsecond() as f64 / 1e6;
    format!("{} ago", crate::api::shape::spoken(now - at))
}

/// Seconds, or a dash.
pub fn seconds(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.2} s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dated_in_the_future_is_not_told_as_new() {
        let now = crate::clock::wall_seconds();
        assert_eq!(ago(now - 7_200.5), "2h 00m ago");
        assert_eq!(ago(now + 0.5), "0.0s ago", "two clocks may differ a little");
        assert_eq!((ago(now + 10_800.5), ahead(now)), ("in 3h 00m (clock?)".into(), None));
    }
}
