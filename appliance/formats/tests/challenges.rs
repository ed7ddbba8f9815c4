//! `tests/vectors-challenge/`: challenges between neighbours and their answers, few that hold and many that must not.
//!
//! The same source makes the same bytes; `BULLA_WRITE_VECTORS=1 cargo test -p bulla-formats --test challenges` writes them.
//! What is expected stands before the two hyphens of a file's name. The chip is a P-256 key; `box_attested` holds the same
//! reader against a real TPM.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

#[allow(dead_code, reason = "the other test uses all of it")]
mod peer_site;

use bulla_formats::body::attestation::CheckpointClaim;
use bulla_formats::body::key_epoch::{PcrValue, TpmQuote};
use bulla_formats::der::Octets32;
use bulla_formats::endorsement::AttestationKey;
use bulla_formats::enrolment::Hardware;
use bulla_formats::entry::TreeState;
use bulla_formats::hash::{Hash, empty_root, sha256};
use bulla_formats::peer::card::PeerCard;
use bulla_formats::peer::challenge::{Boot, Challenge, ChallengeSaid, Distrust, Voucher};
use bulla_formats::peer::message::{Answer, Asked, Question, Said};
use bulla_formats::tpm::pcr_digest;
use p256::ecdsa::SigningKey;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use peer_site::Site;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

const QUOTE: u16 = 0x8018;
const NV: u16 = 0x8014;

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// A TPM, as far as its attestation key goes.
#[derive(Clone)]
struct Chip {
    key: SigningKey,
    pcrs: Vec<(u8, [u8; 32])>,
    resets: u32,
    restarts: u32,
    clock: u64,
    kind: u16,
    magic: u32,
}

impl Chip {
    fn new(seed: u8) -> Self {
        let key = SigningKey::from_slice(&[seed; 32]).unwrap();
        let pcrs = [0, 2, 4, 7, 11].map(|pcr| (pcr, [pcr + 1; 32])).to_vec();
        Chip { key, pcrs, resets: 7, restarts: 1, clock: 900_000, kind: QUOTE, magic: 0xff54_4347 }
    }

    /// TPMT_PUBLIC of the attestation key.
    fn public(&self) -> Vec<u8> {
        let point = self.key.verifying_key().to_sec1_point(false);
        let (x, y) = point.as_bytes()[1..].split_at(32);
        let head = [0x00, 0x23, 0x00, 0x0b, 0x00, 0x05, 0x04, 0x72, 0x00, 0x00];
        let scheme = [0x00, 0x10, 0x00, 0x18, 0x00, 0x0b, 0x00, 0x03, 0x00, 0x10];
        [&head[..], &scheme, &sized(x), &sized(y)].concat()
    }

    fn quote(&self, qualifying: &Hash) -> TpmQuote {
        let mut bitmap = [0u8; 3];
        self.pcrs.iter().for_each(|(pcr, _)| bitmap[usize::from(pcr / 8)] |= 1 << (pcr % 8));
        let name = [&[0, 0x0b][..], &sha256(&[b"qualified signer"]).0].concat();
        let mut attest = [&self.magic.to_be_bytes()[..], &self.kind.to_be_bytes(), &sized(&name)].concat();
        attest.extend(sized(&qualifying.0));
        attest.extend(self.clock.to_be_bytes());
        attest.extend([self.resets.to_be_bytes(), self.restarts.to_be_bytes()].concat());
        attest.push(1);
        attest.extend(0x2023_0101u64.to_be_bytes());
        attest.extend(match self.kind {
            NV => [sized(&name), vec![0, 0], sized(&7u64.to_be_bytes())].concat(),
            _ => [&[0, 0, 0, 1, 0, 0x0b, 3][..], &bitmap, &sized(&pcr_digest(&self.pcrs).0)].concat(),
        });
        let signature: p256::ecdsa::Signature = self.key.sign(&attest);
        let bytes = signature.to_bytes();
        let signature = [&[0, 0x18, 0, 0x0b][..], &sized(&bytes[..32]), &sized(&bytes[32..])].concat();
        let value = |(pcr, value): &(u8, [u8; 32])| PcrValue { pcr: *pcr, value: Octets32::new(*value) };
        let pcrs = self.pcrs.iter().map(value).collect();
        TpmQuote { attest: attest.into(), signature: signature.into(), pcrs }
    }

    fn boot(&self) -> Boot {
        let value = |(pcr, value): &(u8, [u8; 32])| PcrValue { pcr: *pcr, value: Octets32::new(*value) };
        Boot {
            pcrs: self.pcrs.iter().map(value).collect(),
            resets: u64::from(self.resets),
            restarts: u64::from(self.restarts),
            clock: self.clock,
        }
    }
}

fn card(site: &Site) -> PeerCard {
    PeerCard::decode(&site.signed_card(&site.card_content(), |_| {})).unwrap()
}

/// Everything that one vector is made of; rows change single things.
#[derive(Clone)]
struct Scene {
    challenge: Challenge,
    said: ChallengeSaid,
    chip: Chip,
    before: Option<Boot>,
    hardware: Hardware,
}

fn sites() -> (Site, Site) {
    (Site::new(40), Site::new(1))
}

impl Scene {
    fn new() -> Self {
        let (asker, asked) = sites();
        let head = TreeState::new(5, asked.honest().root_at(5));
        let challenge = Challenge::new(&card(&asker), &card(&asked), [0x5a; 32], head);
        let chip = Chip::new(9);
        let said = ChallengeSaid {
            origin: asked.origin().to_string(),
            head: asked.note(asked.honest()).encode(),
            voucher: Voucher::Quote(chip.quote(&challenge.qualifying_data())),
        };
        let before = Boot { clock: 100, ..chip.boot() };
        Scene { challenge, said, chip, before: Some(before), hardware: Hardware::Tpm }
    }

    /// The chip answers the challenge as both are now.
    fn quoted(mut self) -> Self {
        self.said.voucher = Voucher::Quote(self.chip.quote(&self.challenge.qualifying_data()));
        self
    }

    fn software(key: &SigningKey) -> Self {
        let mut scene = Scene::new();
        let digest = scene.challenge.qualifying_data().0;
        let signature: p256::ecdsa::Signature = key.sign_prehash(&digest).unwrap();
        scene.said.voucher = Voucher::Software(signature.to_bytes().to_vec().into());
        (scene.hardware, scene.before) = (Hardware::Software, None);
        scene
    }

    fn vector(self, name: &str) -> (String, Value) {
        let genuine = Chip::new(9);
        let key = match self.hardware {
            Hardware::Tpm => genuine.public(),
            Hardware::Software => genuine.key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
        };
        let (asker, asked) = sites();
        let value = json!({
            "what": "challenge",
            "expect": name.split("--").next().unwrap(),
            "question": hex::encode(Question::new(Asked::Challenge(self.challenge)).encode()),
            "answer": hex::encode(Answer::new(Said::Challenge(self.said)).encode()),
            "asker": hex::encode(card(&asker).bytes()),
            "card": hex::encode(card(&asked).bytes()),
            "hardware": if self.hardware == Hardware::Tpm { "tpm" } else { "software" },
            "attestationKey": hex::encode(key),
            "before": self.before.map(|boot| hex::encode(boot.encode())),
        });
        (format!("{name}.json"), value)
    }
}

/// What comes of a vector, by its file alone.
fn judge(vector: &Value) -> &'static str {
    let bytes = |name: &str| hex::decode(vector[name].as_str().unwrap()).unwrap();
    let Ok(Question { asked: Asked::Challenge(challenge), .. }) = Question::decode(&bytes("question")) else {
        return "refused";
    };
    let card = PeerCard::decode(&bytes("card")).unwrap();
    if !challenge.is_between(&PeerCard::decode(&bytes("asker")).unwrap(), &card) {
        return "other-peer";
    }
    let Ok(Answer { said: Said::Challenge(said), .. }) = Answer::decode(&bytes("answer")) else {
        return "refused";
    };
    let hardware = if vector["hardware"] == "tpm" { Hardware::Tpm } else { Hardware::Software };
    let key = AttestationKey::read(hardware, &bytes("attestationKey")).unwrap();
    let followed = match said.verify(&challenge, &card, &key) {
        Err(error) => Err(error.distrust()),
        Ok((_, boot)) => match (boot, vector["before"].as_str()) {
            (Some(boot), Some(_)) => boot.follows(&Boot::decode(&bytes("before")).unwrap()),
            _ => Ok(()),
        },
    };
    followed.map_or_else(Distrust::name, |()| "valid")
}

type Row = (&'static str, fn(&mut Scene));

/// Changed before the chip quotes.
const QUOTED: [Row; 27] = [
    ("valid--first-answer", |scene| scene.before = None),
    ("valid--of-the-same-boot", |_| {}),
    ("valid--after-a-reboot-into-the-same", |scene| (scene.chip.resets, scene.chip.clock) = (8, 5)),
    ("valid--of-a-copy-that-holds-nothing", |scene| scene.challenge.head = TreeState::new(0, empty_root())),
    ("valid--with-more-pcrs-than-before", |scene| scene.chip.pcrs.push((14, [3; 32]))),
    ("boot-changed--another-value", |scene| scene.chip.pcrs[2].1 = [0xee; 32]),
    ("boot-changed--after-a-reboot", |scene| {
        (scene.chip.resets, scene.chip.clock) = (8, 5);
        scene.chip.pcrs[4].1 = [0xee; 32];
    }),
    ("boot-changed--a-pcr-is-not-shown", |scene| scene.chip.pcrs.retain(|(pcr, _)| *pcr != 7)),
    ("boot-changed--only-a-pcr-that-nobody-measures", |scene| scene.chip.pcrs = vec![(16, [0; 32])]),
    ("reset-went-back--fewer-resets", |scene| scene.chip.resets = 6),
    ("reset-went-back--cleared", |scene| (scene.chip.resets, scene.chip.restarts) = (0, 0)),
    ("reset-went-back--fewer-restarts", |scene| scene.chip.restarts = 0),
    ("reset-went-back--an-earlier-clock", |scene| scene.chip.clock = 99),
    ("other-key--another-chip", |scene| scene.chip.key = Chip::new(10).key),
    ("not-genuine--nv-certificate", |scene| scene.chip.kind = NV),
    ("not-genuine--magic-of-no-tpm", |scene| scene.chip.magic = 0xff54_4348),
    ("not-genuine--older-head-than-shown", |scene| {
        scene.said.head = sites().1.note(&sites().1.honest().at(4)).encode();
    }),
    ("not-genuine--another-tree-than-shown", |scene| {
        scene.challenge.head.size = sites().1.honest().size();
    }),
    ("not-genuine--head-of-another-log", |scene| {
        let other = Site::new(80);
        scene.said.origin = other.origin().to_string();
        scene.said.head = other.note(other.honest()).encode();
    }),
    ("not-genuine--head-signed-by-another-key", |scene| {
        let (_, asked) = sites();
        scene.said.head = Site::new(80).note_for(&asked.origin(), asked.honest()).encode();
    }),
    ("refused--version-2", |scene| scene.challenge.version = 2),
    ("refused--no-origin", |scene| scene.challenge.challenger = "bank.example".into()),
    ("refused--of-oneself", |scene| scene.challenge.challenger = scene.challenge.challenged.clone()),
    ("refused--of-one-key", |scene| scene.challenge.challenger_key = scene.challenge.challenged_key),
    ("refused--of-a-size-above-the-limit", |scene| scene.challenge.head.size = 1 << 63),
    ("refused--of-nothing-with-a-root", |scene| scene.challenge.head.size = 0),
    ("refused--of-entries-without-root", |scene| scene.challenge.head = TreeState::new(5, empty_root())),
];

/// Changed after it has quoted: for relays and replays.
const CHANGED: [Row; 17] = [
    ("other-peer--relayed-by-a-third", |scene| {
        scene.challenge.challenger = Site::new(80).origin().to_string()
    }),
    ("other-peer--relayed-to-a-third", |scene| {
        scene.challenge.challenged = Site::new(80).origin().to_string()
    }),
    ("other-peer--relayed-over-a-foreign-session", |scene| {
        scene.challenge.challenger_key = Octets32::new(*card(&Site::new(80)).transport_key());
    }),
    ("other-peer--shown-to-another-session", |scene| {
        scene.challenge.challenged_key = Octets32::new(*card(&Site::new(80)).transport_key());
    }),
    ("not-genuine--replayed", |scene| scene.challenge.nonce = Octets32::new([0x5b; 32])),
    ("not-genuine--replayed-for-a-newer-head", |scene| {
        scene.challenge.head = TreeState::new(6, sites().1.honest().root_at(6));
    }),
    ("not-genuine--quote-of-a-checkpoint", |scene| {
        let text = sites().1.note(sites().1.honest()).text;
        let claim = CheckpointClaim { origin: scene.said.origin.clone(), text: text.into_bytes().into() };
        scene.said.voucher = Voucher::Quote(scene.chip.quote(&claim.qualifying_data()));
    }),
    ("not-genuine--nonce-quoted-raw", |scene| {
        scene.said.voucher = Voucher::Quote(scene.chip.quote(&Hash(*scene.challenge.nonce)));
    }),
    ("not-genuine--answered-for-the-other-direction", |scene| {
        let (asker, asked) = sites();
        let other = Challenge::new(
            &card(&asked),
            &card(&asker),
            *scene.challenge.nonce,
            scene.challenge.head.clone(),
        );
        scene.said.voucher = Voucher::Quote(scene.chip.quote(&other.qualifying_data()));
    }),
    ("not-genuine--other-pcr-values", |scene| {
        let Voucher::Quote(quote) = &mut scene.said.voucher else { return };
        quote.pcrs[0].value = Octets32::new([9; 32]);
    }),
    ("not-genuine--a-pcr-value-left-out", |scene| {
        let Voucher::Quote(quote) = &mut scene.said.voucher else { return };
        quote.pcrs.remove(0);
    }),
    ("other-key--broken-signature", |scene| {
        let Voucher::Quote(quote) = &mut scene.said.voucher else { return };
        let mut signature = quote.signature.to_vec();
        signature[20] ^= 1;
        quote.signature = signature.into();
    }),
    ("other-key--clock-changed-by-hand", |scene| {
        let Voucher::Quote(quote) = &mut scene.said.voucher else { return };
        let mut attest = quote.attest.to_vec();
        attest[81] ^= 1;
        quote.attest = attest.into();
    }),
    ("not-genuine--software-in-place-of-a-tpm", |scene| {
        let digest = scene.challenge.qualifying_data().0;
        let signature: p256::ecdsa::Signature = scene.chip.key.sign_prehash(&digest).unwrap();
        scene.said.voucher = Voucher::Software(signature.to_bytes().to_vec().into());
    }),
    ("refused--signature-of-63-bytes", |scene| scene.said.voucher = Voucher::Software(vec![1; 63].into())),
    ("refused--pcr-24", |scene| {
        let Voucher::Quote(quote) = &mut scene.said.voucher else { return };
        quote.pcrs[4].pcr = 24;
    }),
    ("refused--head-of-another-log-than-it-says", |scene| {
        scene.said.head = Site::new(80).note(Site::new(80).honest()).encode();
    }),
];

fn all() -> Vec<(String, Value)> {
    let quoted = QUOTED.iter().map(|(name, change)| {
        let mut scene = Scene::new();
        change(&mut scene);
        scene.quoted().vector(name)
    });
    let changed = CHANGED.iter().map(|(name, change)| {
        let mut scene = Scene::new();
        change(&mut scene);
        scene.vector(name)
    });
    let (key, other) = (Chip::new(9).key, Chip::new(10).key);
    let mut replayed = Scene::software(&key);
    replayed.challenge.nonce = Octets32::new([0x5b; 32]);
    let mut quoted_software = Scene::new();
    quoted_software.hardware = Hardware::Software;
    let software = [
        Scene::software(&key).vector("valid--software"),
        Scene::software(&other).vector("other-key--software"),
        // A signature over something else is the same as one by another key.
        replayed.vector("other-key--software-replayed"),
        quoted_software.vector("not-genuine--a-tpm-where-software-was-enrolled"),
    ];
    quoted.chain(changed).chain(software).collect()
}

#[test]
fn every_vector_is_judged_as_its_name_says() {
    let all = all();
    let mut wrong = Vec::new();
    for (name, vector) in &all {
        let found = judge(vector);
        if vector["expect"] != found {
            wrong.push(format!("{name}: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let valid = all.iter().filter(|(_, vector)| vector["expect"] == "valid").count();
    assert!(all.len() > 5 * valid, "{valid} of {}", all.len());
    for distrust in Distrust::ALL {
        assert!(all.iter().any(|(_, vector)| vector["expect"] == distrust.name()), "{distrust:?}");
    }
}

#[test]
fn the_files_are_what_this_source_makes() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors-challenge");
    let files: BTreeMap<String, String> =
        all().into_iter().map(|(name, vector)| (name, vector.to_string() + "\n")).collect();
    if std::env::var_os("BULLA_WRITE_VECTORS").is_some() {
        fs::create_dir_all(&directory).unwrap();
        files.iter().for_each(|(name, text)| fs::write(directory.join(name), text).unwrap());
    }
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        found.insert(name, fs::read_to_string(path).unwrap());
    }
    assert!(found == files, "the vectors differ; BULLA_WRITE_VECTORS=1 writes them");
}

#[test]
fn a_boot_is_kept_as_it_was() {
    let boot = Chip::new(9).boot();
    assert_eq!(Boot::decode(&boot.encode()).unwrap(), boot);
    assert!(Boot::decode(&boot.encode()[1..]).is_err());
    assert_eq!(boot.follows(&boot), Ok(()), "the same moment is no step back");
}
