//! Cuts a line into tokens, in one pass and without a regular expression.
//!
//! A token ends at a blank or a mark. What starts like a date, an address, a path or a number is tried as
//! such first, since these may hold marks; what is left is judged by the bytes it is made of.

use super::bytes::{CAPITAL, CLASS, DIGIT, HEX, JOINT, LETTER, MARK, SLASH, SPACE, class, digits, is_end};
use super::token::{Token, Value, What};
use super::{hash, time, value};

/// Tokens of one line that are told apart; what follows is one value.
pub const MOST_TOKENS: usize = 256;

/// Puts the tokens of a line, in order, in place of those of the line before.
pub fn scan(line: &str, tokens: &mut Vec<Token>) {
    tokens.clear();
    let mut scanner = Scanner { line: line.as_bytes(), at: 0, gap: false, tokens };
    while scanner.skip_blanks() {
        if scanner.tokens.len() + 4 > MOST_TOKENS {
            let end = scanner.line.trim_ascii_end().len();
            scanner.value(Value::Several, end);
            return;
        }
        scanner.next();
    }
}

struct Scanner<'a> {
    line: &'a [u8],
    at: usize,
    /// A blank was passed, and is not yet part of a token.
    gap: bool,
    tokens: &'a mut Vec<Token>,
}

impl Scanner<'_> {
    /// Whether anything is left behind the blanks.
    fn skip_blanks(&mut self) -> bool {
        while self.at < self.line.len() && CLASS[usize::from(self.line[self.at])] == SPACE {
            self.at += 1;
            self.gap = !self.tokens.is_empty();
        }
        self.at < self.line.len()
    }

    fn next(&mut self) {
        let first = self.line[self.at];
        match CLASS[usize::from(first)] & !CAPITAL {
            MARK => return self.mark(first),
            DIGIT => return self.number(self.at),
            JOINT | SLASH | 0 if self.leading(first) => return,
            HEX if self.colons() => return,
            HEX | LETTER if first.is_ascii_alphabetic() && self.lettered(first) => return,
            _ => {}
        }
        let blob = Blob::at(self.line, self.at, self.at);
        self.judge(&blob);
    }

    fn push(&mut self, what: What, end: usize, tail: usize) {
        let bytes = &self.line[self.at..end];
        let hash = match what {
            What::Value(_) if tail == 0 => 0,
            What::Value(_) => hash::text(&bytes[bytes.len() - tail..]),
            What::Word | What::Name | What::Numbered | What::Mark => hash::text(bytes),
        };
        let (start, end, tail) = (self.at as u32, end as u32, tail as u32);
        self.tokens.push(Token { start, end, tail, gap: self.gap, what, hash });
        self.at = end as usize;
        self.gap = false;
    }

    fn value(&mut self, value: Value, end: usize) {
        self.push(What::Value(value), end, 0);
    }

    /// Punctuation; but for `<1 sec`, and for a text of one piece in double quotes.
    fn mark(&mut self, first: u8) {
        match first {
            b'"' => {
                let closing = value::quoted(self.line, self.at);
                self.push(What::Mark, self.at + 1, 0);
                if let Some(end) = closing {
                    self.value(Value::Quoted, end);
                    self.push(What::Mark, end + 1, 0);
                }
            }
            b'<' if class(self.line, self.at + 1) == DIGIT => {
                let end = self.at + 1 + digits(self.line, self.at + 1);
                match value::unit_after(self.line, end) {
                    Some((kind, end, _)) => self.value(kind, end),
                    None => self.push(What::Mark, self.at + 1, 0),
                }
            }
            _ => self.push(What::Mark, self.at + 1, 0),
        }
    }

    /// What starts with a sign, a dot or a slash: a path, an address as Java prints it, a signed number, or
    /// punctuation.
    fn leading(&mut self, first: u8) -> bool {
        let next = class(self.line, self.at + 1);
        if first == b'/'
            && next == DIGIT
            && let Some(end) = value::ipv4(self.line, self.at + 1)
        {
            self.value(Value::Address, end);
        } else if let Some(end) = value::path(self.line, self.at) {
            self.path(end);
        } else if matches!(first, b'-' | b'+') && next == DIGIT {
            self.number(self.at + 1);
        } else if first == b'.' && next != SPACE {
            let dots = self.line[self.at..].iter().take_while(|byte| **byte == b'.').count();
            self.push(What::Mark, self.at + dots, 0);
        } else {
            return false;
        }
        true
    }

    /// A path, or the target of a request.
    fn path(&mut self, end: usize) {
        match value::request(self.line, end) {
            Some(end) => self.value(Value::Url, end),
            None => self.value(Value::Path, end),
        }
    }

    fn colons(&mut self) -> bool {
        let near = (1..=4).any(|ahead| self.line.get(self.at + ahead) == Some(&b':'));
        let end = if near { value::colons(self.line, self.at) } else { None };
        if let Some(end) = end {
            self.value(Value::Address, end);
        }
        end.is_some()
    }

    /// What starts with a letter and is a date, or a path of Windows.
    fn lettered(&mut self, first: u8) -> bool {
        let third = self.line.get(self.at + 3);
        if first.is_ascii_uppercase()
            && matches!(third, Some(b' ' | b','))
            && let Some(end) = time::named(self.line, self.at)
        {
            self.value(Value::Time, end);
            return true;
        }
        if self.line.get(self.at + 1) == Some(&b':')
            && let Some(end) = value::path(self.line, self.at)
        {
            self.path(end);
            return true;
        }
        false
    }

    /// A time or an address that starts with a digit.
    fn dated(&self, from: usize) -> Option<(Value, usize)> {
        let time = |end: Option<usize>| end.map(|end| (Value::Time, end));
        let address = |end: Option<usize>| end.map(|end| (Value::Address, end));
        let length = digits(self.line, from);
        match self.line.get(from + length)? {
            b':' if from == self.at => address(value::colons(self.line, from))
                .or_else(|| time(time::clock(self.line, from)))
                .or_else(|| address(value::pci(self.line, from))),
            b'-' | b'/' => time(time::date(self.line, from)),
            b'.' => address(value::ipv4(self.line, from)).or_else(|| time(time::date(self.line, from))),
            b' ' if length <= 2 => time(time::named(self.line, from)),
            b'T' | b' ' if length == 8 => time(time::date(self.line, from)),
            b'a'..=b'f' | b'A'..=b'F' => address(value::colons(self.line, from)),
            _ => None,
        }
    }

    /// What starts with a digit, perhaps behind a sign.
    fn number(&mut self, from: usize) {
        if let Some((kind, end)) = self.dated(from) {
            return self.value(kind, end);
        }
        let blob = Blob::at(self.line, self.at, from);
        let end = blob.end;
        if blob.digits + blob.dots == end - from {
            return match value::unit_after(self.line, end) {
                Some((kind, end, tail)) => self.push(What::Value(kind), end, tail),
                None => self.value(Value::Number, end),
            };
        }
        let name = &self.line[from..end];
        let kind = number_kind(name, &blob);
        if kind == Value::Path {
            return self.path(end);
        }
        match value::host_port(self.line, name, end) {
            Some(end) => self.value(Value::Address, end),
            None => self.value(kind, end),
        }
    }

    /// A token that starts with no digit: a word, or a name with numbers in it.
    fn judge(&mut self, blob: &Blob) {
        let name = &self.line[self.at..blob.end];
        if blob.letters == 0 && blob.digits == 0 {
            return self.push(What::Mark, blob.end, 0);
        }
        if let Some(end) = value::url(self.line, blob.end) {
            return self.value(Value::Url, end);
        }
        if blob.dots > 0 || name == b"localhost" {
            if let Some(end) = value::host_port(self.line, name, blob.end) {
                return self.value(Value::Address, end);
            }
            if value::is_host(name) {
                return self.value(Value::Address, blob.end);
            }
        }
        if blob.digits > 0
            && let Some(joint) = counted(name, blob)
        {
            self.push(What::Word, self.at + joint, 0);
            self.push(What::Mark, self.at + 1, 0);
            return self.value(Value::Number, blob.end);
        }
        if blob.slashes > 1 || (blob.slashes == 1 && blob.digits > 0) {
            return self.path(blob.end);
        }
        if blob.digits == 0 || self.expects_name() {
            let what = self.word(name);
            return self.push(what, blob.end, 0);
        }
        let what = numbered_kind(name, blob);
        self.push(what, blob.end, 0);
    }

    /// A word without digits: `true`, a user's name, or just a word.
    fn word(&self, name: &[u8]) -> What {
        let truths: [&[u8]; 4] = [b"true", b"false", b"null", b"nil"];
        if name.len() <= 5 && truths.iter().any(|truth| truth.eq_ignore_ascii_case(name)) {
            return What::Value(Value::Truth);
        }
        if self.expects_name() { What::Name } else { What::Word }
    }

    /// Whether a user's name comes next: behind `user=`, `for user `, `invalid user `, `password for `.
    fn expects_name(&self) -> bool {
        let text = |token: &Token| &self.line[token.start as usize..token.end as usize];
        let [.., before, last] = self.tokens.as_slice() else { return false };
        let is_user =
            |word: &[u8]| word.eq_ignore_ascii_case(b"user") || word.eq_ignore_ascii_case(b"username");
        let last = text(last);
        if matches!(last, b"=" | b":") {
            return !self.gap && is_user(text(before));
        }
        let leads: [&[u8]; 5] = [b"for", b"by", b"invalid", b"illegal", b"of"];
        let is =
            |token: &Token, words: &[&[u8]]| words.iter().any(|word| word.eq_ignore_ascii_case(text(token)));
        (last.len() == 4 && is_user(last) && is(before, &leads))
            || (last == b"for" && is(before, &[b"password", b"publickey"]))
    }
}

/// What a token that starts with a digit is.
fn number_kind(name: &[u8], blob: &Blob) -> Value {
    let hex = name.strip_prefix(b"0x").or(name.strip_prefix(b"0X"));
    if hex.is_some_and(value::is_hex) || (name.len() >= 4 && value::is_hex(name)) {
        return Value::Hex;
    }
    if value::is_uuid(name) {
        return Value::Uuid;
    }
    let number = name.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
    match &name[number..] {
        b"%" => Value::Number,
        rest if value::unit(rest).is_some() => value::unit(rest).unwrap_or(Value::Number),
        _ if blob.slashes > 1 => Value::Path,
        _ if blob.dots > 1 && value::is_host(name) => Value::Address,
        _ => Value::Id,
    }
}

/// Where the joint is in `core.7830`, `node-31`, `HTTP/1.1`: a plain word, and a number behind it.
fn counted(name: &[u8], blob: &Blob) -> Option<usize> {
    let joint = blob.letters;
    let (front, back) = (name.get(..joint)?, name.get(joint + 1..)?);
    let is_joint = matches!(name[joint], b'.' | b'-' | b'/');
    let is_number = back.first().is_some_and(u8::is_ascii_digit)
        && back.iter().all(|byte| byte.is_ascii_digit() || (*byte == b'.' && name[joint] == b'/'));
    (is_joint && is_number && front.iter().all(u8::is_ascii_alphabetic)).then_some(joint)
}

/// What a token is that starts with a letter and holds digits.
fn numbered_kind(name: &[u8], blob: &Blob) -> What {
    if value::is_uuid(name) {
        What::Value(Value::Uuid)
    } else if name.len() >= 6 && value::is_hex(name) {
        What::Value(Value::Hex)
    } else if matches!(name, [b'v' | b'V', rest @ ..] if rest.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.'))
    {
        What::Value(Value::Number)
    } else if blob.longest >= 4 || blob.joined || (blob.groups > 1 && blob.joints > 0) {
        What::Value(Value::Id)
    } else {
        What::Numbered
    }
}

/// A run of bytes without blanks and marks, and what it is made of.
struct Blob {
    end: usize,
    digits: usize,
    letters: usize,
    dots: usize,
    joints: usize,
    slashes: usize,
    /// Runs of digits, and the length of the longest.
    groups: usize,
    longest: usize,
    /// Digits stand right behind a joint: `part-01835`.
    joined: bool,
}

impl Blob {
    /// The one that starts at `from`, judged from `start` (behind a sign).
    fn at(line: &[u8], from: usize, start: usize) -> Self {
        let mut blob = Self {
            end: from,
            digits: 0,
            letters: 0,
            dots: 0,
            joints: 0,
            slashes: 0,
            groups: 0,
            longest: 0,
            joined: false,
        };
        let (mut run, mut before) = (0, 0);
        let mut at = start;
        while at < line.len() {
            let here = CLASS[usize::from(line[at])] & !CAPITAL;
            match here {
                SPACE | MARK => break,
                DIGIT => {
                    blob.digits += 1;
                    blob.groups += usize::from(run == 0);
                    blob.joined |= before == JOINT;
                    run += 1;
                    blob.longest = blob.longest.max(run);
                }
                JOINT => {
                    if line[at] == b'.' {
                        if is_end(line, at) {
                            break;
                        }
                        blob.dots += 1;
                    }
                    blob.joints += 1;
                }
                SLASH => blob.slashes += 1,
                HEX | LETTER => blob.letters += 1,
                _ => {}
            }
            if here != DIGIT {
                run = 0;
            }
            before = here;
            at += 1;
        }
        blob.end = at.max(start + 1).min(line.len());
        blob
    }
}
