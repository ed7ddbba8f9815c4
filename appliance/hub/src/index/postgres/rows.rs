//! Steps, findings and look-ups by place, as statements.
//!
//! Refuses to do: fetch row by row what one statement can. Invariant: every insertion is one that may be done twice.

use super::{Postgres, Trouble, column, got, put};
use crate::finding::Finding;
use crate::index::{
    Found, Index, IndexError, Kept, LogState, Mark, Rows, duplicate, finding_of, state_of, state_text,
};
use bulla_formats::audit::BOUNDARIES_MAX;
use bulla_formats::body::seal::DigestAlgorithm;
use bulla_formats::hash::Hash;
use postgres::Transaction;
use serde_json::Value;

/// The hash in a column.
fn hash(bytes: &[u8]) -> Result<Hash, IndexError> {
    bytes.try_into().map(Hash).map_err(|_| IndexError::Damaged("a hash is not 32 bytes long"))
}

impl Index for Postgres {
    fn exclusive(&self) -> Result<(), IndexError> {
        self.claim()
    }

    fn id(&self, origin: &str) -> Result<u32, IndexError> {
        if let Some(id) = self.known(origin)? {
            return Ok(id);
        }
        self.change(|change| {
            change.execute(
                "INSERT INTO logs (id, origin) SELECT count(*), $1::text FROM logs ON CONFLICT (origin) DO NOTHING",
                &[&origin],
            )?;
            let id: i32 = change.query_one("SELECT id FROM logs WHERE origin = $1", &[&origin])?.get(0);
            Ok(id as u32)
        })
    }

    fn known(&self, origin: &str) -> Result<Option<u32>, IndexError> {
        self.attempt(|client| {
            let row = client.query_opt("SELECT id FROM logs WHERE origin = $1", &[&origin])?;
            Ok(row.map(|row| row.get::<_, i32>(0) as u32))
        })
    }

    fn state(&self, id: u32) -> Result<LogState, IndexError> {
        let ask = "SELECT state::text FROM logs WHERE id = $1 AND state IS NOT NULL";
        self.attempt(|client| match client.query_opt(ask, &[&(id as i32)])? {
            Some(row) => Ok(state_of(row.get::<_, &str>(0).as_bytes())?),
            None => Ok(LogState::default()),
        })
    }

    fn audit(&self, id: u32) -> Result<Option<(Vec<u8>, Vec<(u64, Hash)>)>, IndexError> {
        // One statement sees one moment.
        let ask = "SELECT audit, array_agg(size ORDER BY size), array_agg(root ORDER BY size) FROM logs LEFT JOIN \
                   (SELECT log, size, root FROM boundaries WHERE log = $1 ORDER BY size DESC LIMIT $2) AS newest \
                   ON log = id WHERE id = $1 AND audit IS NOT NULL GROUP BY audit";
        self.attempt(|client| {
            let row = client.query_opt(ask, &[&(id as i32), &(BOUNDARIES_MAX as i64)])?;
            let Some(row) = row else { return Ok(None) };
            let (sizes, roots): (Vec<Option<i64>>, Vec<Option<Vec<u8>>>) = (row.get(1), row.get(2));
            let both = sizes.into_iter().flatten().zip(roots.into_iter().flatten());
            let boundaries: Result<_, IndexError> =
                both.map(|(size, root)| Ok((got(size), hash(&root)?))).collect();
            Ok(Some((row.get(0), boundaries?)))
        })
    }

    fn newest_boundary(&self, id: u32) -> Result<u64, IndexError> {
        let ask = "SELECT coalesce(max(size), 0) FROM boundaries WHERE log = $1";
        self.attempt(|client| Ok(got(client.query_one(ask, &[&(id as i32)])?.get(0))))
    }

    fn step(
        &self,
        id: u32,
        state: &LogState,
        audit: Option<&[u8]>,
        rows: &Rows,
        now_millis: u64,
    ) -> Result<Vec<Value>, IndexError> {
        let state = state_text(state)?;
        self.change(|change| {
            let mut findings = rows.findings.clone();
            findings.extend(add_digests(change, id, rows)?);
            add_rows(change, id, rows)?;
            super::catalogue::add(change, id, &rows.catalogue)?;
            change.execute(
                "UPDATE logs SET state = $2::text::json, audit = coalesce($3, audit) WHERE id = $1",
                &[&(id as i32), &state, &audit],
            )?;
            add_findings(change, &findings, now_millis)
        })
    }

    fn found(&self, findings: &[Finding], now_millis: u64) -> Result<Vec<Value>, IndexError> {
        if findings.is_empty() {
            return Ok(Vec::new());
        }
        self.change(|change| add_findings(change, findings, now_millis))
    }

    fn findings(&self, from: u64) -> Result<Vec<Value>, IndexError> {
        let ask = "SELECT line::text FROM findings WHERE number >= $1 ORDER BY number";
        self.attempt(|client| {
            let rows = client.query(ask, &[&put(from)])?;
            let lines: Result<_, IndexError> =
                rows.iter().map(|row| finding_of(row.get::<_, &str>(0).as_bytes())).collect();
            Ok(lines?)
        })
    }

    fn find(&self, algorithm: DigestAlgorithm, digest: &[u8]) -> Result<Vec<Found>, IndexError> {
        let ask =
            "SELECT origin, index FROM digests JOIN logs ON log = id WHERE algorithm = $1 AND digest = $2";
        let mut found: Vec<Found> = self.attempt(|client| {
            let rows = client.query(ask, &[&(algorithm as i16), &digest])?;
            Ok(rows.iter().map(|row| Found { origin: row.get(0), index: got(row.get(1)) }).collect())
        })?;
        found.sort_by(|a, b| (&a.origin, a.index).cmp(&(&b.origin, b.index)));
        Ok(found)
    }

    fn marks(&self, id: u32, mark: Mark, from: u64, most: usize) -> Result<Vec<(u64, u64, u64)>, IndexError> {
        let ask = "SELECT a, index, b FROM marks WHERE log = $1 AND mark = $2 AND a >= $3 ORDER BY a, index LIMIT $4";
        self.attempt(|client| {
            let rows = client.query(ask, &[&(id as i32), &(mark as i16), &put(from), &put(most as u64)])?;
            Ok(rows.iter().map(|row| (got(row.get(0)), got(row.get(1)), got(row.get(2)))).collect())
        })
    }

    fn erased(&self, id: u32, leaf: &Hash) -> Result<Option<u64>, IndexError> {
        let ask = "SELECT index FROM erased WHERE log = $1 AND leaf = $2";
        self.attempt(|client| {
            let row = client.query_opt(ask, &[&(id as i32), &&leaf.0[..]])?;
            Ok(row.map(|row| got(row.get(0))))
        })
    }

    fn quarantined(&self, id: u32, index: u64) -> Result<Option<String>, IndexError> {
        let ask = "SELECT reason FROM quarantine WHERE log = $1 AND index = $2";
        self.attempt(|client| {
            let row = client.query_opt(ask, &[&(id as i32), &put(index)])?;
            Ok(row.map(|row| row.get(0)))
        })
    }

    fn kept(&self) -> Result<Kept, IndexError> {
        use crate::index::catalogue::Catalogue as _;
        let told = self.untold()?;
        self.attempt(|client| {
            let rows = client.query("SELECT number, key, line::text FROM findings ORDER BY number", &[])?;
            let mut kept = Kept { findings: Vec::with_capacity(rows.len()), told };
            for row in rows {
                kept.findings.push((got(row.get(0)), hash(row.get(1))?.0, row.get(2)));
            }
            Ok(kept)
        })
    }

    fn adopt(&self, kept: &Kept) -> Result<(), IndexError> {
        use crate::index::catalogue::Catalogue as _;
        let numbers = column(&kept.findings, |(number, _, _)| *number);
        let keys: Vec<&[u8]> = kept.findings.iter().map(|(_, key, _)| &key[..]).collect();
        let lines: Vec<&str> = kept.findings.iter().map(|(_, _, line)| line.as_str()).collect();
        self.change(|change| {
            change.execute(
                "INSERT INTO findings SELECT n, k, l::json FROM unnest($1::bigint[], $2::bytea[], $3::text[]) AS t (n, k, l) \
                 ON CONFLICT DO NOTHING",
                &[&numbers, &keys, &lines],
            )?;
            Ok(())
        })?;
        self.told(kept.told)
    }
}

/// Puts digests; returns findings of those that another log has sealed as well.
fn add_digests(change: &mut Transaction<'_>, id: u32, rows: &Rows) -> Result<Vec<Finding>, Trouble> {
    if rows.digests.is_empty() {
        return Ok(Vec::new());
    }
    let algorithms: Vec<i16> = rows.digests.iter().map(|(algorithm, _, _)| *algorithm as i16).collect();
    let digests: Vec<&[u8]> = rows.digests.iter().map(|(_, digest, _)| digest.as_slice()).collect();
    let indexes = column(&rows.digests, |(_, _, index)| *index);
    change.execute(
        "INSERT INTO digests SELECT a, d, $1::integer, i FROM unnest($2::smallint[], $3::bytea[], $4::bigint[]) AS t (a, d, i) \
         ON CONFLICT DO NOTHING",
        &[&(id as i32), &algorithms, &digests, &indexes],
    )?;
    let elsewhere = change.query(
        "SELECT n FROM unnest($2::smallint[], $3::bytea[]) WITH ORDINALITY AS t (a, d, n) WHERE EXISTS \
         (SELECT FROM digests WHERE algorithm = a AND digest = d AND log <> $1) ORDER BY n",
        &[&(id as i32), &algorithms, &digests],
    )?;
    let of = |row: &postgres::Row| {
        let (algorithm, digest, _) = &rows.digests[got(row.get(0)) as usize - 1];
        duplicate(*algorithm, digest)
    };
    Ok(elsewhere.iter().map(of).collect())
}

fn add_rows(change: &mut Transaction<'_>, id: u32, rows: &Rows) -> Result<(), Trouble> {
    let id = id as i32;
    if !rows.marks.is_empty() {
        let marks: Vec<i16> = rows.marks.iter().map(|(mark, ..)| *mark as i16).collect();
        let (a, at) = (column(&rows.marks, |row| row.1), column(&rows.marks, |row| row.2));
        let b = column(&rows.marks, |row| row.3);
        change.execute(
            "INSERT INTO marks SELECT DISTINCT ON (m, a, i) $1::integer, m, a, i, b \
             FROM unnest($2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[]) WITH ORDINALITY AS t (m, a, i, b, n) \
             ORDER BY m, a, i, n DESC ON CONFLICT (log, mark, a, index) DO UPDATE SET b = excluded.b",
            &[&id, &marks, &a, &at, &b],
        )?;
    }
    if !rows.erased.is_empty() {
        let leaves: Vec<&[u8]> = rows.erased.iter().map(|(leaf, _)| &leaf.0[..]).collect();
        let at = column(&rows.erased, |row| row.1);
        change.execute(
            "INSERT INTO erased SELECT DISTINCT ON (l) $1::integer, l, i \
             FROM unnest($2::bytea[], $3::bigint[]) WITH ORDINALITY AS t (l, i, n) ORDER BY l, n DESC \
             ON CONFLICT (log, leaf) DO UPDATE SET index = excluded.index",
            &[&id, &leaves, &at],
        )?;
    }
    if !rows.quarantined.is_empty() {
        let at = column(&rows.quarantined, |row| row.0);
        // A box shapes some of the words, and text holds no NUL.
        let reasons: Vec<String> =
            rows.quarantined.iter().map(|(_, reason)| reason.replace('\0', "\u{fffd}")).collect();
        change.execute(
            "INSERT INTO quarantine SELECT $1::integer, i, r FROM unnest($2::bigint[], $3::text[]) AS t (i, r) \
             ON CONFLICT (log, index) DO UPDATE SET reason = excluded.reason",
            &[&id, &at, &reasons],
        )?;
    }
    if !rows.boundaries.is_empty() {
        let sizes = column(&rows.boundaries, |row| row.0);
        let roots: Vec<&[u8]> = rows.boundaries.iter().map(|(_, root)| &root.0[..]).collect();
        change.execute(
            "INSERT INTO boundaries SELECT $1::integer, s, r FROM unnest($2::bigint[], $3::bytea[]) AS t (s, r) \
             ON CONFLICT (log, size) DO UPDATE SET root = excluded.root",
            &[&id, &sizes, &roots],
        )?;
    }
    let oldest = put(rows.oldest_boundary);
    change.execute("DELETE FROM boundaries WHERE log = $1 AND size < $2", &[&id, &oldest])?;
    Ok(())
}

fn add_findings(
    change: &mut Transaction<'_>,
    findings: &[Finding],
    now_millis: u64,
) -> Result<Vec<Value>, Trouble> {
    if findings.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<[u8; 32]> = findings.iter().map(|finding| finding.key().0).collect();
    let asked: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    let known = change.query("SELECT key FROM findings WHERE key = ANY ($1)", &[&asked])?;
    let mut known: std::collections::BTreeSet<Vec<u8>> = known.iter().map(|row| row.get(0)).collect();
    let next = change.query_one("SELECT coalesce(max(number) + 1, 0) FROM findings", &[])?;
    let mut next = got(next.get(0));
    let (mut new, mut numbers, mut of, mut lines) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (finding, key) in findings.iter().zip(&keys) {
        if known.insert(key.to_vec()) {
            let line = finding.to_json(next, now_millis);
            numbers.push(put(next));
            of.push(&key[..]);
            lines.push(line.to_string());
            next += 1;
            new.push(line);
        }
    }
    change.execute(
        "INSERT INTO findings SELECT n, k, l::json FROM unnest($1::bigint[], $2::bytea[], $3::text[]) AS t (n, k, l)",
        &[&numbers, &of, &lines],
    )?;
    Ok(new)
}
