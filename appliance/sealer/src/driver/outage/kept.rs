//! What is kept beside the log for the next start: where the newest entries of the story stand, quotas in use, the time.
//!
//! Values of the control store, JSON each. All of it can be lost: the story is then read from the whole log, quotas count
//! as used up, and the time is not known until an authority says it.
//! Invariant: [`Story::appending_since`] is durable before an entry of the story is appended, so that a start knows from
//! where on it must look for one that was appended and not noted.

use bulla_ledger::Control;
use bulla_protocol::anchoring::{AnchorState, AuthorityState};
use bulla_protocol::time::{Moment, TimeState, TpmClock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const STORY: &str = "outage-story";
const PLAN: &str = "anchor-plan";
const TIME: &str = "time";
/// Most past outages that are remembered.
const OUTAGES_MAX: usize = 1_024;

/// Where the newest entries of the story stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Story {
    /// The newest mode change.
    pub mode_change: Option<u64>,
    /// The newest manifest.
    pub manifest: Option<u64>,
    /// The newest anchor.
    pub anchor: Option<u64>,
    /// Something was being appended when the log had so many entries.
    pub appending_since: Option<u64>,
    /// Past outages, oldest first.
    pub outages: Vec<PastOutage>,
}

/// An outage that has its closing manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastOutage {
    /// Index of the first entry covered.
    pub first: u64,
    /// Entries covered end before this index.
    pub end: u64,
    /// Index of the closing manifest.
    pub manifest: u64,
}

impl Story {
    /// Takes note of an outage that is closed.
    pub fn closed(&mut self, outage: PastOutage) {
        if self.outages.iter().all(|known| known.manifest != outage.manifest) {
            self.outages.push(outage);
        }
        let surplus = self.outages.len().saturating_sub(OUTAGES_MAX);
        self.outages.drain(..surplus);
    }
}

/// Quotas in use, and when that was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Plan {
    authorities: Vec<Taken>,
    site: Vec<u64>,
    /// When it was kept.
    pub at: KeptMoment,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Taken {
    id: String,
    taken: Vec<u64>,
    blocked: u64,
}

/// An instant that another process, or another boot, can tell something about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct KeptMoment {
    boot: String,
    at: u64,
    /// The TPM's clock: milliseconds, resets, restarts, safe.
    tpm: Option<(u64, u32, u32, bool)>,
    tpm_age: u64,
}

impl KeptMoment {
    /// Takes down an instant.
    pub fn new(moment: &Moment) -> Self {
        KeptMoment {
            boot: hex::encode(moment.boot),
            at: moment.at,
            tpm: moment.tpm.map(|tpm| (tpm.clock, tpm.reset_count, tpm.restart_count, tpm.safe)),
            tpm_age: moment.tpm_age,
        }
    }

    /// The instant.
    pub fn moment(&self) -> Moment {
        let mut boot = [0; 16];
        // Another length is another boot.
        let _ = hex::decode_to_slice(&self.boot, &mut boot);
        let tpm = self.tpm.map(|(clock, reset_count, restart_count, safe)| TpmClock {
            clock,
            reset_count,
            restart_count,
            safe,
        });
        Moment { boot, at: self.at, tpm, tpm_age: self.tpm_age }
    }
}

impl Plan {
    /// The state of a planner.
    pub fn new(state: &AnchorState, at: &Moment) -> Self {
        let taken = |one: &AuthorityState| Taken {
            id: one.id.clone(),
            taken: one.taken.clone(),
            blocked: one.blocked,
        };
        Plan {
            authorities: state.authorities.iter().map(taken).collect(),
            site: state.site.clone(),
            at: KeptMoment::new(at),
        }
    }

    /// As the planner has it.
    pub fn state(&self) -> AnchorState {
        let state = |one: &Taken| AuthorityState {
            id: one.id.clone(),
            taken: one.taken.clone(),
            blocked: one.blocked,
        };
        AnchorState { authorities: self.authorities.iter().map(state).collect(), site: self.site.clone() }
    }
}

/// What was known of the time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptTime {
    at: KeptMoment,
    lo: u64,
    hi: Option<u64>,
}

/// Something kept; `None` when there is nothing, `Err` when there is and cannot be used.
fn get<T: DeserializeOwned>(control: &Control, name: &str) -> Result<Option<T>, String> {
    match control.get(name) {
        Ok(None) => Ok(None),
        Ok(Some(bytes)) => serde_json::from_slice(&bytes).map(Some).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn put<T: Serialize>(control: &Control, name: &str, value: &T) -> Result<(), String> {
    let text = serde_json::to_vec(value).map_err(|error| error.to_string())?;
    control.put(name, &text).map_err(|fault| fault.to_string())
}

/// The story kept last.
pub fn story(control: &Control) -> Result<Option<Story>, String> {
    get(control, STORY)
}

/// Keeps the story.
pub fn keep_story(control: &Control, story: &Story) -> Result<(), String> {
    put(control, STORY, story)
}

/// The quotas kept last.
pub fn plan(control: &Control) -> Result<Option<Plan>, String> {
    get(control, PLAN)
}

/// What one log kept of quotas, for the one that follows it: an authority's own window knows nothing of incarnations.
pub fn plan_of(predecessor: &Control) -> Result<Option<Vec<u8>>, String> {
    predecessor.get(PLAN).map_err(|error| error.to_string())
}

/// Begins with what the log before kept of quotas.
pub fn take_over_plan(control: &Control, plan: &[u8]) -> Result<(), String> {
    control.put(PLAN, plan).map_err(|fault| fault.to_string())
}

/// Keeps quotas.
pub fn keep_plan(control: &Control, plan: &Plan) -> Result<(), String> {
    put(control, PLAN, plan)
}

/// What was known of the time.
pub fn time(control: &Control) -> Result<Option<TimeState>, String> {
    let kept: Option<KeptTime> = get(control, TIME)?;
    Ok(kept.map(|kept| TimeState { moment: kept.at.moment(), lo: kept.lo, hi: kept.hi }))
}

/// Keeps what is known of the time.
pub fn keep_time(control: &Control, time: &TimeState) -> Result<(), String> {
    put(control, TIME, &KeptTime { at: KeptMoment::new(&time.moment), lo: time.lo, hi: time.hi })
}
