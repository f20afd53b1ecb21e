//! A line of a log becomes a record, by the form that its log is written in.

use holdfast_logs::{Record, clean_text, decode};

/// How the lines of a log are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Whatever a line itself shows: the time and the severity that stand before most messages are understood, and JSON
    /// is read, each line by itself.
    #[default]
    Auto,
    /// The whole line is the message.
    Plain,
    /// As syslog daemons write.
    Syslog,
    /// One JSON object a line, as `journalctl -o json` prints.
    Journal,
    /// One JSON object a line, as programs write their own logs, or Docker a container's.
    Json,
}

impl Format {
    /// All, by the words of the configuration.
    pub const WORDS: &[&str] = &["auto", "plain", "syslog", "journal", "json"];

    /// By its word; what is none is `auto`.
    #[must_use]
    pub fn of(word: &str) -> Self {
        match word {
            "plain" => Self::Plain,
            "syslog" => Self::Syslog,
            "journal" => Self::Journal,
            "json" => Self::Json,
            _ => Self::Auto,
        }
    }

    /// The record of one line; `None` if it holds nothing. What is not of this form is taken as it is.
    #[must_use]
    pub fn record(self, line: &[u8], received: i64) -> Option<Record> {
        let line = line.trim_ascii_end();
        if line.is_empty() {
            return None;
        }
        let record = match self {
            Self::Auto => decode::auto(line, received),
            Self::Json => decode::json_of(line, received).unwrap_or_else(|| decode::plain(line, received)),
            Self::Plain => Record { text: clean_text(line).into_owned(), ..Record::default() },
            Self::Syslog => decode::syslog(line, received),
            Self::Journal => match decode::journal(line) {
                Ok(entry) => entry.record,
                Err(_) => decode::plain(line, received),
            },
        };
        (!record.text.is_empty() || !record.fields.is_empty()).then_some(record)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use holdfast_logs::Severity;

    #[test]
    fn a_line_is_read_in_the_form_of_its_log_and_nothing_is_lost_that_has_another() {
        let line = b"2026-11-26T10:00:00Z ERROR no disk left\n";
        let text = |format: Format, line: &[u8]| format.record(line, 0).unwrap().text;
        assert!(Format::Auto.record(line, 0).unwrap().time.is_some());
        assert_eq!(text(Format::Plain, line), "2026-11-26T10:00:00Z ERROR no disk left");
        let syslog = Format::Syslog.record(b"<11>Nov 26 10:00:00 db app[7]: no disk left", 0).unwrap();
        assert_eq!((syslog.text.as_str(), syslog.severity), ("no disk left", Some(Severity::Error)));
        assert_eq!(text(Format::Journal, br#"{"MESSAGE":"hello","PRIORITY":"3"}"#), "hello");
        assert_eq!(text(Format::Journal, b"no json"), "no json");
        let object = br#"{"msg":"no disk left","n":7}"#;
        assert_eq!(
            (text(Format::Json, object), text(Format::Auto, object).len()),
            ("no disk left".to_owned(), object.len())
        );
        assert_eq!(text(Format::Json, b"no json"), "no json");
        let object = br#"{"level":"warn","msg":"no disk left","n":7}"#;
        let record = Format::Auto.record(object, 0).unwrap();
        assert_eq!(
            (record.text.as_str(), record.field("n"), record.severity),
            ("no disk left", Some("7"), Some(Severity::Warning))
        );
        assert_eq!(Format::Auto.record(b" \t\r\n", 0), None);
        for word in Format::WORDS {
            assert_eq!(Format::of(word) == Format::Auto, *word == "auto");
        }
    }
}
