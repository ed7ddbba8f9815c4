//! Component schemas: what the hub's answers look like, in JSON Schema 2020-12 as OpenAPI 3.1 has it.
//!
//! Answers are written out by the commands, so their schemas are, too; `tests/tests/hub_openapi.rs` holds the answers of a
//! real hub against them, members unknown to the schema included.
//! Refuses to do: close an answer to later members.

use serde_json::{Map, Value, json};

/// `#/components/schemas/<name>`.
pub fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A SHA-256.
pub fn hex64() -> Value {
    json!({"type": "string", "pattern": "^[0-9a-f]{64}$"})
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn number(description: &str) -> Value {
    json!({"type": "integer", "minimum": 0, "description": description})
}

fn flag(description: &str) -> Value {
    json!({"type": "boolean", "description": description})
}

fn perhaps(kind: &str, description: &str) -> Value {
    json!({"type": [kind, "null"], "description": description})
}

fn one_of(values: &[&str], description: &str) -> Value {
    json!({"type": "string", "enum": values, "description": description})
}

fn list(items: Value, description: &str) -> Value {
    json!({"type": "array", "items": items, "description": description})
}

/// What is not described further.
fn anything(description: &str) -> Value {
    json!({"type": "object", "additionalProperties": true, "description": description})
}

/// An object with these members; names ending in `?` may be absent.
fn object(description: &str, members: Value) -> Value {
    let Value::Object(members) = members else { return members };
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (name, schema) in members {
        let always = name.trim_end_matches('?').to_owned();
        if always == name {
            required.push(name);
        }
        properties.insert(always, schema);
    }
    json!({"type": "object", "description": description, "required": required, "properties": properties})
}

/// All of them.
pub fn all() -> Value {
    json!({
        "Problem": object("A refusal (RFC 9457).", json!({
            "type": text("Stable name; programs decide by it."),
            "title": text("The type in words."),
            "status": {"type": "integer", "minimum": 400, "maximum": 599, "description": "The HTTP status."},
            "detail": text("What happened, why, and what to do."),
        })),
        "Status": object("The hub and its logs.", json!({
            "name": text("What the hub calls itself."),
            "boxes": list(reference("Standing"), "In the order of the configuration."),
        })),
        "Standing": object("How far a log is archived.", json!({
            "box": text("What people call the box."),
            "origin": text("Origin of its log."),
            "entries": number("Archived entries."),
            "newestMillis": number("Local time of the newest (Unix milliseconds); 0 when there is none."),
            "anchored": number("Entries that an anchor covers."),
            "quarantined": number("Entries that the audit refuses."),
            "frozen": perhaps("string", "Why nothing more is taken from this log."),
            "pulling": flag("A pull of it has not come to its head yet."),
        })),
        "Finding": finding(),
        "Findings": object("Lines of the event feed.", json!({
            "findings": list(reference("Finding"), "Oldest first."),
        })),
        "Rows": object("What was found.", json!({
            "rows": list(json!({"oneOf": [reference("FoundSeal"), reference("Unproven"), reference("Row")]}), "Seals of a document, or entries in the order of all logs."),
            "next": perhaps("string", "The place after which there is more: `after` of the next page."),
        })),
        "FoundSeal": found_seal(),
        "Unproven": object("A seal of a log whose first pull has not come to its head yet.", json!({
            "origin": text("Origin of the log."),
            "index": number("Where it stands there."),
            "verdict": {"type": "null"},
        })),
        "Row": row(),
        "Timeline": object("The chain of custody.", json!({
            "events": list(reference("Event"), "In the order of all logs."),
            "gaps": list(text("In a sentence."), "What could not be looked into."),
        })),
        "Event": event(),
        "Statement": statement(),
        "StatedSeal": stated_seal(),
        "Report": report(),
        "Queries": object("Who asked for what.", json!({
            "queries": list(reference("Query"), "Oldest first."),
            "head": {"oneOf": [{"type": "null"}, object("How far the list is.", json!({
                "count": number("Queries so far."),
                "hash": hex64(),
            }))]},
        })),
        "Query": query(),
    })
}

fn millis(description: &str) -> Value {
    perhaps("integer", description)
}

fn finding() -> Value {
    object(
        "Something that speaks against a box, a source or the state of a log.",
        json!({
            "seq": number("Its number in the feed."),
            "foundMillis": number("When (Unix milliseconds)."),
            "severity": one_of(&["info", "warning", "error", "critical"], "How bad it is."),
            "kind": text("Stable name; docs/operating.md lists them."),
            "origin": perhaps("string", "The log; null when it is about several."),
            "subject": text("What it is about, within its kind and log."),
            "detail": text("In a sentence."),
            "evidence": list(text("Name of an object."), "Objects of the archive that show it."),
        }),
    )
}

fn found_seal() -> Value {
    object(
        "A seal of the document.",
        json!({
            "origin": text("Origin of the log."),
            "index": number("Where it stands there."),
            "leafHash": hex64(),
            "verdict": text("Stable name of what the checks amount to."),
            "facts": list(text("Stable name."), "What holds."),
            "notBeforeMillis": millis("Proven not to be older."),
            "notAfterMillis": millis("Proven not to be younger."),
            "localMillis": millis("What the box's own clock said: advisory."),
            "duplicate": flag("Several logs have seals of this document."),
        }),
    )
}

fn row() -> Value {
    object(
        "An entry.",
        json!({
            "box": text("What people call the box."),
            "origin": text("Origin of the log."),
            "index": number("Where it stands there."),
            "lamport": number("Its Lamport time."),
            "kind": text("Stable name of its kind."),
            "leafHash": hex64(),
            "notBeforeMillis": millis("Proven not to be older."),
            "notAfterMillis": millis("Proven not to be younger."),
            "localMillis": number("What the box's own clock said: advisory."),
            "localUncertaintyMillis": millis("Null when not known."),
            "place": text("LAMPORT,ORIGIN,INDEX: its place in the order of all logs."),
        }),
    )
}

fn event() -> Value {
    object(
        "Something that happened; docs/audit.md lists the names.",
        json!({
            "event": text("Stable name."),
            "box": text("What people call the box."),
            "origin": text("Origin of the log."),
            "index": number("The entry."),
            "lamport": number("Its Lamport time."),
            "localMillis": number("What the box's own clock said: advisory."),
            "localUncertaintyMillis": millis("Null when not known."),
            "notBeforeMillis": millis("Proven not to be older."),
            "notAfterMillis": millis("Proven not to be younger."),
            "seals": list(number("Number of a seal, from 1."), "The seals that it is about."),
            "detail": text("In words."),
        }),
    )
}

fn statement() -> Value {
    let numbers = || list(number("Number of a seal, from 1."), "Seals.");
    object(
        "A statement (docs/audit.md).",
        json!({
            "bulla": {"const": "statement/v1"},
            "hub": text("Who states this."),
            "fleet": text("Of which fleet."),
            "madeMillis": number("When (Unix milliseconds)."),
            "trust": object("The trust file that was judged by.", json!({
                "fingerprint": text("Its fingerprint."),
                "issuedMillis": number("When it was written."),
                "rosterVersion": perhaps("integer", "Version of the roster that it was written from."),
            })),
            "document": {"type": "null", "description": "Name and size of a file, at the command line."},
            "digests": list(text("Algorithm and digest."), "What was looked for."),
            "standing": one_of(&["current", "replaced", "annulled", "conflict", "refused"], "Of the document."),
            "seals": list(reference("StatedSeal"), "In the order of all logs."),
            "conflicts": list(numbers(), "Pairs of which each may be the current version."),
            "duplicates": list(numbers(), "Seals of one content in several logs."),
            "timeline": list(reference("Event"), "In the order of all logs."),
            "findings": list(reference("Finding"), "About these seals and their logs."),
            "gaps": list(text("In a sentence."), "What could not be looked into."),
        }),
    )
}

fn stated_seal() -> Value {
    object(
        "A seal of a statement.",
        json!({
            "number": number("From 1."),
            "asked": flag("It is of the digest that was asked for."),
            "box": text("What people call the box."),
            "origin": text("Origin of the log."),
            "index": number("Where it stands there."),
            "lamport": number("Its Lamport time."),
            "leafHash": hex64(),
            "document": object("What was sealed.", json!({
                "digest": text("Algorithm and digest."),
                "size": perhaps("integer", "In bytes."),
                "mediaType": perhaps("string", "As the client said."),
                "observation": one_of(&["bytes-observed", "digest-claimed"], "What the box has seen."),
            })),
            "client": text("Who had it sealed."),
            "transport": text("How it came."),
            "mode": text("Mode of the box."),
            "drill": flag("It was made in a drill."),
            "key": object("The key that signed.", json!({
                "epoch": number("Its epoch."),
                "algorithm": text("Its algorithm."),
                "residency": text("Where it lives."),
                "sha256": hex64(),
            })),
            "commitments": list(object("Something that is hidden.", json!({
                "field": one_of(&["user", "document-id", "metadata"], "What it is."),
                "assurance": one_of(&["asserted", "authenticated"], "Who vouches for it."),
                "hash": hex64(),
            })), "Salted hashes; openings stay at the branch."),
            "relations": list(object("Another seal that it names.", json!({
                "kind": text("Stable name."),
                "leafHash": hex64(),
                "seal": perhaps("integer", "Its number, where it is among these."),
            })), "By its own signed words."),
            "annulledBy": list(number("Number of a seal, from 1."), "Who declares it void."),
            "isAnnulment": flag("It only declares others void."),
            "standing": perhaps("string", "Of this seal; null when it takes no part."),
            "replacedBy": perhaps("integer", "Number of the seal that replaces it."),
            "basis": perhaps("string", "Why that one does."),
            "report": reference("Report"),
            "file": text("Its name inside the PDF."),
            "seal": anything("The .seal file (docs/formats.md)."),
        }),
    )
}

fn report() -> Value {
    object(
        "The report of `bulla verify --json`, by the hub's trust file.",
        json!({
            "verdict": text("Stable name of what the checks amount to."),
            "sentence": text("The verdict in words."),
            "facts": list(text("Stable name."), "What holds."),
            "interval": {"oneOf": [{"type": "null"}, object("When, as far as it is proven.", json!({
                "notBeforeMillis": millis("Proven not to be older."),
                "notAfterMillis": millis("Proven not to be younger."),
                "localMillis": number("What the box's own clock said: advisory."),
                "localUncertaintyMillis": millis("Null when not known."),
            }))]},
            "trustIssuedMillis": number("When the trust file was written."),
            "trustRosterVersion": perhaps("integer", "Version of the roster that it was written from."),
            "checks": list(object("One check.", json!({
                "check": text("Stable name."),
                "outcome": text("Stable name of the outcome."),
                "detail": text("In words."),
            })), "In the order they were made."),
        }),
    )
}

fn query() -> Value {
    object(
        "A query.",
        json!({
            "seq": number("Its number."),
            "atMillis": number("When (Unix milliseconds)."),
            "who": object("Who asked: a person of the hub, or a user of its machine.", json!({
                "person?": text("Their name."),
                "role?": text("Their role then."),
                "certificate?": hex64(),
                "unixUser?": perhaps("string", "Name of the user."),
                "uid?": number("Number of the user."),
            })),
            "from": text("`cli`, or the address."),
            "query": text("What was asked."),
            "asked": anything("For what; with `refused` when the role did not allow it."),
            "previous": hex64(),
        }),
    )
}
