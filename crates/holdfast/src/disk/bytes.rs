//! Numbers and texts as bytes, and back. Whatever bytes come: read or refused, never more than there is (I18).

/// It breaks off, or cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its content breaks off or cannot be")]
pub struct BreaksOff;

/// A number in as few bytes as it takes, seven bits each.
pub fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The same with a sign: small ones of either sign are short.
pub fn signed(out: &mut Vec<u8>, value: i64) {
    number(out, (value << 1 ^ value >> 63).cast_unsigned());
}

/// Reads bytes from the front, never beyond their end.
pub struct Bytes<'b>(pub &'b [u8]);

impl<'b> Bytes<'b> {
    /// The next byte.
    pub fn byte(&mut self) -> Result<u8, BreaksOff> {
        let (first, rest) = self.0.split_first().ok_or(BreaksOff)?;
        self.0 = rest;
        Ok(*first)
    }

    /// The next number.
    pub fn number(&mut self) -> Result<u64, BreaksOff> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(BreaksOff)
    }

    /// The next number with its sign.
    pub fn signed(&mut self) -> Result<i64, BreaksOff> {
        let value = self.number()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// The next text, which says how long it is.
    pub fn text(&mut self) -> Result<&'b str, BreaksOff> {
        let length = usize::try_from(self.number()?).map_err(|_| BreaksOff)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(BreaksOff)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| BreaksOff)
    }
}
