//! A real folder and real files, with a door that seals in memory and can be told to fail.
//!
//! Method: writers do to the folder what scanners and people do; at the end each complete document has a receipt, and the
//! door has made one seal for each distinct content.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_intake::door::{Door, NotSealed, Note, Order, Sealed};
use bulla_intake::folder::Census;
use bulla_intake::options::{Notice, Options, Policy};
use bulla_intake::run::{Summary, Until, run};
use serde_json::json;
use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

#[derive(Default)]
struct Memory {
    /// Idempotency key to how often a seal was made, and its SHA-256.
    seals: Mutex<HashMap<String, (usize, [u8; 32])>>,
    supersedes: Mutex<Vec<String>>,
    shut: AtomicBool,
    /// Seals, and then says that it could not.
    lose: AtomicUsize,
}

impl Door for Memory {
    fn seal(&self, order: &Order<'_>) -> Result<Sealed, NotSealed> {
        if self.shut.load(Ordering::Relaxed) {
            return Err(NotSealed::Later { reason: "shut".into(), after: None });
        }
        let mut seals = self.seals.lock().unwrap();
        let number = seals.len();
        let made = seals.entry(order.key.clone()).or_insert((number, order.content.sha256));
        self.supersedes.lock().unwrap().extend(order.supersedes.clone());
        let lost = self.lose.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if lost.is_ok() {
            return Err(NotSealed::Later { reason: "no answer".into(), after: None });
        }
        let leaf = format!("{:064x}", made.0 + 1);
        Ok(Sealed {
            seal: format!("seal {leaf}"),
            receipt: json!({"id": format!("{}-ab", made.0), "leafHash": leaf}),
        })
    }

    fn note(&self, _: &Note<'_>) {}

    fn census(&self, _: Census, _: &str) {}
}

fn pdf(number: u32) -> Vec<u8> {
    let body = format!("%PDF-1.4\n% {number}\n1 0 obj\n<<>>\nendobj\n");
    format!("{body}xref\n0 1\ntrailer\n<<>>\nstartxref\n{}\n%%EOF\n", body.len()).into_bytes()
}

fn options(folder: &Path, notice: Notice) -> Options {
    let policy = Policy {
        stability: Duration::from_millis(300),
        give_up: Duration::from_secs(3),
        alone: Duration::from_secs(1),
        ..Policy::default()
    };
    Options { notice, look_every: Duration::from_millis(500), policy, ..Options::new(folder.to_owned()) }
}

fn settle(options: &Options, door: &Memory) -> Summary {
    run(options, door, &AtomicBool::new(false), Until::Settled(Duration::from_secs(20))).unwrap()
}

#[test]
fn what_is_written_badly_is_sealed_once_and_half_of_it_is_explained() {
    for notice in [Notice::Auto, Notice::Polling] {
        let folder = tempfile::tempdir().unwrap();
        let (options, door) = (options(folder.path(), notice), Memory::default());
        let at = |name: &str| folder.path().join(name);
        fs::write(at("old.pdf"), pdf(0)).unwrap();
        fs::write(at("half.pdf"), &pdf(1)[..60]).unwrap();
        fs::write(at("empty.tif"), b"").unwrap();
        fs::write(at(".hidden.pdf"), pdf(2)).unwrap();
        fs::write(at("copy.pdf"), pdf(0)).unwrap();
        fs::create_dir(at("desk 2")).unwrap();
        std::os::unix::fs::symlink(at("old.pdf"), at("link.pdf")).unwrap();
        let stop = AtomicBool::new(false);
        let summary = std::thread::scope(|scope| {
            let running = scope.spawn(|| run(&options, &door, &stop, Until::Stopped).unwrap());
            std::thread::sleep(Duration::from_millis(600));
            let mut slow = fs::File::create(at("slow.pdf")).unwrap();
            for piece in pdf(3).chunks(20) {
                slow.write_all(piece).unwrap();
                std::thread::sleep(Duration::from_millis(200));
            }
            drop(slow);
            fs::write(at("late.pdf.part"), pdf(4)).unwrap();
            std::thread::sleep(Duration::from_millis(700));
            fs::rename(at("late.pdf.part"), at("desk 2/late.pdf")).unwrap();
            fs::write(at("with.pdf"), pdf(5)).unwrap();
            fs::write(at("with.xml"), b"<user>jm</user>").unwrap();
            std::thread::sleep(Duration::from_secs(5));
            stop.store(true, Ordering::Relaxed);
            running.join().unwrap()
        });
        assert_eq!((summary.sealed, summary.rejected), (5, 2), "{notice:?} {summary:?}");
        assert_eq!(door.seals.lock().unwrap().len(), 4, "the copy has the same seal");
        for name in ["old.pdf", "copy.pdf", "slow.pdf", "desk 2/late.pdf", "with.pdf"] {
            for end in ["", ".seal", ".receipt.json"] {
                assert!(at(&format!("{name}{end}")).is_file(), "{notice:?} {name}{end}");
            }
        }
        for name in ["half.pdf", "empty.tif"] {
            assert!(!at(name).exists() && options.errors.join(name).is_file(), "{notice:?} {name}");
            assert!(options.errors.join(format!("{name}.reason.txt")).is_file());
        }
        assert_eq!(fs::read(at("old.pdf")).unwrap(), pdf(0));
        let leftovers = fs::read_dir(folder.path()).unwrap().flatten();
        let leftovers = leftovers.filter(|entry| entry.file_name().to_string_lossy().contains("bulla-tmp"));
        assert_eq!(leftovers.count(), 0);
        // Another run finds everything done, and looks into nothing.
        door.shut.store(true, Ordering::Relaxed);
        let again = settle(&options, &door);
        assert_eq!((again.sealed, again.left_count), (0, 0), "{notice:?} {again:?}");
    }
}

#[test]
fn g3_touched_renamed_and_lost_answers_make_no_second_seal() {
    let folder = tempfile::tempdir().unwrap();
    let (options, door) = (options(folder.path(), Notice::Auto), Memory::default());
    let at = |name: &str| folder.path().join(name);
    for number in 0..20 {
        fs::write(at(&format!("{number}.pdf")), pdf(number)).unwrap();
    }
    door.lose.store(7, Ordering::Relaxed);
    let summary = settle(&options, &door);
    assert_eq!((summary.sealed, summary.left_count), (20, 0), "{summary:?}");
    fs::write(at("0.pdf"), pdf(0)).unwrap();
    fs::rename(at("1.pdf"), at("renamed.pdf")).unwrap();
    fs::remove_file(at("2.pdf.receipt.json")).unwrap();
    let summary = settle(&options, &door);
    assert_eq!((summary.sealed, door.seals.lock().unwrap().len()), (2, 20), "{summary:?}");
    assert!(at("renamed.pdf.seal").is_file());
    // Other bytes under the same name: another seal, and the old one is kept.
    fs::write(at("3.pdf"), pdf(1_000)).unwrap();
    assert_eq!((settle(&options, &door).sealed, door.seals.lock().unwrap().len()), (1, 21));
    let seals = fs::read_dir(folder.path()).unwrap().flatten();
    let of_three = seals.filter(|entry| {
        let name = entry.file_name().into_string().unwrap();
        name.starts_with("3.pdf.") && name.ends_with(".seal")
    });
    assert_eq!(of_three.count(), 2);
    // A sidecar that comes late makes another unit, whose seal says which one it replaces.
    fs::write(at("4.xml"), b"<late/>").unwrap();
    assert_eq!((settle(&options, &door).sealed, door.seals.lock().unwrap().len()), (1, 22));
    assert_eq!(door.supersedes.lock().unwrap().len(), 1);
}

#[test]
fn results_and_slips_go_where_they_are_told_to() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut options = options(folder.path(), Notice::Auto);
    options.results = Some(elsewhere.path().join("results"));
    options.slip = true;
    fs::create_dir(folder.path().join("a")).unwrap();
    fs::write(folder.path().join("a/b.pdf"), pdf(1)).unwrap();
    assert_eq!(settle(&options, &Memory::default()).sealed, 1);
    let slip = fs::read(elsewhere.path().join("results/a/b.pdf.slip.pdf")).unwrap();
    assert!(slip.starts_with(b"%PDF-"));
    assert!(elsewhere.path().join("results/a/b.pdf.receipt.json").is_file());
    assert_eq!(fs::read_dir(folder.path().join("a")).unwrap().count(), 1, "nothing beside the document");
}

#[test]
fn a_folder_that_is_not_there_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder.path().join("nowhere"), Notice::Auto);
    let error = run(&options, &Memory::default(), &AtomicBool::new(false), Until::Stopped).unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
}
