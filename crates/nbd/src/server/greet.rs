//! How a server and a client come to know each other.

use super::{ALLOCATION_ID, Agreed, Disk};
use crate::wire::{self, flag, info, option, reply};
use crate::{ALLOCATION, LENGTH_MOST, NAME_MOST, NbdError};
use std::io::{BufReader, Read, Write};

/// The most options of one client.
const OPTIONS_MOST: usize = 256;
/// The most bytes of one option.
const OPTION_MOST: u32 = 8 * NAME_MOST as u32;
/// What is read best.
const USUAL: u32 = 64 << 10;
const GREETING: &str = "greeting";

/// Agrees with a client on how to go on; nothing if it went away.
pub(super) fn greet<S: Read + Write>(
    stream: &mut BufReader<S>,
    name: &str,
    disk: &dyn Disk,
) -> Result<Option<Agreed>, NbdError> {
    let told = || NbdError::stream(GREETING);
    let mut hello = [wire::NBDMAGIC.to_be_bytes(), wire::IHAVEOPT.to_be_bytes()].concat();
    hello.extend_from_slice(&(wire::FIXED_NEWSTYLE | wire::NO_ZEROES).to_be_bytes());
    send(stream, &hello)?;
    let flags = wire::u32(stream).map_err(told())?;
    let known = u32::from(wire::FIXED_NEWSTYLE | wire::NO_ZEROES);
    if flags & !known != 0 || flags & u32::from(wire::FIXED_NEWSTYLE) == 0 {
        return Err(NbdError::NotNbd);
    }
    let has_zeroes = flags & u32::from(wire::NO_ZEROES) == 0;
    let mut greeting = Greeting { name, disk, agreed: Agreed::default(), out: Vec::new() };
    for _ in 0..OPTIONS_MOST {
        if wire::u64(stream).map_err(told())? != wire::IHAVEOPT {
            return Err(NbdError::Broken("what came is no option"));
        }
        let option = wire::u32(stream).map_err(told())?;
        let length = wire::u32(stream).map_err(told())?;
        if length > OPTION_MOST {
            return Err(NbdError::Broken("an option is too long"));
        }
        let mut data = vec![0; length as usize];
        stream.read_exact(&mut data).map_err(told())?;
        greeting.out.clear();
        let next = match option {
            option::EXPORT_NAME => greeting.begin_old(&data, has_zeroes)?,
            _ => greeting.answer(option, &data),
        };
        send(stream, &greeting.out)?;
        match next {
            Next::Option => {}
            Next::Talk => return Ok(Some(greeting.agreed)),
            Next::End => return Ok(None),
        }
    }
    Err(NbdError::Broken("a client has too many options"))
}

fn send<S: Read + Write>(stream: &mut BufReader<S>, bytes: &[u8]) -> Result<(), NbdError> {
    let stream = stream.get_mut();
    stream.write_all(bytes).and_then(|()| stream.flush()).map_err(NbdError::stream(GREETING))
}

enum Next {
    Option,
    Talk,
    End,
}

struct Greeting<'a> {
    name: &'a str,
    disk: &'a dyn Disk,
    agreed: Agreed,
    out: Vec<u8>,
}

impl Greeting<'_> {
    fn flags(&self) -> u16 {
        let writes = if self.disk.is_read_only() { flag::READ_ONLY } else { flag::SEND_FUA };
        flag::HAS_FLAGS | flag::SEND_FLUSH | writes
    }

    /// The old way to begin, which has no answer but a closed connection where the export is not there.
    fn begin_old(&mut self, name: &[u8], has_zeroes: bool) -> Result<Next, NbdError> {
        if name != self.name.as_bytes() {
            return Err(NbdError::Broken("a client wants an export that is not there"));
        }
        self.out.extend_from_slice(&self.disk.size().to_be_bytes());
        self.out.extend_from_slice(&self.flags().to_be_bytes());
        self.out.extend_from_slice(if has_zeroes { &[0; 124] } else { &[] });
        Ok(Next::Talk)
    }

    fn answer(&mut self, option: u32, data: &[u8]) -> Next {
        match option {
            option::ABORT => {
                self.reply(option, reply::ACK, &[]);
                return Next::End;
            }
            option::STRUCTURED_REPLY if data.is_empty() => {
                self.agreed.is_structured = true;
                self.reply(option, reply::ACK, &[]);
            }
            option::LIST if data.is_empty() => {
                let mut server = Vec::new();
                wire::put_name(&mut server, self.name.as_bytes());
                self.reply(option, reply::SERVER, &server);
                self.reply(option, reply::ACK, &[]);
            }
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => self.contexts(option, data),
            option::INFO | option::GO => return self.tell(option, data),
            option::STRUCTURED_REPLY | option::LIST => self.reply(option, reply::INVALID, &[]),
            _ => self.reply(option, reply::UNSUPPORTED, &[]),
        }
        Next::Option
    }

    fn contexts(&mut self, option: u32, mut data: &[u8]) {
        let asked = wire::name(&mut data).and_then(|name| {
            let count = wire::u32(&mut data).ok()?;
            let mut queries = Vec::new();
            for _ in 0..count {
                queries.push(wire::name(&mut data)?); // each takes bytes of the option, so they end
            }
            (data.is_empty() && self.agreed.is_structured).then_some((name, queries))
        });
        let Some((name, queries)) = asked else { return self.reply(option, reply::INVALID, &[]) };
        if name != self.name.as_bytes() {
            return self.reply(option, reply::UNKNOWN, &[]);
        }
        let is_list = option == option::LIST_META_CONTEXT;
        let has = queries.contains(&ALLOCATION.as_bytes())
            || (is_list && (queries.is_empty() || queries.contains(&&b"base:"[..])));
        if has {
            let id = if is_list { 0 } else { ALLOCATION_ID };
            self.reply(option, reply::META_CONTEXT, &[&id.to_be_bytes(), ALLOCATION.as_bytes()].concat());
        }
        if !is_list {
            self.agreed.has_allocation = has;
        }
        self.reply(option, reply::ACK, &[]);
    }

    fn tell(&mut self, option: u32, mut data: &[u8]) -> Next {
        let Some(name) = wire::name(&mut data) else {
            self.reply(option, reply::INVALID, &[]);
            return Next::Option;
        };
        if name != self.name.as_bytes() {
            self.reply(option, reply::UNKNOWN, &[]);
            return Next::Option;
        }
        let export =
            [&info::EXPORT.to_be_bytes()[..], &self.disk.size().to_be_bytes(), &self.flags().to_be_bytes()];
        self.reply(option, reply::INFO, &export.concat());
        let mut blocks = info::BLOCK_SIZE.to_be_bytes().to_vec();
        [1, USUAL, LENGTH_MOST].iter().for_each(|size: &u32| blocks.extend_from_slice(&size.to_be_bytes()));
        self.reply(option, reply::INFO, &blocks);
        self.reply(option, reply::ACK, &[]);
        if option == option::GO { Next::Talk } else { Next::Option }
    }

    fn reply(&mut self, option: u32, kind: u32, data: &[u8]) {
        self.out.extend_from_slice(&wire::OPTION_REPLY.to_be_bytes());
        self.out.extend_from_slice(&option.to_be_bytes());
        self.out.extend_from_slice(&kind.to_be_bytes());
        wire::put_name(&mut self.out, data);
    }
}
