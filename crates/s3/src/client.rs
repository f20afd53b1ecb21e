//! What speaks to the store: bounded in time, following nobody elsewhere.

use crate::access::Access;
use crate::bucket::Bucket;
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::client::{HttpClient, HttpConnector};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use reqwest::redirect::Policy;
use reqwest::tls::Certificate;
use std::time::Duration;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// How long one request may take, with all that is sent and received: 64 MiB at 224 kB/s.
const REQUEST: Duration = Duration::from_secs(300);
/// A peer that acknowledges nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(30);
/// Whether it is still there is asked so often while nothing is sent.
const ASK: Duration = Duration::from_secs(10);
/// A short outage is waited for: a quarter of a minute or so.
const RETRIES: usize = 10;
const RETRY: Duration = Duration::from_secs(60);
const BACK_OFF: BackoffConfig =
    BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(3), base: 2. };

/// One HTTP client for all requests.
#[derive(Debug)]
struct Connector(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

fn http(access: &Access) -> Result<reqwest::Client, reqwest::Error> {
    // Whoever was first stays: all of this program is on the same provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let bundle = access.bundle.as_deref().map_or(Ok(Vec::new()), Certificate::from_pem_bundle)?;
    let is_plain = access.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    reqwest::Client::builder()
        .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none()) // a store that sends us elsewhere would get what we sign
        .https_only(!is_plain)
        .tls_certs_merge(bundle)
        .connect_timeout(CONNECT)
        .timeout(REQUEST)
        .tcp_user_timeout(SILENCE)
        .tcp_keepalive(ASK)
        .tcp_keepalive_interval(ASK)
        .tcp_keepalive_retries(3)
        .build()
}

/// A client for a bucket.
///
/// # Errors
/// If the certificates are none, or nothing can be built of what is given.
pub fn connect(access: &Access, bucket: &Bucket) -> Result<AmazonS3, object_store::Error> {
    let generic =
        |source: reqwest::Error| object_store::Error::Generic { store: "S3", source: source.into() };
    let http = http(access).map_err(generic)?;
    let retry = RetryConfig { backoff: BACK_OFF, max_retries: RETRIES, retry_timeout: RETRY };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&bucket.name)
        .with_region(&access.region)
        .with_access_key_id(&access.key)
        .with_secret_access_key(&access.secret)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_disable_bulk_delete(true) // not every store has it
        .with_allow_http(true) // the client above says whether
        .with_retry(retry)
        .with_http_connector(Connector(http));
    if let Some(token) = &access.token {
        builder = builder.with_token(token);
    }
    if let Some(endpoint) = &access.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    builder.build()
}
