//! Operations of outages: drills, manifests, anchors.

use super::super::Operation;
use super::super::schemas::reference;
use crate::api::access::Right;
use crate::problem::Kind;
use serde_json::json;

/// `POST /v1/drills`.
pub fn drill() -> Operation {
    Operation::new("startDrill", "box", "Treats every authority as unreachable for a while.")
        .describe(
            "After `outage.after_seconds` the box declares an emergency that is marked as a drill in every entry it touches. \
             Sealing goes on. A real outage ends the drill.",
        )
        .needs(Right::Drill)
        .body("application/json", json!({"schema": reference("DrillOrder")}))
        .answer(200, "It runs.", "application/json", json!({"schema": reference("Outage")}))
        .problems(&[Kind::DrillRefused])
}

/// `POST /v1/drills/stop`.
pub fn stop() -> Operation {
    Operation::new("stopDrill", "box", "Ends the drill, if one runs.").needs(Right::Drill).answer(
        200,
        "None runs.",
        "application/json",
        json!({"schema": reference("Outage")}),
    )
}

/// `POST /v1/leases`.
pub fn lease() -> Operation {
    Operation::new("takeLease", "box", "Hands in a lease: for a while a hub answers for the box.")
        .describe(
            "Under a lease a box that reaches no authority does not declare an emergency; its limits bound the emergency \
             that may follow. The later of two leases counts. The log has an entry of each.",
        )
        .needs(Right::Lease)
        .body("application/json", json!({"schema": reference("LeaseOrder")}))
        .answer(200, "It counts.", "application/json", json!({"schema": reference("Lease")}))
        .problems(&[Kind::LeaseRefused, Kind::Locked])
}

/// `POST /v1/seals/{id}/anchor`.
pub fn expedite() -> Operation {
    Operation::new("expediteAnchor", "seals", "Has the anchor of this seal made before others that can wait.")
        .describe("Authorities are asked as soon as their quotas allow. The `.seal` file has the anchor when it is there.")
        .needs(Right::Expedite)
        .parameter("path", "id", json!({"$ref": "#/components/schemas/SealId"}), "The seal.")
        .answer(202, "Who vouches for it by now.", "application/json", json!({"schema": reference("Anchored")}))
        .problems(&[Kind::UnknownSeal])
}

/// `GET /v1/manifests`.
pub fn manifests() -> Operation {
    Operation::new(
        "manifests",
        "box",
        "Manifests: of past outages the closing one, of the present one the newest.",
    )
    .needs(Right::ReadStatus)
    .answer(
        200,
        "The manifests, oldest first.",
        "application/json",
        json!({"schema": reference("Manifests")}),
    )
}

/// `GET /v1/manifests/{index}`.
pub fn manifest() -> Operation {
    let binary = json!({"schema": {"type": "string", "format": "binary"}});
    Operation::new("manifest", "box", "A manifest as a file, with the best evidence there is now.")
        .needs(Right::ReadStatus)
        .parameter(
            "path",
            "index",
            json!({"type": "string", "pattern": "^[0-9]{1,19}$"}),
            "Index of its entry.",
        )
        .parameter(
            "query",
            "form",
            json!({"type": "string", "enum": ["der", "txt", "pdf"], "default": "der"}),
            "DER for `bulla manifest verify`, text, or a page to print.",
        )
        .answer(
            200,
            "The manifest (docs/formats.md section 19).",
            "application/vnd.bulla.manifest",
            binary.clone(),
        )
        .answer(200, "", "text/plain; charset=utf-8", json!({"schema": {"type": "string"}}))
        .answer(200, "", "application/pdf", binary)
        .answer_header(200, "Content-Disposition", "Names the file.")
        .problems(&[Kind::UnknownManifest])
}
