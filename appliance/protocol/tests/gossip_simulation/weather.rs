//! How fast things happen to a site: in minutes, with everything at once, or in weeks, mostly with nothing at all.
//!
//! Time in which nothing happens costs nothing: the world goes from one happening to the next.

use crate::rng::Rng;
use bulla_protocol::gossip::GossipConfig;

pub const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// From, to.
pub type Span = (u64, u64);

/// Milliseconds, all of it.
#[derive(Clone)]
pub struct Weather {
    /// How long the network is bad.
    pub rough: u64,
    /// How long everything has to become right again once it has healed.
    pub calm: u64,
    /// When appending ends, that long after the network has healed.
    pub quiet: u64,
    pub first: u64,
    pub append: Span,
    pub lie: Span,
    pub crash: Span,
    /// How long a box is down.
    pub down: Span,
    pub strike: Span,
    pub struck: Span,
    pub links: Links,
    /// A box dies at one effect in so many, and a disk fails at one write in so many.
    pub death: u64,
    pub disk: u64,
    pub config: GossipConfig,
}

/// What happens to cables.
#[derive(Clone)]
pub enum Links {
    /// Each comes and goes by itself: after at most so long, or once in three times so long.
    Each(u64, u64),
    /// All are there but for parts of the site that are cut off: every so often, for so long.
    Parts(Span, Span),
}

impl Weather {
    /// A site of boxes that have everything happen to them within minutes.
    pub fn of_minutes(seed: u64, rng: &mut Rng) -> Self {
        Weather {
            rough: 20_000 + seed % 7 * 10_000,
            calm: 150 * SECOND,
            quiet: 20 * SECOND,
            first: 3 * SECOND,
            append: (100, 4 * SECOND),
            lie: (200, 3 * SECOND),
            crash: (SECOND, 60 * SECOND),
            down: (50, 5 * SECOND),
            strike: (10 * SECOND, 80 * SECOND),
            struck: (100, 20 * SECOND),
            links: Links::Each(6 * SECOND, 40 * SECOND),
            death: 900,
            disk: 30,
            config: GossipConfig {
                heads_every: 8 * SECOND,
                timeout: 2 * SECOND,
                backoff_max: 10 * SECOND,
                liar_pause: 40 * SECOND,
                start_wait: 3 * SECOND,
                entry_every: 10 * SECOND,
                chunk: rng.pick(&[3, 10, 4_096]),
                lamport_cap: 1_000,
                challenge_every: 20 * SECOND,
                challenge_outage: 8 * SECOND,
                quote_gap: 3 * SECOND,
                ..GossipConfig::default()
            },
        }
    }

    /// Two weeks and more of a large site, and the box's own times but for two: what each holds is asked for less often, and so are quotes.
    pub fn of_weeks(seed: u64) -> Self {
        Weather {
            rough: (14 + seed % 8) * DAY,
            calm: 2 * DAY,
            quiet: HOUR,
            first: DAY,
            append: (2 * HOUR, 46 * HOUR),
            lie: (4 * HOUR, 44 * HOUR),
            crash: (DAY, 20 * DAY),
            down: (MINUTE, 8 * HOUR),
            strike: (2 * DAY, 30 * DAY),
            struck: (MINUTE, DAY),
            links: Links::Parts((HOUR, 3 * DAY), (MINUTE, DAY)),
            death: 50_000,
            disk: 300,
            config: GossipConfig {
                heads_every: 3 * HOUR,
                challenge_every: DAY,
                challenge_outage: 6 * HOUR,
                ..GossipConfig::default()
            },
        }
    }
}
