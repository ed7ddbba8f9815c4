//! Refusals as events: the first at once, then one for many.
//!
//! Pure. Invariants: at most one report every [`QUIET`] for one peer and reason; at most [`KNOWN_MAX`] of them remembered,
//! so that whoever comes with ever new keys takes no memory: beyond that they share one report without a name.

use crate::event::{Event, Refusal};
use crate::key::PeerKey;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Between two reports of the same.
const QUIET: Duration = Duration::from_secs(10);
/// Names remembered.
const KNOWN_MAX: usize = 64;

/// What has been reported lately.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    known: HashMap<(Option<PeerKey>, Refusal), Said>,
}

#[derive(Debug)]
struct Said {
    /// When it was reported.
    reported: Option<Instant>,
    /// When it happened last.
    noted: Instant,
    /// What has happened since the report.
    times: u64,
}

/// How often it happens among friends: of two calls made at once one is given up, maybe amid its handshake.
fn bearable(why: Refusal) -> u64 {
    match why {
        Refusal::Handshake => 10,
        Refusal::NotLetIn => 2,
        _ => 1,
    }
}

impl Reports {
    /// Somebody was refused something; the report, if it is time for one.
    pub(crate) fn note(
        &mut self,
        peer: Option<PeerKey>,
        address: Option<String>,
        why: Refusal,
        now: Instant,
    ) -> Option<Event> {
        if !self.known.contains_key(&(peer, why)) && self.known.len() >= KNOWN_MAX {
            self.known.retain(|_, said| now.duration_since(said.noted) < QUIET);
        }
        let full = self.known.len() >= KNOWN_MAX && !self.known.contains_key(&(peer, why));
        let (peer, address) = if full { (None, None) } else { (peer, address) };
        let said = self.known.entry((peer, why)).or_insert(Said { reported: None, noted: now, times: 0 });
        if said.reported.is_none() && now.duration_since(said.noted) >= QUIET {
            said.times = 0;
        }
        said.times += 1;
        said.noted = now;
        let quiet = said.reported.is_some_and(|last| now.duration_since(last) < QUIET);
        if quiet || said.times < bearable(why) {
            return None;
        }
        let times = std::mem::take(&mut said.times);
        said.reported = Some(now);
        Some(Event::Refused { peer, address, why, times })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_report_for_many_and_no_memory_for_ever_new_names() {
        let mut reports = Reports::default();
        let now = Instant::now();
        let peer = Some(PeerKey::new([1; 32]));
        let times = |event: Option<Event>| match event {
            Some(Event::Refused { times, .. }) => times,
            _ => 0,
        };
        assert_eq!(times(reports.note(peer, None, Refusal::Unknown, now)), 1);
        for _ in 0..100 {
            assert_eq!(times(reports.note(peer, None, Refusal::Unknown, now)), 0);
        }
        assert_eq!(times(reports.note(peer, None, Refusal::Unknown, now + QUIET)), 101);
        let handshake = |reports: &mut Reports| times(reports.note(peer, None, Refusal::Handshake, now));
        assert_eq!(
            (0..10).map(|_| handshake(&mut reports)).collect::<Vec<_>>()[8..],
            [0, 10],
            "bearable at first"
        );
        let mut said = 0;
        for number in 0..10_000_u32 {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            let event = reports.note(Some(PeerKey::new(key)), None, Refusal::Unknown, now + QUIET);
            said += usize::from(event.is_some());
        }
        assert!(said <= KNOWN_MAX + 1, "{said}");
        assert!(reports.known.len() <= KNOWN_MAX + 1);
    }
}
