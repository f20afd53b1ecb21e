//! Where a repository lies in a bucket: its objects in an S3 store, each put once ([`S3`]).
//!
//! Who asks and where is told by the standard AWS variables ([`Access`]); which bucket, by a name such as
//! `s3://bucket/prefix` ([`Bucket`]); what goes wrong is told without any secret ([`Failure`]).
//!
//! Three things are asked of a store: what was put is read and listed from then on (strong consistency); an object that is
//! there is not replaced where that is asked (`If-None-Match: *`); and what it has answered for is durable. The second is
//! proven before anything is put.

mod access;
mod bucket;
mod client;
mod failure;
mod store;

pub use access::{Access, AccessError};
pub use bucket::{Bucket, NoBucket};
pub use failure::Failure;
pub use store::S3;
