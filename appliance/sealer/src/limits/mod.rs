//! What one client and one address may ask of the box, decided before a body is read.
//!
//! A client is known by its name after authentication, an address by its IPv4 address or IPv6 /64. Rates are GCRA
//! (`governor`), numbers at one time are semaphores. A request is let in or refused at once; only refusals wait, and
//! only when there are very many ([`Limits::slow_down`], [`Limits::slow_down_overload`]): ten thousand refusals a
//! second would cost the others more than the requests.
//! Refuses to do: hold up a good credential for what others do from the same address; label anything with names.
//! Invariants: memory is bounded by the registered clients and by [`addresses::ADDRESSES_MAX`]; an [`Admission`]
//! holds its places until it is dropped.

mod addresses;
mod descriptors;
mod warnings;

pub use addresses::{Addresses, ConnectionPlace, key as one_address};
pub use descriptors::fit_connections;
pub use warnings::Warnings;

use crate::clients::ClientLimits;
use crate::config::LimitsConfig;
use crate::problem::{Kind, Problem};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, NotUntil, Quota, RateLimiter};
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a refusal waits whose client does not keep to `Retry-After`. A client that waits for its answers makes no more
/// than ten requests a second a connection then.
const HAMMERING_PAUSE: Duration = Duration::from_millis(100);
/// Refusals a second of one client that are answered at once.
const REFUSALS_AT_ONCE: u32 = 100;

/// What a 503 waits when there are more than [`OVERLOADED_AT_ONCE`] a second. A box that is short of processor time
/// gains it back from refusals that are not made: clients that wait for their answers ask less often.
const OVERLOADED_PAUSE: Duration = Duration::from_secs(1);
/// 503 answers a second that are given at once.
const OVERLOADED_AT_ONCE: u32 = 1_000;

/// Limits of clients and addresses.
pub struct Limits {
    config: LimitsConfig,
    clients: Mutex<HashMap<String, Arc<Budget>>>,
    /// Connections and requests without a good credential.
    pub addresses: Addresses,
    overloaded: Option<DefaultDirectRateLimiter>,
}

/// What is left to one client.
struct Budget {
    /// What the limiter was made for; an operator may change it while the box runs.
    rate: u32,
    limiter: Option<DefaultDirectRateLimiter>,
    refusals: Option<DefaultDirectRateLimiter>,
    requests: Option<Arc<Semaphore>>,
    uploads: Option<Arc<Semaphore>>,
}

/// Leave for one request of a client, and its place among the client's requests.
#[derive(Debug)]
pub struct Admission {
    uploads: Option<Arc<Semaphore>>,
    document_bytes_max: u64,
    _request: Option<OwnedSemaphorePermit>,
}

impl Admission {
    /// Largest document of this client in bytes.
    pub fn document_bytes_max(&self) -> u64 {
        self.document_bytes_max
    }

    /// A place among the client's documents on their way in; `None` when they are not limited.
    pub fn upload(&self) -> Result<Option<OwnedSemaphorePermit>, Problem> {
        place(self.uploads.as_ref(), "documents are on their way in from this client")
    }
}

impl Limits {
    /// Nothing has been asked yet.
    pub fn new(config: &LimitsConfig) -> Self {
        Limits {
            config: config.clone(),
            clients: Mutex::default(),
            addresses: Addresses::new(config),
            overloaded: quota(OVERLOADED_AT_ONCE, OVERLOADED_AT_ONCE).map(RateLimiter::direct),
        }
    }

    /// Lets a request of `client` with limits of its `own` in, or refuses it with 429.
    pub fn admit(&self, client: &str, own: &ClientLimits) -> Result<Admission, Problem> {
        let budget = self.budget(client, own);
        if let Some(limiter) = &budget.limiter {
            limiter.check().map_err(|refused| {
                let detail = format!(
                    "this client may make {} requests a second in the long run and has made more; nothing was done; \
                     send it again after the pause, or ask the operator for `bulla-box scanner limit`",
                    budget.rate
                );
                Problem::new(Kind::RateLimited, detail).retry_after(seconds(pause(&refused)))
            })?;
        }
        Ok(Admission {
            _request: place(budget.requests.as_ref(), "requests of this client are being answered")?,
            uploads: budget.uploads.clone(),
            document_bytes_max: own.document_bytes_max.unwrap_or(self.config.document_bytes_max),
        })
    }

    /// Holds a refusal back when its client has been refused too often; call it before the answer.
    pub async fn slow_down(&self, client: &str, own: &ClientLimits) {
        let budget = self.budget(client, own);
        if budget.refusals.as_ref().is_some_and(|refusals| refusals.check().is_err()) {
            tokio::time::sleep(HAMMERING_PAUSE).await;
        }
    }

    /// Holds a 503 back when there are too many; call it before the answer.
    pub async fn slow_down_overload(&self) {
        if self.overloaded.as_ref().is_some_and(|overloaded| overloaded.check().is_err()) {
            tokio::time::sleep(OVERLOADED_PAUSE).await;
        }
    }

    /// Names are never given twice, so that a budget always belongs to the same client.
    fn budget(&self, client: &str, own: &ClientLimits) -> Arc<Budget> {
        let rate = own.requests_per_second.unwrap_or(self.config.client_requests_per_second);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let known = clients.get(client);
        if let Some(budget) = known.filter(|budget| budget.rate == rate) {
            return budget.clone();
        }
        // A rate of its own has a burst in the same proportion as everybody's.
        let default = self.config.client_requests_per_second;
        let burst = if rate == default || default == 0 {
            self.config.client_requests_burst
        } else {
            let scaled = u64::from(rate) * u64::from(self.config.client_requests_burst) / u64::from(default);
            u32::try_from(scaled).unwrap_or(u32::MAX)
        };
        let at_a_time = |most: usize| (most > 0).then(|| Arc::new(Semaphore::new(most)));
        let budget = Arc::new(Budget {
            rate,
            limiter: quota(rate, burst).map(RateLimiter::direct),
            refusals: quota(REFUSALS_AT_ONCE, REFUSALS_AT_ONCE).map(RateLimiter::direct),
            requests: match known {
                Some(known) => known.requests.clone(),
                None => at_a_time(self.config.client_requests_max),
            },
            uploads: match known {
                Some(known) => known.uploads.clone(),
                None => at_a_time(self.config.client_uploads_max),
            },
        });
        clients.insert(client.to_owned(), budget.clone());
        budget
    }
}

fn place(places: Option<&Arc<Semaphore>>, what: &str) -> Result<Option<OwnedSemaphorePermit>, Problem> {
    let Some(places) = places else { return Ok(None) };
    places.clone().try_acquire_owned().map(Some).map_err(|_| {
        let detail = format!("too many {what}; nothing was done; wait for their answers, then send it again");
        Problem::new(Kind::RateLimited, detail).retry_after(1)
    })
}

/// `None`: no limit.
fn quota(rate: u32, burst: u32) -> Option<Quota> {
    let rate = NonZeroU32::new(rate)?;
    Some(Quota::per_second(rate).allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN)))
}

fn pause(refused: &NotUntil<std::time::Instant>) -> Duration {
    refused.wait_time_from(DefaultClock::default().now())
}

/// `Retry-After` has whole seconds; a shorter pause would be refused again.
fn seconds(pause: Duration) -> u32 {
    let whole = u32::try_from(pause.as_secs()).unwrap_or(u32::MAX);
    (whole + u32::from(pause.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(change: impl FnOnce(&mut LimitsConfig)) -> Limits {
        let mut config = LimitsConfig::default();
        change(&mut config);
        Limits::new(&config)
    }

    #[test]
    fn one_client_cannot_spend_what_another_has() {
        let limits = limits(|config| {
            // A second is long for a test: nothing comes back while it runs.
            (config.client_requests_per_second, config.client_requests_burst) = (1, 5);
        });
        let usual = ClientLimits::default();
        let mut refused = None;
        for _ in 0..20 {
            refused = refused.or(limits.admit("mad", &usual).err());
        }
        let refused = refused.unwrap();
        assert_eq!(refused.kind(), Kind::RateLimited);
        assert!(limits.admit("calm", &usual).is_ok());
        // An operator's word counts from the next request on, and back.
        let free = ClientLimits { requests_per_second: Some(0), document_bytes_max: Some(7) };
        let admitted = limits.admit("mad", &free).unwrap();
        assert_eq!(admitted.document_bytes_max(), 7);
        assert_eq!(limits.admit("calm", &usual).unwrap().document_bytes_max(), 1 << 30);
    }

    #[test]
    fn places_come_back_when_requests_end() {
        let limits = limits(|config| (config.client_requests_max, config.client_uploads_max) = (2, 1));
        let admit = || limits.admit("a", &ClientLimits::default());
        let (first, second) = (admit().unwrap(), admit().unwrap());
        assert_eq!(admit().unwrap_err().kind(), Kind::RateLimited);
        let upload = first.upload().unwrap();
        assert_eq!(second.upload().unwrap_err().kind(), Kind::RateLimited);
        drop((first, upload));
        assert!(second.upload().unwrap().is_some());
        assert!(admit().is_ok());
    }

    #[test]
    fn pauses_are_whole_seconds_and_never_too_short() {
        for (pause, expected) in [(0, 1), (1, 1), (999, 1), (1_000, 1), (1_001, 2), (60_000, 60)] {
            assert_eq!(seconds(Duration::from_millis(pause)), expected, "{pause}");
        }
    }
}
