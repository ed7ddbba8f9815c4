//! A bucket of an S3-compatible server: how it is reached, how long it is waited for, what it must be able to do.
//!
//! Refuses to do: believe a server by another CA than the configured one; overwrite, or let a server be used that would;
//! say more about credentials than where they are read from.
//! Invariant: no operation outlasts the configured patience by more than one request.

use crate::config::BucketConfig;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer};
use object_store::client::{ClientOptions, HttpClient, HttpConnector, HttpRequest, HttpRequestBody};
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ObjectStore as _, PutMode, PutPayload, RetryConfig};
use serde::Deserialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use ureq::http::Request;
use zeroize::Zeroizing;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses between attempts: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Most that is repeated of what a server says, in characters.
const SAID_MAX: usize = 500;

/// Why a bucket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// A file that the configuration names cannot be read.
    #[error("s3: {path} cannot be read ({source}); the configuration names it")]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The file of credentials is not understood. What is in it is not repeated.
    #[error(
        "s3: {0} does not hold credentials; it is TOML: access_key_id, secret_access_key and, where there is one, session_token"
    )]
    Credentials(PathBuf),
    /// The certificate of the CA, or a value, cannot be used.
    #[error("s3: {0}")]
    Setting(String),
    /// The server does not keep what is there.
    #[error(
        "s3: the server of the bucket {0} overwrites an object although it is told not to (If-None-Match), so two hubs could destroy each other's archive; use a server that honours conditional puts"
    )]
    Overwrites(String),
    /// The bucket has no lock, and must have one.
    #[error(
        "s3: the bucket {bucket} has no object lock with a default retention ({reason}); give it one, or set s3.object_lock = false"
    )]
    Unlocked {
        /// The bucket.
        bucket: String,
        /// What the server says.
        reason: String,
    },
    /// The server failed.
    #[error(
        "s3: the bucket {bucket} cannot be used ({reason}); check the server, endpoint, credentials and rights"
    )]
    Failed {
        /// The bucket.
        bucket: String,
        /// The reason.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

/// HTTP with the configured CA and no other, without redirects or a proxy.
#[derive(Debug)]
struct Connector(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

/// A bucket.
pub struct Bucket {
    store: AmazonS3,
    client: HttpClient,
    config: BucketConfig,
}

fn read(path: &std::path::Path) -> Result<Zeroizing<Vec<u8>>, BucketError> {
    let unreadable = |source| BucketError::File { path: path.to_owned(), source };
    std::fs::read(path).map(Zeroizing::new).map_err(unreadable)
}

fn client(config: &BucketConfig) -> Result<reqwest::Client, BucketError> {
    let setting = |error: &dyn std::fmt::Display| BucketError::Setting(error.to_string());
    let mut builder = reqwest::Client::builder()
        .use_rustls_tls()
        .tls_built_in_root_certs(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(Duration::from_secs(config.timeout_seconds))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("bulla-hub/", env!("CARGO_PKG_VERSION")));
    if let Some(ca) = &config.ca {
        let of = |error| setting(&format!("{} holds no CA certificate ({error})", ca.display()));
        let roots = reqwest::Certificate::from_pem_bundle(&read(ca)?).map_err(of)?;
        if roots.is_empty() {
            return Err(setting(&format!("{} holds no CA certificate", ca.display())));
        }
        for root in roots {
            builder = builder.add_root_certificate(root);
        }
    }
    builder.build().map_err(|error| setting(&error))
}

impl Bucket {
    /// Reads credentials and CA. Nothing is asked of the server yet.
    pub fn open(config: &BucketConfig) -> Result<Self, BucketError> {
        let bad = || BucketError::Credentials(config.credentials_file.clone());
        let bytes = read(&config.credentials_file)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| bad())?;
        let found: Credentials = toml::from_str(text).map_err(|_| bad())?;
        let client = client(config)?;
        let retry = RetryConfig {
            backoff: BackoffConfig { init_backoff: PAUSES.0, max_backoff: PAUSES.1, base: 2.0 },
            max_retries: 2,
            retry_timeout: Duration::from_secs(config.timeout_seconds),
        };
        let mut builder = AmazonS3Builder::new()
            .with_endpoint(config.endpoint.trim_end_matches('/'))
            .with_bucket_name(&config.bucket)
            .with_region(&config.region)
            .with_access_key_id(found.access_key_id)
            .with_secret_access_key(found.secret_access_key)
            .with_allow_http(config.ca.is_none())
            .with_retry(retry)
            .with_http_connector(Connector(client.clone()));
        if let Some(token) = found.session_token {
            builder = builder.with_token(token);
        }
        let store = builder.build().map_err(|error| BucketError::Setting(said(&error)))?;
        Ok(Bucket { store, client: HttpClient::new(client), config: config.clone() })
    }

    /// The store itself.
    pub fn store(&self) -> AmazonS3 {
        self.store.clone()
    }

    /// Whether the server keeps what is there: an object is put twice, and only the first may count.
    pub async fn keeps(&self, patience: Duration) -> Result<(), BucketError> {
        let key = Key::from(format!("{}/probe", self.config.prefix));
        let failed = |error| self.failed(&error);
        let put = |bytes: &'static str| {
            let payload = PutPayload::from_static(bytes.as_bytes());
            self.store.put_opts(&key, payload, PutMode::Create.into())
        };
        for bytes in ["an object", "another object"] {
            let done = patiently(patience, async || match put(bytes).await {
                Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
                Err(error) => Err(error),
            });
            done.await.map_err(failed)?;
        }
        let read = patiently(patience, async || self.store.get(&key).await?.bytes().await);
        let kept = read.await.map_err(failed)? == "an object".as_bytes();
        patiently(patience, async || self.store.delete(&key).await).await.map_err(failed)?;
        if kept { Ok(()) } else { Err(BucketError::Overwrites(self.config.bucket.clone())) }
    }

    /// Whether the bucket keeps every version of an object for a time by itself (object lock with a default retention).
    pub async fn is_locked(&self, patience: Duration) -> Result<(), BucketError> {
        let answer = patiently(patience, async || self.lock().await).await;
        let (status, body) = answer.map_err(|error| self.failed(&error))?;
        let unlocked = |reason: String| BucketError::Unlocked { bucket: self.config.bucket.clone(), reason };
        if status != 200 {
            return Err(unlocked(format!("status {status}")));
        }
        let lock: Lock = quick_xml::de::from_str(&body)
            .map_err(|_| unlocked("its answer is not understood".to_owned()))?;
        let lasts = |kept: &Retention| kept.days.unwrap_or(0) > 0 || kept.years.unwrap_or(0) > 0;
        let retention = lock.rule.and_then(|rule| rule.retention);
        match (lock.enabled.as_deref(), retention) {
            (Some("Enabled"), Some(kept)) if lasts(&kept) => Ok(()),
            (Some("Enabled"), _) => Err(unlocked("it has a lock and no retention".to_owned())),
            _ => Err(unlocked("it is off".to_owned())),
        }
    }

    /// `GetObjectLockConfiguration`, which `object_store` does not know.
    async fn lock(&self) -> object_store::Result<(u16, String)> {
        let generic = |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic {
            store: "S3",
            source,
        };
        let (endpoint, bucket) = (self.config.endpoint.trim_end_matches('/'), &self.config.bucket);
        let mut request: HttpRequest = Request::get(format!("{endpoint}/{bucket}?object-lock="))
            .body(HttpRequestBody::empty())
            .map_err(|error| generic(error.into()))?;
        let credential = self.store.credentials().get_credential().await?;
        AwsAuthorizer::new(&credential, "s3", &self.config.region).authorize(&mut request, None);
        let answer = self.client.execute(request).await.map_err(|error| generic(error.into()))?;
        let status = answer.status();
        if status.is_server_error() {
            return Err(generic(format!("status {}", status.as_u16()).into()));
        }
        let bytes = answer.into_body().bytes().await.map_err(|error| generic(error.into()))?;
        Ok((status.as_u16(), String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn failed(&self, error: &object_store::Error) -> BucketError {
        BucketError::Failed { bucket: self.config.bucket.clone(), reason: said(error) }
    }
}

#[derive(Deserialize)]
struct Lock {
    #[serde(rename = "ObjectLockEnabled")]
    enabled: Option<String>,
    #[serde(rename = "Rule")]
    rule: Option<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    #[serde(rename = "DefaultRetention")]
    retention: Option<Retention>,
}

#[derive(Deserialize)]
struct Retention {
    #[serde(rename = "Days")]
    days: Option<u32>,
    #[serde(rename = "Years")]
    years: Option<u32>,
}

/// Why the server's certificate was not accepted, when that is what went wrong.
fn certificate_refused(error: &object_store::Error) -> Option<&rustls::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        // An I/O error does not count what it carries among its causes.
        let carried = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let of = carried.and_then(|carried| carried.downcast_ref()).or(error.downcast_ref::<rustls::Error>());
        if let Some(refused @ rustls::Error::InvalidCertificate(_)) = of {
            return Some(refused);
        }
        cause = match carried {
            Some(carried) => Some(carried),
            None => error.source(),
        };
    }
    None
}

/// What a store says, on one line of bounded length.
pub fn said(error: &object_store::Error) -> String {
    if let Some(refused) = certificate_refused(error) {
        return format!("{refused}; the server's name and certificate must be of the CA that s3.ca names");
    }
    let line: String = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SAID_MAX) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// Whether trying again can help: the server or the way to it failed, rather than the request, or the server's name.
fn may_pass(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::Generic { .. }) && certificate_refused(error).is_none()
}

/// Does this again and again while it may still come about, for so long at most.
pub async fn patiently<T>(
    patience: Duration,
    mut work: impl AsyncFnMut() -> object_store::Result<T>,
) -> object_store::Result<T> {
    let (end, mut pause) = (Instant::now() + patience, PAUSES.0);
    loop {
        match work().await {
            Err(error) if may_pass(&error) && Instant::now() + pause < end => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
            done => return done,
        }
    }
}
