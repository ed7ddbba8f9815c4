//! The log as an auditor reads it: checkpoint, tiles and entry bundles over the wire (C2SP tlog-tiles), and
//! everything recomputed from the entries alone.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::audit::LogAuditor;
use bulla_formats::endorsement::AttestationKey;
use bulla_formats::enrolment::Enrolment;
use bulla_formats::hash::{Hash, leaf_hash, node_hash, sha256};
use bulla_formats::merkle::{
    Frontier, HashReader, consistency_proof, inclusion_proof, root, verify_consistency, verify_inclusion,
};
use bulla_formats::note::{Checkpoint, SignedNote, ed25519_key_id, parse_checkpoint_text};
use bulla_formats::origin::Origin;
use bulla_formats::seal_file::SealFile;
use bulla_formats::sig::{Algorithm, PublicKey};
use bulla_formats::tile::{TileCoordinate, full_tile_root, parse_entries, parse_hashes, width_at};
use bulla_tests::rig::{Client, Rig, RigOptions, Role};
use serde_json::json;

const SEALS: usize = 600;
const SCANNERS: usize = 6;

/// An outsider: no credential, and of the box only what a `.seal` says of it.
struct Auditor {
    client: Client,
    origin: Origin,
    enrolment: Enrolment,
}

impl Auditor {
    fn checkpoint(&self) -> Result<Checkpoint> {
        let answer = self.client.get("/checkpoint")?;
        ensure!(answer.status == 200 && answer.content_type.starts_with("text/plain"), "{answer:?}");
        let note = SignedNote::parse(std::str::from_utf8(&answer.body)?)?;
        let content = &self.enrolment.content;
        let bytes = *content.log_key;
        let key = PublicKey::from_bytes(Algorithm::Ed25519, &bytes)?;
        Ok(Checkpoint::open(&note, &self.origin, &key, &bytes, &content.attestation_key)?)
    }

    fn bytes(&self, coordinate: TileCoordinate) -> Result<Option<Vec<u8>>> {
        let answer = self.client.get(&format!("/{}", coordinate.path()))?;
        if answer.status == 404 {
            ensure!(answer.problem()? == "unknown-tile", "{coordinate:?}: {}", answer.json()?);
            return Ok(None);
        }
        ensure!(answer.status == 200, "{coordinate:?}: {}", answer.status);
        ensure!(answer.content_type == "application/octet-stream");
        ensure!(answer.header("cache-control").contains("immutable"), "what never changes may be kept");
        Ok(Some(answer.body))
    }

    fn hashes(&self, level: u8, index: u64, width: u16) -> Result<Option<Vec<Hash>>> {
        let Some(bytes) = self.bytes(TileCoordinate::hashes(level, index, width)?)? else { return Ok(None) };
        Ok(Some(parse_hashes(&bytes, width).context("a tile of another width")?))
    }

    /// Every entry of a tree of this size.
    fn entries(&self, size: u64) -> Result<Vec<Vec<u8>>> {
        let mut entries = Vec::new();
        for index in 0..size.div_ceil(256) {
            let width = width_at(0, index, size);
            let bundle =
                self.bytes(TileCoordinate::entries(index, width)?)?.context("a bundle is missing")?;
            entries.extend(parse_entries(&bundle, width)?.into_iter().map(<[u8]>::to_vec));
        }
        Ok(entries)
    }

    /// Every hash tile of a tree of this size.
    fn tiles(&self, size: u64) -> Result<Tiles> {
        let mut levels = Vec::new();
        while let level @ 0..8 = levels.len() as u8
            && width_at(level, 0, size) > 0
        {
            let (mut row, mut index) = (Vec::new(), 0);
            while let width @ 1.. = width_at(level, index, size) {
                row.extend(self.hashes(level, index, width)?.context("a tile is missing")?);
                index += 1;
            }
            levels.push(row);
        }
        Ok(Tiles(levels))
    }
}

/// Hashes of the tiles, level by level: what a client builds proofs from.
struct Tiles(Vec<Vec<Hash>>);

impl HashReader for Tiles {
    type Error = std::convert::Infallible;

    fn subtree(&self, level: u8, index: u64) -> Result<Hash, Self::Error> {
        let below = level % 8;
        let first = (index << below) as usize;
        let mut row = self.0[usize::from(level / 8)][first..first + (1 << below)].to_vec();
        while row.len() > 1 {
            row = row.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
        }
        Ok(row[0])
    }
}

/// Seals `from..to` by digest, with several scanners at a time.
fn seal_many(rig: &Rig, from: usize, to: usize) -> Result<Vec<(u64, Hash)>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SCANNERS)
            .map(|scanner| {
                let client = rig.client(Role::Scanner);
                scope.spawn(move || -> Result<Vec<(u64, Hash)>> {
                    let mut made = Vec::new();
                    for number in (from..to).filter(|number| number % SCANNERS == scanner) {
                        let digest = sha256(&[&number.to_be_bytes()]).to_string();
                        let order = json!({"algorithm": "sha-256", "digest": digest, "size": 8});
                        let answer = client.seal_digest(&order, &[])?;
                        ensure!(answer.status == 201, "{}", String::from_utf8_lossy(&answer.body));
                        let receipt = answer.json()?;
                        let leaf = hex::decode(receipt["leafHash"].as_str().unwrap())?;
                        made.push((receipt["index"].as_u64().unwrap(), Hash::from_slice(&leaf).unwrap()));
                    }
                    Ok(made)
                })
            })
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().unwrap()?);
        }
        Ok(all)
    })
}

#[test]
fn g2_an_outsider_recomputes_the_whole_log() -> Result<()> {
    let rig = Rig::start_with(&RigOptions { extra: "batch_max = 16", ..RigOptions::default() })?;
    let answer = rig.client(Role::Scanner).post("/v1/seals?wait=attested", &[], b"first")?;
    let first: SealFile = answer.seal()?;
    let auditor = Auditor {
        client: rig.client_with(None),
        origin: Origin::parse(&first.origin)?,
        enrolment: Enrolment::decode(&first.enrolment)?,
    };
    assert!(
        AttestationKey::read(auditor.enrolment.content.hardware, &auditor.enrolment.content.attestation_key)
            .is_ok()
    );
    auditor.enrolment.verify(&rig.trust().fleet, &rig.trust().roots)?;

    // Checkpoints on the way; every receipt's entry has the place it was given.
    let mut checkpoints = vec![auditor.checkpoint()?];
    let mut made = Vec::new();
    for part in 0..4 {
        made.extend(seal_many(&rig, part * SEALS / 4, (part + 1) * SEALS / 4)?);
        if part == 1 {
            rig.next_epoch("in the middle of the log")?;
        }
        checkpoints.push(auditor.checkpoint()?);
    }
    rig.client(Role::Scanner).post("/v1/seals?wait=attested&deadlineSeconds=60", &[], b"last")?;
    let newest = auditor.checkpoint()?;
    let size = newest.size();
    assert!(size > SEALS as u64 + 4, "{size} entries");
    checkpoints.push(newest.clone());

    // The entries make up the tree that was signed, and tell one story.
    let entries = auditor.entries(size)?;
    let leaves: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
    let mut frontier = Frontier::new();
    let roots: Vec<Hash> = leaves
        .iter()
        .map(|leaf| {
            frontier.append(*leaf);
            frontier.root()
        })
        .collect();
    for checkpoint in &checkpoints {
        assert_eq!(checkpoint.root(), roots[checkpoint.size() as usize - 1], "size {}", checkpoint.size());
    }
    let mut audit = LogAuditor::new(auditor.origin.clone(), Some(rig.trust()));
    for (index, entry) in entries.iter().enumerate() {
        audit.entry(entry).with_context(|| format!("entry {index}"))?;
    }
    let summary = audit.summary();
    assert_eq!((audit.size(), audit.root()), (size, newest.root()));
    assert_eq!(summary.kinds[&0], SEALS as u64 + 2, "seals: {summary:?}");
    assert!(summary.attested_size > SEALS as u64, "{summary:?}");
    assert!(summary.counter.is_some(), "no certified counter: {summary:?}");
    for (index, leaf) in &made {
        assert_eq!(leaves[*index as usize], *leaf, "the receipt of entry {index}");
    }
    // A checker that accepts everything would prove nothing.
    let mut deaf = LogAuditor::new(auditor.origin.clone(), Some(rig.trust()));
    let mut bent = entries.clone();
    bent.swap(40, 41);
    assert!(bent.iter().any(|entry| deaf.entry(entry).is_err()), "two entries changed places unnoticed");

    // The tiles are those of the entries, and proofs from tiles alone hold.
    let tiles = auditor.tiles(size)?;
    assert_eq!(tiles.0[0], leaves);
    assert_eq!(tiles.0[1], leaves.chunks_exact(256).filter_map(full_tile_root).collect::<Vec<_>>());
    assert_eq!(tiles.0.len(), 2);
    assert_eq!(root(size, &tiles)?, newest.root());
    for pair in checkpoints.windows(2) {
        for (old, new) in [(&pair[0], &pair[1]), (&pair[0], &newest)] {
            let proof = consistency_proof(old.size(), new.size(), &tiles)?;
            verify_consistency(old.size(), &old.root(), new.size(), &new.root(), &proof)?;
        }
    }
    for (index, leaf) in made.iter().step_by(7) {
        let proof = inclusion_proof(*index, size, &tiles)?;
        verify_inclusion(*index, size, leaf, &proof, &newest.root())?;
    }
    partial_tiles(&auditor, &leaves, &entries)?;
    no_tile_beyond(&auditor, size)?;
    one_spelling(&auditor)?;
    notes(&auditor)
}

/// Any width up to the tree's size is served, and is the beginning of the wider one.
fn partial_tiles(auditor: &Auditor, leaves: &[Hash], entries: &[Vec<u8>]) -> Result<()> {
    let size = leaves.len() as u64;
    let last = (size - 1) / 256;
    for index in [0, last] {
        let from = index as usize * 256;
        let most = width_at(0, index, size);
        for width in [1, 2, 3, 17, 42, most - 1, most].into_iter().filter(|width| *width <= most) {
            let to = from + usize::from(width);
            let tile = auditor.hashes(0, index, width)?.with_context(|| format!("tile {index} {width}"))?;
            assert_eq!(tile, leaves[from..to], "tile {index}.p/{width}");
            let bundle = auditor.bytes(TileCoordinate::entries(index, width)?)?.context("no bundle")?;
            assert_eq!(parse_entries(&bundle, width)?, entries[from..to], "bundle {index}.p/{width}");
        }
    }
    let upper = auditor.hashes(1, 0, 1)?.context("no tile of level 1")?;
    assert_eq!(Some(upper[0]), full_tile_root(&leaves[..256]));
    Ok(())
}

/// The log may grow by a few entries of its own meanwhile, so nothing close to its end is asked for.
fn no_tile_beyond(auditor: &Auditor, size: u64) -> Result<()> {
    let last = size / 256;
    for index in [last + 1, last + 2, 1_000, 999_999, 1 << 40, u64::MAX] {
        for width in [1, 255, 256] {
            assert_eq!(auditor.hashes(0, index, width)?, None, "tile {index}.p/{width}");
            assert_eq!(auditor.bytes(TileCoordinate::entries(index, width)?)?, None, "bundle {index}");
        }
    }
    assert_eq!(auditor.hashes(0, last, 256)?, None, "a full tile of a partial one");
    assert_eq!(auditor.hashes(1, 0, 3)?, None);
    for level in [2, 3, 7, 8, 63] {
        assert_eq!(auditor.hashes(level, 0, 1)?, None, "level {level}");
    }
    Ok(())
}

fn one_spelling(auditor: &Auditor) -> Result<()> {
    for path in [
        "/tile/0/0",
        "/tile/00/000",
        "/tile/0/x000/000",
        "/tile/0/000.p/0",
        "/tile/0/000.p/256",
        "/tile/0/000.p/01",
        "/tile/0/000.p/-1",
        "/tile/0/000.p/1/",
        "/tile/0/000/",
        "/tile/0/+00",
        "/tile/64/000",
        "/tile/-1/000",
        "/tile/256/000",
        "/tile/entries/0",
        "/tile/entries/000.p/99999",
        "/tile/Entries/000",
        "/tile/0/x018/x446/x744/x073/x709/x551/616",
        "/tile/x",
        "/tile/0/%00",
        "/tile/0/..%2f..%2fkeys.json",
    ] {
        let answer = auditor.client.get(path)?;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.problem()?, "unknown-tile", "{path}");
    }
    Ok(())
}

/// A note that was tampered with, or that another log signed, is not opened.
fn notes(auditor: &Auditor) -> Result<()> {
    let content = &auditor.enrolment.content;
    let bytes = *content.log_key;
    let key = PublicKey::from_bytes(Algorithm::Ed25519, &bytes)?;
    let open = |text: &str| -> Result<Checkpoint> {
        let note = SignedNote::parse(text)?;
        Ok(Checkpoint::open(&note, &auditor.origin, &key, &bytes, &content.attestation_key)?)
    };
    let text = String::from_utf8(auditor.client.get("/checkpoint")?.body)?;
    let checkpoint = open(&text)?;
    let (origin, size, root) = parse_checkpoint_text(checkpoint.text())?;
    assert_eq!((origin, size, root), (auditor.origin.as_str(), checkpoint.size(), checkpoint.root()));
    let note = SignedNote::parse(&text)?;
    let log_id = ed25519_key_id(origin, &bytes);
    assert_eq!(note.lines.iter().filter(|line| line.key_id == log_id).count(), 1);
    let size = format!("\n{size}\n");
    for bent in [
        text.replacen(&size, &format!("\n{}\n", checkpoint.size() + 1), 1),
        text.replacen(origin, "other.example/00/1", 1),
        text.replace('\u{2014}', "-"),
        text.trim_end().to_owned(),
    ] {
        assert_ne!(bent, text);
        assert!(open(&bent).is_err(), "{bent}");
    }
    Ok(())
}
