//! Why a box is not enrolled: one code per cause, stable, and one sentence for people.
//!
//! Refuses to do: say only "attestation failed". Whatever differs is named, with what was expected.
//! Invariant: codes are part of the format (docs/formats.md, section 16): they are never reused for another cause.

use std::fmt;

/// A cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// Not the bytes of the message.
    Malformed,
    /// Of another fleet.
    OtherFleet,
    /// The box has another registrar in mind.
    OtherRegistrar,
    /// The public area of the endorsement key is none of the TCG's.
    EkTemplate,
    /// No certificate came with the endorsement key.
    EkCertificateMissing,
    /// It is no X.509 certificate that can be judged.
    EkCertificateMalformed,
    /// It is over another key than the one presented.
    EkCertificateOtherKey,
    /// It is not for an endorsement key.
    EkCertificateUsage,
    /// It, or one above it, is not valid now.
    EkCertificateExpired,
    /// No pinned manufacturer vouches for it.
    EkChain,
    /// The inventory does not list this TPM.
    EkUnknown,
    /// People hold this TPM back.
    EkQuarantined,
    /// The fleet has buried this TPM.
    EkTombstoned,
    /// The attestation key could sign something else than what a TPM made.
    AttestationKeyTemplate,
    /// The TLS key or the issuing key could leave its TPM, or is of another kind.
    ServiceKeyTemplate,
    /// The counter is none, or could repeat itself.
    CounterTemplate,
    /// The origin does not follow from fleet, TPM and counter.
    Origin,
    /// A log of that origin, or a later one of the same TPM, is enrolled already.
    OriginTaken,
    /// A log is to be staged for a box that goes on with another one than it says, or is no member.
    LogInUse,
    /// The head is not that of a log which has not begun.
    Head,
    /// The log key is none.
    LogKey,
    /// Nobody asked with this transcript.
    RequestUnknown,
    /// No challenge is outstanding: none was made, it was used, or the registrar was restarted.
    ChallengeUnknown,
    /// The challenge is too old.
    ChallengeExpired,
    /// The evidence answers another challenge.
    ChallengeOther,
    /// The challenge came to the box through another connection than the registrar's own.
    Relayed,
    /// The TPM with the endorsement key does not hold the attestation key.
    Activation,
    /// The quote does not hold.
    Quote,
    /// The attestation key is not a child of the endorsement key.
    AttestationKeyParent,
    /// PCR values that do not belong to the quote, or not those that must be quoted.
    QuotePcrs,
    /// The firmware of the TPM is known to be bad.
    TpmFirmware,
    /// The attestation key does not vouch for the TLS key.
    TlsKey,
    /// The attestation key does not vouch for the issuing key.
    IssuingKey,
    /// The attestation key does not vouch for the counter.
    Counter,
    /// The counter has another value than the origin says.
    CounterValue,
    /// Whoever sent the evidence does not hold the log key.
    LogSignature,
    /// The event log is none.
    EventLog,
    /// The event log does not lead to the quoted values.
    EventLogDiffers,
    /// Secure Boot was off, or nothing proves that it was on.
    SecureBoot,
    /// The boot is none of the known good ones.
    BootUnknown,
    /// The boot was good until a day that is past.
    BootOutdated,
    /// A person said no.
    Declined,
    /// The fleet's own certificate is not valid now.
    FleetCertificate,
}

impl Code {
    /// Every code.
    pub const ALL: [Code; 43] = [
        Code::Malformed,
        Code::OtherFleet,
        Code::OtherRegistrar,
        Code::EkTemplate,
        Code::EkCertificateMissing,
        Code::EkCertificateMalformed,
        Code::EkCertificateOtherKey,
        Code::EkCertificateUsage,
        Code::EkCertificateExpired,
        Code::EkChain,
        Code::EkUnknown,
        Code::EkQuarantined,
        Code::EkTombstoned,
        Code::AttestationKeyTemplate,
        Code::ServiceKeyTemplate,
        Code::CounterTemplate,
        Code::Origin,
        Code::OriginTaken,
        Code::LogInUse,
        Code::Head,
        Code::LogKey,
        Code::RequestUnknown,
        Code::ChallengeUnknown,
        Code::ChallengeExpired,
        Code::ChallengeOther,
        Code::Relayed,
        Code::Activation,
        Code::Quote,
        Code::AttestationKeyParent,
        Code::QuotePcrs,
        Code::TpmFirmware,
        Code::TlsKey,
        Code::IssuingKey,
        Code::Counter,
        Code::CounterValue,
        Code::LogSignature,
        Code::EventLog,
        Code::EventLogDiffers,
        Code::SecureBoot,
        Code::BootUnknown,
        Code::BootOutdated,
        Code::Declined,
        Code::FleetCertificate,
    ];

    /// As it stands in messages, logs and docs/provisioning.md.
    pub fn name(self) -> &'static str {
        match self {
            Code::Malformed => "malformed",
            Code::OtherFleet => "other-fleet",
            Code::OtherRegistrar => "other-registrar",
            Code::EkTemplate => "ek-template",
            Code::EkCertificateMissing => "ek-certificate-missing",
            Code::EkCertificateMalformed => "ek-certificate-malformed",
            Code::EkCertificateOtherKey => "ek-certificate-other-key",
            Code::EkCertificateUsage => "ek-certificate-usage",
            Code::EkCertificateExpired => "ek-certificate-expired",
            Code::EkChain => "ek-chain",
            Code::EkUnknown => "ek-unknown",
            Code::EkQuarantined => "ek-quarantined",
            Code::EkTombstoned => "ek-tombstoned",
            Code::AttestationKeyTemplate => "attestation-key-template",
            Code::ServiceKeyTemplate => "service-key-template",
            Code::CounterTemplate => "counter-template",
            Code::Origin => "origin",
            Code::OriginTaken => "origin-taken",
            Code::LogInUse => "log-in-use",
            Code::Head => "head",
            Code::LogKey => "log-key",
            Code::RequestUnknown => "request-unknown",
            Code::ChallengeUnknown => "challenge-unknown",
            Code::ChallengeExpired => "challenge-expired",
            Code::ChallengeOther => "challenge-other",
            Code::Relayed => "relayed",
            Code::Activation => "activation",
            Code::Quote => "quote",
            Code::AttestationKeyParent => "attestation-key-parent",
            Code::QuotePcrs => "quote-pcrs",
            Code::TpmFirmware => "tpm-firmware",
            Code::TlsKey => "tls-key",
            Code::IssuingKey => "issuing-key",
            Code::Counter => "counter",
            Code::CounterValue => "counter-value",
            Code::LogSignature => "log-signature",
            Code::EventLog => "event-log",
            Code::EventLogDiffers => "event-log-differs",
            Code::SecureBoot => "secure-boot",
            Code::BootUnknown => "boot-unknown",
            Code::BootOutdated => "boot-outdated",
            Code::Declined => "declined",
            Code::FleetCertificate => "fleet-certificate",
        }
    }

    /// The code with this name.
    pub fn parse(name: &str) -> Option<Code> {
        Code::ALL.into_iter().find(|code| code.name() == name)
    }

    /// Whether the same request may be sent again, because what stands in its way can pass.
    pub fn may_pass(self) -> bool {
        matches!(
            self,
            Code::EkUnknown
                | Code::EkQuarantined
                | Code::RequestUnknown
                | Code::ChallengeUnknown
                | Code::ChallengeExpired
                | Code::ChallengeOther
                | Code::Relayed
                | Code::FleetCertificate
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sentence} ({code})")]
pub struct Refusal {
    /// The cause.
    pub code: Code,
    /// What was found, what was expected, and what to do where that is not plain.
    pub sentence: String,
}

impl Refusal {
    /// A refusal with these words.
    pub fn new(code: Code, sentence: impl Into<String>) -> Self {
        Refusal { code, sentence: sentence.into() }
    }
}

/// What a judgement gives.
pub type Judged<T> = Result<T, Refusal>;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert_eq!(Code::parse(code.name()), Some(code));
        }
        assert_eq!(Code::parse("Malformed"), None);
    }
}
