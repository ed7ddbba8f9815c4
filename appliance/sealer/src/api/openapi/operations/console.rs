//! Operations of the console: its pages, people's sessions, and what only its pages draw.

use super::super::Operation;
use super::super::schemas::reference;
use crate::api::access::Right;
use crate::problem::Kind;
use serde_json::{Value, json};

const JSON: &str = "application/json";

fn text() -> Value {
    json!({"schema": {"type": "string"}})
}

/// `GET /`.
pub fn home() -> Operation {
    Operation::new("console", "box", "The console: one page, in the browser's language.")
        .describe(
            "German where Accept-Language prefers it, else English. It asks this API for all that it shows.",
        )
        .answer(200, "The page.", "text/html; charset=utf-8", text())
        .problems(&[Kind::NotFound])
}

/// `GET /console/{file}`.
pub fn file() -> Operation {
    Operation::new("consoleFile", "box", "What the console's page is made of.")
        .parameter("path", "file", json!({"type": "string"}), "Its name.")
        .answer(200, "A script.", "text/javascript; charset=utf-8", text())
        .answer(200, "A style sheet.", "text/css; charset=utf-8", text())
        .answer(200, "A picture.", "image/svg+xml", text())
        .problems(&[Kind::NotFound])
}

/// `POST /v1/session`.
pub fn begin() -> Operation {
    Operation::new("logIn", "box", "Logs a person in.")
        .describe("The answer sets the session's cookie. Ten tries of one account from one address at once, then one in 30 seconds.")
        .body(JSON, json!({"schema": reference("Login")}))
        .answer(200, "The session.", JSON, json!({"schema": reference("Session")}))
        .answer_header(200, "Set-Cookie", "The session.")
        .problems(&[Kind::Unauthenticated, Kind::ForeignRequest, Kind::NotFound, Kind::Overloaded, Kind::Locked])
}

/// `POST /v1/session/password`.
pub fn choose() -> Operation {
    Operation::new("choosePassword", "box", "Chooses a password and logs in.")
        .describe("With the password before, or with the one-time code of `bulla-box people add`. All other sessions of the person end.")
        .body(JSON, json!({"schema": reference("NewPassword")}))
        .answer(200, "The session.", JSON, json!({"schema": reference("Session")}))
        .answer_header(200, "Set-Cookie", "The session.")
        .problems(&[
            Kind::Unauthenticated,
            Kind::ForeignRequest,
            Kind::NotFound,
            Kind::WeakPassword,
            Kind::Overloaded,
            Kind::Locked,
        ])
}

/// `GET /v1/session`.
pub fn read() -> Operation {
    Operation::new("session", "box", "Who is logged in.").needs_session().answer(
        200,
        "The session.",
        JSON,
        json!({"schema": reference("Session")}),
    )
}

/// `POST /v1/session/end`.
pub fn end() -> Operation {
    Operation::new("logOut", "box", "Logs out.")
        .needs_session()
        .answer(200, "It is over.", JSON, json!({"schema": {"type": "object"}}))
        .answer_header(200, "Set-Cookie", "Takes the cookie away.")
}

/// `GET /v1/history`.
pub fn history() -> Operation {
    Operation::new("history", "box", "What the box was like in the last hours, sampled by itself.")
        .describe("A sample every 10 seconds, six hours of them, none from before the start.")
        .needs(Right::ReadMetrics)
        .parameter(
            "query",
            "after",
            json!({"type": "integer", "minimum": 0}),
            "Only samples after this time (Unix milliseconds).",
        )
        .answer(200, "The samples, oldest first.", JSON, json!({"schema": reference("History")}))
}

/// `GET /v1/seals/{id}/code`.
pub fn code() -> Operation {
    Operation::new("sealCode", "seals", "A seal's id, leaf hash, digest and log as a QR code.")
        .describe("It says where to look and proves nothing.")
        .needs(Right::ReadSeals)
        .parameter("path", "id", json!({"$ref": "#/components/schemas/SealId"}), "The seal.")
        .answer(200, "The code.", "image/svg+xml", text())
        .problems(&[Kind::UnknownSeal])
}
