//! Bulk verification on a real box: every algorithm is found, and a bad item leaves the others alone.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::Result;
use bulla_formats::body::seal::{DigestAlgorithm, DocumentHasher};
use bulla_tests::rig::{Form, Keys, Rig, RigOptions, Role};
use serde_json::{Value, json};

const SOFTWARE: RigOptions<'static> = RigOptions {
    keys: Keys::Software,
    residency: "software",
    extra: "",
    state_dir: None,
    tcti: None,
    launcher: None,
};
const JSON: (&str, &str) = ("Content-Type", "application/json");
const ALGORITHMS: [&str; 3] = ["sha-256", "sha-512", "sha3-256"];

fn digest(algorithm: &str, document: &[u8]) -> Value {
    let mut hasher = DocumentHasher::new(DigestAlgorithm::from_name(algorithm).unwrap());
    hasher.update(document);
    json!({"algorithm": algorithm, "digest": hex::encode(hasher.finish().value)})
}

/// However a document was sealed, whoever asks with its bytes or with the same digest finds the seal.
#[test]
fn documents_are_found_under_each_algorithm() -> Result<()> {
    let rig = Rig::start_with(&SOFTWARE)?;
    let (scanner, reader) = (rig.client(Role::Scanner), rig.client(Role::Reader));
    for algorithm in ALGORITHMS {
        let (uploaded, claimed) = (format!("uploaded {algorithm}"), format!("claimed {algorithm}"));
        let path = format!("/v1/seals?digest={algorithm}");
        let made = scanner.post(&path, &[("Content-Type", "application/pdf")], uploaded.as_bytes())?;
        let by_digest = scanner.seal_digest(&digest(algorithm, claimed.as_bytes()), &[])?;
        for (document, made) in [(&uploaded, &made), (&claimed, &by_digest)] {
            assert_eq!(made.status, 201);
            let id = made.json()?["id"].clone();
            let found = reader.post("/v1/verify", &[], document.as_bytes())?.json()?;
            assert_eq!((&found["known"], &found["seals"]), (&json!(true), &json!([id])), "{document}");
            let order = json!({"digests": ALGORITHMS.map(|one| digest(one, document.as_bytes()))});
            let bulk = reader.post("/v1/verify/bulk", &[JSON], order.to_string().as_bytes())?.json()?;
            for (result, one) in bulk["results"].as_array().unwrap().iter().zip(ALGORITHMS) {
                let expected = if one == algorithm { json!([id]) } else { json!([]) };
                assert_eq!(result["seals"], expected, "{document} by {one}");
            }
            let form = Form::new().file("document", "", document.as_bytes()).finish();
            let bulk = reader.post("/v1/verify/bulk", &[Form::CONTENT_TYPE], &form)?.json()?;
            assert_eq!(bulk["results"][0]["seals"], json!([id]), "{document}");
        }
    }
    Ok(())
}

#[test]
fn a_bad_item_leaves_the_others_alone() -> Result<()> {
    let rig = Rig::start_with(&SOFTWARE)?;
    let (scanner, reader) = (rig.client(Role::Scanner), rig.client(Role::Reader));
    let made = scanner.seal(b"sealed")?;
    let file = made.seal()?.encode();
    let form = Form::new()
        .file("document", "", b"sealed")
        .file("seal", "", file.as_bytes())
        .file("document", "", b"another")
        .file("seal", "", file.as_bytes())
        .file("document", "", b"")
        .file("document", "", b"sealed")
        .file("seal", "", b"not a seal")
        .file("document", "", b"sealed")
        .file("seal", "", &vec![b' '; (4 << 20) + 1])
        .file("document", "", b"sealed")
        .file("document", "", b"unknown")
        .finish();
    let answer = reader.post("/v1/verify/bulk", &[Form::CONTENT_TYPE], &form)?;
    let body = answer.json()?;
    assert_eq!((answer.status, &body["items"]), (200, &json!(7)), "{body}");
    let results = body["results"].as_array().unwrap();
    let verdicts: Vec<&Value> = results.iter().map(|result| &result["verdict"]).collect();
    // The box's own trust file refuses seals without hardware by policy; what it says of both is the same rule.
    assert_eq!(verdicts[1], "other-document");
    assert_ne!(verdicts[0], verdicts[1]);
    assert_eq!(verdicts[3], "refused");
    assert!(results[3]["failed"]["check"].is_string(), "{body}");
    for bad in [2, 4] {
        assert!(results[bad]["error"].is_string(), "{body}");
    }
    assert_eq!((&results[5]["known"], &results[6]["known"]), (&json!(true), &json!(false)));
    assert_eq!(results[0]["name"], "scan");

    let order = json!({"digests": [{"algorithm": "md5", "digest": "00"}, digest("sha-256", b"sealed"), {"algorithm": "sha-256", "digest": "zz"}]});
    let body = reader.post("/v1/verify/bulk", &[JSON], order.to_string().as_bytes())?.json()?;
    assert!(body["results"][0]["error"].is_string() && body["results"][2]["error"].is_string(), "{body}");
    assert_eq!(body["results"][1]["known"], true);
    Ok(())
}

/// A request verifies once what its seals share; what it says of each is what it says of one alone, damaged ones in
/// between or not.
#[test]
fn many_seals_are_judged_as_each_alone() -> Result<()> {
    let rig = Rig::start_with(&SOFTWARE)?;
    let (scanner, reader) = (rig.client(Role::Scanner), rig.client(Role::Reader));
    let mut pairs: Vec<(Vec<u8>, String)> = Vec::new();
    for number in 0..12 {
        let document = format!("page {number}").into_bytes();
        let file = scanner.seal(&document)?.seal()?;
        pairs.push((document.clone(), file.encode()));
        let mut bent = file;
        match number % 4 {
            0 => bent.epoch[60] ^= 1,
            1 => bent.enrolment[60] ^= 1,
            2 => bent.heads[0].checkpoint = bent.heads[0].checkpoint.replacen('\n', "\n1", 1),
            _ => bent.entry[60] ^= 1,
        }
        pairs.push((document, bent.encode()));
    }
    let mut form = Form::new();
    for (document, seal) in &pairs {
        form = form.file("document", "", document).file("seal", "", seal.as_bytes());
    }
    let bulk = reader.post("/v1/verify/bulk", &[Form::CONTENT_TYPE], &form.finish())?.json()?;
    let results = bulk["results"].as_array().unwrap();
    assert_eq!(results.len(), pairs.len());
    for ((document, seal), result) in pairs.iter().zip(results) {
        let form = Form::new().file("document", "", document).file("seal", "", seal.as_bytes()).finish();
        let alone = reader.post("/v1/verify", &[Form::CONTENT_TYPE], &form)?.json()?;
        for member in ["verdict", "sentence", "facts", "interval"] {
            assert_eq!(result[member], alone[member], "{result} against {alone}");
        }
        let checks = alone["checks"].as_array().unwrap();
        let failed = checks.iter().find(|check| check["outcome"] == "failed");
        assert_eq!(result["failed"]["detail"], failed.unwrap_or(&json!({"detail": null}))["detail"]);
    }
    let refused = results.iter().filter(|result| result["verdict"] == "refused").count();
    assert_eq!(refused, pairs.len() / 2, "{bulk}");
    Ok(())
}

#[test]
fn requests_that_are_not_bulk_are_refused() -> Result<()> {
    let rig = Rig::start_with(&SOFTWARE)?;
    let reader = rig.client(Role::Reader);
    let one = digest("sha-256", b"x");
    let many = json!({"digests": vec![&one; 1_001]}).to_string();
    for (headers, body, problem) in [
        (JSON, &b"{}"[..], "invalid-request"),
        (JSON, b"{\"digests\": []}", "invalid-request"),
        (JSON, b"{\"digests\": [{}]}", "invalid-request"),
        (JSON, b"{\"digests\": [], \"more\": 1}", "invalid-request"),
        (JSON, many.as_bytes(), "invalid-request"),
        (("Content-Type", "text/plain"), b"x", "unsupported-media-type"),
        (Form::CONTENT_TYPE, &Form::new().finish(), "invalid-request"),
        (Form::CONTENT_TYPE, &Form::new().file("seal", "", b"x").finish(), "invalid-request"),
        (Form::CONTENT_TYPE, &Form::new().text("user", "x").finish(), "invalid-request"),
    ] {
        let answer = reader.post("/v1/verify/bulk", &[headers], body)?;
        assert_eq!(answer.problem()?, problem, "{}", String::from_utf8_lossy(body));
    }
    let mut form = Form::new();
    for _ in 0..1_001 {
        form = form.file("document", "", b"x");
    }
    let answer = reader.post("/v1/verify/bulk", &[Form::CONTENT_TYPE], &form.finish())?;
    assert_eq!(answer.problem()?, "too-large");
    Ok(())
}
