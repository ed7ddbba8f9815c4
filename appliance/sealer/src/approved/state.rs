//! What becomes of configurations that the fleet's people approved: which one is in force, which one is being tried, which
//! one did not do. No clock, no disk; `configuration.json` keeps it.
//!
//! Refuses to do: read what a file says; try one that was refused again.
//! Invariants: what is in force has brought a start to its end; a file is tried [`TRIES`] times at most; a version of the
//! roster before the last that was gone by changes nothing.

use bulla_formats::hash::{Hash, sha256};
use serde::{Deserialize, Serialize};

/// Starts that a configuration may take to prove itself.
pub const TRIES: u32 = 2;
const FORMAT: &str = "box-configuration/v1";
/// Longest reason, in bytes.
const WHY_MAX: usize = 500;

/// A configuration, as a version of the roster names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Named {
    /// The version of the roster.
    pub roster: u64,
    /// The file's text; none: the one that lies on the box.
    pub text: Option<String>,
}

/// One that is being tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Trial {
    /// Which.
    pub named: Named,
    /// Starts begun with it.
    pub starts: u32,
}

/// One that did not do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Refused {
    /// The version of the roster that names it.
    pub roster: u64,
    /// SHA-256 of the file, in hex; none: the one that lies on the box.
    pub file: Option<String>,
    /// Why.
    pub why: String,
    /// When (Unix milliseconds).
    pub at_millis: u64,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct State {
    bulla: String,
    /// In force; roster 0 and no text before any was.
    pub in_force: Named,
    /// Being tried.
    pub trial: Option<Trial>,
    /// The last one that did not do.
    pub refused: Option<Refused>,
}

impl Default for State {
    fn default() -> Self {
        State {
            bulla: FORMAT.to_owned(),
            in_force: Named { roster: 0, text: None },
            trial: None,
            refused: None,
        }
    }
}

impl Named {
    /// SHA-256 of the file; none: the one that lies on the box.
    pub fn hash(&self) -> Option<Hash> {
        self.text.as_ref().map(|text| sha256(&[text.as_bytes()]))
    }
}

impl State {
    /// Whether it is of this format.
    pub fn is_known(&self) -> bool {
        self.bulla == FORMAT
    }

    /// Which one a command goes by, and the box unless it starts: the one being tried, once a start has begun with it.
    pub fn current(&self) -> &Named {
        match &self.trial {
            Some(trial) if trial.starts > 0 => &trial.named,
            _ => &self.in_force,
        }
    }

    /// What people approved last and the box has taken.
    fn newest(&self) -> &Named {
        self.trial.as_ref().map_or(&self.in_force, |trial| &trial.named)
    }

    /// What people approved last is what the box refuses.
    pub fn is_refused(&self) -> bool {
        self.refused.as_ref().is_some_and(|refused| refused.roster > self.newest().roster)
    }

    /// What the box wants, when version `roster` of the roster names `file` for it: `None`, nothing.
    pub fn wants(&self, roster: u64, file: Option<Hash>) -> Option<Wanted> {
        let newest = self.newest();
        let refused = self.refused.as_ref().is_some_and(|refused| {
            refused.roster == roster && refused.file == file.map(|hash| hash.to_string())
        });
        if roster < newest.roster || refused {
            return None;
        }
        if newest.hash() == file {
            // They have come round to what is in force; nobody refuses anything any more.
            let later = self.refused.as_ref().is_some_and(|refused| refused.roster < roster);
            return (self.trial.is_none() && self.is_refused() && later).then_some(Wanted::AsItIs);
        }
        Some(file.map_or(Wanted::OnTheBox, Wanted::File))
    }

    /// Version `roster` names what is in force.
    pub fn agree(&mut self, roster: u64) {
        self.in_force.roster = self.in_force.roster.max(roster);
    }

    /// Takes one to be tried at the next start.
    pub fn take(&mut self, named: Named) {
        self.trial = (named.text != self.in_force.text).then_some(Trial { named: named.clone(), starts: 0 });
        if self.trial.is_none() {
            self.in_force = named;
        }
    }

    /// The box starts: by which configuration. One that has had its tries is given up.
    pub fn start(&mut self, now_millis: u64) -> &Named {
        if let Some(trial) = self.trial.take() {
            if trial.starts >= TRIES {
                let why = format!("{TRIES} starts with it did not come to their end");
                self.refused = Some(refused(&trial.named, &why, now_millis));
            } else {
                self.trial = Some(Trial { starts: trial.starts + 1, ..trial });
            }
        }
        self.current()
    }

    /// The start has come to its end. Returns whether that proves a new one.
    pub fn proven(&mut self) -> bool {
        match self.trial.take() {
            Some(trial) if trial.starts > 0 => {
                self.in_force = trial.named;
                true
            }
            // Taken since, for the next start.
            trial => {
                self.trial = trial;
                false
            }
        }
    }

    /// This one is not tried, or no more.
    pub fn refuse(&mut self, named: &Named, why: &str, now_millis: u64) {
        self.trial = self.trial.take().filter(|trial| trial.named != *named);
        self.refused = Some(refused(named, why, now_millis));
    }
}

fn refused(named: &Named, why: &str, at_millis: u64) -> Refused {
    let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let end = (0..=why.len().min(WHY_MAX)).rev().find(|at| why.is_char_boundary(*at)).unwrap_or(0);
    let file = named.hash().map(|hash| hash.to_string());
    Refused { roster: named.roster, file, why: why[..end].to_owned(), at_millis }
}

/// What the box wants of people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The file with this hash.
    File(Hash),
    /// To go by the file that lies on it again.
    OnTheBox,
    /// To be told that they name what is in force, instead of what it refused.
    AsItIs,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(roster: u64, text: &str) -> Named {
        Named { roster, text: (!text.is_empty()).then(|| text.to_owned()) }
    }

    fn hash(text: &str) -> Option<Hash> {
        named(0, text).hash()
    }

    #[test]
    fn what_proves_itself_is_in_force() {
        let mut state = State::default();
        assert_eq!(*state.start(1), named(0, ""));
        assert!(!state.proven());
        assert_eq!(state.wants(3, None), None);
        assert_eq!(state.wants(3, hash("a")), hash("a").map(Wanted::File));
        state.take(named(3, "a"));
        // Whoever asks before the next start is told what is in force.
        assert_eq!(*state.current(), named(0, ""));
        assert_eq!(state.wants(3, hash("a")), None);
        assert!(!state.proven(), "the start before does not prove it");
        assert_eq!(*state.start(2), named(3, "a"));
        assert_eq!(*state.current(), named(3, "a"));
        assert!(state.proven());
        assert_eq!((&state.in_force, &state.trial), (&named(3, "a"), &None));
        // The roster goes on; an older one changes nothing.
        assert_eq!(state.wants(7, hash("a")), None);
        assert_eq!(state.wants(2, hash("b")), None);
        assert_eq!(state.wants(7, None), Some(Wanted::OnTheBox));
        state.take(named(7, ""));
        assert_eq!(*state.start(3), named(7, ""));
        assert!(state.proven());
        assert_eq!(state.wants(6, hash("a")), None);
    }

    #[test]
    fn what_does_not_start_is_given_up_and_not_tried_again() {
        let mut state = State::default();
        state.take(named(3, "a"));
        assert!(state.start(1).text.is_some() && state.proven());
        state.take(named(4, "b"));
        for _ in 0..TRIES {
            assert_eq!(*state.start(2), named(4, "b"));
        }
        assert_eq!(*state.start(9), named(3, "a"));
        let refused = state.refused.clone().unwrap();
        assert_eq!(
            (refused.roster, refused.file, refused.at_millis),
            (4, hash("b").map(|hash| hash.to_string()), 9)
        );
        assert_eq!(state.wants(4, hash("b")), None);
        assert!(!state.proven());
        assert_eq!(*state.start(10), named(3, "a"));
        // People may say it again, or something else.
        assert!(state.is_refused());
        assert_eq!(state.wants(5, hash("b")), hash("b").map(Wanted::File));
        assert_eq!(state.wants(5, hash("c")), hash("c").map(Wanted::File));
        // Or come round to what is in force: then nothing is refused any more.
        assert_eq!([state.wants(3, hash("a")), state.wants(4, hash("a"))], [None, None]);
        assert_eq!(state.wants(5, hash("a")), Some(Wanted::AsItIs));
        let mut agreed = state.clone();
        agreed.agree(5);
        assert!(!agreed.is_refused());
        assert_eq!([agreed.wants(5, hash("a")), agreed.wants(6, hash("a"))], [None, None]);
        state.take(named(6, "c"));
        assert!(!state.is_refused(), "while the next one is tried");
        assert_eq!(state.wants(6, hash("c")), None);
    }

    #[test]
    fn the_newest_word_takes_the_place_of_one_that_waits() {
        let mut state = State::default();
        state.take(named(3, "a"));
        assert_eq!(state.wants(4, hash("b")), hash("b").map(Wanted::File));
        state.take(named(4, "b"));
        assert_eq!(state.trial.as_ref().map(|trial| trial.named.roster), Some(4));
        // Back to what is in force: there is nothing to try.
        assert_eq!(state.wants(5, None), Some(Wanted::OnTheBox));
        state.take(named(5, ""));
        assert_eq!((&state.trial, state.in_force.roster), (&None, 5));
        state.refuse(&named(6, "c"), "it\nhas no listen", 3);
        assert_eq!(state.refused.as_ref().map(|refused| refused.why.as_str()), Some("it has no listen"));
        assert_eq!(state.wants(6, hash("c")), None);
        let long = "ä".repeat(400);
        state.refuse(&named(7, "d"), &long, 3);
        assert!(state.refused.as_ref().is_some_and(|refused| refused.why.len() <= WHY_MAX));
    }
}
