//! Components of drills, manifests and anchors.

use super::{closed, list, number, object, one_of, text};
use serde_json::{Value, json};

/// All of them.
pub fn all() -> Value {
    json!({
        "DrillOrder": closed("What to rehearse.", json!({
            "kind": {"const": "wan-down"},
            "seconds": {"type": "integer", "minimum": 1, "maximum": 86400, "examples": [600]},
        })),
        "LeaseOrder": closed("A lease to take.", json!({
            "lease": {"type": "string", "contentEncoding": "base64", "maxLength": 12000, "description": "DER of a lease."},
        })),
        "Lease": lease(),
        "Outage": outage(),
        "Anchors": anchors(),
        "Anchored": object("By whom an entry is anchored.", json!({
            "operators": {"type": "array", "items": {"type": "string"}, "description": "Operators whose proofs the log has."},
            "needed": number("How many it takes."),
            "anchored": {"type": "boolean", "description": "Whether there are so many."},
        })),
        "Manifests": manifests(),
        "Time": time(),
    })
}

fn outage() -> Value {
    let nullable = |description: &str| json!({"type": ["integer", "null"], "description": description});
    let mut under_way = object(
        "The outage under way or being reconciled.",
        json!({
            "number": number("Counted from 1 in this log."),
            "first": nullable("Index of its first entry."),
            "last": nullable("Index of its last entry; null while it lasts."),
            "seconds": number("How long it has lasted, or lasted in all."),
            "seals": number("Seals in it."),
            "manifests": number("Manifests so far, without the closing one."),
            "closing": nullable("Index of the closing manifest."),
        }),
    );
    under_way["type"] = json!(["object", "null"]);
    object(
        "Modes and the outage under way.",
        json!({
            "mode": text("Mode in force."),
            "below": text("What would be in force if nothing forced `safe`."),
            "drill": {"type": "boolean", "description": "Whether entries are marked as a drill's."},
            "drillSecondsLeft": nullable("Until the drill ends by itself; null when none runs."),
            "outages": number("Outages in this log, drills included."),
            "outage": under_way,
            "limitsReached": list(one_of(&["duration", "seals", "holders"], "A limit."), 3, "Limits of emergency operation."),
            "failing": list(object("An authority that does not answer.", json!({
                "authority": text("Its name."), "failure": text("How it fails."), "seconds": number("For how long."),
            })), 16, "Authorities that do not answer."),
        }),
    )
}

fn lease() -> Value {
    let nullable = |description: &str| json!({"type": ["integer", "null"], "description": description});
    object(
        "The newest lease, in force or over; absent without any.",
        json!({
            "issuer": text("Who issued it."),
            "issuedMillis": number("When (Unix milliseconds)."),
            "expiresMillis": number("Until when it holds (Unix milliseconds)."),
            "secondsLeft": nullable("For how long it holds; null: it is over, and only its limits hold."),
            "sealsLeft": nullable("For how many seals; null: any number, or it is over."),
            "limits": object("Of an emergency; the box's own count where they are narrower.", json!({
                "seconds": nullable("Longest emergency."),
                "seals": nullable("Most seals in one."),
                "holders": nullable("Fewest peers that hold copies."),
                "atLimit": one_of(&["continue", "safe"], "What happens at a limit."),
            })),
        }),
    )
}

fn anchors() -> Value {
    let nullable = |description: &str| json!({"type": ["integer", "null"], "description": description});
    object(
        "What is anchored; absent without authorities.",
        json!({
            "operatorsNeeded": number("By how many operators entries are to be anchored."),
            "anchoredSize": number("Entries that so many have anchored."),
            "unanchored": number("Entries worth an anchor that are not."),
            "waitingSeconds": nullable("How long the oldest of them has waited."),
            "lastAnchorSecondsAgo": nullable("Since the newest anchor of this run."),
            "authorities": list(object("An authority.", json!({
                "name": text("Its name."),
                "operator": text("Who runs it."),
                "proofs": number("Proofs it has given in this run."),
                "failing": {"type": ["string", "null"], "description": "What was last seen of it, while it does not answer."},
                "revoked": {"type": "boolean", "description": "Whether its newest stamp is by a revoked signer, so that no stamp of it counts until it has another certificate."},
                "quotaLeft": nullable("Requests left in its quota; null: no quota."),
                "askedAgainInSeconds": nullable("When it may be asked again; null: never."),
            })), 16, "As configured."),
            "crls": {"type": "array", "description": "Certificates behind time stamps, and the CRL that is kept for each.", "items": object("A certificate.", json!({
                "subject": text("Whose it is."),
                "authority": text("The authority whose stamps it stands behind."),
                "sha256": {"type": ["string", "null"], "description": "The CRL that is kept, hex; null: none, as for what follows."},
                "bytes": nullable("Its size."),
                "thisUpdateMillis": nullable("When it was made (Unix milliseconds)."),
                "nextUpdateMillis": nullable("When the next one was to be there."),
                "revoked": {"oneOf": [{"type": "null"}, object("The certificate is listed.", json!({
                    "atMillis": number("Since when."),
                    "reason": {"type": ["string", "null"], "description": "As RFC 5280 calls it."},
                    "doubtful": {"type": "boolean", "description": "Whether stamps from before that count for nothing either."},
                }))]},
                "failing": {"type": ["string", "null"], "description": "What the last fetch failed of."},
            }))},
            "together": {"oneOf": [{"type": "null"}, object("Heads that are anchored together with those of neighbours; null without neighbours, or where it is switched off.", json!({
                "waitsFor": {"type": ["string", "null"], "description": "The neighbour, by its log, that is having this log anchored; this box asks nobody meanwhile."},
                "waitsSeconds": nullable("For how long at most."),
                "owed": number("Neighbours that have not taken yet what this box had anchored for them."),
                "refused": {"type": "array", "items": {"type": "string"}, "description": "Neighbours whose anchors are not taken for a while, because one did not hold."},
            }))]},
        }),
    )
}

fn time() -> Value {
    let nullable = |description: &str| json!({"type": ["integer", "null"], "description": description});
    object(
        "What is known of the time, and by which Roughtime servers; authorities tell it, too.",
        json!({
            "uncertaintyMillis": nullable("How far the wall clock may be off, as new entries state it; null: nobody knows."),
            "notBeforeMillis": nullable("The true time is not before this (Unix milliseconds)."),
            "notAfterMillis": nullable("Nor after this."),
            "sources": list(object("A Roughtime server. It bounds the box's clock, and anchors nothing.", json!({
                "name": text("Its name."),
                "operator": text("Who runs it."),
                "asked": number("Questions of this run."),
                "answers": number("Answers that hold."),
                "contradictions": number("Answers among them that contradicted what was known; which side is wrong nobody can tell."),
                "failing": {"type": ["string", "null"], "description": "Why the last question failed."},
                "last": {"oneOf": [{"type": "null"}, object("The last answer that holds; null before any.", json!({
                    "secondsAgo": number("When it came."),
                    "midpoint": number("Its time (Unix seconds)."),
                    "radiusSeconds": number("How far that may be off."),
                    "aheadMillis": {"type": "integer", "description": "Its time less the wall clock's when it came."},
                    "tookMillis": number("From the question to the answer."),
                    "contradicted": {"type": "boolean", "description": "Whether it contradicted what was known."},
                }))]},
            })), 8, "As configured."),
        }),
    )
}

fn manifests() -> Value {
    object(
        "Manifests, oldest first.",
        json!({"manifests": {"type": "array", "items": object("A manifest.", json!({
            "index": number("Index of its entry."),
            "outage": number("Number of its outage."),
            "sequence": number("Its number within the outage, from 0."),
            "phase": one_of(&["open", "refresh", "close"], "Which of them it is."),
            "drill": {"type": "boolean", "description": "Whether the outage is a drill."},
            "first": number("Index of the first entry covered."),
            "last": number("Index of the last entry covered."),
            "seals": number("How many of them are seals."),
            "beganMillis": number("When the outage was declared (the box's clock, Unix milliseconds)."),
            "madeMillis": number("When this was stated."),
            "durationMillis": number("How long it had lasted."),
            "over": {"type": "boolean", "description": "Whether the outage is over."},
            "links": object("Where it is.", json!({"der": text("For verifiers."), "pdf": text("To print.")})),
        }))}}),
    )
}
