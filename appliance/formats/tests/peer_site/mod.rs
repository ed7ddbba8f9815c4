//! A box with its four keys and its log, and the same log again with another history from entry 3 on.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_formats::body::mirror::{CosignedHead, MirrorBody, Neighbour};
use bulla_formats::der::{Octets32, encode};
use bulla_formats::entry::TreeState;
use bulla_formats::hash::{Hash, leaf_hash};
use bulla_formats::merkle::{consistency_proof, inclusion_proof, root};
use bulla_formats::note::{SignedNote, checkpoint_text, log_line};
use bulla_formats::origin::Origin;
use bulla_formats::peer::card::{CardContent, CardSignatures, PeerCard};
use bulla_formats::peer::fork::ForkProof;
use bulla_formats::witness::{Role, WitnessKey, cosigned};
use ed25519_dalek::{Signer as _, SigningKey};
use rasn::{AsnType, Decode, Decoder, Encode};

/// Unix seconds of every cosignature here.
const SECONDS: u64 = 1_795_303_800;

/// A history.
#[derive(Clone)]
pub struct Tree {
    pub entries: Vec<Vec<u8>>,
    pub leaves: Vec<Hash>,
}

impl Tree {
    fn new(size: usize, forks_at: usize) -> Self {
        let entry = |at| format!("entry {at} of the {} log", if at < forks_at { "one" } else { "other" });
        let entries: Vec<Vec<u8>> = (0..size).map(|at| entry(at).into_bytes()).collect();
        let leaves = entries.iter().map(|entry| leaf_hash(entry)).collect();
        Tree { entries, leaves }
    }

    pub fn size(&self) -> u64 {
        self.leaves.len() as u64
    }

    pub fn root(&self) -> Hash {
        self.root_at(self.size())
    }

    pub fn root_at(&self, size: u64) -> Hash {
        root(size, &self.leaves[..]).unwrap()
    }

    /// The same when it was smaller.
    pub fn at(&self, size: u64) -> Tree {
        let size = size as usize;
        Tree { entries: self.entries[..size].to_vec(), leaves: self.leaves[..size].to_vec() }
    }
}

#[derive(AsnType, Decode, Encode)]
struct WrittenCard {
    content: CardContent,
    signatures: CardSignatures,
}

pub struct Site {
    seed: u8,
    honest: Tree,
    forked: Tree,
}

impl Site {
    pub fn new(seed: u8) -> Self {
        Site { seed, honest: Tree::new(8, 8), forked: Tree::new(11, 3) }
    }

    pub fn honest(&self) -> &Tree {
        &self.honest
    }

    pub fn forked(&self) -> &Tree {
        &self.forked
    }

    /// Log, witness, mirror and transport key.
    fn keys(&self) -> [SigningKey; 4] {
        [0, 1, 2, 3].map(|which| SigningKey::from_bytes(&[self.seed + which; 32]))
    }

    pub fn log_key(&self) -> [u8; 32] {
        self.keys()[0].verifying_key().to_bytes()
    }

    pub fn origin(&self) -> Origin {
        Origin::derive("bank.example", &Hash([self.seed; 32]), 3).unwrap()
    }

    /// What the transport key signs.
    pub fn by_transport(&self, message: &[u8]) -> Vec<u8> {
        self.keys()[3].sign(message).to_bytes().to_vec()
    }

    pub fn card_content(&self) -> CardContent {
        let [log_key, witness_key, mirror_key, transport_key] =
            self.keys().map(|key| Octets32::new(key.verifying_key().to_bytes()));
        CardContent {
            version: 1,
            origin: self.origin().to_string(),
            log_key,
            witness_key,
            mirror_key,
            transport_key,
            sequence: 4,
            addresses: vec!["/ip4/192.0.2.7/tcp/7070".into(), "/dns/box-7.bank.example/tcp/7070".into()],
        }
    }

    /// The card's bytes, whatever comes of its signatures.
    pub fn signed_card(&self, content: &CardContent, change: fn(&mut [Vec<u8>; 4])) -> Vec<u8> {
        let mut signatures = self.keys().map(|key| key.sign(&content.message()).to_bytes().to_vec());
        change(&mut signatures);
        let [log, witness, mirror, transport] = signatures.map(Into::into);
        let signatures = CardSignatures { log, witness, mirror, transport };
        let bytes = encode(&WrittenCard { content: content.clone(), signatures: signatures.clone() });
        if let Ok(card) = PeerCard::assemble(content.clone(), signatures) {
            assert_eq!(card.bytes(), bytes, "what is assembled is what is read");
        }
        bytes
    }

    pub fn card_without_label(&self, content: &CardContent) -> Vec<u8> {
        let [log, witness, mirror, transport] =
            self.keys().map(|key| key.sign(&encode(content)).to_bytes().to_vec().into());
        let signatures = CardSignatures { log, witness, mirror, transport };
        encode(&WrittenCard { content: content.clone(), signatures })
    }

    /// The head of a history, signed.
    pub fn note(&self, tree: &Tree) -> SignedNote {
        self.note_for(&self.origin(), tree)
    }

    pub fn note_for(&self, origin: &Origin, tree: &Tree) -> SignedNote {
        self.sign(origin, tree.size(), tree.root())
    }

    pub fn signed(&self, size: u64, root: Hash) -> SignedNote {
        self.sign(&self.origin(), size, root)
    }

    fn sign(&self, origin: &Origin, size: u64, root: Hash) -> SignedNote {
        let text = checkpoint_text(origin.as_str(), size, &root);
        let signature = self.keys()[0].sign(text.as_bytes()).to_bytes();
        let line = log_line(origin.as_str(), &self.log_key(), &signature);
        SignedNote { text, lines: vec![line] }
    }

    fn cosigner(&self, role: Role) -> (SigningKey, WitnessKey) {
        let [_, witness, mirror, _] = self.keys();
        let secret = if role == Role::Witness { witness } else { mirror };
        let key = WitnessKey::of_peer(&self.origin(), role, secret.verifying_key().to_bytes()).unwrap();
        (secret, key)
    }

    /// This box's cosignatures of another's head.
    pub fn cosigned(&self, other: &Site, roles: &[Role]) -> SignedNote {
        let text = other.note(other.honest()).text;
        let line = |role: &Role| {
            let (secret, key) = self.cosigner(*role);
            key.line(SECONDS, &secret.sign(&cosigned(&text, SECONDS)).to_bytes())
        };
        let note = SignedNote { lines: roles.iter().map(line).collect(), text };
        for role in roles {
            let (_, key) = self.cosigner(*role);
            assert_eq!(key.cosignature(&note).unwrap().unwrap().seconds, SECONDS);
        }
        note
    }

    /// These neighbours hold this log.
    pub fn mirror_body(&self, neighbours: &[Site]) -> MirrorBody {
        let head = |neighbour: &Site, role: Role| {
            let (secret, key) = neighbour.cosigner(role);
            let note = neighbour.cosigned(self, &[role]);
            let cosignature = key.cosignature(&note).unwrap().unwrap();
            CosignedHead {
                key: Octets32::new(secret.verifying_key().to_bytes()),
                head: TreeState::new(self.honest.size(), self.honest.root()),
                seconds: cosignature.seconds,
                signature: cosignature.signature,
            }
        };
        let each = |neighbour: &Site| Neighbour {
            origin: neighbour.origin().to_string(),
            mirrored: Some(head(neighbour, Role::Mirror)),
            witnessed: Some(head(neighbour, Role::Witness)),
        };
        let mut neighbours: Vec<Neighbour> = neighbours.iter().map(each).collect();
        neighbours.sort_by(|a, b| a.origin.cmp(&b.origin));
        MirrorBody { version: 1, neighbours }
    }

    /// Claims that the tree of `larger` had this root when it was as small as `smaller`.
    pub fn show_heads(&self, smaller: &Tree, larger: &Tree, begins: Hash) -> ForkProof {
        let card = PeerCard::decode(&self.signed_card(&self.card_content(), |_| {})).unwrap();
        let notes = [self.note(smaller), self.note(larger)];
        let heads = [card.checkpoint(&notes[0]).unwrap(), card.checkpoint(&notes[1]).unwrap()];
        let proof = consistency_proof(smaller.size(), larger.size(), &larger.leaves[..]).unwrap();
        let pair = [(&notes[0], &heads[0]), (&notes[1], &heads[1])];
        ForkProof::of_heads(&self.origin(), &pair[0], &pair[1], begins, &proof)
    }

    pub fn forked_heads(&self) -> ForkProof {
        self.show_heads(&self.honest.at(5), &self.forked, self.forked.root_at(5))
    }

    pub fn forked_at_one_size(&self) -> ForkProof {
        let forked = self.forked.at(self.honest.size());
        self.show_heads(&self.honest, &forked, forked.root())
    }

    pub fn forked_leaves(&self) -> ForkProof {
        let path = |tree: &Tree| inclusion_proof(4, tree.size(), &tree.leaves[..]).unwrap();
        let (honest, forked) = (path(&self.honest), path(&self.forked));
        let notes = [self.note(&self.honest), self.note(&self.forked)];
        let one = (self.honest.leaves[4], &honest[..], &notes[0]);
        let other = (self.forked.leaves[4], &forked[..], &notes[1]);
        ForkProof::of_leaves(&self.origin(), 4, one, other)
    }
}

pub fn octets(path: &[Hash]) -> Vec<Octets32> {
    path.iter().map(|hash| Octets32::new(hash.0)).collect()
}
