//! Boxes that do not keep the rules. They sign what they like with their own keys, and know everything.

use crate::tree::{Entry, Tree};
use crate::world::{Asked, Packet, Said, World};
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::witness::Role;
use bulla_protocol::gossip::Head;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Honest,
    /// Shows one history to some and another one to others.
    TwoFaced,
    /// Answers with other entries, objects and proofs.
    Liar,
    /// Hints at old heads and at such as nobody signed.
    Replayer,
    /// Signs and sends heads without end.
    Flooder,
    /// Presents cosignatures of others as its own, and of one role as the other.
    Relabeller,
    /// Writes Lamport times near the end of all numbers.
    Poisoner,
    /// Takes questions and never answers.
    Silent,
}

impl Kind {
    pub const LIARS: [Kind; 9] = [
        Kind::TwoFaced,
        Kind::TwoFaced,
        Kind::TwoFaced,
        Kind::Liar,
        Kind::Replayer,
        Kind::Flooder,
        Kind::Relabeller,
        Kind::Poisoner,
        Kind::Silent,
    ];
}

impl World {
    /// The history that a liar shows to a box.
    fn shown(&self, liar: usize, to: usize) -> &Tree {
        let branches = &self.truth.branches[liar];
        &branches[to % branches.len()]
    }

    /// A liar's own doings.
    pub fn lie(&mut self, liar: usize) {
        let kind = self.members[liar].kind;
        self.grow(liar, kind);
        for to in 0..self.names.len() {
            let head = self.shown(liar, to).head();
            if head.size > 0 {
                self.send(liar, to, Packet::Hint { origin: liar, head });
            }
        }
        match kind {
            Kind::Replayer => {
                for to in 0..self.names.len() {
                    let origin = self.rng.size(0, self.names.len() - 1);
                    let signed: Vec<Head> = self.truth.signed[origin].iter().copied().collect();
                    if !signed.is_empty() {
                        let head = self.rng.pick(&signed);
                        self.send(liar, to, Packet::Hint { origin, head });
                        let forged = Head { size: head.size + 1, root: self.noise() };
                        self.send(liar, to, Packet::Hint { origin, head: forged });
                    }
                }
            }
            Kind::Flooder => {
                for _ in 0..8 {
                    let to = self.rng.size(0, self.names.len() - 1);
                    let size = self.rng.pick(&[1, 5, 50, 1 << 40, i64::MAX as u64]);
                    let head = Head { size, root: self.noise() };
                    if self.truth.signed[liar].len() < 60 {
                        self.truth.signed[liar].insert(head);
                    }
                    self.send(liar, to, Packet::Hint { origin: liar, head });
                    let nobody = self.names.len() + 7;
                    self.send(liar, to, Packet::Hint { origin: nobody, head });
                    self.send(liar, to, Packet::ForkHint { origin: to });
                    self.send(liar, to, Packet::Ask { ticket: 1, run: 0, ask: Asked::Heads });
                    let ask = Asked::Challenge { nonce: size };
                    self.send(liar, to, Packet::Ask { ticket: 1, run: 0, ask });
                }
            }
            Kind::Relabeller => self.relabel(liar),
            _ => {}
        }
    }

    fn noise(&mut self) -> Hash {
        sha256(&[&self.rng.next().to_be_bytes()])
    }

    /// A liar's log grows like any other; a two-faced one's becomes two.
    fn grow(&mut self, liar: usize, kind: Kind) {
        if kind == Kind::TwoFaced && self.truth.branches[liar].len() == 1 && self.rng.one_in(3) {
            let other = self.truth.branches[liar][0].clone();
            self.truth.branches[liar].push(other);
        }
        for branch in 0..self.truth.branches[liar].len() {
            let (count, lamport) = (self.rng.size(0, 4), self.truth.branches[liar][branch].lamport());
            for mut entry in self.fresh(count, lamport.min(1 << 62)) {
                if kind == Kind::Poisoner && self.rng.one_in(3) {
                    entry.lamport = self.rng.pick(&[i64::MAX as u64, (1 << 62) + entry.id]);
                }
                self.truth.branches[liar][branch].push(entry);
            }
            let head = self.truth.branches[liar][branch].head();
            if head.size > 0 {
                self.truth.signed[liar].insert(head);
            }
        }
    }

    /// Cosignatures that others made, and its own of another role, or of a tree that never was.
    fn relabel(&mut self, liar: usize) {
        for to in (0..self.names.len()).filter(|to| *to != liar) {
            let made: Vec<_> = self.truth.cosigned[to].iter().copied().collect();
            let mut presented = Vec::new();
            if !made.is_empty() {
                let (maker, role, head) = made[self.rng.size(0, made.len() - 1)];
                presented.push((head, (role, maker, role)));
            }
            let signed: Vec<Head> = self.truth.signed[to].iter().copied().collect();
            if !signed.is_empty() {
                // Witnessed, truly; and said to be mirrored.
                let head = self.rng.pick(&signed);
                self.truth.cosigned[to].insert((liar, Role::Witness, head));
                presented.push((head, (Role::Witness, liar, Role::Witness)));
                presented.push((head, (Role::Mirror, liar, Role::Witness)));
                let never = Head { size: head.size, root: self.noise() };
                presented.push((never, (Role::Witness, liar, Role::Witness)));
            }
            for (head, made) in presented {
                let ask = Asked::Cosigned { head, made: vec![made] };
                self.send(liar, to, Packet::Ask { ticket: 1, run: 0, ask });
            }
        }
    }

    /// Another's key, an older answer, a changed boot; or the truth.
    fn lie_of_boot(&mut self, liar: usize, kind: Kind, nonce: u64) -> Said {
        let mut chip = self.members[liar].chip;
        match (kind, self.rng.between(0, 2)) {
            (Kind::Replayer | Kind::Relabeller, _) => Said::Vouched { by: liar, nonce: nonce ^ 1, chip },
            (Kind::Liar, 0) => Said::Vouched { by: self.names.len() - 1, nonce, chip },
            (Kind::Liar, 1) => {
                chip.boot += 1;
                Said::Vouched { by: liar, nonce, chip }
            }
            _ => Said::Vouched { by: liar, nonce, chip },
        }
    }

    /// What a liar answers.
    pub fn lie_to(&mut self, liar: usize, from: usize, ask: Asked) -> Option<Said> {
        let kind = self.members[liar].kind;
        if kind == Kind::Silent {
            return None;
        }
        let lies = kind == Kind::Liar && self.rng.one_in(2);
        Some(match ask {
            Asked::Heads => {
                let own = self.shown(liar, from).head();
                let mut held = vec![(liar, own, own.size)];
                for origin in (0..self.names.len()).filter(|origin| *origin != liar) {
                    let newest = self.truth.signed[origin].iter().max_by_key(|head| head.size).copied();
                    let holds = if kind == Kind::Liar { 1 << 30 } else { 0 };
                    held.extend(newest.map(|head| (origin, head, holds)));
                }
                if held[0].1.size == 0 {
                    held.remove(0);
                }
                Said::Heads(held)
            }
            Asked::Range { origin, from: begin, to } => {
                let tree = self.shown(origin, from).clone();
                let end = to.min(tree.size());
                if begin >= end || origin != liar && kind != Kind::Liar {
                    return Some(Said::Refused);
                }
                let mut entries = tree.entries[begin as usize..end as usize].to_vec();
                let mut proof = tree.proof(end, tree.size());
                if lies {
                    match self.rng.between(0, 3) {
                        0 => entries[0] = Entry { lamport: entries[0].lamport, id: 0 },
                        1 => entries.reverse(),
                        2 => proof.push(self.noise()),
                        _ => entries.truncate(0),
                    }
                }
                let newest = tree.head();
                let head = Head { size: newest.size, root: newest.root };
                Said::Range { from: begin, entries, proof, head }
            }
            Asked::Objects { ids, .. } => {
                Said::Objects(if lies { vec![u64::MAX] } else { ids.into_iter().take(2).collect() })
            }
            Asked::Consistency { origin, old } => {
                let tree = self.shown(origin, from).clone();
                let Some(begins) = tree.head_at(old) else { return Some(Said::Refused) };
                let root = if lies { self.noise() } else { begins.root };
                Said::Consistency { root, proof: tree.proof(old, tree.size()), head: tree.head() }
            }
            Asked::Cosigned { .. } | Asked::Fork(_) => Said::Taken,
            Asked::ForkOf { .. } => Said::Refused,
            Asked::Challenge { nonce } => self.lie_of_boot(liar, kind, nonce),
        })
    }
}
