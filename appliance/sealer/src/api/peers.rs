//! The neighbours, as status and telemetry show them, and the copies of their logs as C2SP tlog-tiles.
//!
//! A copy is open to everybody, as the log itself is: `/mirrors/<hex SHA-256 of the origin>/checkpoint` and `/tile/...`.
//! `/mirrors/<...>/seals/<index>` makes the `.seal` file of an entry of a copy, for those who read seals.
//! Refuses to do: serve a head that the copy does not cover; name a log that is not mirrored.

use super::access::{Caller, Right};
use super::receipt::{SEAL_MEDIA_TYPE, respond};
use super::seals::blocking;
use super::{Shared, log};
use crate::driver::{LookupError, Sealer, neighbours};
use crate::problem::{Kind, Problem};
use crate::telemetry::{family, line};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use bulla_ledger::{Kept, Mirror, mirror_directory};
use serde_json::{Value, json};

/// Member `peers` of the status; `None` without `[peers]`.
pub fn status(sealer: &Sealer) -> Option<Value> {
    let facts = sealer.neighbours()?;
    let peer = |peer: &crate::driver::neighbours::PeerFacts| {
        json!({
            "origin": peer.holds.origin,
            "connected": peer.connected,
            "mirrored": peer.holds.mirrored,
            "witnessed": peer.holds.witnessed,
            "copy": {
                "size": peer.copy,
                "known": peer.known,
                "mirrored": peer.cosigned.0,
                "witnessed": peer.cosigned.1,
                "frozen": peer.frozen,
            },
            "leftAloneSeconds": peer.blamed.map(|millis| millis / 1_000),
            "trouble": peer.trouble,
            "attested": {
                "state": peer.attested.state,
                "reason": peer.attested.reason,
                "since": peer.attested.since,
                "last": peer.attested.last,
                "key": peer.attested.key,
            },
            "trust": peer.source,
            "exchanged": peer.level,
        })
    };
    let neighbours: Vec<Value> = facts.peers.iter().map(peer).collect();
    let pairs = |pairs: &[(String, String)], name: &str| -> Vec<Value> {
        pairs.iter().map(|(what, why)| json!({name: what, "why": why})).collect()
    };
    let level = |foreign: &crate::config::ForeignConfig| json!({"fleet": foreign.fleet, "exchanged": foreign.level.name()});
    Some(json!({
        "atStart": facts.standing,
        "trouble": facts.trouble,
        "neighbours": neighbours,
        "keptOut": pairs(&facts.kept_out, "origin"),
        "rosters": facts.rosters.iter().map(super::rosters::describe).collect::<Vec<_>>(),
        "rosterTroubles": pairs(&facts.roster_troubles, "fleet"),
        "foreign": facts.foreign.iter().map(level).collect::<Vec<_>>(),
    }))
}

/// Metrics; nothing without `[peers]`.
pub fn metrics(out: &mut String, sealer: &Sealer) {
    let Some(facts) = sealer.neighbours() else { return };
    let connected = facts.peers.iter().filter(|peer| peer.connected).count();
    family(out, "bulla_peers_connected", "gauge", "Neighbours that are connected.");
    line(out, "bulla_peers_connected", "", connected as u64);
    let label = |origin: &str| format!("peer=\"{origin}\"");
    for (name, help, value) in [
        ("bulla_peer_mirrored_size", "Entries of this log that the neighbour holds durably.", 0),
        ("bulla_peer_witnessed_size", "Entries of this log that it found consistent.", 1),
        ("bulla_mirror_size", "Entries of its log that are durable here.", 2),
        ("bulla_mirror_frozen", "1 when its log has forked.", 3),
        ("bulla_peer_attested", "1 while its TPM vouches for it.", 4),
        ("bulla_peer_distrusted", "1 when its last answer to a challenge was not good.", 5),
    ] {
        family(out, name, "gauge", help);
        for peer in &facts.peers {
            let attested = |state: &str| u64::from(peer.attested.state == state);
            let values = [
                peer.holds.mirrored,
                peer.holds.witnessed,
                peer.copy,
                u64::from(peer.frozen),
                attested("fresh"),
                attested("refused"),
            ];
            line(out, name, &label(&peer.holds.origin), values[value]);
        }
    }
    family(out, "bulla_roster_version", "gauge", "Version of the roster of a fleet that this box goes by.");
    for roster in &facts.rosters {
        line(out, "bulla_roster_version", &format!("fleet=\"{}\"", roster.fleet), roster.number);
    }
    for (name, value) in facts.counted.rows().filter(|(name, _)| *name != "connections") {
        let name = format!("bulla_wire_{name}_total");
        family(out, &name, "counter", "What passed over the wire to the neighbours; docs/api.md says which.");
        line(out, &name, "", value);
    }
}

/// `GET /v1/mirrors`.
pub async fn mirrors(State(api): State<Shared>, caller: Caller) -> Result<Response, Problem> {
    caller.need(Right::ReadStatus)?;
    let mirrors = api.sealer.mirrors().map(|mirrors| mirrors.all()).unwrap_or_default();
    let describe = |mirror: &Mirror| {
        let standing = mirror.standing();
        json!({
            "origin": standing.origin,
            "directory": mirror_directory(&standing.origin),
            "size": standing.tree.size,
            "root": standing.tree.root.to_string(),
            "headSize": standing.head.as_ref().map(|head| head.tree.size),
            "frozen": !matches!(standing.frozen, Kept::Known(None)),
            "missingObjects": standing.missing,
        })
    };
    let mirrors: Vec<Value> = mirrors.iter().map(describe).collect();
    Ok(respond(StatusCode::OK, "application/json", json!({"mirrors": mirrors}).to_string()))
}

fn find(api: &Shared, directory: &str) -> Result<Mirror, Problem> {
    let mirrors = api.sealer.mirrors().map(|mirrors| mirrors.all()).unwrap_or_default();
    let found = mirrors.into_iter().find(|mirror| mirror_directory(mirror.origin()) == directory);
    found.ok_or_else(|| {
        let detail = "no log of this name is mirrored here; the name is the SHA-256 of the origin, in lower-case hex, \
                      and GET /v1/mirrors lists them";
        Problem::new(Kind::UnknownMirror, detail)
    })
}

/// `GET /mirrors/{directory}/checkpoint`: the newest signed head of which everything is here.
pub async fn checkpoint(
    State(api): State<Shared>,
    directory: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(directory) = directory?;
    let standing = find(&api, &directory)?.standing();
    let head = standing.head.filter(|head| head.tree.size <= standing.tree.size);
    let note = head.and_then(|head| String::from_utf8(head.note).ok());
    let note = note.ok_or_else(|| {
        Problem::new(Kind::UnknownMirror, "no signed head of this log is covered yet; ask again later")
    })?;
    Ok(log::note(note))
}

/// `GET /mirrors/{directory}/tile/...`.
pub async fn tile(
    State(api): State<Shared>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    let Path((directory, path)) = path?;
    let mirror = find(&api, &directory)?;
    log::read_tile(&path, move || mirror.reader().map_err(|error| error.to_string())).await
}

/// `GET /mirrors/{directory}/seals/{index}`.
pub async fn seal_file(
    State(api): State<Shared>,
    caller: Caller,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    caller.need(Right::ReadSeals)?;
    let Path((directory, index)) = path?;
    let mirror = find(&api, &directory)?;
    let seal = blocking(move || {
        let index = index.parse().map_err(|_| LookupError::Unknown)?;
        neighbours::seal_file(&mirror, index)
    });
    Ok(respond(StatusCode::OK, SEAL_MEDIA_TYPE, seal.await?.encode()))
}
