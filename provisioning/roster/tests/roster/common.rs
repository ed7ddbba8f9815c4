//! A fleet of one custodian and three operators of whom two decide, and boxes for it.

use bulla_approvals::action::{Action, Approval, Change};
use bulla_ceremony::board::Board;
use bulla_ceremony::transcript::{Transcript, TranscriptContent, fleet_ca_content};
use bulla_ceremony::wire::{Card, Duty, Message, Plan, ResultBody, Step};
use bulla_formats::body::key_epoch::PcrValue;
use bulla_formats::der::Octets32;
use bulla_formats::enrolment::{EnrolmentContent, FleetCertificate, Hardware};
use bulla_formats::hash::{Hash, empty_root, sha256};
use bulla_formats::note::{SignedNote, checkpoint_text, log_line};
use bulla_formats::origin::Origin;
use bulla_formats::peer::card::{CardContent, CardSignatures, PeerCard};
use bulla_formats::trust::TrustFile;
use bulla_formats::witness::{Role, cosigned};
use bulla_roster::Result;
use bulla_roster::deed::{Cause, Deed, GoodTree, HeldLog, Named, Replacement, Revocation, Row};
use bulla_roster::roster::Roster;
use bulla_roster::terms::{Anchors, Hub, KnownBoot, Policy};
use ed25519_dalek::{Signer, SigningKey};

pub const NOW: u64 = 1_790_000_000_000;
pub const FLEET: &str = "bank.example";

pub fn key(whose: &str) -> SigningKey {
    SigningKey::from_bytes(&sha256(&[b"key of ", whose.as_bytes()]).0)
}

pub fn card(name: &str, whose: &str) -> Card {
    Card::sign(Duty::Operator, name, &key(whose), None).unwrap()
}

/// Minutes of a ceremony with one custodian, ada, and these operators.
pub fn minutes(operators: &[&str], needed: u64) -> Transcript {
    let recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    let ada = Card::sign(Duty::Custodian, "ada", &key("ada"), Some(recipient.into())).unwrap();
    let public = |whose: &str| Octets32::new(key(whose).verifying_key().to_bytes());
    let plan = Plan {
        version: 1,
        fleet: FLEET.into(),
        threshold: 1,
        custodians: vec![ada],
        operators_needed: needed,
        operators: operators.iter().map(|name| card(name, name)).collect(),
        coordinator_key: public("the leader"),
        fleet_ca_key: public("the fleet CA"),
        nonce: Octets32::new([9; 32]),
        created_at: NOW - 1_000_000,
    };
    let (root, seen) = (key("the root"), Board::new(plan.clone()).seen().unwrap());
    let body = ResultBody {
        seen: Octets32::new(seen.0),
        root: public("the root"),
        public_package: Vec::new().into(),
    };
    let results = vec![Message::sign(&plan, 1, Step::Result, 0, &body, &key("ada"))];
    let content = fleet_ca_content(&plan);
    let signature = root.sign(&content.message()).to_bytes().to_vec().into();
    let fleet_ca = FleetCertificate { content, signature };
    let content = TranscriptContent { version: 1, plan, root: public("the root"), results, fleet_ca };
    let signature = root.sign(&content.message()).to_bytes().to_vec().into();
    Transcript { content, signature }
}

pub fn founded() -> Roster {
    Roster::found(minutes(&["olga", "omar", "oya"], 2)).unwrap()
}

pub fn ek(number: u8) -> Octets32 {
    Octets32::new(sha256(&[b"endorsement key", &[number]]).0)
}

pub fn row(number: u8) -> Row {
    Row {
        serial: format!("S-{number}"),
        model: "B-100".into(),
        branch: "Z\u{fc}rich 3".into(),
        ek_spki_sha256: ek(number),
    }
}

pub fn named(number: u8) -> Named {
    Named { ek_spki_sha256: ek(number) }
}

pub fn origin(number: u8, incarnation: u64) -> String {
    Origin::derive(FLEET, &Hash(*ek(number)), incarnation).unwrap().as_str().to_owned()
}

/// Box `number` without a TPM, with its log of this incarnation.
pub fn enrolment(number: u8, incarnation: u64) -> EnrolmentContent {
    let device = p256::ecdsa::SigningKey::from_slice(&sha256(&[b"device", &[number]]).0).unwrap();
    let point = device.verifying_key().to_sec1_point(false);
    let log = key(&format!("log {incarnation} of {number}"));
    EnrolmentContent {
        version: 1,
        fleet: FLEET.into(),
        origin: origin(number, incarnation),
        hardware: Hardware::Software,
        ek_spki_sha256: ek(number),
        ek_certificates: Vec::new(),
        attestation_key: point.as_bytes().to_vec().into(),
        log_key: Octets32::new(log.verifying_key().to_bytes()),
        enrolled_at: NOW,
    }
}

pub fn good(number: u8, incarnation: u64, size: u64) -> GoodTree {
    let root = if size == 0 { empty_root() } else { sha256(&[b"root of ", &size.to_be_bytes()]) };
    GoodTree { origin: origin(number, incarnation), size, root: Octets32::new(root.0) }
}

pub fn revocation(number: u8, cause: Cause, logs: Vec<GoodTree>) -> Revocation {
    Revocation { ek_spki_sha256: ek(number), cause, invalid_from: NOW - 5_000, logs, successor: None }
}

/// An action that does `deed` to the last version of `roster`.
pub fn action(roster: &Roster, deed: &Deed) -> Action {
    Action {
        version: 1,
        fleet: FLEET.into(),
        roster: roster.version().clone(),
        target: None,
        kind: deed.kind(),
        parameters: deed.encode().into(),
        reason: "as the branch asked".into(),
        overriding: false,
        nonce: Octets32::new([1; 32]),
        proposed_at: NOW - 1_000,
        not_after: NOW + 1_000,
    }
}

pub fn approved(action: &Action, people: &[&str]) -> Change {
    let approvals = people.iter().map(|whose| Approval::sign(action, NOW, &key(whose))).collect();
    Change::new(action.clone(), approvals)
}

/// `deed`, approved by olga and omar, carried out.
pub fn apply(roster: &mut Roster, deed: &Deed) -> Result<()> {
    let change = approved(&action(roster, deed), &["olga", "omar"]);
    roster.apply(change, NOW).map(drop)
}

/// Box 1 enrolled with two logs, box 2 expected, box 3 held back, box 4 retired.
pub fn busy() -> Roster {
    let mut roster = founded();
    for deed in [
        Deed::Import((1..=4).map(row).collect()),
        Deed::Enrol(vec![enrolment(1, 1), enrolment(4, 7)]),
        Deed::Quarantine(named(3)),
        Deed::Enrol(vec![enrolment(1, 2)]),
        Deed::Revoke(revocation(4, Cause::Retirement, vec![good(4, 7, 900)])),
    ] {
        apply(&mut roster, &deed).unwrap();
    }
    roster
}

/// Card `sequence` of this log of box `number`, with keys that `whose` names.
pub fn peer_card(number: u8, incarnation: u64, whose: &str, sequence: u64) -> PeerCard {
    let keys = [
        key(&format!("log {incarnation} of {number}")),
        key(&format!("witness {whose}")),
        key(&format!("mirror {whose}")),
        key(&format!("transport {whose}")),
    ];
    let [log_key, witness_key, mirror_key, transport_key] =
        keys.each_ref().map(|key| Octets32::new(key.verifying_key().to_bytes()));
    let content = CardContent {
        version: 1,
        origin: origin(number, incarnation),
        log_key,
        witness_key,
        mirror_key,
        transport_key,
        sequence,
        addresses: vec![format!("/ip4/192.0.2.{number}/tcp/7440")],
    };
    let [log, witness, mirror, transport] =
        keys.map(|key| key.sign(&content.message()).to_bytes().to_vec().into());
    PeerCard::assemble(content, CardSignatures { log, witness, mirror, transport }).unwrap()
}

/// Boxes 1, 2 and 3 are members, and of 2 and 3 the neighbours know the cards.
pub fn neighbours() -> Roster {
    let mut roster = busy();
    for deed in [
        Deed::Release(named(3)),
        Deed::Enrol(vec![enrolment(2, 1), enrolment(3, 1)]),
        Deed::Cards(vec![peer_card(2, 1, "two", 1), peer_card(3, 1, "three", 1)]),
    ] {
        apply(&mut roster, &deed).unwrap();
    }
    roster
}

/// A checkpoint of a log of box 1 with so many entries, cosigned by boxes with these cards in these roles.
pub fn head(incarnation: u64, size: u64, by: &[(u8, &str, Role)]) -> SignedNote {
    let tree = good(1, incarnation, size);
    let text = checkpoint_text(&tree.origin, size, &Hash(*tree.root));
    let log = key(&format!("log {incarnation} of 1"));
    let signature = log.sign(text.as_bytes()).to_bytes();
    let mut lines = vec![log_line(&tree.origin, &log.verifying_key().to_bytes(), &signature)];
    for (number, whose, role) in by {
        let seconds = NOW / 1_000;
        let secret = key(&format!("{} {whose}", role.name()));
        let signature = secret.sign(&cosigned(&text, seconds)).to_bytes();
        lines.push(peer_card(*number, 1, whose, 1).cosigner(*role).line(seconds, &signature));
    }
    SignedNote { text, lines }
}

/// Box 2 takes the place of box 1, of whose last log this head is known.
pub fn replacement(head: Option<SignedNote>) -> Replacement {
    Replacement {
        ek_spki_sha256: ek(1),
        successor: ek(2),
        invalid_from: NOW - 5_000,
        logs: vec![
            HeldLog { origin: origin(1, 1), head: None },
            HeldLog { origin: origin(1, 2), head: head.map(|head| head.encode()) },
        ],
    }
}

/// The same, as box 3 vouches for it.
pub fn vouched() -> Replacement {
    replacement(Some(head(2, 60, &[(3, "three", Role::Witness), (3, "three", Role::Mirror)])))
}

/// A hub with keys that its name gives it, which issues leases.
pub fn hub(name: &str) -> Hub {
    let public = |what: &str| Octets32::new(key(&format!("{what} of {name}")).verifying_key().to_bytes());
    let pin = |what: &str| Octets32::new(sha256(&[what.as_bytes(), name.as_bytes()]).0);
    Hub {
        name: name.into(),
        witness_key: public("witness"),
        heads_key: public("heads"),
        leases: true,
        clients: vec![pin("client")],
        servers: vec![pin("server")],
        addresses: vec![format!("https://{name}:8446")],
    }
}

/// Two time-stamp authorities, whose roots are those of a vector of seals, and a witness.
pub fn anchors() -> Anchors {
    let trust = include_bytes!("../../../../tests/vectors/valid-anchored-by-two/trust.json");
    let trust = TrustFile::decode(trust).unwrap();
    let mut anchors = Anchors::of(trust.authorities.as_ref());
    let witness = hub("witness.example").witness().unwrap();
    anchors.witnesses = vec![bulla_roster::terms::Witness { operator: "W".into(), key: witness.to_string() }];
    anchors
}

/// A policy that asks for an anchor and knows two boots.
pub fn policy() -> Policy {
    let boot = |name: &str, value: u8| KnownBoot {
        name: name.into(),
        pcrs: [4, 7].map(|pcr| PcrValue { pcr, value: Octets32::new([value; 32]) }).to_vec(),
    };
    Policy {
        accept_software: false,
        require_facts: vec!["attested".into(), "anchored".into()],
        boots: vec![boot("image 1", 1), boot("image 2", 2)],
    }
}
