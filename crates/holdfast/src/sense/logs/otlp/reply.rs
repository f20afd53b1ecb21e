//! What a sender is answered, in the form that it spoke.

use super::Form;
use super::body::Refusal;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use std::convert::Infallible;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Why records found no room.
const NO_ROOM: &str = "there was no room for these records";

/// An answer.
pub enum Reply {
    /// The records were taken, but for so many.
    Taken {
        /// How many found no room.
        rejected: u64,
    },
    /// Nothing was taken.
    Refused(Refusal),
}

impl Reply {
    /// In the form of the request.
    pub fn write(&self, form: Form) -> Response<Body> {
        match form {
            Form::Grpc => self.grpc(),
            Form::Proto => self.http("application/x-protobuf", self.proto()),
            Form::Json => self.http("application/json", self.json()),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Taken { .. } => StatusCode::OK,
            Self::Refused(refusal) => match refusal {
                Refusal::NoSuchPath => StatusCode::NOT_FOUND,
                Refusal::NotPosted => StatusCode::METHOD_NOT_ALLOWED,
                Refusal::Type | Refusal::Packing => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Refusal::Long => StatusCode::PAYLOAD_TOO_LARGE,
                Refusal::Half => StatusCode::REQUEST_TIMEOUT,
                Refusal::TooMuch => StatusCode::TOO_MANY_REQUESTS,
                Refusal::Gzip | Refusal::Frame | Refusal::Message(_) => StatusCode::BAD_REQUEST,
            },
        }
    }

    /// The codes of gRPC.
    const fn code(&self) -> &'static str {
        match self {
            Self::Taken { .. } => "0",
            Self::Refused(refusal) => match refusal {
                Refusal::NoSuchPath | Refusal::NotPosted | Refusal::Type | Refusal::Packing => "12",
                Refusal::TooMuch => "14", // unavailable: to be tried again
                Refusal::Long => "8",
                Refusal::Half => "4",
                Refusal::Gzip | Refusal::Frame | Refusal::Message(_) => "3",
            },
        }
    }

    /// `ExportLogsServiceResponse`, or `google.rpc.Status`.
    fn proto(&self) -> Vec<u8> {
        match self {
            Self::Taken { rejected: 0 } => Vec::new(),
            Self::Taken { rejected } => {
                let mut partial = vec![0x08];
                varint(*rejected, &mut partial);
                text(2, NO_ROOM, &mut partial);
                let mut whole = vec![0x0a];
                varint(partial.len() as u64, &mut whole);
                whole.extend(partial);
                whole
            }
            Self::Refused(refusal) => {
                let mut status = Vec::new();
                text(2, &refusal.to_string(), &mut status);
                status
            }
        }
    }

    fn json(&self) -> Vec<u8> {
        let value = match self {
            Self::Taken { rejected: 0 } => serde_json::json!({}),
            Self::Taken { rejected } => serde_json::json!({
                "partialSuccess": { "rejectedLogRecords": rejected.to_string(), "errorMessage": NO_ROOM }
            }),
            Self::Refused(refusal) => serde_json::json!({ "message": refusal.to_string() }),
        };
        value.to_string().into_bytes()
    }

    fn http(&self, kind: &'static str, body: Vec<u8>) -> Response<Body> {
        let mut response = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
        *response.status_mut() = self.status();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if matches!(self, Self::Refused(Refusal::TooMuch)) {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }

    fn grpc(&self) -> Response<Body> {
        let mut end = HeaderMap::new();
        end.insert("grpc-status", HeaderValue::from_static(self.code()));
        let kind = HeaderValue::from_static("application/grpc");
        if let Self::Refused(refusal) = self {
            // Only an end: the message is percent-encoded there.
            let message: String =
                refusal.to_string().chars().filter(|c| matches!(c, ' '..='~') && *c != '%').collect();
            let mut response = Response::new(Full::new(Bytes::new()).boxed_unsync());
            *response.headers_mut() = end;
            response.headers_mut().insert(CONTENT_TYPE, kind);
            if let Ok(message) = HeaderValue::from_str(&message) {
                response.headers_mut().insert("grpc-message", message);
            }
            return response;
        }
        let message = self.proto();
        let mut framed = vec![0];
        framed.extend(u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
        framed.extend(message);
        let body = Full::new(Bytes::from(framed)).with_trailers(std::future::ready(Some(Ok(end))));
        let mut response = Response::new(body.boxed_unsync());
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}

/// A number of protobuf.
fn varint(mut number: u64, into: &mut Vec<u8>) {
    while number >= 0x80 {
        into.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

/// A text of protobuf, in this field.
fn text(field: u8, text: &str, into: &mut Vec<u8>) {
    into.push(field << 3 | 2);
    varint(text.len() as u64, into);
    into.extend_from_slice(text.as_bytes());
}
