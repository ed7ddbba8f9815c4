//! What follows a log that was retrieved: a `succession` entry that names its newest known head.
//!
//! On the box whose log it was (keys survived), a new incarnation begins with that entry; on a box that takes the place of
//! another one, its own log, which goes on, says so.
//! Refuses to do: name a head whose entries are not here.

use super::{HeldBy, Retrieved};
use crate::config::Config;
use crate::identity::{self, Identity};
use anyhow::{Context as _, Result, ensure};
use bulla_formats::body::TEXT_BYTES_MAX;
use bulla_formats::body::succession::{Cause, SuccessionBody};
use bulla_formats::origin::Origin;

/// What has begun.
pub enum Followed {
    /// The box has a new log.
    Log(identity::Created),
    /// An entry of the box's log says it.
    Entry(u64),
}

/// Begins what follows the log `of`.
///
/// # Errors
/// The TPM's, the disk's; a box of a fleet gets a new log from its fleet only.
pub fn follow(
    config: &Config,
    own: Identity,
    of: &Origin,
    retrieved: &Retrieved,
    reason: &str,
) -> Result<Followed> {
    let is_own = own.origin == *of;
    let reason = format!("{reason}; {}", known(retrieved, is_own.then_some(&own)));
    ensure!(
        reason.len() <= TEXT_BYTES_MAX,
        "--reason is too long by {} bytes",
        reason.len() - TEXT_BYTES_MAX
    );
    if is_own {
        own.keys.shutdown();
        let created = identity::succeed_lost(config, retrieved.head.clone(), &reason)?;
        return Ok(Followed::Log(created));
    }
    let body = SuccessionBody {
        predecessor: of.to_string(),
        head: retrieved.head.clone(),
        // An earlier log of this very box, which was enrolled again, or the log of another one.
        cause: if of.box_id() == own.origin.box_id() { Cause::LostDisk } else { Cause::Replaced },
        reason,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Outside of the runtime, so that the neighbours are not asked once more.
    let sealer = crate::driver::start(config, own).context("the log of this box cannot be opened")?;
    let logged = runtime.block_on(sealer.log_succession(&body));
    runtime.block_on(sealer.close());
    Ok(Followed::Entry(logged?))
}

/// What is known of the end of that log, for those who read the entry.
fn known(retrieved: &Retrieved, own: Option<&Identity>) -> String {
    let mut known = match &retrieved.held_by {
        HeldBy::Neighbours(holders) => {
            let cosigned = holders.iter().filter(|(_, roles)| !roles.is_empty()).count();
            format!("held by {} neighbour(s), {cosigned} of which cosigned it", holders.len())
        }
        HeldBy::Archive => "held by the archive of a hub".to_owned(),
    };
    if let Some(size) = retrieved.beyond {
        known += &format!("; a head of {size} entries was signed");
    }
    let now = own.and_then(|own| own.keys.counter().ok().flatten());
    match (now, retrieved.counter) {
        (Some(now), Some(then)) if now > then => {
            known +=
                &format!("; TPM counter {now}, in the newest entries {then}: the log went on after them");
        }
        (Some(now), Some(_)) => known += &format!("; TPM counter {now}, as in the newest entries"),
        (Some(now), None) => known += &format!("; TPM counter {now}, in no entry that is here"),
        (None, _) => {}
    }
    known
}
