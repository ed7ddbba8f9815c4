//! Transport security: the listener's certificate, its renewal, and client certificates.
//!
//! The TLS key is a P-256 key in RAM; its certificate is issued by the box's own CA at start and daily. A
//! device key would cost one TPM signature per connection.
//! Refuses to do: TLS below `tls.min_version`; start with a CA certificate that is not of this box's issuing
//! key; treat a client certificate as more than a name to look up among the registered clients, or a key that the fleet's
//! roster pins to a hub (`clients`).
//! Invariant: the chain served was verified against the CA certificate that clients download.

mod authority;
mod clients;
mod subject;
mod time_stamping;

pub use authority::AuthorityError;
pub use authority::{create_ca, export_ca};
pub use clients::spki_sha256;
pub use subject::common_name;
pub use time_stamping::Certifier;

use crate::config::{Config, TlsVersion};
use crate::peers::Hubs;
use authority::Authority;
use bulla_keys::KeyService;
use clients::Clients;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

/// How often a fresh certificate is issued.
const RENEW_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The box's CA.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The file of client CAs.
    #[error("tls.client_ca {path}: {reason}; write the CA certificates there in PEM, or remove the setting")]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// rustls refused the configuration.
    #[error("TLS cannot be configured: {0}")]
    Rustls(#[from] rustls::Error),
}

/// The certificate in use, and the means to replace it while connections are open.
pub struct Certificates {
    authority: Authority,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
    clients: Arc<Clients>,
}

#[derive(Debug)]
struct Current(RwLock<Issued>);

#[derive(Debug, Clone)]
struct Issued {
    at: SystemTime,
    key: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).key))
    }
}

/// Issues the first certificate and builds what the listener needs. Blocks while the TPM signs.
pub fn server_config(
    keys: &KeyService,
    config: &Config,
    hubs: Hubs,
) -> Result<(Arc<ServerConfig>, Arc<Certificates>), TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let authority = Authority::open(keys, config)?;
    let issued = issue(&authority, &provider)?;
    let current = Arc::new(Current(RwLock::new(issued)));
    let versions: &[&rustls::SupportedProtocolVersion] = match config.tls.min_version {
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
    };
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
    let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&current) as _;
    let registered: Option<Arc<dyn ClientCertVerifier>> = match &config.tls.client_ca {
        None => None,
        Some(path) => {
            let wrong = |reason: String| TlsError::ClientCa { path: path.clone(), reason };
            let mut roots = RootCertStore::empty();
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| wrong(error.to_string()))?;
            Some(verifier)
        }
    };
    let clients = Arc::new(Clients::new(hubs, registered, Arc::clone(&provider)));
    let verifier: Arc<dyn ClientCertVerifier> = Arc::clone(&clients) as _;
    let mut server = builder.with_client_cert_verifier(verifier).with_cert_resolver(resolver);
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((Arc::new(server), Arc::new(Certificates { authority, provider, current, clients })))
}

impl Certificates {
    /// The name in a client's certificate, where `tls.client_ca` vouches for it.
    pub fn client_name(&self, chain: &[CertificateDer<'static>]) -> Option<Arc<str>> {
        let name = common_name(chain.first()?)?;
        self.clients.vouched(chain).then(|| Arc::from(name))
    }

    /// The CA certificate in PEM.
    pub fn ca_pem(&self) -> &str {
        self.authority.ca_pem()
    }

    /// SHA-256 of the CA certificate's DER, in hex.
    pub fn ca_fingerprint(&self) -> String {
        self.authority.ca_fingerprint()
    }

    /// When the listener's certificate was made.
    pub fn issued_at(&self) -> SystemTime {
        self.current.0.read().unwrap_or_else(PoisonError::into_inner).at
    }

    /// Issues a new certificate when the current one is a day old or the clock was set back past it.
    /// Returns whether it did. Blocks while the TPM signs.
    pub fn renew_if_due(&self, now: SystemTime) -> Result<bool, TlsError> {
        let fresh = now
            .duration_since(self.issued_at())
            .map_or_else(|ahead| ahead.duration() < Duration::from_secs(3600), |age| age < RENEW_AFTER);
        if fresh {
            return Ok(false);
        }
        let issued = issue(&self.authority, &self.provider)?;
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = issued;
        Ok(true)
    }
}

fn issue(authority: &Authority, provider: &CryptoProvider) -> Result<Issued, TlsError> {
    let at = SystemTime::now();
    let (chain, key) = authority.issue_server(at)?;
    let key = provider.key_provider.load_private_key(PrivateKeyDer::Pkcs8(key))?;
    Ok(Issued { at, key: Arc::new(CertifiedKey::new(chain, key)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_keys::Provider;
    use std::time::UNIX_EPOCH;

    fn software_box() -> (tempfile::TempDir, KeyService, Config) {
        let directory = tempfile::tempdir().unwrap();
        let text = format!(
            "state_dir = {:?}\n[identity]\nfleet = \"bank.example\"\nnames = [\"box\", \"192.0.2.1\"]\n\
             [software]\naccept = true\n",
            directory.path()
        );
        let config = Config::parse(&text).unwrap();
        let keys = KeyService::create(&Provider::Software, &directory.path().join("keys")).unwrap();
        create_ca(&keys, &config).unwrap();
        (directory, keys, config)
    }

    #[test]
    fn a_wrong_clock_does_not_stop_the_box_and_is_made_good_later() {
        let (_directory, keys, config) = software_box();
        let (_, certificates) = server_config(&keys, &config, Hubs::default()).unwrap();
        let at = |days: u64| UNIX_EPOCH + Duration::from_secs(days * 86_400);
        assert_eq!(certificates.authority.issue_server(at(1)).unwrap().0.len(), 2);
        assert!(certificates.authority.issue_server(at(40_000)).is_ok());
        let now = SystemTime::now();
        assert!(!certificates.renew_if_due(now).unwrap());
        assert!(certificates.renew_if_due(now + RENEW_AFTER).unwrap());
        assert!(certificates.renew_if_due(at(1)).unwrap());
    }

    #[test]
    fn a_lost_ca_certificate_is_issued_again_and_another_boxes_one_is_refused() {
        let (directory, keys, config) = software_box();
        let path = directory.path().join("ca.pem");
        std::fs::remove_file(&path).unwrap();
        let (_, after) = server_config(&keys, &config, Hubs::default()).unwrap();
        let exported = export_ca(&config, &directory.path().join("out.pem")).unwrap();
        assert_eq!(exported, after.ca_fingerprint());
        let (_other_directory, other_keys, other_config) = software_box();
        let (_, other) = server_config(&other_keys, &other_config, Hubs::default()).unwrap();
        std::fs::write(&path, other.ca_pem()).unwrap();
        let refused = server_config(&keys, &config, Hubs::default()).map(|_| ()).unwrap_err();
        assert!(matches!(refused, TlsError::Authority(AuthorityError::OtherCa { .. })), "{refused}");
    }
}
