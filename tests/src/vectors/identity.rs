//! Refused before the token is looked at: enrolment, attestation key, key-epoch entry, its signature, its endorsement.

use super::der::{long_length, replace, signed, with_extra_field};
use super::keys;
use super::log::Log;
use super::plan::{NOW, Plan, Sealing, pcrs};
use super::shapes::{
    Attest, NULL, PublicArea, RESTRICTED, SHA256, SHA384, TpmSignature, Use, certify_info, name_of,
    quote_info, quote_info_of, selection,
};
use super::{Vector, refused};
use bulla_formats::body::key_epoch::{Endorsement, EpochKey, Purpose};
use bulla_formats::der::{self, Octets32};
use bulla_formats::entry::{EntryContent, Kind, Residency};
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::sig::{Algorithm, label, labelled, labelled_with_origin};
use bulla_formats::tpm::pcr_digest;

pub(super) fn all() -> Vec<Vector> {
    let mut all = enrolment();
    all.extend(fleet_chain());
    all.extend(attestation_key());
    all.extend(epoch_entry());
    all.extend(epoch_keys());
    all.extend(epoch_signature());
    all.extend(quote_endorsement());
    all.extend(other_endorsement());
    all.extend(certification());
    all
}

fn enrolment() -> Vec<Vector> {
    let no = |what, plan| refused("enrolment", what, plan);
    let software = Plan::software;
    let elsewhere = |log: &Log<'_>| log.origin.replace("/1", "/2");
    vec![
        no("of-another-fleet", software().trust(|trust| trust.fleet = "other.example".into())),
        no(
            "of-another-root",
            software()
                .trust(|trust| trust.roots = vec![keys::ed25519("another root").verifying_key().to_bytes()]),
        ),
        no(
            "origin-of-another-ek",
            software().enrolment(|content| content.ek_spki_sha256 = Octets32::new([9; 32])),
        ),
        no(
            "origin-with-leading-zero",
            software().enrolment(|content| content.origin = content.origin.replace("/1", "/01")),
        ),
        no("origin-in-capitals", software().enrolment(|content| content.origin.make_ascii_uppercase())),
        no("origin-with-four-parts", software().enrolment(|content| content.origin.push_str("/1"))),
        no("other-origin-in-the-file", software().file(move |log, file| file.origin = elsewhere(log))),
        no("signed-by-another-key", Plan { enroller: keys::ed25519("another root"), ..software() }),
        no(
            "signed-under-another-label",
            software().enrolment_message(|message| {
                let content = message[label::ENROLMENT.len() + 1..].to_vec();
                *message = labelled(label::FLEET_CERTIFICATE, &content);
            }),
        ),
        no(
            "signed-without-label",
            software().enrolment_message(|message| drop(message.drain(..=label::ENROLMENT.len()))),
        ),
        no("signature-flipped", software().enrolled(|enrolment| flip(&mut enrolment.signature))),
        no("signature-too-long", software().enrolled(|enrolment| lengthen(&mut enrolment.signature))),
        no(
            "signature-non-canonical-s",
            software().enrolled(|enrolment| {
                enrolment.signature = keys::non_canonical_s(&enrolment.signature).into()
            }),
        ),
        no(
            "root-of-small-order",
            software()
                .trust(|trust| trust.roots = vec![keys::SMALL_ORDER_KEY])
                .enrolled(|enrolment| enrolment.signature = keys::signature_of_small_order_key().into()),
        ),
        no(
            "log-key-of-small-order",
            software().enrolment(|content| content.log_key = Octets32::new(keys::SMALL_ORDER_KEY)),
        ),
        no(
            "log-key-in-another-spelling",
            software().enrolment(|content| content.log_key = Octets32::new(keys::NON_CANONICAL_KEY)),
        ),
        no("der-trailing-byte", software().enrolment_der(|der| der.push(0))),
        no("der-long-length", software().enrolment_der(|der| *der = long_length(der))),
        no("der-unknown-field", software().enrolment_der(|der| *der = with_extra_field(der))),
        no(
            "der-truncated",
            software().file(|_, file| {
                file.enrolment.pop();
            }),
        ),
        no("version-2", software().enrolment(|content| content.version = 2)),
        no("time-above-the-limit", software().enrolment(|content| content.enrolled_at = 1 << 63)),
        no(
            "nine-ek-certificates",
            Plan::tpm().enrolment(|content| content.ek_certificates = vec![vec![0x30, 0].into(); 9]),
        ),
    ]
}

fn fleet_chain() -> Vec<Vector> {
    let no = |what, plan| refused("enrolment", what, plan);
    let one = || Plan::software().authority(|_| ());
    vec![
        no("fleet-ca-expired", Plan::software().authority(|ca| ca.content.not_after = NOW - 1)),
        no("fleet-ca-not-yet-valid", Plan::software().authority(|ca| ca.content.not_before = NOW + 1)),
        no(
            "fleet-ca-of-another-fleet",
            Plan::software().authority(|ca| ca.content.fleet = "other.example".into()),
        ),
        no("fleet-ca-time-above-the-limit", Plan::software().authority(|ca| ca.content.not_after = 1 << 63)),
        no("fleet-ca-version-2", Plan::software().authority(|ca| ca.content.version = 2)),
        no(
            "fleet-ca-signed-by-another-key",
            Plan::software().authority(|ca| ca.issuer = keys::ed25519("another root")),
        ),
        no(
            "fleet-ca-signed-under-another-label",
            Plan::software().authority(|ca| ca.label = label::ENROLMENT),
        ),
        no(
            "fleet-ca-of-small-order",
            Plan::software()
                .authority(|ca| ca.content.public_key = Octets32::new(keys::SMALL_ORDER_KEY))
                .enrolled(|enrolment| enrolment.signature = keys::signature_of_small_order_key().into()),
        ),
        no("fleet-ca-missing", one().enrolled(|enrolment| enrolment.chain.clear())),
        no(
            "fleet-ca-skipped",
            one().authority(|_| ()).enrolled(|enrolment| {
                enrolment.chain.remove(0);
            }),
        ),
        no(
            "fleet-ca-chain-reversed",
            one().authority(|_| ()).enrolled(|enrolment| enrolment.chain.reverse()),
        ),
        no("fleet-ca-chain-of-five", (0..4).fold(one(), |plan, _| plan.authority(|_| ()))),
        no(
            "fleet-ca-signed-the-chain-root-signed-the-box",
            one().enrolled(|enrolment| {
                let message = enrolment.content.message();
                enrolment.signature = keys::sign_ed25519(&keys::ed25519("fleet root"), &message).into();
            }),
        ),
    ]
}

fn attestation_key() -> Vec<Vector> {
    let area = |what: &str, change: fn(&mut PublicArea)| {
        refused("attestation-key", what, Plan::quoted().attestation_area(change))
    };
    let bytes = |what: &str, plan: Plan, change: fn(&mut Vec<u8>)| {
        refused("attestation-key", what, plan.attestation_bytes(change))
    };
    vec![
        area("not-restricted", |area| area.attributes &= !RESTRICTED),
        area("not-fixed-tpm", |area| area.attributes &= !(1 << 1)),
        area("not-fixed-parent", |area| area.attributes &= !(1 << 4)),
        area("imported", |area| area.attributes &= !(1 << 5)),
        area("under-dictionary-attack-lockout", |area| area.attributes &= !(1 << 10)),
        area("does-not-sign", |area| area.attributes &= !(1 << 18)),
        area("decrypts", |area| area.attributes |= 1 << 17),
        area("st-clear", |area| area.attributes |= 1 << 2),
        area("x509-sign", |area| area.attributes |= 1 << 19),
        area("reserved-attribute", |area| area.attributes |= 1 << 31),
        area("symmetric-cipher", |area| area.symmetric = vec![0, 6, 0, 128, 0, 0x43]),
        area("scheme-null", |area| area.scheme = NULL.to_vec()),
        area("scheme-with-sha-384", |area| area.scheme = [[0, 0x18], SHA384].concat()),
        area("name-with-sha-384", |area| area.name_algorithm = SHA384),
        area("kdf", |area| area.kdf = [0, 0x20]),
        area("curve-p384", |area| area.curve = [0, 4]),
        area("policy-of-20-bytes", |area| area.policy = vec![1; 20]),
        area("coordinate-of-33-bytes", |area| area.x.insert(0, 0)),
        area("not-on-the-curve", |area| area.y[31] ^= 1),
        area("trailing-byte", |area| area.tail = vec![0]),
        bytes("truncated", Plan::quoted(), |bytes| {
            bytes.pop();
        }),
        bytes("point-on-tpm-hardware", Plan::quoted(), |bytes| {
            *bytes = keys::point(&keys::p256("attestation key"));
        }),
        bytes("tpm-area-on-software", Plan::software(), |bytes| {
            *bytes = PublicArea::of(&keys::p256("attestation key"), true).bytes();
        }),
        bytes("software-compressed-point", Plan::software(), |bytes| {
            *bytes = keys::compressed_point(&keys::p256("attestation key"));
        }),
        bytes("software-not-on-the-curve", Plan::software(), |bytes| bytes[64] ^= 1),
    ]
}

fn epoch_entry() -> Vec<Vector> {
    let no = |what, plan| refused("epoch-entry", what, plan);
    let software = Plan::software;
    let second = || Plan::software().second_epoch();
    vec![
        no("of-another-kind", software().epoch_content(|content| content.kind = Kind::Incident as u16)),
        no("of-an-unknown-kind", software().epoch_content(|content| content.kind = 99)),
        no("is-the-token", software().file(|_, file| file.epoch.clone_from(&file.entry))),
        no(
            "statement-of-another-log",
            software().statement(|statement| statement.origin = statement.origin.replace("/1", "/2")),
        ),
        no("statement-version-2", software().statement(|statement| statement.version = 2)),
        no("statement-of-another-epoch", second().statement(|statement| statement.epoch = 2)),
        no("first-index-is-not-its-own", second().epoch_body(|body| body.first_index = 1)),
        no(
            "embeds-another-enrolment",
            software().epoch_body(|body| {
                body.enrolment = body.enrolment.as_ref().map(|enrolment| {
                    let mut other = enrolment.to_vec();
                    flip_at(&mut other, 20);
                    other.into()
                });
            }),
        ),
        no("first-without-enrolment", software().epoch_body(|body| body.enrolment = None)),
        no("later-with-enrolment", second().epoch_body(|body| body.enrolment = Some(vec![0x30, 0].into()))),
        no(
            "epoch-0-with-previous",
            software().statement(|statement| statement.previous = Some(Octets32::new([1; 32]))),
        ),
        no("epoch-1-without-previous", second().statement(|statement| statement.previous = None)),
        no(
            "epoch-1-at-index-0",
            software().epoch_content(|content| content.epoch = 1).statement(|statement| {
                (statement.epoch, statement.previous) = (1, Some(Octets32::new([1; 32])));
            }),
        ),
        no(
            "residency-is-not-the-keys",
            Plan::tpm().epoch_content(|content| content.residency = Residency::Tpm),
        ),
        no(
            "software-residency-on-a-tpm",
            Plan::tpm()
                .statement(|statement| statement.keys[0].residency = Residency::Software)
                .epoch_content(|content| content.residency = Residency::Software)
                .content(|content| content.residency = Residency::Software),
        ),
        no(
            "tpm-residency-on-software",
            software()
                .statement(|statement| statement.keys[0].residency = Residency::TpmEndorsedRam)
                .epoch_content(|content| content.residency = Residency::TpmEndorsedRam)
                .content(|content| content.residency = Residency::TpmEndorsedRam),
        ),
        no("previous-larger-than-index", second().epoch_content(|content| content.previous.size = 4)),
        no(
            "previous-empty-with-a-root",
            software().epoch_content(|content| content.previous.root = Octets32::new([3; 32])),
        ),
        no("version-2", software().epoch_content(|content| content.version = 2)),
        no("der-trailing-byte", software().make_epoch(|log, content| [log.entry(content), vec![0]].concat())),
        no("body-der-trailing-byte", software().epoch_body_der(|der| der.push(0))),
        no("body-der-unknown-field", software().epoch_body_der(|der| *der = with_extra_field(der))),
        no(
            "body-der-boolean-one",
            // previousExtended FALSE, after firstIndex 2, becomes a TRUE that only BER knows.
            second().epoch_body_der(|der| *der = replace(der, &[2, 1, 2, 1, 1, 0], &[2, 1, 2, 1, 1, 1])),
        ),
    ]
}

fn key(purpose: Purpose, name: &str) -> EpochKey {
    EpochKey {
        purpose,
        algorithm: Algorithm::Ed25519,
        residency: Residency::Software,
        public_key: keys::ed25519(name).verifying_key().to_bytes().to_vec().into(),
        certification: None,
    }
}

fn epoch_keys() -> Vec<Vector> {
    let no = |what, plan| refused("epoch-entry", what, plan);
    let p256 = || Plan { sealing: Sealing::P256, ..Plan::software() };
    vec![
        no(
            "interop-key-of-5-bytes",
            Plan::software().statement(|statement| {
                let short = EpochKey { public_key: vec![1; 5].into(), ..key(Purpose::Interop, "other") };
                statement.keys.push(short);
            }),
        ),
        no(
            "interop-key-in-another-spelling",
            Plan::software().statement(|statement| {
                let public_key = keys::NON_CANONICAL_KEY.to_vec().into();
                statement.keys.push(EpochKey { public_key, ..key(Purpose::Interop, "other") });
            }),
        ),
        no(
            "predecessor-of-3-bytes",
            Plan::software().second_epoch().epoch_body(|body| body.predecessor = Some(vec![0; 3].into())),
        ),
        no("without-keys", Plan::software().statement(|statement| statement.keys.clear())),
        no(
            "without-a-sealing-key",
            Plan::software().statement(|statement| statement.keys[0].purpose = Purpose::Interop),
        ),
        no(
            "two-sealing-keys",
            Plan::software().statement(|statement| statement.keys.push(key(Purpose::Sealing, "other"))),
        ),
        no(
            "nine-keys",
            Plan::software().statement(|statement| {
                statement.keys.extend((0..8).map(|_| key(Purpose::Interop, "other")));
            }),
        ),
        no(
            "resident-key-without-certification",
            Plan::resident().statement(|statement| statement.keys[0].certification = None),
        ),
        no(
            "certified-key-in-ram",
            Plan::resident()
                .statement(|statement| statement.keys[0].residency = Residency::TpmEndorsedRam)
                .epoch_content(|content| content.residency = Residency::TpmEndorsedRam)
                .content(|content| content.residency = Residency::TpmEndorsedRam),
        ),
        no(
            "sealing-key-of-small-order",
            Plan::software()
                .statement(|statement| statement.keys[0].public_key = keys::SMALL_ORDER_KEY.to_vec().into())
                .make_epoch(|_, content| signed(&der::encode(content), &keys::signature_of_small_order_key()))
                .make_token(|_, content| {
                    signed(&der::encode(content), &keys::signature_of_small_order_key())
                }),
        ),
        no(
            "sealing-key-too-short",
            Plan::software().statement(|statement| drop_last(&mut statement.keys[0].public_key)),
        ),
        no(
            "sealing-key-compressed",
            p256().statement(|statement| {
                statement.keys[0].public_key = keys::compressed_point(&keys::p256("sealing key 0")).into();
            }),
        ),
        no(
            "sealing-key-not-on-the-curve",
            p256().statement(|statement| flip(&mut statement.keys[0].public_key)),
        ),
        no(
            "sealing-key-of-the-other-algorithm",
            p256().statement(|statement| statement.keys[0].algorithm = Algorithm::Ed25519),
        ),
    ]
}

fn epoch_signature() -> Vec<Vector> {
    type Sign = fn(&Log<'_>, &[u8]) -> Vec<u8>;
    let with = |what: &str, plan: Plan, sign: Sign| {
        let make = move |log: &Log<'_>, content: &EntryContent| {
            let content = der::encode(content);
            signed(&content, &sign(log, &content))
        };
        refused("epoch-signature", what, plan.make_epoch(make))
    };
    vec![
        with("by-another-key", Plan::software(), |log, content| {
            keys::sign_ed25519(&keys::ed25519("other"), &log.message(content))
        }),
        with("by-the-epoch-before", Plan::software().second_epoch(), |log, content| {
            keys::sign_ed25519(&keys::ed25519("sealing key 0"), &log.message(content))
        }),
        with("for-another-origin", Plan::software(), |log, content| {
            log.sealer.sign(&labelled_with_origin(label::ENTRY, &log.origin.replace("/1", "/2"), content))
        }),
        with("under-another-label", Plan::software(), |log, content| {
            log.sealer.sign(&labelled_with_origin(label::EPOCH_SUCCESSOR, &log.origin, content))
        }),
        with("non-canonical-s", Plan::software(), |log, content| {
            keys::non_canonical_s(&log.sealer.sign(&log.message(content)))
        }),
        with("flipped", Plan::software(), |log, content| {
            let mut signature = log.sealer.sign(&log.message(content));
            signature[40] ^= 1;
            signature
        }),
    ]
}

fn quote_endorsement() -> Vec<Vector> {
    let attest = |what: &str, change: fn(&mut Attest)| {
        let only = move |attest: &mut Attest| {
            if attest.purpose == Use::Epoch {
                change(attest);
            }
        };
        refused("epoch-endorsement", what, Plan::tpm().attest(only))
    };
    let signature = |what: &str, change: fn(&mut TpmSignature)| {
        refused("epoch-endorsement", what, Plan::tpm().tpm_signature(change))
    };
    let with = |change: fn(&mut Vec<bulla_formats::body::key_epoch::PcrValue>)| {
        Plan::tpm().epoch_body(move |body| {
            if let Endorsement::Quote(quote) = &mut body.endorsement {
                change(&mut quote.pcrs);
            }
        })
    };
    let listed = |what: &str, change| refused("epoch-endorsement", what, with(change));
    vec![
        attest("quote-over-other-data", |attest| attest.extra_data = sha256(&[b"other data"]).0.to_vec()),
        attest("quote-over-longer-data", |attest| attest.extra_data.push(0)),
        attest("quote-by-another-key", |attest| attest.signer = keys::p256("other")),
        attest("quote-magic", |attest| attest.magic ^= 1),
        attest("quote-is-a-certification", |attest| {
            (attest.kind, attest.attested) = (0x8017, certify_info(&name_of(b"other")));
        }),
        attest("quote-of-type-time", |attest| (attest.kind, attest.attested) = (0x8019, vec![0; 33])),
        attest("quote-signer-name", |attest| attest.qualified_signer[1] = 0x0c),
        attest("quote-signer-handle", |attest| attest.qualified_signer = vec![0x40, 0, 0, 1]),
        attest("quote-safe-is-2", |attest| attest.safe = 2),
        attest("quote-of-sha-384-bank", |attest| {
            attest.attested = quote_info_of(1, SHA384, &selection(&pcrs(1)), &pcr_digest(&pcrs(1)));
        }),
        attest("quote-of-two-banks", |attest| {
            attest.attested = quote_info_of(2, SHA256, &selection(&pcrs(1)), &pcr_digest(&pcrs(1)));
        }),
        attest("quote-selects-with-two-bytes", |attest| {
            attest.attested = quote_info_of(1, SHA256, &selection(&pcrs(1))[..2], &pcr_digest(&pcrs(1)));
        }),
        attest("quote-selects-nothing", |attest| attest.attested = quote_info(&[])),
        attest("quote-of-other-pcr-values", |attest| attest.attested = quote_info(&pcrs(2))),
        attest("quote-digest-in-another-order", |attest| {
            let mut reversed = pcrs(1);
            reversed.reverse();
            attest.attested = quote_info_of(1, SHA256, &selection(&pcrs(1)), &pcr_digest(&reversed));
        }),
        attest("quote-trailing-byte", |attest| attest.tail = vec![0]),
        signature("tpm-signature-trailing-byte", |signature| signature.tail = vec![0]),
        signature("tpm-signature-number-of-33-bytes", |signature| signature.r.insert(0, 0)),
        signature("tpm-signature-number-empty", |signature| signature.s.clear()),
        signature("tpm-signature-r-is-zero", |signature| signature.r = vec![0; 32]),
        signature("tpm-signature-with-sha-384", |signature| signature.hash = SHA384),
        signature("tpm-signature-not-ecdsa", |signature| signature.algorithm = [0, 0x14]),
        signature("tpm-signature-flipped", |signature| signature.s[7] ^= 1),
        listed("pcr-value-differs", |pcrs| pcrs[0].value = Octets32::new([1; 32])),
        listed("pcr-number-differs", |pcrs| pcrs[0].pcr = 1),
        listed("pcr-missing", |pcrs| {
            pcrs.pop();
        }),
        listed("pcr-not-quoted", |pcrs| {
            let mut more = pcrs[2].clone();
            more.pcr = 23;
            pcrs.push(more);
        }),
        // A TPM has PCRs 0 to 23.
        refused("epoch-entry", "quote-of-pcr-24", with(|pcrs| pcrs[2].pcr = 24)),
        listed("pcrs-in-another-order", |pcrs| pcrs.reverse()),
        listed("pcr-listed-twice", |pcrs| pcrs.insert(0, pcrs[0].clone())),
    ]
}

fn other_endorsement() -> Vec<Vector> {
    let no = |what, plan| refused("epoch-endorsement", what, plan);
    let by = |sign: fn(&Hash) -> Vec<u8>| {
        Plan::software().epoch_body(move |body| {
            body.endorsement = Endorsement::Software(sign(&body.statement.qualifying_data()).into());
        })
    };
    vec![
        no(
            "software-on-a-tpm",
            Plan::tpm().epoch_body(|body| {
                let qualifying = body.statement.qualifying_data();
                let signature = keys::sign_p256_digest(&keys::p256("attestation key"), &qualifying.0);
                body.endorsement = Endorsement::Software(signature.into());
            }),
        ),
        no(
            "quote-on-software",
            Plan::software().epoch_body(|body| {
                let key = keys::p256("attestation key");
                let qualifying = body.statement.qualifying_data();
                let attest = Attest::new(Use::Epoch, key, &qualifying, quote_info(&pcrs(1)));
                let value = |(pcr, value)| bulla_formats::body::key_epoch::PcrValue {
                    pcr,
                    value: Octets32::new(value),
                };
                body.endorsement = Endorsement::Quote(bulla_formats::body::key_epoch::TpmQuote {
                    attest: attest.bytes().into(),
                    signature: attest.sign().bytes().into(),
                    pcrs: pcrs(1).into_iter().map(value).collect(),
                });
            }),
        ),
        no("software-by-another-key", by(|data| keys::sign_p256_digest(&keys::p256("other"), &data.0))),
        no("software-hashed-again", by(|data| keys::sign_p256(&keys::p256("attestation key"), &data.0))),
        no(
            "software-over-other-data",
            by(|_| keys::sign_p256_digest(&keys::p256("attestation key"), &[9; 32])),
        ),
        no(
            "software-signature-as-der",
            by(|data| keys::p256_der(&keys::sign_p256_digest(&keys::p256("attestation key"), &data.0))),
        ),
        no(
            "statement-changed-afterwards",
            Plan::software().epoch_body(|body| {
                body.statement.keys.push(key(Purpose::Interop, "slipped in"));
            }),
        ),
    ]
}

fn certification() -> Vec<Vector> {
    let no = |what, plan| refused("epoch-endorsement", what, plan);
    let area = |what, change: fn(&mut PublicArea)| no(what, Plan::resident().key_area(change));
    let attest = |what, change: fn(&mut Attest)| {
        let only = move |attest: &mut Attest| {
            if attest.purpose == Use::Key {
                change(attest);
            }
        };
        no(what, Plan::resident().attest(only))
    };
    vec![
        area("certified-key-restricted", |area| area.attributes |= RESTRICTED),
        area("certified-key-not-fixed-tpm", |area| area.attributes &= !(1 << 1)),
        area("certified-key-not-fixed-parent", |area| area.attributes &= !(1 << 4)),
        area("certified-key-imported", |area| area.attributes &= !(1 << 5)),
        area("certified-key-decrypts", |area| area.attributes |= 1 << 17),
        area("certified-key-symmetric-cipher", |area| area.symmetric = vec![0, 6, 0, 128, 0, 0x43]),
        area("certified-key-scheme-with-sha-384", |area| area.scheme = [[0, 0x18], SHA384].concat()),
        area("certified-key-trailing-byte", |area| area.tail = vec![0]),
        attest("certification-of-another-name", |attest| attest.attested = certify_info(&name_of(b"other"))),
        attest("certification-by-another-key", |attest| attest.signer = keys::p256("other")),
        attest("certification-is-a-quote", |attest| {
            (attest.kind, attest.attested) = (0x8018, quote_info(&pcrs(1)))
        }),
        attest("certification-magic", |attest| attest.magic ^= 1),
        no("certification-for-another-role", Plan { sealing: Sealing::Resident("tls"), ..Plan::resident() }),
        no("certification-of-interop-key-for-sealing", Plan { interop: Some("sealing"), ..Plan::tpm() }),
        no(
            "certified-key-is-another",
            Plan::resident().statement(|statement| {
                // The area and its certification are genuine, but of another key in the same TPM.
                let key = keys::p256("other");
                let area = PublicArea::of(&key, false).bytes();
                let qualifying = bulla_formats::body::key_epoch::key_certification_data("sealing");
                let attest = Attest::new(
                    Use::Key,
                    keys::p256("attestation key"),
                    &qualifying,
                    certify_info(&name_of(&area)),
                );
                statement.keys[0].certification = Some(bulla_formats::body::key_epoch::Certification {
                    public_area: area.into(),
                    attest: attest.bytes().into(),
                    signature: attest.sign().bytes().into(),
                });
            }),
        ),
    ]
}

/// Changes the last byte.
fn flip<B: AsRef<[u8]> + From<Vec<u8>>>(bytes: &mut B) {
    let mut changed = bytes.as_ref().to_vec();
    let last = changed.len() - 1;
    flip_at(&mut changed, last);
    *bytes = changed.into();
}

fn flip_at(bytes: &mut [u8], at: usize) {
    bytes[at] ^= 1;
}

fn lengthen<B: AsRef<[u8]> + From<Vec<u8>>>(bytes: &mut B) {
    *bytes = [bytes.as_ref(), &[0]].concat().into();
}

fn drop_last<B: AsRef<[u8]> + From<Vec<u8>>>(bytes: &mut B) {
    let bytes_before = bytes.as_ref();
    *bytes = bytes_before[..bytes_before.len() - 1].to_vec().into();
}
