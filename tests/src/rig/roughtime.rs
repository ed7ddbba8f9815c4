//! Roughtime servers of a test's own, and the lines of `box.toml` that name them.

pub use bulla_authorities::roughtime::{Answer, Knobs, Roughtime, Transport};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;

/// Lines of `box.toml` for these servers, named `time-0` and so on, asked every second; each may have its address
/// replaced.
pub fn sources(servers: &[(&Roughtime, Option<&str>)]) -> String {
    let mut text = "[time]\nevery_seconds = 1\nretry_seconds = 1\n".to_owned();
    for (at, (server, address)) in servers.iter().enumerate() {
        let address = address.map_or_else(|| server.address().to_string(), str::to_owned);
        let key = STANDARD.encode(server.public_key());
        let _ = writeln!(
            text,
            "[[time.roughtime]]\nname = \"time-{at}\"\noperator = \"Teller {at}\"\naddress = {address:?}\npublic_key = {key:?}\ntimeout_seconds = 1"
        );
    }
    text
}
