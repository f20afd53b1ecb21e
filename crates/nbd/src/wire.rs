//! Numbers of the protocol, and how they are read and written: all big-endian.

use std::io::{self, Read};

pub const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
pub const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
pub const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
pub const REQUEST: u32 = 0x2560_9513;
pub const SIMPLE: u32 = 0x6744_6698;
pub const STRUCTURED: u32 = 0x668e_33ef;

/// Handshake flags of both sides.
pub const FIXED_NEWSTYLE: u16 = 1;
pub const NO_ZEROES: u16 = 2;

pub mod option {
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
    pub const LIST_META_CONTEXT: u32 = 9;
    pub const SET_META_CONTEXT: u32 = 10;
}

pub mod reply {
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const INFO: u32 = 3;
    pub const META_CONTEXT: u32 = 4;
    /// Set in all that are errors.
    pub const ERROR: u32 = 1 << 31;
    pub const UNSUPPORTED: u32 = ERROR | 1;
    pub const INVALID: u32 = ERROR | 3;
    pub const UNKNOWN: u32 = ERROR | 6;
}

pub mod info {
    pub const EXPORT: u16 = 0;
    pub const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags.
pub mod flag {
    pub const HAS_FLAGS: u16 = 1;
    pub const READ_ONLY: u16 = 2;
    pub const SEND_FLUSH: u16 = 4;
    pub const SEND_FUA: u16 = 8;
}

pub mod command {
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISCONNECT: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const BLOCK_STATUS: u16 = 7;
    /// A flag: durable before it is answered.
    pub const FUA: u16 = 1;
    /// A flag: one extent is enough.
    pub const REQUEST_ONE: u16 = 8;
}

pub mod chunk {
    /// A flag: the last one of its reply.
    pub const DONE: u16 = 1;
    pub const NONE: u16 = 0;
    pub const DATA: u16 = 1;
    pub const HOLE: u16 = 2;
    pub const BLOCK_STATUS: u16 = 5;
    /// Set in all that are errors.
    pub const ERROR: u16 = 1 << 15;
}

/// Reads so many bytes.
pub fn bytes<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).map(|()| bytes)
}

pub fn u16(stream: &mut impl Read) -> io::Result<u16> {
    bytes(stream).map(u16::from_be_bytes)
}

pub fn u32(stream: &mut impl Read) -> io::Result<u32> {
    bytes(stream).map(u32::from_be_bytes)
}

pub fn u64(stream: &mut impl Read) -> io::Result<u64> {
    bytes(stream).map(u64::from_be_bytes)
}

/// A name behind its length.
pub fn name<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32(rest).ok()? as usize;
    let (name, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    (name.len() <= crate::NAME_MOST).then_some(name)
}

/// Writes a name behind its length.
pub fn put_name(out: &mut Vec<u8>, name: &[u8]) {
    out.extend_from_slice(&(name.len() as u32).to_be_bytes());
    out.extend_from_slice(name);
}

/// An option, or the reply to one.
pub fn put_option(out: &mut Vec<u8>, option: u32, data: &[u8]) {
    out.extend_from_slice(&IHAVEOPT.to_be_bytes());
    out.extend_from_slice(&option.to_be_bytes());
    put_name(out, data);
}
