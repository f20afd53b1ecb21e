//! Lengths of time as stories write them.

use std::time::Duration;

/// Reads `500ms`, `2.5s`, `60s`, `5m`, `1h`, `365d`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(end);
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let part_millis = part.parse::<u64>().ok()?.checked_mul(millis)? / 10u64.checked_pow(part.len() as u32)?;
    Some(Duration::from_millis(whole.parse::<u64>().ok()?.checked_mul(millis)? + part_millis))
}

/// Writes a length of time so that [`parse_duration`] reads the same again, to the millisecond.
#[must_use]
pub fn duration_text(long: Duration) -> String {
    let millis = long.as_millis();
    match millis {
        m if m > 0 && m % 86_400_000 == 0 => format!("{}d", m / 86_400_000),
        m if m > 0 && m % 3_600_000 == 0 => format!("{}h", m / 3_600_000),
        m if m >= 120_000 && m % 60_000 == 0 => format!("{}m", m / 60_000),
        m if m % 1_000 == 0 => format!("{}s", m / 1_000),
        m if m > 1_000 => format!("{}.{:03}", m / 1_000, m % 1_000).trim_end_matches('0').to_owned() + "s",
        m => format!("{m}ms"),
    }
}
