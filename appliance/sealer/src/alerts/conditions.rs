//! What is alerted: one table of conditions, with names, severities, hold times and words.
//!
//! Names, severities and hold times are those of docs/monitoring/bulla.rules.yml where it has the same condition; a test of
//! the workspace (`tests/tests/monitoring.rs`) holds the two together, and says of every other row on which side it stands alone.
//! Refuses to do: look at anything; that is [`super::look`].

/// A condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Its name, for ever the same.
    pub name: &'static str,
    /// Worth waking somebody.
    pub page: bool,
    /// How long it has to hold, seconds.
    pub hold: u64,
    /// What is the matter, as a sentence without its end; a detail may follow.
    pub what: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// Which page of the documentation goes on from there.
    pub runbook: &'static str,
}

const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

const fn page(
    name: &'static str,
    hold: u64,
    what: &'static str,
    remedy: &'static str,
    runbook: &'static str,
) -> Condition {
    Condition { name, page: true, hold, what, remedy, runbook }
}

const fn ticket(
    name: &'static str,
    hold: u64,
    what: &'static str,
    remedy: &'static str,
    runbook: &'static str,
) -> Condition {
    Condition { name, page: false, hold, what, remedy, runbook }
}

/// Sent by `bulla-box alerts test`, and by nothing else.
pub const TEST: Condition = ticket(
    "BullaTest",
    0,
    "This is a test of alert delivery",
    "Nothing: somebody ran `bulla-box alerts test`.",
    "docs/operating.md",
);

/// All of them.
pub const ALL: [Condition; 38] = [
    page(
        "BullaNotSealing",
        2 * MINUTE,
        "The box does not seal",
        "See `condition` in the status: free disk space, unlock the box, or look at its TPM or disk.",
        "docs/failure-modes.md",
    ),
    page(
        "BullaRollbackSuspected",
        0,
        "The disk may be an older copy of itself, and the box is read-only",
        "Do not delete anything. Find the newest disk, a neighbour's copy or the newest medium, then follow the page.",
        "docs/runbooks/peers.md",
    ),
    page(
        "BullaRot",
        0,
        "Something stored has rotted",
        "See `scrub.findings` in the status; run `bulla-box fsck` on the stopped box; replace the disk.",
        "docs/failure-modes.md",
    ),
    page(
        "BullaSelfTestFailed",
        2 * HOUR,
        "The self-test fails: a synthetic document is not sealed and verified as it should be",
        "See `selfTest.failure` in the status.",
        "docs/operating.md",
    ),
    page(
        "BullaLimitReached",
        0,
        "A limit of emergency operation is reached",
        "End the outage, or raise the limit in [outage.limits] or by a lease; with at_limit = \"safe\" nothing is sealed until then.",
        "docs/runbooks/wan-outage.md",
    ),
    page(
        "BullaAuthorityRevoked",
        0,
        "A time-stamp authority is revoked",
        "Ask its operator; put another authority into [anchors].",
        "docs/runbooks/wan-outage.md",
    ),
    page(
        "BullaFork",
        0,
        "The log of a neighbour has forked: its key has signed two histories",
        "Do not trust that box. Keep the evidence, follow the page, have it revoked.",
        "docs/runbooks/peers.md",
    ),
    page(
        "BullaMediumAhead",
        0,
        "A medium knows more of the log than the disk",
        "The disk is an older copy, or another box runs with this box's keys: bring the newest disk back.",
        "docs/runbooks/peers.md",
    ),
    page(
        "BullaTimeContradicted",
        0,
        "A Roughtime server and others contradict each other about the time",
        "See `time.sources[].last.aheadMillis` in the status; which of them is wrong the box cannot tell.",
        "docs/operating.md",
    ),
    page(
        "BullaNeighbourBoot",
        0,
        "A neighbour has booted something else, or is another machine",
        "Look at that box before you trust it again.",
        "docs/runbooks/peers.md",
    ),
    page(
        "BullaSiteAnchorRefused",
        0,
        "A neighbour hands over an anchor that does not hold",
        "See `peers.neighbours[].trouble` in the status; look at that box.",
        "docs/runbooks/peers.md",
    ),
    ticket(
        "BullaSelfTestOverdue",
        3 * HOUR,
        "No self-test has passed for hours",
        "See `selfTest` in the status.",
        "docs/operating.md",
    ),
    ticket(
        "BullaScrubOverdue",
        3 * DAY,
        "The scrub has not got round for days",
        "Raise scrub_bytes_per_second, or look for a hung disk.",
        "docs/operating.md",
    ),
    ticket(
        "BullaQueueLong",
        MINUTE,
        "Many seals wait for a commit",
        "Look at the disk's latency; more clients than one box can serve need a second box.",
        "docs/operating.md",
    ),
    ticket(
        "BullaAttestationBehind",
        10 * MINUTE,
        "Seals are without a TPM quote: the TPM is away or slow",
        "See `attestationTrouble` in the status; seals go on, and are covered when it is back.",
        "docs/failure-modes.md",
    ),
    ticket(
        "BullaEpochExtended",
        HOUR,
        "The key epoch has outlived its policy",
        "No successor could be endorsed: look at the TPM.",
        "docs/failure-modes.md",
    ),
    ticket(
        "BullaCheckpointOld",
        0,
        "No checkpoint was signed for more than two hours",
        "With hourly self-tests there is one an hour at least: see `condition` and `selfTest` in the status.",
        "docs/failure-modes.md",
    ),
    ticket(
        "BullaEmergency",
        5 * MINUTE,
        "The box is in an emergency: no authority and no hub answers",
        "Seals go on. Repair the line; print the manifest if policy asks for it.",
        "docs/runbooks/wan-outage.md",
    ),
    ticket(
        "BullaUnanchored",
        0,
        "Entries have waited for more than six hours for an anchor by as many operators as policy asks for",
        "See `anchors.authorities[].failing` in the status; another authority helps.",
        "docs/runbooks/wan-outage.md",
    ),
    ticket(
        "BullaLeaseEnding",
        10 * MINUTE,
        "The lease of this box is about to end, or has ended",
        "Hand in a new one with `bulla-box lease`; without one the box counts only what it reaches itself.",
        "docs/runbooks/wan-outage.md",
    ),
    ticket(
        "BullaClockContradiction",
        0,
        "The clock of this box, or an authority's, was found to be wrong",
        "See the newest `clock` entries of the log; look at the machine's time service.",
        "docs/failure-modes.md",
    ),
    ticket(
        "BullaTimeSourceAway",
        6 * HOUR,
        "A Roughtime server does not answer",
        "See `time.sources[].failing` in the status.",
        "docs/operating.md",
    ),
    ticket(
        "BullaTimeUnknown",
        HOUR,
        "The box does not know how far its clock may be off",
        "Nobody has told it the time since it was switched on: see `time` in the status.",
        "docs/operating.md",
    ),
    ticket(
        "BullaCertificateOld",
        HOUR,
        "The TLS certificate of the listener is not renewed any more",
        "See the log for the reason; it holds for 400 days from its making.",
        "docs/operating.md",
    ),
    ticket(
        "BullaStagedLogOld",
        HOUR,
        "No log is staged for the day of need, or the one that is will soon be too old",
        "Run `bulla-box staged prepare` while the registrar is there, and have it approved.",
        "docs/provisioning.md",
    ),
    ticket(
        "BullaConfigurationRefused",
        MINUTE,
        "The box does not go by the configuration that the fleet's people approved last",
        "See `configuration.refused` in the status, and have a better one approved, or the one before again.",
        "docs/provisioning.md",
    ),
    ticket(
        "BullaDiskFilling",
        30 * MINUTE,
        "Less than 2 GB are left above the reserve",
        "Free space; at 0 the box refuses seals.",
        "docs/failure-modes.md",
    ),
    ticket(
        "BullaCrlsMissing",
        2 * DAY,
        "Certificates behind time stamps have no CRL",
        "See `anchors.crls[].failing` in the status.",
        "docs/runbooks/wan-outage.md",
    ),
    ticket(
        "BullaNeighboursAway",
        10 * MINUTE,
        "Neighbours are away",
        "See `peers.neighbours[].trouble` in the status; their lines, or their boxes.",
        "docs/runbooks/peers.md",
    ),
    ticket(
        "BullaMirrorBehind",
        10 * MINUTE,
        "A neighbour lacks more than 1000 entries of this log",
        "A slow line, or a full disk there.",
        "docs/runbooks/peers.md",
    ),
    ticket(
        "BullaMediumLate",
        DAY,
        "The log is on no medium, or has not been for a day",
        "See `medium.trouble` in the status; put the medium in.",
        "docs/runbooks/peers.md",
    ),
    ticket(
        "BullaHubNotReached",
        15 * MINUTE,
        "The hub that this box dials is not reached",
        "See `dialOut.trouble` in the status: the line, the hub, the token.",
        "docs/failure-modes.md",
    ),
    ticket(
        "BullaNeighbourUnattested",
        HOUR,
        "Nothing vouches for a neighbour",
        "See `peers.neighbours[].attested` in the status: its TPM is away, or the box is.",
        "docs/runbooks/peers.md",
    ),
    ticket(
        "BullaFolderHindered",
        10 * MINUTE,
        "A folder is not taken from",
        "See `ingest[].trouble` in the status.",
        "docs/ingest.md",
    ),
    ticket(
        "BullaFilesRejected",
        0,
        "Files of a folder went to the error folder",
        "The reason lies beside each file in the error folder.",
        "docs/ingest.md",
    ),
    ticket(
        "BullaTimeStampsRefused",
        10 * MINUTE,
        "The box refuses RFC 3161 time stamps",
        "It does not know its time well enough, or cannot seal: see `condition` and `outage` in the status.",
        "docs/failure-modes.md",
    ),
    ticket(
        "BullaWriteFailed",
        0,
        "A write had an unknown effect, and the box recovered",
        "Look at the disk all the same.",
        "docs/failure-modes.md",
    ),
    ticket(
        "BullaAlertsUndelivered",
        15 * MINUTE,
        "A receiver of alerts has not taken what it is owed",
        "See `alerts.receivers[].failing` in the status; `bulla-box alerts test` tries it now.",
        "docs/operating.md",
    ),
];

/// The row of this name.
pub fn find(name: &str) -> Option<&'static Condition> {
    ALL.iter().find(|condition| condition.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn the_table_is_one() {
        let names: BTreeSet<&str> = ALL.iter().map(|one| one.name).collect();
        assert_eq!(names.len(), ALL.len(), "names are unique");
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for one in ALL.iter().chain([&TEST]) {
            assert!(one.name.starts_with("Bulla"), "{}", one.name);
            assert!(!one.what.ends_with('.') && one.remedy.ends_with('.'), "{}", one.name);
            assert!(top.join(one.runbook).is_file(), "{} names {}", one.name, one.runbook);
            assert!(one.what.len() < 200 && one.remedy.len() < 300, "{}", one.name);
        }
        assert_eq!(find("BullaFork").map(|one| one.page), Some(true));
        assert_eq!(find("BullaTest"), None);
    }
}
