//! The shape of the repository: which crate may know which, what stands where, what may be in no file.
//!
//! Invariant: nothing here depends on the time, on the network or on what was built.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which crates of the workspace a crate may depend on, for whatever purpose.
const EDGES: [(&str, &[&str]); 30] = [
    ("bulla-timestamps", &[]),
    ("bulla-roughtime", &[]),
    ("bulla-formats", &["bulla-timestamps"]),
    ("bulla-protocol", &["bulla-formats"]),
    ("bulla-ledger", &["bulla-formats"]),
    ("bulla-keys", &["bulla-formats", "bulla-enrolment"]),
    ("bulla-manual", &["bulla-formats"]),
    ("bulla-owner", &[]),
    ("bulla-signer", &["bulla-keys", "bulla-manual"]),
    ("bulla-peers", &[]),
    ("bulla-page", &[]),
    ("bulla-intake", &["bulla-formats", "bulla-page"]),
    ("bulla-verifier-web", &[]),
    ("bulla-console", &[]),
    (
        "bulla-box",
        &[
            "bulla-console",
            "bulla-enrolment",
            "bulla-formats",
            "bulla-intake",
            "bulla-protocol",
            "bulla-ledger",
            "bulla-keys",
            "bulla-manual",
            "bulla-owner",
            "bulla-page",
            "bulla-peers",
            "bulla-roster",
            "bulla-roughtime",
            "bulla-timestamps",
            "bulla-verifier-web",
        ],
    ),
    (
        "bulla",
        &[
            "bulla-formats",
            "bulla-intake",
            "bulla-ledger",
            "bulla-manual",
            "bulla-page",
            "bulla-timestamps",
            "bulla-verifier-web",
        ],
    ),
    ("bulla-hub", &["bulla-formats", "bulla-manual", "bulla-owner", "bulla-page", "bulla-protocol"]),
    ("bulla-appraisal", &["bulla-formats"]),
    ("bulla-approvals", &["bulla-formats"]),
    ("bulla-ceremony", &["bulla-formats"]),
    ("bulla-enrolment", &["bulla-appraisal", "bulla-formats"]),
    ("bulla-roster", &["bulla-approvals", "bulla-ceremony", "bulla-formats", "bulla-timestamps"]),
    (
        "bulla-fleet",
        &[
            "bulla-appraisal",
            "bulla-approvals",
            "bulla-ceremony",
            "bulla-enrolment",
            "bulla-formats",
            "bulla-manual",
            "bulla-roster",
            "bulla-timestamps",
        ],
    ),
    ("bulla-measure", &["bulla-appraisal", "bulla-formats"]),
    ("bulla-image-console", &["bulla-formats"]),
    ("bulla-update", &["bulla-formats", "bulla-keys"]),
    ("xtask", &[]),
    ("bulla-authorities", &[]),
    (
        "bulla-tests",
        &[
            "bulla-approvals",
            "bulla-authorities",
            "bulla-formats",
            "bulla-roughtime",
            "bulla-timestamps",
            "bulla-protocol",
            "bulla-ledger",
            "bulla-keys",
            "bulla-peers",
            "bulla-verifier-web",
            "xtask",
        ],
    ),
    (
        "bulla-fuzz",
        &[
            "bulla-formats",
            "bulla-ledger",
            "bulla-keys",
            "bulla-appraisal",
            "bulla-approvals",
            "bulla-ceremony",
            "bulla-roster",
            "bulla-roughtime",
            "bulla-timestamps",
            "bulla-enrolment",
            "bulla-box",
            "bulla",
            "bulla-intake",
            "bulla-page",
        ],
    ),
];
/// What whoever verifies a document must not have to build or to trust.
const NOT_IN_THE_VERIFIER: [&str; 6] =
    ["bulla-keys", "bulla-box", "bulla-peers", "tss-esapi", "tss-esapi-sys", "libp2p"];
/// Everything that may stand at the top of the repository beside dotfiles and build output.
const TOP_LEVEL: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "appliance",
    "provisioning",
    "image",
    "tests",
    "docs",
    "deny.toml",
    "rustfmt.toml",
];
const FILE_BYTES_MAX: u64 = 1_000_000;
const SOURCE_LINES_MAX: usize = 1_000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn is_build_output(name: &str) -> bool {
    name == "target" || name.starts_with("target-")
}

/// Every file below the top, but for git's own and build output, as paths relative to the top.
fn files() -> Vec<PathBuf> {
    let top = root();
    let mut found = Vec::new();
    let mut open = vec![top.clone()];
    while let Some(directory) = open.pop() {
        for name in names(&directory) {
            let path = directory.join(&name);
            if directory == top && (name == ".git" || is_build_output(&name)) {
                continue;
            }
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(&top).unwrap().to_owned());
            }
        }
    }
    assert!(found.len() > 100, "the walk begins at the top of the repository");
    found.sort();
    found
}

fn sources() -> Vec<PathBuf> {
    files().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

fn text(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn below(path: &Path, directory: &str) -> bool {
    path.components().any(|part| part.as_os_str() == directory)
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn crates_depend_only_on_the_crates_they_may() {
    let metadata = cargo(&["metadata", "--offline", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let members: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let listed: BTreeSet<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    assert_eq!(members, listed, "a crate came or went: say here what it may depend on");
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let allowed = EDGES.iter().find(|(of, _)| *of == name).unwrap().1;
        for dependency in package["dependencies"].as_array().unwrap() {
            let dependency = dependency["name"].as_str().unwrap();
            let fine = !members.contains(dependency) || allowed.contains(&dependency);
            assert!(fine, "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn whoever_verifies_builds_neither_tpm_library_nor_network_of_peers() {
    for package in ["bulla", "bulla-formats"] {
        let tree =
            cargo(&["tree", "--offline", "-p", package, "-e", "normal", "--prefix", "none", "-f", "{p}"]);
        let built: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(built.contains("bulla-formats"), "{tree}");
        for crate_name in NOT_IN_THE_VERIFIER {
            assert!(!built.contains(crate_name), "{package} depends on {crate_name} through something");
        }
    }
}

#[test]
fn pages_have_one_title() {
    let page = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "md")
            && (path.starts_with("docs") || path.components().count() == 1)
    };
    let pages: Vec<PathBuf> = files().into_iter().filter(page).collect();
    assert!(pages.iter().any(|path| path.ends_with("formats.md")));
    for path in pages {
        let mut fenced = false;
        let mut titles = Vec::new();
        for line in text(&path).lines() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if !fenced && line.starts_with("# ") {
                titles.push(line.to_owned());
            }
        }
        assert!(!fenced, "{}: a code block is not closed", path.display());
        assert_eq!(titles.len(), 1, "{}: {titles:?}", path.display());
    }
}

#[test]
fn files_are_small() {
    for path in files() {
        let bytes = root().join(&path).symlink_metadata().unwrap().len();
        assert!(bytes <= FILE_BYTES_MAX, "{} has {bytes} bytes", path.display());
    }
    for path in sources().iter().filter(|path| !below(path, "tests")) {
        let lines = text(path).lines().count();
        assert!(lines <= SOURCE_LINES_MAX, "{} has {lines} lines", path.display());
    }
}

#[test]
fn sources_say_what_they_are() {
    for path in sources() {
        assert!(text(&path).starts_with("//!"), "{} does not open with //!", path.display());
    }
}

/// Examples in documentation would be tests that nobody runs: what a program does is shown in `tests`.
#[test]
fn documentation_holds_no_code_to_run() {
    for path in sources() {
        let fenced = |line: &str| {
            let comment = line.trim_start();
            let comment = comment.strip_prefix("//!").or_else(|| comment.strip_prefix("///"));
            comment.and_then(|comment| comment.trim_start().strip_prefix("```").map(str::to_owned))
        };
        let text = text(&path);
        let fences: Vec<(usize, String)> =
            text.lines().enumerate().filter_map(|(at, line)| Some((at + 1, fenced(line)?))).collect();
        for (line, kind) in fences.iter().step_by(2) {
            assert_eq!(kind, "text", "{}:{line} is a code block that is not ```text", path.display());
        }
    }
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    // Put together here, so that this file does not contain what it looks for.
    let forbidden = [["/ro", "ot/"], ["/wo", "rk/"], ["/tmp/sp", "ikes"]].map(|halves| halves.concat());
    for path in files() {
        let bytes = fs::read(root().join(&path)).unwrap();
        let Ok(text) = String::from_utf8(bytes) else { continue };
        for name in &forbidden {
            let line = text.lines().position(|line| line.contains(name));
            assert!(line.is_none(), "{}:{} contains {name}", path.display(), line.unwrap_or(0) + 1);
        }
    }
}

#[test]
fn the_top_of_the_repository_holds_only_what_it_should() {
    for name in names(&root()) {
        let known =
            TOP_LEVEL.contains(&name.as_str()) || name == "clippy.toml" || name.starts_with("LICENSE");
        assert!(known || name.starts_with('.') || is_build_output(&name), "{name} stands at the top");
    }
}

/// References of the form `` `appliance/x/tests/y.rs::z` `` in a page.
fn named_tests(page: &str) -> Vec<(String, String)> {
    let reference = |quoted: &str| {
        let (file, name) = quoted.split_once(".rs::")?;
        let ours =
            ["appliance/", "provisioning/", "image/", "tests/"].iter().any(|top| file.starts_with(top));
        let name = name.rsplit("::").next()?;
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        (ours && plain).then(|| (format!("{file}.rs"), name.to_owned()))
    };
    page.split('`').skip(1).step_by(2).filter_map(reference).collect()
}

#[test]
fn every_test_that_a_page_names_exists() {
    let page = "`a` and `tests/tests/x.rs::g1_y` and `appliance/a/src/b.rs::tests::g2_z`, not `x.rs`.";
    assert_eq!(named_tests(page).len(), 2, "the references are found at all");
    let mut missing = Vec::new();
    for path in
        files().iter().filter(|path| path.starts_with("docs") && path.extension().is_some_and(|e| e == "md"))
    {
        for (file, name) in named_tests(&text(path)) {
            let source = fs::read_to_string(root().join(&file)).unwrap_or_default();
            if !source.contains(&format!("fn {name}(")) {
                missing.push(format!("{} names {file}::{name}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "tests that are not there:\n{}", missing.join("\n"));
}

/// What a pure crate cannot do: read the world. Unit tests at the end of a file may.
const IMPURE: [&str; 9] = [
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "SystemTime",
    "Instant::now",
    "thread_rng",
    "getrandom",
    "OsRng",
];

#[test]
fn pure_crates_are_pure() {
    const PURE: [&str; 6] = [
        "appliance/formats/src",
        "appliance/page/src",
        "appliance/protocol/src",
        "appliance/roughtime/src",
        "appliance/timestamps/src",
        "provisioning/enrolment/src",
    ];
    let pure = |path: &PathBuf| PURE.iter().any(|folder| path.starts_with(folder));
    let sources: Vec<PathBuf> = sources().into_iter().filter(pure).collect();
    assert!(sources.len() > 20);
    for path in sources {
        let text = text(&path);
        let code = text.split("#[cfg(test)]").next().unwrap();
        for word in IMPURE {
            assert!(!code.contains(word), "{} uses {word}", path.display());
        }
    }
}
