//! `bulla-fleet serve`: the registrar.
//!
//! Refuses to do: start without manufacturers to believe, or on a fleet directory whose parts do not belong together.
//! Invariants: its TLS key is made once and stays, because boxes pin it; what is enrolled is what the roster has taken up.

mod http;
mod office;

use crate::exit::{Exit, Failure};
use crate::{desk, files, init, terms};
use bulla_approvals::action::Kind;
use bulla_enrolment::boot::{BootPolicy, KnownBoot};
use bulla_enrolment::endorsement::Manufacturers;
use bulla_enrolment::evidence::Policy;
use bulla_enrolment::issue::FleetCa;
use bulla_enrolment::registrar::Registrar;
use bulla_formats::der;
use bulla_formats::enrolment::FleetCertificate;
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::report::utc_millis;
use bulla_formats::trust::{Reference, TRUST_BYTES_MAX, TrustFile};
use clap::Args;
use ed25519_dalek::SigningKey;
use office::Office;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

/// The registrar's TLS key: PKCS #8.
const KEY: &str = "registrar.key";
/// Longest file in it in bytes.
const SMALL: usize = 64 << 10;

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The fleet directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8444")]
    listen: SocketAddr,
    /// Certificates of manufacturers, PEM or DER: `roots` are believed, `intermediates` help where a TPM does not carry
    /// its whole chain. By default `manufacturers` in the fleet directory
    #[arg(long, value_name = "DIRECTORY")]
    manufacturers: Option<PathBuf>,
    /// Last moment at which a known good boot is accepted, e.g. "image 1.2.0=2026-12-31T00:00:00Z"
    #[arg(long = "until", value_name = "NAME=TIME", value_parser = until)]
    until: Vec<(String, u64)>,
    /// The event log must prove that Secure Boot was on
    #[arg(long)]
    secure_boot: bool,
    /// Version of TPM firmware, in hex, that is known to be bad
    #[arg(long, value_name = "VERSION", value_parser = firmware)]
    bad_firmware: Vec<u64>,
}

fn until(text: &str) -> Result<(String, u64), String> {
    let (name, time) = text.split_once('=').ok_or("write NAME=TIME")?;
    Ok((name.to_owned(), utc_millis(time)?))
}

fn firmware(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).map_err(|error| error.to_string())
}

/// Serves until SIGTERM or SIGINT.
pub fn run(args: &ServeArgs) -> Result<Exit, Failure> {
    let key = tls_key(&args.dir)?;
    let pin = sha256(&[&key.subject_public_key_info()]);
    let tls = tls(&key)?;
    let demands = Demands { until: args.until.clone(), secure_boot: args.secure_boot };
    let (policy, by_hand) = policy(args, &pin, &demands)?;
    let judged = matches!(policy.boot, BootPolicy::Judged { .. });
    let registrar = Registrar::new(policy, manufacturers(args)?);
    let office = Office::open(&args.dir, registrar, demands, authority(&args.dir)?)?;
    let failed = |error: std::io::Error| Failure::usage(format!("cannot listen on {}: {error}", args.listen));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let listener = TcpListener::bind(args.listen).await.map_err(failed)?;
        let mut terminated = signal(SignalKind::terminate()).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        crate::say(&format!("pin {pin}\nlistens on {address}\n"));
        if !judged {
            crate::say("WARNING: the fleet knows no good boots; whatever a box boots is enrolled, and only recorded.\n");
        }
        if by_hand {
            crate::say(
                "WARNING: which boots are good stands in trust.json and nobody has approved it; propose it with `bulla-fleet \
                 propose reference --from trust.json`\n",
            );
        }
        let stop = async {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        http::serve(listener, tls, office, stop).await;
        Ok(Exit::Ok)
    })
}

fn tls_key(dir: &Path) -> Result<KeyPair, Failure> {
    let path = dir.join(KEY);
    let failed = |error: rcgen::Error| Failure::file("use", &path, error);
    let bytes = match files::read_if_there(&path, SMALL)? {
        Some(bytes) => bytes,
        None => {
            if !dir.join(desk::ROSTER).exists() {
                let why = "there is no roster in it; `bulla-fleet init` makes a fleet";
                return Err(Failure::file("serve", dir, why));
            }
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
            let bytes = Zeroizing::new(key.serialize_der());
            files::write_private(&path, &bytes)?;
            bytes
        }
    };
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(&bytes[..]), &PKCS_ECDSA_P256_SHA256)
        .map_err(failed)
}

/// The certificate says nothing: boxes pin the key.
fn tls(key: &KeyPair) -> Result<Arc<ServerConfig>, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::usage(format!("TLS cannot be configured: {error}"));
    let certificate =
        CertificateParams::new(vec!["registrar".to_owned()]).and_then(|own| own.self_signed(key));
    let certificate = certificate.map_err(|error| failed(&error))?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| {
            builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], private)
        });
    config.map(Arc::new).map_err(|error| failed(&error))
}

fn authority(dir: &Path) -> Result<FleetCa, Failure> {
    let key = SigningKey::from_bytes(&init::keys(dir)?.fleet_ca);
    let roster = desk::read_roster(&dir.join(desk::ROSTER))?;
    let founding = &roster.founding().content;
    let certificate: FleetCertificate = founding.fleet_ca.clone();
    let path = dir.join("fleet-ca.der");
    if *files::read(&path, SMALL)? != der::encode(&certificate) {
        return Err(Failure::file("use", &path, "it is not the fleet CA of the roster"));
    }
    if key.verifying_key().to_bytes() != certificate.content.public_key[..] {
        return Err(Failure::file("serve", dir, "its fleet.keys are not those of the roster's fleet CA"));
    }
    Ok(FleetCa { root: *founding.root, chain: vec![certificate], key })
}

/// What the command line says of known good boots.
pub struct Demands {
    until: Vec<(String, u64)>,
    secure_boot: bool,
}

impl Demands {
    /// What boxes must have booted, when these boots are good.
    pub fn boot(&self, references: Vec<Reference>) -> BootPolicy {
        let known = |reference: Reference| {
            let until = self.until.iter().find(|(name, _)| *name == reference.name).map(|(_, until)| *until);
            KnownBoot { reference, until }
        };
        // Without any, one that must be proven secure is none that can be let in.
        if references.is_empty() && !self.secure_boot {
            return BootPolicy::NotJudged;
        }
        BootPolicy::Judged {
            known: references.into_iter().map(known).collect(),
            secure_boot: self.secure_boot,
        }
    }
}

/// The policy to begin with, and whether its known good boots are in the trust file alone though several people decide.
fn policy(args: &ServeArgs, pin: &Hash, demands: &Demands) -> Result<(Policy, bool), Failure> {
    let path = args.dir.join("trust.json");
    let text = files::read(&path, TRUST_BYTES_MAX)?;
    let trust = TrustFile::decode(&text).map_err(|error| Failure::file("use", &path, error))?;
    let roster = desk::read_roster(&args.dir.join(desk::ROSTER))?;
    let approved = roster.terms().policy.as_ref().map(|(_, policy)| policy.references());
    let several = terms::needed(&roster, Kind::Policy)? > 1;
    let by_hand = approved.is_none() && several && !trust.references.is_empty();
    let references = approved.unwrap_or(trust.references);
    let names: Vec<&str> = references.iter().map(|reference| reference.name.as_str()).collect();
    if let Some((name, _)) = args.until.iter().find(|(name, _)| !names.contains(&name.as_str())) {
        return Err(Failure::usage(format!("{} knows no boot {name:?}", args.dir.display())));
    }
    if args.secure_boot && references.is_empty() {
        return Err(Failure::usage(
            "--secure-boot needs known good boots: add them with `bulla-fleet propose reference`",
        ));
    }
    let boot = demands.boot(references);
    let bad_firmware = args.bad_firmware.clone();
    Ok((Policy { fleet: trust.fleet, registrar: pin.0, boot, bad_firmware }, by_hand))
}

fn manufacturers(args: &ServeArgs) -> Result<Manufacturers, Failure> {
    let dir = args.manufacturers.clone().unwrap_or_else(|| args.dir.join("manufacturers"));
    let roots = certificates(&dir.join("roots"))?;
    if roots.is_empty() {
        return Err(Failure::usage(format!(
            "{} holds no root of a TPM manufacturer: pin those whose TPMs the fleet has bought with `bulla-fleet makers`",
            dir.join("roots").display()
        )));
    }
    let intermediates = certificates(&dir.join("intermediates"))?;
    Manufacturers::new(&roots, &intermediates).map_err(|error| Failure::usage(error.to_string()))
}

/// Certificates in the files of a directory, by name; nothing where there is none.
pub(crate) fn certificates(dir: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let failed = |error| Failure::file("read", dir, error);
    let entries = fs::read_dir(dir).map_err(failed)?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let bytes = files::read(&path, SMALL)?;
        if bytes.starts_with(b"-----") || bytes.windows(11).any(|part| part == b"-----BEGIN ") {
            for certificate in CertificateDer::pem_slice_iter(&bytes) {
                let certificate = certificate.map_err(|error| Failure::file("use", &path, error))?;
                found.push(certificate.to_vec());
            }
        } else {
            found.push(bytes.to_vec());
        }
    }
    Ok(found)
}
