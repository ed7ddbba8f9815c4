//! What the box sees of its own conditions: one report for each row of [`super::conditions::ALL`].
//!
//! Everything comes from what status and metrics show. What cannot be told now (a part that has not looked yet) is left as
//! it was; what is not configured does not hold.
//! Refuses to do: take words of others into a message: no paths, no documents, no digests, no addresses; a detail is a number,
//! a state, or the name of a box, a client or a receiver.

use super::conditions::{ALL, Condition};
use super::plan::{LineFacts, Report};
use crate::api::Api;
use crate::approved;
use crate::driver::clock::now_millis;
use crate::driver::medium::State;
use crate::driver::{Condition as Standing, Status};
use crate::staging;
use bulla_formats::entry::Mode;
use bulla_protocol::mode::Limit;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

/// What does not move is unseen for so long by rules that look at an increase, milliseconds.
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// A certificate is renewed daily; this old, it is not.
const CERTIFICATE_MAX: Duration = Duration::from_secs(3 * 86_400);
/// Seconds after which an attestation is old.
const ATTESTATION_OLD: f64 = 900.0;

/// For whom a condition holds; the subject is empty where there is one only. `None`: not to be told now.
type Holds = Option<Vec<(String, String)>>;

/// Counters as they were, and when each grew.
#[derive(Debug, Default)]
pub struct Eyes {
    counters: BTreeMap<(&'static str, String), (u64, Option<u64>)>,
}

fn single(holds: bool, detail: impl Into<String>) -> Holds {
    Some(if holds { vec![(String::new(), detail.into())] } else { Vec::new() })
}

impl Eyes {
    /// Every condition, as it is at `now` on the steady clock.
    pub fn look(&mut self, api: &Api, receivers: &[(String, LineFacts)], now: u64) -> Vec<Report> {
        let status = api.sealer.glance();
        let report = |condition: &Condition| Report {
            name: condition.name,
            page: condition.page,
            hold: 1_000 * api.config.alerts.hold_seconds.get(condition.name).unwrap_or(&condition.hold),
            holds: self.holds(condition.name, api, &status, receivers, now),
        };
        let wanted = |condition: &&Condition| {
            !api.config.alerts.off.iter().any(|name| name.as_str() == condition.name)
        };
        ALL.iter().filter(wanted).map(report).collect()
    }

    fn holds(
        &mut self,
        name: &'static str,
        api: &Api,
        status: &Status,
        receivers: &[(String, LineFacts)],
        now: u64,
    ) -> Holds {
        match name {
            "BullaNotSealing" => {
                let suspected = matches!(status.condition, Standing::RollbackSuspected { .. });
                let why = standing(&status.condition);
                single(status.condition != Standing::Sealing && !suspected, why)
            }
            "BullaRollbackSuspected" => {
                single(matches!(status.condition, Standing::RollbackSuspected { .. }), "")
            }
            "BullaRot" => {
                let damaged = status.scrub.damaged;
                single(damaged > 0, format!("{damaged} findings"))
            }
            "BullaWriteFailed" => {
                let count = api.sealer.counters().poisonings.load(Relaxed);
                single(self.grew(name, "", count, DAY, now), "")
            }
            "BullaTimeStampsRefused" => {
                single(self.grew(name, "", api.tsa.refused_by_itself(), 10 * MINUTE, now), "")
            }
            "BullaSelfTestFailed" | "BullaSelfTestOverdue" | "BullaScrubOverdue" | "BullaCheckpointOld" => {
                checks(name, api, status)
            }
            "BullaQueueLong" => {
                let waiting = api.sealer.queue_length();
                single(waiting > 1_000, format!("{waiting} wait"))
            }
            "BullaAttestationBehind" => {
                let behind = status.size.saturating_sub(status.attested_size);
                let old = api.sealer.facts().attestation_age().is_some_and(|age| age > ATTESTATION_OLD);
                let holds = status.hardware == "tpm" && behind > 2 && old;
                single(holds, format!("{behind} entries are not covered"))
            }
            "BullaEpochExtended" => single(status.epoch_extended, format!("epoch {}", status.epoch)),
            "BullaCertificateOld" => {
                let age = SystemTime::now().duration_since(api.certificates.issued_at()).unwrap_or_default();
                single(age > CERTIFICATE_MAX, format!("it is {} days old", age.as_secs() / 86_400))
            }
            "BullaStagedLogOld" => {
                let Some(staged) = staging::waiting(&api.config, api.sealer.origin().as_str(), now_millis())
                else {
                    return single(false, "");
                };
                let why = match staged.left_millis / DAY {
                    _ if staged.left_millis == 0 => "none can be begun".to_owned(),
                    days => format!("it can be begun for {days} days more"),
                };
                single(staged.left_millis < staged.allowed_millis / 5, why)
            }
            "BullaConfigurationRefused" => {
                single(approved::is_refused(&api.config.state_dir).unwrap_or(false), "")
            }
            "BullaDiskFilling" => {
                let headroom = api.sealer.facts().headroom()?;
                single(headroom < 2_000_000_000, format!("{} MB are left", headroom / 1_000_000))
            }
            "BullaClockContradiction" => {
                let count = api.sealer.counters().clock_contradictions.load(Relaxed);
                single(self.grew(name, "", count, DAY, now), "")
            }
            "BullaTimeContradicted" | "BullaTimeSourceAway" | "BullaTimeUnknown" => self.time(name, api, now),
            "BullaSiteAnchorRefused" => {
                let count = api.sealer.counters().site_refused.load(Relaxed);
                single(self.grew(name, "", count, HOUR, now), "")
            }
            "BullaEmergency"
            | "BullaUnanchored"
            | "BullaLimitReached"
            | "BullaLeaseEnding"
            | "BullaCrlsMissing"
            | "BullaAuthorityRevoked" => outside(name, api),
            "BullaNeighboursAway"
            | "BullaMirrorBehind"
            | "BullaFork"
            | "BullaNeighbourBoot"
            | "BullaNeighbourUnattested" => neighbours(name, api, status.size),
            "BullaMediumLate" | "BullaMediumAhead" => medium(name, api),
            "BullaHubNotReached" => match api.dial_out.trouble().flatten() {
                Some(trouble) => single(true, trouble),
                None => single(false, ""),
            },
            "BullaFolderHindered" => Some(
                api.ingest
                    .troubles()
                    .filter(|(_, hindered, _)| *hindered)
                    .map(|(client, ..)| (client, String::new()))
                    .collect(),
            ),
            "BullaFilesRejected" => {
                let grew = |(client, _, rejected): (String, bool, u64)| {
                    self.grew(name, &client, rejected, HOUR, now)
                        .then(|| (client, format!("{rejected} since the start of the box")))
                };
                Some(api.ingest.troubles().filter_map(grew).collect())
            }
            "BullaAlertsUndelivered" => {
                let failing =
                    receivers.iter().filter(|(_, facts)| facts.failures > 0 && facts.undelivered > 0);
                let words = |(name, facts): &(String, LineFacts)| {
                    (name.clone(), format!("{} attempts have failed", facts.failures))
                };
                Some(failing.map(words).collect())
            }
            _ => None,
        }
    }

    /// What Roughtime servers say, and whether they say it.
    fn time(&mut self, name: &'static str, api: &Api, now: u64) -> Holds {
        let facts = api.sealer.outage()?;
        if name == "BullaTimeUnknown" {
            let unknown = !facts.sources.is_empty() && api.sealer.known_time().uncertainty.is_none();
            return single(unknown, "");
        }
        let holds = facts.sources.iter().filter(|source| match name {
            "BullaTimeSourceAway" => source.failing.is_some() || source.last.is_none(),
            _ => self.grew(name, &source.name, source.contradictions, HOUR, now),
        });
        Some(holds.map(|source| (source.name.clone(), String::new())).collect())
    }

    /// Whether a counter of this run grew within the last `window` milliseconds.
    fn grew(&mut self, name: &'static str, subject: &str, count: u64, window: u64, now: u64) -> bool {
        let seen = self.counters.entry((name, subject.to_owned())).or_insert((0, None));
        if count > seen.0 {
            *seen = (count, Some(now));
        }
        seen.1.is_some_and(|at| now.saturating_sub(at) < window)
    }
}

fn standing(condition: &Standing) -> &'static str {
    match condition {
        Standing::Sealing => "",
        Standing::DiskFull => "the disk is full",
        Standing::Poisoned { .. } => "storage has failed",
        Standing::Locked(_) => "an operator has locked it",
        Standing::Retiring => "it retires",
        Standing::Limited => "a limit of emergency operation is reached",
        Standing::KeyAway { .. } => "the device of the sealing key does not answer",
        Standing::RollbackSuspected { .. } => "a rollback is suspected",
    }
}

fn checks(name: &str, api: &Api, status: &Status) -> Holds {
    let (checks, config) = (api.sealer.checks(), &api.config.selfcheck);
    let older = |age: Option<f64>, than: f64| age.is_none_or(|age| age > than);
    match name {
        "BullaSelfTestFailed" => {
            single(status.self_test.as_ref().is_some_and(|test| !test.passed), "the newest one failed")
        }
        "BullaSelfTestOverdue" => {
            single(config.self_test_seconds > 0 && older(checks.self_test_age(), 3.0 * 3_600.0), "")
        }
        "BullaScrubOverdue" => {
            single(config.scrub_pass_seconds > 0 && older(checks.scrub_age(), 3.0 * 86_400.0), "")
        }
        _ => {
            // Without hourly self-tests a quiet box signs nothing, and need not.
            let hourly = (1..=3_600).contains(&config.self_test_seconds);
            single(hourly && api.sealer.facts().checkpoint_age().is_some_and(|age| age > 7_200.0), "")
        }
    }
}

fn outside(name: &str, api: &Api) -> Holds {
    if api.config.anchors.is_empty() && !matches!(name, "BullaLimitReached" | "BullaLeaseEnding") {
        return single(false, "");
    }
    let facts = api.sealer.outage()?;
    match name {
        "BullaEmergency" => {
            let drill = if facts.modes.drill { "it is a drill" } else { "" };
            single(facts.modes.mode == Mode::Emergency, drill)
        }
        "BullaUnanchored" => {
            let count = facts.anchors.unanchored.last().copied().unwrap_or(0);
            single(facts.anchors.waiting.is_some_and(|waiting| waiting > 6 * HOUR), format!("{count} wait"))
        }
        "BullaLimitReached" => {
            let words = facts.modes.limits.iter().map(|limit| match limit {
                Limit::Duration => "its length",
                Limit::Seals => "the number of seals",
                Limit::Holders => "too few neighbours hold copies",
            });
            let words: Vec<&str> = words.collect();
            single(!words.is_empty(), words.join(", "))
        }
        "BullaLeaseEnding" => {
            let Some(lease) = &facts.lease else { return single(false, "") };
            let whole = lease.content.expires_at.saturating_sub(lease.content.issued_at);
            match lease.left {
                None => single(true, "it is over"),
                Some((left, _)) => {
                    single(left < whole / 5, format!("it holds for {} minutes more", left / 60_000))
                }
            }
        }
        "BullaCrlsMissing" => {
            let missing = facts.crls.certificates.iter().filter(|one| one.kept.is_none()).count();
            single(missing > 0, format!("{missing} certificates"))
        }
        _ => {
            let revoked = facts.crls.certificates.iter();
            let revoked = revoked.filter(|one| one.kept.as_ref().is_some_and(|kept| kept.revoked.is_some()));
            let mut names: Vec<String> = revoked.map(|one| one.authority.clone()).collect();
            names.sort_unstable();
            names.dedup();
            Some(names.into_iter().map(|name| (name, String::new())).collect())
        }
    }
}

fn neighbours(name: &str, api: &Api, size: u64) -> Holds {
    if api.config.peers.is_none() {
        return single(false, "");
    }
    let facts = api.sealer.neighbours()?;
    if name == "BullaNeighboursAway" {
        let connected = facts.peers.iter().filter(|peer| peer.connected).count();
        let all = facts.peers.len();
        return single(connected < all.min(2), format!("{connected} of {all} are there"));
    }
    let holds = facts.peers.iter().filter_map(|peer| {
        let lacking = size.saturating_sub(peer.holds.mirrored);
        let detail = match name {
            "BullaMirrorBehind" => (lacking > 1_000).then(|| format!("it lacks {lacking}")),
            "BullaFork" => peer.frozen.then(String::new),
            "BullaNeighbourBoot" => (peer.attested.state == "refused")
                .then(|| peer.attested.reason.unwrap_or_default().to_owned()),
            _ => (peer.attested.state != "fresh").then(|| peer.attested.state.to_owned()),
        };
        detail.map(|detail| (peer.holds.origin.clone(), detail))
    });
    Some(holds.collect())
}

fn medium(name: &str, api: &Api) -> Holds {
    if api.config.medium.is_none() {
        return single(false, "");
    }
    let facts = api.sealer.medium()?;
    if name == "BullaMediumAhead" {
        return single(facts.state == State::Ahead, "");
    }
    let newest = facts.media.iter().map(|known| known.stated_millis).max();
    let old = newest.is_some_and(|at| now_millis().saturating_sub(at) > DAY);
    let late = !matches!(facts.state, State::Current | State::Copying) || old;
    single(late, format!("it is {}", facts.state.name()))
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn every_row_of_the_table_is_looked_at() {
        let (code, _) = include_str!("look.rs").split_once("#[cfg(test)]").unwrap();
        for condition in &ALL {
            assert!(code.contains(&format!("\"{}\"", condition.name)), "{}", condition.name);
        }
    }
}
