//! What handlers ask about outages, anchors and manifests.
//!
//! Refuses to do: wait for authorities; an anchor comes when it comes, and the `.seal` has it then.

use super::outage::lease::{LeaseFacts, LeaseFault, LeaseOrder, at_limit};
use super::outage::{CrlFacts, DrillError, DrillOrder, Facts, file_name, page_of};
use super::{LookupError, Sealer, anchored, evidence};
use bulla_formats::body::anchor::AnchorProof;
use bulla_formats::body::manifest::{ManifestBody, Phase};
use bulla_formats::entry::Kind;
use bulla_protocol::mode::{Limit, ModeFacts};
use serde_json::{Value, json};

impl Sealer {
    /// Starts or stops a drill; answers with the modes as they then are.
    pub async fn drill(&self, order: DrillOrder) -> Result<Value, DrillError> {
        self.outage.drill(order).await.map(|facts| modes(&facts))
    }

    /// Takes a lease; answers with what then counts.
    pub async fn lease(&self, order: LeaseOrder) -> Result<Value, LeaseFault> {
        self.outage.lease(order).await.map(|facts| lease(&facts))
    }

    /// Has the anchor of a seal made before others that can wait; says by whom it is anchored already.
    pub fn expedite(&self, id: &str) -> Result<Value, LookupError> {
        let (index, _) = self.resolve(id)?;
        if self.entry(index)?.kind() != Some(Kind::Seal) {
            return Err(LookupError::NotASeal);
        }
        let needed = self.shared.outage_facts().map_or(1, |facts| facts.needed);
        // Those of revoked signers are among them, and are left out here.
        let anchors = anchored::covering(&self.shared, index, needed, 2 * needed)?;
        let authorities = self.shared.trust.authorities.as_ref();
        let proofs = anchors.iter().flat_map(|anchor| {
            let counts = |proof: &&AnchorProof| self.shared.crls.let_count(anchor, proof, authorities);
            anchor.proofs.iter().filter(counts)
        });
        let mut operators: Vec<&str> = proofs.map(|proof| proof.operator.as_str()).collect();
        operators.sort_unstable();
        operators.dedup();
        let waits = operators.len() < needed;
        if waits {
            self.outage.expedite(index);
        }
        Ok(json!({"operators": operators, "needed": needed, "anchored": !waits}))
    }

    /// Manifests of past outages (the closing ones), and the newest of the present one.
    pub fn manifests(&self) -> Result<Vec<Value>, LookupError> {
        let describe = |index: u64| {
            let (body, _) = self.manifest_body(index)?;
            let said = &body.statement;
            Ok(json!({
                "index": index,
                "outage": said.outage,
                "sequence": said.sequence,
                "phase": said.phase.name(),
                "drill": said.drill,
                "first": said.first,
                "last": said.head.size - 1,
                "seals": said.seals,
                "beganMillis": said.began.unix_millis,
                "madeMillis": said.made.unix_millis,
                "durationMillis": said.duration_millis,
                "over": said.phase == Phase::Close,
                "links": {"der": format!("/v1/manifests/{index}"), "pdf": format!("/v1/manifests/{index}?form=pdf")},
            }))
        };
        self.shared.manifests.all().into_iter().map(describe).collect()
    }

    fn manifest_body(&self, index: u64) -> Result<(ManifestBody, Vec<u8>), LookupError> {
        let entry = self.entry(index)?;
        if entry.kind() != Some(Kind::Manifest) {
            return Err(LookupError::Unknown);
        }
        let body = ManifestBody::decode(&entry.content().body)
            .map_err(|error| LookupError::Storage(format!("entry {index}: {error}")))?;
        Ok((body, entry.bytes().to_vec()))
    }

    /// A manifest in one of the forms of [`super::outage::FORMS`], and its name; `None` when the entry is none.
    pub fn manifest(&self, index: u64, form: &str) -> Result<Option<(String, Vec<u8>)>, LookupError> {
        let body = match self.manifest_body(index) {
            Ok((body, _)) => body,
            Err(LookupError::Unknown) => return Ok(None),
            Err(error) => return Err(error),
        };
        let file = evidence::manifest_file(&self.shared, index)?;
        let said = &body.statement;
        let name = file_name(said.outage, said.sequence, said.phase);
        if form == "der" {
            return Ok(Some((name, file.encode())));
        }
        let sheet = page_of(&file, &body, &self.shared.wording)
            .map_err(|error| LookupError::Storage(format!("the manifest cannot be printed: {error}")))?;
        let bytes = if form == "pdf" { sheet.pdf() } else { sheet.text().into_bytes() };
        Ok(Some((name, bytes)))
    }

    /// What is known of the true time.
    pub fn known_time(&self) -> KnownTime {
        let (floor, ceiling) = self.shared.clock.limits();
        KnownTime { uncertainty: self.shared.clock.local_time().uncertainty_millis, floor, ceiling }
    }

    /// How it goes with modes and anchors; `None` while nothing is done about them.
    pub fn outage(&self) -> Option<Facts> {
        self.shared.outage_facts()
    }
}

/// What is known of the true time, in milliseconds; `None`: nobody knows.
#[derive(Debug, Clone, Copy)]
pub struct KnownTime {
    /// How far the wall clock may be off.
    pub uncertainty: Option<u64>,
    /// Not before, since 1970.
    pub floor: Option<u64>,
    /// Not after, since 1970.
    pub ceiling: Option<u64>,
}

/// Modes as status and drills show them.
pub fn modes(facts: &ModeFacts) -> Value {
    let limit = |limit: &Limit| match limit {
        Limit::Duration => "duration",
        Limit::Seals => "seals",
        Limit::Holders => "holders",
    };
    let outage = facts.outage.as_ref().map(|outage| {
        json!({
            "number": facts.outages,
            "first": outage.first,
            "last": outage.last,
            "seconds": outage.elapsed / 1_000,
            "seals": outage.seals,
            "manifests": outage.manifests,
            "closing": outage.closing,
        })
    });
    json!({
        "mode": facts.mode.to_string(),
        "below": facts.below.to_string(),
        "drill": facts.drill,
        "drillSecondsLeft": facts.drill_left.map(|millis| millis / 1_000),
        "outages": facts.outages,
        "outage": outage,
        "limitsReached": facts.limits.iter().map(limit).collect::<Vec<_>>(),
        "failing": facts.findings.iter().map(|finding| json!({
            "authority": finding.authority,
            "failure": finding.failure.name(),
            "seconds": finding.for_millis / 1_000,
        })).collect::<Vec<_>>(),
    })
}

/// A lease as the status shows it.
pub fn lease(facts: &LeaseFacts) -> Value {
    let LeaseFacts { content, left } = facts;
    json!({
        "issuer": content.issuer,
        "issuedMillis": content.issued_at,
        "expiresMillis": content.expires_at,
        "secondsLeft": left.map(|(millis, _)| millis / 1_000),
        "sealsLeft": left.and_then(|(_, seals)| seals),
        "limits": {
            "seconds": content.limits.seconds,
            "seals": content.limits.seals,
            "holders": content.limits.holders,
            "atLimit": at_limit(content.limits.at_limit),
        },
    })
}

/// Anchors as the status shows them.
pub fn anchors(facts: &Facts) -> Value {
    let authority = |((line, count), detail): (
        (&bulla_protocol::anchoring::AuthorityFacts, &super::outage::AuthorityFacts),
        &String,
    )| {
        json!({
            "name": count.name,
            "operator": count.operator,
            "proofs": count.proofs,
            "failing": (!detail.is_empty()).then_some(detail),
            "revoked": line.revoked,
            "quotaLeft": line.quota_left,
            "askedAgainInSeconds": line.allowed_in.map(|millis| millis.div_ceil(1_000)),
        })
    };
    let lines = facts.anchors.authorities.iter().zip(&facts.authorities).zip(&facts.details);
    let together = facts.together.as_ref().map(|site| {
        json!({
            "waitsFor": site.holding.as_ref().map(|(from, _)| from),
            "waitsSeconds": site.holding.as_ref().map(|(_, millis)| millis.div_ceil(1_000)),
            "owed": site.owed,
            "refused": site.refused,
        })
    });
    json!({
        "operatorsNeeded": facts.needed,
        "anchoredSize": facts.anchored,
        "unanchored": facts.anchors.unanchored.last().copied().unwrap_or(0),
        "waitingSeconds": facts.anchors.waiting.map(|millis| millis / 1_000),
        "lastAnchorSecondsAgo": facts.anchors.last_anchor.map(|millis| millis / 1_000),
        "authorities": lines.map(authority).collect::<Vec<_>>(),
        "crls": facts.crls.certificates.iter().map(crl).collect::<Vec<_>>(),
        "together": together,
    })
}

/// A certificate behind time stamps, and the CRL that is kept for it.
fn crl(facts: &CrlFacts) -> Value {
    let kept = facts.kept.as_ref();
    json!({
        "subject": facts.subject,
        "authority": facts.authority,
        "sha256": kept.map(|kept| &kept.crl),
        "bytes": kept.map(|kept| kept.bytes),
        "thisUpdateMillis": kept.map(|kept| kept.this_update_millis),
        "nextUpdateMillis": kept.map(|kept| kept.next_update_millis),
        "revoked": kept.and_then(|kept| kept.revoked.as_ref()),
        "failing": facts.trouble,
    })
}
