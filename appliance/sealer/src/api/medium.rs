//! The medium with a copy of the log, as status and telemetry show it.
//!
//! Refuses to do: count it among those who mirror; nobody but the box speaks for a medium.

use crate::driver::Sealer;
use crate::driver::medium::{Known, State};
use crate::telemetry::{family, line};
use serde_json::{Value, json};

/// Member `medium` of the status; `None` without `[medium]`.
pub fn status(sealer: &Sealer) -> Option<Value> {
    let facts = sealer.medium()?;
    let known = |known: &Known| {
        json!({
            "id": known.id.to_string(),
            "size": known.size,
            "statedMillis": known.stated_millis,
            "here": facts.id == Some(known.id),
        })
    };
    let media: Vec<Value> = facts.media.iter().map(known).collect();
    let (device, file_system) = facts.mounted.clone().unzip();
    Some(json!({
        "state": facts.state.name(),
        "trouble": facts.trouble,
        "id": facts.id.map(|id| id.to_string()),
        "device": device,
        "fileSystem": file_system,
        "media": media,
    }))
}

/// Metrics; nothing without `[medium]`.
pub fn metrics(out: &mut String, sealer: &Sealer) {
    let Some(facts) = sealer.medium() else { return };
    let name = "bulla_medium_state";
    family(out, name, "gauge", "1 for the state that the medium with a copy of the log is in.");
    for state in State::ALL {
        line(out, name, &format!("state=\"{}\"", state.name()), u64::from(state == facts.state));
    }
    let here = facts.media.iter().find(|known| facts.id == Some(known.id));
    let name = "bulla_medium_size";
    family(out, name, "gauge", "Entries that were read back from the medium that is in; 0 when none is.");
    line(out, name, "", here.map_or(0, |known| known.size));
    let newest = facts.media.iter().map(|known| known.stated_millis).max();
    if let Some(millis) = newest {
        let name = "bulla_medium_stated_seconds";
        family(out, name, "gauge", "Unix time at which the newest copy on any medium was read back.");
        line(out, name, "", millis as f64 / 1e3);
    }
}
