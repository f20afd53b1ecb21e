//! Dates and times of day, as logs write them.

use super::bytes::{digits, is_end};

const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
const DAYS: [&[u8; 3]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];

/// The end of a time of day that starts here: `8:16`, `08:16:53`, `08:16:53.123`, `08:16:53,123+02:00`,
/// `8:16:5:60`.
pub fn clock(line: &[u8], at: usize) -> Option<usize> {
    let minutes = at + short(line, at)?;
    let seconds = minutes + 1 + short(line, minutes + 1).filter(|_| line.get(minutes) == Some(&b':'))?;
    let mut end = seconds;
    match short(line, seconds + 1) {
        Some(length) if line.get(seconds) == Some(&b':') => {
            end += 1 + length;
            if matches!(line.get(end), Some(b'.' | b',' | b':')) {
                let fraction = digits(line, end + 1);
                end += if (1..=9).contains(&fraction) { fraction + 1 } else { 0 };
            }
        }
        Some(_) | None if seconds - minutes < 3 => return None, // `3:5` may be anything
        Some(_) | None => {}
    }
    end = zone(line, end);
    is_end(line, end).then_some(end)
}

/// One or two digits.
fn short(line: &[u8], at: usize) -> Option<usize> {
    Some(digits(line, at)).filter(|length| matches!(length, 1 | 2))
}

/// `Z`, `+02:00`, `-0700`, glued or after a blank.
fn zone(line: &[u8], at: usize) -> usize {
    match line.get(at) {
        Some(b'Z') => at + 1,
        Some(b'+' | b'-') => offset(line, at).unwrap_or(at),
        Some(b' ') if matches!(line.get(at + 1), Some(b'+' | b'-')) => offset(line, at + 1).unwrap_or(at),
        Some(_) | None => at,
    }
}

fn offset(line: &[u8], sign: usize) -> Option<usize> {
    let end = match digits(line, sign + 1) {
        4 => sign + 5,
        2 if line.get(sign + 3) == Some(&b':') && digits(line, sign + 4) == 2 => sign + 6,
        _ => return None,
    };
    is_end(line, end).then_some(end)
}

/// The end of a date in digits that starts here, with the time that follows it: `2017-05-16 05:00:00`,
/// `2016/9/27:20:30:31.455`, `10/Oct/2000:13:55:36 -0700`, `2026-11-23T21:19:48Z`, `20171223-22:15:29:606`.
pub fn date(line: &[u8], at: usize) -> Option<usize> {
    let first = digits(line, at);
    if first == 8 && matches!(line.get(at..at + 2), Some(b"19" | b"20")) {
        return clock(line, at + 9).filter(|_| matches!(line[at + 8], b'-' | b'T' | b' '));
    }
    let between = *line.get(at + first)?;
    if !matches!(between, b'-' | b'/' | b'.') || !matches!(first, 1 | 2 | 4) {
        return None;
    }
    let second = at + first + 1;
    let length = match digits(line, second) {
        length @ (1 | 2) => length,
        _ if between != b'.' && is_month(line, second) => 3,
        _ => return None,
    };
    if line.get(second + length) != Some(&between) {
        return None;
    }
    let third = digits(line, second + length + 1);
    if !matches!((first, third), (4, 1 | 2) | (1 | 2, 4)) {
        return None;
    }
    with_clock(line, second + length + 1 + third)
}

/// The time behind a date, if there is one.
fn with_clock(line: &[u8], end: usize) -> Option<usize> {
    let follows = matches!(line.get(end), Some(b'T' | b' ' | b':' | b'-'));
    if follows && let Some(later) = clock(line, end + 1) {
        return Some(later);
    }
    is_end(line, end).then_some(end)
}

/// The end of a date with names that starts here: `Fri Jul 01 08:16:53 PDT 2005`, `Jul  1 08:16:53`,
/// `Fri, 01 Jul 2005 08:16:53 +0000`, `01 Jul 2005`.
pub fn named(line: &[u8], at: usize) -> Option<usize> {
    let mut at = at;
    if name(line, at).is_some_and(|name| DAYS.contains(&name)) {
        at += 3 + usize::from(line.get(at + 3) == Some(&b','));
        at = blank(line, at)?;
    }
    if is_month(line, at) {
        let day = blank(line, at + 3)?;
        let end = day + short(line, day)?;
        let end = blank(line, end).and_then(|next| clock(line, next)).unwrap_or(end);
        return is_end(line, end).then(|| year(line, end));
    }
    let day = short(line, at)?;
    let month = blank(line, at + day).filter(|month| is_month(line, *month))?;
    let year = blank(line, month + 3)?;
    let end = (digits(line, year) == 4).then_some(year + 4)?;
    let end = blank(line, end).and_then(|next| clock(line, next)).unwrap_or(end);
    is_end(line, end).then_some(end)
}

/// `PDT 2005` or `2005` behind a time.
fn year(line: &[u8], end: usize) -> usize {
    let after = |at: usize| {
        let year = blank(line, at)?;
        (digits(line, year) == 4 && is_end(line, year + 4)).then_some(year + 4)
    };
    let named = || {
        let zone = blank(line, end)?;
        let letters = line[zone..].iter().take(6).take_while(|byte| byte.is_ascii_uppercase()).count();
        (3..=5).contains(&letters).then(|| after(zone + letters)).flatten()
    };
    after(end).or_else(named).unwrap_or(end)
}

/// Behind one or two blanks.
fn blank(line: &[u8], at: usize) -> Option<usize> {
    let blanks = line.get(at..)?.iter().take(3).take_while(|byte| **byte == b' ').count();
    matches!(blanks, 1 | 2).then_some(at + blanks)
}

fn name(line: &[u8], at: usize) -> Option<&[u8; 3]> {
    let end = line.get(at + 3);
    let ends = end.is_none_or(|byte| matches!(byte, b' ' | b',' | b'/' | b'-'));
    line.get(at..)?.first_chunk::<3>().filter(|_| ends)
}

fn is_month(line: &[u8], at: usize) -> bool {
    name(line, at).is_some_and(|name| MONTHS.contains(&name))
}
