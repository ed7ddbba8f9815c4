//! The claim page: what a box that waits to be enrolled shows to whoever has to read out its fingerprint.
//!
//! One page without a session, made anew for each request: the number, how far it is, what to do next, and what the page
//! cannot promise. It is whole without its script, which only spares whoever reads it the reloading.
//! Refuses to do: take anything as HTML that came from outside (the registrar's words, names of the configuration); offer
//! anything to press but the two languages.
//! Invariant: the same claim, progress and language give the same bytes.

mod words;

use crate::{CLAIM_PATHS, Language};
use maud::{DOCTYPE, Markup, html};
use words::{Words, of};

/// Seconds after which a browser without scripts loads the page again.
pub const RELOAD_SECONDS: u32 = 5;

/// What does not change while the box asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The first two groups of the fingerprint.
    pub code: String,
    /// Five groups of four, with dashes between them.
    pub fingerprint: String,
    /// SHA-256 of the TPM's endorsement key in hex, as the inventory lists it.
    pub chip: String,
    /// Hash of the request in hex.
    pub request: String,
    /// The fleet that the box asks to join.
    pub fleet: String,
    /// Address of the registrar that it asks.
    pub registrar: String,
    /// SHA-256 of that registrar's key in hex.
    pub pin: String,
    /// Where the console will be: `https://` addresses. Empty when there will be none.
    pub console: Vec<String>,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The registrar is asked, or about to be.
    Asking,
    /// Something that can pass keeps the box from going on; in words of the box or the registrar.
    Obstacle(String),
    /// The registrar believes the TPM; a person has to approve.
    Proven,
    /// No.
    Refused {
        /// The registrar's sentence.
        sentence: String,
        /// The code that stands for it.
        code: String,
    },
    /// The box is a member, and its log has this name.
    Enrolled {
        /// Origin of the log.
        origin: String,
    },
}

impl Progress {
    /// Whether nothing follows.
    pub fn is_last(&self) -> bool {
        matches!(self, Progress::Refused { .. } | Progress::Enrolled { .. })
    }

    fn name(&self) -> &'static str {
        match self {
            Progress::Asking => "asking",
            Progress::Obstacle(_) => "obstacle",
            Progress::Proven => "proven",
            Progress::Refused { .. } => "refused",
            Progress::Enrolled { .. } => "enrolled",
        }
    }
}

/// The page as HTML.
pub fn page(claim: &Claim, progress: &Progress, language: Language) -> String {
    let words = of(language);
    let tongues = [(Language::German, "Deutsch"), (Language::English, "English")];
    let whole = html! {
        (DOCTYPE)
        html lang=(language.tag()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { (words.tab) " " (claim.code) " \u{2013} Bulla" }
                link rel="icon" href="/console/mark.svg" type="image/svg+xml";
                link rel="stylesheet" href="/console/console.css";
                @if !progress.is_last() {
                    noscript { meta http-equiv="refresh" content=(RELOAD_SECONDS); }
                }
                script type="module" src="/console/claim.js" {}
            }
            body {
                header class="top" {
                    a class="skip" href="#content" { (words.skip) }
                    div class="inner" {
                        img class="mark" src="/console/mark.svg" alt="" width="32" height="32";
                        p class="name" { "Bulla " span { (words.product) } }
                        div class="languages" role="group" aria-label=(words.language) {
                            @for (tongue, name) in tongues {
                                a lang=(tongue.tag()) href=(path(tongue)) aria-current=[(tongue == language).then_some("page")] { (name) }
                            }
                        }
                    }
                }
                main id="content" tabindex="-1" data-progress=(progress.name()) data-last=[progress.is_last().then_some("yes")] {
                    (content(claim, progress, words))
                }
                div id="say" class="hidden-words" role="status" aria-live="polite" {}
            }
        }
    };
    whole.into_string()
}

/// Where the page stands in this language.
fn path(language: Language) -> &'static str {
    match language {
        Language::German => CLAIM_PATHS[1],
        Language::English => CLAIM_PATHS[2],
    }
}

fn content(claim: &Claim, progress: &Progress, words: &Words) -> Markup {
    let title = match progress {
        Progress::Enrolled { .. } => words.title_enrolled,
        Progress::Refused { .. } => words.title_refused,
        Progress::Asking | Progress::Obstacle(_) | Progress::Proven => words.title,
    };
    html! {
        h1 { (title) }
        p class="lead" { (words.fleet) " " strong { bdi { (claim.fleet) } } ". " (words.registrar) " " bdi class="digest" { (claim.registrar) } "." }
        p class="note" id="away" hidden { (words.away) }
        (state(claim, progress, words))
        @if !matches!(progress, Progress::Enrolled { .. }) {
            div class="columns claim" {
                (number(claim, progress, words))
                @if !progress.is_last() { div { (next(words)) (beware(words)) } }
            }
        }
        details open[matches!(progress, Progress::Obstacle(_))] {
            summary { (words.specialists) }
            dl class="pairs" {
                dt { (words.request) } dd { code class="digest" { (claim.request) } }
                dt { (words.pin) } dd { code class="digest" { (claim.pin) } }
                dt { (words.chip) } dd { code class="digest" { (claim.chip) } }
            }
        }
    }
}

/// What is the case, as on the first page of the console.
fn state(claim: &Claim, progress: &Progress, words: &Words) -> Markup {
    let (kind, drawing, [title, told]) = match progress {
        Progress::Asking => ("wait", WAIT, words.asking),
        Progress::Obstacle(_) => ("wait", WARN, words.obstacle),
        Progress::Proven => ("wait", WAIT, words.proven),
        Progress::Refused { .. } => ("bad", BAD, words.refused),
        Progress::Enrolled { .. } => ("good", OK, words.enrolled),
    };
    html! {
        div class={ "state " (kind) } id="state" {
            svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false" { path d=(drawing) {} }
            div {
                p class="state-title" { (title) }
                @match progress {
                    // Words from elsewhere keep their own direction, whatever stands in them.
                    Progress::Obstacle(what) => { p { (words.told) " " bdi lang="en" id="told" { (what) } } }
                    Progress::Refused { sentence, code } => {
                        p { (words.told) " " bdi lang="en" id="told" { (sentence) } " (" bdi { (code) } ")" }
                    }
                    _ => {}
                }
                p { (told) }
                @if let Progress::Enrolled { origin } = progress {
                    @if !claim.console.is_empty() {
                        p { (words.console) }
                        ul class="plain-list" { @for one in &claim.console { li { a href=(one) { (one) } } } }
                        p { (words.authority) }
                    }
                    p { (words.log) " " code class="digest" { (origin) } }
                }
            }
        }
    }
}

fn number(claim: &Claim, progress: &Progress, words: &Words) -> Markup {
    let groups: Vec<&str> = claim.fingerprint.split('-').collect();
    html! {
        section class="card" {
            h2 { @if progress.is_last() { (words.was) } @else { (words.read) } }
            @if !progress.is_last() { p { (words.how) } }
            p class="claim-name" { (words.code) }
            p class="claim-code" id="claim" { (claim.code) }
            p class="claim-name" { (words.fingerprint) }
            p class="claim-code" id="fingerprint" {
                @for (at, group) in groups.iter().enumerate() { @if at > 0 { "-" wbr; } span { (group) } }
            }
            @if !progress.is_last() {
                img class="code claim-qr" src=(CLAIM_PATHS[3]) width="240" height="240" alt=(words.qr);
                p class="soft" { (words.qr_told) }
            }
        }
    }
}

fn next(words: &Words) -> Markup {
    html! {
        section class="card" {
            h2 { (words.next) }
            ol class="plain-list" { @for one in words.steps { li { (one) } } }
        }
    }
}

fn beware(words: &Words) -> Markup {
    html! {
        section class="card" {
            h2 { (words.beware) }
            p { (words.beware_why) }
            ul class="plain-list" { @for one in words.beware_do { li { (one) } } }
        }
    }
}

/// Drawn as those of `dom.js`.
const OK: &str = "M5 12.5l4.5 4.5L19 7.5";
const WAIT: &str = "M12 6.5V12l3.5 2.5M12 3a9 9 0 100 18 9 9 0 000-18z";
const WARN: &str = "M12 4l9 16H3zM12 10v4.5M12 17.2v.3";
const BAD: &str = "M7 7l10 10M17 7L7 17";

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "</p><script>alert(1)</script><img src=x onerror=\"alert(2)\">&amp;'{{x}}\u{202e}";

    fn claim() -> Claim {
        let one = |text: &str| format!("{text}{HOSTILE}");
        Claim {
            code: "7KQ2-9M4D".into(),
            fingerprint: "7KQ2-9M4D-V0XR-31TE-8HBA".into(),
            chip: one("9e"),
            request: one("3f"),
            fleet: one("bank.example"),
            registrar: one("https://registrar.bank.example"),
            pin: one("aa"),
            console: vec![one("https://box.bank.example:8443/")],
        }
    }

    fn all() -> Vec<Progress> {
        vec![
            Progress::Asking,
            Progress::Obstacle(HOSTILE.into()),
            Progress::Proven,
            Progress::Refused { sentence: HOSTILE.into(), code: HOSTILE.into() },
            Progress::Enrolled { origin: HOSTILE.into() },
        ]
    }

    /// What comes from outside is text, wherever it stands, and the policy of the console fits the page.
    #[test]
    fn nothing_from_outside_is_html() {
        for language in [Language::English, Language::German] {
            for progress in all() {
                let text = page(&claim(), &progress, language);
                assert_eq!(text.matches("<script").count(), 1, "{text}");
                assert_eq!(
                    text.matches("<img").count(),
                    if text.contains("claim-qr") { 2 } else { 1 },
                    "{text}"
                );
                assert!(
                    !text.contains("onerror=\"") && !text.contains(" style=") && !text.contains("<form"),
                    "{text}"
                );
                assert!(
                    text.contains("&lt;script&gt;alert(1)")
                        && text.contains(&format!("<html lang=\"{}\"", language.tag()))
                );
                assert_eq!(text.contains("http-equiv=\"refresh\""), !progress.is_last());
                assert_eq!(text.contains("data-last"), progress.is_last());
            }
        }
    }

    #[test]
    fn the_number_is_there_until_the_box_is_a_member() {
        for progress in all() {
            let text = page(&claim(), &progress, Language::English);
            let shown = ["7KQ2", "9M4D", "V0XR", "31TE", "8HBA"]
                .iter()
                .all(|one| text.contains(&format!("<span>{one}</span>")));
            assert_eq!(shown, !matches!(progress, Progress::Enrolled { .. }), "{text}");
            assert_eq!(
                text.contains("href=\"https://box.bank.example:8443/"),
                matches!(progress, Progress::Enrolled { .. })
            );
        }
    }

    #[test]
    fn both_languages_say_everything_in_words_of_their_own() {
        for progress in all() {
            let [english, german] =
                [Language::English, Language::German].map(|one| page(&claim(), &progress, one));
            let heading = |text: &str| {
                text.split("<h1>").nth(1).and_then(|rest| rest.split("</h1>").next()).map(str::to_owned)
            };
            assert_ne!(heading(&english), heading(&german));
            assert!(!german.contains("The box") && !english.contains("Die Box"));
        }
    }
}
