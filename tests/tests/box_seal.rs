//! The main chain on a real box: document in, receipt out, evidence that stands alone.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::body::seal::{
    DigestAlgorithm, DocumentHasher, Field, Observation, Opening, RelationKind, SealBody,
};
use bulla_formats::entry::Entry;
use bulla_formats::hash::Hash;
use bulla_formats::json::base64_encode;
use bulla_formats::report::{Fact, Verdict};
use bulla_formats::seal_file::SealFile;
use bulla_tests::rig::{Client, Form, Keys, Response, Rig, RigOptions, Role};
use serde_json::{Value, json};
use std::io::Read;

const SOFTWARE: RigOptions<'static> = RigOptions {
    keys: Keys::Software,
    residency: "software",
    extra: "",
    state_dir: None,
    tcti: None,
    launcher: None,
};
/// Headers and body of a request.
type Sent<'a> = (&'a [(&'a str, &'a str)], &'a [u8]);

const SEAL_TYPE: &str = "application/vnd.bulla.seal+json";

fn body_of(seal: &SealFile) -> SealBody {
    SealBody::decode(&Entry::decode(&seal.entry).unwrap().content().body).unwrap()
}

fn digest_of(algorithm: DigestAlgorithm, document: &[u8]) -> Vec<u8> {
    let mut hasher = DocumentHasher::new(algorithm);
    hasher.update(document);
    hasher.finish().value
}

fn id_of(answer: &Response) -> String {
    answer.json().unwrap()["id"].as_str().unwrap().to_owned()
}

/// The seal of a 201, judged valid for `document`.
fn sealed(rig: &Rig, answer: &Response, document: &[u8]) -> Result<SealFile> {
    ensure!(answer.status == 201, "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    let seal = answer.seal()?;
    let judged = rig.judge(&seal, document);
    ensure!(judged.report.verdict == Verdict::Valid, "{}", judged.report);
    Ok(seal)
}

/// The problem a refusal names; nothing may have been sealed.
fn refused(rig: &Rig, answer: &Response, status: u16, slug: &str) -> Result<()> {
    let text = String::from_utf8_lossy(&answer.body);
    ensure!(answer.status == status, "{} instead of {status} {slug}: {text}", answer.status);
    ensure!(answer.problem()? == slug, "not {slug}: {text}");
    ensure!(answer.json()?["instance"] == "/v1/seals", "{text}");
    let _alive = rig.log_size()?;
    Ok(())
}

#[test]
fn a_receipt_verifies_and_another_document_does_not() -> Result<()> {
    let rig = Rig::start()?;
    let scanner = rig.client(Role::Scanner);
    let document = b"%PDF-1.7 a loan agreement".as_slice();
    let seal = sealed(&rig, &scanner.seal(document)?, document)?;
    let judged = rig.judge(&seal, b"%PDF-1.7 a loan agreement!");
    assert_eq!(judged.report.verdict, Verdict::OtherDocument, "{}", judged.report);
    Ok(())
}

#[test]
fn documents_come_in_every_way_and_are_sealed_as_they_came() -> Result<()> {
    let rig = Rig::start_with(&SOFTWARE)?;
    let scanner = rig.client(Role::Scanner);
    raw_bodies(&rig, &scanner)?;
    forms(&rig, &scanner)?;
    digests(&rig, &scanner)?;
    announced_digests(&rig, &scanner)?;
    relations(&rig, &scanner)?;
    receipts_and_verification(&rig, &scanner)
}

fn raw_bodies(rig: &Rig, scanner: &Client) -> Result<()> {
    for (media_type, document) in [
        ("application/pdf", &b"%PDF-1.7\n"[..]),
        ("image/png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
        ("application/octet-stream", b"\0"),
        ("text/plain; charset=utf-8", "Gr\u{fc}\u{df}e\r\n".as_bytes()),
        ("application/json", b"{}"),
    ] {
        let answer = scanner.post("/v1/seals", &[("Content-Type", media_type)], document)?;
        let body = body_of(&sealed(rig, &answer, document)?);
        assert_eq!((body.media_type.as_str(), body.size), (media_type, Some(document.len() as u64)));
        assert_eq!((body.observation, body.algorithm), (Observation::BytesObserved, DigestAlgorithm::Sha256));
        assert_eq!(body.transport, "https/1.1 tls1.3");
        assert_eq!(answer.location.as_deref(), Some(format!("/v1/seals/{}", id_of(&answer)).as_str()));
    }
    let untyped = scanner.post("/v1/seals", &[], b"untyped")?;
    assert_eq!(body_of(&sealed(rig, &untyped, b"untyped")?).media_type, "application/octet-stream");

    // What the openings open is exactly what was sent, and every salt is its own.
    let headers = [
        ("Bulla-User", "J%C3%BCrgen%20M%C3%BCller"),
        ("Bulla-Document-Id", "2026/4711 %25"),
        ("Bulla-Metadata", "desk=3"),
        ("Bulla-Metadata", "a%3Db=c=d"),
        ("Bulla-Metadata", "empty="),
        ("Bulla-Metadata", "%E2%82%AC=%0A"),
    ];
    let answer = scanner.post("/v1/seals", &headers, b"described")?;
    let seal = sealed(rig, &answer, b"described")?;
    check_openings(
        &seal,
        &[
            (Field::User, "user", "J\u{fc}rgen M\u{fc}ller"),
            (Field::DocumentId, "document-id", "2026/4711 %"),
            (Field::Metadata, "a=b", "c=d"),
            (Field::Metadata, "desk", "3"),
            (Field::Metadata, "empty", ""),
            (Field::Metadata, "\u{20ac}", "\n"),
        ],
    );
    let judged = rig.judge(&seal, b"described");
    assert_eq!(judged.seal.context("a valid seal")?.openings().len(), 6);
    // A seal with fewer openings is still one; with a foreign one it is not.
    let mut fewer = seal.clone();
    fewer.openings.truncate(2);
    assert_eq!(rig.judge(&fewer, b"described").report.verdict, Verdict::Valid);
    let again = scanner.post("/v1/seals", &headers, b"described")?;
    let mut foreign = seal;
    foreign.openings[0] = sealed(rig, &again, b"described")?.openings[0].clone();
    let judged = rig.judge(&foreign, b"described").report;
    assert_eq!(judged.failed().map(|check| check.name), Some("openings"), "{judged}");
    Ok(())
}

fn check_openings(seal: &SealFile, wanted: &[(Field, &str, &str)]) {
    let openings: Vec<_> = seal.openings.iter().map(|bytes| Opening::decode(bytes).unwrap()).collect();
    let found: Vec<_> = openings.iter().map(|o| (o.field, o.name.as_str(), o.value.as_str())).collect();
    assert_eq!(found, wanted);
    let mut salts: Vec<_> = openings.iter().map(|opening| opening.salt).collect();
    salts.dedup();
    assert_eq!(salts.len(), wanted.len(), "a salt is used twice");
    let commitments: Vec<_> = openings.iter().map(Opening::commitment).collect();
    assert_eq!(body_of(seal).commitments, commitments);
}

fn forms(rig: &Rig, scanner: &Client) -> Result<()> {
    let first = id_of(&scanner.seal(b"first")?);
    // A document that looks like the form around it stays a document.
    let document =
        b"\r\n--5c1f--bulla-tests--\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nEve".as_slice();
    let digest = format!("Content-Digest: sha-512=:{}:\r\n", {
        base64_encode(&digest_of(DigestAlgorithm::Sha512, document))
    });
    let form = Form::new()
        .text("user", "J\u{fc}rgen")
        .text("derivedFrom", &first)
        .file("document", &format!("Content-Type: image/tiff\r\n{digest}"), document)
        .text("documentId", "4711")
        .text("metadata", "{\"z\": \"1\", \"a\": \"\u{20ac}\"}")
        .text("annuls", &"ab".repeat(32));
    let answer = scanner.post("/v1/seals", &[Form::CONTENT_TYPE], &form.finish())?;
    let seal = sealed(rig, &answer, document)?;
    let body = body_of(&seal);
    assert_eq!((body.media_type.as_str(), body.size), ("image/tiff", Some(document.len() as u64)));
    let kinds: Vec<_> = body.related().collect();
    assert_eq!(kinds.len(), 2);
    assert_eq!(kinds[1], (RelationKind::Annuls, Hash([0xab; 32])));
    check_openings(
        &seal,
        &[
            (Field::User, "user", "J\u{fc}rgen"),
            (Field::DocumentId, "document-id", "4711"),
            (Field::Metadata, "a", "\u{20ac}"),
            (Field::Metadata, "z", "1"),
        ],
    );
    let bare = Form::new().file("document", "", b"bare").finish();
    let answer = scanner.post("/v1/seals?digest=sha3-256", &[Form::CONTENT_TYPE], &bare)?;
    let body = body_of(&sealed(rig, &answer, b"bare")?);
    assert_eq!(
        (body.algorithm, body.media_type.as_str()),
        (DigestAlgorithm::Sha3_256, "application/octet-stream")
    );
    // Media types are case-insensitive (RFC 9110, 8.3.1): a form is a form in any spelling.
    let shouted = Form::CONTENT_TYPE.1.replace("multipart/form-data", "Multipart/Form-Data");
    let answer = scanner.post("/v1/seals", &[("Content-Type", &shouted)], &bare)?;
    sealed(rig, &answer, b"bare").context("a form whose media type is in capitals")?;

    let size = rig.log_size()?;
    let bad_digest = "Content-Digest: sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:\r\n";
    for (form, slug) in [
        (Form::new().text("user", "x").finish(), "invalid-request"),
        (Form::new().finish(), "invalid-request"),
        (Form::new().file("document", "", b"").finish(), "empty-document"),
        (Form::new().file("document", "", b"1").file("document", "", b"2").finish(), "invalid-request"),
        (Form::new().file("document", "", b"1").text("bogus", "2").finish(), "invalid-request"),
        (Form::new().file("document", bad_digest, b"1").finish(), "digest-mismatch"),
        (Form::new().file("document", "", b"1").unfinished(), "truncated-body"),
        (Form::new().file("document", "", b"1").text("metadata", "[]").finish(), "invalid-request"),
        (Form::new().file("document", "", b"1").text("metadata", "{\"a\":1}").finish(), "invalid-request"),
        (
            Form::new().file("document", "", b"1").text("metadata", "{\"a\":\"1\",\"a\":\"1\"}").finish(),
            "invalid-request",
        ),
        (
            Form::new().text("user", "1").text("user", "2").file("document", "", b"1").finish(),
            "invalid-request",
        ),
        (Form::new().text("user", "").file("document", "", b"1").finish(), "invalid-request"),
        (Vec::new(), "truncated-body"),
        (b"no form at all".to_vec(), "truncated-body"),
    ] {
        let answer = scanner.post("/v1/seals", &[Form::CONTENT_TYPE], &form)?;
        refused(rig, &answer, 400, slug).with_context(|| String::from_utf8_lossy(&form).into_owned())?;
    }
    let answer = scanner.post("/v1/seals", &[("Content-Type", "multipart/form-data")], &bare)?;
    refused(rig, &answer, 415, "unsupported-media-type")?;
    let twice = scanner.post("/v1/seals", &[Form::CONTENT_TYPE, ("Bulla-User", "x")], &bare)?;
    refused(rig, &twice, 400, "invalid-request")?;
    assert_eq!(rig.log_size()?, size, "a refused form was sealed");
    Ok(())
}

fn digests(rig: &Rig, scanner: &Client) -> Result<()> {
    let document = b"a document that never travels".as_slice();
    for algorithm in [DigestAlgorithm::Sha256, DigestAlgorithm::Sha512, DigestAlgorithm::Sha3_256] {
        let digest = digest_of(algorithm, document);
        let order = json!({"algorithm": algorithm.name(), "digest": hex::encode(&digest)});
        let body = body_of(&sealed(rig, &scanner.seal_digest(&order, &[])?, document)?);
        assert_eq!((body.algorithm, body.digest.as_ref()), (algorithm, digest.as_slice()));
        assert_eq!((body.observation, body.size), (Observation::DigestClaimed, None));

        let uploaded = scanner.post(&format!("/v1/seals?digest={algorithm}"), &[], document)?;
        let body = body_of(&sealed(rig, &uploaded, document)?);
        assert_eq!((body.algorithm, body.digest.as_ref()), (algorithm, digest.as_slice()));
        assert_eq!((body.observation, body.size), (Observation::BytesObserved, Some(document.len() as u64)));
    }
    let digest = hex::encode(digest_of(DigestAlgorithm::Sha256, document));
    let order = json!({
        "algorithm": "sha-256", "digest": digest, "size": document.len(), "mediaType": "application/pdf",
        "user": "u", "documentId": "d", "metadata": {"b": "2", "a": "1"},
        "supersedes": ["11".repeat(32)], "derivedFrom": ["22".repeat(32)], "annuls": ["33".repeat(32)],
    });
    let seal = sealed(rig, &scanner.seal_digest(&order, &[])?, document)?;
    let body = body_of(&seal);
    assert_eq!((body.size, body.media_type.as_str()), (Some(document.len() as u64), "application/pdf"));
    let related: Vec<_> = body.related().map(|(kind, leaf)| (kind, leaf.0[0])).collect();
    let wanted =
        [(RelationKind::Supersedes, 0x11), (RelationKind::DerivedFrom, 0x22), (RelationKind::Annuls, 0x33)];
    assert_eq!(related, wanted);
    check_openings(
        &seal,
        &[
            (Field::User, "user", "u"),
            (Field::DocumentId, "document-id", "d"),
            (Field::Metadata, "a", "1"),
            (Field::Metadata, "b", "2"),
        ],
    );
    // A claimed size counts: the same digest with another size is another document.
    let mut wrong = order.clone();
    wrong["size"] = json!(document.len() + 1);
    let answer = scanner.seal_digest(&wrong, &[])?;
    assert_eq!(rig.judge(&answer.seal()?, document).report.verdict, Verdict::OtherDocument);
    // Media types are case-insensitive: the order must not be sealed as if it were the document.
    let bytes = order.to_string();
    let shouted = [("Content-Type", "Application/VND.Bulla.Digest+JSON")];
    let answer = scanner.post("/v1/seals", &shouted, bytes.as_bytes())?;
    sealed(rig, &answer, document).context("a digest order whose media type is in capitals").map(drop)
}

fn announced_digests(rig: &Rig, scanner: &Client) -> Result<()> {
    let document = b"announced".as_slice();
    let announce = |algorithm: DigestAlgorithm, bytes: &[u8]| {
        format!("{}=:{}:", algorithm.name(), base64_encode(&digest_of(algorithm, bytes)))
    };
    let (sha256, sha512) =
        (announce(DigestAlgorithm::Sha256, document), announce(DigestAlgorithm::Sha512, document));
    let (bad256, bad512) = (announce(DigestAlgorithm::Sha256, b"x"), announce(DigestAlgorithm::Sha512, b"x"));
    for good in
        [sha256.clone(), sha512.clone(), format!("{sha256}, {sha512}"), format!("md5=:AAAA:, {sha256}")]
    {
        let answer = scanner.post("/v1/seals", &[("Content-Digest", &good)], document)?;
        sealed(rig, &answer, document).context(good)?;
    }
    let size = rig.log_size()?;
    for (bad, slug) in [
        (bad256.clone(), "digest-mismatch"),
        (bad512.clone(), "digest-mismatch"),
        (format!("{sha256}, {bad512}"), "digest-mismatch"),
        (format!("{bad256}, {sha512}"), "digest-mismatch"),
        (format!("{sha256}, {sha256}"), "invalid-request"),
        ("md5=:AAAA:".to_owned(), "invalid-request"),
        (sha256.replace(':', ""), "invalid-request"),
        ("sha-256=:AAAA:".to_owned(), "invalid-request"),
        ("".to_owned(), "invalid-request"),
        ("sha-256".to_owned(), "invalid-request"),
    ] {
        for path in ["/v1/seals", "/v1/seals?digest=sha3-256"] {
            let answer = scanner.post(path, &[("Content-Digest", &bad)], document)?;
            refused(rig, &answer, 400, slug).with_context(|| format!("Content-Digest: {bad}"))?;
        }
    }
    assert_eq!(rig.log_size()?, size, "a document with a wrong digest was sealed");
    Ok(())
}

fn relations(rig: &Rig, scanner: &Client) -> Result<()> {
    let first = scanner.seal(b"version 1")?;
    let (id, json) = (id_of(&first), first.json()?);
    let leaf = json["leafHash"].as_str().context("a receipt has its leaf hash")?;
    let headers = [("Bulla-Annuls", id.as_str()), ("Bulla-Supersedes", leaf), ("Bulla-Derived-From", &id)];
    let second = scanner.post("/v1/seals", &headers, b"version 2")?;
    let related: Vec<_> =
        body_of(&sealed(rig, &second, b"version 2")?).related().map(|(k, l)| (k, l.to_string())).collect();
    let all = [RelationKind::Supersedes, RelationKind::DerivedFrom, RelationKind::Annuls];
    assert_eq!(related, all.map(|kind| (kind, leaf.to_owned())));
    let shown = rig.client(Role::Reader).get(&format!("/v1/seals/{}", id_of(&second)))?.json()?;
    assert_eq!(shown["document"]["relations"][2], json!({"kind": "annuls", "leafHash": leaf}));

    // The id of no seal, also that of the log's own entries, names nothing that could be superseded.
    let size = rig.log_size()?;
    let epoch = Entry::decode(&first.seal()?.epoch)?;
    let (epoch_index, epoch_leaf) = (epoch.content().index, epoch.leaf_hash().to_string());
    let index = json["index"].as_u64().context("a receipt has an index")?;
    let unknown = [
        format!("{}-{}", size + 7, &leaf[..16]),
        format!("{index}-{}", "0".repeat(16)),
        format!("{}-{}", index - 1, &leaf[..16]),
        format!("{epoch_index}-{}", &epoch_leaf[..16]),
    ];
    for id in &unknown {
        let answer = scanner.post("/v1/seals", &[("Bulla-Supersedes", id)], b"version 3")?;
        refused(rig, &answer, 422, "unknown-relation").with_context(|| format!("supersedes {id}"))?;
        let order = json!({"algorithm": "sha-256", "digest": "00".repeat(32), "annuls": [id]});
        refused(rig, &scanner.seal_digest(&order, &[])?, 422, "unknown-relation")?;
    }
    for id in
        ["", "x", "-", &leaf[..63], &format!("{leaf}0"), &format!("{id}x"), &leaf.replace(&leaf[..1], "g")]
    {
        let answer = scanner.post("/v1/seals", &[("Bulla-Supersedes", id)], b"version 3")?;
        assert!(matches!(answer.status, 400 | 422), "supersedes {id:?}: {}", answer.status);
        answer.problem()?;
    }
    let many: Vec<_> = (0..17).map(|_| ("Bulla-Derived-From", leaf)).collect();
    assert_eq!(scanner.post("/v1/seals", &many[..16], b"version 3")?.status, 201);
    refused(rig, &scanner.post("/v1/seals", &many, b"version 3")?, 422, "invalid-seal")?;
    assert_eq!(rig.log_size()?, size + 1);
    Ok(())
}

fn receipts_and_verification(rig: &Rig, scanner: &Client) -> Result<()> {
    // Equal documents get seals of their own, and each names the ones before.
    let document = b"sealed ten times".as_slice();
    let ids: Vec<_> = (0..10).map(|_| scanner.seal(document)).collect::<Result<_>>()?;
    let last = ids[9].json()?;
    let ids: Vec<_> = ids.iter().map(id_of).collect();
    let before: Vec<_> = ids[1..9].iter().rev().cloned().collect();
    assert_eq!(last["earlier"], json!(before), "up to 8, newest first");
    assert_eq!((&last["replayed"], &last["facts"]), (&json!(false), &json!(["sealed"])));
    assert!(last.get("waited").is_none());
    let known = scanner.post("/v1/verify", &[], document)?.json()?;
    assert_eq!(known["seals"], json!(ids.iter().rev().collect::<Vec<_>>()));
    assert_eq!(known["known"], json!(true));
    let unknown = scanner.post("/v1/verify", &[], b"never seen")?;
    assert_eq!((unknown.status, &unknown.json()?["known"]), (200, &json!(false)));
    assert!(!String::from_utf8_lossy(&unknown.body).contains("forged"));

    // The bare file, three ways, is the same seal.
    let accept = [("Accept", SEAL_TYPE)];
    let made = scanner.post("/v1/seals", &accept, b"bare")?;
    assert_eq!((made.status, made.content_type.as_str()), (201, SEAL_TYPE));
    let seal = sealed(rig, &made, b"bare")?;
    let path = made.location.clone().context("201 has a Location")?;
    let file = scanner.get(&format!("{path}/seal-file"))?;
    assert_eq!((file.status, file.content_type.as_str()), (200, SEAL_TYPE));
    let id = path.rsplit('/').next().unwrap();
    assert_eq!(file.header("content-disposition"), format!("attachment; filename=\"{id}.seal\""));
    let shown = scanner.get(&path)?;
    let accepted = scanner.send("GET", &path, &accept, ())?;
    assert_eq!(accepted.content_type, SEAL_TYPE);
    for other in [&file, &shown, &accepted] {
        assert_eq!(other.seal()?.entry, seal.entry);
        assert_eq!(rig.judge(&other.seal()?, b"bare").report.verdict, Verdict::Valid);
        assert_eq!(other.header("cache-control"), "no-store");
    }
    let shown = shown.json()?;
    let wanted = json!({
        "algorithm": "sha-256",
        "digest": hex::encode(digest_of(DigestAlgorithm::Sha256, b"bare")),
        "size": 4,
        "mediaType": "application/octet-stream",
        "observation": "bytes-observed",
        "client": "scanner-1",
        "clientMethod": "bearer-token",
        "transport": "https/1.1 tls1.3",
        "relations": [],
        "commitments": 0,
        "openings": [],
    });
    assert_eq!(shown["document"], wanted);
    for absent in ["waited", "replayed", "earlier"] {
        assert!(shown.get(absent).is_none(), "{absent}");
    }

    // A form with document and seal, and the seal alone.
    let judge = |document: &[u8], seal: &str| -> Result<Value> {
        let form = Form::new().file("seal", "", seal.as_bytes()).file("document", "", document).finish();
        let answer = scanner.post("/v1/verify", &[Form::CONTENT_TYPE], &form)?;
        ensure!(answer.status == 200, "{}", String::from_utf8_lossy(&answer.body));
        Ok(answer.json()?["verdict"].clone())
    };
    let text = seal.encode();
    assert_eq!(judge(b"bare", &text)?, "valid");
    assert_eq!(judge(b"barf", &text)?, "other-document");
    assert_eq!(judge(b"bare", "{}")?, "refused");
    assert_eq!(judge(b"bare", &text.replacen("seal/v1", "seal/v2", 1))?, "not-understood");
    let alone = scanner.post("/v1/verify", &[("Content-Type", SEAL_TYPE)], text.as_bytes())?.json()?;
    assert_eq!((&alone["verdict"], &alone["facts"]), (&json!("seal-only"), &json!(["sealed"])));
    for form in [
        Form::new().file("seal", "", b"{}").finish(),
        Form::new().file("document", "", b"x").finish(),
        Form::new().file("document", "", b"x").file("document", "", b"x").finish(),
        Form::new().file("document", "", b"x").text("bogus", "x").finish(),
    ] {
        let answer = scanner.post("/v1/verify", &[Form::CONTENT_TYPE], &form)?;
        assert_eq!((answer.status, answer.problem()?.as_str()), (400, "invalid-request"));
    }
    let waited = scanner.post("/v1/seals?wait=attested", &[], b"no TPM here")?.json()?;
    assert_eq!((&waited["waited"], &waited["facts"]), (&json!("not-hardware"), &json!(["sealed"])));
    Ok(())
}

#[test]
fn g3_one_key_is_one_seal_whatever_happens_to_the_box() -> Result<()> {
    let mut rig = Rig::start_with(&SOFTWARE)?;
    let document = b"sealed once".as_slice();
    let headers = [("Idempotency-Key", "order 1"), ("Bulla-User", "u"), ("Content-Type", "application/pdf")];
    let first = rig.client(Role::Scanner).post("/v1/seals", &headers, document)?;
    let entry = sealed(&rig, &first, document)?.entry;
    let size = rig.log_size()?;
    let replay = |rig: &Rig| -> Result<()> {
        let again = rig.client(Role::Scanner).post("/v1/seals", &headers, document)?;
        ensure!(again.status == 200, "{}", String::from_utf8_lossy(&again.body));
        ensure!(again.json()?["replayed"] == true && again.location == first.location);
        ensure!(again.seal()?.entry == entry, "another seal for the same key");
        ensure!(rig.judge(&again.seal()?, document).report.verdict == Verdict::Valid);
        ensure!(
            again.seal()?.openings == first.seal()?.openings,
            "the openings are not the ones of the seal"
        );
        Ok(())
    };
    replay(&rig)?;
    assert_eq!(rig.log_size()?, size);
    rig.sealer.stop()?;
    rig.sealer.start()?;
    replay(&rig).context("after a restart")?;
    let fresh = rig.client(Role::Scanner).post("/v1/seals", &[("Idempotency-Key", "order 2")], b"2")?;
    assert_eq!(fresh.status, 201);
    rig.sealer.kill()?;
    rig.sealer.start()?;
    replay(&rig).context("after kill -9")?;
    let again = rig.client(Role::Scanner).post("/v1/seals", &[("Idempotency-Key", "order 2")], b"2")?;
    assert_eq!((again.status, id_of(&again)), (200, id_of(&fresh)));

    // The same key with anything else is a mistake of the client, and the answer names the first seal.
    let scanner = rig.client(Role::Scanner);
    let size = rig.log_size()?;
    let key = headers[0];
    let others: [Sent<'_>; 6] = [
        (&headers, b"another document"),
        (&[key, ("Bulla-User", "v"), headers[2]], document),
        (&[key, headers[2]], document),
        (&[key, headers[1], ("Content-Type", "image/png")], document),
        (&[key, headers[1], headers[2], ("Bulla-Metadata", "a=b")], document),
        (&[key, headers[1], headers[2], ("Bulla-Annuls", &id_of(&fresh))], document),
    ];
    for (headers, document) in others {
        let answer = scanner.post("/v1/seals", headers, document)?;
        refused(&rig, &answer, 422, "idempotency-key-reused").with_context(|| format!("{headers:?}"))?;
        assert_eq!(answer.json()?["first"], id_of(&first), "{headers:?}");
    }
    let answer = scanner.post("/v1/seals?digest=sha-512", &headers, document)?;
    refused(&rig, &answer, 422, "idempotency-key-reused")?;
    for bad in [&[("Idempotency-Key", "")][..], &[key, key], &[("Idempotency-Key", &"x".repeat(256))]] {
        refused(&rig, &scanner.post("/v1/seals", bad, document)?, 400, "invalid-request")?;
    }
    assert_eq!(rig.log_size()?, size);

    // Forty requests with one key at the same time.
    let clients: Vec<_> = (0..40).map(|_| rig.client(Role::Scanner)).collect();
    let answers: Vec<Response> = std::thread::scope(|scope| {
        let send = |client: &Client| client.post("/v1/seals", &[("Idempotency-Key", "race")], b"raced for");
        let threads: Vec<_> = clients.iter().map(|client| scope.spawn(move || send(client))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Result<_>>()
    })?;
    assert_eq!(rig.log_size()?, size + 1, "one key was sealed more than once");
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!((created, answers.iter().filter(|answer| answer.status == 200).count()), (1, 39));
    for answer in &answers {
        assert_eq!(id_of(answer), id_of(&answers[0]));
        assert_eq!(answer.seal()?.entry, answers[0].seal()?.entry);
        assert_eq!(rig.judge(&answer.seal()?, b"raced for").report.verdict, Verdict::Valid);
    }
    rig.sealer.stop()?;
    rig.fsck().map(drop)
}

#[test]
fn attestation_and_new_epochs_keep_every_seal_valid() -> Result<()> {
    let mut rig = Rig::start()?;
    let (scanner, operator) = (rig.client(Role::Scanner), rig.client(Role::Operator));
    let before = scanner.seal(b"before")?;
    let before_seal = sealed(&rig, &before, b"before")?;
    let answer = scanner.post("/v1/seals?wait=attested&deadlineSeconds=60", &[], b"awaited")?;
    let receipt = answer.json()?;
    assert_eq!((&receipt["waited"], &receipt["facts"]), (&json!("attested"), &json!(["sealed", "attested"])));
    let judged = rig.judge(&sealed(&rig, &answer, b"awaited")?, b"awaited");
    assert_eq!(judged.report.facts, [Fact::Sealed, Fact::Attested], "{}", judged.report);
    // The quote over the later head covers the earlier seal, too: ask again and get it.
    assert_eq!(rig.judge(&before_seal, b"before").report.facts, [Fact::Sealed]);
    let now = scanner.get(before.location.as_deref().context("201 has a Location")?)?;
    assert_eq!(now.json()?["facts"], json!(["sealed", "attested"]));
    let mut merged = before_seal.clone();
    assert_eq!(merged.upgrade(now.seal()?), Some(true));
    assert_eq!(rig.judge(&merged, b"before").report.facts, [Fact::Sealed, Fact::Attested]);
    // No time at all is not enough for a TPM, but the seal is made all the same.
    let hurried = scanner.post("/v1/seals?wait=attested&deadlineSeconds=0", &[], b"hurried")?;
    assert_eq!((hurried.status, &hurried.json()?["waited"]), (201, &json!("timed-out")));
    sealed(&rig, &hurried, b"hurried")?;

    // Epochs, one after the other, while another scanner keeps sealing.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let busy = rig.client(Role::Scanner);
    let first = before.json()?["epoch"].as_u64().context("a receipt names its epoch")?;
    let (mut kept, meanwhile) = std::thread::scope(|scope| -> Result<_> {
        let sealing = scope.spawn(|| -> Result<Vec<(Vec<u8>, SealFile)>> {
            let mut kept = Vec::new();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let document = format!("meanwhile {}", kept.len()).into_bytes();
                let answer = busy.seal(&document)?;
                ensure!(answer.status == 201, "{}", String::from_utf8_lossy(&answer.body));
                kept.push((document, answer.seal()?));
            }
            Ok(kept)
        });
        let rotated = (|| -> Result<_> {
            let mut kept = vec![(b"before".to_vec(), before_seal)];
            let mut newest = first;
            for round in 0..10 {
                let number = rig.next_epoch(&format!("test {round}"))?;
                ensure!(number > newest, "epoch {number} follows epoch {newest}");
                let document = format!("epoch {number}").into_bytes();
                let answer = scanner.seal(&document)?;
                let sealed_in = answer.json()?["epoch"].as_u64().context("a receipt names its epoch")?;
                ensure!(sealed_in >= number, "sealed in epoch {sealed_in}, which {number} has ended");
                newest = sealed_in;
                kept.push((document, answer.seal()?));
            }
            Ok(kept)
        })();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok((rotated?, sealing.join().unwrap()?))
    })?;
    assert!(!meanwhile.is_empty());
    kept.extend(meanwhile);
    for (document, seal) in &kept {
        let judged = rig.judge(seal, document);
        assert_eq!(judged.report.verdict, Verdict::Valid, "{}", judged.report);
    }
    // A seal does not verify under the key of another epoch.
    let mut crossed = kept[1].1.clone();
    crossed.epoch = kept[2].1.epoch.clone();
    assert_eq!(rig.judge(&crossed, &kept[1].0).report.verdict, Verdict::Refused);
    for bad in [&b""[..], b"{}", b"{\"reason\": \"\"}", b"{\"reason\": 1}", b"{\"reason\": \"x\", \"y\": 1}"]
    {
        let answer = operator.post("/v1/epochs", &[], bad)?;
        assert_eq!((answer.status, answer.problem()?.as_str()), (400, "invalid-request"));
    }
    rig.sealer.stop()?;
    rig.fsck().map(drop)
}

/// Reads as `left` bytes of no particular content.
struct Endless {
    left: u64,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        buffer[..length].fill(0x5a);
        self.left -= length as u64;
        Ok(length)
    }
}

/// Most memory the process ever had, in KiB.
fn peak_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[test]
fn memory_stays_flat_while_300_megabytes_stream_in() -> Result<()> {
    const BYTES: u64 = 300 << 20;
    let rig = Rig::start_with(&SOFTWARE)?;
    let (scanner, pid) = (rig.client(Role::Scanner), rig.sealer.pid().context("the box runs")?);
    let program = std::fs::read_link(format!("/proc/{pid}/exe"))?;
    assert!(program.ends_with("bulla-box"), "{} is measured instead of the box", program.display());
    scanner.post_stream("/v1/seals", &[], &mut Endless { left: 1 << 20 })?;
    let before = peak_kib(pid)?;
    let answer = scanner.post_stream("/v1/seals", &[], &mut Endless { left: BYTES })?;
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(body_of(&answer.seal()?).size, Some(BYTES));

    let (head, tail) = {
        let form = String::from_utf8(Form::new().file("document", "", b"@").finish())?;
        let (head, tail) = form.split_once('@').context("the form has its document")?;
        (head.to_owned(), tail.to_owned())
    };
    let mut form = head.as_bytes().chain(Endless { left: BYTES / 2 }).chain(tail.as_bytes());
    let answer = scanner.post_stream("/v1/seals", &[Form::CONTENT_TYPE], &mut form)?;
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(body_of(&answer.seal()?).size, Some(BYTES / 2));
    let growth = peak_kib(pid)? - before;
    println!("{} bytes streamed in, and the box grew by {growth} KiB", BYTES + BYTES / 2);
    assert!(growth < 32 << 10, "the box grew by {growth} KiB");
    Ok(())
}
