//! The endorsement key: which one is the canonical one, that its certificate is its own, and proving endorsement
//! authorization to create children under it.
//!
//! Canonical is the first of P-384, P-256, RSA-3072, RSA-2048 that has a certificate in NV (TCG EK Credential Profile
//! 2.5); a TPM without any uses P-256.
//! Refuses: a certificate over another key than the TPM shows.
//! Invariant: sessions are salted only to an endorsement key whose public area was compared first.

use super::ek_certificate;
use super::fault::{Fault, evidence, refused, tss};
use super::handles::{nv_index, persistent};
use crate::KeyError;
use bulla_formats::tpm::TpmtPublic;
use tss_esapi::Context;
use tss_esapi::abstraction::{AsymmetricAlgorithmSelection, ek, nv};
use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::{AuthHandle, KeyHandle, NvIndexTpmHandle, ObjectHandle, SessionHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::interface_types::resource_handles::{Hierarchy, NvAuth};
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{Digest, DigestList, SymmetricDefinition};
use tss_esapi::traits::Marshall;

/// PolicySecret(endorsement) for SHA-384 templates, EK Credential Profile B.6.
const POLICY_A_SHA384: &str = "8bbf2266537c171cb56e403c4dc1d4b64f432611dc386e6f532050c3278c930e\
                               143e8bb1133824ccb431053871c6db53";
/// The other branch of the SHA-384 templates' PolicyOR.
const POLICY_C_SHA384: &str = "d6032ce61f2fb3c240eb3cf6a33237ef2b6a16f4293c22b455e261cffd217ad5\
                               b4947c2d73e63005eed2dc2b3593d165";

/// One of the endorsement keys a TPM may have.
struct Kind {
    algorithm: AsymmetricAlgorithmSelection,
    certificate: u32,
    /// Where manufacturers and swtpm keep the key ready.
    persistent: u32,
}

const KINDS: [Kind; 4] = [
    Kind {
        algorithm: AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP384),
        certificate: 0x01c0_0016,
        persistent: 0x8101_0016,
    },
    Kind {
        algorithm: AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP256),
        certificate: 0x01c0_000a,
        persistent: 0x8101_0002,
    },
    Kind {
        algorithm: AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa3072),
        certificate: 0x01c0_001c,
        persistent: 0x8101_001c,
    },
    Kind {
        algorithm: AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048),
        certificate: 0x01c0_0002,
        persistent: 0x8101_0001,
    },
];
/// Where manufacturers keep the CAs above the endorsement certificate: one text of certificates, cut into indexes that
/// follow each other (EK Credential Profile 2.5, 2.2.1.5.3).
const CHAIN: std::ops::RangeInclusive<u32> = 0x01c0_0100..=0x01c0_01ff;
/// Most certificates of a chain beside the first: what an enrolment may hold.
const CHAIN_MAX: usize = 7;
/// Index in [`KINDS`] of the key a TPM without certificates uses.
const WITHOUT_CERTIFICATE: usize = 1;

/// An endorsement key that is open.
pub(super) struct Ek {
    pub handle: KeyHandle,
    pub public: TpmtPublic,
    pub qualified_name: Vec<u8>,
    transient: bool,
}

impl Ek {
    /// Frees its slot.
    pub(super) fn release(self, context: &mut Context) -> Result<(), Fault> {
        let mut object = ObjectHandle::from(self.handle);
        let result =
            if self.transient { context.flush_context(object) } else { context.tr_close(&mut object) };
        result.map_err(tss("releasing the endorsement key"))
    }
}

/// Chooses the canonical endorsement key; gives its certificate if there is one.
pub(super) fn choose(context: &mut Context) -> Result<(Ek, Option<Vec<u8>>), Fault> {
    const WHAT: &str = "endorsement key";
    for kind in &KINDS {
        let Some(certificate) = read_certificate(context, kind.certificate)? else { continue };
        let spki = ek_certificate::spki(&certificate)
            .and_then(ek_certificate::public_key)
            .ok_or_else(|| refused(WHAT, "its certificate in NV is no X.509 certificate"))?;
        for source in [Source::Persistent, Source::Template] {
            let Some(ek) = open(context, kind, source)? else { continue };
            if ek_certificate::public_key(&ek.public.spki_der()) == Some(spki) {
                return Ok((ek, Some(certificate)));
            }
            ek.release(context)?;
        }
        return Err(refused(WHAT, "its certificate in NV is over another key"));
    }
    let ek = open(context, &KINDS[WITHOUT_CERTIFICATE], Source::Template)?
        .ok_or_else(|| refused(WHAT, "the TPM has no certificate and makes no P-256 key"))?;
    Ok((ek, None))
}

/// Opens the endorsement key that was enrolled; anything else is another TPM.
pub(super) fn open_known(context: &mut Context, expected: &TpmtPublic) -> Result<Ek, Fault> {
    let mut found = None;
    for kind in &KINDS {
        for source in [Source::Persistent, Source::Template] {
            // A template of another kind cannot give the expected key, and RSA keys take a TPM seconds to make.
            if matches!(source, Source::Template) && !kind.fits(expected) {
                continue;
            }
            let Some(ek) = open(context, kind, source)? else { continue };
            if ek.public == *expected {
                return Ok(ek);
            }
            if kind.fits(expected) {
                found = Some(hex::encode(ek.public.name()));
            }
            ek.release(context)?;
        }
    }
    Err(Fault::Key(KeyError::OtherTpm {
        expected: hex::encode(expected.name()),
        found: found.unwrap_or_else(|| "of another kind".into()),
    }))
}

enum Source {
    Persistent,
    Template,
}

impl Kind {
    fn fits(&self, public: &TpmtPublic) -> bool {
        use bulla_formats::tpm::{EccCurve as Curve, PublicKey};
        match (&self.algorithm, &public.key) {
            (AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP384), PublicKey::Ecc { curve, .. }) => {
                *curve == Curve::P384
            }
            (AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP256), PublicKey::Ecc { curve, .. }) => {
                *curve == Curve::P256
            }
            (AsymmetricAlgorithmSelection::Rsa(bits), PublicKey::Rsa { modulus, .. }) => {
                usize::from(u16::from(*bits)) == modulus.len() * 8
            }
            _ => false,
        }
    }
}

fn open(context: &mut Context, kind: &Kind, source: Source) -> Result<Option<Ek>, Fault> {
    const WHAT: &str = "TPM2_CreatePrimary (endorsement key)";
    let (handle, transient) = match source {
        Source::Persistent => match persistent(context, kind.persistent)? {
            Some(handle) => (handle, false),
            None => return Ok(None),
        },
        Source::Template => {
            let template =
                ek::create_ek_public_from_default_template_2(kind.algorithm, None).map_err(tss(WHAT))?;
            let created = context.execute_with_session(Some(AuthSession::Password), |c| {
                c.create_primary(Hierarchy::Endorsement, template, None, None, None, None)
            });
            match created.map_err(tss(WHAT)) {
                Ok(created) => (created.key_handle, true),
                // The TPM does not know this curve or size.
                Err(Fault::Rejected { .. }) => return Ok(None),
                Err(fault) => return Err(fault),
            }
        }
    };
    let (public, _, qualified_name) = context
        .execute_without_session(|c| c.read_public(handle))
        .map_err(tss("TPM2_ReadPublic (endorsement key)"))?;
    let public = public.marshall().map_err(tss(WHAT))?;
    let public = TpmtPublic::parse(&public).map_err(evidence(WHAT))?;
    Ok(Some(Ek { handle, public, qualified_name: qualified_name.value().to_vec(), transient }))
}

/// The CAs above the endorsement certificate, as far as the TPM carries them; most carry none.
///
/// What cannot be read or is no certificate ends the list: whoever judges the chain may know the rest.
pub(super) fn read_chain(context: &mut Context) -> Result<Vec<Vec<u8>>, Fault> {
    let mut text = Vec::new();
    for index in CHAIN {
        match read_nv(context, index) {
            Ok(Some(part)) => text.extend(part),
            Ok(None) | Err(Fault::Rejected { .. }) => break,
            Err(fault) => return Err(fault),
        }
    }
    Ok(ek_certificate::split(&text, CHAIN_MAX))
}

fn read_nv(context: &mut Context, index: u32) -> Result<Option<Vec<u8>>, Fault> {
    const WHAT: &str = "TPM2_NV_Read (endorsement certificate)";
    let Some(handle) = nv_index(context, index)? else { return Ok(None) };
    let tpm_handle = NvIndexTpmHandle::new(index).map_err(tss(WHAT))?;
    let content = context.execute_with_session(Some(AuthSession::Password), |c| {
        nv::read_full(c, NvAuth::NvIndex(handle), tpm_handle)
    });
    content.map(Some).map_err(tss(WHAT))
}

fn read_certificate(context: &mut Context, index: u32) -> Result<Option<Vec<u8>>, Fault> {
    let Some(content) = read_nv(context, index)? else { return Ok(None) };
    let certificate = ek_certificate::trim(&content)
        .ok_or_else(|| refused("endorsement key", "its certificate in NV is no DER"))?;
    Ok(Some(certificate.to_vec()))
}

/// Starts the session under which all later commands run: its key is salted to the endorsement key, so that only
/// this TPM can take part, and parameters are encrypted.
pub(super) fn salted_session(context: &mut Context, ek: &Ek) -> Result<AuthSession, Fault> {
    start(context, ek, SessionType::Hmac, HashingAlgorithm::Sha256)
}

fn start(
    context: &mut Context,
    ek: &Ek,
    kind: SessionType,
    hash: HashingAlgorithm,
) -> Result<AuthSession, Fault> {
    const WHAT: &str = "TPM2_StartAuthSession";
    let session = bare(context, ek, kind, hash)?;
    let (attributes, mask) = SessionAttributesBuilder::new().with_decrypt(true).with_encrypt(true).build();
    context.tr_sess_set_attributes(session, attributes, mask).map_err(tss(WHAT))?;
    Ok(session)
}

/// A salted session that encrypts no parameters: only one of a command's sessions may.
fn bare(
    context: &mut Context,
    ek: &Ek,
    kind: SessionType,
    hash: HashingAlgorithm,
) -> Result<AuthSession, Fault> {
    const WHAT: &str = "TPM2_StartAuthSession";
    context
        .execute_without_session(|c| {
            c.start_auth_session(Some(ek.handle), None, None, kind, SymmetricDefinition::AES_128_CFB, hash)
        })
        .map_err(tss(WHAT))?
        .ok_or_else(|| refused(WHAT, "no session handle"))
}

/// Runs one command that uses the endorsement key as a parent, in a policy session that proves endorsement
/// authorization; the session is flushed whatever happens.
pub(super) fn with_policy<T>(
    context: &mut Context,
    session: AuthSession,
    ek: &Ek,
    what: &'static str,
    command: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
) -> Result<T, Fault> {
    let hash = policy_hash(ek);
    let policy = start(context, ek, SessionType::Policy, hash)?;
    let result = satisfy(context, session, policy, hash)
        .and_then(|()| context.execute_with_session(Some(policy), command).map_err(tss(what)));
    flushed(context, policy, result)
}

/// The same for a command whose first handle is authorized by `session`, which also encrypts its parameters, and whose
/// second is the endorsement key.
pub(super) fn with_policy_beside<T>(
    context: &mut Context,
    session: AuthSession,
    ek: &Ek,
    what: &'static str,
    command: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
) -> Result<T, Fault> {
    let hash = policy_hash(ek);
    let policy = bare(context, ek, SessionType::Policy, hash)?;
    let result = satisfy(context, session, policy, hash).and_then(|()| {
        context.execute_with_sessions((Some(session), Some(policy), None), command).map_err(tss(what))
    });
    flushed(context, policy, result)
}

fn policy_hash(ek: &Ek) -> HashingAlgorithm {
    use bulla_formats::tpm::HashAlgorithm;
    match ek.public.name_algorithm {
        HashAlgorithm::Sha256 => HashingAlgorithm::Sha256,
        HashAlgorithm::Sha384 => HashingAlgorithm::Sha384,
    }
}

fn flushed<T>(context: &mut Context, policy: AuthSession, result: Result<T, Fault>) -> Result<T, Fault> {
    let flushed = context.flush_context(SessionHandle::from(policy).into());
    let value = result?;
    flushed.map_err(tss("TPM2_FlushContext (policy session)"))?;
    Ok(value)
}

fn satisfy(
    context: &mut Context,
    session: AuthSession,
    policy: AuthSession,
    hash: HashingAlgorithm,
) -> Result<(), Fault> {
    const WHAT: &str = "TPM2_PolicySecret (endorsement)";
    let policy = PolicySession::try_from(policy).map_err(tss(WHAT))?;
    context
        .execute_with_session(Some(session), |c| {
            c.policy_secret(
                policy,
                AuthHandle::Endorsement,
                Default::default(),
                Default::default(),
                Default::default(),
                None,
            )
        })
        .map_err(tss(WHAT))?;
    if hash == HashingAlgorithm::Sha384 {
        let mut branches = DigestList::new();
        for branch in [POLICY_A_SHA384, POLICY_C_SHA384] {
            let digest = hex::decode(branch).map_err(|_| refused(WHAT, "constant is no hex"))?;
            branches.add(Digest::try_from(digest).map_err(tss(WHAT))?).map_err(tss(WHAT))?;
        }
        context.execute_without_session(|c| c.policy_or(policy, branches)).map_err(tss("TPM2_PolicyOR"))?;
    }
    Ok(())
}
