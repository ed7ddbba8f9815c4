//! A box that cannot run says why, in one sentence, before it has done anything.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::{Keys, Rig, RigOptions, Role, box_program};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const SOFTWARE: RigOptions<'static> = RigOptions {
    keys: Keys::Software,
    residency: "software",
    extra: "",
    state_dir: None,
    tcti: None,
    launcher: None,
};
/// Nothing here should run for long; what hangs is ended.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `bulla-box` in `directory`; its exit code and what it wrote to stderr.
fn bulla_box(directory: &Path, arguments: &[&str]) -> Result<(i32, String)> {
    let output = Command::new("timeout")
        .arg(PATIENCE.as_secs().to_string())
        .arg(box_program()?)
        .args(arguments)
        .args(["--config", "box.toml"])
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()?;
    let code = output.status.code().context("ended by a signal")?;
    let text = String::from_utf8(output.stderr)?;
    ensure!(!text.contains("panicked"), "{arguments:?}: {text}");
    Ok((code, text))
}

/// One sentence on stderr that holds all of `words`.
fn complains(found: &(i32, String), code: i32, words: &[&str]) {
    let text = &found.1;
    assert_eq!(found.0, code, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(text.contains("bulla-box: "), "{text}");
}

#[test]
fn the_sample_configuration_is_good_and_every_mistake_is_named() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let sample = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/box.toml"))?;
    let file = directory.path().join("box.toml");
    let state = directory.path().join("state");
    let adapted = sample
        .replace("/var/lib/bulla", state.to_str().unwrap())
        .replace("0.0.0.0:8443", "127.0.0.1:0")
        .replace("device:/dev/tpmrm0", "swtpm:host=127.0.0.1,port=2321");
    let check = |text: &str| -> Result<(i32, String)> {
        fs::write(&file, text)?;
        bulla_box(directory.path(), &["check-config"])
    };
    assert_eq!(check(&sample)?.0, 0, "the sample as it stands");
    assert_eq!(check(&adapted)?.0, 0, "the sample, adapted");
    assert_eq!(bulla_box(directory.path(), &["run", "--check-config"])?.0, 0);

    for (from, to, words) in [
        ("state_dir =", "bogus = 1\nstate_dir =", "bogus"),
        ("[identity]", "[identity]\nbogus = 1", "bogus"),
        ("\n[tpm]\n", "\n[tpm]\nbogus = 1\n", "bogus"),
        ("[sealing]", "[sealing]\nbogus = 1", "bogus"),
        ("[attestation]", "[attestation]\nbogus = 1", "bogus"),
        ("[tls]", "[tls]\nbogus = 1", "bogus"),
        ("[limits]", "[limits]\nbogus = 1", "bogus"),
        ("[log]", "[log]\nbogus = 1", "bogus"),
        ("[log]", "[bogus]\n[log]", "bogus"),
        ("fleet = \"bank.example\"", "", "fleet"),
        ("fleet = \"bank.example\"", "fleet = \"Bank.Example\"", "fleet"),
        ("fleet = \"bank.example\"", "fleet = \"\"", "fleet"),
        ("\ntcti = ", "\n# tcti = ", "tcti"),
        ("\n[tpm]\n", "\n[software]\naccept = true\n[tpm]\n", "remove"),
        ("batch_max = 512", "batch_max = 0", "batch_max"),
        ("batch_max = 512", "batch_max = -1", "batch_max"),
        ("batch_max = 512", "batch_max = \"512\"", "batch_max"),
        ("batch_max = 512", "batch_max = 512\nbatch_max = 512", "batch_max"),
        ("min_version = \"1.3\"", "min_version = \"1.1\"", "min_version"),
        ("residency = \"tpm-endorsed-ram\"", "residency = \"software\"", "residency"),
        ("residency = \"tpm-endorsed-ram\"", "residency = \"cloud\"", "residency"),
        ("window_seconds = 60", "window_seconds = 0", "window_seconds"),
        ("pcrs = [0,", "pcrs = [24,", "pcrs"),
        ("listen = \"127.0.0.1:0\"", "listen = \"localhost\"", "listen"),
        ("level = \"info\"", "level = \"loud\"", "level"),
        (state.to_str().unwrap(), "state", "state_dir"),
    ] {
        let text = adapted.replacen(from, to, 1);
        assert_ne!(text, adapted, "{from:?} is not in the sample");
        complains(&check(&text)?, 2, &[words]);
    }
    complains(&check("")?, 2, &[]);
    complains(&check("\0\u{1}")?, 2, &[]);
    fs::write(&file, b"\xff\xfe")?;
    complains(&bulla_box(directory.path(), &["check-config"])?, 2, &["box.toml"]);
    fs::remove_file(&file)?;
    complains(&bulla_box(directory.path(), &["check-config"])?, 2, &["box.toml"]);
    assert!(!state.exists(), "a check of the configuration made something");
    Ok(())
}

#[test]
fn a_box_makes_no_state_by_itself_and_never_makes_it_twice() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let state = directory.path().join("state");
    fs::write(
        directory.path().join("box.toml"),
        format!(
            "state_dir = {state:?}\nlisten = \"127.0.0.1:0\"\n[identity]\nfleet = \"demo.bulla.test\"\n\
             [software]\naccept = true\n"
        ),
    )?;
    // Nothing is there: every command but init says what is missing, and makes nothing.
    for arguments in [
        &["run"][..],
        &["fsck"],
        &["trust", "export", "--out", "trust.json"],
        &["ca", "export", "--out", "ca.pem"],
        &["succeed", "--reason", "none"],
    ] {
        let found = bulla_box(directory.path(), arguments)?;
        complains(&found, 1, &["state"]);
        assert!(!state.join("keys.json").exists(), "{arguments:?} made keys");
    }
    // An empty directory, as a mount that failed leaves it, is no state either.
    fs::create_dir_all(&state)?;
    complains(&bulla_box(directory.path(), &["run"])?, 1, &["state"]);
    fs::remove_dir_all(&state)?;

    assert_eq!(bulla_box(directory.path(), &["init"])?, (0, String::new()));
    let keys = fs::read(state.join("keys/keys.json"))?;
    complains(&bulla_box(directory.path(), &["init"])?, 1, &[]);
    assert_eq!(fs::read(state.join("keys/keys.json"))?, keys, "a second init changed the keys");

    // Half a state is refused, and not completed.
    let missing = directory.path().join("missing");
    for part in fs::read_dir(&state)?.collect::<Result<Vec<_>, _>>()? {
        if part.file_name() == "ca.pem" {
            continue; // Issued again, with a warning: the CA's key is what counts.
        }
        fs::rename(part.path(), &missing)?;
        let found = bulla_box(directory.path(), &["run"])?;
        complains(&found, 1, &[]);
        assert!(!part.path().join("keys.json").exists(), "keys were made anew: {}", found.1);
        let segment = part.path().join("seg-0000000000000000.redb");
        assert!(!segment.exists(), "a missing log was begun anew: {}", found.1);
        if part.path().is_dir() {
            fs::remove_dir_all(part.path())?;
        }
        fs::rename(&missing, part.path())?;
    }
    let (code, text) = bulla_box(directory.path(), &["fsck"])?;
    assert_eq!(code, 0, "all parts are back, and yet: {text}");
    Ok(())
}

#[test]
fn another_tpm_is_not_the_box() -> Result<()> {
    let mut rig = Rig::start()?;
    rig.client(Role::Scanner).seal(b"before the move")?;
    rig.sealer.stop()?;
    let (stranger, _directory) = Rig::manufacture_tpm()?;
    let file = rig.file("box.toml");
    let text = fs::read_to_string(&file)?;
    let own = rig.tpm.as_ref().context("the rig has a TPM")?.tcti();
    let moved = text.replace(&own, &stranger.tcti());
    assert_ne!(moved, text);
    fs::write(&file, &moved)?;
    let found = bulla_box(rig.sealer.directory(), &["run"])?;
    complains(&found, 1, &["another TPM"]);
    // Neither does it take software keys for those of its TPM.
    let software = moved
        .replace(&format!("[tpm]\ntcti = {:?}", stranger.tcti()), "[software]\naccept = true")
        .replace("tpm-endorsed-ram", "software");
    fs::write(&file, software)?;
    complains(&bulla_box(rig.sealer.directory(), &["run"])?, 1, &[]);
    // Back on its own TPM it is what it was.
    fs::write(&file, text)?;
    rig.sealer.start()?;
    assert_eq!(rig.client(Role::Scanner).seal(b"after the move")?.status, 201);
    Ok(())
}

#[test]
fn one_state_has_one_box() -> Result<()> {
    let mut rig = Rig::start_with(&SOFTWARE)?;
    // A second one on the same state, and an fsck beside the running one, are refused.
    let running = rig.log_size()?;
    complains(&bulla_box(rig.sealer.directory(), &["run"])?, 1, &[]);
    complains(&bulla_box(rig.sealer.directory(), &["fsck"])?, 1, &[]);
    complains(&bulla_box(rig.sealer.directory(), &["init"])?, 1, &[]);
    assert_eq!(rig.log_size()?, running);
    assert_eq!(rig.client(Role::Scanner).seal(b"undisturbed")?.status, 201);
    rig.sealer.stop()?;
    // A port that is taken.
    let port = std::net::TcpListener::bind(("127.0.0.1", rig.sealer.port()))?;
    complains(&bulla_box(rig.sealer.directory(), &["run"])?, 1, &["listen"]);
    drop(port);
    // Another fleet in the configuration than in the log.
    let text = fs::read_to_string(rig.file("box.toml"))?;
    fs::write(rig.file("box.toml"), text.replace("demo.bulla.test", "other.bulla.test"))?;
    complains(&bulla_box(rig.sealer.directory(), &["run"])?, 1, &["fleet"]);
    fs::write(rig.file("box.toml"), text)?;
    rig.sealer.start()?;
    rig.sealer.stop()?;
    rig.fsck().map(drop)
}
