//! TPM2_Clear on a real TPM: what no longer opens, and a farewell key whose quote shows that the clock began anew.

use crate::Setup;
use bulla_formats::tpm::{TpmtPublic, check_ak_template, verify_certify, verify_quote};
use bulla_keys::{Cleared, KeyError, KeyService, Role, clear, farewell_quote};

const BEFORE: [u8; 32] = [1; 32];
const AFTER: [u8; 32] = [2; 32];

#[test]
fn a_cleared_tpm_opens_nothing_and_its_farewell_key_shows_it() {
    let setup = Setup::new();
    let (service, device) = (&setup.service, setup.service.description().clone());
    let ak = TpmtPublic::parse(&device.attestation_public).unwrap();
    let sealed = service.seal(b"the log key").unwrap();
    let quote = service.quote(BEFORE, &[0, 7]).unwrap();
    let before = verify_quote(&ak, &quote.attest, &quote.signature, &BEFORE).unwrap();
    let key = service.farewell(BEFORE).unwrap();
    let last = TpmtPublic::parse(&key.public).unwrap();
    check_ak_template(&last).unwrap();
    verify_certify(&ak, &key.attest, &key.signature, &BEFORE, &last.name()).unwrap();
    // It answers as long as it is there, before and after, and only to its own TPM.
    service.sign(Role::Tls, [3; 32]).unwrap();
    service.shutdown();
    let ask = || farewell_quote(&setup.provider(), &device.ek_public, &key, AFTER);
    let went_on = ask().unwrap();
    let went_on = verify_quote(&last, &went_on.attest, &went_on.signature, &AFTER).unwrap();
    assert!(went_on.clock >= before.clock && went_on.reset_count == before.reset_count, "{went_on:?}");

    for _ in 0..2 {
        assert_eq!(clear(&setup.provider()).unwrap(), Cleared::Cleared);
        let quote = ask().unwrap();
        let after = verify_quote(&last, &quote.attest, &quote.signature, &AFTER).unwrap();
        after.check_pcrs(&quote.pcrs).unwrap();
        assert_eq!(after.reset_count, 0);
        assert!(before.reset_count > 0 || after.clock < before.clock, "{before:?} {after:?}");
    }
    // Keys, seals and the counter are gone; the endorsement key is the same, so this is the same TPM.
    let opened = KeyService::open(&setup.provider(), &setup.keys());
    assert!(matches!(opened, Err(KeyError::Lost { .. })), "{opened:?}");
    std::fs::rename(setup.keys(), setup.dir.path().join("old")).unwrap();
    let anew = KeyService::create(&setup.provider(), &setup.keys()).unwrap();
    assert_eq!(anew.description().ek_public, device.ek_public);
    assert_ne!(anew.description().attestation_public, device.attestation_public);
    assert!(matches!(anew.unseal(&sealed), Err(KeyError::Damaged { .. })));
}

#[test]
fn a_tpm_that_does_not_permit_it_loses_the_boxs_own_keys() {
    let setup = Setup::new();
    let key = setup.service.farewell(BEFORE).unwrap();
    let ek = setup.service.description().ek_public.clone();
    setup.service.shutdown();
    setup.swtpm.tool("tpm2_clearcontrol", &["-C", "p", "s"]);
    for _ in 0..2 {
        assert!(matches!(clear(&setup.provider()).unwrap(), Cleared::NotPermitted { .. }));
    }
    let opened = KeyService::open(&setup.provider(), &setup.keys());
    assert!(matches!(opened, Err(KeyError::Lost { .. })), "{opened:?}");
    farewell_quote(&setup.provider(), &ek, &key, AFTER).unwrap();
}
