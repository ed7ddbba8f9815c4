//! The browser verifier: one HTML file that verifies a document, its `.seal` and a trust file, and asks nobody.
//!
//! The sources stand in `page/`; they are put together here, at compile time but for two hashes: the page's own policy
//! names its scripts and its style by SHA-256, so that a browser runs these bytes and no others.
//! It is written from `docs/formats.md` and shares no line with `bulla-formats`; `tests/tests/verifier_web.rs` holds the
//! two against each other.
//!
//! Refuses to do: take anything from the network, or hold anything that changes from one run to the next.
//! Invariant: [`page`] is the same bytes in every build of one version, so that its SHA-256 can be published.
#![forbid(unsafe_code)]

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};
use std::sync::LazyLock;

/// The judgement: what runs without a page, too.
const VERIFIER: &str = concat!(
    "\nconst BullaVerifier = (() => {\n\"use strict\";\n",
    include_str!("../page/01-bytes.js"),
    include_str!("../page/02-hash.js"),
    include_str!("../page/03-signatures.js"),
    include_str!("../page/04-der.js"),
    include_str!("../page/05-json.js"),
    include_str!("../page/06-structures.js"),
    include_str!("../page/07-log.js"),
    include_str!("../page/08-tpm.js"),
    include_str!("../page/09-certificates.js"),
    include_str!("../page/10-stamps.js"),
    include_str!("../page/10b-crls.js"),
    include_str!("../page/11-files.js"),
    include_str!("../page/11b-cards.js"),
    include_str!("../page/12-verify.js"),
    include_str!("../page/13-report.js"),
    "return Object.freeze({ openTrust, verifySeal, digestOf, reportText, edVerify, verifyStamp, Certificate, NotJudged, ",
    "Refused, fromBase64, fromHex });\n})();\n"
);
/// What the page shows, and in which words.
const SHOWN: &str = concat!(
    "\n(() => {\n\"use strict\";\n",
    include_str!("../page/20-words.js"),
    include_str!("../page/21-show.js"),
    include_str!("../page/22-files.js"),
    "})();\n"
);
const STYLE: &str = concat!("\n", include_str!("../page/style.css"));
const FRAME: &str = include_str!("../page/verify.html");

/// What the page may do: run its own two scripts, look as its own style says, and nothing else.
pub fn content_security_policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let source = |part: &str| format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(part)));
        let (verifier, shown, style) = (source(VERIFIER), source(SHOWN), source(STYLE));
        format!(
            "default-src 'none'; script-src {verifier} {shown}; style-src {style}; img-src data:; base-uri 'none'; \
             form-action 'none'"
        )
    });
    &POLICY
}

/// The page, whole.
pub fn page() -> &'static str {
    static PAGE: LazyLock<String> = LazyLock::new(|| {
        FRAME
            .replace("{{policy}}", content_security_policy())
            .replace("{{version}}", env!("CARGO_PKG_VERSION"))
            .replace("{{style}}", STYLE)
            .replace("{{verifier}}", VERIFIER)
            .replace("{{shown}}", SHOWN)
    });
    &PAGE
}

/// Its SHA-256 in hex: what is published, and what an auditor compares.
pub fn sha256() -> String {
    Sha256::digest(page()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Between `<tag ...>` and `</tag>`, each time.
    fn inside<'a>(page: &'a str, tag: &str) -> Vec<&'a str> {
        let end = format!("</{tag}>");
        let begin = format!("<{tag}");
        let starts = page.match_indices(&begin).map(|(at, _)| at);
        starts
            .map(|at| {
                let from = at + page[at..].find('>').unwrap() + 1;
                &page[from..from + page[from..].find(&end).unwrap()]
            })
            .collect()
    }

    #[test]
    fn the_policy_names_exactly_what_the_page_runs() {
        let hash = |part: &str| format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(part)));
        let (scripts, styles) = (inside(page(), "script"), inside(page(), "style"));
        assert_eq!((scripts.len(), styles.len()), (2, 1));
        for part in scripts.into_iter().chain(styles) {
            assert!(part.len() > 1000 && content_security_policy().contains(&hash(part)));
        }
        assert_eq!(content_security_policy().matches("sha256-").count(), 3);
        assert!(page().contains(&format!("content=\"{}\"", content_security_policy())));
        assert!(content_security_policy().starts_with("default-src 'none';"));
    }

    /// A page that asks for nothing needs no word of it: no address but those of its own name spaces and clauses.
    #[test]
    fn nothing_is_outside_the_page() {
        for word in [
            "http:",
            "https:",
            "src=",
            "@import",
            "url(",
            "fetch(",
            "XMLHttpRequest",
            "WebSocket",
            "eval(",
            "{{",
        ] {
            assert!(!page().contains(word), "{word}");
        }
        for event in ["onclick=", "onload=", "style=\""] {
            assert!(!page().contains(event), "{event} is against the page's own policy");
        }
        assert!(page().is_char_boundary(page().len()) && !page().contains('\r'));
    }

    /// Each source is in the page whole and once: what is read in the repository is what runs.
    #[test]
    fn every_source_is_in_the_page() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("page");
        let mut sources = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|kind| kind == "html") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(page().matches(text.as_str()).count(), 1, "{}", path.display());
            assert!(!text.contains("</script") && !text.contains("</style"), "{}", path.display());
            sources += 1;
        }
        assert!(sources > 10, "only {sources} sources");
    }
}
