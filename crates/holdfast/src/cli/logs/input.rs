//! Files as records: what kind each is, and how it is read. Each is read once, as a stream.

use super::super::CliError;
use super::Format;
use super::analysis::Analysis;
use super::lines::Lines;
use super::signs;
use super::wide::Wide;
use holdfast_logs::LONGEST_LINE;
use holdfast_logs::decode::{
    EVTX_CHUNK, EVTX_HEADER, Events, EvtxError, LONGEST_ENTRY, LONGEST_EVENT, LONGEST_OBJECT,
    LONGEST_REQUEST, event_xml, evtx_chunk, evtx_header, journal, json_of, may_be_json, otlp_json,
    otlp_proto,
};
use indicatif::ProgressBar;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes that are read at once.
const BUFFER: usize = 1 << 18;

/// Bytes by which it is told what a file is.
const PEEKED: u64 = 1 << 14;

/// Bytes between two looks at how far it is.
const STRIDE: u64 = 4 << 20;

/// The end of an event in XML.
const EVENT_END: &[u8] = b"</Event>";

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Line by line, with the head of a syslog message or without.
    Lines,
    /// An entry of the journal on each line.
    Journal,
    /// A JSON object on each line.
    Json,
    /// Chunks of Windows events.
    Evtx,
    /// Windows events in XML.
    EventXml,
    /// A request on each line, or one request in all.
    Otlp,
}

/// A file that is open.
pub struct Input {
    /// Its name, as it may be shown.
    pub name: String,
    /// How long it is, if it says.
    pub bytes: u64,
    /// When it was last written to, in microseconds since 1970: what a time without a year is near to.
    written: i64,
    /// What is in it.
    pub stream: Box<dyn Read>,
}

/// Opens a file, or standard input. A pipe, a device or a folder in place of a file is refused: it may never end.
pub fn open(path: &Path) -> Result<Input, CliError> {
    let name = holdfast_logs::escape(&path.to_string_lossy(), 200);
    let input = |bytes, written, stream: Box<dyn Read>| Input {
        name: name.clone(),
        bytes,
        written: micros(written),
        stream,
    };
    if path == Path::new("-") {
        return Ok(input(0, SystemTime::now(), Box::new(std::io::stdin())));
    }
    let metadata = std::fs::metadata(path).map_err(|cause| cannot_read(&name, cause))?;
    if !metadata.is_file() {
        let cause = if metadata.is_dir() { "it is a folder" } else { "it is no file, and may never end" };
        return Err(CliError::Said {
            error: format!("cannot read `{name}`"),
            cause: cause.into(),
            hint: "name files, or pipe lines in: `COMMAND | holdfast logs analyze -`".into(),
        });
    }
    let file = File::open(path).map_err(|cause| cannot_read(&name, cause))?;
    Ok(input(metadata.len(), metadata.modified().unwrap_or_else(|_| SystemTime::now()), Box::new(file)))
}

impl Input {
    /// What is in it, in large pieces.
    pub fn buffered(self) -> BufReader<Box<dyn Read>> {
        BufReader::with_capacity(BUFFER, self.stream)
    }
}

fn micros(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

fn cannot_read(name: &str, cause: std::io::Error) -> CliError {
    CliError::Said {
        error: format!("cannot read `{name}`"),
        cause: cause.to_string(),
        hint: "name files that you may read; `-` is standard input".into(),
    }
}

fn is_not(name: &str, format: &str, cause: &dyn std::error::Error) -> CliError {
    CliError::Said {
        error: format!("cannot read `{name}` as {format}"),
        cause: holdfast_logs::escape(&crate::act::chain(cause), 400),
        hint: "leave `--format` out to have it found, or see docs/logs.md for what each format is".into(),
    }
}

/// What a file is, by its first bytes.
fn form(format: Format, first: &[u8]) -> Form {
    let text = first.trim_ascii_start();
    let has = |wanted: &str| first.windows(wanted.len()).any(|piece| piece == wanted.as_bytes());
    let starts = |wanted: &[&str]| wanted.iter().any(|wanted| text.starts_with(wanted.as_bytes()));
    match format {
        Format::Plain | Format::Syslog => Form::Lines,
        Format::JournalJson => Form::Journal,
        Format::Json => Form::Json,
        Format::Evtx => Form::Evtx,
        Format::EventXml => Form::EventXml,
        Format::Otlp => Form::Otlp,
        Format::Auto if first.starts_with(b"ElfFile\0") => Form::Evtx,
        Format::Auto if starts(&["<Event ", "<Event>", "<Events>", "<?xml"]) => Form::EventXml,
        Format::Auto if text.starts_with(b"{") && has("\"resourceLogs\"") => Form::Otlp,
        Format::Auto if text.starts_with(b"{") && has("\"__REALTIME_TIMESTAMP\"") => Form::Journal,
        Format::Auto if text.starts_with(b"{") => Form::Json,
        Format::Auto => Form::Lines,
    }
}

/// Reads one input to its end; says what it was.
pub fn read(
    mut input: Input,
    format: Format,
    analysis: &mut Analysis,
    bar: &ProgressBar,
) -> Result<Form, CliError> {
    analysis.set_received(input.written);
    let mut first = Vec::new();
    let peeked = (&mut input.stream).take(PEEKED).read_to_end(&mut first);
    peeked.map_err(|cause| cannot_read(&input.name, cause))?;
    signs::refuse_packed(&input.name, &first)?;
    let is_wide = first.starts_with(&[0xff, 0xfe]);
    if first.starts_with(signs::MARK) {
        first.drain(..signs::MARK.len());
        analysis.bytes += signs::MARK.len() as u64;
    }
    let mut stream: Box<dyn Read> = Box::new(Cursor::new(first.clone()).chain(input.stream));
    if is_wide {
        stream = Box::new(Wide::new(stream));
        first.retain(|byte| *byte != 0); // near enough to tell what it is
        first.drain(..2);
    }
    let input = Input { stream, ..input };
    let form = form(format, &first);
    if let Some(share) = signs::strange(&first).filter(|_| form == Form::Lines) {
        analysis.note(format!(
            "`{}` may be no text: {share} % of its first {} bytes are control characters or no UTF-8, and its lines mere pieces of it",
            input.name,
            first.len()
        ));
    }
    let is_json = first.trim_ascii_start().starts_with(b"{");
    let name = input.name.clone();
    let mut progress = Progress { bar, since: 0 };
    let read = match form {
        Form::Lines => lines(input, format, analysis, &mut progress),
        Form::Journal => entries(input, format, analysis, &mut progress),
        Form::Json => objects(input, format, analysis, &mut progress),
        Form::EventXml => events(input, analysis, &mut progress),
        Form::Evtx => return chunks(input, analysis, &mut progress).map(|()| form),
        Form::Otlp => return requests(input, is_json, analysis, &mut progress).map(|()| form),
    };
    read.map_err(|cause| cannot_read(&name, cause))?;
    Ok(form)
}

/// How far it is.
struct Progress<'a> {
    bar: &'a ProgressBar,
    since: u64,
}

impl Progress<'_> {
    fn add(&mut self, analysis: &mut Analysis, bytes: u64) {
        analysis.bytes += bytes;
        self.since += bytes;
        if self.since >= STRIDE {
            self.bar.inc(std::mem::take(&mut self.since));
        }
    }
}

fn lines(
    input: Input,
    format: Format,
    analysis: &mut Analysis,
    progress: &mut Progress,
) -> std::io::Result<()> {
    let has_heads = format != Format::Plain;
    let mut lines = Lines::new(input.buffered(), LONGEST_LINE);
    while !analysis.is_full() {
        let Some(line) = lines.next(|line| analysis.add(line, has_heads))? else { break };
        analysis.cut += u64::from(line.cut);
        progress.add(analysis, line.bytes);
    }
    Ok(())
}

fn entries(
    input: Input,
    format: Format,
    analysis: &mut Analysis,
    progress: &mut Progress,
) -> std::io::Result<()> {
    let mut lines = Lines::new(input.buffered(), LONGEST_ENTRY);
    while !analysis.is_full() {
        let take = |line: &[u8]| match journal(line) {
            _ if line.trim_ascii().is_empty() => {}
            Ok(entry) if format != Format::Auto || entry.cursor.is_some() || entry.record.time.is_some() => {
                analysis.add_record(&entry.record);
            }
            Ok(_) => analysis.add(line, true), // other lines stand among them
            Err(_) if format == Format::Auto && !may_be_json(line) => analysis.add(line, true),
            Err(_) => analysis.skipped += 1,
        };
        let Some(line) = lines.next(take)? else { break };
        progress.add(analysis, line.bytes);
    }
    Ok(())
}

/// JSON objects, which may be longer than other lines. What is none is a line as it is.
fn objects(
    input: Input,
    format: Format,
    analysis: &mut Analysis,
    progress: &mut Progress,
) -> std::io::Result<()> {
    let received = input.written;
    let mut lines = Lines::new(input.buffered(), LONGEST_OBJECT);
    while !analysis.is_full() {
        let is_told = format == Format::Json;
        let take = |line: &[u8]| match is_told.then(|| json_of(line, received)).flatten() {
            Some(record) => analysis.add_record(&record),
            None => analysis.add(line, true),
        };
        let Some(line) = lines.next(take)? else { break };
        analysis.cut += u64::from(line.cut);
        progress.add(analysis, line.bytes);
    }
    Ok(())
}

/// Events one after the other, each up to its end.
fn events(input: Input, analysis: &mut Analysis, progress: &mut Progress) -> std::io::Result<()> {
    let mut stream = input.buffered();
    let (mut event, mut is_long) = (Vec::new(), false);
    while !analysis.is_full() {
        let start = event.len();
        let read = (&mut stream).take(LONGEST_EVENT as u64).read_until(b'>', &mut event)?;
        progress.add(analysis, read as u64);
        let is_whole = event.ends_with(EVENT_END);
        if read == 0 || is_whole {
            // what is no event at all is not counted; what was too long is, once
            take(&event_xml(&String::from_utf8_lossy(&event)), analysis);
            analysis.skipped += u64::from(is_long);
            event.clear();
            is_long = false;
        } else if event.len() > LONGEST_EVENT {
            event.drain(..start.max(event.len() - EVENT_END.len()));
            is_long = true;
        }
        if read == 0 {
            break;
        }
    }
    Ok(())
}

fn take(events: &Events, analysis: &mut Analysis) {
    events.records.iter().for_each(|record| analysis.add_record(record));
    analysis.skipped += events.skipped;
}

/// Chunks up to the end. A file that was cut is read as far as it goes, and it is said.
fn chunks(mut input: Input, analysis: &mut Analysis, progress: &mut Progress) -> Result<(), CliError> {
    let mut piece = Vec::with_capacity(EVTX_CHUNK);
    let mut fill = |piece: &mut Vec<u8>, length: usize| {
        piece.clear();
        let read = (&mut input.stream).take(length as u64).read_to_end(piece);
        read.map_err(|cause| cannot_read(&input.name, cause))
    };
    let header = fill(&mut piece, EVTX_HEADER)?;
    progress.add(analysis, header as u64);
    let stated = evtx_header(&piece).map_err(|cause| no_evtx(&input.name, &cause))?;
    let (mut found, mut rest) = (0, 0);
    while !analysis.is_full() {
        let read = fill(&mut piece, EVTX_CHUNK)?;
        progress.add(analysis, read as u64);
        if read == 0 {
            break;
        }
        take(&evtx_chunk(&piece), analysis);
        found += u64::from(read == EVTX_CHUNK);
        rest = read % EVTX_CHUNK;
    }
    if let Some(missing) = missing(u64::from(stated), found, rest) {
        analysis.note(format!("`{}` was cut: {missing}", input.name));
    }
    Ok(())
}

fn no_evtx(name: &str, cause: &EvtxError) -> CliError {
    match cause {
        EvtxError::Magic | EvtxError::Version(_) => is_not(name, "EVTX", cause),
        EvtxError::Cut(_) => CliError::Said {
            error: format!("cannot read `{name}`"),
            cause: cause.to_string(),
            hint: "copy the event log again, whole".into(),
        },
    }
}

/// What of a file of chunks is not there: it says how many it has, so many are whole, and the last has so many bytes.
fn missing(stated: u64, found: u64, rest: usize) -> Option<String> {
    let broken = (rest > 0).then(|| format!("its last chunk has {rest} of {EVTX_CHUNK} bytes"));
    let fewer =
        (stated > found).then(|| format!("of {stated} chunks that its header states, {found} are whole"));
    let said: Vec<String> = broken.into_iter().chain(fewer).collect();
    (!said.is_empty()).then(|| said.join(", and "))
}

/// Requests in JSON, one a line; or one request, in JSON over several lines or in protobuf.
fn requests(
    input: Input,
    is_json: bool,
    analysis: &mut Analysis,
    progress: &mut Progress,
) -> Result<(), CliError> {
    let name = input.name.clone();
    if is_json {
        return json_requests(input, analysis, progress);
    }
    let mut whole = Vec::new();
    let read = input.stream.take(LONGEST_REQUEST as u64 + 1).read_to_end(&mut whole);
    progress.add(analysis, read.map_err(|cause| cannot_read(&name, cause))? as u64);
    let records = otlp_proto(&whole).map_err(|cause| is_not(&name, "OTLP", &cause))?;
    records.iter().for_each(|record| analysis.add_record(record));
    Ok(())
}

fn json_requests(input: Input, analysis: &mut Analysis, progress: &mut Progress) -> Result<(), CliError> {
    let name = input.name.clone();
    let mut lines = Lines::new(input.buffered(), LONGEST_REQUEST);
    // a request that goes on behind its first line: all of it
    let mut whole: Option<Vec<u8>> = None;
    let mut is_first = true;
    while !analysis.is_full() {
        let take = |line: &[u8]| {
            if let Some(whole) = &mut whole {
                let room = LONGEST_REQUEST + 1 - whole.len();
                whole.extend_from_slice(&line[..line.len().min(room)]);
                return;
            }
            match otlp_json(line) {
                Ok(records) => records.iter().for_each(|record| analysis.add_record(record)),
                Err(_) if line.trim_ascii().is_empty() => {}
                Err(_) if is_first => whole = Some(line[..line.len().min(LONGEST_REQUEST + 1)].to_vec()),
                Err(_) => analysis.skipped += 1,
            }
        };
        let Some(line) = lines.next(take).map_err(|cause| cannot_read(&name, cause))? else { break };
        is_first = false;
        progress.add(analysis, line.bytes);
    }
    let Some(whole) = whole else { return Ok(()) };
    let records = otlp_json(&whole).map_err(|cause| is_not(&name, "OTLP", &cause))?;
    records.iter().for_each(|record| analysis.add_record(record));
    Ok(())
}
