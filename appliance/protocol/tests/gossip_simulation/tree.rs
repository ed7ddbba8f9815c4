//! Model logs: real trees over entries that are two numbers.

use bulla_formats::hash::{Hash, empty_root, leaf_hash};
use bulla_formats::merkle::{Frontier, consistency_proof, verify_consistency};
use bulla_protocol::gossip::Head;

/// An entry: all that matters of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub lamport: u64,
    pub id: u64,
}

impl Entry {
    pub fn leaf(self) -> Hash {
        leaf_hash(&[self.lamport.to_be_bytes(), self.id.to_be_bytes()].concat())
    }

    /// The object that it refers to.
    pub fn object(self) -> Option<u64> {
        self.id.is_multiple_of(5).then_some(self.id)
    }
}

/// A log that remembers every root it had.
#[derive(Clone)]
pub struct Tree {
    pub entries: Vec<Entry>,
    leaves: Vec<Hash>,
    roots: Vec<Hash>,
    frontier: Frontier,
}

impl Tree {
    pub fn new() -> Self {
        let (entries, leaves, roots) = (Vec::new(), Vec::new(), vec![empty_root()]);
        Tree { entries, leaves, roots, frontier: Frontier::new() }
    }

    pub fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
        self.leaves.push(entry.leaf());
        self.frontier.append(entry.leaf());
        self.roots.push(self.frontier.root());
    }

    pub fn size(&self) -> u64 {
        self.entries.len() as u64
    }

    pub fn head(&self) -> Head {
        self.head_at(self.size()).expect("it has its own size")
    }

    pub fn head_at(&self, size: u64) -> Option<Head> {
        let root = *self.roots.get(usize::try_from(size).ok()?)?;
        Some(Head { size, root })
    }

    pub fn has(&self, head: Head) -> bool {
        self.head_at(head.size) == Some(head)
    }

    pub fn lamport(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.lamport)
    }

    /// The first `size` entries.
    pub fn cut(&self, size: u64) -> Tree {
        let mut tree = Tree::new();
        self.entries[..size as usize].iter().for_each(|entry| tree.push(*entry));
        tree
    }

    /// What the tree becomes with these entries, without becoming it.
    pub fn with(&self, entries: &[Entry]) -> Head {
        let mut frontier = self.frontier.clone();
        entries.iter().for_each(|entry| frontier.append(entry.leaf()));
        Head { size: frontier.size(), root: frontier.root() }
    }

    /// Consistency proof; both sizes are there.
    pub fn proof(&self, old: u64, new: u64) -> Vec<Hash> {
        consistency_proof(old, new, &self.leaves[..]).expect("both sizes are in the tree")
    }
}

/// Whether the proof leads from one head to the other.
pub fn leads(old: Head, new: Head, proof: &[Hash]) -> bool {
    verify_consistency(old.size, &old.root, new.size, &new.root, proof).is_ok()
}

/// A fork proof of two heads, as `bulla_formats::peer::fork` has them.
#[derive(Clone, Debug)]
pub struct Proof {
    pub origin: usize,
    pub smaller: Head,
    pub larger: Head,
    pub begins: Hash,
    pub proof: Vec<Hash>,
}

impl Proof {
    /// Whether it is one, when both heads are signed.
    pub fn holds(&self) -> bool {
        let begins = Head { size: self.smaller.size, root: self.begins };
        self.begins != self.smaller.root && leads(begins, self.larger, &self.proof)
    }
}
