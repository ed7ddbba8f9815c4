//! Between the values of `bulla_protocol` and those of the log's format: one function each way.

use bulla_formats::body::manifest::{AtLimit, Limits, ManifestStatement, Phase};
use bulla_formats::body::mode_change::{LimitReached, ModeStatement, OutageState};
use bulla_formats::body::probe::{Failure as Failed, ProbeFinding};
use bulla_protocol::authority::{Authority, Failure, Finding};
use bulla_protocol::mode::{self, Limit, Manifest, ModeChange, OutageRecord, Stage};

/// A failure, as the log says it.
pub fn failure(failure: Failure) -> Failed {
    match failure {
        Failure::Refused => Failed::Refused,
        Failure::Timeout => Failed::Timeout,
        Failure::Dns => Failed::Dns,
        Failure::Tls => Failed::Tls,
        // The detail says which.
        Failure::BadAnswer | Failure::Revoked => Failed::BadAnswer,
        Failure::HttpStatus => Failed::HttpStatus,
        Failure::Unreachable => Failed::Unreachable,
        Failure::Quota => Failed::Quota,
        Failure::Other => Failed::Other,
    }
}

/// How the authorities are: those that fail, and those that do not. `details` is by place in the configuration.
pub fn findings(
    failing: &[Finding],
    authorities: &[Authority],
    details: &[String],
    drill: bool,
) -> Vec<ProbeFinding> {
    let finding = |(authority, detail): (&Authority, &String)| {
        let failing = failing.iter().find(|finding| finding.authority == authority.id);
        ProbeFinding {
            authority: authority.id.clone(),
            operator: authority.operator.clone(),
            failure: match failing {
                Some(finding) => Some(failure(finding.failure)),
                None => drill.then_some(Failed::Drill),
            },
            for_millis: failing.map_or(0, |finding| finding.for_millis),
            detail: if failing.is_some() { detail.chars().take(250).collect() } else { String::new() },
        }
    };
    authorities.iter().zip(details).map(finding).collect()
}

/// Limits that are reached.
pub fn limits(limits: &[Limit]) -> Vec<LimitReached> {
    let word = |limit: &Limit| match limit {
        Limit::Duration => LimitReached::Duration,
        Limit::Seals => LimitReached::Seals,
        Limit::Holders => LimitReached::Holders,
    };
    limits.iter().map(word).collect()
}

fn limits_read(limits: &[LimitReached]) -> Vec<Limit> {
    let word = |limit: &LimitReached| match limit {
        LimitReached::Duration => Limit::Duration,
        LimitReached::Seals => Limit::Seals,
        LimitReached::Holders => Limit::Holders,
    };
    limits.iter().map(word).collect()
}

/// Limits in force, as manifests state them; `None` when there are none.
pub fn limits_stated(limits: &mode::Limits, reached: &[Limit]) -> Option<Limits> {
    let holders = (limits.holders > 0).then_some(u64::from(limits.holders));
    let any = limits.duration.is_some() || limits.seals.is_some() || holders.is_some();
    any.then(|| Limits {
        seconds: limits.duration.map(|millis| millis / 1_000),
        seals: limits.seals,
        holders,
        at_limit: match limits.at_limit {
            mode::AtLimit::Continue => AtLimit::Continue,
            mode::AtLimit::Safe => AtLimit::Safe,
        },
        reached: self::limits(reached),
    })
}

/// An outage, as the log says it.
pub fn outage(outage: &OutageRecord) -> OutageState {
    OutageState {
        first: outage.first,
        elapsed_millis: outage.elapsed,
        manifests: outage.manifests,
        last: outage.last,
        closing: outage.closing,
    }
}

/// What a mode change in the log says.
pub fn change_read(said: &ModeStatement, drill: bool) -> ModeChange {
    let outage = said.outage.as_ref().map(|outage| OutageRecord {
        first: outage.first,
        elapsed: outage.elapsed_millis,
        seals: 0,
        manifests: outage.manifests,
        last: outage.last,
        closing: outage.closing,
    });
    ModeChange {
        from: said.from,
        to: said.to,
        below: said.below,
        drill,
        outages: said.outages,
        outage,
        locked: said.locked,
        limits: limits_read(&said.limits),
        findings: Vec::new(),
    }
}

/// What a manifest in the log says.
pub fn manifest_read(said: &ManifestStatement) -> Manifest {
    Manifest {
        stage: match said.phase {
            Phase::Open => Stage::Opening,
            Phase::Refresh => Stage::Refresh,
            Phase::Close => Stage::Closing,
        },
        outage: said.outage,
        number: said.sequence,
        drill: said.drill,
        first: said.first,
        last: (said.phase == Phase::Close).then_some(said.head.size - 1),
        elapsed: said.duration_millis,
        seals: said.seals,
        limits: said.limits.as_ref().map_or_else(Vec::new, |limits| limits_read(&limits.reached)),
        findings: Vec::new(),
    }
}

/// Which of an outage's manifests.
pub fn phase(stage: Stage) -> Phase {
    match stage {
        Stage::Opening => Phase::Open,
        Stage::Refresh => Phase::Refresh,
        Stage::Closing => Phase::Close,
    }
}
