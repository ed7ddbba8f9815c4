//! What the box cannot help: the WAN, authorities and their quotas, clocks, the TPM, the power.

use crate::rng::Rng;
use bulla_protocol::anchoring::Quota;
use bulla_protocol::authority::Failure;
use bulla_protocol::time::{Bounds, TpmClock};

pub const SECOND: u64 = 1_000;
pub const MINUTE: u64 = 60 * SECOND;
pub const HOUR: u64 = 60 * MINUTE;
pub const YEAR: u64 = 365 * 24 * HOUR;
/// True time when a run begins, in milliseconds since 1970.
pub const EPOCH: u64 = 1_700_000_000_000;

/// A service that is there, or not.
pub struct Authority {
    pub up: bool,
    pub lying: bool,
    pub quota: Quota,
    /// Number of the certificate that it stamps with.
    pub signer: u32,
    /// Certificates that its CA lists, for having been compromised.
    pub listed: Vec<u32>,
    /// Whether a look at it only connects, and sees no stamp.
    pub mute: bool,
    /// When questions got here.
    arrivals: Vec<u64>,
    /// How it fails while it is away.
    pub failure: Failure,
}

impl Authority {
    /// A question gets here. `Err`: it was asked beyond its quota.
    fn asked(&mut self, now: u64) -> Result<(), String> {
        self.arrivals.push(now);
        let within = self.arrivals.iter().rev().take_while(|at| now - **at < self.quota.period).count();
        if within > self.quota.requests as usize {
            return Err(format!(
                "{within} questions within {} ms, {:?} allowed",
                self.quota.period, self.quota
            ));
        }
        Ok(())
    }
}

/// The wall clock, the steady clock and the TPM's clock, as functions of the true time.
pub struct Clocks {
    wall_offset: i64,
    boot: u8,
    booted: u64,
    drift_ppm: i64,
    tpm_base: u64,
    tpm_rate_ppm: i64,
    resets: u32,
}

fn drifted(elapsed: u64, ppm: i64) -> u64 {
    let drift = i128::from(elapsed) * i128::from(ppm) / 1_000_000;
    (i128::from(elapsed) + drift) as u64
}

impl Clocks {
    pub fn new(rng: &mut Rng) -> Self {
        let mut clocks = Clocks {
            wall_offset: 0,
            boot: 0,
            booted: 0,
            drift_ppm: 0,
            tpm_base: rng.between(0, YEAR),
            tpm_rate_ppm: 0,
            resets: 3,
        };
        clocks.power_on(rng, 0);
        clocks
    }

    /// Power comes back: a new boot, another temperature, and the TPM forgot up to 70 minutes.
    pub fn power_on(&mut self, rng: &mut Rng, now: u64) {
        self.boot += 1;
        self.booted = now;
        self.drift_ppm = rng.either_way(95);
        self.tpm_rate_ppm = rng.either_way(140_000);
        self.resets += 1;
        if rng.one_in(3) {
            self.wall_offset = rng.either_way(YEAR);
        }
    }

    pub fn power_off(&mut self, rng: &mut Rng, now: u64) {
        let clean = rng.one_in(2);
        let forgotten = if clean { 0 } else { rng.between(0, 70 * MINUTE) };
        self.tpm_base = self.tpm(now).clock.saturating_sub(forgotten);
    }

    pub fn jump(&mut self, rng: &mut Rng) {
        self.wall_offset = match rng.between(0, 3) {
            0 => 0,
            1 => YEAR as i64,
            2 => -(YEAR as i64),
            _ => rng.either_way(HOUR),
        };
    }

    pub fn wall(&self, now: u64) -> u64 {
        (EPOCH + now).saturating_add_signed(self.wall_offset)
    }

    pub fn boot(&self) -> [u8; 16] {
        [self.boot; 16]
    }

    /// Milliseconds since the boot; 0 while the power is off.
    pub fn steady(&self, now: u64) -> u64 {
        drifted(now.saturating_sub(self.booted), self.drift_ppm)
    }

    /// The true time at which the steady clock has come so far.
    pub fn when(&self, steady: u64) -> u64 {
        let mut at = self.booted + drifted(steady, -self.drift_ppm);
        while self.steady(at) < steady {
            at += 1;
        }
        at
    }

    pub fn tpm(&self, now: u64) -> TpmClock {
        let clock = self.tpm_base + drifted(now.saturating_sub(self.booted), self.tpm_rate_ppm);
        TpmClock { clock, reset_count: self.resets, restart_count: 0, safe: true }
    }
}

/// What became of a question.
pub struct Answer {
    /// How long it took; `None`: nobody will ever say.
    pub after: Option<u64>,
    pub result: Result<Bounds, Failure>,
    /// The certificate of the stamp, if there is one.
    pub signer: u32,
    /// How long it wants to be left alone.
    pub retry_after: Option<u64>,
    /// The token was a lie, found out by verifying it.
    pub lie: Option<Bounds>,
}

pub struct Nature {
    pub wan: bool,
    pub authorities: Vec<Authority>,
    pub clocks: Clocks,
    /// No more faults: everything is up and honest.
    pub calm: bool,
}

impl Nature {
    pub fn new(rng: &mut Rng, authorities: usize) -> Self {
        let authority = |rng: &mut Rng| Authority {
            up: !rng.one_in(4),
            lying: false,
            quota: Quota { requests: rng.pick(&[20, 5, 3]) as u32, period: 20 * MINUTE },
            signer: 0,
            listed: Vec::new(),
            mute: rng.one_in(2),
            arrivals: Vec::new(),
            failure: Failure::Timeout,
        };
        let authorities = (0..authorities).map(|_| authority(rng)).collect();
        Nature { wan: !rng.one_in(4), authorities, clocks: Clocks::new(rng), calm: false }
    }

    /// How long the next spell of good or bad weather lasts: flapping, minutes, hours.
    pub fn spell(rng: &mut Rng) -> u64 {
        match rng.between(0, 9) {
            0..=3 => rng.between(SECOND, MINUTE),
            4..=7 => rng.between(MINUTE, 30 * MINUTE),
            8 => rng.between(30 * MINUTE, 3 * HOUR),
            _ => rng.between(HOUR, 12 * HOUR),
        }
    }

    pub fn turn_wan(&mut self) {
        self.wan = self.calm || !self.wan;
    }

    pub fn turn_authority(&mut self, rng: &mut Rng, place: usize) {
        let authority = &mut self.authorities[place];
        authority.up = self.calm || !authority.up;
        authority.lying = !self.calm && rng.one_in(5);
        authority.failure = rng.pick(&Failure::ALL);
    }

    /// Its key was taken: the CA lists the certificate. Or it has a new one at last.
    pub fn turn_signer(&mut self, place: usize) {
        let authority = &mut self.authorities[place];
        if authority.listed.contains(&authority.signer) {
            authority.signer += 1;
        } else if !self.calm {
            authority.listed.push(authority.signer);
        }
    }

    pub fn clear_up(&mut self) {
        self.calm = true;
        self.wan = true;
        for authority in &mut self.authorities {
            (authority.up, authority.lying) = (true, false);
            if authority.listed.contains(&authority.signer) {
                authority.signer += 1;
            }
        }
    }

    /// A probe or a question; only a question counts against the quota.
    pub fn ask(&mut self, rng: &mut Rng, place: usize, now: u64, counts: bool) -> Result<Answer, String> {
        let authority = &mut self.authorities[place];
        let signer = authority.signer;
        if !self.wan || !authority.up {
            let quick = rng.one_in(2);
            let failure = if quick { authority.failure } else { Failure::Timeout };
            let after = if quick { Some(rng.between(1, 500)) } else { Some(10 * SECOND) };
            // Some failures nobody reports; the planner has its own deadline.
            let after = after.filter(|_| !(counts && rng.one_in(4)));
            return Ok(Answer { after, result: Err(failure), signer, retry_after: None, lie: None });
        }
        let slow = |rng: &mut Rng| !self.calm && rng.one_in(20);
        let on_the_way = if slow(rng) { rng.between(0, 9 * SECOND) } else { rng.between(5, 300) };
        if counts {
            authority.asked(now + on_the_way)?;
        }
        let back = if slow(rng) { rng.between(0, 15 * SECOND) } else { rng.between(5, 300) };
        let (error, accuracy) = (rng.between(0, 900), 1_000);
        let said = EPOCH + now + on_the_way + error - 450;
        let bounds = Bounds { lo: said - accuracy, hi: said + accuracy };
        let took = on_the_way + back;
        if authority.lying {
            let lie = rng.between(HOUR, YEAR);
            let lie = Bounds { lo: bounds.lo - lie, hi: bounds.hi - lie };
            return Ok(Answer {
                after: Some(took),
                result: Err(Failure::BadAnswer),
                signer,
                retry_after: None,
                lie: Some(lie),
            });
        }
        if counts && !self.calm && took < 5 * SECOND && rng.one_in(20) {
            // It is there, and busy.
            let failure = rng.pick(&[Failure::Quota, Failure::HttpStatus]);
            let retry_after = Some(rng.between(30 * SECOND, 20 * MINUTE));
            return Ok(Answer { after: Some(took), result: Err(failure), signer, retry_after, lie: None });
        }
        if took >= 10 * SECOND {
            return Ok(Answer {
                after: Some(10 * SECOND),
                result: Err(Failure::Timeout),
                signer,
                retry_after: None,
                lie: None,
            });
        }
        Ok(Answer { after: Some(took), result: Ok(bounds), signer, retry_after: None, lie: None })
    }
}
