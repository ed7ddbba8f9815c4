//! Why a reply proves nothing: one reason for each, with a code for programs and a sentence for people.
//!
//! Invariant: a code is never used for another reason, and never changes; `docs/formats.md` lists them.

use crate::reply::ReplyError;

/// Why a reply is not taken for a time stamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no stamp.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// A part of the stamp is not the DER it should be.
    #[error("the stamp's {0} is not in the form its standard asks for")]
    Malformed(&'static str),
    /// The ContentInfo is of another kind.
    #[error("the stamp is no CMS SignedData")]
    NotSigned,
    /// Signed, but not a TSTInfo.
    #[error("what is signed is not the content of a time stamp (id-ct-TSTInfo)")]
    NotAStamp,
    /// A version this crate does not know.
    #[error("the version of the stamp's {0} is not the one that is read")]
    Version(&'static str),
    /// None, or more than one.
    #[error("the stamp has {0} signers; it must have exactly one")]
    Signers(usize),
    /// SHA-1, or something unknown.
    #[error(
        "the stamp's {0} is not one that is accepted (SHA-256, SHA-384 or SHA-512 with RSA, or with ECDSA on P-256 or P-384)"
    )]
    Algorithm(&'static str),
    /// A signed attribute that must be there.
    #[error("the stamp lacks the signed attribute {0}")]
    AttributeMissing(&'static str),
    /// A signed attribute comes twice, or has more than one value.
    #[error("a signed attribute of the stamp comes twice, or does not have exactly one value")]
    AttributeRepeated,
    /// The signature is over another type of content.
    #[error("the signed content type is not that of the content")]
    ContentType,
    /// The signature is over other content.
    #[error("the content is not the one that was signed")]
    Digest,
    /// It carries no certificate that its signature names.
    #[error("the stamp does not carry the certificate that its signature is bound to")]
    SignerCertificateMissing,
    /// Two names of the signer's certificate do not agree.
    #[error("the stamp names its signer's certificate in two ways that do not agree")]
    SignerCertificateAmbiguous,
    /// The signature does not verify.
    #[error("the stamp's signature does not verify")]
    Signature,
    /// A stamp of another hash algorithm.
    #[error("the stamp is over another kind of hash than SHA-256")]
    ImprintAlgorithm,
    /// A stamp of something else.
    #[error("the stamp is over another hash than the one in question")]
    Imprint,
    /// An answer to another request.
    #[error("the stamp answers another request: its nonce is a different one, or it has none")]
    Nonce,
    /// Made under a policy nobody asked for.
    #[error("the stamp was made under the policy {0}, which is not accepted")]
    Policy(String),
    /// The time is not readable.
    #[error("the stamp's time is not a time in UTC in its one spelling")]
    Time,
    /// The accuracy is out of range.
    #[error("the stamp's accuracy is out of range")]
    Accuracy,
    /// Whoever wrote it wants it refused by whoever does not know this.
    #[error("the stamp has a critical extension, and none is known")]
    CriticalExtension,
    /// The name in the stamp is not in the certificate.
    #[error("the authority's name in the stamp is not a name of its certificate")]
    AuthorityName,
    /// No extended key usage.
    #[error("the signer's certificate is not for time stamps: it has no extended key usage")]
    PurposeMissing,
    /// Another purpose, or one more.
    #[error("the signer's certificate is not for time stamps alone")]
    PurposeNotSole,
    /// RFC 3161, 2.3.
    #[error("the extended key usage of the signer's certificate is not critical")]
    PurposeNotCritical,
    /// Key usage forbids, or allows too much.
    #[error("the key usage of the signer's certificate is not that of signatures alone")]
    KeyUsage,
    /// A CA stamps.
    #[error("the signer's certificate is that of a CA")]
    SignerIsCa,
    /// Signed after the certificate's end.
    #[error("the signer's certificate had expired when the stamp was made")]
    SignerExpired,
    /// Signed before the certificate's beginning.
    #[error("the signer's certificate was not yet valid when the stamp was made")]
    SignerNotYetValid,
    /// No path to a pinned root.
    #[error("no pinned root vouches for the signer's certificate")]
    Untrusted,
    /// A CA on the way was not valid.
    #[error("a CA certificate above the signer's was not valid when the stamp was made")]
    CaNotValidThen,
    /// A pinned root leads there, but its certificate's time is another.
    #[error("the pinned root above the signer's certificate was not valid when the stamp was made")]
    RootNotValidThen,
    /// Another rule of RFC 5280 is broken on the way to the root.
    #[error("the path from the signer's certificate to a pinned root breaks a rule: {0}")]
    Path(String),
}

impl Refusal {
    /// The code.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::Reply(ReplyError::TooLong(_)) => "reply-too-long",
            Refusal::Reply(ReplyError::Malformed) => "reply-malformed",
            Refusal::Reply(ReplyError::Rejected(_)) => "rejected",
            Refusal::Reply(ReplyError::StampMissing) => "stamp-missing",
            Refusal::Reply(ReplyError::StampUnexpected) => "stamp-unexpected",
            Refusal::Malformed(_) => "malformed",
            Refusal::NotSigned => "not-signed",
            Refusal::NotAStamp => "not-a-stamp",
            Refusal::Version(_) => "version",
            Refusal::Signers(_) => "signers",
            Refusal::Algorithm(_) => "algorithm",
            Refusal::AttributeMissing(_) => "attribute-missing",
            Refusal::AttributeRepeated => "attribute-repeated",
            Refusal::ContentType => "content-type",
            Refusal::Digest => "digest",
            Refusal::SignerCertificateMissing => "signer-certificate-missing",
            Refusal::SignerCertificateAmbiguous => "signer-certificate-ambiguous",
            Refusal::Signature => "signature",
            Refusal::ImprintAlgorithm => "imprint-algorithm",
            Refusal::Imprint => "imprint",
            Refusal::Nonce => "nonce",
            Refusal::Policy(_) => "policy",
            Refusal::Time => "time",
            Refusal::Accuracy => "accuracy",
            Refusal::CriticalExtension => "critical-extension",
            Refusal::AuthorityName => "authority-name",
            Refusal::PurposeMissing => "purpose-missing",
            Refusal::PurposeNotSole => "purpose-not-sole",
            Refusal::PurposeNotCritical => "purpose-not-critical",
            Refusal::KeyUsage => "key-usage",
            Refusal::SignerIsCa => "signer-is-ca",
            Refusal::SignerExpired => "signer-expired",
            Refusal::SignerNotYetValid => "signer-not-yet-valid",
            Refusal::Untrusted => "untrusted",
            Refusal::CaNotValidThen => "ca-not-valid-then",
            Refusal::RootNotValidThen => "root-not-valid-then",
            Refusal::Path(_) => "path",
        }
    }
}
