//! Passwords: which are good enough, how they are kept and checked.
//!
//! Argon2id with the parameters of OWASP's first choice that fits a small box (19 MiB, two passes). Length is what makes a
//! password good (NIST SP 800-63B); nobody is asked for digits or signs.
//! Refuses to do: hash on a thread that serves connections, or more than [`AT_ONCE`] at a time: each takes 19 MiB.
//! Invariant: whether a name is known takes as long to find out as whether a password is right.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// Fewest characters.
pub const CHARACTERS_MIN: usize = 12;
/// Most bytes; more would only cost time.
pub const BYTES_MAX: usize = 256;
/// Fewest different characters.
const DIFFERENT_MIN: usize = 6;
/// Hashes made at one time.
const AT_ONCE: usize = 2;
/// How long a hash waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug)]
pub enum HashError {
    /// Too many want one.
    Busy,
    /// The library refused.
    Failed(String),
}

/// What is wrong with a new password, for the person who chose it.
pub fn weakness(name: &str, password: &str) -> Option<&'static str> {
    let mut characters: Vec<char> = password.chars().collect();
    if characters.len() < CHARACTERS_MIN {
        return Some("a password has at least 12 characters; a sentence of four or five words is good");
    }
    if password.len() > BYTES_MAX {
        return Some("a password has at most 256 bytes");
    }
    if password.to_lowercase().contains(&name.to_lowercase()) && name.len() >= 4 {
        return Some("the password contains the name it is for; choose another");
    }
    characters.sort_unstable();
    characters.dedup();
    if characters.len() < DIFFERENT_MIN {
        return Some("the password repeats few characters; choose another");
    }
    None
}

/// Makes and checks hashes, a few at a time.
pub struct Passwords {
    places: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        Passwords { places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Passwords {
    /// The PHC string of a password, under a fresh salt.
    pub async fn hash(&self, password: Zeroizing<String>) -> Result<String, HashError> {
        self.run(move || hash(&password)).await?
    }

    /// Whether the password is the one of this PHC string. Without one the same work is done, and the answer is no.
    pub async fn is(&self, password: Zeroizing<String>, phc: Option<String>) -> Result<bool, HashError> {
        self.run(move || {
            let known = phc.is_some();
            let phc = phc.as_deref().or(NOBODY.as_deref()).unwrap_or_default();
            let right = PasswordHash::new(phc)
                .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok());
            known && right
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HashError> {
        let place = timeout(PATIENCE, self.places.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(HashError::Busy) };
        let work = move || {
            let _place = place;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| HashError::Failed(error.to_string()))
    }
}

/// Of a password that nobody has.
static NOBODY: LazyLock<Option<String>> = LazyLock::new(|| hash("nobody's password").ok());

fn hash(password: &str) -> Result<String, HashError> {
    let made = Argon2::default().hash_password(password.as_bytes());
    made.map(|hash| hash.to_string()).map_err(|error| HashError::Failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_itself_and_nothing_else() {
        let passwords = Passwords::default();
        let text = |text: &str| Zeroizing::new(text.to_owned());
        let phc = passwords.hash(text("four words and a tree")).await.unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert!(passwords.is(text("four words and a tree"), Some(phc.clone())).await.unwrap());
        assert!(!passwords.is(text("four words and a trees"), Some(phc)).await.unwrap());
        assert!(!passwords.is(text("nobody's password"), None).await.unwrap());
        assert!(!passwords.is(text(""), Some("no hash".to_owned())).await.unwrap());
    }

    #[test]
    fn short_and_simple_passwords_are_refused() {
        for weak in ["", "elevenchars", "aaaaaaaaaaaaaaaa", "m.keller is my name", &"long ".repeat(60)] {
            assert!(weakness("m.keller", weak).is_some(), "{weak}");
        }
        for good in ["four words and a tree", "\u{fc}ber den W\u{e4}ldern", "kzvtmwqpxrbn"] {
            assert_eq!(weakness("m.keller", good), None, "{good}");
        }
    }
}
