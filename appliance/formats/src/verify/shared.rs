//! The checks of what the seals of one box share: enrolment, key epoch, checkpoint, quote. Each is judged once and recalled
//! after that.
//!
//! Refuses to do: recall for other bytes; see [`super::memory`] for what the keys cover.
//! Invariant: what is told of a check is the same whether it was judged or recalled; only judging may fail.

use super::memory::{Epoch, Key, Memory, Quoted, Store};
use super::unpacked::{HeadParts, Parts};
use super::{Stop, Walk};
use crate::body::attestation::CheckpointClaim;
use crate::body::key_epoch::KeyEpochBody;
use crate::endorsement::{AttestationKey, check_endorsement, check_statement};
use crate::enrolment::{Enrolment, VerifiedEnrolment};
use crate::entry::{Entry, Kind};
use crate::merkle::verify_inclusion;
use crate::note::{Checkpoint, SignedNote};
use crate::report::Verdict;
use crate::tpm::{self, TpmtPublic};
use std::sync::Arc;

impl Walk<'_> {
    /// The outcome of a check of `bytes` bytes that `key` names: recalled, or judged now and kept if it passes.
    pub(super) fn recalled<T>(
        &mut self,
        store: fn(&mut Memory) -> &mut Store<T>,
        key: Key,
        bytes: usize,
        judge: impl FnOnce(&mut Self) -> Result<T, Stop>,
    ) -> Result<Arc<T>, Stop> {
        if let Some(known) = store(self.memory).recall(&key) {
            return Ok(known);
        }
        let value = judge(self)?;
        Ok(store(self.memory).keep(key, bytes, value))
    }

    pub(super) fn enrolment(&mut self, file: &Parts, part: Key) -> Result<Arc<VerifiedEnrolment>, Stop> {
        const NAME: &str = "enrolment";
        let verified = self.recalled(
            |memory| &mut memory.enrolments,
            part,
            file.enrolment.bytes.len(),
            |walk| {
                let decoded = Enrolment::decode(&file.enrolment.bytes);
                let enrolment = walk.need(NAME, "the enrolment", decoded)?;
                let verified = enrolment.verify(&walk.trust.fleet, &walk.trust.roots);
                walk.need(NAME, "the enrolment", verified)
            },
        )?;
        self.demand(
            NAME,
            file.origin == verified.origin().as_str(),
            "the file's origin is not the enrolment's",
        )?;
        let how = if verified.by_root() { "by the root itself" } else { "through the fleet CA" };
        self.pass(NAME, format!("the fleet {} vouches for {} {how}", self.trust.fleet, file.origin));
        Ok(verified)
    }

    pub(super) fn attestation_key(
        &mut self,
        enrolment: &VerifiedEnrolment,
        part: Key,
    ) -> Result<Arc<AttestationKey>, Stop> {
        const NAME: &str = "attestation-key";
        let content = enrolment.content();
        let key = self.recalled(
            |memory| &mut memory.attestation_keys,
            part,
            content.attestation_key.len(),
            |walk| {
                let key = AttestationKey::read(content.hardware, &content.attestation_key);
                walk.need(NAME, "the enrolment", key)
            },
        )?;
        match *key {
            AttestationKey::Tpm(_) => self.pass(NAME, "a restricted P-256 key that cannot leave its TPM"),
            AttestationKey::Software(_) => {
                self.pass(NAME, "a software device key: no hardware stands behind this box");
            }
        }
        Ok(key)
    }

    pub(super) fn epoch(
        &mut self,
        file: &Parts,
        part: Key,
        enrolment: &VerifiedEnrolment,
        attestation_key: &AttestationKey,
    ) -> Result<Arc<Epoch>, Stop> {
        let name = "epoch-entry";
        let origin = enrolment.origin().as_str();
        let bytes = file.epoch.bytes.len();
        let epoch = self.recalled(
            |memory| &mut memory.epochs,
            part,
            bytes,
            |walk| {
                let entry = Entry::decode(&file.epoch.bytes);
                let entry = walk.need(name, "the key-epoch entry", entry)?;
                walk.demand(name, entry.kind() == Some(Kind::KeyEpoch), "it is not a key-epoch entry")?;
                let body = KeyEpochBody::decode(&entry.content().body);
                let body = walk.need(name, "the key-epoch entry", body)?;
                if let Some(embedded) = &body.enrolment {
                    let same = embedded.as_ref() == file.enrolment.bytes.as_slice();
                    walk.demand(name, same, "it embeds another enrolment than the file carries")?;
                }
                let sealing_key = check_statement(&entry, &body, origin, enrolment.content().hardware);
                let sealing_key = walk.need(name, "the key-epoch entry", sealing_key)?;
                let leaf = entry.leaf_hash();
                Ok(Epoch { entry, body, sealing_key, leaf })
            },
        )?;
        let (number, residency) = (epoch.body.statement.epoch, epoch.entry.content().residency);
        self.pass(name, format!("epoch {number}, sealing key in {residency}"));

        let name = "epoch-signature";
        self.recalled(
            |memory| &mut memory.epoch_signatures,
            part,
            bytes,
            |walk| {
                let signed = epoch.entry.verify_signature(origin, &epoch.sealing_key);
                walk.need(name, "the key-epoch entry", signed)
            },
        )?;
        self.pass(name, "signed by the key it introduces");

        let name = "epoch-endorsement";
        self.recalled(
            |memory| &mut memory.endorsements,
            part,
            bytes,
            |walk| {
                let endorsed = check_endorsement(&epoch.body, attestation_key);
                walk.need(name, "the endorsement", endorsed)
            },
        )?;
        match attestation_key {
            AttestationKey::Tpm(_) => self.pass(name, "the TPM's quote covers exactly this statement"),
            AttestationKey::Software(_) => {
                self.pass(name, "the software device key covers exactly this statement");
            }
        }
        Ok(epoch)
    }

    pub(super) fn checkpoint(
        &mut self,
        name: &'static str,
        what: &str,
        note: &str,
        part: Key,
        enrolment: &VerifiedEnrolment,
    ) -> Result<Arc<Checkpoint>, Stop> {
        self.recalled(
            |memory| &mut memory.checkpoints,
            part,
            note.len(),
            |walk| {
                let content = enrolment.content();
                let note = walk.need(name, what, SignedNote::parse(note))?;
                let checkpoint = Checkpoint::open(
                    &note,
                    enrolment.origin(),
                    enrolment.log_key(),
                    &content.log_key,
                    &content.attestation_key,
                );
                walk.need(name, what, checkpoint)
            },
        )
    }

    /// `part` names the key-epoch entry and the checkpoint; the path comes to it here.
    pub(super) fn epoch_inclusion(
        &mut self,
        head: &HeadParts,
        epoch: &Epoch,
        checkpoint: &Checkpoint,
        part: Key,
    ) -> Result<(), Stop> {
        const NAME: &str = "epoch-inclusion";
        let proof = self.hashes(NAME, head.epoch_proof.hashes.as_ref())?;
        let index = epoch.entry.content().index;
        self.recalled(
            |memory| &mut memory.epoch_paths,
            part.with(head.epoch_proof.key),
            32 * proof.len(),
            |walk| {
                let included =
                    verify_inclusion(index, checkpoint.size(), &epoch.leaf, proof, &checkpoint.root());
                walk.need(NAME, "the key-epoch entry's path", included)
            },
        )?;
        self.pass(NAME, format!("key-epoch entry {index} is under the checkpoint"));
        Ok(())
    }

    /// Whether there is a quote; one that does not hold ends the walk. `part` names the checkpoint, whose note has the
    /// quote in it.
    pub(super) fn quote(
        &mut self,
        head: &HeadParts,
        enrolment: &VerifiedEnrolment,
        attestation_key: Option<&TpmtPublic>,
        checkpoint: &Checkpoint,
        part: Key,
    ) -> Result<bool, Stop> {
        const NAME: &str = "quote";
        match (checkpoint.quote(), &head.pcrs, attestation_key) {
            (None, None, _) => Ok(false),
            (Some((attest, signature)), Some(pcrs), Some(ak)) => {
                let quoted = self.recalled(
                    |memory| &mut memory.quotes,
                    part.with(pcrs.key),
                    33 * pcrs.values.len(),
                    |walk| {
                        let claim = CheckpointClaim {
                            origin: enrolment.origin().as_str().to_owned(),
                            text: checkpoint.text().as_bytes().to_vec().into(),
                        };
                        let facts = tpm::verify_quote(ak, attest, signature, &claim.qualifying_data().0);
                        let facts = walk.need(NAME, "the quote", facts)?;
                        let listed = facts.check_pcrs(&pcrs.values);
                        walk.need(NAME, "the quote", listed)?;
                        Ok(Quoted { clock: facts.clock, reset_count: facts.reset_count })
                    },
                )?;
                self.pass(
                    NAME,
                    format!(
                        "genuine; TPM clock {} ms, reset count {}, {} PCRs",
                        quoted.clock,
                        quoted.reset_count,
                        pcrs.values.len()
                    ),
                );
                Ok(true)
            }
            _ => {
                let detail = "a quote line and PCR values must come together, and only from a TPM";
                Err(self.fail(NAME, detail, Verdict::Refused))
            }
        }
    }
}
