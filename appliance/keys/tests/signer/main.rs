//! The same key service with a signer between it and the TPM: every test of `tests/tpm` that can tell means the same here.
//! And what only a signer can do wrong: go away, be another's, be asked nonsense.
#![allow(clippy::unwrap_used)] // a panic in a test is its report, in helper functions too

#[path = "../common/mod.rs"]
mod common;
#[path = "../tpm/evidence.rs"]
mod evidence;
#[path = "../tpm/farewell.rs"]
mod farewell;
#[path = "../tpm/keys.rs"]
mod keys;
#[path = "../tpm/outage.rs"]
mod outage;
#[path = "../tpm/proxy.rs"]
mod proxy;

use bulla_keys::{CONNECTIONS_MAX, KeyError, KeyService, Provider, Role, Signer};
use common::Swtpm;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A TPM, a signer before it, and keys made by way of it.
struct Setup {
    dir: TempDir,
    swtpm: Swtpm,
    service: KeyService,
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("socket")
}

fn by_signer(dir: &Path) -> Provider {
    Provider::Tpm { tcti: format!("signer:{}", socket(dir).display()) }
}

impl Setup {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let swtpm = Swtpm::start(dir.path());
        let signer = Signer::bind(&socket(dir.path()), &swtpm.tcti()).unwrap();
        // It ends with the process.
        std::thread::spawn(move || signer.serve());
        let service = KeyService::create(&by_signer(dir.path()), &dir.path().join("keys")).unwrap();
        Self { dir, swtpm, service }
    }

    fn provider(&self) -> Provider {
        by_signer(self.dir.path())
    }

    fn keys(&self) -> PathBuf {
        self.dir.path().join("keys")
    }
}

#[test]
fn without_a_signer_the_tpm_is_away() {
    let setup = Setup::new();
    setup.service.shutdown();
    fs::remove_file(socket(setup.dir.path())).unwrap();
    let words = KeyService::open(&setup.provider(), &setup.keys()).unwrap_err();
    assert!(matches!(words, KeyError::Unavailable { .. }), "{words}");
    assert!(words.to_string().contains("socket does not answer"), "{words}");
    // One that listens and hangs up is not a signer either.
    let listener = UnixListener::bind(socket(setup.dir.path())).unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let words = KeyService::open(&setup.provider(), &setup.keys()).unwrap_err();
    assert!(matches!(words, KeyError::Unavailable { .. }), "{words}");
}

#[test]
fn g2_an_increment_whose_answer_was_lost_is_not_asked_for_again() {
    let setup = Setup::new();
    let before = setup.service.counter().unwrap().unwrap();
    setup.service.shutdown();
    // A relay that passes requests on, and hangs up instead of the answer to an increment.
    let relay = setup.dir.path().join("relay");
    let (listener, signer) = (UnixListener::bind(&relay).unwrap(), socket(setup.dir.path()));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut near, mut far) = (stream.unwrap(), UnixStream::connect(&signer).unwrap());
            while let Some(request) = frame(&mut near) {
                far.write_all(&request).unwrap();
                let answer = frame(&mut far).unwrap();
                if request.ends_with(b"\"counter-increment\"") {
                    break;
                }
                near.write_all(&answer).unwrap();
            }
        }
    });
    let provider = Provider::Tpm { tcti: format!("signer:{}", relay.display()) };
    let service = KeyService::open(&provider, &setup.keys()).unwrap();
    let words = service.counter_increment().unwrap_err();
    assert!(matches!(words, KeyError::Unavailable { .. }), "{words}");
    assert_eq!(service.counter().unwrap(), Some(before + 1), "it happened, once");
}

/// One frame of a connection, whole.
fn frame(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut frame = vec![0; 5];
    stream.read_exact(&mut frame).ok()?;
    let length = u32::from_be_bytes(frame[1..].try_into().unwrap()) as usize;
    frame.resize(5 + length, 0);
    stream.read_exact(&mut frame[5..]).ok()?;
    Some(frame)
}

#[test]
fn nonsense_ends_its_own_connection_alone() {
    let setup = Setup::new();
    let path = socket(setup.dir.path());
    for nonsense in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x01\xff\xff\xff\xff",
        b"\x01\x00\x00\x00\x02{}",
        b"\x02\x00\x00\x00\x09\"counter\"",
    ] {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(nonsense).unwrap();
        let mut answer = Vec::new();
        // It may be reset, for what was not read.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{nonsense:?} is answered with {answer:?}");
    }
    // A request before there are keys is understood, and refused.
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"\x01\x00\x00\x00\x09\"counter\"").unwrap();
    let answer = String::from_utf8(frame(&mut stream).unwrap()[5..].to_vec()).unwrap();
    assert!(answer.contains("no keys were opened"), "{answer}");
    setup.service.sign(Role::Tls, [1; 32]).unwrap();
}

#[test]
fn a_signer_is_for_its_owner_and_group_and_has_its_socket_alone() {
    let setup = Setup::new();
    let path = socket(setup.dir.path());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert!(matches!(Signer::bind(&path, &setup.swtpm.tcti()), Err(KeyError::Io { .. })));
    setup.service.sign(Role::Tls, [1; 32]).unwrap();
    // What a signer left that was killed is nobody's.
    let left = setup.dir.path().join("left");
    drop(UnixListener::bind(&left).unwrap());
    Signer::bind(&left, &setup.swtpm.tcti()).unwrap();
    // A file is not.
    let file = setup.dir.path().join("file");
    fs::write(&file, "keep").unwrap();
    assert!(matches!(Signer::bind(&file, &setup.swtpm.tcti()), Err(KeyError::Io { .. })));
    assert_eq!(fs::read(&file).unwrap(), b"keep");
    let of_itself = format!("signer:{}", path.display());
    assert!(matches!(Signer::bind(&left, &of_itself), Err(KeyError::Address { .. })));
}

#[test]
fn connections_are_bounded_and_come_free_again() {
    let setup = Setup::new();
    let path = socket(setup.dir.path());
    // The service has one.
    let held: Vec<_> = (1..CONNECTIONS_MAX).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let mut one_more = UnixStream::connect(&path).unwrap();
    assert_eq!(one_more.read(&mut [0]).unwrap(), 0, "it is turned away");
    setup.service.sign(Role::Tls, [1; 32]).unwrap();
    drop(held);
    let began = Instant::now();
    loop {
        let mut stream = UnixStream::connect(&path).unwrap();
        // Turned away, the write may fail or not.
        let _ = stream.write_all(b"\x01\x00\x00\x00\x09\"counter\"");
        if frame(&mut stream).is_some() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "no connection came free");
        std::thread::sleep(Duration::from_millis(20));
    }
}
