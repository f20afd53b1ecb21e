//! Events as XML, one after the other. A small reader: no document types, no entities but those that XML has.

use super::Events;
use super::event::{Event, Fault};
use std::borrow::Cow;

/// Bytes of an event.
pub const LONGEST_EVENT: usize = 1 << 20;

/// Bytes of an entity.
const LONGEST_ENTITY: usize = 10;

const END: &str = "</Event>";

/// The records of what `wevtutil qe LOG /f:xml` (or `/f:RenderedXml`, which has the texts) prints: events in a row, in an
/// element of their own or not. An event that is damaged, not complete or longer than [`LONGEST_EVENT`] is counted.
/// Without its text an event says its provider, its number and its values; those that rules know say what Windows says in English.
#[must_use]
pub fn event_xml(text: &str) -> Events {
    let mut found = Events::default();
    let mut rest = text;
    while let Some(start) = begins(rest).next() {
        let behind = &rest[start..];
        let Some(end) = behind.find(END) else {
            found.skipped += 1;
            return found;
        };
        let (one, after) = behind.split_at(end + END.len());
        rest = after;
        match event(one) {
            Ok(event) => found.records.push(event),
            Err(Fault::Broken | Fault::Deep | Fault::Endless) => {
                found.skipped += 1;
                // one that was broken off may have swallowed a whole one
                let whole = begins(one).last().filter(|start| *start > 0).map(|start| event(&one[start..]));
                found.records.extend(whole.and_then(Result::ok));
            }
        }
    }
    found
}

/// Where events begin.
fn begins(text: &str) -> impl Iterator<Item = usize> {
    text.match_indices("<Event").map(|(at, _)| at).filter(|at| {
        matches!(text.as_bytes().get(at + "<Event".len()), Some(b'>' | b' ' | b'\t' | b'\r' | b'\n' | b'/'))
    })
}

fn event(text: &str) -> Result<crate::Record, Fault> {
    if text.len() > LONGEST_EVENT {
        return Err(Fault::Endless);
    }
    let mut event = Event::default();
    let mut rest = text;
    while let Some((before, mark)) = rest.split_once('<') {
        event.text(&unescape(before));
        rest = if let Some(comment) = mark.strip_prefix("!--") {
            behind(comment, "-->")?.1
        } else if let Some(data) = mark.strip_prefix("![CDATA[") {
            let (data, rest) = behind(data, "]]>")?;
            event.text(data);
            rest
        } else if let Some(instruction) = mark.strip_prefix('?') {
            behind(instruction, "?>")?.1
        } else if let Some(end) = mark.strip_prefix('/') {
            event.close()?;
            behind(end, ">")?.1
        } else {
            element(mark, &mut event)?
        };
    }
    if event.is_closed() { event.finish() } else { Err(Fault::Broken) }
}

fn behind<'a>(text: &'a str, end: &str) -> Result<(&'a str, &'a str), Fault> {
    text.split_once(end).ok_or(Fault::Broken)
}

/// `name attribute="value"...>`, or with `/>` at its end. A document type begins with `!`, which no name does.
fn element<'a>(mark: &'a str, event: &mut Event) -> Result<&'a str, Fault> {
    let end = mark.find([' ', '\t', '\r', '\n', '/', '>']).ok_or(Fault::Broken)?;
    let name = &mark[..end];
    if !is_name(name) {
        return Err(Fault::Broken);
    }
    event.open(name)?;
    let mut rest = mark[end..].trim_start();
    loop {
        if let Some(rest) = rest.strip_prefix("/>") {
            event.close()?;
            return Ok(rest);
        }
        if let Some(rest) = rest.strip_prefix('>') {
            return Ok(rest);
        }
        let (name, value) = rest.split_once('=').ok_or(Fault::Broken)?;
        let value = value.trim_start();
        let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\'')).ok_or(Fault::Broken)?;
        let (value, after) = value[1..].split_once(quote).ok_or(Fault::Broken)?;
        if !is_name(name.trim()) {
            return Err(Fault::Broken);
        }
        event.attribute(name.trim(), &unescape(value));
        rest = after.trim_start();
    }
}

fn is_name(name: &str) -> bool {
    let fits = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | ':' | '-' | '.');
    !name.is_empty() && name.chars().all(fits)
}

/// Text without entities; one that is not known stays as it is.
fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('&') {
        plain.push_str(before);
        let end = behind.bytes().take(LONGEST_ENTITY + 1).position(|byte| byte == b';');
        match end.and_then(|end| Some((entity(&behind[..end])?, end))) {
            Some((letter, end)) => {
                plain.push(letter);
                rest = &behind[end + 1..];
            }
            None => {
                plain.push('&');
                rest = behind;
            }
        }
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

fn entity(name: &str) -> Option<char> {
    match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        name => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LONGEST_TEXT, Rules, Severity};
    use proptest::prelude::*;

    const POWER: &str = "<Event xmlns='http://schemas.microsoft.com/win/2004/08/events/event'><System><Provider Name='Microsoft-Windows-Kernel-Power' Guid='{331c3b3a-2005-44c2-ac5e-77220c37d6b4}'/><EventID>41</EventID><Version>8</Version><Level>1</Level><Task>63</Task><Keywords>0x8000400000000002</Keywords><TimeCreated SystemTime='2026-11-23T21:19:48.1234567Z'/><EventRecordID>1234</EventRecordID><Correlation/><Execution ProcessID='4' ThreadID='8'/><Channel>System</Channel><Computer>WIN-7</Computer><Security UserID='S-1-5-18'/></System><EventData><Data Name='BugcheckCode'>0</Data><Data Name='PowerButtonTimestamp'>5</Data></EventData></Event>";

    #[test]
    fn an_event_is_read_with_its_fields() {
        let found = event_xml(&format!("{POWER}\r\n{POWER}"));
        assert_eq!((found.records.len(), found.skipped), (2, 0));
        let record = &found.records[0];
        assert_eq!((record.time, record.zone), (Some(1_795_468_788_123_456), Some(0)));
        assert_eq!(
            (record.severity, record.program.as_str()),
            (Some(Severity::Critical), "Microsoft-Windows-Kernel-Power")
        );
        assert_eq!(record.text, "The system has rebooted without cleanly shutting down first.");
        let names = ["host", "channel", "event", "record", "pid", "BugcheckCode", "PowerButtonTimestamp"];
        let values = names.map(|name| record.field(name).unwrap_or("-"));
        assert_eq!(values, ["WIN-7", "System", "41", "1234", "4", "0", "5"]);
        let rule = Rules::standard().find(&record.line()).map(|found| found.rule.name);
        assert_eq!(rule, Some("windows-unexpected-restart"));
    }

    #[test]
    fn values_without_names_texts_and_user_data_are_read_too() {
        let of = |inner: &str| {
            let system = "<System><Provider Name=\"app\"/><EventID Qualifiers='16384'> 7 </EventID><Level>9</Level></System>";
            let found =
                event_xml(&format!("<?xml version='1.0'?><Events><Event >{system}{inner}</Event></Events>"));
            assert_eq!((found.records.len(), found.skipped), (1, 0), "{inner}");
            found.records.into_iter().next().unwrap_or_default()
        };
        assert_eq!(
            of("<EventData><Data>a &amp; b</Data><Data/><Data>&#x263a;&#65;&no;&#xd800;</Data></EventData>")
                .text,
            "app 7: a & b, , ☺A&no;&#xd800;"
        );
        assert_eq!(
            of("<EventData><Data Name='x'>1</Data><!-- <Data>no</Data> --></EventData>").text,
            "app 7: x=1"
        );
        let user =
            of("<UserData><n:Info xmlns:n='u'><n:Why>it <![CDATA[<failed>]]></n:Why></n:Info></UserData>");
        assert_eq!((user.text.as_str(), user.field("Why")), ("app 7: Why=it <failed>", Some("it <failed>")));
        let shown = of(
            "<RenderingInfo Culture='en-US'><Message>It failed.\r\nTwice.</Message><Level>Error</Level></RenderingInfo>",
        );
        assert_eq!((shown.text.as_str(), shown.severity), ("It failed.\nTwice.", None));
    }

    #[test]
    fn what_is_damaged_or_made_to_hurt_is_counted() {
        let deep = format!("<Event>{}</Event>", "<a>".repeat(100_000));
        let bomb = "<Event><!DOCTYPE x [<!ENTITY a \"aaaaaaaaaa\">]><System/></Event>";
        let long = format!(
            "<Event><System/><EventData><Data>{}</Data></EventData></Event>",
            "x".repeat(LONGEST_EVENT)
        );
        for text in [
            &deep,
            bomb,
            &long,
            "<Event><a",
            "<Event></x></Event>",
            "<Event><a b></Event>",
            "<Event><a b=c></Event>",
            "<Event><a b='c></Event>",
            "<Event><!-- </Event>",
            "<Event/><a></Event>",
            "<Event ",
        ] {
            let found = event_xml(&format!("{text}{POWER}"));
            assert!(found.skipped >= 1, "{:.80}", text);
            assert!(found.records.len() <= 1);
        }
        assert_eq!(event_xml(&format!("<Event><System><a{POWER}")).records.len(), 1);
        let broken_off = event_xml(&format!("<Event><System>broken off\n{POWER}"));
        assert_eq!((broken_off.skipped, broken_off.records[0].field("event")), (1, Some("41")));
        assert_eq!(event_xml("no event at all"), Events::default());
        let many = event_xml(&"<Event/></Event>".repeat(10_000));
        assert_eq!((many.records.len(), many.skipped), (0, 10_000));
        let wide = format!("<Event><EventData>{}</EventData></Event>", "<Data>x</Data>".repeat(50_000));
        assert!(event_xml(&wide).records[0].text.len() < LONGEST_TEXT);
    }

    proptest! {
        #[test]
        fn any_text_is_events_or_counted(text in "(<Event>)?(<[/!?]?[a-zE]{0,3}( [a-z]='[^']{0,3}')?/?>|&[#x0-9a-z]{0,4};|.){0,30}(</Event>)?") {
            let found = event_xml(&text);
            prop_assert!(found.records.len() <= 2 && found.skipped <= 30);
        }

        #[test]
        fn a_damaged_event_is_an_event_or_counted(at in 0usize..800, with in any::<char>()) {
            let mut letters: Vec<char> = POWER.chars().collect();
            let at = at % letters.len();
            letters[at] = with;
            let _ = event_xml(&letters.iter().collect::<String>());
        }
    }
}
