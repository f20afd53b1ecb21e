//! Values that are known by their form: addresses, paths, requests, quantities.

use super::bytes::{CLASS, HEX, MARK, SPACE, class, digits, hexes, is_end};
use super::token::Value;

/// The end of an IPv4 address that starts here, with its prefix length, a second address behind a slash
/// (as Java prints them) and its port.
pub fn ipv4(line: &[u8], at: usize) -> Option<usize> {
    let mut end = quad(line, at)?;
    if line.get(end) == Some(&b'/') {
        end = match (quad(line, end + 1), digits(line, end + 1)) {
            (Some(second), _) => second,
            (None, length @ (1 | 2)) => end + 1 + length,
            (None, _) => end,
        };
    }
    end = port(line, end);
    is_end(line, end).then_some(end)
}

fn quad(line: &[u8], at: usize) -> Option<usize> {
    let mut end = at;
    for part in 0..4 {
        if part > 0 {
            end = (line.get(end) == Some(&b'.')).then_some(end + 1)?;
        }
        let length = digits(line, end);
        if !(1..=3).contains(&length) {
            return None;
        }
        end += length;
    }
    Some(end)
}

/// Behind `:PORT`, if one stands here.
fn port(line: &[u8], at: usize) -> usize {
    let length = digits(line, at + 1);
    let ends = (1..=5).contains(&length) && is_end(line, at + 1 + length);
    if line.get(at) == Some(&b':') && ends { at + 1 + length } else { at }
}

/// The end of a hardware or IPv6 address that starts here: groups of hexadecimal digits between colons.
pub fn colons(line: &[u8], at: usize) -> Option<usize> {
    let (mut end, mut groups, mut pairs, mut gaps) = (at, 0, 0, 0);
    loop {
        let length = hexes(line, end);
        if length > 4 {
            return None;
        }
        groups += usize::from(length > 0);
        pairs += usize::from(length == 2);
        end += length;
        if line.get(end) != Some(&b':') || groups > 24 {
            break;
        }
        if line.get(end + 1) == Some(&b':') {
            gaps += 1;
            end += 1;
        } else if length == 0 && end > at && line[end - 1] != b':' {
            return None;
        } else if hexes(line, end + 1) == 0 {
            break;
        }
        end += 1;
    }
    let hardware = gaps == 0 && groups == pairs && groups >= 6;
    let internet = (gaps == 0 && groups == 8) || (gaps == 1 && (1..8).contains(&groups) && end - at > 3);
    ((hardware || internet) && is_end(line, end)).then_some(end)
}

/// The end of a PCI address that starts here: `0000:00:1e.0`.
pub fn pci(line: &[u8], at: usize) -> Option<usize> {
    let pair = |at| hexes(line, at) == 2;
    let is_here = hexes(line, at) == 4
        && line.get(at + 4) == Some(&b':')
        && pair(at + 5)
        && line.get(at + 7) == Some(&b':')
        && pair(at + 8)
        && line.get(at + 10) == Some(&b'.')
        && hexes(line, at + 11) == 1;
    (is_here && is_end(line, at + 12)).then_some(at + 12)
}

/// The end of a path that starts here: `/var/log`, `~/x`, `./x`, `C:\x`, `\\host\x`.
pub fn path(line: &[u8], at: usize) -> Option<usize> {
    let rest = &line[at..];
    let root = match rest {
        [b'/', next, ..] if is_name(*next) => 1,
        [b'~' | b'.', b'/', next, ..] | [b'.', b'.', b'/', next, ..] if is_name(*next) => 2,
        [drive, b':', b'\\' | b'/', next, ..] if drive.is_ascii_alphabetic() && is_name(*next) => 3,
        [b'\\', b'\\', ..] => 2,
        _ => return None,
    };
    let outside = |byte: &u8| {
        CLASS[usize::from(*byte)] & SPACE != 0
            || (CLASS[usize::from(*byte)] & MARK != 0 && !matches!(byte, b'=' | b'#' | b'@' | b'!' | b'?'))
    };
    let from = at + root;
    let end = line[from..].iter().position(outside).map_or(line.len(), |length| from + length);
    let end = end.min(line.len());
    Some(if end == line.len() && line[end - 1] == b'.' { end - 1 } else { end })
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'*' | b'%' | b'$' | b'-' | 0x80..)
}

/// Behind ` HTTP/1.1`, if it stands here: it belongs to the target of a request.
pub fn request(line: &[u8], at: usize) -> Option<usize> {
    let rest = line.get(at..)?.strip_prefix(b" HTTP/")?;
    let end = at + line[at..].len() - rest.len();
    let end = end + rest.iter().take(4).take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
    is_end(line, end).then_some(end)
}

/// The end of the rest of a URL whose scheme ends here, before `://`.
pub fn url(line: &[u8], at: usize) -> Option<usize> {
    let rest = line.get(at..)?.strip_prefix(b"://")?;
    let outside =
        |byte: &u8| byte <= &b' ' || matches!(byte, b'"' | b'\'' | b'<' | b'>' | b'`' | b'|' | b')' | b']');
    let length = rest.iter().position(outside).unwrap_or(rest.len());
    let closing =
        rest[..length].iter().rev().take_while(|byte| matches!(byte, b'.' | b',' | b';' | b':')).count();
    (length > closing).then_some(at + 3 + length - closing)
}

/// The last byte but one of a text in double quotes that opens here: one piece, no blanks, not empty.
pub fn quoted(line: &[u8], at: usize) -> Option<usize> {
    let rest = line.get(at + 1..)?;
    let length = rest.iter().take(256).position(|byte| *byte == b'"' || *byte <= b' ')?;
    let end = at + 1 + length;
    (length > 0 && line[end] == b'"' && class(line, end + 1) & (SPACE | MARK) != 0).then_some(end)
}

/// The end of a host's name with a port behind it, of which the name ends here.
pub fn host_port(line: &[u8], name: &[u8], end: usize) -> Option<usize> {
    let with_port = port(line, end);
    if with_port < end + 3 {
        return None;
    }
    let joined = name.iter().any(|byte| *byte == b'-' || byte.is_ascii_digit());
    let short = joined && !name.contains(&b'.') && with_port > end + 4 && is_labels(name);
    (is_host(name) || is_lower_host(name) || short || name == b"localhost").then_some(with_port)
}

/// Whether this may be a host's name, where a port follows.
fn is_lower_host(name: &[u8]) -> bool {
    let dotted = name.iter().rposition(|byte| *byte == b'.').is_some_and(|dot| name.len() - dot > 2);
    dotted && is_labels(name) && name.iter().all(|byte| !byte.is_ascii_uppercase())
}

fn is_labels(name: &[u8]) -> bool {
    name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

/// Whether this is a host's name by its last label: a known one, or a country's behind at least two others.
pub fn is_host(name: &[u8]) -> bool {
    let Some(dot) = name.iter().rposition(|byte| *byte == b'.') else { return false };
    let (front, last) = (&name[..dot], &name[dot + 1..]);
    let country =
        last.len() == 2 && front.contains(&b'.') && name.iter().all(|byte| !byte.is_ascii_uppercase());
    let known: [&[u8]; 12] = [
        b"com",
        b"net",
        b"org",
        b"edu",
        b"gov",
        b"mil",
        b"info",
        b"arpa",
        b"local",
        b"localdomain",
        b"lan",
        b"internal",
    ];
    (country || known.contains(&last)) && !front.is_empty() && is_labels(name)
}

/// Whether this is a UUID.
pub fn is_uuid(name: &[u8]) -> bool {
    name.len() == 36
        && name.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

const SIZES: [&[u8]; 18] = [
    b"bytes", b"byte", b"B", b"KB", b"kB", b"MB", b"GB", b"TB", b"KiB", b"MiB", b"GiB", b"TiB", b"k", b"K",
    b"kb", b"mb", b"gb", b"bit",
];
const TIMES: [&[u8]; 22] = [
    b"ms",
    b"us",
    b"ns",
    b"s",
    b"sec",
    b"secs",
    b"second",
    b"seconds",
    b"min",
    b"mins",
    b"minute",
    b"minutes",
    b"h",
    b"hour",
    b"hours",
    b"day",
    b"days",
    b"msec",
    b"msecs",
    b"usec",
    b"milliseconds",
    b"millis",
];

/// What a unit measures.
pub fn unit(word: &[u8]) -> Option<Value> {
    match word {
        word if word.len() > 12 => None,
        word if SIZES.contains(&word) => Some(Value::Size),
        word if TIMES.contains(&word) => Some(Value::Duration),
        _ => None,
    }
}

/// The unit behind a number that ends here, after a blank: what it measures, where it ends, and how much of
/// that is the unit. A size may be there once more for people: of ` bytes (1.48 KB)` nothing is a unit.
pub fn unit_after(line: &[u8], at: usize) -> Option<(Value, usize, usize)> {
    if line.get(at) != Some(&b' ') || !line.get(at + 1)?.is_ascii_alphabetic() {
        return None;
    }
    let end = letters(line, at + 1);
    let value = unit(&line[at + 1..end]).filter(|_| is_end(line, end))?;
    let again = if value == Value::Size { for_people(line, end) } else { None };
    Some(again.map_or((value, end, end - at), |again| (value, again, 0)))
}

fn for_people(line: &[u8], at: usize) -> Option<usize> {
    let rest = line.get(at..)?.strip_prefix(b" (")?;
    let number = rest.iter().take(20).take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
    let from = at + 2 + number;
    let from = from + usize::from(line.get(from) == Some(&b' '));
    let end = letters(line, from);
    (number > 0 && unit(&line[from..end]) == Some(Value::Size) && line.get(end) == Some(&b')'))
        .then_some(end + 1)
}

fn letters(line: &[u8], at: usize) -> usize {
    at + line[at..].iter().take(16).take_while(|byte| byte.is_ascii_alphabetic()).count()
}

/// Whether these are hexadecimal digits and nothing else.
pub fn is_hex(name: &[u8]) -> bool {
    name.iter().all(|byte| CLASS[usize::from(*byte)] & HEX != 0 || byte.is_ascii_digit())
}
