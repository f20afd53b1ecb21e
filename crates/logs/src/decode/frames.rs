//! Syslog over a stream (RFC 6587): where one message ends and the next begins.

/// Bytes of a message that are kept: the longest text with its head.
const KEPT: usize = crate::LONGEST_TEXT + 1_024;

/// The greatest octet count that is believed. What claims to be longer is read as a line.
const MOST_OCTETS: usize = 1 << 16;

/// Digits of an octet count that may be believed.
const MOST_DIGITS: usize = 5;

/// A buffer that grew beyond this is given back after its message.
const SPARE: usize = 4_096;

/// One stream of messages, each with its length before it (`34 <13>...`) or with a line end behind it: that is
/// told apart anew for each message, as senders mix them. Of a message at most 17 KiB are kept, and that is all the
/// memory a stream can take.
#[derive(Debug, Default)]
pub struct Frames {
    kept: Vec<u8>,
    form: Form,
    cut: u64,
    skipped: u64,
}

/// What is being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Form {
    /// The first bytes of a message, which say what it is.
    #[default]
    Start,
    /// Up to the end of the line; how much of it was too long to keep.
    Line { over: u64 },
    /// So many bytes more; how many were too many to keep.
    Counted { left: usize, over: u64 },
}

/// What the first bytes of a message say.
enum Begin {
    /// It takes so many bytes, behind so many.
    Counted {
        octets: usize,
        behind: usize,
    },
    Line,
    /// Too few bytes to tell.
    Unsure,
}

impl Frames {
    /// Takes bytes in as they come, and hands over each message that is complete, without its framing.
    pub fn feed(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            bytes = match self.form {
                Form::Start => self.start(bytes, &mut take),
                Form::Line { over } => self.line(bytes, over, &mut take),
                Form::Counted { left, over } => self.counted(bytes, left, over, &mut take),
            };
        }
    }

    /// At the end of the stream: hands over a message that has no end.
    pub fn finish(&mut self, mut take: impl FnMut(&[u8])) {
        let over = match self.form {
            Form::Start => 0,
            Form::Line { over } | Form::Counted { over, .. } => over,
        };
        self.deliver(over, &mut take);
    }

    /// Messages of which the end was left out, as they are too long.
    #[must_use]
    pub const fn cut(&self) -> u64 {
        self.cut
    }

    /// Bytes that were left out.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    fn start<'a>(&mut self, bytes: &'a [u8], take: &mut impl FnMut(&[u8])) -> &'a [u8] {
        if self.kept.is_empty() {
            // between messages: ends of lines, and the zero bytes that some senders put in their place
            let blanks = bytes.iter().take_while(|byte| matches!(byte, b'\n' | b'\r' | 0)).count();
            let bytes = &bytes[blanks..];
            return match begin(bytes) {
                Begin::Counted { octets, behind } => {
                    self.go_on(Form::Counted { left: octets, over: 0 }, &bytes[behind..])
                }
                Begin::Line => self.whole_line(bytes, take),
                Begin::Unsure => {
                    self.kept.extend_from_slice(bytes);
                    &[]
                }
            };
        }
        self.kept.push(bytes[0]);
        match begin(&self.kept) {
            Begin::Counted { octets, behind } => {
                self.kept.drain(..behind);
                self.form = Form::Counted { left: octets - self.kept.len(), over: 0 };
            }
            Begin::Line if self.kept.ends_with(b"\n") => {
                self.kept.pop();
                self.deliver(0, take);
            }
            Begin::Line => self.form = Form::Line { over: 0 },
            Begin::Unsure => {}
        }
        &bytes[1..]
    }

    fn go_on<'a>(&mut self, form: Form, rest: &'a [u8]) -> &'a [u8] {
        self.form = form;
        rest
    }

    /// A line that lies whole in these bytes is not copied.
    fn whole_line<'a>(&mut self, bytes: &'a [u8], take: &mut impl FnMut(&[u8])) -> &'a [u8] {
        match bytes.iter().take(KEPT).position(|byte| *byte == b'\n') {
            Some(end) => {
                hand_over(&bytes[..end], take);
                &bytes[end + 1..]
            }
            None => self.go_on(Form::Line { over: 0 }, bytes),
        }
    }

    fn line<'a>(&mut self, bytes: &'a [u8], over: u64, take: &mut impl FnMut(&[u8])) -> &'a [u8] {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let over = over + self.keep(&bytes[..end.unwrap_or(bytes.len())]);
        match end {
            Some(end) => {
                self.deliver(over, take);
                &bytes[end + 1..]
            }
            None => self.go_on(Form::Line { over }, &[]),
        }
    }

    fn counted<'a>(
        &mut self,
        bytes: &'a [u8],
        left: usize,
        over: u64,
        take: &mut impl FnMut(&[u8]),
    ) -> &'a [u8] {
        if self.kept.is_empty() && over == 0 && left <= bytes.len().min(KEPT) {
            let (message, rest) = bytes.split_at(left);
            hand_over(message, take);
            return self.go_on(Form::Start, rest);
        }
        let (piece, rest) = bytes.split_at(left.min(bytes.len()));
        let over = over + self.keep(piece);
        match left - piece.len() {
            0 => self.deliver(over, take),
            left => self.form = Form::Counted { left, over },
        }
        rest
    }

    /// Keeps what there is room for; returns how much there was not.
    fn keep(&mut self, piece: &[u8]) -> u64 {
        let fits = piece.len().min(KEPT - self.kept.len());
        self.kept.extend_from_slice(&piece[..fits]);
        (piece.len() - fits) as u64
    }

    fn deliver(&mut self, over: u64, take: &mut impl FnMut(&[u8])) {
        self.form = Form::Start;
        self.cut += u64::from(over > 0);
        self.skipped += over;
        hand_over(&self.kept, take);
        self.kept.clear();
        self.kept.shrink_to(SPARE);
    }
}

/// A message without the end of its line, if there is anything in it.
fn hand_over(message: &[u8], take: &mut impl FnMut(&[u8])) {
    let message = message.strip_suffix(b"\n").unwrap_or(message);
    let message = message.strip_suffix(b"\r").unwrap_or(message);
    if !message.is_empty() {
        take(message);
    }
}

/// A count is digits, a blank, and then the `<` with which every message begins; a line may begin with a date.
fn begin(bytes: &[u8]) -> Begin {
    let digits = bytes.iter().take(MOST_DIGITS + 1).take_while(|byte| byte.is_ascii_digit()).count();
    if bytes.is_empty() {
        return Begin::Unsure;
    }
    if digits == 0 || digits > MOST_DIGITS || bytes[0] == b'0' {
        return Begin::Line;
    }
    match (bytes.get(digits), bytes.get(digits + 1)) {
        (None, _) | (Some(b' '), None) => Begin::Unsure,
        (Some(b' '), Some(b'<')) => {
            let octets = bytes[..digits].iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
            if octets <= MOST_OCTETS { Begin::Counted { octets, behind: digits + 1 } } else { Begin::Line }
        }
        (Some(_), _) => Begin::Line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(bytes: &[u8], step: usize) -> (Vec<String>, u64, u64) {
        let (mut frames, mut found) = (Frames::default(), Vec::new());
        let mut take = |packet: &[u8]| found.push(String::from_utf8_lossy(packet).into_owned());
        for piece in bytes.chunks(step) {
            frames.feed(piece, &mut take);
            assert!(frames.kept.capacity() <= 2 * KEPT, "{}", frames.kept.capacity());
        }
        frames.finish(&mut take);
        (found, frames.cut(), frames.skipped())
    }

    #[test]
    fn both_framings_are_told_apart_message_by_message() {
        let stream = b"<13>a line\n11 <13>counted<14>another\r\n\n\n2026 is no count\n12 <13>with\nit\n\n4 <1>x7 <34>abcno end";
        let expected = [
            "<13>a line",
            "<13>counted",
            "<14>another",
            "2026 is no count",
            "<13>with\nit",
            "<1>x",
            "<34>abc",
            "no end",
        ];
        for step in [1, 2, 3, 7, 1_000] {
            assert_eq!(split(stream, step), (expected.map(str::to_owned).to_vec(), 0, 0), "step {step}");
        }
    }

    #[test]
    fn a_count_that_cannot_be_is_read_as_a_line_a21() {
        for text in [
            "4294967295 <34>x",
            "-1 <34>x",
            "99999 <34>x",
            "0 <34>x",
            "00012 <34>x",
            "18446744073709551616 <3>",
        ] {
            for step in [1, 100] {
                let stream = format!("{text}\n<13>next\n");
                assert_eq!(split(stream.as_bytes(), step).0, [text, "<13>next"], "{text}");
            }
        }
        assert_eq!(split(b"65536 <34>short\nand the end", 5).0, ["<34>short\nand the end"]);
    }

    #[test]
    fn of_a_line_of_64_kib_the_first_17_are_kept_and_the_rest_is_counted_a20() {
        let mut stream = vec![b'x'; 1 << 16];
        stream.extend(b"\n<13>next\n65000 <");
        stream.extend(vec![b'y'; 64_999]);
        stream.extend(b"<14>last");
        for step in [1, 1_000, 1 << 20] {
            let (found, cut, skipped) = split(&stream, step);
            assert_eq!(found.iter().map(String::len).collect::<Vec<_>>(), [KEPT, 8, KEPT, 8], "step {step}");
            assert_eq!((cut, skipped), (2, (1 << 16) + 65_000 - 2 * KEPT as u64));
        }
    }

    proptest! {
        #[test]
        fn any_stream_gives_the_same_messages_however_it_is_cut(
            stream in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b' '), Just(b'<'), b'0'..=b'9', any::<u8>()], 0..300),
            step in 1usize..20,
        ) {
            prop_assert_eq!(split(&stream, step), split(&stream, 1_000));
        }
    }
}
