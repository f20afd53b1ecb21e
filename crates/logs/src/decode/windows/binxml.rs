//! XML as EVTX files have it: tokens, names by their place in the chunk, and templates that are filled with values.

use super::event::{Event, Fault};
use super::evtx::{micros, number};
use crate::decode::time;
use std::fmt::Write;
use std::ops::Range;

/// Templates within values within templates.
const DEEPEST: usize = 8;

/// Steps that a chunk may take: an ordinary one takes a tenth of them.
const STEPS: u32 = 1 << 20;

/// Bytes of text that count as a step.
const BYTES_A_STEP: usize = 16;

/// Letters of a name that are read.
const MOST_OF_NAME: usize = 64;

/// Letters of a value that are shown.
const MOST_LETTERS: usize = 16_384;

/// Bytes before the content of a template.
const TEMPLATE_HEAD: usize = 24;

/// What may still be done for a chunk, however its templates name each other.
#[derive(Debug)]
pub struct Budget {
    steps: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { steps: STEPS }
    }
}

impl Budget {
    fn take(&mut self, steps: usize) -> Result<(), Fault> {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.steps = self.steps.checked_sub(steps).ok_or(Fault::Endless)?;
        Ok(())
    }
}

/// A value by its type and its place in the chunk.
#[derive(Clone, Debug)]
struct Value {
    kind: u8,
    place: Range<usize>,
}

/// The values with which a template is filled.
#[derive(Debug)]
pub struct Template {
    values: Vec<Value>,
    /// Only in a template have elements a number that says what they depend on.
    is_template: bool,
    depth: usize,
}

impl Template {
    /// What stands in no template.
    pub const fn none() -> Self {
        Self { values: Vec::new(), is_template: false, depth: 0 }
    }
}

/// Where in the chunk is read.
struct Reader<'a> {
    chunk: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    fn number(&mut self, length: usize) -> Result<u64, Fault> {
        let bytes = self.take(length)?;
        number(bytes, 0, length).ok_or(Fault::Broken)
    }

    fn size(&mut self) -> Result<usize, Fault> {
        usize::try_from(self.number(4)?).map_err(|_| Fault::Broken)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.end).ok_or(Fault::Broken)?;
        let taken = self.chunk.get(self.at..end).ok_or(Fault::Broken)?;
        self.at = end;
        Ok(taken)
    }

    /// A text with the number of its letters before it.
    fn text(&mut self) -> Result<String, Fault> {
        let letters = self.number(2)? as usize;
        Ok(wide(self.take(2 * letters)?))
    }

    /// A name, which lies anywhere in the chunk, or here if nothing had that name before.
    fn name(&mut self) -> Result<String, Fault> {
        let place = self.size()?;
        let letters = number(self.chunk, place.saturating_add(6), 2).ok_or(Fault::Broken)? as usize;
        let bytes = self.chunk.get(place + 8..place + 8 + 2 * letters).ok_or(Fault::Broken)?;
        if place == self.at {
            self.take(8 + 2 * letters + 2)?;
        }
        Ok(wide(&bytes[..bytes.len().min(2 * MOST_OF_NAME)]))
    }
}

/// Reads tokens in a place of the chunk, and tells the event what they are.
pub fn fragment(
    chunk: &[u8],
    place: Range<usize>,
    template: &Template,
    budget: &mut Budget,
    event: &mut Event,
) -> Result<(), Fault> {
    if template.depth > DEEPEST {
        return Err(Fault::Deep);
    }
    let mut reader = Reader { chunk, at: place.start, end: place.end.min(chunk.len()) };
    let mut attribute: Option<(String, String)> = None;
    while reader.at < reader.end {
        budget.take(1)?;
        let before = reader.at;
        let token = reader.number(1)?;
        if !matches!(token, 0x05 | 0x45 | 0x08 | 0x48 | 0x09 | 0x49 | 0x0d | 0x0e)
            && let Some((name, value)) = attribute.take()
        {
            event.attribute(&name, &value);
        }
        let text = match token {
            0x00 => return Ok(()),
            0x01 | 0x41 => {
                element(&mut reader, token == 0x41, template, event)?;
                continue;
            }
            0x02 => continue,
            0x03 | 0x04 => {
                event.close()?;
                continue;
            }
            0x06 | 0x46 => {
                attribute = Some((reader.name()?, String::new()));
                continue;
            }
            0x0c => {
                instance(&mut reader, template.depth, budget, event)?;
                continue;
            }
            0x0d | 0x0e => match substitution(&mut reader, template, budget, event)? {
                Some(text) => text,
                None => continue,
            },
            0x0f => {
                reader.take(3)?;
                continue;
            }
            other => literal(&mut reader, other)?,
        };
        budget.take((reader.at - before) / BYTES_A_STEP)?;
        match &mut attribute {
            Some((_, value)) if value.len() > MOST_LETTERS => {}
            Some((_, value)) => value.push_str(&text),
            None => event.text(&text),
        }
    }
    Ok(())
}

/// An element begins.
fn element(
    reader: &mut Reader,
    has_attributes: bool,
    template: &Template,
    event: &mut Event,
) -> Result<(), Fault> {
    reader.take(if template.is_template { 6 } else { 4 })?;
    let name = reader.name()?;
    if has_attributes {
        reader.take(4)?;
    }
    event.open(&name)
}

/// A text that is written where it stands.
fn literal(reader: &mut Reader, token: u64) -> Result<String, Fault> {
    match token {
        0x05 | 0x45 => {
            let kind = reader.number(1)?;
            if kind == 0x01 { reader.text() } else { Err(Fault::Broken) }
        }
        0x07 | 0x47 => reader.text(),
        0x08 | 0x48 => {
            let letter = u32::try_from(reader.number(2)?).ok().and_then(char::from_u32);
            Ok(letter.unwrap_or(char::REPLACEMENT_CHARACTER).to_string())
        }
        0x09 | 0x49 => Ok(match reader.name()?.as_str() {
            "lt" => "<",
            "gt" => ">",
            "amp" => "&",
            "quot" => "\"",
            "apos" => "'",
            _ => "",
        }
        .to_owned()),
        0x0a => reader.name().map(|_| String::new()),
        0x0b => reader.text().map(|_| String::new()),
        _ => Err(Fault::Broken),
    }
}

/// A template, which lies anywhere in the chunk, or here at its first use; then the values that fill it.
fn instance(reader: &mut Reader, depth: usize, budget: &mut Budget, event: &mut Event) -> Result<(), Fault> {
    reader.take(5)?;
    let place = reader.size()?;
    let length = number(reader.chunk, place.saturating_add(20), 4).ok_or(Fault::Broken)? as usize;
    let content = place + TEMPLATE_HEAD..(place + TEMPLATE_HEAD).saturating_add(length);
    if content.end > reader.chunk.len() {
        return Err(Fault::Broken);
    }
    if place == reader.at {
        reader.take(TEMPLATE_HEAD + length)?;
    }
    let count = reader.size()?;
    let kinds = reader.take(count.checked_mul(4).ok_or(Fault::Broken)?)?;
    budget.take(count)?;
    let mut values = Vec::with_capacity(count);
    for kind in kinds.chunks_exact(4) {
        let start = reader.at;
        reader.take(usize::from(kind[0]) | usize::from(kind[1]) << 8)?;
        values.push(Value { kind: kind[2], place: start..reader.at });
    }
    let template = Template { values, is_template: true, depth: depth + 1 };
    fragment(reader.chunk, content, &template, budget, event)
}

/// A value in its place; nothing, if it was XML itself and is told already.
fn substitution(
    reader: &mut Reader,
    template: &Template,
    budget: &mut Budget,
    event: &mut Event,
) -> Result<Option<String>, Fault> {
    let id = reader.number(2)? as usize;
    reader.take(1)?;
    let Some(Value { kind, place }) = template.values.get(id) else { return Ok(Some(String::new())) };
    budget.take(place.len() / BYTES_A_STEP)?;
    if *kind == 0x21 {
        let inner = Template { values: Vec::new(), is_template: false, depth: template.depth + 1 };
        fragment(reader.chunk, place.clone(), &inner, budget, event)?;
        return Ok(None);
    }
    let bytes = reader.chunk.get(place.clone()).ok_or(Fault::Broken)?;
    Ok(Some(shown(*kind, bytes)))
}

/// A value as it is shown: as Windows shows it, or in hexadecimal digits.
fn shown(kind: u8, bytes: &[u8]) -> String {
    let unsigned = || number(bytes, 0, bytes.len()).filter(|_| bytes.len() <= 8);
    let signed = || {
        let bits = 64_u32.checked_sub(8 * u32::try_from(bytes.len()).ok()?)?;
        Some((unsigned()?.checked_shl(bits)?.cast_signed()) >> bits)
    };
    let text = match kind {
        0x00 => Some(String::new()),
        0x01 | 0x81 => Some(wide(bytes).replace('\0', ", ")),
        0x02 => Some(
            String::from_utf8_lossy(&bytes[..bytes.len().min(MOST_LETTERS)])
                .trim_end_matches('\0')
                .to_owned(),
        ),
        0x03 | 0x05 | 0x07 | 0x09 => signed().map(|number| number.to_string()),
        0x04 | 0x06 | 0x08 | 0x0a => unsigned().map(|number| number.to_string()),
        0x0b => bytes.try_into().ok().map(|bytes| f32::from_le_bytes(bytes).to_string()),
        0x0c => bytes.try_into().ok().map(|bytes| f64::from_le_bytes(bytes).to_string()),
        0x0d => unsigned().map(|truth| (truth != 0).to_string()),
        0x0f => guid(bytes),
        0x10 | 0x14 | 0x15 => unsigned().map(|number| format!("0x{number:x}")),
        0x11 => unsigned().and_then(micros).map(time::text),
        0x13 => sid(bytes),
        _ => None,
    };
    text.unwrap_or_else(|| hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(128).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn guid(bytes: &[u8]) -> Option<String> {
    let (a, b, c) = (number(bytes, 0, 4)?, number(bytes, 4, 2)?, number(bytes, 6, 2)?);
    let (d, e) = (bytes.get(8..10)?, bytes.get(10..16)?);
    Some(format!("{{{a:08x}-{b:04x}-{c:04x}-{}-{}}}", hex(d), hex(e)))
}

/// `S-1-5-18`.
fn sid(bytes: &[u8]) -> Option<String> {
    let (revision, count) = (bytes.first()?, usize::from(*bytes.get(1)?));
    let authority = bytes.get(2..8)?.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let mut text = format!("S-{revision}-{authority}");
    for part in 0..count.min(15) {
        let _ = write!(text, "-{}", number(bytes, 8 + 4 * part, 4)?);
    }
    Some(text)
}

/// Text in UTF-16, without the zero at its end.
fn wide(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).take(MOST_LETTERS).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let text: String =
        char::decode_utf16(units).map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    text.trim_end_matches('\0').to_owned()
}
