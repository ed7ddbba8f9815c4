//! A page to print and clip to the paper: that this document is sealed, where and when, and its digest.
//!
//! Refuses to do: prove anything. It says what to look for, and its code holds the same in letters that a phone shows;
//! evidence is the `.seal` alone.

use crate::door::Order;
use bulla_formats::report::utc;
use bulla_page::{Band, Marking, Page, Row, Sheet, Value};
use serde_json::{Value as Json, json};

/// The slip as PDF; `None` when a name is too long for a page.
pub fn page(order: &Order<'_>, receipt: &Json) -> Option<Vec<u8>> {
    let text = |name: &str| receipt.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
    let digest = hex::encode(order.content.sha256);
    let sealed = receipt.get("sealedAtMillis").and_then(Json::as_u64).map_or_else(String::new, utc);
    let name = order.name.to_string_lossy().into_owned();
    let mut rows = vec![
        Row::new("Document", Value::Literal(name)),
        Row::text("Size", format!("{} bytes", order.content.size)),
        Row::new("SHA-256", Value::Digest(digest.clone())),
        Row::new("Seal", Value::Literal(text("id"))),
        Row::new("Leaf hash", Value::Digest(text("leafHash"))),
        Row::new("Log", Value::Literal(text("origin"))),
        Row::text("Sealed at", format!("{sealed} (the box's clock, advisory)")),
        Row::text("Mode", text("mode")),
    ];
    for sidecar in &order.content.sidecars {
        let name = sidecar.name.file_name().unwrap_or_default().to_string_lossy();
        rows.push(Row::new("With", Value::Literal(name.into_owned())));
        rows.push(Row::new("its SHA-256", Value::Digest(hex::encode(sidecar.sha256))));
    }
    let payload = json!({"bulla": "slip/v1", "sha256": digest, "id": text("id"), "leafHash": text("leafHash"),
                         "origin": text("origin")});
    let page = Page {
        marking: Marking {
            word: "SEALED".to_owned(),
            sentence: "This slip proves nothing by itself: keep the .seal file.".to_owned(),
            band: Band::Striped,
        },
        title: "Receipt of a sealed document".to_owned(),
        subtitle: format!("{}, {sealed}", text("origin").split('/').next().unwrap_or_default()),
        rows,
        paragraphs: vec![
            "Whoever has the document, its .seal file and the fleet's trust file can verify it without anybody's help: \
             bulla verify DOCUMENT DOCUMENT.seal --trust TRUST."
                .to_owned(),
        ],
        note: "The codes hold the lines above as JSON.".to_owned(),
        footer: vec![Row::new("Seal", Value::Literal(text("id")))],
        payload: payload.to_string().into_bytes(),
    };
    Sheet::lay_out(page).ok().map(|sheet| sheet.pdf())
}
