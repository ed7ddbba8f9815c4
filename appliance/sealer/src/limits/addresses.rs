//! What one address may do before it has shown a good credential: open connections, ask, and guess.
//!
//! An address is an IPv4 address, or the /64 of an IPv6 address, which is what one subscriber is given.
//! Refuses to do: remember without limit. Beyond [`ADDRESSES_MAX`] the rest share one budget, so that somebody
//! with very many addresses shuts out newcomers at worst, and never costs memory.
//! Invariant: the count of an address is that of its living [`ConnectionPlace`]s.

use super::{pause, quota, seconds};
use crate::config::LimitsConfig;
use crate::problem::{Kind, Problem};
use governor::{DefaultKeyedRateLimiter, RateLimiter};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Most addresses with a budget of their own.
pub const ADDRESSES_MAX: usize = 65_536;
/// So many seconds' worth may be spent at once after a pause.
const BURST_SECONDS: u32 = 10;
/// After so many questions budgets that are whole again are forgotten.
const FORGET_EVERY: u64 = 16_384;
/// Stands for all addresses beyond [`ADDRESSES_MAX`]; no client has it.
const THE_REST: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Counts and budgets by address.
pub struct Addresses {
    connections_max: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    arrivals: Option<Rate>,
    anonymous: Option<Rate>,
    /// Connections closed because their address had too many.
    pub refused_open: AtomicU64,
    /// Connections closed because their address opened them too fast.
    pub refused_arrivals: AtomicU64,
}

struct Rate {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    asked: AtomicU64,
}

/// Why a connection is closed before anything was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionRefusal {
    /// Too many are open.
    Open,
    /// They come too fast.
    Arrivals,
}

/// A connection's place among those of its address.
#[derive(Debug)]
pub struct ConnectionPlace {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    key: IpAddr,
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.key);
            }
        }
    }
}

impl Addresses {
    /// Nobody has come yet.
    pub fn new(config: &LimitsConfig) -> Self {
        Addresses {
            connections_max: config.address_connections_max,
            open: Arc::default(),
            arrivals: Rate::new(config.address_connections_per_second),
            anonymous: Rate::new(config.anonymous_requests_per_second),
            refused_open: AtomicU64::new(0),
            refused_arrivals: AtomicU64::new(0),
        }
    }

    /// Gives a new connection its place.
    pub fn connect(&self, address: IpAddr) -> Result<ConnectionPlace, ConnectionRefusal> {
        let key = key(address);
        // The count comes first: an address that is full anyway must not spend its rate on being told so.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.get(&key).copied().unwrap_or(0);
        if self.connections_max > 0 && count >= self.connections_max {
            self.refused_open.fetch_add(1, Relaxed);
            return Err(ConnectionRefusal::Open);
        }
        if self.arrivals.as_ref().is_some_and(|rate| rate.spend(key).is_err()) {
            self.refused_arrivals.fetch_add(1, Relaxed);
            return Err(ConnectionRefusal::Arrivals);
        }
        open.insert(key, count + 1);
        Ok(ConnectionPlace { open: self.open.clone(), key })
    }

    /// Counts a request without a good credential; 429 when its address makes too many.
    pub fn anonymous(&self, address: IpAddr) -> Result<(), Problem> {
        let Some(rate) = &self.anonymous else { return Ok(()) };
        rate.spend(key(address)).map_err(|seconds| {
            let detail = "too many requests without a good credential came from this address; nothing was done; wait, \
                          and send the token of `scanner add`";
            Problem::new(Kind::RateLimited, detail).retry_after(seconds)
        })
    }
}

impl Rate {
    fn new(rate: u32) -> Option<Self> {
        let quota = quota(rate, rate.saturating_mul(BURST_SECONDS))?;
        Some(Rate { limiter: RateLimiter::keyed(quota), asked: AtomicU64::new(0) })
    }

    /// Spends one; seconds to wait when there is none.
    fn spend(&self, mut key: IpAddr) -> Result<(), u32> {
        if self.asked.fetch_add(1, Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.limiter.retain_recent();
        }
        if self.limiter.len() >= ADDRESSES_MAX {
            key = THE_REST;
        }
        self.limiter.check_key(&key).map_err(|refused| seconds(pause(&refused)))
    }
}

/// What counts as one address.
pub fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !0xffff_ffff_ffff_ffff)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(connections: usize, arrivals: u32, anonymous: u32) -> Addresses {
        Addresses::new(&LimitsConfig {
            address_connections_max: connections,
            address_connections_per_second: arrivals,
            anonymous_requests_per_second: anonymous,
            ..LimitsConfig::default()
        })
    }

    #[test]
    fn connections_are_counted_by_address_and_by_64_of_ipv6() {
        let addresses = addresses(2, 0, 0);
        let from = |text: &str| addresses.connect(text.parse().unwrap());
        let held = [from("192.0.2.1").unwrap(), from("::ffff:192.0.2.1").unwrap()];
        assert_eq!(from("192.0.2.1").unwrap_err(), ConnectionRefusal::Open);
        let _other = from("192.0.2.2").unwrap();
        let _subnet = [from("2001:db8::1").unwrap(), from("2001:db8::ffff:1").unwrap()];
        assert!(from("2001:db8::2").is_err());
        assert!(from("2001:db8:0:1::2").is_ok());
        drop(held);
        assert!(from("192.0.2.1").is_ok());
        assert_eq!(addresses.refused_open.load(Relaxed), 2);
        assert!(!addresses.open.lock().unwrap().contains_key(&"192.0.2.1".parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn rates_have_a_burst_and_an_end() {
        let addresses = addresses(0, 1, 1);
        let guesser: IpAddr = "192.0.2.1".parse().unwrap();
        let guesses = (0..100).filter(|_| addresses.anonymous(guesser).is_ok()).count();
        assert!((10..100).contains(&guesses), "{guesses}");
        assert!(addresses.anonymous("192.0.2.2".parse().unwrap()).is_ok());
        let places: Vec<_> = (0..100).filter_map(|_| addresses.connect(guesser).ok()).collect();
        assert!((10..100).contains(&places.len()), "{}", places.len());
        assert_eq!(addresses.connect(guesser).unwrap_err(), ConnectionRefusal::Arrivals);
    }
}
