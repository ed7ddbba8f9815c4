//! Sessions: who is logged in, since when, and until when.
//!
//! A session is a random text that only its browser has; here it is known by its SHA-256. It ends when nothing was done in
//! it for a while, when it has lasted its time, when the person logs out, when anything about the person changes, and when
//! the box stops: sessions are in memory only.
//! Refuses to do: lengthen a session for what a page asks by itself.
//! Invariant: at most [`OF_ONE_PERSON`] sessions of a person at a time; the oldest gives way.

use super::Person;
use crate::random;
use bulla_formats::hash::sha256;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Sessions of one person: a desk, a phone, and those that were never logged out of.
const OF_ONE_PERSON: usize = 4;

/// SHA-256 of a session's text.
type Key = [u8; 32];

/// All sessions.
pub struct Sessions {
    open: Mutex<HashMap<Key, Kept>>,
    idle: Duration,
    longest: Duration,
}

struct Kept {
    session: Session,
    began: Instant,
    used: Instant,
}

/// One session, as whoever asks in it is known.
#[derive(Clone)]
pub struct Session {
    key: Key,
    /// Who.
    pub person: Arc<Person>,
    /// What the log calls the person.
    pub label: Arc<str>,
    /// What a page of the console sends with everything that changes something, and no other site knows.
    pub proof: Arc<str>,
}

impl fmt::Debug for Session {
    /// Without what opens it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({})", self.label)
    }
}

impl Sessions {
    /// None yet; each ends after `idle` without use and after `longest` in any case.
    pub fn new(idle: Duration, longest: Duration) -> Self {
        Sessions { open: Mutex::default(), idle, longest }
    }

    /// How long a session lasts without use.
    pub fn idle(&self) -> Duration {
        self.idle
    }

    /// Begins a session; returns the text that the browser keeps.
    pub fn begin(&self, person: Arc<Person>, now: Instant) -> Result<(Zeroizing<String>, Session), String> {
        let (text, proof) = (random::text::<32>("")?, random::text::<32>("")?);
        let (key, label) = (key(&text), person.label().into());
        let session = Session { key, person, label, proof: proof.as_str().into() };
        let mut open = self.open(now);
        let number = session.person.number;
        while open.values().filter(|kept| kept.session.person.number == number).count() >= OF_ONE_PERSON {
            let own = open.iter().filter(|(_, kept)| kept.session.person.number == number);
            let Some(oldest) = own.min_by_key(|(_, kept)| kept.used).map(|(key, _)| *key) else { break };
            open.remove(&oldest);
        }
        open.insert(key, Kept { session: session.clone(), began: now, used: now });
        Ok((text, session))
    }

    /// The session of this text; `used` when a person did something in it.
    pub fn find(&self, text: &str, used: bool, now: Instant) -> Option<Session> {
        let mut open = self.open(now);
        let kept = open.get_mut(&key(text))?;
        if used {
            kept.used = now;
        }
        Some(kept.session.clone())
    }

    /// Whether it has not ended.
    pub fn is_open(&self, session: &Session, now: Instant) -> bool {
        self.open(now).contains_key(&session.key)
    }

    /// Ends it.
    pub fn end(&self, session: &Session) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&session.key);
    }

    /// All that have not ended.
    fn open(&self, now: Instant) -> MutexGuard<'_, HashMap<Key, Kept>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (idle, longest) = (self.idle, self.longest);
        open.retain(|_, kept| now - kept.used < idle && now - kept.began < longest);
        open
    }
}

/// The hash, not the text, is looked up: timing has nothing to tell.
fn key(text: &str) -> Key {
    sha256(&[b"bulla/session/v1\0", text.as_bytes()]).0
}

#[cfg(test)]
mod tests {
    use super::super::{Credential, Duty};
    use super::*;

    fn person(number: u32) -> Arc<Person> {
        let credential = Credential::Password { phc: String::new() };
        let (name, duty) = (format!("p{number}"), Duty::Clerk);
        Arc::new(Person { number, name, duty, credential, created_millis: 0, removed_millis: None })
    }

    #[test]
    fn a_session_ends_by_itself() {
        let (idle, longest) = (Duration::from_secs(60), Duration::from_secs(600));
        let (sessions, begun) = (Sessions::new(idle, longest), Instant::now());
        let (text, session) = sessions.begin(person(1), begun).unwrap();
        let after = |seconds: u64| begun + Duration::from_secs(seconds);
        assert!(sessions.find(&text, true, after(50)).is_some());
        // What the page asks by itself does not count as use.
        assert!(sessions.find(&text, false, after(100)).is_some());
        assert!(sessions.is_open(&session, after(109)) && !sessions.is_open(&session, after(110)));
        let (text, _) = sessions.begin(person(1), begun).unwrap();
        assert!((1..20).all(|half| sessions.find(&text, true, after(30 * half)).is_some()));
        assert!(sessions.find(&text, true, after(600)).is_none());
    }

    #[test]
    fn the_oldest_session_of_a_person_gives_way() {
        let hour = Duration::from_secs(3_600);
        let (sessions, begun) = (Sessions::new(hour, hour), Instant::now());
        let other = sessions.begin(person(2), begun).unwrap().1;
        let all: Vec<Session> =
            (0..6).map(|at| sessions.begin(person(1), begun + Duration::from_secs(at)).unwrap().1).collect();
        let now = begun + Duration::from_secs(10);
        let open: Vec<bool> = all.iter().map(|session| sessions.is_open(session, now)).collect();
        assert_eq!(open, [false, false, true, true, true, true]);
        assert!(sessions.is_open(&other, now));
        sessions.end(&all[5]);
        assert!(!sessions.is_open(&all[5], now) && sessions.find("no such text", true, now).is_none());
    }
}
