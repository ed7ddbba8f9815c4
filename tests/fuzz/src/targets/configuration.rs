//! `box.toml`.
//!
//! Holds: a configuration that was accepted answers everything that the program asks it.

use bulla_box::fuzzing::configuration;
use std::fs;
use std::path::Path;

/// Reads `data` as a configuration.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(reason) = configuration(text) {
        assert!(!reason.is_empty());
    }
}

/// The commented sample, whole and without its comments, the least there can be, and one with sections of its own.
pub fn seeds() -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/box.toml");
    let sample = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let bare: Vec<&str> = sample.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let least = "state_dir = \"/x\"\n[identity]\nfleet = \"a.b\"\n[software]\naccept = true\n";
    let queue = format!(
        "{least}[queue]\nwhen = [\"locked\"]\nentries_max = 5\n[sealing]\nresidency = \"software\"\n"
    );
    let other = bare.join("\n").replace("tpm-endorsed-ram", "tpm").replace("1.3", "1.2");
    let time = format!(
        "{least}[[time.roughtime]]\nname = \"r\"\noperator = \"R\"\naddress = \"[::1]:2002\"\npublic_key = \"AW5uAoTSTDfG5NfY1bTh08GUnOqlRb+HVhbJ3ODJvsE=\"\n"
    );
    [sample.clone(), bare.join("\n"), least.to_owned(), queue, other, time].map(String::into_bytes).to_vec()
}
