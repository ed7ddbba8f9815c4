//! What an authority puts into its replies, as its switches say. All of it is made by OpenSSL.

use super::{Answer, CrlAnswer, Options};
use crate::openssl;
use crate::pki::{FOR_CAS, FOR_STAMPS, Holder, LONG, Wish};
use crate::stamps::{AS_STAMP, Desk, Manner, content_of, imprint_of, signed};
use anyhow::{Result, anyhow};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

pub(super) struct Signing {
    directory: PathBuf,
    operator: String,
    key: crate::pki::Key,
    root: Holder,
    issuer: Holder,
    signer: Holder,
    good: Desk,
    stranger_root: OnceLock<Holder>,
    stranger: OnceLock<Desk>,
    expired: OnceLock<Desk>,
    server: OnceLock<Holder>,
    successor: OnceLock<Desk>,
    /// Of the signer's certificate, and its successor's.
    extensions: String,
    /// What is replayed.
    first: Mutex<Option<Vec<u8>>>,
}

impl Signing {
    /// `crls`: the address below which certificates say that CRLs are.
    pub fn new(directory: &Path, options: &Options<'_>, crls: Option<&str>) -> Result<Self> {
        let (operator, key) = (options.operator.to_owned(), options.key);
        let root = Holder::root(&directory.join("root"), &format!("{operator} root"), key)?;
        let issuer = if options.intermediate {
            let name = format!("{operator} issuing CA");
            let extensions = naming(FOR_CAS, crls, ROOT_CRL);
            root.issue(&Wish { name: &name, key, extensions: &extensions, ..Wish::default() })?
        } else {
            root.clone()
        };
        let list = if options.intermediate { ISSUER_CRL } else { ROOT_CRL };
        let extensions = naming(FOR_STAMPS, crls, list);
        let signer =
            issuer.issue(&Wish { name: &operator, key, extensions: &extensions, ..Wish::default() })?;
        let good = Desk::open(&signer, &Manner::default())?;
        Ok(Signing {
            directory: directory.to_owned(),
            operator,
            key,
            root,
            issuer,
            signer,
            good,
            stranger_root: OnceLock::new(),
            stranger: OnceLock::new(),
            expired: OnceLock::new(),
            server: OnceLock::new(),
            successor: OnceLock::new(),
            extensions,
            first: Mutex::new(None),
        })
    }

    pub fn root_pem(&self) -> PathBuf {
        self.root.certificate()
    }

    /// The reply, when the switches ask for one that OpenSSL has a part in.
    pub fn reply(&self, request: &[u8], answer: Answer, offset: i64) -> Result<Vec<u8>> {
        match answer {
            Answer::WrongImprint => {
                let mut other = request.to_vec();
                imprint_of(&mut other)?[0] ^= 1;
                self.good.reply(&other, offset)
            }
            Answer::WrongNonce => {
                let digest = hex::encode(imprint_of(&mut request.to_vec())?);
                let other = openssl::run(&["ts", "-query", "-sha256", "-digest", &digest, "-cert"], b"")?;
                self.good.reply(&other, offset)
            }
            Answer::Replay => {
                let mut first = self.first.lock().map_err(|_| anyhow!("an earlier reply failed"))?;
                if let Some(first) = &*first {
                    return Ok(first.clone());
                }
                let earlier = "5a".repeat(32);
                let earlier = openssl::run(&["ts", "-query", "-sha256", "-digest", &earlier, "-cert"], b"")?;
                Ok(first.insert(self.good.reply(&earlier, offset)?).clone())
            }
            Answer::Stranger => self.stranger()?.reply(request, offset),
            Answer::ExpiredCertificate => self.expired()?.reply(request, offset),
            Answer::Successor => self.successor()?.reply(request, offset),
            Answer::WrongPurpose => {
                let content = content_of(&self.good.reply(request, offset)?)?;
                signed(&content, self.server()?, &AS_STAMP)
            }
            Answer::Damaged => {
                let mut reply = self.good.reply(request, offset)?;
                // The signature comes last.
                if let Some(last) = reply.last_mut() {
                    *last ^= 1;
                }
                Ok(reply)
            }
            _ => {
                let reply = self.good.reply(request, offset)?;
                let mut first = self.first.lock().map_err(|_| anyhow!("an earlier reply failed"))?;
                Ok(first.get_or_insert(reply.clone()).clone()).map(|_| reply)
            }
        }
    }

    fn stranger(&self) -> Result<&Desk> {
        once(&self.stranger, || desk(self.stranger_root()?, &self.operator, self.key, LONG))
    }

    fn stranger_root(&self) -> Result<&Holder> {
        let name = format!("{} root", self.operator);
        once(&self.stranger_root, || Holder::root(&self.directory.join("stranger"), &name, self.key))
    }

    /// The CRL of this name, as the switches say; `None`: there is none of that name.
    pub fn crl(&self, name: &str, answer: CrlAnswer) -> Result<Option<Vec<u8>>> {
        const HOUR: u32 = 3_600;
        let (ca, of_signer) = match name {
            ROOT_CRL => (&self.root, self.root.directory() == self.issuer.directory()),
            ISSUER_CRL => (&self.issuer, true),
            _ => return Ok(None),
        };
        let listing = |reason| if of_signer { vec![(&self.signer, reason)] } else { Vec::new() };
        let made = match answer {
            CrlAnswer::Expired => ca.crl(&[], -i64::from(HOUR), 60),
            // The stranger has the name of the root alone.
            CrlAnswer::Stranger => self.stranger_root()?.crl(&[], 0, HOUR),
            CrlAnswer::Compromised => ca.crl(&listing(Some("keyCompromise")), 0, HOUR),
            CrlAnswer::WithoutReason => ca.crl(&listing(None), 0, HOUR),
            CrlAnswer::Superseded => ca.crl(&listing(Some("superseded")), 0, HOUR),
            _ => ca.crl(&[], 0, HOUR),
        };
        made.map(Some)
    }

    fn successor(&self) -> Result<&Desk> {
        once(&self.successor, || {
            let (name, extensions) = (&self.operator, &self.extensions);
            let wish = Wish { name, key: self.key, extensions, ..Wish::default() };
            Desk::open(&self.issuer.issue(&wish)?, &Manner::default())
        })
    }

    fn expired(&self) -> Result<&Desk> {
        let validity = ("20200101000000Z", "20210101000000Z");
        once(&self.expired, || desk(&self.issuer, &self.operator, self.key, validity))
    }

    fn server(&self) -> Result<&Holder> {
        once(&self.server, || {
            let mut extensions = FOR_STAMPS.replace("timeStamping", "serverAuth");
            extensions.write_str("subjectAltName=DNS:tsa.example\n")?;
            let wish =
                Wish { name: &self.operator, key: self.key, extensions: &extensions, ..Wish::default() };
            self.issuer.issue(&wish)
        })
    }
}

/// Names of the CRLs.
const ROOT_CRL: &str = "root.crl";
const ISSUER_CRL: &str = "issuer.crl";

/// These extensions, and where the CRL of this name is.
fn naming(extensions: &str, crls: Option<&str>, list: &str) -> String {
    let point = crls.map(|base| format!("crlDistributionPoints=URI:{base}/{list}\n"));
    format!("{extensions}{}", point.unwrap_or_default())
}

/// Two requests may make it at the same time; the first one done is kept.
fn once<T>(cell: &OnceLock<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    match cell.get() {
        Some(made) => Ok(made),
        None => {
            let made = make()?;
            Ok(cell.get_or_init(|| made))
        }
    }
}

fn desk(issuer: &Holder, operator: &str, key: crate::pki::Key, validity: (&str, &str)) -> Result<Desk> {
    let signer = issuer.issue(&Wish { name: operator, key, validity, ..Wish::default() })?;
    Desk::open(&signer, &Manner::default())
}
