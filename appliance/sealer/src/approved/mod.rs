//! Configurations that the fleet's people approved (docs/formats.md section 15, *Configurations*): taken, tried at the next
//! start, in force once that start has come to its end, given up when it does not.
//!
//! `<state>/configuration.json` keeps them, with a checksum; the file that `--config` names says where that is, and is gone
//! by as long as nothing else was approved.
//! Refuses to do: take a file that no roster names for this box, that the box would not accept, or that moves the box to
//! another directory, fleet or TPM; keep a box from starting because `configuration.json` is damaged: it then goes by the
//! file that lies on it, and asks for the other one anew.
//! Invariant: nothing is tried before it is on the disk that it is.

mod running;

mod state;

pub use running::taken;
pub use state::{Named, State, Wanted};

use crate::config::Config;
use crate::driver::clock::now_millis;
use crate::list_file::{ListFile, Locked};
use crate::{identity, peers, trust};
use anyhow::{Context as _, Result, bail, ensure};
use bulla_formats::checked_json;
use bulla_formats::hash::{Hash, sha256};
use bulla_keys::Provider;
use bulla_roster::roster::Roster;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Longest configuration file that is taken, in bytes.
pub const FILE_BYTES_MAX: usize = 65_536;
/// Exit code of a box that stops to start again with another configuration.
pub const RESTART: u8 = 75;
const NAME: &str = "configuration";

/// The state of a state directory, under a lock.
struct Kept {
    file: ListFile,
    lock: Locked,
    state: State,
}

fn fault(fault: &crate::list_file::Fault) -> anyhow::Error {
    anyhow::anyhow!("{}: {}", fault.path.display(), fault.source)
}

impl Kept {
    fn open(state_dir: &Path) -> Result<Self> {
        let file = ListFile::new(state_dir, NAME);
        let lock = file.lock().map_err(|error| fault(&error))?;
        let state = believed(state_dir);
        Ok(Kept { file, lock, state })
    }

    fn keep(&self) -> Result<()> {
        self.file.replace(&self.lock, text(&self.state)?.as_bytes()).map_err(|error| fault(&error))
    }
}

/// The text of the file.
///
/// # Errors
/// None for a state that was read.
pub fn text(state: &State) -> Result<String> {
    Ok(checked_json::with_checksum(&serde_json::to_string_pretty(state)?))
}

/// A state in the bytes of its file.
///
/// # Errors
/// They are damaged, or of another format.
pub fn parse(bytes: &[u8]) -> Result<State> {
    let state: State = serde_json::from_slice(&checked_json::body(bytes)?).context("it is damaged")?;
    ensure!(state.is_known(), "it is of another format; use a newer bulla-box");
    Ok(state)
}

/// What is kept in a state directory.
///
/// # Errors
/// It is there and not believed.
pub fn read(state_dir: &Path) -> Result<State> {
    let file = ListFile::new(state_dir, NAME);
    if file.stamp().map_err(|error| fault(&error))?.is_none() {
        return Ok(State::default());
    }
    let bytes = file.read().map_err(|error| fault(&error))?;
    parse(&bytes).with_context(|| format!("{} is not believed", file.path().display()))
}

/// The same; where it is not believed, it is as if nothing had been approved.
fn believed(state_dir: &Path) -> State {
    read(state_dir).unwrap_or_else(|error| {
        eprintln!("bulla-box: {error:#}: the box goes by the configuration that lies on it");
        State::default()
    })
}

/// The same for the status page; `None` where nothing was ever approved.
pub fn status(state_dir: &Path) -> Option<Value> {
    match read(state_dir) {
        Ok(state) if state == State::default() => None,
        Ok(state) => Some(facts(&state)),
        Err(error) => Some(
            json!({"inForce": {"file": null, "roster": null}, "waits": null, "refused": null, "damaged": format!("{error:#}")}),
        ),
    }
}

/// What no approved configuration changes: where the box is, and whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    state_dir: PathBuf,
    fleet: String,
    provider: Provider,
}

impl Place {
    /// That of a box with this configuration.
    pub fn of(config: &Config) -> Self {
        Place {
            state_dir: config.state_dir.clone(),
            fleet: config.identity.fleet.clone(),
            provider: config.provider(),
        }
    }

    /// Where its state is.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The configuration in `text`.
    fn read(&self, text: &str) -> Result<Config> {
        let config = Config::parse(text)?;
        ensure!(
            Place::of(&config) == *self,
            "state_dir, identity.fleet, and where the keys live ([tpm] tcti, or [software]) stay as in the file that lies on the box"
        );
        Ok(config)
    }
}

/// The configuration that `named` says, beside the one that lies on the box.
fn meant(named: &Named, on_the_box: &Config) -> Result<Config> {
    match &named.text {
        Some(text) => Place::of(on_the_box).read(text),
        None => Ok(on_the_box.clone()),
    }
}

/// A state as `bulla-box configuration show` and the status page tell it.
pub fn facts(state: &State) -> Value {
    let file = |hash: Option<String>| hash.map(|hash| format!("sha256:{hash}"));
    let named = |named: &Named| {
        json!({
            "file": file(named.hash().map(|hash| hash.to_string())),
            "roster": (named.roster > 0).then_some(named.roster),
        })
    };
    json!({
        "inForce": named(&state.in_force),
        "waits": state.trial.as_ref().map(|trial| named(&trial.named)),
        "refused": state.refused.as_ref().map(|refused| json!({
            "file": file(refused.file.clone()),
            "roster": refused.roster,
            "why": refused.why,
            "atMillis": refused.at_millis,
        })),
    })
}

/// The configuration that a command goes by.
///
/// # Errors
/// What is kept is not understood any more.
pub fn current(on_the_box: &Config) -> Result<Config> {
    let state = believed(&on_the_box.state_dir);
    meant(state.current(), on_the_box).context("the configuration that the fleet's people approved")
}

/// The configuration that the box starts with. One that was taken is tried, unless the disk does not keep that it is.
///
/// # Errors
/// As [`current`].
pub fn start(on_the_box: Config) -> Result<Config> {
    if believed(&on_the_box.state_dir) == State::default() {
        return Ok(on_the_box);
    }
    let mut kept = Kept::open(&on_the_box.state_dir)?;
    let before = kept.state.clone();
    loop {
        let named = kept.state.start(now_millis()).clone();
        match meant(&named, &on_the_box) {
            Ok(config) if kept.state == before => return Ok(config),
            Ok(config) => match kept.keep() {
                Ok(()) => return Ok(config),
                // A full disk keeps nobody from sealing; what nobody can note is not tried.
                Err(error) => {
                    eprintln!("bulla-box: that another configuration is tried cannot be kept: {error:#}");
                    return meant(&before.in_force, &on_the_box);
                }
            },
            // A program that is older than the one that took it.
            Err(error) if kept.state.trial.is_some() => {
                kept.state.refuse(&named, &format!("{error:#}"), now_millis());
            }
            Err(error) => return Err(error).context("the configuration that the fleet's people approved"),
        }
    }
}

/// The box has started; what it was started with is in force from now on.
///
/// # Errors
/// The disk does not keep it; the next start tries again.
pub fn proven(state_dir: &Path) -> Result<()> {
    if believed(state_dir).trial.is_none() {
        return Ok(());
    }
    let mut kept = Kept::open(state_dir)?;
    if kept.state.proven() {
        kept.keep()?;
        let named = &kept.state.in_force;
        log::info!(
            roster = named.roster;
            "the configuration of version {} of the roster has proven itself", named.roster
        );
    }
    Ok(())
}

/// What version `roster` of the roster has this box want.
pub fn wants(state_dir: &Path, roster: u64, file: Option<Hash>) -> Option<Wanted> {
    believed(state_dir).wants(roster, file)
}

/// Keeps that version `roster` names what is in force.
///
/// # Errors
/// The disk does not keep it.
pub fn agree(state_dir: &Path, roster: u64) -> Result<()> {
    let mut kept = Kept::open(state_dir)?;
    kept.state.agree(roster);
    kept.keep()
}

/// Whether what people approved last is what the box refuses; `None` where they never approved anything.
pub fn is_refused(state_dir: &Path) -> Option<bool> {
    let state = read(state_dir).ok()?;
    (state != State::default()).then(|| state.is_refused())
}

/// Takes a configuration that version `roster` names, for the next start: `file` is the file's bytes, none where it names
/// none. One that this box would not accept is noted as refused.
///
/// # Errors
/// It is not accepted; or the disk does not keep it.
pub fn take(place: &Place, roster: u64, file: Option<&[u8]>) -> Result<()> {
    let mut kept = Kept::open(&place.state_dir)?;
    let named = match file {
        None => Named { roster, text: None },
        Some(bytes) => {
            ensure!(bytes.len() <= FILE_BYTES_MAX, "the file is longer than {FILE_BYTES_MAX} bytes");
            let text = std::str::from_utf8(bytes).context("the file is no text in UTF-8")?;
            Named { roster, text: Some(text.to_owned()) }
        }
    };
    if let Some(Err(error)) = named.text.as_ref().map(|text| place.read(text)) {
        kept.state.refuse(&named, &format!("{error:#}"), now_millis());
        kept.keep()?;
        return Err(error).context("this box does not accept the configuration");
    }
    kept.state.take(named);
    kept.keep()
}

/// Which file the roster names for this box, and the version that said so.
///
/// # Errors
/// There is no roster, it is not believed, or this box is not in it.
pub fn named_by(config: &Config, given: Option<&[u8]>) -> Result<(u64, Option<Hash>)> {
    let (root, origin, hardware) = identity::fleet_root(config)?;
    let on_disk = peers::roster_on_disk(&config.state_dir, origin.fleet());
    let refused = |error: bulla_roster::RosterRefusal| {
        anyhow::anyhow!("the roster is refused ({}): {error}", error.code())
    };
    let roster = match (given, on_disk) {
        (Some(bytes), on_disk) => {
            let roster = Roster::decode(bytes).map_err(refused)?;
            if let Ok(Some(held)) = on_disk {
                roster.check_seen(held.roster.version()).map_err(refused)?;
            }
            roster
        }
        (None, Ok(Some(held))) => held.roster,
        (None, Ok(None)) => bail!("this box has no roster of {}; name one with --roster", origin.fleet()),
        (None, Err(why)) => bail!("the roster on this disk is not believed ({why}); name one with --roster"),
    };
    roster.check_root(&trust::of_fleet(origin.fleet(), root, hardware, None)).map_err(refused)?;
    of_log(&roster, origin.as_str())
        .with_context(|| format!("the roster of {} knows no box with the log {origin}", origin.fleet()))
}

/// Which file a roster names for the box of this log. Without one: since it begins.
pub fn of_log(roster: &Roster, origin: &str) -> Option<(u64, Option<Hash>)> {
    let mut boxes = roster.inventory().boxes();
    let listed = boxes.find(|listed| listed.all_logs().any(|log| log.origin == origin))?;
    let number = roster.version().number;
    Some(
        listed
            .configuration
            .as_ref()
            .map_or((number, None), |(version, file)| (*version, Some(Hash(**file)))),
    )
}

/// What the roster that is kept of `fleet` has the box of the log `origin` want, and the version that said so.
///
/// # Errors
/// The roster is not believed.
pub fn wanted(place: &Place, fleet: &str, origin: &str) -> Result<Option<(u64, Wanted)>> {
    let held = peers::roster_on_disk(&place.state_dir, fleet).map_err(|why| anyhow::anyhow!("{why}"))?;
    let named = held.and_then(|held| of_log(&held.roster, origin));
    Ok(named.and_then(|(version, file)| Some((version, wants(&place.state_dir, version, file)?))))
}

/// That `bytes` are the file with this hash.
///
/// # Errors
/// They are not.
pub fn check_file(bytes: &[u8], file: &Hash) -> Result<()> {
    let found = sha256(&[bytes]);
    ensure!(found == *file, "the file is sha256:{found}, and the roster names sha256:{file}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn lying(state_dir: &Path) -> String {
        format!(
            "state_dir = {:?}\n[identity]\nfleet = \"bank.example\"\nnames = [\"localhost\"]\n[software]\naccept = true\n",
            state_dir.display()
        )
    }

    fn with_limit(state_dir: &Path, bytes: u64) -> String {
        lying(state_dir) + &format!("[limits]\ndocument_bytes_max = {bytes}\n")
    }

    fn limit(config: &Config) -> u64 {
        config.limits.document_bytes_max
    }

    #[test]
    fn what_was_taken_is_tried_and_kept_or_left() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path();
        let config = Config::parse(&lying(state)).unwrap();
        let (place, usual) = (Place::of(&config), limit(&config));
        assert_eq!(limit(&start(config.clone()).unwrap()), usual);
        assert!(!state.join("configuration.json").exists(), "a box that nobody configures keeps nothing");
        take(&place, 3, Some(with_limit(state, 4_096).as_bytes())).unwrap();
        assert_eq!(limit(&current(&config).unwrap()), usual, "it waits");
        assert_eq!(limit(&start(config.clone()).unwrap()), 4_096);
        assert_eq!(limit(&current(&config).unwrap()), 4_096, "commands go by what runs");
        proven(state).unwrap();
        assert_eq!(limit(&start(config.clone()).unwrap()), 4_096);
        // Refused before it is tried: not understood, not text, too long, another box.
        let moved = with_limit(state, 9).replace("bank.example", "other.example");
        let long = "#".repeat(FILE_BYTES_MAX + 1);
        for bad in [b"colour = 1".as_slice(), b"\xff", long.as_bytes(), moved.as_bytes()] {
            assert!(take(&place, 4, Some(bad)).is_err());
            assert_eq!(limit(&start(config.clone()).unwrap()), 4_096);
        }
        // Two starts that do not come to their end.
        take(&place, 5, Some(with_limit(state, 5_000).as_bytes())).unwrap();
        assert_eq!(
            [limit(&start(config.clone()).unwrap()), limit(&start(config.clone()).unwrap())],
            [5_000; 2]
        );
        assert_eq!(limit(&start(config.clone()).unwrap()), 4_096);
        assert_eq!(read(state).unwrap().refused.unwrap().roster, 5);
        take(&place, 6, None).unwrap();
        assert_eq!(limit(&start(config).unwrap()), usual);
    }

    #[test]
    fn a_disk_that_keeps_nothing_or_lies_keeps_nobody_from_starting() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path();
        let config = Config::parse(&lying(state)).unwrap();
        let (place, usual) = (Place::of(&config), limit(&config));
        let (record, fresh) = (state.join("configuration.json"), state.join("configuration.json.new"));
        // The write is lost: nothing was taken, and the next look takes it.
        fs::create_dir(&fresh).unwrap();
        assert!(take(&place, 3, Some(with_limit(state, 4_096).as_bytes())).is_err());
        assert_eq!(read(state).unwrap(), State::default());
        fs::remove_dir(&fresh).unwrap();
        take(&place, 3, Some(with_limit(state, 4_096).as_bytes())).unwrap();
        // That it is tried cannot be noted: it is not tried, however often.
        fs::create_dir(&fresh).unwrap();
        for _ in 0..4 {
            assert_eq!(limit(&start(config.clone()).unwrap()), usual);
        }
        fs::remove_dir(&fresh).unwrap();
        assert_eq!(limit(&start(config.clone()).unwrap()), 4_096);
        // That it has proven itself is lost: the next start tries it again.
        fs::create_dir(&fresh).unwrap();
        assert!(proven(state).is_err());
        fs::remove_dir(&fresh).unwrap();
        assert_eq!(limit(&start(config.clone()).unwrap()), 4_096);
        proven(state).unwrap();
        // That people came round to it is lost: the next look at the roster finds it again.
        fs::create_dir(&fresh).unwrap();
        assert!(agree(state, 9).is_err());
        fs::remove_dir(&fresh).unwrap();
        assert_eq!(read(state).unwrap().in_force.roster, 3);
        // Every bit of the record counts; a damaged one is as if nothing had been approved, and is asked for again.
        let whole = fs::read(&record).unwrap();
        let Wanted::File(file) = State::default().wants(3, Some(sha256(&[b"x"]))).unwrap() else {
            panic!("a file")
        };
        for at in 0..whole.len() * 8 {
            let mut bent = whole.clone();
            bent[at / 8] ^= 1 << (at % 8);
            assert!(parse(&bent).is_err(), "bit {at}");
        }
        fs::write(&record, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(limit(&start(config.clone()).unwrap()), usual);
        assert_eq!(wants(state, 3, Some(file)), Some(Wanted::File(file)));
        take(&place, 3, Some(with_limit(state, 4_096).as_bytes())).unwrap();
        assert_eq!(limit(&start(config).unwrap()), 4_096);
        for other in [
            "{}",
            "{\"bulla\":\"box-configuration/v2\",\"inForce\":{\"roster\":0,\"text\":null},\"trial\":null,\"refused\":null}",
        ] {
            assert!(parse(checked_json::with_checksum(other).as_bytes()).is_err(), "{other}");
        }
    }
}
