//! Component schemas: what requests and answers look like, in JSON Schema 2020-12 as OpenAPI 3.1 has it.
//!
//! Answers are written by hand-made serialisers that run thousands of times a second, so their schemas are written
//! out too; `tests/tests/box_openapi.rs` holds the answers of a real box against them, members unknown to the
//! schema included.
//! Refuses to do: close an answer to later members. Requests are closed, because the box refuses what it does not know.

mod alerts;
mod approved;
mod console;
mod dial_out;
mod medium;
mod outages;
mod peers;

use serde_json::{Value, json};

/// `#/components/schemas/<name>`.
pub fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Id of a seal: index and first 16 hex digits of the leaf hash.
pub fn seal_id() -> Value {
    json!({"type": "string", "pattern": "^[0-9]{1,19}-[0-9a-f]{16}$", "examples": ["4711-9f86d081884c7d65"]})
}

fn hex64() -> Value {
    json!({"type": "string", "pattern": "^[0-9a-f]{64}$"})
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn number(description: &str) -> Value {
    json!({"type": "integer", "minimum": 0, "description": description})
}

fn one_of(values: &[&str], description: &str) -> Value {
    json!({"type": "string", "enum": values, "description": description})
}

fn list(items: Value, most: u64, description: &str) -> Value {
    json!({"type": "array", "items": items, "maxItems": most, "description": description})
}

/// An object with these members; names ending in `?` may be absent.
fn object(description: &str, members: Value) -> Value {
    let Value::Object(members) = members else { return members };
    let mut properties = serde_json::Map::new();
    let mut required = Vec::new();
    for (name, schema) in members {
        match name.strip_suffix('?') {
            Some(name) => drop(properties.insert(name.to_owned(), schema)),
            None => {
                required.push(name.clone());
                properties.insert(name, schema);
            }
        }
    }
    json!({"type": "object", "description": description, "required": required, "properties": properties})
}

/// The same, and nothing else.
fn closed(description: &str, members: Value) -> Value {
    let mut schema = object(description, members);
    schema["additionalProperties"] = false.into();
    schema
}

/// All components.
pub fn all() -> Value {
    let mut all = of_the_box();
    for more in [
        console::all(),
        outages::all(),
        peers::all(),
        medium::all(),
        dial_out::all(),
        alerts::all(),
        approved::all(),
    ] {
        if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
            all.extend(more);
        }
    }
    all
}

fn of_the_box() -> Value {
    json!({
        "Problem": problem(),
        "SealId": seal_id(),
        "Relation": relation_target(),
        "Metadata": metadata(),
        "DigestOrder": digest_order(),
        "SealForm": seal_form(),
        "Receipt": receipt(),
        "SealedDocument": sealed_document(),
        "SealFile": seal_file(),
        "Base64": {"type": "string", "contentEncoding": "base64"},
        "Elsewhere": elsewhere(),
        "Links": links(),
        "RelationView": relation_view(),
        "RelatedBy": related_by(),
        "Opening": opening(),
        "SearchPage": search_page(),
        "FoundSeal": found_seal(),
        "Known": known(),
        "VerifyForm": verify_form(),
        "Digests": digests(),
        "BulkForm": bulk_form(),
        "BulkResults": bulk_results(),
        "Interval": interval(),
        "Report": report(),
        "Rotation": rotation(),
        "Epoch": closed("The key epoch that began.", json!({"epoch": number("Its number.")})),
        "Status": status(),
        "Condition": condition(),
        "QueueId": queue_id(),
        "Queued": queued(),
        "QueuedState": queued_state(),
        "Reason": closed("Why; the log gets it.", json!({"reason": reason()})),
        "LockAnswer": object("What holds now.", json!({
            "locked": {"type": "boolean"},
            "changed": {"type": "boolean", "description": "Whether this request changed it."},
            "logged": {"type": "boolean", "description": "Whether the log has an entry of it already."},
        })),
        "ErasureOrder": erasure_order(),
        "Erasure": erasure(),
        "SelfTest": self_test(),
        "Scrub": scrub(),
    })
}

fn problem() -> Value {
    object(
        "A refusal or failure (RFC 9457).",
        json!({
            "type": {"type": "string", "format": "uri", "pattern": "^urn:bulla:problem:[a-z0-9-]+$", "description": "Stable; programs decide by it."},
            "title": text("The type in words."),
            "status": {"type": "integer", "minimum": 400, "maximum": 599, "description": "The HTTP status."},
            "detail": text("What happened, why, and what to do."),
            "instance": text("The path of the request."),
            "first?": reference("SealId"),
            "queueId?": reference("QueueId"),
        }),
    )
}

fn relation_target() -> Value {
    json!({
        "description": "An earlier seal of this box by its id, or an entry of any box by its leaf hash.",
        "type": "string",
        "pattern": "^([0-9]{1,19}-[0-9a-f]{16}|[0-9a-fA-F]{64})$"
    })
}

fn metadata() -> Value {
    json!({
        "type": "object",
        "description": "Names and values; in the log only as salted hashes.",
        "maxProperties": 62,
        "propertyNames": {"minLength": 1, "maxLength": 128},
        "additionalProperties": {"type": "string", "maxLength": 8192},
        "examples": [{"desk": "3"}]
    })
}

fn relations(description: &str) -> Value {
    list(reference("Relation"), 16, description)
}

fn digest_order() -> Value {
    let mut schema = closed(
        "A document by its digest: it never travels, and the seal says digest-claimed. At most 16 relations in all.",
        json!({
            "algorithm": one_of(&["sha-256", "sha-512", "sha3-256"], "How the document was hashed."),
            "digest": {"type": "string", "pattern": "^([0-9a-fA-F]{64}|[0-9a-fA-F]{128})$", "description": "Hex; 128 digits for sha-512, else 64."},
            "size?": {"type": ["integer", "null"], "minimum": 1, "maximum": i64::MAX, "description": "Bytes of the document, as claimed."},
            "mediaType?": {"type": ["string", "null"], "pattern": "^[ -~]*[!-~][ -~]*/[ -~]*[!-~][ -~]*$", "maxLength": 255, "description": "Default application/octet-stream."},
            "user?": {"type": ["string", "null"], "minLength": 1, "maxLength": 8192, "description": "The person at the scanner, as asserted."},
            "documentId?": {"type": ["string", "null"], "minLength": 1, "maxLength": 8192, "description": "The institution's id of the document."},
            "metadata?": reference("Metadata"),
            "supersedes?": relations("Seals that this one replaces."),
            "derivedFrom?": relations("Seals of what this document was made from."),
            "annuls?": relations("Seals that this one declares void."),
        }),
    );
    schema["examples"] = json!([{
        "algorithm": "sha-256",
        "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "size": 48213, "mediaType": "application/pdf", "documentId": "K-2026-0815"
    }]);
    schema
}

fn seal_form() -> Value {
    closed(
        "The document and what is said about it. A Content-Digest goes into the headers of the part `document`.",
        json!({
            "document": {"type": "string", "format": "binary", "minLength": 1, "description": "The file; the Content-Type of its part is recorded."},
            "user?": {"type": "string", "minLength": 1, "maxLength": 8192},
            "documentId?": {"type": "string", "minLength": 1, "maxLength": 8192},
            "metadata?": reference("Metadata"),
            "supersedes?": relations("Repeat the field for more than one."),
            "derivedFrom?": relations("Repeat the field for more than one."),
            "annuls?": relations("Repeat the field for more than one."),
        }),
    )
}

fn receipt() -> Value {
    object(
        "A seal, with the best evidence there is by now.",
        json!({
            "id": reference("SealId"),
            "index": number("Index of the entry in the log."),
            "leafHash": hex64(),
            "origin": text("Origin of the log."),
            "sealedAtMillis": number("The box's own clock (Unix milliseconds)."),
            "mode": text("Mode in force, e.g. air-gapped."),
            "epoch": number("Key epoch that signed."),
            "residency": text("Where the sealing key lived, e.g. tpm-endorsed-ram."),
            "facts": list(one_of(&["sealed", "attested"], "A fact of which `seal` carries the evidence."), 16, "What is proven."),
            "waited?": one_of(&["attested", "anchored", "mirrored", "witnessed", "timed-out", "not-hardware", "no-authorities", "no-neighbours"], "How the wait ended; only when one was asked for."),
            "heldBy?": list(text("Origin of its log."), 64, "Neighbours that hold the entry, or have witnessed it; only when one waited for them."),
            "replayed?": {"type": "boolean", "description": "Made before under the same Idempotency-Key; only after POST."},
            "earlier?": list(reference("SealId"), 8, "Earlier seals of the same digest, newest first; only after POST."),
            "elsewhere?": list(reference("Elsewhere"), 8, "Seals of the same digest in copies of other boxes' logs, the latest first; only after POST, and when there are any."),
            "document?": reference("SealedDocument"),
            "relatedBy?": list(reference("RelatedBy"), 100, "Seals that name this one; only after GET, and while it is known."),
            "erased?": {"type": "boolean", "description": "True when its openings were destroyed and the log records it."},
            "links": reference("Links"),
            "seal": reference("SealFile"),
        }),
    )
}

fn sealed_document() -> Value {
    object(
        "What was sealed; only after GET.",
        json!({
            "algorithm": one_of(&["sha-256", "sha-512", "sha3-256"], "How it was hashed."),
            "digest": {"type": "string", "pattern": "^[0-9a-f]{64}([0-9a-f]{64})?$"},
            "size?": number("Bytes; absent when only a digest was handed in without it."),
            "mediaType": text("As the client named it."),
            "observation": one_of(&["bytes-observed", "digest-claimed"], "What the box saw."),
            "client": text("Name of the client."),
            "clientMethod": one_of(&["bearer-token", "client-certificate", "local"], "How it proved itself."),
            "transport": text("How it travelled."),
            "relations": list(reference("RelationView"), 16, "To earlier entries."),
            "commitments": number("How many values are committed to."),
            "openings": list(reference("Opening"), 64, "Only for those who may see them."),
        }),
    )
}

fn links() -> Value {
    object(
        "Where it is.",
        json!({"self": text("Path of the receipt."), "sealFile": text("Path of the .seal file.")}),
    )
}

fn relation_view() -> Value {
    object("What a document is to an earlier one.", json!({"kind": relation_kind(), "leafHash": hex64()}))
}

fn related_by() -> Value {
    object(
        "A later seal, and what its document is to this one.",
        json!({"kind": relation_kind(), "id": reference("SealId")}),
    )
}

fn relation_kind() -> Value {
    one_of(&["supersedes", "derived-from", "annuls"], "Which relation.")
}

fn opening() -> Value {
    object(
        "An opened value.",
        json!({
            "field": one_of(&["user", "document-id", "metadata"], "Which field."),
            "name": text("Name of the field."),
            "value": text("Its value."),
            "assurance": one_of(&["asserted", "authenticated"], "Who vouches for it."),
        }),
    )
}

fn search_page() -> Value {
    object(
        "Seals found, newest first. A page may be short, even empty, and have `next`.",
        json!({
            "seals": list(reference("FoundSeal"), 500, "Newest first."),
            "unreadable?": number("Damaged entries that may have belonged on the page."),
            "next?": text("Cursor of the next page; while it is there, there may be more."),
        }),
    )
}

fn found_seal() -> Value {
    object(
        "A seal found.",
        json!({
            "id": reference("SealId"),
            "index": number("Index of the entry in the log."),
            "leafHash": hex64(),
            "sealedAtMillis": number("The box's own clock (Unix milliseconds)."),
            "client": text("Name of the client."),
            "mediaType": text("As the client named it."),
            "algorithm": one_of(&["sha-256", "sha-512", "sha3-256"], "How it was hashed."),
            "digest": {"type": "string", "pattern": "^[0-9a-f]{64}([0-9a-f]{64})?$"},
            "size?": number("Bytes, when known."),
            "relations": list(reference("RelationView"), 16, "To earlier entries."),
            "openings": list(reference("Opening"), 64, "Only for those who may see them."),
            "erased": {"type": "boolean", "description": "Its openings were destroyed."},
            "links": reference("Links"),
            "relatedBy?": list(reference("RelatedBy"), 100, "Seals that name this one, while it is known."),
        }),
    )
}

fn seal_file() -> Value {
    let proof = || list(reference("Base64"), 64, "Hashes of an RFC 6962 proof.");
    object(
        "A `.seal` file (docs/formats.md): everything that offline verification needs beside the trust file.",
        json!({
            "bulla": {"const": "seal/v1"},
            "origin": text("Origin of the log."),
            "entry": reference("Base64"),
            "epoch": reference("Base64"),
            "enrolment": reference("Base64"),
            "heads": list(object("A signed head that covers the entry.", json!({
                "checkpoint": text("Signed note (C2SP tlog-checkpoint)."),
                "entryProof": proof(),
                "epochProof": proof(),
                "pcrs?": list(object("A platform register.", json!({
                    "pcr": number("Its number."),
                    "value": hex64(),
                })), 24, "Only with a TPM quote."),
            })), 64, "Oldest first."),
            "openings": list(reference("Base64"), 64, "Openings of commitments, for those who may see them."),
            "erasures?": list(object("Proof that openings were destroyed.", json!({
                "entry": reference("Base64"),
                "checkpoint": text("Signed note (C2SP tlog-checkpoint)."),
                "entryProof": proof(),
            })), 16, "Only where there is one."),
            "cosignatures?": list(object("A checkpoint that neighbours cosigned.", json!({
                "checkpoint": text("Signed note (C2SP tlog-checkpoint) with lines of witnesses and mirrors."),
                "entryProof": proof(),
            })), 16, "Only where there is one."),
            "revocations?": list(object("The fleet's word that the log was given up.", json!({
                "statement": reference("Base64"),
                "entryProof?": proof(),
            })), 16, "Only where there is one; a box never makes any."),
        }),
    )
}

fn known() -> Value {
    object(
        "Whether this box has sealed these bytes. `false` says nothing about other boxes.",
        json!({
            "known": {"type": "boolean"},
            "sentence": text("The answer in words."),
            "seals": list(reference("SealId"), 100, "Newest first."),
            "elsewhere?": list(reference("Elsewhere"), 300, "Seals of these bytes in copies of other boxes' logs; when there are any."),
        }),
    )
}

fn elsewhere() -> Value {
    object(
        "A seal of the same bytes in the log of another box, of which this one holds a copy.",
        json!({
            "origin": text("That log."),
            "index": number("Index of its entry."),
            "leafHash": hex64(),
            "sealedAtMillis": number("That box's own clock (Unix milliseconds)."),
            "sealFile": text("Path of its .seal file, as this box can make it."),
        }),
    )
}

fn verify_form() -> Value {
    closed(
        "A document and its seal.",
        json!({
            "document": {"type": "string", "format": "binary"},
            "seal": {"type": "string", "format": "binary", "description": "The .seal file, at most 4 MiB."},
        }),
    )
}

fn digests() -> Value {
    let digest = closed(
        "A digest to look up. One that is not well-formed gets an error of its own.",
        json!({
            "algorithm": text("sha-256, sha-512 or sha3-256."),
            "digest": text("Hex; 128 digits for sha-512, else 64."),
        }),
    );
    let mut items = list(digest, 1_000, "What to look up.");
    items["minItems"] = 1.into();
    closed("Digests of documents.", json!({"digests": items}))
}

fn bulk_form() -> Value {
    let file = || json!({"type": "string", "format": "binary"});
    let mut documents =
        list(file(), 1_000, "The documents; the name of each file is repeated in its result.");
    documents["minItems"] = 1.into();
    closed(
        "Fields in turn: a document, then perhaps its .seal, then the next document.",
        json!({"document": documents, "seal?": list(file(), 1_000, "The .seal of the document before it.")}),
    )
}

fn bulk_results() -> Value {
    let failed =
        object("The check that failed.", json!({"check": text("Stable name."), "detail": text("In words.")}));
    let result = object(
        "Of `known`, `verdict` and `error` there is exactly one.",
        json!({
            "name?": text("Name of the document's file, when it has one of at most 255 bytes."),
            "known?": {"type": "boolean", "description": "Whether this box has sealed it; for an item without a .seal."},
            "seals?": list(reference("SealId"), 100, "With `known`: newest first."),
            "verdict?": text("As in the report; for a document with its .seal."),
            "sentence?": text("The verdict in words."),
            "facts?": list(text("A fact that holds."), 16, "With `verdict`."),
            "interval?": {"oneOf": [{"type": "null"}, reference("Interval")]},
            "failed?": {"oneOf": [{"type": "null"}, failed]},
            "error?": text("Why this item has no answer."),
        }),
    );
    object(
        "Results in the order of the items.",
        json!({"items": number("How many."), "results": list(result, 1_000, "One for each item.")}),
    )
}

fn interval() -> Value {
    let millis = |description| json!({"type": ["integer", "null"], "description": description});
    object(
        "When, as far as it is proven.",
        json!({
            "notBeforeMillis": millis("Not before this; null without external evidence."),
            "notAfterMillis": millis("Not after this; null without external evidence."),
            "localMillis": number("What the box's own clock said: advisory."),
            "localUncertaintyMillis": millis("Null when not known."),
        }),
    )
}

fn report() -> Value {
    object(
        "The report of `bulla verify --json`, by this box's own trust file.",
        json!({
            "verdict": text("Stable name of what the checks amount to."),
            "sentence": text("The verdict in words."),
            "facts": list(one_of(&["sealed", "attested"], "A fact that holds."), 16, "Empty unless the seal is genuine."),
            "interval": {"oneOf": [{"type": "null"}, reference("Interval")]},
            "trustIssuedMillis": number("When the trust file used was written."),
            "trustRosterVersion": {"type": ["integer", "null"], "description": "Version of the fleet's roster that it was written from; null when from none."},
            "checks": list(object("One check.", json!({
                "check": text("Stable name."),
                "outcome": text("Stable name of the outcome."),
                "detail": text("In words."),
            })), 64, "In the order they were made; the first failed one ends them."),
        }),
    )
}

fn rotation() -> Value {
    closed(
        "Why.",
        json!({"reason": {"type": "string", "minLength": 1, "maxLength": 900, "pattern": "\\S", "examples": ["yearly rotation"]}}),
    )
}

fn status() -> Value {
    object(
        "What the box says about itself.",
        json!({
            "condition": reference("Condition"),
            "mode": text("Mode in force."),
            "origin": text("Origin of the log."),
            "hardware": one_of(&["tpm", "software"], "What holds the service key."),
            "size": number("Entries in the log."),
            "root": hex64(),
            "sealsSinceStart": number("Seals since this start."),
            "epoch": number("Key epoch in force."),
            "epochExtended": {"type": "boolean", "description": "It has outlived its policy for want of an endorsed successor."},
            "attestedSize": number("Entries that a TPM quote covers."),
            "attestationTrouble": {"type": ["string", "null"], "description": "Why the last attestation failed."},
            "queue": object("Requests promised a seal.", json!({
                "depth": number("How many wait."),
                "bytes": number("Bytes kept of them."),
                "oldestMillis": {"type": ["integer", "null"], "description": "When the oldest was taken (Unix milliseconds)."},
            })),
            "selfTest": {"oneOf": [{"type": "null"}, reference("SelfTest")]},
            "scrub": reference("Scrub"),
            "outage?": reference("Outage"),
            "anchors?": reference("Anchors"),
            "time?": reference("Time"),
            "lease?": reference("Lease"),
            "peers?": reference("Peers"),
            "medium?": reference("Medium"),
            "dialOut?": reference("DialOut"),
            "configuration?": reference("Configuration"),
            "alerts?": reference("Alerts"),
            "connections": object("Open connections.", json!({
                "open": number("Now."), "max": number("At most."), "refused": number("Since the start, by the limit of their address."),
            })),
            "ingest?": json!({"type": "array", "items": object("A folder whose files are sealed.", json!({
                "client": text("The scanner that its documents are sealed for."),
                "watching": one_of(&["", "inotify", "polling"], "By which means; empty while it is not."),
                "waiting": number("Files that rest or wait."),
                "inWork": number("Files being read or sealed."),
                "done": number("Files that are done and still there."),
                "sealed": number("Documents whose results were written, since the start."),
                "rejected": number("Files moved to the error folder, since the start."),
                "trouble": {"type": ["string", "null"], "description": "What is in the way."},
            }))}),
            "refusals": object("Since the start.", json!({
                "rateLimited": number("429."), "overloaded": number("503."), "bodyTimeout": number("408."),
            })),
            "startedMillis": number("This start (Unix milliseconds)."),
            "uptimeSeconds": number("Since this start."),
            "version": text("Program version."),
        }),
    )
}

fn reason() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 200, "pattern": "\\S", "examples": ["stocktaking"]})
}

fn queue_id() -> Value {
    json!({"type": "string", "pattern": "^[0-9]{1,19}-[0-9a-f]{16}$"})
}

fn queued() -> Value {
    object(
        "The request is durable and will be sealed in order.",
        json!({
            "queued": {"const": true},
            "queueId": reference("QueueId"),
            "position": number("1 is next."),
            "reason": text("Why it is not sealed now."),
            "replayed": {"type": "boolean", "description": "Queued before under the same Idempotency-Key."},
            "links": object("Where to ask.", json!({"self": text("Path of this request.")})),
        }),
    )
}

fn queued_state() -> Value {
    object(
        "What became of a queued request.",
        json!({
            "queueId": reference("QueueId"),
            "queuedAtMillis": number("When the box took it (Unix milliseconds)."),
            "state": one_of(&["queued", "sealed", "refused"], "Stable name."),
            "position?": number("1 is next; with `queued`."),
            "reason?": text("With `refused`."),
            "seal?": reference("SealId"),
            "links": object("Where it is.", json!({
                "self": text("Path of this request."),
                "seal?": text("Path of the receipt."),
                "sealFile?": text("Path of the .seal file."),
            })),
        }),
    )
}

fn erasure_order() -> Value {
    closed(
        "What to erase: exactly one of `documentId`, `user` and `seals`.",
        json!({
            "documentId?": {"type": ["string", "null"], "minLength": 1, "maxLength": 2048},
            "user?": {"type": ["string", "null"], "minLength": 1, "maxLength": 2048},
            "seals?": {"type": ["array", "null"], "items": reference("SealId"), "minItems": 1, "maxItems": 10000},
            "reason": reason(),
            "dryRun?": {"type": "boolean", "default": false, "description": "Only say what would be erased."},
        }),
    )
}

fn erasure() -> Value {
    let ids = |description: &str| list(reference("SealId"), 10_000, description);
    object(
        "What was erased, or would be.",
        json!({
            "erased": ids("Openings destroyed."),
            "already": ids("Destroyed before."),
            "withoutOpenings": ids("Never had any."),
            "entries": list(number("Index."), 400, "Entries that record it."),
            "more": {"type": "boolean", "description": "More seals match: ask again."},
            "dryRun": {"type": "boolean"},
        }),
    )
}

fn self_test() -> Value {
    object(
        "A self-test.",
        json!({
            "passed": {"type": "boolean"},
            "atMillis": number("When it ended (Unix milliseconds)."),
            "seal": {"oneOf": [{"type": "null"}, reference("SealId")]},
            "verdict": text("Of the box's own verifier, or `not-sealed`."),
            "sealMicros": number("From the order to the durable seal."),
            "verifyMicros": number("Of the verification."),
            "attested": {"type": "boolean"},
            "failure": {"type": ["string", "null"]},
        }),
    )
}

fn scrub() -> Value {
    object(
        "The scrub since this start.",
        json!({
            "endedMillis": {"type": ["integer", "null"], "description": "End of the newest pass (Unix milliseconds)."},
            "bytes": number("Read so far."),
            "running": {"type": "boolean"},
            "damaged": number("Damaged things of the newest pass."),
            "findings": list(json!({"type": "string"}), 8, "In words."),
        }),
    )
}

fn condition() -> Value {
    object(
        "Whether it seals, and if not, why.",
        json!({
            "state": one_of(&["sealing", "disk-full", "poisoned", "locked", "retiring", "limited", "key-away", "rollback-suspected"], "Stable name."),
            "reason?": text("What failed, or why it was locked."),
            "operator?": text("Who; with `locked`."),
            "sinceMillis?": number("Since when; with `locked`."),
            "finding?": text("What was found; with `rollback-suspected`."),
        }),
    )
}
