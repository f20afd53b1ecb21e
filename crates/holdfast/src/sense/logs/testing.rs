//! What tests of sources stand on: an inlet that is read, and places that are given.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::health::{Reading, Registry};
use super::means::{Feeds, Means, Places, Trails};
use crate::clock::Clock;
use crate::disk::faulty::FaultyDisk;
use crate::logbook::{Entry, Inlet, Outlet};
use async_trait::async_trait;
use holdfast_core::action::{Fact, Found, Order};
use holdfast_core::lease::Lease;
use holdfast_core::policy::Ability;
use holdfast_core::subject::Subject;
use holdfast_core::subject::VmName;
use holdfast_core::time::Timestamp;
use holdfast_drivers::{
    Driver, DriverError, Glimpse, GuestRead, Injection, Piece, Places as Paths, Question,
};
use holdfast_logs::{LONGEST_FIELD, LONGEST_FIELD_NAME, LONGEST_PROGRAM, LONGEST_TEXT, MOST_FIELDS, Record};
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

/// The other side of sources.
pub struct Lab {
    pub means: Means,
    pub outlet: Outlet,
    /// The place of each source, as the storage would know it.
    pub places: BTreeMap<(Subject, String), String>,
}

impl Lab {
    pub fn new(driver: Arc<dyn Driver>) -> Self {
        Self::going_on(driver, BTreeMap::new())
    }

    /// A later life: sources go on at these places.
    pub fn going_on(driver: Arc<dyn Driver>, places: BTreeMap<(Subject, String), String>) -> Self {
        let (inlet, outlet) = Inlet::new();
        let (clock, _) = Clock::start(Arc::new(FaultyDisk::default()), "a", Timestamp::ZERO);
        let known = places.clone();
        let kept: Places =
            Arc::new(move |subject, source| known.get(&(subject.clone(), source.to_string())).cloned());
        let stop = CancellationToken::new();
        let feeds = Feeds { inlet, registry: Registry::default(), clock };
        let means = Means { feeds, places: kept, trails: Trails::default(), driver, stop };
        Self { means, outlet, places }
    }

    /// The next record.
    pub async fn next(&mut self) -> Entry {
        let entry = tokio::time::timeout(LONG, self.outlet.next()).await.expect("a record").unwrap();
        if let Some(place) = &entry.place {
            self.places.insert((entry.subject.clone(), entry.source.to_string()), place.to_string());
        }
        entry
    }

    /// The texts of the next records.
    pub async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for _ in 0..count {
            texts.push(self.next().await.record.text);
        }
        texts
    }

    /// How a source is, once that is so.
    pub async fn until(&self, source: &str, so: impl Fn(&Reading) -> bool) -> Reading {
        let look = async {
            loop {
                let all = self.means.feeds.registry.read();
                let found = all.into_iter().find(|(_, name, reading)| name.as_str() == source && so(reading));
                if let Some((.., reading)) = found {
                    return reading;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(LONG, look).await;
        found.unwrap_or_else(|_| panic!("{source} is not so: {:?}", self.means.feeds.registry.read()))
    }
}

/// Whether a record is within the limits of records, and fit to be shown.
pub fn is_fit(record: &Record) -> bool {
    let is_clean = |text: &str| !text.chars().any(|letter| letter.is_control() && letter != '\n');
    let field = |(name, value): &(String, String)| {
        name.len() <= LONGEST_FIELD_NAME && value.len() <= LONGEST_FIELD && is_clean(name) && is_clean(value)
    };
    record.text.len() <= LONGEST_TEXT
        && record.program.len() <= LONGEST_PROGRAM
        && record.fields.len() <= MOST_FIELDS
        && record.fields.iter().all(field)
        && is_clean(&record.text)
        && is_clean(&record.program)
}

/// What a fake guest answers.
pub type Answer = Box<dyn FnMut(&GuestRead) -> Result<Piece, DriverError> + Send>;

/// A guest with a fake agent, played by the test; nothing else of a hypervisor is there.
pub struct FakeGuest {
    answer: Mutex<Answer>,
    paths: Paths,
}

impl FakeGuest {
    pub fn new(answer: Answer) -> Arc<Self> {
        Arc::new(Self { answer: Mutex::new(answer), paths: Paths::default() })
    }

    /// Nobody is there.
    pub fn away() -> Arc<Self> {
        Self::new(Box::new(|_| Err(DriverError::NotRunning("orders".parse().unwrap()))))
    }

    /// Where its files are on the host.
    pub fn at(paths: Paths) -> Arc<Self> {
        let answer: Answer = Box::new(|_| Err(DriverError::Unable("read")));
        Arc::new(Self { answer: Mutex::new(answer), paths })
    }
}

#[async_trait]
impl Driver for FakeGuest {
    fn abilities(&self, _: &VmName) -> BTreeSet<Ability> {
        BTreeSet::new()
    }

    fn places(&self, _: &VmName) -> Paths {
        self.paths.clone()
    }

    async fn inspect(&self, _: &VmName) -> Result<Found, DriverError> {
        Err(DriverError::Unable("inspect"))
    }

    async fn perform(&self, _: &VmName, _: &Order, _: Duration) -> Result<Fact, DriverError> {
        Err(DriverError::Unable("perform"))
    }

    async fn refuse_start(&self, _: &VmName, _: &Lease, _: Duration) -> Result<(), DriverError> {
        Err(DriverError::Unable("refuse a start"))
    }

    async fn poll(&self, _: &VmName, _: Duration) -> Vec<Glimpse> {
        Vec::new()
    }

    async fn ask(&self, _: &VmName, _: &Question, _: Duration) -> Vec<Glimpse> {
        Vec::new()
    }

    async fn read(&self, _: &VmName, what: &GuestRead, _: Duration) -> Result<Piece, DriverError> {
        (self.answer.lock().unwrap())(what)
    }

    async fn next_event(&self) -> Glimpse {
        std::future::pending().await
    }

    async fn inject(&self, _: &VmName, _: &Injection) -> Result<(), DriverError> {
        Err(DriverError::Unable("inject"))
    }
}

/// Signs certificates.
pub struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    /// Certificate and key, in PEM.
    pub fn sign(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// Writes a key as it should be kept.
pub fn write_key(path: &Path, pem: &str) {
    std::fs::write(path, pem).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Connects with TLS to `logs.example`, with a certificate of one's own or without, to speak one of these (ALPN).
pub async fn connect_tls(
    to: SocketAddr,
    trusted: &str,
    own: Option<(String, String)>,
    spoken: &[&[u8]],
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    config.alpn_protocols = spoken.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("logs.example").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(to).await?).await
}
