//! What a mirror may have cosigned, the newest head, the frozen mark: durable before anybody signs, and never back.
//!
//! Refuses: a smaller tree than before; two trees of one size; as mirror, what is not all held; everything, once a fork
//! was proven; to guess a row that was lost.
//! Invariant: whatever was signed, its tree or a larger one is on the disk.

use crate::append::Ledger;
use crate::mirror::copy::{Mirror, Slot, lock};
use crate::mirror::error::MirrorError;
use crate::mirror::range::held;
use crate::mirror::rows::MirrorHead;
use crate::mirror::tables::{CosignerRole, State, Tables};
use crate::tree::Tree;
use bulla_formats::hash::Hash;

/// Bytes of a signed note or a fork proof.
const NOTE_BYTES_MAX: usize = 1 << 20;

impl Mirror {
    /// Makes durable that `tree` may have been cosigned as witness. Sign after it has returned, and only then.
    pub fn persist_witness(&self, size: u64, root: Hash) -> Result<(), MirrorError> {
        self.persist(CosignerRole::Witness, Tree { size, root })
    }

    /// Makes durable that `tree` may have been cosigned as mirror, which is refused while anything below it is missing.
    /// Sign after it has returned, and only then.
    pub fn persist_mirror(&self, size: u64, root: Hash) -> Result<(), MirrorError> {
        self.persist(CosignerRole::Mirror, Tree { size, root })
    }

    fn persist(&self, role: CosignerRole, tree: Tree) -> Result<(), MirrorError> {
        self.with_log(|tables, ledger| {
            tables.check_open()?;
            let known = tables.cosigned(role)?;
            if tree.size < known.size {
                return Err(MirrorError::Behind { what: role.what(), known: known.size, asked: tree.size });
            }
            check_against_known(tables, ledger, tree)?;
            let held = held(tables, ledger, self.0.options.references.version());
            if role == CosignerRole::Mirror && held < tree.size {
                return Err(MirrorError::NotHeld { held, asked: tree.size });
            }
            if tree != known {
                tables.persist(role, tree)?;
            }
            Ok(())
        })
    }

    /// Makes the newest head durable. The caller has verified its signature and that it is consistent with what went
    /// before.
    pub fn persist_head(&self, size: u64, root: Hash, note: &[u8]) -> Result<(), MirrorError> {
        check_note(note)?;
        self.with_log(|tables, ledger| {
            tables.check_open()?;
            check_against_known(tables, ledger, Tree { size, root })?;
            let head = MirrorHead { tree: Tree { size, root }, note: note.to_vec() };
            match &tables.state.head {
                Ok(Some(known)) if *known == head => Ok(()),
                Ok(Some(known)) if size < known.tree.size => {
                    Err(MirrorError::Behind { what: "newest head", known: known.tree.size, asked: size })
                }
                // A lost one is worth nothing by itself: the next takes its place.
                Ok(_) | Err(_) => Ok(tables.persist_head(head)?),
            }
        })
    }

    /// Freezes the mirror, durably: it is read and completed, never extended or cosigned again. The first proof stays;
    /// whether this was it.
    pub fn freeze(&self, proof: &[u8]) -> Result<bool, MirrorError> {
        check_note(proof)?;
        let mut slot = lock(&self.0.slot);
        let freeze = |slot: &mut Slot| {
            let tables = self.0.tables(slot)?;
            if let Ok(Some(_)) = tables.state.frozen {
                return Ok(false);
            }
            tables.freeze(proof)?;
            Ok(true)
        };
        let done = freeze(&mut slot);
        self.0.tell(&slot);
        drop(slot);
        self.0.crowd.enter(&self.0);
        done
    }

    /// An operator's decision after damage to `mirror.redb`: states what the lost rows said. `witness` and `mirror` are the
    /// newest trees that may have been cosigned with this box's keys (from the origin's own log, from neighbours), `frozen`
    /// is the fork proof if there was one. Rows that are not lost stay as they are. Nothing else ever replaces a lost
    /// row, and until this is done the log is neither extended nor cosigned.
    pub fn restate(&self, witness: Tree, mirror: Tree, frozen: Option<&[u8]>) -> Result<(), MirrorError> {
        let mut slot = lock(&self.0.slot);
        let restate = |slot: &mut Slot| {
            let tables = self.0.tables(slot)?;
            if !tables.is_lost() {
                return Err(MirrorError::NothingLost);
            }
            tables.restate(witness, mirror, frozen)
        };
        let done = restate(&mut slot);
        self.0.tell(&slot);
        drop(slot);
        self.0.crowd.enter(&self.0);
        done
    }
}

/// The note of a head or a proof is no larger than either can be.
fn check_note(note: &[u8]) -> Result<(), MirrorError> {
    match note.len() {
        bytes if bytes > NOTE_BYTES_MAX => Err(MirrorError::TooMuch { bytes, most: NOTE_BYTES_MAX }),
        _ => Ok(()),
    }
}

/// No tree that is known here has this size and another root.
fn check_against_known(tables: &Tables, ledger: &Ledger, asked: Tree) -> Result<(), MirrorError> {
    let State { witness, mirror, head, .. } = &tables.state;
    let head = head.iter().flatten().map(|head| head.tree);
    let own = match asked.size <= ledger.size() {
        true => Some(Tree { size: asked.size, root: ledger.reader().root_at(asked.size)? }),
        false => None,
    };
    let known = [witness, mirror].into_iter().flatten().copied().chain(head).chain(own);
    match known.into_iter().find(|known| known.size == asked.size && known.root != asked.root) {
        Some(known) => Err(MirrorError::Contradiction { known, asked }),
        None => Ok(()),
    }
}
