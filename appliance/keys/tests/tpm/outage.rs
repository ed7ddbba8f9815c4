//! TPMs that die, come back, are slow, or are somebody else's.

use crate::common::Swtpm;
use crate::{Setup, proxy};
use bulla_formats::tpm::{TpmtPublic, verify_quote};
use bulla_keys::{KeyError, KeyService, Provider, Role};
use std::collections::HashSet;
use std::time::Duration;
use tss_esapi::Context;
use tss_esapi::constants::{CapabilityType, PropertyTag};
use tss_esapi::structures::CapabilityData;
use tss_esapi::tcti_ldr::TctiNameConf;

const DATA: [u8; 32] = [0xc3; 32];

/// Everything the service does with a TPM.
fn use_everything(service: &KeyService) {
    service.quote(DATA, &[0, 7]).unwrap();
    service.endorse(DATA).unwrap();
    for role in Role::SIGNING {
        service.sign(role, DATA).unwrap();
    }
    let counter = service.counter_increment().unwrap();
    assert_eq!(service.counter_certify(DATA).unwrap().value, counter);
    let blob = service.seal(&DATA).unwrap();
    assert_eq!(service.unseal(&blob).unwrap().as_slice(), DATA);
}

#[test]
fn g2_the_counter_never_goes_back_over_power_cuts() {
    let mut setup = Setup::new();
    let mut last = setup.service.counter().unwrap().unwrap();
    for _ in 0..5 {
        for _ in 0..3 {
            let next = setup.service.counter_increment().unwrap();
            assert_eq!(next, last + 1);
            last = next;
        }
        setup.swtpm.kill();
        setup.swtpm.restart();
        // Between commands nothing was lost, so the service just goes on.
        assert_eq!(setup.service.counter().unwrap(), Some(last));
    }
}

#[test]
fn a_dead_tpm_is_unavailable_and_works_again_when_it_is_back() {
    let mut setup = Setup::new();
    use_everything(&setup.service);
    let blob = setup.service.seal(b"before").unwrap();
    for _ in 0..3 {
        setup.swtpm.kill();
        let service = &setup.service;
        assert!(matches!(service.quote(DATA, &[7]), Err(KeyError::Unavailable { .. })));
        assert!(matches!(service.sign(Role::Tls, DATA), Err(KeyError::Unavailable { .. })));
        assert!(matches!(service.counter(), Err(KeyError::Unavailable { .. })));
        assert!(matches!(service.counter_increment(), Err(KeyError::Unavailable { .. })));
        assert!(matches!(service.counter_certify(DATA), Err(KeyError::Unavailable { .. })));
        assert!(matches!(service.unseal(&blob), Err(KeyError::Unavailable { .. })));
        assert!(matches!(
            KeyService::open(&setup.provider(), &setup.keys()),
            Err(KeyError::Unavailable { .. })
        ));
        setup.swtpm.restart();
        assert_eq!(setup.service.unseal(&blob).unwrap().as_slice(), b"before");
        use_everything(&setup.service);
    }
}

#[test]
fn a_tpm_killed_under_load_is_served_again() {
    let mut setup = Setup::new();
    for round in 0..5_u64 {
        let service = setup.service.clone();
        let worker = std::thread::spawn(move || {
            let mut failures = 0;
            for _ in 0..400 {
                match service.sign(Role::Tls, DATA) {
                    Ok(_) => {}
                    Err(KeyError::Unavailable { .. }) => failures += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            failures
        });
        std::thread::sleep(Duration::from_millis(20 + 13 * round));
        setup.swtpm.kill();
        setup.swtpm.restart();
        worker.join().unwrap();
        use_everything(&setup.service);
    }
}

#[test]
fn g2_an_increment_that_is_cut_off_counts_once_or_not_at_all() {
    let mut setup = Setup::new();
    for round in 0..8_u64 {
        let service = setup.service.clone();
        // Read before the clock runs: a busy machine may begin the thread after the TPM is gone.
        let mut last = service.counter().unwrap().unwrap();
        let worker = std::thread::spawn(move || {
            loop {
                match service.counter_increment() {
                    Ok(next) => {
                        assert_eq!(next, last + 1);
                        last = next;
                    }
                    Err(KeyError::Unavailable { .. }) => return last,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        std::thread::sleep(Duration::from_millis(15 + 7 * round));
        setup.swtpm.kill();
        let last = worker.join().unwrap();
        setup.swtpm.restart();
        let now = setup.service.counter().unwrap().unwrap();
        assert!(now == last || now == last + 1, "{last} -> {now}");
    }
}

#[test]
fn power_cuts_do_not_lead_to_dictionary_attack_lockout() {
    let mut setup = Setup::new();
    for round in 0..6 {
        use_everything(&setup.service);
        // Creating uses the endorsement key, whose template lacks noDA.
        let second = setup.dir.path().join(format!("keys-{round}"));
        KeyService::create(&setup.provider(), &second).unwrap();
        setup.swtpm.kill();
        setup.swtpm.restart();
        assert_eq!(lockout_counter(&setup.swtpm), 0);
    }
    use_everything(&setup.service);
}

#[test]
fn a_tpm_that_hangs_is_given_up_on_and_served_again_when_it_moves() {
    let setup = Setup::new();
    setup.swtpm.pause();
    let impatient = setup.service.clone().with_deadline(Duration::from_millis(200));
    for _ in 0..3 {
        assert!(matches!(impatient.sign(Role::Tls, DATA), Err(KeyError::Unavailable { .. })));
    }
    setup.swtpm.resume();
    use_everything(&setup.service);
}

#[test]
fn an_orderly_end_keeps_the_clock_safe() {
    let mut setup = Setup::new();
    let ak = TpmtPublic::parse(&setup.service.description().attestation_public).unwrap();
    let facts = |service: &KeyService| {
        let quote = service.quote(DATA, &[0]).unwrap();
        verify_quote(&ak, &quote.attest, &quote.signature, &DATA).unwrap()
    };
    let before = facts(&setup.service);
    setup.service.shutdown();
    assert!(matches!(setup.service.counter(), Err(KeyError::ShutDown)));
    setup.swtpm.stop();
    setup.swtpm.restart();
    let service = KeyService::open(&setup.provider(), &setup.keys()).unwrap();
    let after = facts(&service);
    assert!(after.safe && after.clock >= before.clock, "{before:?} {after:?}");
    assert_eq!(after.reset_count, before.reset_count + 1);
}

#[test]
fn g8_another_tpm_is_never_accepted() {
    let mut setup = Setup::new();
    let blob = setup.service.seal(b"before").unwrap();
    // A factory-fresh TPM, and one that holds another box's keys at the same handles.
    let fresh = tempfile::tempdir().unwrap();
    let used = Setup::new();
    let used_dir = used.dir.path().to_owned();
    used.service.shutdown();
    let mut used_tpm = used.swtpm;
    used_tpm.stop();
    for stranger in [fresh.path(), &used_dir] {
        for first in 0..7 {
            setup.swtpm.replace(stranger);
            let service = &setup.service;
            let refusal = match first {
                0 => service.quote(DATA, &[7]).map(drop),
                1 => service.sign(Role::Tls, DATA).map(drop),
                2 => service.counter().map(drop),
                3 => service.counter_increment().map(drop),
                4 => service.counter_certify(DATA).map(drop),
                5 => service.unseal(&blob).map(drop),
                _ => KeyService::open(&setup.provider(), &setup.keys()).map(drop),
            };
            assert!(matches!(refusal, Err(KeyError::OtherTpm { .. })), "{first}: {refusal:?}");
            assert!(matches!(service.counter(), Err(KeyError::OtherTpm { .. })));
            setup.swtpm.kill();
            setup.swtpm.restart();
            // The right one is back.
            use_everything(&setup.service);
        }
    }
}

#[test]
fn a_cleared_tpm_is_told_from_another_one() {
    let setup = Setup::new();
    setup.service.shutdown();
    setup.swtpm.tool("tpm2_clear", &["-c", "p"]);
    let opened = KeyService::open(&setup.provider(), &setup.keys());
    assert!(matches!(opened, Err(KeyError::Lost { .. })), "{opened:?}");
    // It can be taken into use again, and its counter starts no lower than the old one ended (Part 1, 37.2.4).
    KeyService::create(&setup.provider(), &setup.dir.path().join("again")).unwrap();
}

#[test]
fn a_slow_tpm_is_waited_for_and_an_impatient_caller_is_told() {
    let setup = Setup::new();
    setup.service.shutdown();
    let (tcti, _) = proxy::start(setup.swtpm.port(), Duration::from_millis(600));
    let service = KeyService::open(&Provider::Tpm { tcti }, &setup.keys()).unwrap();
    use_everything(&service);
    let before = service.counter().unwrap().unwrap();
    let impatient = service.clone().with_deadline(Duration::from_millis(100));
    assert!(matches!(impatient.sign(Role::Tls, DATA), Err(KeyError::Unavailable { .. })));
    // Queued behind the signature and given up before its turn, so it never happens.
    assert!(matches!(impatient.counter_increment(), Err(KeyError::Unavailable { .. })));
    assert_eq!(service.counter().unwrap(), Some(before));
}

#[test]
fn nothing_is_left_in_the_tpm() {
    let mut setup = Setup::new();
    for round in 0..50 {
        use_everything(&setup.service);
        if round % 10 == 9 {
            setup.swtpm.kill();
            setup.swtpm.restart();
        }
        let blob = setup.service.seal(b"x").unwrap();
        assert!(setup.service.unseal(&blob[..blob.len() - 1]).is_err());
    }
    use_everything(&setup.service);
    setup.service.sign(Role::Tls, DATA).unwrap();
    // In use: the salted session and the loaded key. Persistent objects show up in neither range.
    let (objects, sessions) = loaded(&setup.swtpm);
    assert!(objects.len() == 1 && sessions.len() == 1, "{objects:?} {sessions:?}");
    setup.service.shutdown();
    let (objects, sessions) = loaded(&setup.swtpm);
    assert!(objects.is_empty() && sessions.is_empty(), "{objects:?} {sessions:?}");
}

#[test]
fn leftovers_of_crashed_processes_are_cleared_away() {
    let setup = Setup::new();
    setup.service.shutdown();
    let path = |name: &str| setup.dir.path().join(name).display().to_string();
    for _ in 0..3 {
        setup.swtpm.tool("tpm2_startauthsession", &["--policy-session", "-S", &path("session")]);
        setup.swtpm.tool("tpm2_createprimary", &["-Q", "-c", &path("primary")]);
    }
    let (objects, _) = loaded(&setup.swtpm);
    assert_eq!(objects.len(), 3, "the test fills every slot");
    let service = KeyService::open(&setup.provider(), &setup.keys()).unwrap();
    use_everything(&service);
}

/// TPM_PT_LOCKOUT_COUNTER.
fn lockout_counter(swtpm: &Swtpm) -> u32 {
    let mut context = Context::new(swtpm.tcti().parse::<TctiNameConf>().unwrap()).unwrap();
    context.get_tpm_property(PropertyTag::LockoutCounter).unwrap().unwrap()
}

/// Handles of transient objects and of sessions.
fn loaded(swtpm: &Swtpm) -> (HashSet<u32>, HashSet<u32>) {
    let mut context = Context::new(swtpm.tcti().parse::<TctiNameConf>().unwrap()).unwrap();
    let mut list = |first: u32| match context.get_capability(CapabilityType::Handles, first, 64).unwrap() {
        (CapabilityData::Handles(handles), _) => {
            handles.into_inner().into_iter().map(u32::from).collect::<HashSet<u32>>()
        }
        other => panic!("{other:?}"),
    };
    let objects = list(0x8000_0000);
    let sessions = list(0x0200_0000).union(&list(0x0300_0000)).copied().collect();
    (objects, sessions)
}
