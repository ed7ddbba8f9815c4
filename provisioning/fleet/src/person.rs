//! People: a directory with a custodian's or operator's keys, and the card they hand out.
//!
//! Refuses to do: overwrite keys, show them, or use a directory of the other duty.
//! Invariant: `person.key` is readable by its owner alone and its card was signed by it.

use crate::exit::{Exit, Failure};
use crate::files;
use age::secrecy::ExposeSecret;
use age::x25519;
use bulla_ceremony::custodian::Identity;
use bulla_ceremony::wire::{Card, Duty};
use bulla_formats::der::{self, Octets32};
use bulla_formats::trust::fingerprint;
use clap::{Args, ValueEnum};
use ed25519_dalek::SigningKey;
use rasn::{AsnType, Decode, Decoder, Encode};
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, Zeroizing};

/// File with a person's keys.
const KEY: &str = "person.key";
/// File to hand out.
const CARD: &str = "card";
const KEY_BYTES_MAX: usize = 4 << 10;

/// What a person does.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum DutyName {
    /// Holds a share of the fleet root
    Custodian,
    /// Approves dangerous actions
    Operator,
}

/// Arguments of `bulla-fleet person`.
#[derive(Debug, Args)]
pub struct PersonArgs {
    /// The person's own directory, best on a stick that only they have; made if it is not there
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// Name as it will stand in the transcript
    #[arg(long)]
    name: String,
    /// What the person does
    #[arg(long, value_enum, default_value = "custodian")]
    duty: DutyName,
}

/// `person.key`: docs/formats.md, "Key ceremony".
#[derive(AsnType, Decode, Encode)]
struct PersonKey {
    version: u64,
    duty: Duty,
    name: String,
    signing: Octets32,
    opening: Option<String>,
}

impl Drop for PersonKey {
    fn drop(&mut self) {
        self.signing.zeroize();
        if let Some(opening) = &mut self.opening {
            opening.zeroize();
        }
    }
}

/// Makes a person's keys and card.
pub fn run(args: &PersonArgs) -> Result<Exit, Failure> {
    let duty = match args.duty {
        DutyName::Custodian => Duty::Custodian,
        DutyName::Operator => Duty::Operator,
    };
    let card = create(&args.dir, duty, &args.name)?;
    let bytes = der::encode(&card);
    crate::say(&format!(
        "{} is the card of {}. Hand it to whoever leads the ceremony and read out its fingerprint: {}\n\
         {} stays with {}; whoever has it can act as {}.\n",
        args.dir.join(CARD).display(),
        args.name,
        fingerprint(&bytes),
        args.dir.join(KEY).display(),
        args.name,
        args.name
    ));
    Ok(Exit::Ok)
}

/// Makes keys in `dir`, which must not have any.
pub fn create(dir: &Path, duty: Duty, name: &str) -> Result<Card, Failure> {
    files::make_private_dir(dir)?;
    let _alone = files::Lock::take(dir)?;
    let path = dir.join(KEY);
    if path.exists() {
        return Err(Failure::usage(format!(
            "{} holds keys already; choose another directory",
            path.display()
        )));
    }
    let signing = crate::random()?;
    let opening = (duty == Duty::Custodian).then(x25519::Identity::generate);
    let key = PersonKey {
        version: 1,
        duty,
        name: name.to_owned(),
        signing: Octets32::new(*signing),
        opening: opening.as_ref().map(|opening| opening.to_string().expose_secret().to_owned()),
    };
    let recipient = opening.map(|identity| identity.to_public().to_string());
    let card = Card::sign(duty, name, &SigningKey::from_bytes(&key.signing), recipient)?;
    files::write_private(&path, &Zeroizing::new(der::encode(&key)))?;
    files::write(&dir.join(CARD), &der::encode(&card))?;
    Ok(card)
}

/// `person.key` in `dir`.
fn open(dir: &Path) -> Result<(PathBuf, PersonKey), Failure> {
    let path = dir.join(KEY);
    let bytes = files::read(&path, KEY_BYTES_MAX)?;
    let key = der::decode("person's key", &bytes, KEY_BYTES_MAX)
        .map_err(|error| Failure::file("read", &path, error))?;
    Ok((path, key))
}

/// The signing key of whoever's directory `dir` is, custodian or operator.
pub fn open_signing(dir: &Path) -> Result<SigningKey, Failure> {
    let (path, key) = open(dir)?;
    if key.version != 1 {
        return Err(Failure::usage(format!("{} is of a version this program does not know", path.display())));
    }
    Ok(SigningKey::from_bytes(&key.signing))
}

/// The keys of the custodian in `dir`.
pub fn open_custodian(dir: &Path) -> Result<Identity, Failure> {
    let (path, key) = open(dir)?;
    let opening = key.opening.as_ref().filter(|_| key.version == 1 && key.duty == Duty::Custodian);
    let opening = opening.and_then(|text| text.parse::<x25519::Identity>().ok());
    let Some(opening) = opening else {
        return Err(Failure::usage(format!(
            "{} holds no keys of a custodian that this program knows",
            path.display()
        )));
    };
    Ok(Identity { signing: SigningKey::from_bytes(&key.signing), opening })
}
