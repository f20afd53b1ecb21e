//! Classes of bytes, and small steps over them.

/// Ends a token and is none: blanks, and control characters where a line was not cleaned.
pub const SPACE: u8 = 1;
/// Ends a token and is one.
pub const MARK: u8 = 2;
/// `0` to `9`.
pub const DIGIT: u8 = 4;
/// `a` to `f`, `A` to `F`.
pub const HEX: u8 = 8;
/// The other letters, and everything beyond ASCII.
pub const LETTER: u8 = 16;
/// `.`, `-`, `_`, `~`: joins the parts of a name.
pub const JOINT: u8 = 32;
/// `/` or `\`.
pub const SLASH: u8 = 64;
/// A capital letter.
pub const CAPITAL: u8 = 128;

/// The class of each byte; 0 for what is left (`*`, `+`, `$`, `%`, `&`, `^`).
pub const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        class[byte] = match byte as u8 {
            0..=b' ' | 0x7f => SPACE,
            b'=' | b'(' | b')' | b'[' | b']' | b'{' | b'}' | b',' | b';' | b':' | b'"' | b'\'' | b'`'
            | b'|' | b'<' | b'>' | b'#' | b'@' | b'!' | b'?' => MARK,
            b'0'..=b'9' => DIGIT,
            b'a'..=b'f' => HEX,
            b'A'..=b'F' => HEX | CAPITAL,
            b'g'..=b'z' | 0x80.. => LETTER,
            b'G'..=b'Z' => LETTER | CAPITAL,
            b'.' | b'-' | b'_' | b'~' => JOINT,
            b'/' | b'\\' => SLASH,
            _ => 0,
        };
        byte += 1;
    }
    class
};

/// The class of the byte there; a line ends in a blank.
pub fn class(line: &[u8], at: usize) -> u8 {
    line.get(at).map_or(SPACE, |byte| CLASS[usize::from(*byte)])
}

/// How many digits stand here; no more than 20 are counted.
pub fn digits(line: &[u8], at: usize) -> usize {
    let rest = line.get(at..).unwrap_or_default();
    rest.iter().take(20).take_while(|byte| byte.is_ascii_digit()).count()
}

/// How many hexadecimal digits stand here; no more than 20 are counted.
pub fn hexes(line: &[u8], at: usize) -> usize {
    let rest = line.get(at..).unwrap_or_default();
    rest.iter().take(20).take_while(|byte| byte.is_ascii_hexdigit()).count()
}

/// Whether a value may end before this byte: at a blank, a mark, the end, or the full stop of a sentence.
pub fn is_end(line: &[u8], at: usize) -> bool {
    let here = class(line, at);
    here & (SPACE | MARK) != 0
        || (line[at] == b'.' && (class(line, at + 1) & (SPACE | MARK) != 0 || line[at + 1] == b'.'))
}
