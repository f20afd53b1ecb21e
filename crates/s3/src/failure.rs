//! What went wrong in a store, for people and by kind. What a store says is cut, tamed, and searched for two words only: the
//! rest of its answers repeats what was signed.

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};
use std::error::Error as Any;
use std::io::{self, ErrorKind};
use tokio::time::error::Elapsed;

/// How the client tells of an answer that is none of success; `tests/contract.rs` would see another.
const ANSWERED: &str = "Server returned non-2xx status code: ";
/// The longest word of a store that is repeated, in characters.
const WORD_MOST: usize = 160;

/// Why a store did not do what it was asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Failure {
    kind: ErrorKind,
    cause: String,
    hint: &'static str,
}

/// Nobody waits for an answer any more.
#[derive(Debug, thiserror::Error)]
#[error("a request beside this one found so")]
pub(crate) struct Away;

/// An answer.
#[derive(Default)]
struct Answer {
    status: Option<u16>,
    code: String,
    message: String,
}

const KEYS: &str =
    "are AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN right, and of this store?";
const RIGHTS: &str = "the keys need the rights to list the bucket, and to get, put and delete objects in it";
const CLOCK: &str = "the clock of this computer and that of the store differ: set it right (NTP)";
const BUCKET: &str =
    "is the name right? Make the bucket with the means of the store: it is not made from here";
const REGION: &str =
    "set AWS_REGION to the region of the bucket, and AWS_ENDPOINT_URL to the address of the store";
const REACH: &str =
    "is AWS_ENDPOINT_URL right, and the store up? Nothing was lost: try again once it answers";
const BUSY: &str = "nothing was lost; try again later";
const ROOM: &str = "nothing was lost; make room in the store, or `holdfast backup prune`";
const ONCE: &str = "a repository needs a store with conditional puts (`If-None-Match: *`): otherwise two who write at once \
                    could replace each other's objects. Nothing of a repository was written";

impl Failure {
    /// That a store would replace objects.
    pub(crate) fn replaces(place: &str) -> io::Error {
        let cause = format!("{place} replaces an object that is there, though it was asked not to");
        Self { kind: ErrorKind::Unsupported, cause, hint: ONCE }.into()
    }

    /// That something of ours is not as it must be.
    pub(crate) fn other(cause: String) -> io::Error {
        Self { kind: ErrorKind::Other, cause, hint: BUSY }.into()
    }

    /// What the client says, of the store at this place.
    pub(crate) fn of(place: &str, error: &Error) -> Self {
        let (answer, deepest) = (Answer::of(error), deepest(error));
        let (kind, hint) = answer.meaning().or_else(|| transport(error)).unwrap_or_else(|| variant(error));
        let cause = match (answer.status, kind) {
            (Some(status), _) => format!("{place} answers {status}{}", answer.words()),
            (None, ErrorKind::NotFound) => format!("{place} has no such object"),
            (None, ErrorKind::NotConnected) => format!("{place} cannot be reached: {deepest}"),
            (None, ErrorKind::TimedOut) => format!("{place} did not answer in time"),
            (None, _) => format!("{place}: {deepest}"),
        };
        Self { kind, cause, hint }
    }

    /// The one in an error, if it came from a store.
    #[must_use]
    pub fn in_error(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// What can be done.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        self.hint
    }

    /// Whether a connection broke after something was sent: it may have been done.
    pub(crate) fn is_broken_off(error: &Error) -> bool {
        http(error).is_some_and(|http| http.kind() == HttpErrorKind::Interrupted)
    }

    /// Whether nothing at all was heard of the store.
    pub(crate) fn is_away(error: &Error) -> bool {
        let kind = transport(error).map(|(kind, _)| kind);
        matches!(kind, Some(ErrorKind::NotConnected | ErrorKind::TimedOut))
    }

    /// Whether a store refused a range that begins behind the end of an object.
    pub(crate) fn is_behind_the_end(error: &Error) -> bool {
        Answer::of(error).status == Some(416)
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        Self::new(failure.kind, failure)
    }
}

fn chain<'a>(error: &'a (dyn Any + 'static)) -> impl Iterator<Item = &'a (dyn Any + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// The last reason of all, which is the first one.
fn deepest(error: &Error) -> String {
    tame(&chain(error).last().map(ToString::to_string).unwrap_or_default())
}

fn tame(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { ' ' } else { one }).take(WORD_MOST).collect()
}

impl Answer {
    fn of(error: &Error) -> Self {
        let said = chain(error).map(ToString::to_string).find(|said| said.starts_with(ANSWERED));
        let Some(said) = said else { return Self::default() };
        let (status, body) = said[ANSWERED.len()..].split_at_checked(3).unwrap_or_default();
        let word = |name: &str| {
            let (_, rest) = body.split_once(&format!("<{name}>"))?;
            Some(tame(rest.split_once(&format!("</{name}>"))?.0))
        };
        let (code, message) = (word("Code").unwrap_or_default(), word("Message").unwrap_or_default());
        Self { status: status.parse().ok(), code, message }
    }

    fn words(&self) -> String {
        match (&self.code[..], &self.message[..]) {
            ("", _) => String::new(),
            (code, "") => format!(" {code}"),
            (code, message) => format!(" {code}: {message}"),
        }
    }

    /// What it means, where that is more than its number says.
    fn meaning(&self) -> Option<(ErrorKind, &'static str)> {
        use ErrorKind::{InvalidInput, PermissionDenied, ResourceBusy, StorageFull, Unsupported};
        Some(match (&self.code[..], self.status?) {
            ("NoSuchBucket", _) => (InvalidInput, BUCKET), // and not that an object is gone
            ("RequestTimeTooSkewed" | "RequestExpired", _) => (PermissionDenied, CLOCK),
            (
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "NotSignedUp"
                | "InvalidToken"
                | "ExpiredToken"
                | "TokenRefreshRequired",
                _,
            ) => (PermissionDenied, KEYS),
            ("PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed", _)
            | (_, 300..=399) => (InvalidInput, REGION),
            ("QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded", _) | (_, 507) => {
                (StorageFull, ROOM)
            }
            ("NotImplemented", _) | (_, 501) => (Unsupported, ONCE),
            (_, 401 | 403) => (PermissionDenied, RIGHTS),
            (_, 429 | 500..=599) => (ResourceBusy, BUSY),
            _ => return None,
        })
    }
}

fn http(error: &Error) -> Option<&HttpError> {
    chain(error).find_map(|error| error.downcast_ref())
}

/// What became of a request that nobody answered.
fn transport(error: &Error) -> Option<(ErrorKind, &'static str)> {
    if chain(error).any(<dyn Any>::is::<Elapsed>) {
        return Some((ErrorKind::TimedOut, REACH));
    }
    if chain(error).any(<dyn Any>::is::<Away>) {
        return Some((ErrorKind::NotConnected, REACH));
    }
    let kind = match http(error)?.kind() {
        HttpErrorKind::Connect => ErrorKind::NotConnected,
        HttpErrorKind::Timeout => ErrorKind::TimedOut,
        HttpErrorKind::Request | HttpErrorKind::Interrupted => ErrorKind::ConnectionAborted,
        HttpErrorKind::Decode | HttpErrorKind::Unknown | _ => ErrorKind::Other,
    };
    Some((kind, REACH))
}

fn variant(error: &Error) -> (ErrorKind, &'static str) {
    if chain(error).any(|error| error.to_string().contains("redirect without LOCATION")) {
        return (ErrorKind::InvalidInput, REGION);
    }
    if matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) {
        return (ErrorKind::PermissionDenied, RIGHTS);
    }
    let kinds = [
        (matches!(error, Error::NotFound { .. }), ErrorKind::NotFound),
        (matches!(error, Error::AlreadyExists { .. }), ErrorKind::AlreadyExists),
        (matches!(error, Error::InvalidPath { .. }), ErrorKind::InvalidData),
    ];
    let found = kinds.into_iter().find(|(is_it, _)| *is_it);
    (found.map_or(ErrorKind::Other, |(_, kind)| kind), BUSY)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error as the client makes it of an answer.
    fn answered(status: &str, body: &str) -> Error {
        Error::Generic { store: "S3", source: format!("{ANSWERED}{status}: {body}").into() }
    }

    fn coded(status: &str, code: &str) -> Failure {
        let body = format!(
            "<Error><Code>{code}</Code><Message>no\u{1b}[2J.</Message><StringToSign>x1y2z3</StringToSign></Error>"
        );
        Failure::of("the store", &answered(status, &body))
    }

    #[test]
    fn an_answer_is_told_by_what_it_means() {
        for (status, code, kind, hint) in [
            ("403 Forbidden", "AccessDenied", ErrorKind::PermissionDenied, RIGHTS),
            ("403 Forbidden", "SignatureDoesNotMatch", ErrorKind::PermissionDenied, KEYS),
            ("403 Forbidden", "RequestTimeTooSkewed", ErrorKind::PermissionDenied, CLOCK),
            ("404 Not Found", "NoSuchBucket", ErrorKind::InvalidInput, BUCKET),
            ("400 Bad Request", "AuthorizationHeaderMalformed", ErrorKind::InvalidInput, REGION),
            ("301 Moved Permanently", "", ErrorKind::InvalidInput, REGION),
            ("501 Not Implemented", "", ErrorKind::Unsupported, ONCE),
            ("507 Insufficient Storage", "", ErrorKind::StorageFull, ROOM),
            ("503 Service Unavailable", "SlowDown", ErrorKind::ResourceBusy, BUSY),
        ] {
            let failure = coded(status, code);
            assert_eq!((failure.kind, failure.hint), (kind, hint), "{status} {code}");
            assert!(failure.cause.starts_with(&format!("the store answers {}", &status[..3])), "{failure}");
            assert!(!failure.cause.contains("x1y2z3") && !failure.cause.contains('\u{1b}'), "{failure}");
        }
    }

    #[test]
    fn an_answer_of_any_length_and_shape_is_told_short() {
        for body in
            ["", "<Code>", "<Code></Code>", "</Code><Code>", &"<Code>ü".repeat(9_999), "<Message>x</Message>"]
        {
            let failure = Failure::of("the store", &answered("418 ü", body));
            assert!(failure.cause.chars().count() < 400, "{body}: {failure}");
        }
        let odd = Error::Generic { store: "S3", source: ANSWERED.into() };
        assert_eq!(Failure::of("the store", &odd).kind, ErrorKind::Other);
    }
}
