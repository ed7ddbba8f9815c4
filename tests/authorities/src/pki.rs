//! Certificates for time-stamping authorities, good and bad, made by `openssl ca`.
//!
//! Invariant: every authority has a directory, every key is in a file of it, and nothing is used twice.

use crate::openssl::{self, text};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Kind of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// RSA of so many bits.
    Rsa(u32),
    /// On P-256.
    P256,
    /// On P-384.
    P384,
    /// Ed25519.
    Ed25519,
}

/// Extensions of a certificate for time stamps, as RFC 3161 wants them.
pub const FOR_STAMPS: &str = "basicConstraints=critical,CA:FALSE\n\
    keyUsage=critical,digitalSignature\n\
    extendedKeyUsage=critical,timeStamping\n\
    subjectKeyIdentifier=hash\n";
/// Extensions of a CA.
pub const FOR_CAS: &str = "basicConstraints=critical,CA:TRUE\n\
    keyUsage=critical,keyCertSign,cRLSign\n\
    subjectKeyIdentifier=hash\n";
/// From long ago to long from now, in UTC.
pub const LONG: (&str, &str) = ("20200101000000Z", "20491231235959Z");

/// What is asked of a certificate.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// Common name.
    pub name: &'a str,
    /// Its key.
    pub key: Key,
    /// Lines of an OpenSSL extension file.
    pub extensions: &'a str,
    /// From when to when.
    pub validity: (&'a str, &'a str),
    /// Hash of the issuer's signature.
    pub hash: &'a str,
}

impl Default for Wish<'_> {
    fn default() -> Self {
        Wish { name: "TSA", key: Key::P256, extensions: FOR_STAMPS, validity: LONG, hash: "sha256" }
    }
}

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct Holder {
    directory: PathBuf,
    above: Vec<PathBuf>,
}

impl Holder {
    /// A CA that signs itself; its files go to `directory`, which is made.
    pub fn root(directory: &Path, name: &str, key: Key) -> Result<Self> {
        Self::make(directory, None, &Wish { name, key, extensions: FOR_CAS, ..Wish::default() })
    }

    /// A root as wished.
    pub fn root_as(directory: &Path, wish: &Wish<'_>) -> Result<Self> {
        Self::make(directory, None, wish)
    }

    /// A certificate of this CA; its files go to a directory beside the CA's.
    pub fn issue(&self, wish: &Wish<'_>) -> Result<Self> {
        let beside = self.directory.parent().context("a CA's directory is in another")?;
        let taken = fs::read_dir(beside)?.count();
        Self::make(&beside.join(format!("{}-{taken}", wish.name.replace([' ', '/'], "-"))), Some(self), wish)
    }

    fn make(directory: &Path, issuer: Option<&Holder>, wish: &Wish<'_>) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let above = issuer.map(|issuer| [&[issuer.certificate()], &issuer.above[..]].concat());
        let holder = Holder { directory: directory.to_owned(), above: above.unwrap_or_default() };
        let bits = |bits| format!("rsa_keygen_bits:{bits}");
        let key = holder.key();
        let kind: Vec<String> = match wish.key {
            Key::Rsa(size) => vec!["RSA".into(), "-pkeyopt".into(), bits(size)],
            Key::P256 => vec!["EC".into(), "-pkeyopt".into(), "ec_paramgen_curve:P-256".into()],
            Key::P384 => vec!["EC".into(), "-pkeyopt".into(), "ec_paramgen_curve:P-384".into()],
            Key::Ed25519 => vec!["ED25519".into()],
        };
        let mut arguments = vec!["genpkey", "-out", text(&key)?, "-algorithm"];
        arguments.extend(kind.iter().map(String::as_str));
        openssl::run(&arguments, b"")?;

        let (config, request) = (directory.join("ca.cnf"), directory.join("request.pem"));
        let (extensions, index) = (directory.join("extensions.cnf"), directory.join("index.txt"));
        fs::write(&extensions, wish.extensions)?;
        fs::write(&index, "")?;
        fs::write(directory.join("index.txt.attr"), "unique_subject = no\n")?;
        fs::write(
            &config,
            format!(
                "[req]\ndistinguished_name = names\nprompt = no\n[names]\nC = AT\nO = Bulla tests\nCN = {}\n\
                 [ca]\ndefault_ca = only\n[only]\ndatabase = {}\nnew_certs_dir = {}\nrand_serial = yes\n\
                 policy = any\nemail_in_dn = no\n[any]\ncountryName = optional\norganizationName = optional\n\
                 commonName = supplied\n",
                wish.name,
                text(&index)?,
                text(directory)?,
            ),
        )?;
        openssl::run(
            &["req", "-new", "-config", text(&config)?, "-key", text(&key)?, "-out", text(&request)?],
            b"",
        )?;
        let certificate = holder.certificate();
        let mut arguments = vec!["ca", "-batch", "-notext", "-config", text(&config)?];
        arguments.extend(["-in", text(&request)?, "-out", text(&certificate)?]);
        arguments.extend(["-startdate", wish.validity.0, "-enddate", wish.validity.1]);
        arguments.extend(["-extfile", text(&extensions)?, "-md", wish.hash]);
        let issuer_files = issuer.map(|issuer| (issuer.certificate(), issuer.key()));
        match &issuer_files {
            None => arguments.extend(["-selfsign", "-keyfile", text(&key)?]),
            Some((certificate, key)) => {
                arguments.extend(["-cert", text(certificate)?, "-keyfile", text(key)?])
            }
        }
        openssl::run(&arguments, b"")?;
        let chain: Vec<String> = holder.above.iter().map(fs::read_to_string).collect::<Result<_, _>>()?;
        fs::write(holder.chain(), chain.concat())?;
        Ok(holder)
    }

    /// A CRL of this CA in DER, with these certificates on it, each with its reason if there is one. It is made on a clock
    /// that is off by so many seconds and holds for so many.
    pub fn crl(
        &self,
        revoked: &[(&Holder, Option<&str>)],
        offset_seconds: i64,
        seconds: u32,
    ) -> Result<Vec<u8>> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let directory = self.directory.join(format!("crl-{}", MADE.fetch_add(1, Relaxed)));
        fs::create_dir_all(&directory)?;
        let path = |name: &str| directory.join(name);
        let (index, number, config, list) =
            (path("index.txt"), path("number"), path("ca.cnf"), path("list.pem"));
        fs::write(&index, "")?;
        fs::write(&number, "01\n")?;
        fs::write(
            &config,
            format!(
                "[ca]\ndefault_ca = only\n[only]\ndatabase = {}\ncrlnumber = {}\ndefault_md = sha256\n\
                 crl_extensions = more\n[more]\nauthorityKeyIdentifier = keyid\n",
                text(&index)?,
                text(&number)?,
            ),
        )?;
        let (certificate, key) = (self.certificate(), self.key());
        let by = ["ca", "-config", text(&config)?, "-cert", text(&certificate)?, "-keyfile", text(&key)?];
        for (holder, reason) in revoked {
            let lost = holder.certificate();
            let mut arguments = [&by[..], &["-revoke", text(&lost)?]].concat();
            arguments.extend(reason.iter().flat_map(|reason| ["-crl_reason", *reason]));
            openssl::run_at(&arguments, b"", offset_seconds)?;
        }
        let seconds = seconds.to_string();
        let arguments = [&by[..], &["-gencrl", "-crlsec", &seconds, "-out", text(&list)?]].concat();
        openssl::run_at(&arguments, b"", offset_seconds)?;
        openssl::run(&["crl", "-in", text(&list)?, "-outform", "DER"], b"")
    }

    /// Its certificate, in PEM.
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("certificate.pem")
    }

    /// Its key, in PEM.
    pub fn key(&self) -> PathBuf {
        self.directory.join("key.pem")
    }

    /// The certificates above it, root last, in one PEM file.
    pub fn chain(&self) -> PathBuf {
        self.directory.join("chain.pem")
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}
