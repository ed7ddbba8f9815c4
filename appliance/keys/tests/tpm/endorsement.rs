//! Which endorsement key is taken, what is refused about it, and what it protects.

use crate::common::Swtpm;
use crate::{Setup, proxy};
use bulla_formats::tpm::{EccCurve, PublicKey, TpmtPublic, verify_quote};
use bulla_keys::{KeyError, KeyService, Provider};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const P384_CERTIFICATE: &str = "0x01c00016";
const P384_KEY: &str = "0x81010016";

fn provider(swtpm: &Swtpm) -> Provider {
    Provider::Tpm { tcti: swtpm.tcti() }
}

/// Creates keys, kills the TPM, opens them again and quotes; gives the endorsement key.
fn works(dir: &TempDir, swtpm: &mut Swtpm) -> TpmtPublic {
    let keys = dir.path().join("keys");
    KeyService::create(&provider(swtpm), &keys).unwrap();
    swtpm.kill();
    swtpm.restart();
    let service = KeyService::open(&provider(swtpm), &keys).unwrap();
    let quote = service.quote([1; 32], &[0]).unwrap();
    let ak = TpmtPublic::parse(&service.description().attestation_public).unwrap();
    let facts = verify_quote(&ak, &quote.attest, &quote.signature, &[1; 32]).unwrap();
    assert!(facts.reset_count < 100, "obfuscated: {facts:?}");
    TpmtPublic::parse(&service.description().ek_public).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn without_an_elliptic_certificate_the_rsa_key_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let mut swtpm = Swtpm::start(dir.path());
    swtpm.tool("tpm2_nvundefine", &["-C", "p", P384_CERTIFICATE]);
    let ek = works(&dir, &mut swtpm);
    assert!(matches!(ek.key, PublicKey::Rsa { ref modulus, exponent: 65_537 } if modulus.len() == 256));
}

#[test]
fn without_any_certificate_the_p256_key_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let mut swtpm = Swtpm::start_with(dir.path(), false);
    let ek = works(&dir, &mut swtpm);
    assert!(matches!(ek.key, PublicKey::Ecc { curve: EccCurve::P256, .. }));
    let service = KeyService::open(&provider(&swtpm), &dir.path().join("keys")).unwrap();
    assert!(service.description().ek_certificates.is_empty());
}

#[test]
fn a_key_that_is_not_kept_ready_is_made_from_its_template() {
    let dir = tempfile::tempdir().unwrap();
    let mut swtpm = Swtpm::start(dir.path());
    swtpm.tool("tpm2_evictcontrol", &["-C", "p", "-c", P384_KEY]);
    let ek = works(&dir, &mut swtpm);
    assert!(matches!(ek.key, PublicKey::Ecc { curve: EccCurve::P384, .. }));
}

#[test]
fn g8_a_certificate_over_another_key_is_refused() {
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (swtpm, other) = (Swtpm::start(dir.path()), Swtpm::start(other_dir.path()));
    let certificate = dir.path().join("other.der");
    other.tool("tpm2_nvread", &["-C", "o", "-o", text(&certificate), P384_CERTIFICATE]);
    let size = std::fs::metadata(&certificate).unwrap().len().to_string();
    swtpm.tool("tpm2_nvundefine", &["-C", "p", P384_CERTIFICATE]);
    let attributes = "ppwrite|ppread|ownerread|authread|no_da|platformcreate";
    swtpm.tool("tpm2_nvdefine", &["-C", "p", "-s", &size, "-a", attributes, P384_CERTIFICATE]);
    swtpm.tool("tpm2_nvwrite", &["-C", "p", "-i", text(&certificate), P384_CERTIFICATE]);
    let keys = dir.path().join("keys");
    let created = KeyService::create(&provider(&swtpm), &keys);
    assert!(matches!(created, Err(KeyError::Refused { what: "endorsement key", .. })), "{created:?}");
    assert!(!keys.exists());
}

#[test]
fn somebody_elses_persistent_object_is_never_evicted() {
    let dir = tempfile::tempdir().unwrap();
    let swtpm = Swtpm::start(dir.path());
    let context = dir.path().join("primary");
    for (template, handle) in
        [("ecc256:ecdsa-sha256:null", "0x81425501"), ("ecc256:null:aes128cfb", "0x81425502")]
    {
        // The right kind of key, but in the wrong hierarchy.
        let attributes = if handle.ends_with('1') {
            "restricted|sign|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda"
        } else {
            "restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda"
        };
        let hierarchy = if handle.ends_with('1') { "o" } else { "e" };
        let primary = ["-Q", "-C", hierarchy, "-G", template, "-a", attributes, "-c", text(&context)];
        swtpm.tool("tpm2_createprimary", &primary);
        swtpm.tool("tpm2_evictcontrol", &["-Q", "-C", "o", "-c", text(&context), handle]);
        swtpm.tool("tpm2_flushcontext", &["-t"]);
        let created = KeyService::create(&provider(&swtpm), &dir.path().join("keys"));
        assert!(matches!(created, Err(KeyError::Refused { .. })), "{handle}: {created:?}");
        swtpm.tool("tpm2_evictcontrol", &["-Q", "-C", "o", "-c", handle]);
    }
    KeyService::create(&provider(&swtpm), &dir.path().join("keys")).unwrap();
}

#[test]
fn g8_secrets_cross_the_bus_encrypted() {
    let setup = Setup::new();
    setup.service.shutdown();
    let (tcti, tap) = proxy::start(setup.swtpm.port(), Duration::ZERO);
    let service = KeyService::open(&Provider::Tpm { tcti }, &setup.keys()).unwrap();
    let (secret, digest) = (b"a secret that nobody on the bus may read", [0x77; 32]);
    let blob = service.seal(secret).unwrap();
    assert_eq!(service.unseal(&blob).unwrap().as_slice(), secret);
    service.quote(digest, &[0]).unwrap();
    let seen = tap.lock().unwrap();
    let passed = |bytes: &[u8]| seen.windows(bytes.len()).any(|window| window == bytes);
    // The probe sees the traffic: the qualifying data comes back in the quote.
    assert!(passed(&setup.service.description().attestation_public) && !seen.is_empty());
    assert!(!passed(&secret[..16]) && !passed(&secret[16..32]));
}
