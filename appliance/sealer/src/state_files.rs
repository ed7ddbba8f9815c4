//! The small files of a state directory, judged by what they carry themselves: no key and no TPM is needed.
//!
//! `identity.json`, `keys/keys.json`, `clients.json`, `people.json`, `fleet.json`, `peers.json`, `neighbours.json`, `alerts.json`, `retirement.json` and `configuration.json` end in a checksum over
//! all of their bytes; `ca.pem` has one spelling and the CA's own signature; rosters are replayed. fsck and the scrub ask here.
//! Refuses to do: judge what the files mean, or repair them.

use bulla_formats::checked_json;
use bulla_formats::hash::sha256;
use bulla_formats::json::{base64_decode, base64_encode};
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use zeroize::Zeroizing;

/// Longest file that is read, bytes; each is written far below.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// File, and whether a box is none without it.
const FILES: [(&str, bool); 11] = [
    ("identity.json", true),
    ("keys/keys.json", true),
    ("clients.json", false),
    ("people.json", false),
    ("fleet.json", false),
    ("peers.json", false),
    ("neighbours.json", false),
    ("alerts.json", false),
    ("retirement.json", false),
    ("configuration.json", false),
    ("ca.pem", false),
];

/// Something wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The file inside the state directory.
    pub file: String,
    /// What is wrong.
    pub what: String,
}

/// What was read, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Judged {
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong.
    pub damaged: Vec<Damaged>,
}

/// Judges the files in `state_dir`, from the disk.
pub fn check(state_dir: &Path) -> Judged {
    let mut judged = Judged::default();
    for (file, needed) in FILES {
        let what = match read(&state_dir.join(file)) {
            Ok(bytes) => {
                judged.bytes += bytes.len() as u64;
                let checked = match file {
                    "ca.pem" => check_ca(&bytes).map_err(str::to_owned),
                    _ => checked_json::body(&bytes)
                        .map(Zeroizing::new)
                        .map(drop)
                        .map_err(|error| error.to_string()),
                };
                checked.err()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                needed.then(|| "it is missing".to_owned())
            }
            Err(error) => Some(error.to_string()),
        };
        judged.damaged.extend(what.map(|what| Damaged { file: file.to_owned(), what }));
    }
    for (file, bytes, what) in crate::peers::check_rosters(state_dir) {
        judged.bytes += bytes;
        judged.damaged.extend(what.map(|what| Damaged { file, what }));
    }
    judged
}

/// `keys.json` may hold secrets, so nothing that was read is left behind.
fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let length = fs::metadata(path)?.len();
    if length > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is far longer than it can be"));
    }
    let file = File::open(path)?;
    // What the disk holds, not what the page cache remembers.
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(length as usize + 1));
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// AlgorithmIdentifier ecdsa-with-SHA256 (RFC 5758 section 3.2).
const ECDSA_SHA256: [u8; 12] = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// SubjectPublicKeyInfo of a P-256 point (RFC 5480 section 2), up to the point.
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const POINT_BYTES: usize = 65;

/// The PEM text must be the only spelling of its DER, and the DER signed by its own key.
pub fn check_ca(pem: &[u8]) -> Result<(), &'static str> {
    const SPELLING: &str = "it is not a PEM certificate as this program writes it";
    const SIGNATURE: &str = "the CA certificate is not signed by its own key: a bit of it has changed";
    let text = std::str::from_utf8(pem).map_err(|_| SPELLING)?;
    let eol = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let middle: String =
        text.lines().filter(|line| !line.starts_with("-----")).flat_map(str::chars).collect();
    let der = base64_decode(&middle).map_err(|_| SPELLING)?;
    let encoded = base64_encode(&der);
    let mut expected = format!("{BEGIN}{eol}");
    for line in encoded.as_bytes().chunks(64) {
        expected.extend(line.iter().map(|byte| char::from(*byte)));
        expected.push_str(eol);
    }
    expected.push_str(END);
    expected.push_str(eol);
    if expected != text {
        return Err(SPELLING);
    }
    self_signed(&der).ok_or(SIGNATURE)
}

fn self_signed(der: &[u8]) -> Option<()> {
    let certificate = only(0x30, der)?;
    let (tbs, rest) = element(certificate)?;
    let (algorithm, signature) = element(rest)?;
    // BIT STRING without unused bits.
    let (unused, signature) = only(0x03, signature)?.split_first()?;
    if algorithm != ECDSA_SHA256 || *unused != 0 {
        return None;
    }
    let at = tbs.windows(P256_SPKI.len()).position(|window| window == P256_SPKI)? + P256_SPKI.len();
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(tbs.get(at..at + POINT_BYTES)?).ok()?;
    let signature = p256::ecdsa::Signature::from_der(signature).ok()?;
    key.verify_prehash(&sha256(&[tbs]).0, &signature).ok()
}

/// The first DER element, whole, and what follows it.
fn element(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, length) = match *bytes.get(1)? {
        short @ 0..=0x7f => (2, usize::from(short)),
        0x81 => (3, usize::from(*bytes.get(2)?)),
        0x82 => (4, usize::from(*bytes.get(2)?) << 8 | usize::from(*bytes.get(3)?)),
        _ => return None,
    };
    bytes.split_at_checked(header + length)
}

/// The content of an element of this tag that is all there is.
fn only(tag: u8, bytes: &[u8]) -> Option<&[u8]> {
    let (whole, rest) = element(bytes)?;
    let header = match *whole.get(1)? {
        0x81 => 3,
        0x82 => 4,
        _ => 2,
    };
    (rest.is_empty() && *whole.first()? == tag).then(|| &whole[header..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};

    #[test]
    fn every_changed_bit_of_a_ca_certificate_is_noticed() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let pem = CertificateParams::default().self_signed(&key).unwrap().pem().into_bytes();
        assert_eq!(check_ca(&pem), Ok(()));
        for bit in 0..pem.len() * 8 {
            let mut changed = pem.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(check_ca(&changed).is_err(), "bit {bit}");
        }
        assert!(check_ca(&pem[..pem.len() - 1]).is_err());
    }

    #[test]
    fn what_is_missing_or_changed_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("keys")).unwrap();
        let file = checked_json::with_checksum("{\n  \"version\": 2\n}");
        fs::write(directory.path().join("keys/keys.json"), &file).unwrap();
        fs::write(directory.path().join("clients.json"), file.replace('2', "3")).unwrap();
        fs::create_dir(directory.path().join("rosters")).unwrap();
        for roster in ["demo.bulla.test", "demo.bulla.test.moved", "demo.bulla.test.new"] {
            fs::write(directory.path().join("rosters").join(roster), b"nonsense").unwrap();
        }
        let judged = check(directory.path());
        let named: Vec<_> = judged.damaged.iter().map(|damaged| damaged.file.as_str()).collect();
        let rosters = ["rosters/demo.bulla.test", "rosters/demo.bulla.test.moved"];
        assert_eq!(named, ["identity.json", "clients.json", rosters[0], rosters[1]]);
        assert!(judged.bytes > 0);
    }
}
