//! `bulla inspect`: shows every field of a `.seal`, a trust file or an entry.
//!
//! Refuses to do: judge. What it prints is what the file says, and the first line says that it was not verified.

use crate::exit::{Exit, Failure};
use crate::extract;
use crate::files;
use crate::output;
use bulla_formats::body::anchor::{AnchorBody, Evidence};
use bulla_formats::body::attestation::AttestationBody;
use bulla_formats::body::incident::IncidentBody;
use bulla_formats::body::key_epoch::{Endorsement, EpochKey, KeyEpochBody, TpmQuote};
use bulla_formats::body::mirror::{CosignedHead, MirrorBody};
use bulla_formats::body::operator_action::OperatorActionBody;
use bulla_formats::body::seal::{Assurance, ClientMethod, Field, Observation, Opening, SealBody};
use bulla_formats::body::succession::SuccessionBody;
use bulla_formats::enrolment::{Enrolment, Hardware};
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::hash::sha256;
use bulla_formats::json;
use bulla_formats::note::{SignedNote, parse_checkpoint_text};
use bulla_formats::report::utc;
use bulla_formats::revocation::Revocation;
use bulla_formats::seal_file::{Head, SEAL_BYTES_MAX, SealFile};
use bulla_formats::sig::Algorithm;
use bulla_formats::tpm::{Attest, Attested, NvPublic, TpmtPublic};
use bulla_formats::trust::{TrustFile, fingerprint};
use bulla_timestamps::Crl;
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Arguments of `bulla inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A .seal, a trust file, or the DER of an entry
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Also write the parts of a .seal into DIR, as files that openssl reads
    #[arg(long, value_name = "DIR")]
    extract: Option<PathBuf>,
}

/// Prints what is in the file.
pub fn run(args: &InspectArgs) -> Result<Exit, Failure> {
    let shown = args.file.display();
    let bytes = files::read_seal(&args.file)
        .map_err(|error| Failure::usage(format!("{shown} cannot be read: {error}")))?;
    let (what, value, seal) = look(&bytes).map_err(|error| {
        Failure::usage(format!("{shown} is no .seal, no trust file and no entry of this version: {error}"))
    })?;
    let note = "NOT VERIFIED: this is what the file says; `bulla verify` judges it.";
    if args.json {
        output::print_json(&json!({"verified": false, "note": note, "what": what, "content": value}));
    } else {
        output::print(&format!("{note}\n{what}\n{}", output::tree(&value)));
    }
    if let Some(directory) = &args.extract {
        let seal = seal.ok_or_else(|| {
            Failure::usage(format!("{shown} is no .seal; only a .seal has parts to extract"))
        })?;
        let count = extract::write(&seal, directory).map_err(|error| {
            Failure::usage(format!("{} cannot be written to: {error}", directory.display()))
        })?;
        output::complain(&format!("{count} files written to {}", directory.display()));
    }
    Ok(Exit::Ok)
}

/// What the bytes are, every field of it, and the `.seal` when they are one.
pub fn look(bytes: &[u8]) -> Result<(&'static str, Value, Option<SealFile>), String> {
    let json_start = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if !json_start {
        return Ok(("entry", entry(&Entry::decode(bytes).map_err(|error| error.to_string())?), None));
    }
    if is_trust(bytes) {
        let trust = TrustFile::decode(bytes).map_err(|error| error.to_string())?;
        return Ok(("trust file", trust_file(&trust, bytes), None));
    }
    let file = SealFile::decode(bytes).map_err(|error| error.to_string())?;
    Ok(("seal", seal_file(&file), Some(file)))
}

fn is_trust(bytes: &[u8]) -> bool {
    let value = json::parse(bytes, SEAL_BYTES_MAX).unwrap_or(Value::Null);
    value.get("bulla").and_then(Value::as_str).is_some_and(|version| version.starts_with("trust/"))
}

/// A part that does not decode is shown with the reason and its bytes.
fn or_raw<T, E: std::fmt::Display>(bytes: &[u8], decoded: Result<T, E>, show: impl Fn(&T) -> Value) -> Value {
    match decoded {
        Ok(value) => show(&value),
        Err(error) => json!({"notReadable": error.to_string(), "bytes": hex::encode(bytes)}),
    }
}

fn trust_file(trust: &TrustFile, bytes: &[u8]) -> Value {
    let references: Vec<Value> = trust
        .references
        .iter()
        .map(|reference| json!({"name": reference.name, "pcrs": pcrs(&reference.pcrs)}))
        .collect();
    json!({
        "fingerprint": fingerprint(bytes),
        "fleet": trust.fleet,
        "issuedMillis": trust.issued_millis,
        "roots": trust.roots.iter().map(hex::encode).collect::<Vec<_>>(),
        "references": references,
        "roster": trust.roster.as_ref().map(|roster| json!({
            "version": roster.version,
            "sha256": hex::encode(roster.hash),
            "revocations": roster.revocations.iter().map(revocation).collect::<Vec<_>>(),
        })),
        "policy": {"acceptSoftware": trust.policy.accept_software, "requireFacts": trust.policy.require_facts},
        "authorities": trust.authorities.as_ref().map(|all| json!({
            "operators": all.operators,
            "tsaRoots": all.tsas.iter().map(|tsa| json!({
                "operator": tsa.operator,
                "rootsSha256": tsa.authority.roots().map(|root| sha256(&[root]).to_string()).collect::<Vec<_>>(),
                "policies": tsa.authority.policies().iter().map(ToString::to_string).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "witnesses": all.witnesses.iter().map(|witness| json!({
                "operator": witness.operator, "key": witness.key.to_string(),
            })).collect::<Vec<_>>(),
        })),
    })
}

fn revocation(said: &Revocation) -> Value {
    let content = &said.content;
    json!({
        "origin": content.origin,
        "cause": content.cause.name(),
        "good": {"size": content.good.size, "root": hex::encode(*content.good.root)},
        "invalidFromMillis": content.invalid_from,
        "rosterVersion": content.roster,
        "issuedMillis": content.issued_at,
    })
}

fn seal_file(file: &SealFile) -> Value {
    let openings: Vec<Value> =
        file.openings.iter().map(|bytes| or_raw(bytes, Opening::decode(bytes), opening)).collect();
    json!({
        "origin": file.origin,
        "entry": or_raw(&file.entry, Entry::decode(&file.entry), entry),
        "openings": openings,
        "epoch": or_raw(&file.epoch, Entry::decode(&file.epoch), entry),
        "enrolment": or_raw(&file.enrolment, Enrolment::decode(&file.enrolment), enrolment),
        "heads": file.heads.iter().map(head).collect::<Vec<_>>(),
        "erasures": file.erasures.iter().map(|erasure| json!({
            "entry": or_raw(&erasure.entry, Entry::decode(&erasure.entry), entry),
            "checkpoint": erasure.checkpoint,
            "entryProof": erasure.entry_proof.iter().map(hex::encode).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "anchors": file.anchors.iter().map(|anchor| json!({
            "body": or_raw(&anchor.body, AnchorBody::decode(&anchor.body), anchor_body),
            "entryProof": anchor.entry_proof.iter().map(hex::encode).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "evidence": file.evidence.as_ref().map(|bytes| or_raw(bytes, Entry::decode(bytes), entry)),
        "crls": file.crls.iter().map(|der| crl(der)).collect::<Vec<_>>(),
        "manifests": file.manifests.iter().map(|manifest| json!({
            "entry": or_raw(&manifest.entry, Entry::decode(&manifest.entry), entry),
            "checkpoint": manifest.checkpoint,
            "entryProof": manifest.entry_proof.iter().map(hex::encode).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "revocations": file.revocations.iter().map(|said| json!({
            "statement": or_raw(&said.statement, Revocation::decode(&said.statement), revocation),
            "entryProof": said.entry_proof.as_ref().map(|proof| proof.iter().map(hex::encode).collect::<Vec<_>>()),
        })).collect::<Vec<_>>(),
        "cosignatures": file.cosignatures.iter().map(|cosigned| json!({
            "note": note(&cosigned.checkpoint),
            "entryProof": cosigned.entry_proof.iter().map(hex::encode).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "membersOfLaterVersions": file.unknown,
    })
}

fn anchor_body(body: &AnchorBody) -> Value {
    let proofs = body.proofs.iter().map(|proof| {
        let evidence = match &proof.evidence {
            Evidence::Timestamp(reply) => json!({"timeStampResp": format!("{} bytes", reply.len())}),
            Evidence::Cosignature(said) => json!({"cosigner": said.name, "seconds": said.seconds}),
        };
        json!({"authority": proof.authority, "operator": proof.operator, "evidence": evidence})
    });
    json!({
        "batch": {"size": body.batch.size, "root": hex::encode(*body.batch.root)},
        "index": body.index,
        "head": {"size": body.head.size, "root": hex::encode(*body.head.root)},
        "proofs": proofs.collect::<Vec<_>>(),
        "manifests": body.manifests.iter().map(|manifest| manifest.index).collect::<Vec<_>>(),
    })
}

fn crl(der: &[u8]) -> Value {
    let show = |crl: &Crl<'_>| {
        let time = |micros: u64| utc(micros / 1_000);
        json!({"issuer": crl.issuer_name(), "bytes": der.len(), "thisUpdate": time(crl.this_update_micros()),
            "nextUpdate": time(crl.next_update_micros())})
    };
    or_raw(der, Crl::read(der), show)
}

fn opening(opening: &Opening) -> Value {
    let assurance = match opening.assurance {
        Assurance::Asserted => "asserted",
        Assurance::Authenticated => "authenticated",
    };
    json!({"name": opening.name, "value": opening.value, "assurance": assurance,
        "salt": hex::encode(*opening.salt), "commitment": hex::encode(*opening.commitment().hash)})
}

fn enrolment(enrolment: &Enrolment) -> Value {
    let content = &enrolment.content;
    let (hardware, key) = match content.hardware {
        Hardware::Tpm => ("tpm", public_area(&content.attestation_key)),
        Hardware::Software => ("software", json!({"p256Point": hex::encode(&content.attestation_key)})),
    };
    let chain: Vec<Value> = enrolment
        .chain
        .iter()
        .map(|certificate| {
            let content = &certificate.content;
            json!({"fleet": content.fleet, "role": "fleet-ca", "publicKey": hex::encode(*content.public_key),
                "notBeforeMillis": content.not_before, "notAfterMillis": content.not_after})
        })
        .collect();
    json!({
        "fleet": content.fleet,
        "origin": content.origin,
        "hardware": hardware,
        "ekSpkiSha256": hex::encode(*content.ek_spki_sha256),
        "ekCertificates": content.ek_certificates.iter().map(|der| format!("{} bytes", der.len())).collect::<Vec<_>>(),
        "attestationKey": key,
        "logKey": hex::encode(*content.log_key),
        "enrolledAtMillis": content.enrolled_at,
        "chain": chain,
    })
}

fn public_area(bytes: &[u8]) -> Value {
    or_raw(bytes, TpmtPublic::parse(bytes), |key| {
        json!({"name": hex::encode(key.name()), "attributes": format!("{:#010x}", key.attributes),
            "scheme": format!("{:?}", key.scheme), "spki": hex::encode(key.spki_der())})
    })
}

fn entry(entry: &Entry) -> Value {
    let content = entry.content();
    let kind = entry.kind().map_or(format!("unknown kind {}", content.kind), |kind| kind.name().into());
    json!({
        "leafHash": entry.leaf_hash().to_string(),
        "version": content.version,
        "index": content.index,
        "lamport": content.lamport,
        "localMillis": content.time.unix_millis,
        "localUncertaintyMillis": content.time.uncertainty_millis,
        "mode": content.mode.to_string(),
        "drill": content.drill,
        "epoch": content.epoch,
        "residency": content.residency.to_string(),
        "previous": {"size": content.previous.size, "root": content.previous.root().to_string()},
        "evidence": content.evidence.as_ref().map(|e| json!({"index": e.index, "leafHash": hex::encode(*e.leaf_hash)})),
        "kind": kind,
        "body": body(entry.kind(), &content.body),
        "signature": hex::encode(entry.signature()),
    })
}

fn body(kind: Option<Kind>, bytes: &[u8]) -> Value {
    match kind {
        Some(Kind::Seal) => or_raw(bytes, SealBody::decode(bytes), seal_body),
        Some(Kind::KeyEpoch) => or_raw(bytes, KeyEpochBody::decode(bytes), epoch_body),
        Some(Kind::Attestation) => or_raw(bytes, AttestationBody::decode(bytes), attestation_body),
        Some(Kind::Succession) => or_raw(bytes, SuccessionBody::decode(bytes), |body| {
            json!({"predecessor": body.predecessor, "cause": format!("{:?}", body.cause), "reason": body.reason,
                "head": {"size": body.head.size, "root": body.head.root().to_string()}})
        }),
        Some(Kind::OperatorAction) => or_raw(bytes, OperatorActionBody::decode(bytes), |body| {
            let parameters: Vec<Value> =
                body.parameters.iter().map(|p| json!({"name": p.name, "value": p.value})).collect();
            json!({"action": body.action, "parameters": parameters, "reason": body.reason,
                "approvals": body.approvals.len()})
        }),
        Some(Kind::Incident) => or_raw(bytes, IncidentBody::decode(bytes), |body| {
            json!({"code": body.code, "beganMillis": body.began.unix_millis,
                "endedMillis": body.ended.map(|time| time.unix_millis), "detail": body.detail})
        }),
        Some(Kind::Mirror) => or_raw(bytes, MirrorBody::decode(bytes), mirror_body),
        _ => json!({"opaque": hex::encode(bytes)}),
    }
}

fn mirror_body(body: &MirrorBody) -> Value {
    let cosigned = |head: &CosignedHead| {
        json!({"key": hex::encode(*head.key), "size": head.head.size, "root": head.head.root().to_string(),
            "seconds": head.seconds, "signature": hex::encode(&head.signature)})
    };
    let neighbours = body.neighbours.iter().map(|neighbour| {
        json!({"origin": neighbour.origin, "mirrored": neighbour.mirrored.as_ref().map(cosigned),
            "witnessed": neighbour.witnessed.as_ref().map(cosigned)})
    });
    json!({"neighbours": neighbours.collect::<Vec<_>>()})
}

fn seal_body(body: &SealBody) -> Value {
    let commitments: Vec<Value> = body
        .commitments
        .iter()
        .map(|commitment| {
            let field = match commitment.field {
                Field::User => "user",
                Field::DocumentId => "document-id",
                Field::Metadata => "metadata",
            };
            json!({"field": field, "hash": hex::encode(*commitment.hash)})
        })
        .collect();
    let relations: Vec<Value> =
        body.related().map(|(kind, hash)| json!({"kind": kind.name(), "entry": hash.to_string()})).collect();
    json!({
        "algorithm": body.algorithm.name(),
        "digest": hex::encode(&body.digest),
        "size": body.size,
        "mediaType": body.media_type,
        "observation": match body.observation {
            Observation::BytesObserved => "bytes-observed",
            Observation::DigestClaimed => "digest-claimed",
        },
        "client": body.client.id,
        "clientMethod": match body.client.method {
            ClientMethod::BearerToken => "bearer-token",
            ClientMethod::ClientCertificate => "client-certificate",
            ClientMethod::Local => "local",
        },
        "transport": body.transport,
        "commitments": commitments,
        "relations": relations,
    })
}

fn epoch_body(body: &KeyEpochBody) -> Value {
    let statement = &body.statement;
    json!({
        "origin": statement.origin,
        "epoch": statement.epoch,
        "previous": statement.previous.as_ref().map(|hash| hex::encode(**hash)),
        "firstIndex": body.first_index,
        "previousExtended": body.previous_extended,
        "keys": statement.keys.iter().map(epoch_key).collect::<Vec<_>>(),
        "endorsement": match &body.endorsement {
            Endorsement::Quote(quote) => tpm_quote(quote),
            Endorsement::Software(signature) => json!({"softwareSignature": hex::encode(signature)}),
        },
        "signedByPredecessor": body.predecessor.is_some(),
        "carriesEnrolment": body.enrolment.is_some(),
    })
}

fn epoch_key(key: &EpochKey) -> Value {
    json!({
        "purpose": format!("{:?}", key.purpose).to_lowercase(),
        "algorithm": match key.algorithm {
            Algorithm::Ed25519 => "ed25519",
            Algorithm::P256 => "p-256",
        },
        "residency": key.residency.to_string(),
        "publicKey": hex::encode(&key.public_key),
        "certification": key.certification.as_ref().map(|certification| json!({
            "publicArea": public_area(&certification.public_area),
            "attest": attest(&certification.attest),
        })),
    })
}

fn attestation_body(body: &AttestationBody) -> Value {
    json!({
        "head": {"size": body.head.size, "root": body.head.root().to_string()},
        "logSignature": hex::encode(&body.log_signature),
        "quote": body.quote.as_ref().map(tpm_quote),
        "counter": body.counter.as_ref().map(|counter| json!({
            "value": counter.value,
            "attest": attest(&counter.attest),
            "nvPublic": or_raw(&counter.nv_public, NvPublic::parse(&counter.nv_public), |public| {
                json!({"index": format!("{:#010x}", public.index),
                    "attributes": format!("{:#010x}", public.attributes), "dataSize": public.data_size})
            }),
        })),
        "eventLog": body.event_log.as_ref().map(|hash| hex::encode(**hash)),
        "reason": body.reason,
    })
}

fn tpm_quote(quote: &TpmQuote) -> Value {
    json!({"attest": attest(&quote.attest), "signature": hex::encode(&quote.signature),
        "pcrs": pcrs(&quote.pcr_values())})
}

fn pcrs(values: &[(u8, [u8; 32])]) -> Value {
    Value::Object(values.iter().map(|(pcr, value)| (pcr.to_string(), hex::encode(value).into())).collect())
}

/// The facts inside a TPMS_ATTEST.
fn attest(bytes: &[u8]) -> Value {
    or_raw(bytes, Attest::parse(bytes), |attest| {
        let clock = &attest.clock_info;
        let attested = match &attest.attested {
            Attested::Quote { pcr_selection, pcr_digest } => {
                json!({"pcrSelection": pcr_selection, "pcrDigest": pcr_digest.to_string()})
            }
            Attested::Certify { name, .. } => json!({"name": hex::encode(name)}),
            Attested::Nv { index_name, contents, .. } => {
                json!({"indexName": hex::encode(index_name), "contents": hex::encode(contents)})
            }
            Attested::Time { time, .. } => json!({"time": time}),
        };
        json!({
            "type": attest.attested.name(),
            "qualifyingData": hex::encode(&attest.extra_data),
            "clock": clock.clock,
            "resetCount": clock.reset_count,
            "restartCount": clock.restart_count,
            "clockSafe": clock.safe,
            "firmwareVersion": format!("{:#018x}", attest.firmware_version),
            "attested": attested,
        })
    })
}

fn head(head: &Head) -> Value {
    let lengths =
        json!({"entryProofHashes": head.entry_proof.len(), "epochProofHashes": head.epoch_proof.len()});
    let proof = |items: &[Vec<u8>]| items.iter().map(hex::encode).collect::<Vec<_>>();
    json!({
        "note": note(&head.checkpoint),
        "proofs": lengths,
        "entryProof": proof(&head.entry_proof),
        "epochProof": proof(&head.epoch_proof),
        "pcrs": head.pcrs.as_ref().map(|list| pcrs(list)),
    })
}

fn note(text: &str) -> Value {
    or_raw(text.as_bytes(), SignedNote::parse(text), |note| {
        let lines: Vec<Value> = note
            .lines
            .iter()
            .map(|line| {
                json!({"name": line.name, "keyId": hex::encode(line.key_id), "bytes": line.body.len(),
                    "attest": extract::quote_of(line).map(|(quoted, _)| attest(&quoted))})
            })
            .collect();
        let checkpoint = or_raw(
            note.text.as_bytes(),
            parse_checkpoint_text(&note.text),
            |(origin, size, root)| json!({"origin": origin, "size": size, "root": root.to_string()}),
        );
        json!({"checkpoint": checkpoint, "lines": lines})
    })
}
