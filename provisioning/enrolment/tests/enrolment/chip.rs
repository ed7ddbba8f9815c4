//! A TPM as far as enrolment sees one: public areas, attestations and credential activation, from keys that are known.
//!
//! Written from TPM 2.0 Parts 1 to 3, not from the code under test; what it makes is compared with real TPMs elsewhere
//! (`appliance/keys/tests/tpm/enrolment.rs`).

use aes::{Aes128, Aes256};
use bulla_enrolment::boot::QUOTED_PCRS;
use bulla_formats::hash::sha256;
use cfb_mode::cipher::KeyIvInit;
use hmac::{Hmac, KeyInit, Mac};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use sha2::{Digest, Sha256, Sha384};
use std::collections::BTreeMap;

pub const POLICY_A: &str = "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa";
const POLICY_B_SHA384: &str =
    "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12";
/// Attributes of an attestation key: restricted, sign, noDA, userWithAuth, sensitiveDataOrigin, fixedParent, fixedTPM.
pub const AK_ATTRIBUTES: u32 = 0x0005_0472;
/// The same without restricted.
pub const SERVICE_ATTRIBUTES: u32 = 0x0004_0472;
pub const EK_ATTRIBUTES: u32 = 0x0003_00b2;
/// COUNTER, AUTHREAD, AUTHWRITE, NO_DA, WRITTEN.
pub const COUNTER_ATTRIBUTES: u32 = 0x2204_0014;

pub enum EkSecret {
    P256(p256::SecretKey),
    P384(p384::SecretKey),
}

pub struct Chip {
    pub ek: EkSecret,
    pub ak: SigningKey,
    pub tls: SigningKey,
    pub issuing: SigningKey,
    pub counter: u64,
    pub firmware: u64,
    pub pcrs: BTreeMap<u8, [u8; 32]>,
}

pub fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 32]).unwrap()
}

/// TPMT_PUBLIC of a P-256 signing key.
pub fn signing_public(key: &SigningKey, attributes: u32) -> Vec<u8> {
    let point = key.verifying_key().to_sec1_bytes();
    let head = [0x00, 0x23, 0x00, 0x0b].iter().copied().chain(attributes.to_be_bytes());
    let tail = [0x00, 0x10, 0x00, 0x18, 0x00, 0x0b, 0x00, 0x03, 0x00, 0x10];
    [&head.collect::<Vec<u8>>()[..], &sized(&[]), &tail, &sized(&point[1..33]), &sized(&point[33..])].concat()
}

/// TPMT_PUBLIC of a P-256 endorsement key with this policy and these attributes.
pub fn ek_public(point: &[u8], attributes: u32, policy: &str) -> Vec<u8> {
    let (x, y) = point[1..].split_at(point.len() / 2);
    let large = x.len() == 48;
    let hash: [u8; 2] = if large { [0x00, 0x0c] } else { [0x00, 0x0b] };
    let bits: [u8; 2] = if large { [0x01, 0x00] } else { [0x00, 0x80] };
    let curve: [u8; 2] = if large { [0x00, 0x04] } else { [0x00, 0x03] };
    [
        &[0x00, 0x23][..],
        &hash,
        &attributes.to_be_bytes(),
        &sized(&hex::decode(policy).unwrap()),
        &[0x00, 0x06],
        &bits,
        &[0x00, 0x43, 0x00, 0x10],
        &curve,
        &[0x00, 0x10],
        &sized(x),
        &sized(y),
    ]
    .concat()
}

impl Chip {
    /// A chip with a P-256 endorsement key; other seeds, other keys.
    pub fn new(seed: u8) -> Self {
        let pcrs = QUOTED_PCRS.map(|pcr| (pcr, if pcr < 8 { [0; 32] } else { [pcr; 32] }));
        Chip {
            ek: EkSecret::P256(p256::SecretKey::from_slice(&[seed; 32]).unwrap()),
            ak: key(seed + 1),
            tls: key(seed + 2),
            issuing: key(seed + 3),
            counter: 7,
            firmware: 0x0001_0002_0003_0004,
            pcrs: pcrs.into(),
        }
    }

    /// The same with P-384.
    pub fn with_p384(seed: u8) -> Self {
        Chip { ek: EkSecret::P384(p384::SecretKey::from_slice(&[seed; 48]).unwrap()), ..Chip::new(seed) }
    }

    pub fn ek_point(&self) -> Vec<u8> {
        match &self.ek {
            EkSecret::P256(key) => key.public_key().to_sec1_bytes().to_vec(),
            EkSecret::P384(key) => key.public_key().to_sec1_bytes().to_vec(),
        }
    }

    pub fn ek_public(&self) -> Vec<u8> {
        match &self.ek {
            EkSecret::P256(_) => ek_public(&self.ek_point(), EK_ATTRIBUTES, POLICY_A),
            EkSecret::P384(_) => ek_public(&self.ek_point(), EK_ATTRIBUTES | 0x40, POLICY_B_SHA384),
        }
    }

    pub fn ak_public(&self) -> Vec<u8> {
        signing_public(&self.ak, AK_ATTRIBUTES)
    }

    pub fn counter_public(&self) -> Vec<u8> {
        let head = 0x0184_5503u32.to_be_bytes();
        [&head[..], &[0x00, 0x0b], &COUNTER_ATTRIBUTES.to_be_bytes(), &sized(&[]), &[0x00, 0x08]].concat()
    }

    fn name(public: &[u8]) -> Vec<u8> {
        if public[3] == 0x0c {
            [&[0x00, 0x0c][..], &Sha384::digest(public)].concat()
        } else {
            [&[0x00, 0x0b][..], &Sha256::digest(public)].concat()
        }
    }

    /// Qualified name of the attestation key: its ancestors are the endorsement hierarchy and the endorsement key.
    fn signer(&self) -> Vec<u8> {
        let (name, endorsement) = (Self::name(&self.ek_public()), [0x40, 0x00, 0x00, 0x0b]);
        let ek = match self.ek {
            EkSecret::P256(_) => [&[0x00, 0x0b][..], &sha256(&[&endorsement, &name]).0].concat(),
            EkSecret::P384(_) => {
                [&[0x00, 0x0c][..], &Sha384::digest([&endorsement[..], &name].concat())].concat()
            }
        };
        [&[0x00, 0x0b][..], &sha256(&[&ek, &Self::name(&self.ak_public())]).0].concat()
    }

    /// TPMS_ATTEST and TPMT_SIGNATURE by `key`.
    pub fn attest(
        &self,
        key: &SigningKey,
        kind: u16,
        qualifying: &[u8],
        attested: &[u8],
    ) -> (Vec<u8>, Vec<u8>) {
        let attest = [
            &0xff54_4347u32.to_be_bytes()[..],
            &kind.to_be_bytes(),
            &sized(&self.signer()),
            &sized(qualifying),
            &1_000u64.to_be_bytes(),
            &3u32.to_be_bytes(),
            &0u32.to_be_bytes(),
            &[1],
            &self.firmware.to_be_bytes(),
            attested,
        ]
        .concat();
        let signature: Signature = key.sign(&attest);
        let (r, s) = signature.split_bytes();
        (attest, [&[0x00, 0x18, 0x00, 0x0b][..], &sized(&r), &sized(&s)].concat())
    }

    /// TPM2_Quote of these PCRs.
    pub fn quote(&self, key: &SigningKey, qualifying: &[u8], pcrs: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut bits = [0u8; 3];
        pcrs.iter().for_each(|pcr| bits[usize::from(pcr / 8)] |= 1 << (pcr % 8));
        let values: Vec<u8> = pcrs.iter().flat_map(|pcr| self.pcrs[pcr]).collect();
        let selection = [&1u32.to_be_bytes()[..], &[0x00, 0x0b, 3], &bits].concat();
        self.attest(key, 0x8018, qualifying, &[&selection[..], &sized(&sha256(&[&values]).0)].concat())
    }

    /// TPM2_Certify.
    pub fn certify(&self, qualifying: &[u8], public: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let name = Self::name(public);
        let qualified = [&[0x00, 0x0b][..], &sha256(&[b"ancestors", &name]).0].concat();
        self.attest(&self.ak, 0x8017, qualifying, &[sized(&name), sized(&qualified)].concat())
    }

    /// TPM2_NV_Certify of the counter.
    pub fn certify_counter(&self, qualifying: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let name = Self::name(&self.counter_public());
        // The name of an NV index is a SHA-256 one here, whatever its fourth byte says.
        let name = if name[1] == 0x0c {
            [&[0, 0x0b][..], &sha256(&[&self.counter_public()]).0].concat()
        } else {
            name
        };
        let attested = [&sized(&name)[..], &[0, 0], &sized(&self.counter.to_be_bytes())].concat();
        self.attest(&self.ak, 0x8014, qualifying, &attested)
    }

    /// TPM2_ActivateCredential with the object of this public area loaded; `None` when the TPM says TPM_RC_INTEGRITY.
    pub fn activate(&self, credential: &[u8], secret: &[u8], object: &[u8]) -> Option<Vec<u8>> {
        let name = Self::name(object);
        let len = usize::from(secret[1]);
        let (x, y) = (&secret[2..2 + len], &secret[4 + len..]);
        let point = [&[0x04], x, y].concat();
        let own_x = &self.ek_point()[1..1 + len];
        let hmac = |large: bool, key: &[u8], data: &[u8]| {
            if large {
                Hmac::<Sha384>::new_from_slice(key)
                    .unwrap()
                    .chain_update(data)
                    .finalize()
                    .into_bytes()
                    .to_vec()
            } else {
                Hmac::<Sha256>::new_from_slice(key)
                    .unwrap()
                    .chain_update(data)
                    .finalize()
                    .into_bytes()
                    .to_vec()
            }
        };
        let (large, seed) = match &self.ek {
            EkSecret::P256(key) => {
                let theirs = p256::PublicKey::from_sec1_bytes(&point).unwrap();
                let z = p256::ecdh::diffie_hellman(key.to_nonzero_scalar(), theirs.as_affine());
                let seed = [&[0, 0, 0, 1], &z.raw_secret_bytes()[..], b"IDENTITY\0", x, own_x].concat();
                (false, Sha256::digest(seed).to_vec())
            }
            EkSecret::P384(key) => {
                let theirs = p384::PublicKey::from_sec1_bytes(&point).unwrap();
                let z = p384::ecdh::diffie_hellman(key.to_nonzero_scalar(), theirs.as_affine());
                let seed = [&[0, 0, 0, 1], &z.raw_secret_bytes()[..], b"IDENTITY\0", x, own_x].concat();
                (true, Sha384::digest(seed).to_vec())
            }
        };
        let tag = usize::from(credential[1]);
        let (integrity, identity) = (&credential[2..2 + tag], &credential[2 + tag..]);
        let bits: u32 = if large { 384 } else { 256 };
        let key = [&[0, 0, 0, 1], &b"INTEGRITY\0"[..], &bits.to_be_bytes()].concat();
        let key = hmac(large, &seed, &key);
        if hmac(large, &key, &[identity, &name].concat()) != integrity {
            return None;
        }
        let bits: u32 = if large { 256 } else { 128 };
        let key = [&[0, 0, 0, 1], &b"STORAGE\0"[..], &name, &bits.to_be_bytes()].concat();
        let key = hmac(large, &seed, &key);
        let mut plain = identity.to_vec();
        if large {
            let key: [u8; 32] = key[..32].try_into().unwrap();
            cfb_mode::Decryptor::<Aes256>::new(&key.into(), &[0; 16].into()).decrypt(&mut plain);
        } else {
            let key: [u8; 16] = key[..16].try_into().unwrap();
            cfb_mode::Decryptor::<Aes128>::new(&key.into(), &[0; 16].into()).decrypt(&mut plain);
        }
        assert_eq!(usize::from(plain[1]), plain.len() - 2);
        Some(plain[2..].to_vec())
    }
}
