//! What was seen in a series, as a small value that reads as a plain sentence.

use crate::time::{Duration, Timestamp, show};
use serde::{Deserialize, Serialize};

/// Ways in which a series can be unusual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SightKind {
    /// A value far from those just before it.
    Spike,
    /// The values moved to another level and stay there.
    Level,
    /// The values vary more, or less, than they used to.
    Spread,
    /// The values move in a way that was not seen before.
    Shape,
    /// The values are not what they usually are at this hour.
    Season,
    /// The values stand still, and never stood still so long.
    Flat,
    /// Values are missing, and never were for so long.
    Missing,
}

impl SightKind {
    /// The word for scripts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spike => "spike",
            Self::Level => "level",
            Self::Spread => "spread",
            Self::Shape => "shape",
            Self::Season => "season",
            Self::Flat => "flat",
            Self::Missing => "missing",
        }
    }
}

/// One thing seen in a series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sight {
    /// In which way it is unusual.
    pub kind: SightKind,
    /// Since when it has held.
    pub since: Timestamp,
    /// When it was seen.
    pub at: Timestamp,
    /// What was measured: a value, a mean of some, or their variation, by kind; seconds for `Flat` and `Missing`.
    pub value: f64,
    /// What that usually is.
    pub usual: f64,
}

/// Ratios within these are told as such; others are clearer as two numbers.
const RATIOS: (f64, f64) = (1.15, 1_000.0);

impl Sight {
    /// How long it has held.
    #[must_use]
    pub fn lasted(&self) -> Duration {
        self.at.since(self.since)
    }

    /// The sentence: "latency of orders 3.1x its usual for this hour, for 40s".
    #[must_use]
    pub fn say(&self, name: &str) -> String {
        let lasted = self.lasted();
        let held = if lasted.is_zero() { String::new() } else { format!(", for {}", show(lasted)) };
        let (value, usual) = (number(self.value), number(self.usual));
        match self.kind {
            SightKind::Spike => format!("{name} jumped to {value}, usually about {usual}"),
            SightKind::Level => format!("{name} at a new level, {value} instead of {usual}{held}"),
            SightKind::Spread if self.value < self.usual => {
                format!("{name} varies less than usual, by {value} instead of {usual}{held}")
            }
            SightKind::Spread => match self.ratio() {
                Some(ratio) => format!("{name} varies {ratio} as much as usual{held}"),
                None => format!("{name} varies by {value} instead of {usual}{held}"),
            },
            SightKind::Shape => format!("{name} moves as it never did before{held}"),
            SightKind::Season => match self.ratio() {
                Some(ratio) => format!("{name} {ratio} its usual for this hour{held}"),
                None => format!("{name} {value}, usually {usual} at this hour{held}"),
            },
            SightKind::Flat => format!("{name} has stood still{held}; never so long before"),
            SightKind::Missing => format!("{name} has no values{held}; never so long before"),
        }
    }

    /// "3.1x", where a ratio says it best.
    fn ratio(&self) -> Option<String> {
        let ratio = self.value / self.usual;
        let told = |ratio: f64| (RATIOS.0..RATIOS.1).contains(&ratio);
        (self.usual > 0.0 && self.value > 0.0 && (told(ratio) || told(1.0 / ratio)))
            .then(|| if ratio >= 0.1 { format!("{ratio:.1}x") } else { format!("{ratio:.3}x") })
    }
}

/// A number as short as it can be read.
fn number(value: f64) -> String {
    let size = value.abs();
    match value {
        _ if size == 0.0 => "0".into(),
        _ if !(1e-3..1e7).contains(&size) => format!("{value:.2e}"),
        _ if size >= 100.0 => format!("{value:.0}"),
        _ if size >= 1.0 => trimmed(&format!("{value:.2}")),
        _ => trimmed(&format!("{value:.4}")),
    }
}

fn trimmed(text: &str) -> String {
    text.trim_end_matches('0').trim_end_matches('.').into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(kind: SightKind, value: f64, usual: f64) -> Sight {
        Sight { kind, since: Timestamp::from_secs(60), at: Timestamp::from_secs(100), value, usual }
    }

    #[test]
    fn each_kind_reads_as_a_plain_sentence() {
        let says = |kind, value, usual| sight(kind, value, usual).say("latency of orders");
        assert_eq!(
            says(SightKind::Season, 31.0, 10.0),
            "latency of orders 3.1x its usual for this hour, for 40s"
        );
        assert_eq!(
            says(SightKind::Season, -3.0, 0.5),
            "latency of orders -3, usually 0.5 at this hour, for 40s"
        );
        assert_eq!(
            says(SightKind::Spike, 92.25, 10.0),
            "latency of orders jumped to 92.25, usually about 10"
        );
        assert_eq!(
            says(SightKind::Level, 0.0123, 1e9),
            "latency of orders at a new level, 0.0123 instead of 1.00e9, for 40s"
        );
        assert_eq!(
            says(SightKind::Spread, 8.0, 2.0),
            "latency of orders varies 4.0x as much as usual, for 40s"
        );
        assert_eq!(
            says(SightKind::Spread, 0.0, 2.0),
            "latency of orders varies less than usual, by 0 instead of 2, for 40s"
        );
        assert_eq!(
            says(SightKind::Shape, 1.0, 2.0),
            "latency of orders moves as it never did before, for 40s"
        );
        assert_eq!(
            says(SightKind::Flat, 40.0, 2.0),
            "latency of orders has stood still, for 40s; never so long before"
        );
        assert_eq!(
            says(SightKind::Missing, 40.0, 2.0),
            "latency of orders has no values, for 40s; never so long before"
        );
    }
}
