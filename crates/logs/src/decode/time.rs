//! Times as logs write them, in microseconds since 1970. A time without a zone is taken for UTC, and says so by
//! having none.

/// A time that a stranger wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Microseconds since 1970 (UTC).
    pub micros: i64,
    /// Minutes from UTC, where it was written.
    pub zone: Option<i16>,
}

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// What is left to read.
#[derive(Clone, Copy)]
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn eat(&mut self, wanted: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(wanted)?;
        Some(())
    }

    fn one_of(&mut self, wanted: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        wanted.contains(first).then(|| self.0 = rest)?;
        Some(*first)
    }

    /// A number of so many digits, at least and at most.
    fn number(&mut self, least: usize, most: usize) -> Option<u32> {
        let length = self.0.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
        (length >= least).then_some(())?;
        let (digits, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(digits.iter().fold(0, |sum: u32, digit| sum.wrapping_mul(10) + u32::from(digit - b'0')))
    }

    fn month(&mut self) -> Option<u32> {
        let name = self.0.first_chunk::<3>()?;
        let month = MONTHS.iter().position(|known| *known == name)?;
        self.0 = &self.0[3..];
        u32::try_from(month + 1).ok()
    }

    /// `21:19:48.123` as microseconds of the day; a leap second is the first of the next minute.
    fn clock(&mut self) -> Option<i64> {
        let hour = self.number(2, 2).filter(|hour| *hour < 24)?;
        self.eat(b":")?;
        let minute = self.number(2, 2).filter(|minute| *minute < 60)?;
        self.eat(b":")?;
        let second = self.number(2, 2).filter(|second| *second <= 60)?;
        let whole = i64::from(hour * 3_600 + minute * 60 + second) * SECOND;
        Some(whole + self.fraction())
    }

    /// `.123`, if it is there.
    fn fraction(&mut self) -> i64 {
        let mut ahead = *self;
        if ahead.one_of(b".,").is_none() {
            return 0;
        }
        let length = ahead.0.iter().take(12).take_while(|byte| byte.is_ascii_digit()).count();
        if length == 0 {
            return 0;
        }
        let digits = ahead.0[..length].iter().chain(std::iter::repeat(&b'0')).take(6);
        *self = Self(&ahead.0[length..]);
        digits.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'))
    }

    /// `Z`, ` UTC`, `+02:00`, ` -0700`, ` +03`, in minutes; nothing is eaten if none is there.
    fn zone(&mut self) -> Option<i16> {
        let mut ahead = *self;
        if ahead.eat(b"Z").is_some() && !ahead.goes_on() {
            *self = ahead;
            return Some(0);
        }
        let _ = ahead.eat(b" ");
        if (ahead.eat(b"UTC").is_some() || ahead.eat(b"GMT").is_some()) && !ahead.goes_on() {
            *self = ahead;
            return Some(0);
        }
        let is_west = ahead.one_of(b"+-")? == b'-';
        let hours = ahead.number(2, 2).filter(|hours| *hours <= 18)?;
        let _ = ahead.eat(b":");
        let minutes = ahead.number(2, 2).or_else(|| (!ahead.goes_on()).then_some(0))?;
        if minutes > 59 || ahead.goes_on() {
            return None;
        }
        *self = ahead;
        let zone = i16::try_from(hours * 60 + minutes).ok()?;
        Some(if is_west { -zone } else { zone })
    }

    fn goes_on(&self) -> bool {
        self.0.first().is_some_and(u8::is_ascii_alphanumeric)
    }

    /// The time read, and how many of these bytes it took.
    fn done(self, day: i64, clock: i64, zone: Option<i16>, whole: &[u8]) -> (Stamp, usize) {
        let micros = day * DAY + clock - i64::from(zone.unwrap_or(0)) * 60 * SECOND;
        (Stamp { micros, zone }, whole.len() - self.0.len())
    }
}

/// Days from 1970 to a date, if there is such a date. (Howard Hinnant, *chrono-compatible low-level date algorithms*.)
fn day(year: u32, month: u32, date: u32) -> Option<i64> {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let longest = match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=longest).contains(&date) || !(1..=9_999).contains(&year) {
        return None;
    }
    let year = i64::from(year) - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * i64::from((month + 9) % 12) + 2) / 5 + i64::from(date) - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

/// The year of a day.
fn year(micros: i64) -> u32 {
    let days = micros.div_euclid(DAY) + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let years = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * years + years / 4 - years / 100);
    let year = era * 400 + years + i64::from(of_year >= 306); // the years of this count begin in March
    u32::try_from(year.clamp(1, 9_999)).unwrap_or(1)
}

/// A time as ISO 8601 writes it, in UTC: `2026-11-23T21:19:48.123456Z`.
pub fn text(micros: i64) -> String {
    let (days, clock) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
    let year = year(micros);
    let of_year = |month: u32, date: u32| day(year, month, date).unwrap_or(days);
    let month = (1..=12).rev().find(|month| of_year(*month, 1) <= days).unwrap_or(1);
    let date = days - of_year(month, 1) + 1;
    let (seconds, fraction) = (clock / SECOND, clock % SECOND);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

/// The day of a date without a year, so that the time lies nearest to when it came. The 29th of February
/// is looked for in more years.
fn nearest(month: u32, date: u32, clock: i64, received: i64) -> Option<i64> {
    let now = year(received);
    if let Some(day) = day(now, month, date)
        && (day * DAY + clock).abs_diff(received) < 180 * DAY.unsigned_abs()
    {
        return Some(day);
    }
    let reach = if (month, date) == (2, 29) { 4 } else { 1 };
    (now.saturating_sub(reach)..=now + reach)
        .filter_map(|year| day(year, month, date))
        .min_by_key(|day| (day * DAY + clock).abs_diff(received))
}

/// `2026-11-23T21:19:48.123456+01:00`, `2026-11-23 21:19:48,123 UTC`, `2026/11/23 21:19:48`.
pub fn iso(bytes: &[u8]) -> Option<(Stamp, usize)> {
    let mut rest = Rest(bytes);
    let year = rest.number(4, 4)?;
    let between = rest.one_of(b"-/")?;
    let month = rest.number(2, 2)?;
    rest.eat(&[between])?;
    let day = day(year, month, rest.number(2, 2)?)?;
    rest.one_of(b"T ")?;
    let clock = rest.clock()?;
    let zone = rest.zone();
    Some(rest.done(day, clock, zone, bytes))
}

/// `Oct 11 22:14:15`, `Oct  1 22:14:15.123`, `Oct 11 2003 22:14:15`: what has no year gets one.
pub fn old(bytes: &[u8], received: i64) -> Option<(Stamp, usize)> {
    let mut rest = Rest(bytes);
    let month = rest.month()?;
    rest.eat(b" ")?;
    let _ = rest.eat(b" ");
    let date = rest.number(1, 2)?;
    rest.eat(b" ")?;
    let mut ahead = rest;
    if let Some(year) = ahead.number(4, 4) {
        ahead.eat(b" ")?;
        let clock = ahead.clock()?;
        return Some(ahead.done(day(year, month, date)?, clock, None, bytes));
    }
    let clock = rest.clock()?;
    let day = nearest(month, date, clock, received)?;
    let zone = rest.zone();
    Some(rest.done(day, clock, zone, bytes))
}

/// `23 Nov 2026 21:19:48.000`, as Redis writes it.
pub fn spelled(bytes: &[u8]) -> Option<(Stamp, usize)> {
    let mut rest = Rest(bytes);
    let date = rest.number(1, 2)?;
    rest.eat(b" ")?;
    let month = rest.month()?;
    rest.eat(b" ")?;
    let day = day(rest.number(4, 4)?, month, date)?;
    rest.eat(b" ")?;
    let clock = rest.clock()?;
    let zone = rest.zone();
    Some(rest.done(day, clock, zone, bytes))
}

/// `1123 21:19:48.123456`, as klog writes it: month and day.
pub fn short(bytes: &[u8], received: i64) -> Option<(Stamp, usize)> {
    let mut rest = Rest(bytes);
    let (month, date) = (rest.number(2, 2)?, rest.number(2, 2)?);
    rest.eat(b" ")?;
    let clock = rest.clock()?;
    Some(rest.done(nearest(month, date, clock, received)?, clock, None, bytes))
}

/// `261123 21:19:48` or `261123  1:19:48`, as older MySQL and MariaDB write it: year, month, day.
pub fn compact(bytes: &[u8]) -> Option<(Stamp, usize)> {
    let mut rest = Rest(bytes);
    let (year, month, date) = (rest.number(2, 2)?, rest.number(2, 2)?, rest.number(2, 2)?);
    let day = day(2_000 + year, month, date)?;
    rest.eat(b" ")?;
    let clock = rest.clock()?;
    Some(rest.done(day, clock, None, bytes))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const RECEIVED: i64 = 1_795_468_788_000_000; // 2026-11-23T21:19:48Z

    fn micros(text: &str) -> i64 {
        iso(text.as_bytes()).unwrap().0.micros
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(micros("1970-01-01 00:00:00"), 0);
        assert_eq!(micros("2000-02-29T12:00:00Z"), 951_825_600_000_000);
        assert_eq!(micros("2026-11-23T21:19:48Z"), RECEIVED);
        assert_eq!(micros("1969-12-31 23:59:59.999999"), -1);
        for year in 1..=9_999 {
            let (first, last) = (day(year, 1, 1).unwrap(), day(year, 12, 31).unwrap());
            assert_eq!((super::year(first * DAY), super::year(last * DAY + DAY - 1)), (year, year));
        }
        for text in
            ["2026-02-29 00:00:00", "2026-13-01 00:00:00", "2026-01-00 00:00:00", "0000-01-01 00:00:00"]
        {
            assert_eq!(iso(text.as_bytes()), None, "{text}");
        }
        for text in
            ["2026-01-01 24:00:00", "2026-01-01 00:60:00", "2026-01-01", "2026-01/01 00:00:00", "", "2"]
        {
            assert_eq!(iso(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_zone_that_is_written_is_kept() {
        for (text, zone, end) in [
            ("2026-11-23T21:19:48Z x", Some(0), 20),
            ("2026-11-23 21:19:48.123 UTC [1]", Some(0), 27),
            ("2026-11-23T21:19:48+05:30 x", Some(330), 25),
            ("2026-11-23 21:19:48 -0700", Some(-420), 25),
            ("2026-11-23 21:19:48 +03 [1]", Some(180), 23),
            ("2026-11-23 21:19:48 - a", None, 19),
            ("2026-11-23 21:19:48 0 [Note]", None, 19),
            ("2026-11-23 21:19:48 UTCX", None, 19),
            ("2026-11-23 21:19:48+99:00", None, 19),
            ("2026-11-23 21:19:48,5", None, 21),
        ] {
            let (stamp, used) = iso(text.as_bytes()).unwrap();
            assert_eq!((stamp.zone, used), (zone, end), "{text}");
        }
        assert_eq!(micros("2026-11-23T22:19:48+01:00"), RECEIVED);
    }

    #[test]
    fn a_time_without_a_year_gets_the_nearest() {
        for (text, received, expected) in [
            ("Nov 23 21:19:48", "2026-11-23 21:19:50", "2026-11-23 21:19:48"),
            ("Dec 31 23:59:59", "2027-01-01 00:00:01", "2026-12-31 23:59:59"),
            ("Jan  1 00:00:01", "2026-12-31 23:59:59", "2027-01-01 00:00:01"),
            ("Feb 29 10:00:00", "2026-11-23 00:00:00", "2028-02-29 10:00:00"),
            ("Oct 11 2003 22:14:15", "2026-11-23 00:00:00", "2003-10-11 22:14:15"),
        ] {
            assert_eq!(old(text.as_bytes(), micros(received)).unwrap().0.micros, micros(expected), "{text}");
        }
        assert_eq!(old(b"Feb 30 10:00:00", RECEIVED), None);
        for received in [i64::MIN, i64::MAX, 0] {
            let _ = old(b"Oct 11 22:14:15", received);
        }
    }

    #[test]
    fn the_other_forms() {
        let all = [
            spelled(b"23 Nov 2026 21:19:48.000 * x"),
            short(b"1123 21:19:48.000000    1 a.go:1] x", RECEIVED),
            compact(b"261123 21:19:48 [ERROR]"),
        ];
        assert_eq!(all.map(|found| found.unwrap().0.micros), [RECEIVED; 3]);
    }
}
