//! `bulla-authorities`: an authority for the demo, or for trying things by hand.
//!
//! Prints one line of JSON that says where it is, and serves until it is ended.
#![forbid(unsafe_code)]

use anyhow::Result;
use bulla_authorities::pki::Key;
use bulla_authorities::tsa::{Options, Tsa};
use bulla_authorities::witness::Witness;
use clap::{Parser, ValueEnum};
use serde_json::json;
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
        /// Speak https, by a certificate for 127.0.0.1 and localhost under a CA of its own (tls-ca.pem in the directory).
        #[arg(long)]
        https: bool,
        /// Publish CRLs, and name them in the certificates.
        #[arg(long)]
        crls: bool,
        /// Port of the stamps; 0 for any free one.
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// Port of the switches; 0 for any free one.
        #[arg(long, default_value_t = 0)]
        control_port: u16,
    },
    /// A witness of logs (c2sp.org/tlog-witness); its switches are on a second port: GET and PUT /knobs, GET /counters,
    /// POST /logs, DELETE /memory.
    Witness {
        /// Its key name; its key follows from it.
        #[arg(long, default_value = "witness.example/w1")]
        name: String,
        /// Verifier key of a log that it cosigns; may come several times.
        #[arg(long)]
        log: Vec<String>,
        /// Port of the submissions; 0 for any free one.
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
    let (_tsa, _witness);
    let place = match Arguments::parse() {
        Arguments::Tsa { directory, operator, key, intermediate, https, crls, port, control_port } => {
            let key = match key {
                Kind::P256 => Key::P256,
                Kind::P384 => Key::P384,
                Kind::Rsa2048 => Key::Rsa(2048),
                Kind::Rsa3072 => Key::Rsa(3072),
            };
            let https: &[&str] = if https { &["127.0.0.1", "localhost"] } else { &[] };
            let options = Options { operator: &operator, key, intermediate, port, control_port, https, crls };
            let tsa = Tsa::start(&directory, &options)?;
            let place = json!({"operator": tsa.operator(), "url": tsa.url(), "control": tsa.control_url(), "root": tsa.root_pem(), "tlsCa": tsa.tls_ca_pem(), "crls": tsa.crl_url()});
            _tsa = tsa;
            place
        }
        Arguments::Witness { name, log, port, control_port } => {
            let witness = Witness::start(&name, port, control_port)?;
            log.iter().try_for_each(|log| witness.know(log))?;
            let place = json!({"name": name, "url": witness.url(), "control": witness.control_url(), "key": witness.key()});
            _witness = witness;
            place
        }
    };
    println!("{place}");
    loop {
        std::thread::park();
    }
}
