//! One event, put together from its elements as they come: the same for XML and for EVTX.

use super::texts;
use crate::decode::time::iso;
use crate::record::{LONGEST_TEXT, MOST_FIELDS, Record, Severity};

/// Elements within elements.
const DEEPEST: usize = 32;

/// Bytes of a value that is not the message.
const LONGEST_VALUE: usize = 2_048;

/// Bytes of an element's name.
const LONGEST_NAME: usize = 64;

/// Why an event is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not written as such things are.
    Broken,
    /// Elements lie too deep within each other.
    Deep,
    /// It would take too long.
    Endless,
}

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Event,
    System,
    Provider,
    EventId,
    Level,
    Channel,
    Computer,
    RecordId,
    Created,
    Execution,
    EventData,
    /// A value of the event, or of what a program put in place of it.
    Data,
    UserData,
    Rendering,
    Message,
    Other,
}

/// An element that is not closed yet.
#[derive(Debug)]
struct Open {
    place: Place,
    /// How its value is called.
    name: String,
    text: String,
}

/// An event that is being put together.
#[derive(Debug, Default)]
pub struct Event {
    open: Vec<Open>,
    record: Record,
    host: String,
    channel: String,
    number: String,
    record_id: String,
    pid: String,
    message: String,
    /// The values in their order, with their names where they have one.
    values: Vec<(String, String)>,
    is_event: bool,
}

impl Event {
    /// An element begins.
    pub fn open(&mut self, name: &str) -> Result<(), Fault> {
        if self.open.len() >= DEEPEST {
            return Err(Fault::Deep);
        }
        if self.is_event && self.open.is_empty() {
            return Err(Fault::Broken); // a second one
        }
        let name = name.rsplit(':').next().unwrap_or(name);
        let place = place(self.open.last().map(|open| open.place), name);
        self.is_event |= place == Place::Event;
        // the name of a value of the event is an attribute; that of any other value is its element's
        let name = if self.open.iter().any(|open| open.place == Place::UserData) { name } else { "" };
        let name = name[..name.floor_char_boundary(LONGEST_NAME)].to_owned();
        self.open.push(Open { place, name, text: String::new() });
        Ok(())
    }

    /// The element that began last has this attribute.
    pub fn attribute(&mut self, name: &str, value: &str) {
        let Some(open) = self.open.last_mut() else { return };
        let value = &value[..value.floor_char_boundary(LONGEST_VALUE)];
        match (open.place, name) {
            (Place::Provider, "Name") => self.record.set_program(value.as_bytes()),
            (Place::Created, "SystemTime") => {
                if let Some((stamp, _)) = iso(value.as_bytes()) {
                    (self.record.time, self.record.zone) = (Some(stamp.micros), Some(0));
                }
            }
            (Place::Execution, "ProcessID") => value.clone_into(&mut self.pid),
            (Place::Data, "Name") => value.clone_into(&mut open.name),
            _ => {}
        }
    }

    /// Text in the element that began last.
    pub fn text(&mut self, text: &str) {
        let Some(open) = self.open.last_mut() else { return };
        let most = match open.place {
            Place::Message => LONGEST_TEXT,
            Place::EventId
            | Place::Level
            | Place::Channel
            | Place::Computer
            | Place::RecordId
            | Place::Data => LONGEST_VALUE,
            Place::Event
            | Place::System
            | Place::Provider
            | Place::Created
            | Place::Execution
            | Place::EventData
            | Place::UserData
            | Place::Rendering
            | Place::Other => return,
        };
        let room = most.saturating_sub(open.text.len());
        open.text.push_str(&text[..text.floor_char_boundary(room)]);
    }

    /// The element that began last ends.
    pub fn close(&mut self) -> Result<(), Fault> {
        let Open { place, name, text } = self.open.pop().ok_or(Fault::Broken)?;
        match place {
            Place::EventId => self.number = text.trim().to_owned(),
            Place::Level => self.record.severity = severity(text.trim()),
            Place::Channel => self.channel = text,
            Place::Computer => self.host = text,
            Place::RecordId => self.record_id = text,
            Place::Message => self.message = text,
            Place::Data
                if self.values.len() < MOST_FIELDS && (!text.trim().is_empty() || name.is_empty()) =>
            {
                self.values.push((name, text));
            }
            Place::Data
            | Place::Event
            | Place::System
            | Place::Provider
            | Place::Created
            | Place::Execution
            | Place::EventData
            | Place::UserData
            | Place::Rendering
            | Place::Other => {}
        }
        Ok(())
    }

    /// Whether all its elements have ended.
    pub fn is_closed(&self) -> bool {
        self.open.is_empty()
    }

    /// When it was written, unless it says so itself.
    pub fn written(&mut self, micros: i64) {
        self.record.time = self.record.time.or(Some(micros));
        self.record.zone = Some(0);
    }

    /// Its record, once all of it was read.
    pub fn finish(mut self) -> Result<Record, Fault> {
        if !self.is_event {
            return Err(Fault::Broken);
        }
        let text = if self.message.trim().is_empty() { self.says() } else { self.message.trim().to_owned() };
        self.record.set_text(text.as_bytes());
        for (name, value) in [
            ("host", &self.host),
            ("channel", &self.channel),
            ("event", &self.number),
            ("record", &self.record_id),
            ("pid", &self.pid),
        ] {
            self.record.add_field(name, value.trim().as_bytes());
        }
        for (name, value) in &self.values {
            self.record.add_field(name, value.as_bytes());
        }
        Ok(self.record)
    }

    /// The text of a known event with its values; of another its provider, its number and its values.
    fn says(&self) -> String {
        if let Some(text) = texts::of(&self.record.program, &self.number) {
            return texts::fill(text, |number| self.values.get(number).map(|(_, value)| value.as_str()));
        }
        let mut text = format!("{} {}", self.record.program, self.number);
        for (number, (name, value)) in self.values.iter().enumerate() {
            text.push_str(if number == 0 { ": " } else { ", " });
            if !name.is_empty() {
                text.push_str(name);
                text.push('=');
            }
            text.push_str(value.trim());
        }
        text.truncate(text.trim_end_matches([' ', ',', ':']).len());
        text
    }
}

fn place(parent: Option<Place>, name: &str) -> Place {
    match (parent, name) {
        (None, "Event") => Place::Event,
        (Some(Place::Event), "System") => Place::System,
        (Some(Place::Event), "EventData") => Place::EventData,
        (Some(Place::Event), "UserData") => Place::UserData,
        (Some(Place::Event), "RenderingInfo") => Place::Rendering,
        (Some(Place::System), "Provider") => Place::Provider,
        (Some(Place::System), "EventID") => Place::EventId,
        (Some(Place::System), "Level") => Place::Level,
        (Some(Place::System), "Channel") => Place::Channel,
        (Some(Place::System), "Computer") => Place::Computer,
        (Some(Place::System), "EventRecordID") => Place::RecordId,
        (Some(Place::System), "TimeCreated") => Place::Created,
        (Some(Place::System), "Execution") => Place::Execution,
        (Some(Place::EventData), "Data") | (Some(Place::UserData | Place::Data), _) => Place::Data,
        (Some(Place::Rendering), "Message") => Place::Message,
        _ => Place::Other,
    }
}

/// The levels of Windows; 0 is what is always logged, such as audits.
fn severity(level: &str) -> Option<Severity> {
    match level {
        "1" => Some(Severity::Critical),
        "2" => Some(Severity::Error),
        "3" => Some(Severity::Warning),
        "0" | "4" => Some(Severity::Info),
        "5" => Some(Severity::Debug),
        _ => None,
    }
}
