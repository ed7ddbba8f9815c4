//! TPMT_PUBLIC of asymmetric keys: ECC on P-256 and P-384, and RSA. TPM 2.0 Part 2, 12.2.4.
//!
//! Refuses: other key types, curves, schemes and name algorithms, reserved attribute bits, trailing bytes.
//! Invariant: the name is computed over the very bytes that were parsed, never over a re-encoding.

use super::{TpmError, reader::Reader, spki};
use sha2::{Digest, Sha256, Sha384};

const NULL: u16 = 0x0010;
const MAX_RSA_BITS: u16 = 4096;

/// TPMA_OBJECT bits, Part 2, 8.3.
pub(super) mod attributes {
    pub const FIXED_TPM: u32 = 1 << 1;
    pub const ST_CLEAR: u32 = 1 << 2;
    pub const FIXED_PARENT: u32 = 1 << 4;
    pub const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
    pub const NO_DA: u32 = 1 << 10;
    pub const RESTRICTED: u32 = 1 << 16;
    pub const DECRYPT: u32 = 1 << 17;
    pub const SIGN: u32 = 1 << 18;
    pub const X509_SIGN: u32 = 1 << 19;
    /// userWithAuth, adminWithPolicy, firmwareLimited, svnLimited, encryptedDuplication and the named ones.
    pub const DEFINED: u32 = 0x000f_0ff6;
}

/// Digest algorithms that may appear in a public area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// TPM_ALG_SHA256.
    Sha256,
    /// TPM_ALG_SHA384, as in the endorsement key templates for P-384.
    Sha384,
}

impl HashAlgorithm {
    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, TpmError> {
        match reader.u16(field)? {
            0x000b => Ok(Self::Sha256),
            0x000c => Ok(Self::Sha384),
            found => Err(TpmError::Value {
                field,
                found: u64::from(found),
                expected: "SHA-256 0x000b or SHA-384 0x000c",
            }),
        }
    }

    /// TPM_ALG_ID of the algorithm.
    pub fn id(self) -> u16 {
        match self {
            Self::Sha256 => 0x000b,
            Self::Sha384 => 0x000c,
        }
    }
}

/// TPMT_ECC_SCHEME or TPMT_RSA_SCHEME.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// TPM_ALG_NULL: the scheme is chosen at use, or the key decrypts.
    Null,
    /// TPM_ALG_ECDSA.
    Ecdsa(HashAlgorithm),
    /// TPM_ALG_RSASSA.
    RsaSsa(HashAlgorithm),
    /// TPM_ALG_RSAPSS.
    RsaPss(HashAlgorithm),
}

/// TPMT_SYM_DEF_OBJECT: the cipher with which a storage key protects its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symmetric {
    /// TPM_ALG_NULL: not a storage key.
    Null,
    /// AES in CFB mode with this many key bits.
    AesCfb(u16),
}

/// Curves that may appear in a public area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EccCurve {
    /// TPM_ECC_NIST_P256.
    P256,
    /// TPM_ECC_NIST_P384.
    P384,
}

impl EccCurve {
    /// Length of a coordinate in bytes.
    pub fn coordinate_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }
}

/// The public key itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// A point; the coordinates are padded to the length of the curve's on the left.
    Ecc {
        /// The curve.
        curve: EccCurve,
        /// x, big-endian.
        x: Vec<u8>,
        /// y, big-endian.
        y: Vec<u8>,
    },
    /// Modulus and public exponent.
    Rsa {
        /// The modulus, big-endian, highest bit set.
        modulus: Vec<u8>,
        /// The public exponent (0 in the structure means 65537 and is given so here).
        exponent: u32,
    },
}

/// A parsed TPMT_PUBLIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmtPublic {
    /// The algorithm of the key's name.
    pub name_algorithm: HashAlgorithm,
    /// TPMA_OBJECT.
    pub attributes: u32,
    /// Authorization policy: empty, or a digest of the name algorithm's length.
    pub policy: Vec<u8>,
    /// How the key protects children.
    pub symmetric: Symmetric,
    /// How the key signs.
    pub scheme: Scheme,
    /// The key.
    pub key: PublicKey,
    raw: Vec<u8>,
}

impl TpmtPublic {
    /// Parses exactly one TPMT_PUBLIC (without the size of a TPM2B_PUBLIC before it).
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u16("type")?;
        let name_algorithm = HashAlgorithm::read(&mut reader, "nameAlg")?;
        let attributes = reader.u32("objectAttributes")?;
        if attributes & !attributes::DEFINED != 0 {
            return Err(TpmError::Value {
                field: "objectAttributes",
                found: u64::from(attributes),
                expected: "no reserved bit",
            });
        }
        let policy = reader.sized(0, 48, "authPolicy", "0 or the name algorithm's digest")?.to_vec();
        let digest_len = match name_algorithm {
            HashAlgorithm::Sha256 => 32,
            HashAlgorithm::Sha384 => 48,
        };
        if !policy.is_empty() && policy.len() != digest_len {
            return Err(TpmError::Size {
                field: "authPolicy",
                found: policy.len(),
                allowed: "0 or the name algorithm's digest",
            });
        }
        let symmetric = symmetric(&mut reader)?;
        let (scheme, key) = match kind {
            0x0023 => ecc(&mut reader)?,
            0x0001 => rsa(&mut reader)?,
            found => {
                return Err(TpmError::Value {
                    field: "type",
                    found: u64::from(found),
                    expected: "ECC 0x0023 or RSA 0x0001",
                });
            }
        };
        reader.end("TPMT_PUBLIC")?;
        Ok(Self { name_algorithm, attributes, policy, symmetric, scheme, key, raw: bytes.to_vec() })
    }

    /// The bytes that were parsed.
    pub fn as_bytes(&self) -> &[u8] {
        &self.raw
    }

    /// Name of the key: algorithm identifier || digest of the public area. Part 1, 16.
    pub fn name(&self) -> Vec<u8> {
        let digest: Vec<u8> = match self.name_algorithm {
            HashAlgorithm::Sha256 => Sha256::digest(&self.raw).to_vec(),
            HashAlgorithm::Sha384 => Sha384::digest(&self.raw).to_vec(),
        };
        [&self.name_algorithm.id().to_be_bytes(), digest.as_slice()].concat()
    }

    /// The point of a P-256 key in uncompressed SEC 1 form (0x04 || x || y), checked to lie on the curve.
    pub fn p256_point(&self) -> Result<[u8; 65], TpmError> {
        let PublicKey::Ecc { curve: EccCurve::P256, x, y } = &self.key else {
            return Err(TpmError::Template { field: "curveID", expected: "P-256" });
        };
        let mut point = [0x04; 65];
        point[1..33].copy_from_slice(x);
        point[33..].copy_from_slice(y);
        p256::PublicKey::from_sec1_bytes(&point).map_err(|_| TpmError::Point { field: "unique" })?;
        Ok(point)
    }

    /// The key as DER SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7).
    pub fn spki_der(&self) -> Vec<u8> {
        spki::encode(&self.key)
    }

    /// One attribute bit must be set, or clear.
    pub(super) fn require(&self, bit: u32, set: bool, field: &'static str) -> Result<(), TpmError> {
        if (self.attributes & bit != 0) == set {
            Ok(())
        } else {
            Err(TpmError::Template { field, expected: if set { "set" } else { "clear" } })
        }
    }
}

fn symmetric(reader: &mut Reader<'_>) -> Result<Symmetric, TpmError> {
    match reader.u16("symmetric.algorithm")? {
        NULL => Ok(Symmetric::Null),
        0x0006 => {
            let bits = reader.u16("symmetric.keyBits")?;
            if !matches!(bits, 128 | 192 | 256) {
                return Err(TpmError::Value {
                    field: "symmetric.keyBits",
                    found: u64::from(bits),
                    expected: "128, 192 or 256",
                });
            }
            match reader.u16("symmetric.mode")? {
                0x0043 => Ok(Symmetric::AesCfb(bits)),
                found => Err(TpmError::Value {
                    field: "symmetric.mode",
                    found: u64::from(found),
                    expected: "CFB 0x0043",
                }),
            }
        }
        found => Err(TpmError::Value {
            field: "symmetric.algorithm",
            found: u64::from(found),
            expected: "AES 0x0006 or NULL 0x0010",
        }),
    }
}

fn ecc(reader: &mut Reader<'_>) -> Result<(Scheme, PublicKey), TpmError> {
    let scheme = match reader.u16("scheme")? {
        NULL => Scheme::Null,
        0x0018 => Scheme::Ecdsa(HashAlgorithm::read(reader, "scheme.hashAlg")?),
        found => {
            return Err(TpmError::Value {
                field: "scheme",
                found: u64::from(found),
                expected: "ECDSA 0x0018 or NULL 0x0010",
            });
        }
    };
    let curve = match reader.u16("curveID")? {
        0x0003 => EccCurve::P256,
        0x0004 => EccCurve::P384,
        found => {
            return Err(TpmError::Value {
                field: "curveID",
                found: u64::from(found),
                expected: "P-256 0x0003 or P-384 0x0004",
            });
        }
    };
    let kdf = reader.u16("kdf")?;
    if kdf != NULL {
        return Err(TpmError::Value { field: "kdf", found: u64::from(kdf), expected: "NULL 0x0010" });
    }
    let x = coordinate(reader, curve, "unique.x")?;
    let y = coordinate(reader, curve, "unique.y")?;
    Ok((scheme, PublicKey::Ecc { curve, x, y }))
}

fn coordinate(reader: &mut Reader<'_>, curve: EccCurve, field: &'static str) -> Result<Vec<u8>, TpmError> {
    let len = curve.coordinate_len();
    let bytes = reader.sized(1, len, field, "1..=the curve's coordinate")?;
    let mut padded = vec![0; len];
    padded[len - bytes.len()..].copy_from_slice(bytes);
    Ok(padded)
}

fn rsa(reader: &mut Reader<'_>) -> Result<(Scheme, PublicKey), TpmError> {
    let scheme = match reader.u16("scheme")? {
        NULL => Scheme::Null,
        0x0014 => Scheme::RsaSsa(HashAlgorithm::read(reader, "scheme.hashAlg")?),
        0x0016 => Scheme::RsaPss(HashAlgorithm::read(reader, "scheme.hashAlg")?),
        found => {
            return Err(TpmError::Value {
                field: "scheme",
                found: u64::from(found),
                expected: "RSASSA 0x0014, RSAPSS 0x0016 or NULL 0x0010",
            });
        }
    };
    let bits = reader.u16("keyBits")?;
    if !(2048..=MAX_RSA_BITS).contains(&bits) || bits % 1024 != 0 {
        return Err(TpmError::Value {
            field: "keyBits",
            found: u64::from(bits),
            expected: "2048, 3072 or 4096",
        });
    }
    let exponent = match reader.u32("exponent")? {
        0 => 65_537,
        exponent => exponent,
    };
    let len = usize::from(bits / 8);
    let modulus = reader.sized(len, len, "unique", "keyBits / 8")?.to_vec();
    if modulus[0] & 0x80 == 0 {
        return Err(TpmError::Value {
            field: "unique",
            found: u64::from(modulus[0]),
            expected: "highest bit set",
        });
    }
    Ok((scheme, PublicKey::Rsa { modulus, exponent }))
}
