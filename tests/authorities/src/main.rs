//! `bulla-authorities`: an authority for the demo, or for trying things by hand.
//!
//! Prints one line of JSON that says where it is, and serves until it is ended.
#![forbid(unsafe_code)]

use anyhow::Result;
use bulla_authorities::pki::Key;
use bulla_authorities::tsa::{Options, Tsa};
use clap::{Parser, ValueEnum};
use std::path::PathBuf;

/// An authority for tests, whose faults are switches.
#[derive(Parser)]
#[command(version)]
enum Arguments {
    /// A time-stamping authority (RFC 3161); its switches are on a second port: GET and PUT /knobs, GET /counters.
    Tsa {
        /// Where its keys and certificates go; must not hold those of another.
        #[arg(long)]
        directory: PathBuf,
        /// Who runs it.
        #[arg(long, default_value = "Stamps of tests")]
        operator: String,
        /// Kind of its keys.
        #[arg(long, value_enum, default_value = "p256")]
        key: Kind,
        /// Have a CA between root and signer.
        #[arg(long)]
        intermediate: bool,
        /// Port of the stamps; 0 for any free one.
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// Port of the switches; 0 for any free one.
        #[arg(long, default_value_t = 0)]
        control_port: u16,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    P256,
    P384,
    Rsa2048,
    Rsa3072,
}

fn main() -> Result<()> {
    let Arguments::Tsa { directory, operator, key, intermediate, port, control_port } = Arguments::parse();
    let key = match key {
        Kind::P256 => Key::P256,
        Kind::P384 => Key::P384,
        Kind::Rsa2048 => Key::Rsa(2048),
        Kind::Rsa3072 => Key::Rsa(3072),
    };
    let tsa =
        Tsa::start(&directory, &Options { operator: &operator, key, intermediate, port, control_port })?;
    let place = serde_json::json!({
        "operator": tsa.operator(),
        "url": tsa.url(),
        "control": tsa.control_url(),
        "root": tsa.root_pem(),
    });
    println!("{place}");
    loop {
        std::thread::park();
    }
}
