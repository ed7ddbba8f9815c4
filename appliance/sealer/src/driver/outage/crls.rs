//! Fetches the CRLs of the CAs behind the time stamps that the box takes, and hands what is good to be kept.
//!
//! `bulla_protocol::crl` decides when. A fetch is a task of its own: the anchor is in the log before anybody asks, and a
//! CRL that is slow, huge or never comes holds up nothing.
//! Refuses to do: follow redirects; ask an address that is none of the web; read beyond 10 MiB; believe a CRL by where it
//! came from (plain http is good enough: CRLs are signed); ask OCSP.
//! Invariant: what is kept was verified under the path of a stamp that holds.

use super::desk::Desk;
use super::http::Target;
use super::{Handle, Message};
use crate::config::CrlsConfig;
use crate::driver::clock::boottime_millis;
use crate::driver::crls::{KeptCrl, KeptRevocation, certificate_name};
use bulla_formats::anchoring;
use bulla_formats::body::anchor::{AnchorBody, Evidence};
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::report::utc;
use bulla_protocol::crl::{Certificate, CrlPlanner, CrlPolicy};
use bulla_timestamps::{CRL_BYTES_MAX, Crl, CrlRefusal, Vouched, Word};
use std::collections::HashMap;
use std::time::Duration;

/// Failures after which a round is given up.
const TRIES: u32 = 8;
/// Anchors that are looked back at when the box starts.
const ANCHORS_BACK: usize = 16;

/// A certificate behind stamps.
#[derive(Clone)]
struct Watched {
    vouched: Vouched,
    authority: String,
    /// Addresses of its CRL; each try asks the next.
    addresses: Vec<String>,
    /// Earliest and latest time of its newest stamp, microseconds.
    stamp: (u64, u64),
    trouble: Option<String>,
}

/// What is watched, and what came of it.
pub(super) struct Fetching {
    fetch: bool,
    timeout: Duration,
    planner: CrlPlanner,
    watched: HashMap<Certificate, Watched>,
    fetched: u64,
    failed: u64,
}

/// How it goes with the CRLs.
#[derive(Debug, Clone, Default)]
pub struct CrlsFacts {
    /// CRLs that came and are good.
    pub fetched: u64,
    /// Fetches that brought none.
    pub failed: u64,
    /// Each certificate behind stamps.
    pub certificates: Vec<CrlFacts>,
}

/// How it goes with one certificate.
#[derive(Debug, Clone)]
pub struct CrlFacts {
    /// Its subject.
    pub subject: String,
    /// The authority whose stamps it stands behind.
    pub authority: String,
    /// The CRL that is kept.
    pub kept: Option<KeptCrl>,
    /// What the last fetch failed of.
    pub trouble: Option<String>,
}

/// What a fetch brought.
pub(super) enum Fetched {
    /// A CRL, and what it says.
    Good(Vec<u8>, Word),
    /// It is from after the certificate's end: there is nothing more to learn.
    Over,
    /// Nothing good.
    Failed(String),
}

impl Fetching {
    pub(super) fn new(config: &CrlsConfig) -> Self {
        let policy = CrlPolicy {
            refresh: config.refresh_seconds * 1_000,
            retry: config.retry_seconds * 1_000,
            tries: TRIES,
        };
        Fetching {
            fetch: config.fetch,
            timeout: Duration::from_secs(config.timeout_seconds),
            planner: CrlPlanner::new(policy),
            watched: HashMap::new(),
            fetched: 0,
            failed: 0,
        }
    }
}

impl Desk {
    /// Takes up what the newest anchors of the log rest on.
    pub(super) fn resume_crls(&mut self) {
        let mut next = self.story.anchor;
        let mut bodies = Vec::new();
        for _ in 0..ANCHORS_BACK {
            let Some(entry) = next.and_then(|index| self.shared.entry(index).ok()) else { break };
            let Some(body) = anchor(&entry) else { break };
            bodies.push(body);
            next = entry.content().evidence.as_ref().map(|before| before.index);
        }
        // The newest last: its stamps are those that a CRL has to speak of.
        bodies.iter().rev().for_each(|body| self.stamped(body));
    }

    /// An anchor is in the log: what its stamps rest on is watched from now on.
    pub(super) fn stamped(&mut self, body: &AnchorBody) {
        let shared = self.shared.clone();
        for proof in &body.proofs {
            let Evidence::Timestamp(reply) = &proof.evidence else { continue };
            let known = shared.trust.authorities.as_ref().and_then(|all| all.tsa(&proof.operator));
            let stamp = known.and_then(|known| anchoring::stamp(body, reply, &known.authority).ok());
            // One of an authority that the box no longer asks.
            let Some(stamp) = stamp else { continue };
            let time = (stamp.earliest_micros(), stamp.latest_micros());
            self.signed(&proof.authority, &stamp);
            for vouched in stamp.vouched() {
                let certificate = certificate_name(vouched.certificate());
                let trouble = self.crls.watched.get(&certificate).and_then(|known| known.trouble.clone());
                let watched = Watched {
                    addresses: vouched.crl_addresses(),
                    vouched: vouched.clone(),
                    authority: proof.authority.clone(),
                    stamp: time,
                    trouble,
                };
                let named = !watched.addresses.is_empty();
                self.crls.watched.insert(certificate, watched);
                if named && self.crls.fetch {
                    let covered = shared.crls.cover(&certificate, time.0 / 1_000);
                    let gone = self.crls.planner.stamped(certificate, covered, boottime_millis());
                    gone.and_then(|gone| self.crls.watched.remove(&gone));
                }
            }
        }
    }

    /// Begins the fetch that is due, if one is.
    pub(super) fn fetch_crl(&mut self) {
        let Some(fetch) = self.crls.planner.poll(boottime_millis()) else { return };
        let Some(watched) = self.crls.watched.get(&fetch.certificate).cloned() else {
            self.crls.planner.finished(&fetch.certificate);
            return;
        };
        let (within, handle): (Duration, Handle) = (self.crls.timeout, self.handle.clone());
        self.runtime.spawn(async move {
            let address = &watched.addresses[fetch.attempt as usize % watched.addresses.len()];
            let fetched = match fetched(address, &watched, within).await {
                Ok(fetched) => fetched,
                Err(why) => Fetched::Failed(format!("{address}: {why}")),
            };
            handle.tell(Message::Crl { certificate: fetch.certificate, fetched });
        });
    }

    /// A fetch has ended.
    pub(super) fn crl_came(&mut self, certificate: Certificate, fetched: Fetched) {
        let kept = match fetched {
            Fetched::Good(bytes, word) => self.keep_crl(&certificate, &bytes, &word),
            Fetched::Over => {
                self.crls.planner.finished(&certificate);
                if let Some(watched) = self.crls.watched.get_mut(&certificate) {
                    watched.trouble = Some(CrlRefusal::TooLate.to_string());
                }
                return;
            }
            Fetched::Failed(why) => Err(why),
        };
        let now = boottime_millis();
        let why = match kept {
            Ok(news) => {
                self.crls.fetched += 1;
                self.crls.planner.fetched(now);
                if let Some(revoked) = news {
                    self.doubt(revoked.doubtful);
                }
                return;
            }
            Err(why) => why,
        };
        self.crls.failed += 1;
        let given_up = self.crls.planner.failed(now, random());
        if let Some(watched) = self.crls.watched.get_mut(&certificate) {
            let (subject, authority) = (watched.vouched.subject(), &watched.authority);
            if given_up {
                log::warn!(
                    "no CRL for {subject} of {authority} after {TRIES} tries; tried again later: {why}"
                );
            } else if watched.trouble.is_none() {
                log::warn!("the CRL for {subject} of {authority} is not to be had yet: {why}");
            }
            watched.trouble = Some(why);
        }
    }

    /// Keeps it; the revocation, where it says more of one than was known.
    fn keep_crl(
        &mut self,
        certificate: &Certificate,
        bytes: &[u8],
        word: &Word,
    ) -> Result<Option<KeptRevocation>, String> {
        let Some(watched) = self.crls.watched.get_mut(certificate) else { return Ok(None) };
        if !self.shared.status.has_room() {
            return Err("there is no room to keep it".to_owned());
        }
        let (authority, subject) = (watched.authority.clone(), watched.vouched.subject());
        let before = self.shared.crls.revocation(certificate);
        let new = self.shared.crls.keep(certificate, (&authority, subject.clone()), bytes, word)?;
        watched.trouble = None;
        match &word.revoked {
            Some(revoked) if before.is_none() => {
                let what = if revoked.reason.is_some_and(bulla_timestamps::Reason::leaves_earlier_stamps) {
                    "stamps from before that stay good"
                } else {
                    "none of its stamps counts any more"
                };
                let at = utc(revoked.at_micros / 1_000);
                log::error!("{authority}: {revoked} at {at}: {what}; replace the authority");
            }
            _ if new => log::info!("a CRL for {subject} of {authority} is kept: {} bytes", bytes.len()),
            _ => {}
        }
        Ok(self.shared.crls.revocation(certificate).filter(|now| before.as_ref() != Some(now)))
    }

    /// As status and telemetry show it.
    pub(super) fn crls_facts(&self) -> CrlsFacts {
        let mut rest = self.shared.crls.all();
        let mut certificates = Vec::new();
        for (name, watched) in &self.crls.watched {
            let name = hex::encode(name);
            let at = rest.iter().position(|kept| kept.certificate == name);
            let nameless = watched.addresses.is_empty().then(|| "it names no CRL".to_owned());
            certificates.push(CrlFacts {
                subject: watched.vouched.subject(),
                authority: watched.authority.clone(),
                kept: at.map(|at| rest.remove(at)),
                trouble: watched.trouble.clone().or(nameless),
            });
        }
        certificates.extend(rest.into_iter().map(|kept| CrlFacts {
            subject: kept.subject.clone(),
            authority: kept.authority.clone(),
            kept: Some(kept),
            trouble: None,
        }));
        certificates.sort_by(|a, b| (&a.authority, &a.subject).cmp(&(&b.authority, &b.subject)));
        CrlsFacts { fetched: self.crls.fetched, failed: self.crls.failed, certificates }
    }
}

fn anchor(entry: &Entry) -> Option<AnchorBody> {
    if entry.kind() != Some(Kind::Anchor) {
        return None;
    }
    AnchorBody::decode(&entry.content().body).ok()
}

/// Without randomness retries are not spread; that is all.
fn random() -> u64 {
    let mut random = [0; 8];
    let _ = getrandom::fill(&mut random);
    u64::from_ne_bytes(random)
}

async fn fetched(address: &str, watched: &Watched, within: Duration) -> Result<Fetched, String> {
    let target = Target::new(address, None).map_err(|error| format!("{error:#}"))?;
    let answer = target.get(CRL_BYTES_MAX, within).await.map_err(|trouble| trouble.detail)?;
    if !answer.status.is_success() {
        return Err(format!("HTTP {}", answer.status));
    }
    let (vouched, stamp) = (watched.vouched.clone(), watched.stamp);
    // Ten megabytes are hashed and walked beside the runtime's own work.
    let judged = tokio::task::spawn_blocking(move || {
        let word = Crl::read(&answer.body).and_then(|crl| vouched.judge(&crl, stamp));
        (answer.body.to_vec(), word)
    });
    match judged.await.map_err(|error| error.to_string())? {
        (bytes, Ok(word)) => Ok(Fetched::Good(bytes, word)),
        (_, Err(CrlRefusal::TooLate)) => Ok(Fetched::Over),
        (_, Err(refusal)) => Err(format!("{}: {refusal}", refusal.code())),
    }
}
