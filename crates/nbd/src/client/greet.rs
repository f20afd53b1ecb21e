//! How a client and a server come to know each other.

use super::Export;
use crate::wire::{self, flag, info, option, reply};
use crate::{LENGTH_MOST, NAME_MOST, NbdError, Refusal};
use std::io::{BufReader, Read, Write};

/// The most bytes of a reply to an option.
const REPLY_MOST: u32 = 2 * NAME_MOST as u32;
/// The most replies to one option.
const REPLIES_MOST: usize = 256;
/// What the protocol says of blocks where the server says nothing.
const BLOCK: u32 = 1;
/// No server of ours has larger blocks.
const BLOCK_MOST: u32 = 64 << 10;
const GREETING: &str = "greeting";

/// Agrees on an export; also, whether replies are structured.
pub(super) fn greet<S: Read + Write>(
    stream: &mut BufReader<S>,
    name: &str,
    contexts: &[&str],
) -> Result<(Export, bool), NbdError> {
    let names = contexts.iter().chain([&name]);
    if names.into_iter().any(|name| name.len() > NAME_MOST / 2) || contexts.len() > 16 {
        return Err(NbdError::Broken("we asked for too long a name"));
    }
    let told = NbdError::stream(GREETING);
    let magic = wire::u64(stream).and_then(|first| Ok((first, wire::u64(stream)?))).map_err(told)?;
    if magic != (wire::NBDMAGIC, wire::IHAVEOPT) {
        return Err(NbdError::NotNbd);
    }
    let flags = wire::u16(stream).map_err(NbdError::stream(GREETING))?;
    if flags & wire::FIXED_NEWSTYLE == 0 {
        return Err(NbdError::NotNbd);
    }
    let flags = u32::from(flags & (wire::FIXED_NEWSTYLE | wire::NO_ZEROES));
    write(stream, &flags.to_be_bytes())?;
    let is_structured = is_granted(stream)?;
    let mut ids = vec![None; contexts.len()];
    if is_structured && !contexts.is_empty() {
        ids = contexts_of(stream, name, contexts)?;
    }
    Ok((go(stream, name, ids)?, is_structured))
}

fn write<S: Read + Write>(stream: &mut BufReader<S>, bytes: &[u8]) -> Result<(), NbdError> {
    let stream = stream.get_mut();
    stream.write_all(bytes).and_then(|()| stream.flush()).map_err(NbdError::stream(GREETING))
}

fn ask<S: Read + Write>(stream: &mut BufReader<S>, option: u32, data: &[u8]) -> Result<(), NbdError> {
    let mut out = Vec::new();
    wire::put_option(&mut out, option, data);
    write(stream, &out)
}

/// One reply to an option: its kind and what it says; an error if it is one.
fn answer(
    stream: &mut impl Read,
    to: u32,
    what: &'static str,
) -> Result<Result<(u32, Vec<u8>), NbdError>, NbdError> {
    let told = || NbdError::stream(GREETING);
    let magic = wire::u64(stream).map_err(told())?;
    let option = wire::u32(stream).map_err(told())?;
    let kind = wire::u32(stream).map_err(told())?;
    let length = wire::u32(stream).map_err(told())?;
    if magic != wire::OPTION_REPLY || option != to {
        return Err(NbdError::Broken("what came is no reply to an option"));
    }
    if length > REPLY_MOST {
        return Err(NbdError::Broken("a reply to an option is too long"));
    }
    let mut data = vec![0; length as usize];
    stream.read_exact(&mut data).map_err(told())?;
    if kind & reply::ERROR != 0 {
        let refusal = Refusal::new(kind, &data);
        return Ok(Err(NbdError::Refused { what, refusal }));
    }
    Ok(Ok((kind, data)))
}

/// Whether replies are structured from now on; old servers have none.
fn is_granted<S: Read + Write>(stream: &mut BufReader<S>) -> Result<bool, NbdError> {
    ask(stream, option::STRUCTURED_REPLY, &[])?;
    match answer(stream, option::STRUCTURED_REPLY, "structured replies")? {
        Ok((reply::ACK, _)) => Ok(true),
        Ok(_) => Err(NbdError::Broken("a reply to an option is of an unknown kind")),
        Err(_) => Ok(false),
    }
}

/// The numbers of the contexts; a server without any says so.
fn contexts_of<S: Read + Write>(
    stream: &mut BufReader<S>,
    name: &str,
    contexts: &[&str],
) -> Result<Vec<Option<u32>>, NbdError> {
    let mut data = Vec::new();
    wire::put_name(&mut data, name.as_bytes());
    data.extend_from_slice(&(contexts.len() as u32).to_be_bytes());
    contexts.iter().for_each(|context| wire::put_name(&mut data, context.as_bytes()));
    ask(stream, option::SET_META_CONTEXT, &data)?;
    let mut ids = vec![None; contexts.len()];
    for _ in 0..REPLIES_MOST {
        match answer(stream, option::SET_META_CONTEXT, "meta contexts")? {
            Ok((reply::ACK, _)) => return Ok(ids),
            Ok((reply::META_CONTEXT, data)) => {
                let (id, said) =
                    data.split_at_checked(4).ok_or(NbdError::Broken("a context has no number"))?;
                let id = u32::from_be_bytes(id.try_into().unwrap_or_default());
                let which = contexts.iter().position(|context| context.as_bytes() == said);
                if ids.contains(&Some(id)) {
                    return Err(NbdError::Broken("two contexts have one number"));
                }
                // One that was not asked for is nothing to us.
                which.into_iter().for_each(|which| ids[which] = Some(id));
            }
            Ok(_) => return Err(NbdError::Broken("a reply to an option is of an unknown kind")),
            Err(NbdError::Refused { refusal, .. }) if refusal.code == reply::UNSUPPORTED => return Ok(ids),
            Err(refused) => return Err(refused),
        }
    }
    Err(NbdError::Broken("an option has too many replies"))
}

fn go<S: Read + Write>(
    stream: &mut BufReader<S>,
    name: &str,
    contexts: Vec<Option<u32>>,
) -> Result<Export, NbdError> {
    let mut data = Vec::new();
    wire::put_name(&mut data, name.as_bytes());
    data.extend_from_slice(&1_u16.to_be_bytes());
    data.extend_from_slice(&info::BLOCK_SIZE.to_be_bytes());
    ask(stream, option::GO, &data)?;
    let (mut known, mut block, mut most) = (None, BLOCK, LENGTH_MOST);
    for _ in 0..REPLIES_MOST {
        let (kind, data) = answer(stream, option::GO, "the export")??;
        let mut rest = &data[..];
        match kind {
            reply::ACK => {
                let (size, flags) = known.ok_or(NbdError::Broken("an export without a size"))?;
                let is_read_only = flags & flag::READ_ONLY != 0;
                return Ok(Export { size, is_read_only, block, most, contexts });
            }
            reply::INFO => match wire::u16(&mut rest) {
                Ok(info::EXPORT) => known = Some(export(rest)?),
                Ok(info::BLOCK_SIZE) => (block, most) = blocks(rest)?,
                _ => {} // names and descriptions
            },
            _ => return Err(NbdError::Broken("a reply to an option is of an unknown kind")),
        }
    }
    Err(NbdError::Broken("an option has too many replies"))
}

fn export(mut rest: &[u8]) -> Result<(u64, u16), NbdError> {
    let read = wire::u64(&mut rest).and_then(|size| Ok((size, wire::u16(&mut rest)?)));
    let known = read.ok().filter(|(size, flags)| *size <= i64::MAX as u64 && flags & flag::HAS_FLAGS != 0);
    known.ok_or(NbdError::Broken("an export has an impossible size or no flags"))
}

/// The least block, and the most of a request that is made of such.
fn blocks(mut rest: &[u8]) -> Result<(u32, u32), NbdError> {
    const WRONG: NbdError = NbdError::Broken("an export has impossible block sizes");
    let mut next = || wire::u32(&mut rest).map_err(|_| WRONG);
    let (least, _usual, most) = (next()?, next()?, next()?);
    if !least.is_power_of_two() || least > BLOCK_MOST || most < BLOCK_MOST {
        return Err(WRONG);
    }
    Ok((least, most.min(LENGTH_MOST) & !(least - 1)))
}
