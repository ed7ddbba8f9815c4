//! What is looked at after every pull, whether it brought anything or not: the log grows, anchors come, outages are
//! closed, and a log that was given up is not gone on with.
//!
//! Refuses to do: believe that silence is guilt; what is overdue is a warning, told once for each thing.

use crate::config::WatchConfig;
use crate::finding::{Finding, Kind};
use crate::index::LogState;
use bulla_formats::report::utc;
use bulla_formats::revocation::Cause;
use bulla_formats::trust::TrustFile;

/// What is overdue at `now`, by the box's own statements of time.
pub fn findings(
    origin: &str,
    state: &LogState,
    outage: Option<(u64, u64)>,
    watch: &WatchConfig,
    now: u64,
) -> Vec<Finding> {
    let mut found = Vec::new();
    let overdue = |since: u64, seconds: u64| seconds > 0 && now.saturating_sub(since) > seconds * 1_000;
    if state.progress > 0 && overdue(state.newest_millis, watch.stale_after_seconds) {
        let detail = format!(
            "the log has not grown beyond {} entries since {}",
            state.progress,
            utc(state.newest_millis)
        );
        found.push(Finding::new(Kind::StaleHead, origin, state.progress.to_string(), detail));
    }
    if let Some(since) = state.unanchored_since.filter(|since| overdue(*since, watch.anchor_after_seconds)) {
        let detail = format!(
            "seals from {} on are not anchored; anchors cover {} entries",
            utc(since),
            state.anchored
        );
        found.push(Finding::new(Kind::AnchorOverdue, origin, state.anchored.to_string(), detail));
    }
    if let (Some((number, first)), Some((_, since))) = (outage, state.outage)
        && overdue(since, watch.outage_after_seconds)
    {
        let detail = format!(
            "outage {number}, declared at entry {first}, has no closing manifest since {}",
            utc(since)
        );
        found.push(Finding::new(Kind::OutageUnclosed, origin, number.to_string(), detail));
    }
    found
}

/// Of a log that the trust file calls compromised: that it goes on beyond its last good tree.
pub fn revoked(origin: &str, size: u64, trust: &TrustFile) -> Option<Finding> {
    let said = &trust.revocation(origin)?.content;
    let good = said.good.size;
    if said.cause != Cause::Compromise || size <= good {
        return None;
    }
    let detail = format!(
        "the log was given up as compromised after {good} entries, and goes on; what stands beyond them counts for nothing \
         by itself"
    );
    Some(Finding::new(Kind::RevokedKey, origin, good.to_string(), detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_counts_from_its_own_beginning() {
        let watch =
            WatchConfig { stale_after_seconds: 10, anchor_after_seconds: 20, outage_after_seconds: 30 };
        let state = LogState {
            progress: 7,
            newest_millis: 100_000,
            unanchored_since: Some(90_000),
            outage: Some((3, 80_000)),
            ..LogState::default()
        };
        let kinds = |now: u64, outage, watch: &WatchConfig| -> Vec<&str> {
            findings("o", &state, outage, watch, now).iter().map(|finding| finding.kind.name()).collect()
        };
        assert!(kinds(110_000, Some((3, 1)), &watch).is_empty());
        assert_eq!(kinds(110_001, Some((3, 1)), &watch), ["stale-head", "anchor-overdue", "outage-unclosed"]);
        assert_eq!(kinds(110_000 + 1, None, &watch), ["stale-head", "anchor-overdue"]);
        let never = WatchConfig { anchor_after_seconds: 0, ..watch.clone() };
        assert_eq!(kinds(110_001, None, &never), ["stale-head"]);
        assert!(findings("o", &LogState::default(), None, &watch, u64::MAX).is_empty());
    }
}
