//! Revocation evidence for a `.seal`: what the trust file says of its log, and the token's path to the last good tree.
//!
//! Refuses to do: add a path that does not lead there. Whoever serves the tiles is asked for hashes, not for truth.
//! Invariant: what is added verifies.

use crate::client::BoxClient;
use crate::exit::{Exit, Failure};
use bulla_formats::der;
use bulla_formats::entry::Entry;
use bulla_formats::hash::{Hash, node_hash};
use bulla_formats::merkle::{BuildError, HashReader, inclusion_proof, verify_inclusion};
use bulla_formats::note::{SignedNote, parse_checkpoint_text};
use bulla_formats::revocation::{Cause, REVOCATIONS_MAX, RevocationEvidence};
use bulla_formats::seal_file::SealFile;
use bulla_formats::tile::{TILE_HEIGHT, TileCoordinate, parse_hashes, width_at};
use bulla_formats::trust::TrustFile;

fn odd(what: &str) -> Failure {
    Failure::new(Exit::Box, format!("the log's {what} is not what it must be"))
}

/// Hashes of a log from its tiles.
struct Tiles<'a> {
    client: &'a BoxClient,
    size: u64,
}

impl Tiles<'_> {
    fn tile(&self, level: u8, index: u64) -> Result<Vec<Hash>, Failure> {
        let width = width_at(level, index, self.size);
        let path = TileCoordinate::hashes(level, index, width).map_err(|_| odd("tree"))?.path();
        let answer = self.client.get(&format!("/{path}"), "application/octet-stream");
        let answer = answer.map_err(|error| error.into_failure(&path))?;
        parse_hashes(&answer.body, width).ok_or_else(|| odd(&path))
    }
}

impl HashReader for Tiles<'_> {
    type Error = Failure;

    fn subtree(&self, level: u8, index: u64) -> Result<Hash, Failure> {
        // The tile that holds the row of whole hashes below, and the part of it that this subtree covers.
        let (tile_level, within) = (level / TILE_HEIGHT, level % TILE_HEIGHT);
        let first = index << within;
        let hashes = self.tile(tile_level, first >> TILE_HEIGHT)?;
        let from = (first & 0xff) as usize;
        let row = hashes.get(from..from + (1 << within));
        let mut row = row.ok_or_else(|| odd("tree"))?.to_vec();
        while row.len() > 1 {
            row = row.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
        }
        Ok(row[0])
    }
}

/// Adds to `file` what `trust` says of its log; whether that was new. The second value says why a path is missing.
pub fn add(
    client: &BoxClient,
    trust: &TrustFile,
    file: &mut SealFile,
    token: &Entry,
) -> (bool, Option<String>) {
    let Some(said) = trust.revocation(&file.origin) else { return (false, None) };
    let (statement, good) = (der::encode(said), &said.content.good);
    let known = file.revocations.iter().position(|mine| mine.statement == statement);
    let index = token.content().index;
    let wanted = said.content.cause == Cause::Compromise
        && index < good.size
        && known.is_none_or(|at| file.revocations[at].entry_proof.is_none());
    let (proof, trouble) = match wanted.then(|| path(client, token, good.size, &Hash(*good.root))) {
        None => (None, None),
        Some(Ok(proof)) => (Some(proof), None),
        Some(Err(error)) => {
            (None, Some(format!("no path to the last good tree of {} entries ({error})", good.size)))
        }
    };
    let evidence = RevocationEvidence { statement, entry_proof: proof };
    match known {
        Some(at) if evidence.entry_proof.is_some() => file.revocations[at] = evidence,
        None if file.revocations.len() < REVOCATIONS_MAX => file.revocations.push(evidence),
        _ => return (false, trouble),
    }
    (true, trouble)
}

/// The token's path in the tree of `size` entries with this root.
fn path(client: &BoxClient, token: &Entry, size: u64, root: &Hash) -> Result<Vec<Vec<u8>>, Failure> {
    let checkpoint = client.get("/checkpoint", "text/plain");
    let checkpoint = checkpoint.map_err(|error| error.into_failure("checkpoint"))?;
    let text = String::from_utf8(checkpoint.body).map_err(|_| odd("checkpoint"))?;
    let note = SignedNote::parse(&text).map_err(|_| odd("checkpoint"))?;
    // Tiles are as wide as the log is long; whose log it is, the root will tell.
    let (_, now, _) = parse_checkpoint_text(&note.text).map_err(|_| odd("checkpoint"))?;
    let index = token.content().index;
    let proof = inclusion_proof(index, size, &Tiles { client, size: now }).map_err(|error| match error {
        BuildError::Request(_) => odd("size"),
        BuildError::Reader(error) => error,
    })?;
    let leads = verify_inclusion(index, size, &token.leaf_hash(), &proof, root);
    leads.map_err(|_| odd("path to the last good tree"))?;
    Ok(proof.into_iter().map(|hash| hash.0.to_vec()).collect())
}
