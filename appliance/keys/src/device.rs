//! What the service tells about itself and hands out: the device, its keys, quotes and certificates of the counter.
//!
//! Everything here is public information; encodings are those of `bulla_formats`.

use bulla_formats::enrolment::Hardware;
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::sig::{label, labelled};
use serde::{Deserialize, Serialize};

/// Where keys live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// A TPM 2.0.
    Tpm {
        /// `signer:/run/bulla-signer/socket`, `device:/dev/tpmrm0`, or `swtpm:host=127.0.0.1,port=2321`.
        tcti: String,
    },
    /// Files. For laptops; production policy refuses it.
    Software,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Quotes and certifies; never signs a digest from outside.
    Attestation,
    /// Mutual TLS.
    Tls,
    /// X.509 certificates of the interop keys.
    Issuing,
    /// Sealing tokens, under the epoch policy that keeps the sealing key in the TPM.
    Sealing,
}

impl Role {
    /// The roles of keys that sign digests, in the order in which they are stored.
    pub const SIGNING: [Role; 3] = [Role::Tls, Role::Issuing, Role::Sealing];

    /// The name in files, messages and qualifying data.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attestation => "attestation",
            Self::Tls => "tls",
            Self::Issuing => "issuing",
            Self::Sealing => "sealing",
        }
    }

    /// Qualifying data under which the attestation key certifies the key of this role:
    /// SHA-256("bulla/certify/key/v1" || 0x00 || name).
    pub fn certification_qualifying(self) -> [u8; 32] {
        sha256(&[&labelled(label::KEY, self.name().as_bytes())]).0
    }
}

/// The device and its public keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// TPM or not.
    pub hardware: Hardware,
    /// EK certificate, DER X.509, and the CAs above it that the TPM carries; empty in software, and for a TPM without
    /// certificate.
    pub ek_certificates: Vec<Vec<u8>>,
    /// SHA-256 of the EK's DER SubjectPublicKeyInfo (software: of the device key's).
    pub ek_spki_sha256: Hash,
    /// TPMT_PUBLIC of the endorsement key; empty in software. Credential activation needs it.
    pub ek_public: Vec<u8>,
    /// TPMS_NV_PUBLIC of the rollback counter; empty in software.
    pub counter_public: Vec<u8>,
    /// TPMT_PUBLIC of the attestation key (software: the device key's uncompressed P-256 point, 65 bytes).
    pub attestation_public: Vec<u8>,
    /// One per role, attestation first.
    pub keys: [DeviceKey; 4],
}

impl Device {
    /// The key of a role.
    pub fn key(&self, role: Role) -> &DeviceKey {
        &self.keys[role as usize]
    }
}

/// A P-256 key of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceKey {
    /// What it is for.
    pub role: Role,
    /// DER SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
    /// Uncompressed point, 0x04 || x || y.
    pub point: [u8; 65],
    /// The attestation key's word that it lives in the TPM; `None` in software and for the attestation key itself.
    pub certification: Option<Certification>,
}

/// TPM2_Certify of a key by the attestation key; `bulla_formats::tpm::verify_certify` checks it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certification {
    /// TPMT_PUBLIC of the certified key.
    #[serde(with = "hex::serde")]
    pub tpmt_public: Vec<u8>,
    /// TPMS_ATTEST.
    #[serde(with = "hex::serde")]
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    #[serde(with = "hex::serde")]
    pub signature: Vec<u8>,
    /// In [`DeviceKey`] always [`Role::certification_qualifying`] of the key's role.
    pub qualifying: [u8; 32],
}

/// A TPM2_Quote with the values of the PCRs it covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quote {
    /// TPMS_ATTEST.
    #[serde(with = "hex::serde")]
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    #[serde(with = "hex::serde")]
    pub signature: Vec<u8>,
    /// Index and SHA-256 value, ascending.
    pub pcrs: Vec<(u8, [u8; 32])>,
}

/// The device's word for 32 bytes of qualifying data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endorsement {
    /// A quote over [`ENDORSED_PCRS`].
    Tpm(Quote),
    /// ECDSA P-256 by the device key over the qualifying data as the digest, r || s.
    Software([u8; 64]),
}

/// PCRs an endorsement quotes: firmware and boot loader (0-7), the unified kernel image and its configuration (11-13),
/// and the shim's certificates (14).
pub const ENDORSED_PCRS: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 14];

/// TPM2_NV_Certify of the rollback counter; `bulla_formats::tpm::verify_nv_certify` checks it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CounterCertificate {
    /// TPMS_ATTEST.
    #[serde(with = "hex::serde")]
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    #[serde(with = "hex::serde")]
    pub signature: Vec<u8>,
    /// TPMS_NV_PUBLIC of the counter.
    #[serde(with = "hex::serde")]
    pub nv_public: Vec<u8>,
    /// The certified value.
    pub value: u64,
}

/// A restricted signing key that the TPM derives from its endorsement seed, which outlives TPM2_Clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FarewellKey {
    /// TPMT_PUBLIC.
    #[serde(with = "hex::serde")]
    pub public: Vec<u8>,
    /// Random part of its template: with it this TPM, and no other, derives the key again.
    #[serde(with = "hex::serde")]
    pub unique: Vec<u8>,
    /// TPMS_ATTEST of TPM2_Certify by the attestation key.
    #[serde(with = "hex::serde")]
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    #[serde(with = "hex::serde")]
    pub signature: Vec<u8>,
}

/// What became of TPM2_Clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cleared {
    /// It is done.
    Cleared,
    /// The TPM does not permit it; our own objects and the counter are removed one by one.
    NotPermitted {
        /// Response code.
        rc: u32,
    },
}
