//! `GET /v1/seals/{id}/code`: a seal's name as a QR code, for the certificate that the console prints.
//!
//! Refuses to do: prove anything. The code says where to look; evidence is the `.seal`.
//! Invariant: nothing in it that the log does not show to everybody.

use super::Shared;
use super::access::{Caller, Right};
use super::receipt::respond;
use super::seals::blocking;
use crate::driver::LookupError;
use crate::problem::{Kind, Problem};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use bulla_formats::body::seal::SealBody;
use bulla_formats::entry::Kind as EntryKind;
use qrcode::render::svg::Color;
use qrcode::{EcLevel, QrCode};
use serde_json::json;

/// `GET /v1/seals/{id}/code`.
pub async fn code(
    State(api): State<Shared>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    caller.need(Right::ReadSeals)?;
    let Path(id) = id?;
    let sealer = api.sealer.clone();
    let payload = blocking(move || {
        let (index, leaf) = sealer.resolve(&id)?;
        let entry = sealer.entry(index)?;
        if entry.kind() != Some(EntryKind::Seal) {
            return Err(LookupError::NotASeal);
        }
        let body = SealBody::decode(&entry.content().body)
            .map_err(|error| LookupError::Storage(error.to_string()))?;
        let digest = format!("{}:{}", body.algorithm.name(), hex::encode(&body.digest));
        let origin = sealer.status().origin;
        let code = json!({"bulla": "certificate/v1", "id": id, "leafHash": leaf.to_string(), "digest": digest, "origin": origin});
        Ok(code.to_string())
    })
    .await?;
    Ok(respond(StatusCode::OK, "image/svg+xml", drawn(&payload)?))
}

fn drawn(payload: &str) -> Result<String, Problem> {
    let code = QrCode::with_error_correction_level(payload, EcLevel::M)
        .map_err(|error| Problem::new(Kind::Internal, format!("the code cannot be drawn ({error})")))?;
    Ok(code.render().min_dimensions(240, 240).dark_color(Color("#000")).light_color(Color("#fff")).build())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_longest_payload_fits() {
        let svg = super::drawn(&"f".repeat(600)).unwrap();
        assert!(svg.contains("<svg") && svg.contains("viewBox"), "{svg:.200}");
        assert!(!svg.contains("script") && !svg.contains("style="));
    }
}
