//! The console: the pages of a box for people, as the files that a browser fetches.
//!
//! The sources stand in `pages/` and are served as they are: what is read in the repository is what runs. There is no build
//! step and no other origin; under [`CONTENT_SECURITY_POLICY`] a browser runs these files and nothing inside a page.
//! [`claim`] is the one page that is made for what it shows: a box that is not enrolled has no API to ask yet.
//! Refuses to do: know anything of the box. The pages ask the HTTP API for what they show.
//! Invariant: the same bytes in every build of one version.
#![forbid(unsafe_code)]

pub mod claim;

use sha2::{Digest as _, Sha256};
use std::sync::LazyLock;

/// What a page may do: run scripts, look as styles and show pictures of its own origin, ask its own origin.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Where the claim page is: in the browser's language, in German, in English; and its QR code.
pub const CLAIM_PATHS: [&str; 4] = ["/", "/de", "/en", "/code.svg"];

const FRAME: &str = include_str!("../pages/console.html");
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! files {
    ($($name:literal: $kind:expr),* $(,)?) => {
        [$(($name, $kind, include_str!(concat!("../pages/", $name)))),*]
    };
}

static FILES: LazyLock<Vec<(&'static str, File)>> = LazyLock::new(|| {
    let all = files! {
        "console.css": "text/css; charset=utf-8",
        "mark.svg": "image/svg+xml",
        "anchors.js": SCRIPT,
        "api.js": SCRIPT,
        "box.js": SCRIPT,
        "certificate.js": SCRIPT,
        "charts.js": SCRIPT,
        "claim.js": SCRIPT,
        "de.js": SCRIPT,
        "dom.js": SCRIPT,
        "en.js": SCRIPT,
        "facts.js": SCRIPT,
        "live.js": SCRIPT,
        "login.js": SCRIPT,
        "main.js": SCRIPT,
        "mode.js": SCRIPT,
        "peers.js": SCRIPT,
        "seal.js": SCRIPT,
        "search.js": SCRIPT,
        "words.js": SCRIPT,
    };
    all.into_iter().map(|(name, media_type, text)| (name, File::new(media_type, text.to_owned()))).collect()
});

/// One file.
#[derive(Debug)]
pub struct File {
    /// Its `Content-Type`.
    pub media_type: &'static str,
    /// Its bytes.
    pub text: String,
    /// Its entity tag: its SHA-256, quoted.
    pub tag: String,
}

impl File {
    fn new(media_type: &'static str, text: String) -> Self {
        let tag = format!("\"sha256-{}\"", hex::encode(Sha256::digest(&text)));
        File { media_type, text, tag }
    }
}

/// A language that the console speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// German.
    German,
}

impl Language {
    /// The one that comes first in an `Accept-Language` value (RFC 9110 section 12.5.4); English when none does.
    pub fn preferred(accepted: &str) -> Self {
        let mut best = (Language::English, 0.0);
        for range in accepted.split(',') {
            let (tag, parameters) = range.split_once(';').unwrap_or((range, ""));
            let weight =
                parameters.trim().strip_prefix("q=").map_or(Some(1.0), |text| text.trim().parse().ok());
            let primary = tag.trim().split('-').next().unwrap_or_default().to_ascii_lowercase();
            let language = match primary.as_str() {
                "de" => Language::German,
                "en" => Language::English,
                _ => continue,
            };
            if let Some(weight) = weight.filter(|weight: &f32| *weight > best.1) {
                best = (language, weight);
            }
        }
        best.0
    }

    /// Its tag (BCP 47).
    pub fn tag(self) -> &'static str {
        match self {
            Language::English => "en",
            Language::German => "de",
        }
    }
}

/// The one page, which begins in this language.
pub fn page(language: Language) -> &'static File {
    static PAGES: LazyLock<[File; 2]> = LazyLock::new(|| {
        [Language::English, Language::German].map(|language| {
            let text = FRAME
                .replace("{{language}}", language.tag())
                .replace("{{version}}", env!("CARGO_PKG_VERSION"));
            File::new("text/html; charset=utf-8", text)
        })
    });
    match language {
        Language::English => &PAGES[0],
        Language::German => &PAGES[1],
    }
}

/// The file of this name.
pub fn file(name: &str) -> Option<&'static File> {
    FILES.iter().find(|(known, _)| *known == name).map(|(_, file)| file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_first_language_wins() {
        for (accepted, wanted) in [
            ("", Language::English),
            ("de", Language::German),
            ("de-CH,de;q=0.9,en;q=0.8", Language::German),
            ("en-GB,en;q=0.9,de;q=0.8", Language::English),
            ("fr-CH, fr;q=0.9, de;q=0.5, en;q=0.4", Language::German),
            ("de;q=0, en", Language::English),
            ("DE;q=1.0", Language::German),
            ("de;q=x,\u{fc}", Language::English),
        ] {
            assert_eq!(Language::preferred(accepted), wanted, "{accepted}");
        }
    }

    /// Nothing from anywhere else, nothing inside the page that its policy would stop, nothing left out.
    #[test]
    fn files_are_whole_and_ask_nobody_else() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("pages");
        let mut there: BTreeSet<String> = BTreeSet::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            for word in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "http:",
                "new Function",
            ] {
                let namespace = text.replace("http://www.w3.org/2000/svg", "");
                assert!(!namespace.contains(word), "{word} in {name}");
            }
            assert!(
                !text.replace("https://github.com", "").contains("https://") && !text.contains(" style=\""),
                "{name}"
            );
            there.insert(name);
        }
        let named: BTreeSet<String> =
            FILES.iter().map(|(name, _)| (*name).to_owned()).chain(["console.html".to_owned()]).collect();
        assert_eq!(there, named);
        for language in [Language::English, Language::German] {
            let page = page(language);
            assert!(
                page.text.contains(&format!("<html lang=\"{}\">", language.tag()))
                    && !page.text.contains("{{")
            );
            assert!(
                page.tag.starts_with("\"sha256-")
                    && !page.text.contains("<script>")
                    && !page.text.contains("<style")
            );
        }
    }

    /// A word that only one language has would show as its key in the other.
    #[test]
    fn both_languages_have_the_same_words() {
        let keys = |name: &str| -> BTreeSet<String> {
            let lines = file(name).unwrap().text.lines();
            let keys = lines
                .filter_map(|line| line.strip_prefix("  ")?.split_once(": ").map(|(key, _)| key.to_owned()));
            keys.filter(|key| key.chars().all(|c| c.is_alphanumeric())).collect()
        };
        let (english, german) = (keys("en.js"), keys("de.js"));
        assert!(english.len() > 150);
        assert_eq!(english.symmetric_difference(&german).collect::<Vec<_>>(), Vec::<&String>::new());
    }
}
