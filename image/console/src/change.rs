//! A change of the network settings: tried, then confirmed, or taken back by itself.
//!
//! Order of a trial: it is noted below `/run`, then systemd-networkd gets its files, then it is told. Only what is confirmed
//! goes to the data partition. So a power cut during a trial brings the former settings back, as time does.
//! Refuses to do: try something while something else is being tried; keep what was not confirmed in time.
//! Invariants: the settings that count change in one step; each change, fall-back and loss is in the record once they do.

use crate::networkd;
use crate::place::{Places, remove, replace};
use anyhow::{Context as _, Result, bail};
use bulla_formats::json;
use bulla_formats::network::{SETTINGS_BYTES_MAX, Settings};
use bulla_formats::network_record::{By, Change, Changes, DETAIL_BYTES_MAX, Event};
use serde_json::{Value, json};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

const TRIAL: &str = "network-trial/v1";

/// The settings that count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Those, or the network as delivered.
    pub settings: Settings,
    /// Why the file is not believed.
    pub damage: Option<String>,
}

/// Settings that are being tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// Which.
    pub settings: Settings,
    /// Since when (Unix milliseconds, the machine's clock).
    pub began_millis: u64,
    /// Until when: milliseconds since the machine started, so that a clock that is set neither shortens nor lengthens it.
    pub until_boottime: u64,
}

/// Reads the settings that count. A file that is damaged is as one that is not there, and is named.
pub fn kept(places: &Places) -> Kept {
    match fs::read(&places.settings) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Kept { settings: Settings::default(), damage: None }
        }
        Err(error) => Kept { settings: Settings::default(), damage: Some(error.to_string()) },
        Ok(file) => match Settings::parse(&file) {
            Ok(settings) => Kept { settings, damage: None },
            Err(fault) => Kept { settings: Settings::default(), damage: Some(fault.sentence) },
        },
    }
}

/// What is being tried. A note that cannot be read is a trial that is over.
pub fn trial(places: &Places) -> Option<Trial> {
    let file = match fs::read(&places.trial) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(_) => Vec::new(),
    };
    let over = Trial { settings: kept(places).settings, began_millis: 0, until_boottime: 0 };
    Some(read_trial(&file).unwrap_or(over))
}

fn read_trial(file: &[u8]) -> Option<Trial> {
    let object = json::parse(file, 2 * SETTINGS_BYTES_MAX).ok()?;
    let number = |name: &str| object.get(name).and_then(Value::as_u64);
    (object.get("bulla")?.as_str()? == TRIAL).then_some(())?;
    Some(Trial {
        settings: Settings::from_object(object.get("settings")?).ok()?,
        began_millis: number("beganMillis")?,
        until_boottime: number("untilBoottimeMillis")?,
    })
}

/// Puts these settings into force for so many milliseconds.
///
/// # Errors
/// Something is being tried already; or they could not be applied, and the former ones are back.
pub fn begin(places: &Places, settings: &Settings, millis: u64) -> Result<()> {
    if trial(places).is_some() {
        bail!("other settings are being tried");
    }
    let trial = json!({
        "bulla": TRIAL,
        "settings": settings.object(),
        "beganMillis": now_millis(),
        "untilBoottimeMillis": boottime_millis().saturating_add(millis),
    });
    replace(&places.trial, trial.to_string().as_bytes())?;
    let applied = networkd::write(places, settings).and_then(|()| networkd::apply(places, settings));
    if let Err(error) = applied {
        let back = match fall_back(places, "they could not be applied") {
            Ok(()) => "the settings could not be applied, and the former ones are back",
            Err(_) => "the settings could not be applied, nor the former ones, which the next start has",
        };
        return Err(error.context(back));
    }
    Ok(())
}

/// Makes what is being tried the settings that count.
///
/// # Errors
/// Nothing is being tried, or its time is over; or it cannot be saved, and is tried on.
pub fn confirm(places: &Places) -> Result<()> {
    let trial = trial(places).context("nothing is being tried")?;
    if trial.until_boottime <= boottime_millis() {
        bail!("the time to confirm is over");
    }
    let before = kept(places).settings;
    replace(&places.settings, trial.settings.encode().as_bytes())?;
    remove(&places.damage)?;
    record(places, |now| Change {
        began_millis: trial.began_millis.min(now),
        before: Some(before),
        ..change(Event::Changed, By::Console, now, trial.settings.clone(), "confirmed at the console")
    })?;
    remove(&places.trial)
}

/// Puts the settings that count back into force.
///
/// # Errors
/// systemd-networkd does not take them; they are what the next start takes.
pub fn fall_back(places: &Places, why: &str) -> Result<()> {
    let tried = trial(places);
    let settings = kept(places).settings;
    let applied = networkd::write(places, &settings).and_then(|()| networkd::apply(places, &settings));
    if let Some(tried) = tried {
        let recorded = record(places, |now| Change {
            began_millis: tried.began_millis.min(now),
            before: Some(tried.settings),
            ..change(Event::FellBack, By::Console, now, settings, why)
        });
        // It is over, also where nobody can be told.
        remove(&places.trial)?;
        recorded?;
    }
    applied
}

/// When the machine starts: hands the settings that count to systemd-networkd, before it starts; gives a sentence when they
/// are damaged.
///
/// # Errors
/// The files cannot be written.
pub fn start(places: &Places) -> Result<Option<String>> {
    let kept = kept(places);
    networkd::write(places, &kept.settings)?;
    let Some(damage) = kept.damage else {
        remove(&places.damage)?;
        return Ok(None);
    };
    replace(&places.damage, damage.as_bytes())?;
    // Once, and not at every start until somebody sets them anew.
    if read_changes(places).all().last().map(|last| last.event) != Some(Event::Damaged) {
        record(places, |now| change(Event::Damaged, By::Start, now, Settings::default(), &damage))?;
    }
    Ok(Some(format!("the network settings are not believed, and DHCP is used: {damage}")))
}

/// Takes the settings from a stick, for a box that is not in service yet: checked, kept and applied at once.
///
/// # Errors
/// One sentence on what is wrong with them; nothing was changed.
pub fn take(places: &Places, file: &Path) -> Result<Settings> {
    let bytes = fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let settings = Settings::parse_written(&bytes).with_context(|| format!("{}", file.display()))?;
    if let Err(sentence) = networkd::fits(places, &settings) {
        bail!("{}: {sentence}", file.display());
    }
    let Kept { settings: before, damage } = kept(places);
    if before != settings || damage.is_some() {
        replace(&places.settings, settings.encode().as_bytes())?;
        remove(&places.damage)?;
        record(places, |now| Change {
            before: Some(before),
            ..change(
                Event::Changed,
                By::Stick,
                now,
                settings.clone(),
                "the stick that takes the box into service",
            )
        })?;
    }
    networkd::write(places, &settings)?;
    networkd::apply(places, &settings)?;
    Ok(settings)
}

fn change(event: Event, by: By, now: u64, after: Settings, why: &str) -> Change {
    let mut detail: String =
        why.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    while detail.len() > DETAIL_BYTES_MAX {
        detail.pop();
    }
    Change { number: 0, event, by, began_millis: now, at_millis: now, before: None, after, detail }
}

/// A record that cannot be read is begun anew: its numbers start again, which the log shows.
fn read_changes(places: &Places) -> Changes {
    fs::read(&places.changes).ok().and_then(|file| Changes::parse(&file)).unwrap_or_default()
}

fn record(places: &Places, change: impl FnOnce(u64) -> Change) -> Result<()> {
    let mut changes = read_changes(places);
    changes.add(change(now_millis()));
    replace(&places.changes, changes.encode().as_bytes())
}

/// Unix milliseconds, the machine's clock.
fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Milliseconds since the machine started, sleep included.
pub fn boottime_millis() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or_default() * 1_000
        + u64::try_from(time.tv_nsec).unwrap_or_default() / 1_000_000
}
