//! The statement before, the destruction, and the certificate after.
//!
//! Refuses to do: destroy without a durable statement; say that a TPM was cleared whose clock went on.
//! Invariants: what `retirement.begun` holds suffices for the rest, because the keys are gone by then; every step may be
//! repeated.

use super::{BEGUN, CERTIFICATE, Order, ask, drain, wipe};
use crate::config::Config;
use crate::driver::body::{endorsement, tpm_quote};
use crate::driver::clock::now_millis;
use crate::identity::{self, write_atomically};
use anyhow::{Context as _, Result, ensure};
use bulla_formats::body::key_epoch::Endorsement;
use bulla_formats::checked_json;
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::Hardware;
use bulla_formats::entry::TreeState;
use bulla_formats::json::{base64_decode, base64_encode};
use bulla_formats::note::{SignedNote, checkpoint_text, log_line};
use bulla_formats::retirement::{
    CERTIFICATE_BYTES_MAX, Certificate, Clearing, Farewell, Outcome, RetirementError, Statement,
};
use bulla_keys::{Cleared, FarewellKey};
use ed25519_dalek::Signer as _;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;

const FORMAT: &str = "retirement-begun/v1";
/// The checkpoint of the final head, as `bulla-fleet revoke --good` takes it.
pub const CHECKPOINT: &str = "retirement.checkpoint";

/// What outlives the keys; bytes are in base64.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Begun {
    bulla: String,
    fleet: String,
    fleet_root: String,
    statement: String,
    enrolment: String,
    entry: String,
    path: Vec<String>,
    signature: String,
    endorsement: String,
    erase: Vec<String>,
    farewell: Option<Parting>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Parting {
    ek_public: String,
    public: String,
    unique: String,
    attest: String,
    signature: String,
}

/// Says what is about to be done, durably.
pub fn begin(config: &Config, order: &Order) -> Result<()> {
    let state = &config.state_dir;
    let identity = identity::open(config)?;
    let ledger = ask::open(config)?;
    let reader = ledger.reader();
    let (size, root) = (ledger.size(), ledger.root());
    let left = drain::left(&reader)?;
    let keys = &identity.keys;
    let tpm = identity.enrolment.content.hardware == Hardware::Tpm;
    // An older copy of this disk is one from here on.
    let counter = tpm.then(|| keys.counter_increment()).transpose().context("cannot move the TPM counter")?;
    let statement = Statement {
        version: 1,
        origin: identity.origin.to_string(),
        head: TreeState::new(size, root),
        extent: order.extent(),
        action: order.action()?.map(|hash| Octets32::new(hash.0)),
        reason: order.reason.clone(),
        unanchored: left.unanchored,
        unmirrored: left.unmirrored,
        counter,
        made_at: now_millis(),
    };
    statement.check()?;
    let qualifying = statement.qualifying_data().0;
    let vouched =
        endorsement(keys.endorse(qualifying).context("the device does not vouch for the statement")?);
    let farewell = match tpm {
        true => {
            let key = keys.farewell(qualifying).context("the TPM makes no farewell key")?;
            Some(Parting {
                ek_public: base64_encode(&keys.description().ek_public),
                public: base64_encode(&key.public),
                unique: base64_encode(&key.unique),
                attest: base64_encode(&key.attest),
                signature: base64_encode(&key.signature),
            })
        }
        false => None,
    };
    let text = checkpoint_text(identity.origin.as_str(), size, &root);
    let signed = identity.log_key.sign(text.as_bytes()).to_bytes();
    let line = log_line(identity.origin.as_str(), &identity.log_key.verifying_key().to_bytes(), &signed);
    write_atomically(&state.join(CHECKPOINT), SignedNote { text, lines: vec![line] }.encode().as_bytes())?;
    let proof = reader.inclusion_proof(size - 1, size)?;
    let begun = Begun {
        bulla: FORMAT.to_owned(),
        fleet: identity.origin.fleet().to_owned(),
        fleet_root: base64_encode(&identity.fleet_root),
        statement: base64_encode(&der::encode(&statement)),
        enrolment: base64_encode(&identity.enrolment_der),
        entry: base64_encode(&reader.entry(size - 1)?),
        path: proof.iter().map(|hash| base64_encode(&hash.0)).collect(),
        signature: base64_encode(&identity.log_key.sign(&statement.message()).to_bytes()),
        endorsement: base64_encode(&der::encode(&vouched)),
        erase: wipe::names(state, order.extent())?,
        farewell,
    };
    let text = checked_json::with_checksum(&serde_json::to_string_pretty(&begun)?);
    write_atomically(&state.join(BEGUN), text.as_bytes())?;
    identity.keys.shutdown();
    Ok(())
}

/// Destroys, and writes the certificate.
pub fn carry_out(config: &Config, out: &mut impl Write) -> Result<()> {
    let state = &config.state_dir;
    let path = state.join(BEGUN);
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let begun = parse(&bytes).with_context(|| format!("{} is not believed", path.display()))?;
    let provider = config.provider();
    let cleared = match &begun.farewell {
        Some(_) => {
            Some(bulla_keys::clear(&provider).context("the TPM does not answer; try again when it does")?)
        }
        None => None,
    };
    let (is_cleared, why_not) = match cleared {
        Some(Cleared::Cleared) => (true, String::new()),
        Some(Cleared::NotPermitted { rc }) => (
            false,
            format!(
                "the TPM does not permit TPM2_Clear (response code {rc:#x}); the box's own keys and counter were removed from it"
            ),
        ),
        None => (false, "there is no TPM".to_owned()),
    };
    for name in &begun.erase {
        wipe::wipe(&state.join(name))?;
    }
    let mut certificate = begun.certificate(config, is_cleared, &why_not)?;
    let root: [u8; 32] = base64_decode(&begun.fleet_root)?
        .try_into()
        .map_err(|_| anyhow::anyhow!("the fleet root is not 32 bytes"))?;
    let mut verified = certificate.verify(&begun.fleet, &[root]);
    if verified == Err(RetirementError::NotCleared) {
        let why = "the TPM said that it was cleared, but its clock went on";
        certificate = begun.certificate(config, false, why)?;
        verified = certificate.verify(&begun.fleet, &[root]);
    }
    let verified = verified.context("the certificate does not verify, so it is not written; try again")?;
    let bytes = certificate.encode();
    ensure!(bytes.len() <= CERTIFICATE_BYTES_MAX, "the certificate is too long");
    write_atomically(&state.join(CERTIFICATE), &bytes)?;
    writeln!(
        out,
        "{}",
        match verified.clearing() {
            Clearing::Shown => "the TPM is cleared, and has shown it".to_owned(),
            Clearing::Refused => format!("THE TPM IS NOT CLEARED: {}", verified.outcome().why_not),
            Clearing::NoTpm => "there was no TPM to clear".to_owned(),
        }
    )?;
    Ok(())
}

fn parse(bytes: &[u8]) -> Result<Begun> {
    let begun: Begun = serde_json::from_slice(&checked_json::body(bytes)?).context("it is damaged")?;
    ensure!(begun.bulla == FORMAT, "it is of format {:?}; use a newer bulla-box", begun.bulla);
    Ok(begun)
}

impl Begun {
    fn certificate(&self, config: &Config, cleared: bool, why_not: &str) -> Result<Certificate> {
        let statement = base64_decode(&self.statement)?;
        let statement: Statement = der::decode("statement", &statement, CERTIFICATE_BYTES_MAX)?;
        let vouched = base64_decode(&self.endorsement)?;
        let vouched: Endorsement = der::decode("endorsement", &vouched, CERTIFICATE_BYTES_MAX)?;
        let outcome = Outcome {
            version: 1,
            statement: Octets32::new(statement.qualifying_data().0),
            erased: self.erase.clone(),
            cleared,
            why_not: why_not.to_owned(),
            made_at: now_millis(),
        };
        outcome.check()?;
        let farewell = match &self.farewell {
            None => None,
            Some(parting) => {
                let key = FarewellKey {
                    public: base64_decode(&parting.public)?,
                    unique: base64_decode(&parting.unique)?,
                    attest: base64_decode(&parting.attest)?,
                    signature: base64_decode(&parting.signature)?,
                };
                let ek = base64_decode(&parting.ek_public)?;
                let quote =
                    bulla_keys::farewell_quote(&config.provider(), &ek, &key, outcome.qualifying_data().0)
                        .context("the farewell key does not answer; try again when the TPM does")?;
                Some(Farewell {
                    public_area: key.public.into(),
                    attest: key.attest.into(),
                    signature: key.signature.into(),
                    quote: tpm_quote(quote),
                })
            }
        };
        let mut path = Vec::new();
        for hash in &self.path {
            let hash: [u8; 32] = base64_decode(hash)?
                .try_into()
                .map_err(|_| anyhow::anyhow!("a hash of the path is not 32 bytes"))?;
            path.push(Octets32::new(hash));
        }
        Ok(Certificate {
            statement,
            enrolment: base64_decode(&self.enrolment)?.into(),
            entry: base64_decode(&self.entry)?.into(),
            path,
            signature: base64_decode(&self.signature)?.into(),
            endorsement: vouched,
            outcome,
            farewell,
        })
    }
}
