//! Cosignatures: who else holds the log, whose word for it counts, and lines that prove nothing or too much.

use super::log::Log;
use super::plan::{FLEET, NOW, Plan, swap};
use super::{SEALED, Vector, genuine, keys, refused, trust_refused, valid};
use bulla_formats::der::Octets32;
use bulla_formats::hash::sha256;
use bulla_formats::json::base64_encode;
use bulla_formats::note::{SignatureLine, SignedNote};
use bulla_formats::origin::Origin;
use bulla_formats::peer::card::{CardContent, CardSignatures, PeerCard};
use bulla_formats::seal_file::{Cosigned, SealFile};
use bulla_formats::witness::{Role, WitnessKey, cosigned as message};
use ed25519_dalek::{Signer as _, SigningKey};

const TOKEN: u64 = 2;
const SIZE: u64 = 8;
const SECONDS: u64 = NOW / 1_000 + 60;
const MIRRORED: &[&str] = &["sealed", "mirrored(1)", "witnessed(1)"];
const WITNESSED: &[&str] = &["sealed", "witnessed(1)"];

/// A neighbour, by the name its keys are made of.
#[derive(Clone)]
struct Neighbour {
    name: String,
    origin: Origin,
}

fn neighbour(name: &str) -> Neighbour {
    let origin = Origin::derive(FLEET, &sha256(&[b"chip of ", name.as_bytes()]), 1);
    Neighbour { name: name.into(), origin: origin.expect("the fleet has a good name") }
}

impl Neighbour {
    fn key(&self, role: &str) -> SigningKey {
        keys::ed25519(&format!("{role} key of {}", self.name))
    }

    fn content(&self) -> CardContent {
        let public = |role: &str| Octets32::new(self.key(role).verifying_key().to_bytes());
        CardContent {
            version: 1,
            origin: self.origin.to_string(),
            log_key: public("log"),
            witness_key: public("witness"),
            mirror_key: public("mirror"),
            transport_key: public("transport"),
            sequence: 1,
            addresses: vec!["/ip4/192.0.2.7/tcp/7070".into()],
        }
    }

    fn card(&self) -> PeerCard {
        let content = self.content();
        let sign = |role: &str| self.key(role).sign(&content.message()).to_bytes().to_vec().into();
        let signatures = CardSignatures {
            log: sign("log"),
            witness: sign("witness"),
            mirror: sign("mirror"),
            transport: sign("transport"),
        };
        PeerCard::assemble(content, signatures).expect("it is a card")
    }

    fn line_at(&self, role: Role, text: &str, seconds: u64) -> SignatureLine {
        let key = self.key(role.name());
        let public = WitnessKey::of_peer(&self.origin, role, key.verifying_key().to_bytes());
        public.expect("a good key").line(seconds, &key.sign(&message(text, seconds)).to_bytes())
    }

    fn line(&self, role: Role, text: &str) -> SignatureLine {
        self.line_at(role, text, SECONDS)
    }
}

fn changed(note: &mut String, change: impl FnOnce(&mut SignedNote)) {
    let mut parsed = SignedNote::parse(note).expect("it is a note");
    change(&mut parsed);
    *note = parsed.encode();
}

/// The tree of this size under the lines of these.
fn cosigned(log: &Log<'_>, size: u64, by: &[(&Neighbour, Role)]) -> Cosigned {
    let mut checkpoint = log.checkpoint(size, false, &Vec::new());
    changed(&mut checkpoint, |note| {
        let text = note.text.clone();
        note.lines.extend(by.iter().map(|(who, role)| who.line(*role, &text)));
    });
    Cosigned { checkpoint, entry_proof: log.proof(TOKEN, size) }
}

fn trusting(plan: Plan, neighbours: &[&Neighbour]) -> Plan {
    let mut cards: Vec<PeerCard> = neighbours.iter().map(|one| one.card()).collect();
    cards.sort_by(|a, b| a.origin().as_str().cmp(b.origin().as_str()));
    plan.trust(move |trust| trust.cosigners = cards.clone())
}

fn carrying(by: &[(&Neighbour, Role)]) -> Plan {
    let by: Vec<(Neighbour, Role)> = by.iter().map(|(who, role)| ((*who).clone(), *role)).collect();
    Plan::software().tree(TOKEN, SIZE).file(move |log, file| {
        let by: Vec<(&Neighbour, Role)> = by.iter().map(|(who, role)| (who, *role)).collect();
        file.cosignatures.push(cosigned(log, SIZE, &by));
    })
}

/// Neighbour *one* has cosigned as a mirror, and is trusted.
fn plan() -> Plan {
    trusting(carrying(&[(&neighbour("one"), Role::Mirror)]), &[&neighbour("one")])
}

pub(super) fn all() -> Vec<Vector> {
    let mut all = positive();
    all.extend(lines());
    all.extend(proofs());
    all.extend(shapes());
    all.extend(policies());
    all.extend(trust());
    all
}

fn positive() -> Vec<Vector> {
    let (one, two) = (neighbour("one"), neighbour("two"));
    let again = Neighbour { name: "one again".into(), origin: origin_after(&one.origin) };
    vec![
        valid("valid-cosigned-by-a-mirror", MIRRORED, plan()),
        valid("valid-cosigned-by-a-witness", WITNESSED, {
            trusting(carrying(&[(&one, Role::Witness)]), &[&one])
        }),
        valid("valid-cosigned-by-two", &["sealed", "mirrored(1)", "witnessed(2)"], {
            trusting(carrying(&[(&one, Role::Mirror), (&two, Role::Witness)]), &[&one, &two])
        }),
        valid("valid-cosigned-in-two-trees", &["sealed", "mirrored(2)", "witnessed(2)"], {
            trusting(carrying(&[(&one, Role::Mirror)]), &[&one, &two]).file(|log, file| {
                file.cosignatures.push(cosigned(log, 5, &[(&neighbour("two"), Role::Mirror)]));
            })
        }),
        valid("valid-cosigned-a-box-counts-once", MIRRORED, {
            let lines = [(&one, Role::Mirror), (&one, Role::Witness), (&again, Role::Mirror)];
            trusting(carrying(&lines), &[&one, &again])
        }),
        valid("valid-cosigned-by-strangers", SEALED, {
            trusting(carrying(&[(&one, Role::Mirror)]), &[&two])
        }),
        valid("valid-cosigned-for-a-trust-file-without-cosigners", SEALED, {
            carrying(&[(&one, Role::Mirror), (&two, Role::Witness)])
        }),
        valid("valid-cosigned-by-the-sealing-box", SEALED, by_itself()),
        valid("valid-cosigned-by-one-key-under-the-name-of-the-other", SEALED, relabelled()),
        valid("valid-cosigned-by-nobody", SEALED, trusting(carrying(&[]), &[&one])),
        valid(
            "valid-cosigned-and-required",
            MIRRORED,
            plan().trust(|trust| {
                trust.policy.require_facts = vec!["mirrored(1)".into(), "witnessed(1)".into()];
            }),
        ),
        valid("valid-cosignatures-critical", MIRRORED, {
            plan().swap("{\n", "{\n  \"critical\": [\"cosignatures\"],\n")
        }),
    ]
}

fn origin_after(origin: &Origin) -> Origin {
    let (of, _) = origin.as_str().rsplit_once('/').expect("it has three parts");
    Origin::parse(&format!("{of}/2")).expect("an incarnation is a number")
}

/// The box that sealed, with the keys and the card of another incarnation of itself.
fn by_itself() -> Plan {
    let own = |origin: &str| {
        let origin = Origin::parse(origin).expect("it is one");
        Neighbour { name: "itself".into(), origin: origin_after(&origin) }
    };
    let sealed = Plan::software().tree(TOKEN, SIZE);
    let origin = SealFile::decode(&sealed.make("", super::Expect::TrustRefused).seal).expect("a seal").origin;
    let itself = own(&origin);
    trusting(carrying(&[(&itself, Role::Mirror)]), &[&itself])
}

/// What *one* signed as a witness, shown as the word of a mirror.
fn relabelled() -> Plan {
    let plan = trusting(Plan::software().tree(TOKEN, SIZE), &[&neighbour("one")]);
    plan.file(|log, file| {
        let one = neighbour("one");
        let mut shown = cosigned(log, SIZE, &[(&one, Role::Witness)]);
        shown.checkpoint = shown.checkpoint.replace("/witness ", "/mirror ");
        file.cosignatures.push(shown);
    })
}

/// The check fails when a line of a known cosigner does not hold.
fn lines() -> Vec<Vector> {
    let line = |what: &str, change: fn(&mut SignedNote)| {
        refused(
            "cosignatures",
            what,
            plan().file(move |_, file| {
                changed(&mut file.cosignatures[0].checkpoint, change);
            }),
        )
    };
    fn made(note: &mut SignedNote, role: Role, seconds: u64) {
        let text = note.text.clone();
        note.lines[1] = neighbour("one").line_at(role, &text, seconds);
    }
    vec![
        line("line-flipped", |note| note.lines[1].body[20] ^= 1),
        line("line-cut", |note| note.lines[1].body.truncate(71)),
        line("line-of-seven-bytes", |note| note.lines[1].body.truncate(7)),
        line("line-with-a-byte-more", |note| note.lines[1].body.push(0)),
        line("line-twice", |note| note.lines.push(note.lines[1].clone())),
        line("line-at-another-second", |note| note.lines[1].body[7] ^= 1),
        line("line-at-second-0", |note| made(note, Role::Mirror, 0)),
        line("line-after-all-time", |note| made(note, Role::Mirror, i64::MAX as u64 / 1_000 + 1)),
        line("line-of-another-tree", |note| {
            let text = note.text.replacen("\n8\n", "\n7\n", 1);
            note.lines[1] = neighbour("one").line(Role::Mirror, &text);
        }),
        line("line-of-the-key-of-the-other-role", |note| {
            let one = neighbour("one");
            let genuine = one.line(Role::Witness, &note.text);
            note.lines[1].body = genuine.body;
        }),
        line("second-line-flipped", |note| {
            let mut other = neighbour("one").line(Role::Witness, &note.text);
            other.body[30] ^= 1;
            note.lines.push(other);
        }),
        line("log-line-missing", |note| drop(note.lines.remove(0))),
        line("log-line-flipped", |note| note.lines[0].body[5] ^= 1),
    ]
}

fn proofs() -> Vec<Vector> {
    let file = |what: &str, change: fn(&Log<'_>, &mut Cosigned)| {
        let plan = plan().file(move |log, file| change(log, &mut file.cosignatures[0]));
        refused("cosignatures", what, plan)
    };
    vec![
        file("proof-empty", |_, shown| shown.entry_proof.clear()),
        file("proof-flipped", |_, shown| shown.entry_proof[0][0] ^= 1),
        file("proof-cut", |_, shown| drop(shown.entry_proof.pop())),
        file("proof-hash-of-31-bytes", |_, shown| shown.entry_proof[0].truncate(31)),
        file("proof-of-another-entry", |log, shown| shown.entry_proof = log.proof(3, SIZE)),
        file("tree-before-the-token", |log, shown| {
            *shown = Cosigned { entry_proof: Vec::new(), ..cosigned_at(log, TOKEN) };
        }),
        file("checkpoint-no-note", |_, shown| shown.checkpoint.clear()),
        file("checkpoint-of-another-log", |_, shown| {
            shown.checkpoint = shown.checkpoint.replacen("/1\n", "/2\n", 1);
        }),
        file("checkpoint-of-another-size", |_, shown| {
            shown.checkpoint = shown.checkpoint.replacen("\n8\n", "\n9\n", 1);
        }),
        refused("cosignatures", "second-one-broken", {
            plan().file(|log, file| {
                let mut other = cosigned(log, 5, &[]);
                other.entry_proof.clear();
                file.cosignatures.push(other);
            })
        }),
    ]
}

/// A tree that does not have the token.
fn cosigned_at(log: &Log<'_>, size: u64) -> Cosigned {
    let one = neighbour("one");
    let mut checkpoint = log.checkpoint(size, false, &Vec::new());
    changed(&mut checkpoint, |note| {
        let text = note.text.clone();
        note.lines.push(one.line(Role::Mirror, &text));
    });
    Cosigned { checkpoint, entry_proof: Vec::new() }
}

fn shapes() -> Vec<Vector> {
    let none = |what: &str, value: &str| {
        let all = format!("\"openings\": [],\n  \"cosignatures\": {value}\n");
        let plan = Plan::software().text(move |text| swap(text, "\"openings\": []\n", &all));
        refused("seal-file", &format!("cosignatures-{what}"), plan)
    };
    let one = "{\"checkpoint\": \"\", \"entryProof\": []}";
    vec![
        none("null", "null"),
        none("an-object", "{}"),
        none("of-a-string", "[\"AA==\"]"),
        none("of-an-array", "[[\"\", []]]"),
        none("without-checkpoint", "[{\"entryProof\": []}]"),
        none("without-proof", "[{\"checkpoint\": \"\"}]"),
        none("with-another-member", &format!("[{}]", one.replace('{', "{\"at\": 1, "))),
        none("17", &format!("[{}]", vec![one; 17].join(", "))),
    ]
}

fn policies() -> Vec<Vector> {
    let require = |what: &str, facts: &'static [&'static str], fact: &'static str, plan: Plan| {
        let plan = plan.trust(move |trust| trust.policy.require_facts = vec![fact.into()]);
        genuine("policy", &format!("requires-{what}"), "policy-unmet", facts, plan)
    };
    let one = neighbour("one");
    let witness = || trusting(carrying(&[(&one, Role::Witness)]), &[&one]);
    vec![
        require("two-mirrors", MIRRORED, "mirrored(2)", plan()),
        require("two-witnesses", MIRRORED, "witnessed(2)", plan()),
        require("a-mirror-and-has-a-witness", WITNESSED, "mirrored(1)", witness()),
        require("a-mirror-that-is-itself", SEALED, "mirrored(1)", by_itself()),
        require("a-mirror-that-is-relabelled", SEALED, "mirrored(1)", relabelled()),
    ]
}

fn trust() -> Vec<Vector> {
    let refused = |what: &str, plan: Plan| trust_refused(&format!("v4-{what}"), plan);
    let text = |what: &str, from: &'static str, to: &'static str| refused(what, plan().swap_trust(from, to));
    let card = || base64_encode(neighbour("one").card().bytes());
    let swapped = |what: &str, to: String| {
        refused(what, plan().trust_text(move |text| swap(text, &format!("\"{}\"", card()), &to)))
    };
    let bytes = |what: &str, change: fn(&mut Vec<u8>)| {
        let mut bytes = neighbour("one").card().bytes().to_vec();
        change(&mut bytes);
        swapped(what, format!("\"{}\"", base64_encode(&bytes)))
    };
    let require = |what: &str, fact: &'static str| {
        refused(what, plan().trust(move |trust| trust.policy.require_facts = vec![fact.into()]))
    };
    let order = |what: &str, cards: Vec<PeerCard>| {
        refused(what, plan().trust(move |trust| trust.cosigners = cards.clone()))
    };
    let (one, two) = (neighbour("one"), neighbour("two"));
    let mut cards = vec![one.card(), two.card()];
    cards.sort_by(|a, b| b.origin().as_str().cmp(a.origin().as_str()));
    // Another name for the box of the same keys.
    let alias = Neighbour { name: "one".into(), ..two };
    let mut shared = vec![one.card(), alias.card()];
    shared.sort_by(|a, b| a.origin().as_str().cmp(b.origin().as_str()));
    vec![
        text("as-v1", "trust/v4", "trust/v1"),
        text("as-v3", "trust/v4", "trust/v3"),
        text("as-v5", "trust/v4", "trust/v5"),
        text("cosigners-missing", "\"cosigners\"", "\"Cosigners\""),
        text("witnesses-missing", "\"witnesses\"", "\"Witnesses\""),
        text("two-operators-of-none", "\"operators\": 1", "\"operators\": 2"),
        text("operators-missing", ",\n    \"operators\": 1", ""),
        swapped("cosigner-null", "null".into()),
        swapped("cosigner-an-object", "{}".into()),
        swapped("cosigner-lax-base64", format!("\"{}=\"", card())),
        swapped("no-cosigner", String::new()),
        bytes("card-flipped", |card| card[40] ^= 1),
        bytes("card-signature-flipped", |card| *card.last_mut().expect("it has bytes") ^= 1),
        bytes("card-trailing-byte", |card| card.push(0)),
        bytes("card-empty", Vec::clear),
        order("descending", cards),
        order("twice", vec![neighbour("one").card(); 2]),
        order("sharing-keys", shared),
        require("requires-anchored-of-nobody", "anchored"),
        require("requires-0-mirrors", "mirrored(0)"),
        require("requires-33-mirrors", "mirrored(33)"),
        require("requires-01-mirrors", "mirrored(01)"),
        require("requires-mirrored", "mirrored"),
        trust_refused("v1-requires-a-mirror", {
            Plan::software().trust(|trust| trust.policy.require_facts = vec!["mirrored(1)".into()])
        }),
        trust_refused("v1-with-cosigners", {
            Plan::software().swap_trust("\"tsaRoots\": []", "\"tsaRoots\": [], \"cosigners\": []")
        }),
    ]
}
