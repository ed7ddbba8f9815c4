//! The words of the claim page, in English and German.
//!
//! Refuses to do: leave a word out in one language; the compiler asks for both.

use crate::Language;

/// Everything that the page says by itself.
pub(super) struct Words {
    pub tab: &'static str,
    pub product: &'static str,
    pub skip: &'static str,
    pub language: &'static str,
    pub title: &'static str,
    pub title_enrolled: &'static str,
    pub title_refused: &'static str,
    pub fleet: &'static str,
    pub registrar: &'static str,
    pub away: &'static str,
    pub asking: [&'static str; 2],
    pub obstacle: [&'static str; 2],
    pub proven: [&'static str; 2],
    pub refused: [&'static str; 2],
    pub enrolled: [&'static str; 2],
    pub told: &'static str,
    pub console: &'static str,
    pub authority: &'static str,
    pub log: &'static str,
    pub read: &'static str,
    pub was: &'static str,
    pub how: &'static str,
    pub code: &'static str,
    pub fingerprint: &'static str,
    pub qr: &'static str,
    pub qr_told: &'static str,
    pub next: &'static str,
    pub steps: [&'static str; 4],
    pub beware: &'static str,
    pub beware_why: &'static str,
    pub beware_do: [&'static str; 3],
    pub specialists: &'static str,
    pub request: &'static str,
    pub pin: &'static str,
    pub chip: &'static str,
}

pub(super) fn of(language: Language) -> &'static Words {
    match language {
        Language::English => &ENGLISH,
        Language::German => &GERMAN,
    }
}

static ENGLISH: Words = Words {
    tab: "Claim",
    product: "Document seals",
    skip: "Go to the content",
    language: "Language",
    title: "This box asks to join its fleet",
    title_enrolled: "This box is a member of its fleet",
    title_refused: "This box was refused",
    fleet: "The fleet is",
    registrar: "The box asks the registrar",
    away: "The box does not answer here any more. When it has just been admitted, this page has ended for good, and its console \
           comes in a minute. Otherwise look whether the box runs and is on this network.",
    asking: ["The box asks the registrar.", "It proves its security chip. That takes a few seconds."],
    obstacle: [
        "The box cannot go on yet, and tries again by itself.",
        "If it stays so, read these words to the people who run the fleet, with the number of the security chip at the \
         bottom of this page.",
    ],
    proven: [
        "Waiting for a person to approve.",
        "The registrar has checked the security chip. Now the people who run the fleet must hear the fingerprint from \
         you. This page changes by itself.",
    ],
    refused: [
        "The fleet has refused this box.",
        "The box asks no more. When it is started again, it asks with another number.",
    ],
    enrolled: ["The box has been admitted.", "You have nothing more to do here, and this page ends."],
    told: "It was told:",
    console: "Once the box runs, its console is at:",
    authority: "Your browser needs the box's CA for it; whoever runs the box has the file. Do not click a warning away.",
    log: "Its log is called",
    read: "Read this out",
    was: "What it asked with",
    how: "By telephone, to the people who run the fleet: first the claim code, so that they find this box; then the whole \
          fingerprint, all five groups. The letters I, L, O and U do not occur; 0 and 1 are digits.",
    code: "Claim code",
    fingerprint: "Fingerprint",
    qr: "QR code with the hash of this box's request, from which claim code and fingerprint follow",
    qr_told: "The code holds the same number, for programs.",
    next: "What to do next",
    steps: [
        "Call the people who run the fleet, on a number that you know.",
        "Give them the claim code; then read out the whole fingerprint. They type it in.",
        "They approve it, as a rule two of them. That can take a while; the box waits.",
        "When this page says that the box has been admitted, you are done.",
    ],
    beware: "Before you read it out",
    beware_why: "This page comes over the network without protection: a box that belongs to nobody yet has no certificate. \
                 Whoever controls the network could show you another box's number here. There is nothing secret on it.",
    beware_do: [
        "If the box has a screen, the screen counts: compare all five groups with it.",
        "If it has none, connect this computer to the box by cable, with nothing else on it, and open the page again. The \
         number must be the same.",
        "Never read out a number that somebody sent you.",
    ],
    specialists: "For specialists",
    request: "Hash of the request",
    pin: "The registrar's pin",
    chip: "Security chip (SHA-256 of the endorsement key), as in the inventory",
};

static GERMAN: Words = Words {
    tab: "Aufnahme",
    product: "Dokumentensiegel",
    skip: "Zum Inhalt",
    language: "Sprache",
    title: "Diese Box bittet um Aufnahme in ihre Flotte",
    title_enrolled: "Diese Box ist Mitglied ihrer Flotte",
    title_refused: "Diese Box wurde abgelehnt",
    fleet: "Die Flotte heisst",
    registrar: "Gefragt wird die Aufnahmestelle",
    away: "Die Box antwortet hier nicht mehr. Wurde sie eben aufgenommen, ist diese Seite für immer zu Ende, und in einer \
           Minute kommt ihre Konsole. Sonst sehen Sie nach, ob die Box läuft und in diesem Netz ist.",
    asking: [
        "Die Box fragt die Aufnahmestelle.",
        "Sie weist ihren Sicherheitschip nach. Das dauert einige Sekunden.",
    ],
    obstacle: [
        "Die Box kommt noch nicht weiter und versucht es von selbst wieder.",
        "Bleibt es so, lesen Sie diese Worte den Leuten vor, die die Flotte betreiben, dazu die Nummer des \
         Sicherheitschips unten auf dieser Seite.",
    ],
    proven: [
        "Jemand muss zustimmen.",
        "Die Aufnahmestelle hat den Sicherheitschip geprüft. Jetzt müssen die Leute, die die Flotte betreiben, den \
         Fingerabdruck von Ihnen hören. Diese Seite ändert sich von selbst.",
    ],
    refused: [
        "Die Flotte hat diese Box abgelehnt.",
        "Die Box fragt nicht mehr. Wird sie neu gestartet, fragt sie mit einer anderen Nummer.",
    ],
    enrolled: ["Die Box ist aufgenommen.", "Hier ist nichts mehr zu tun, und diese Seite endet."],
    told: "Man hat ihr gesagt:",
    console: "Sobald die Box läuft, ist ihre Konsole hier:",
    authority: "Ihr Browser braucht dafür die CA der Box; wer die Box betreibt, hat die Datei. Klicken Sie keine Warnung weg.",
    log: "Ihr Protokoll heisst",
    read: "Das lesen Sie vor",
    was: "Damit hat sie gefragt",
    how: "Am Telefon, den Leuten, die die Flotte betreiben: zuerst den Aufnahmecode, damit sie diese Box finden; dann den \
          ganzen Fingerabdruck, alle fünf Gruppen. Die Buchstaben I, L, O und U kommen nicht vor; 0 und 1 sind Ziffern.",
    code: "Aufnahmecode",
    fingerprint: "Fingerabdruck",
    qr: "QR-Code mit dem Hash der Anfrage dieser Box, aus dem Aufnahmecode und Fingerabdruck folgen",
    qr_told: "Der Code enthält dieselbe Nummer, für Programme.",
    next: "Was jetzt zu tun ist",
    steps: [
        "Rufen Sie die Leute an, die die Flotte betreiben, unter einer Nummer, die Sie kennen.",
        "Nennen Sie den Aufnahmecode; lesen Sie dann den ganzen Fingerabdruck vor. Er wird dort eingetippt.",
        "Dort wird zugestimmt, in der Regel zu zweit. Das kann dauern; die Box wartet.",
        "Sagt diese Seite, dass die Box aufgenommen ist, sind Sie fertig.",
    ],
    beware: "Bevor Sie vorlesen",
    beware_why: "Diese Seite kommt ungeschützt über das Netz: Eine Box, die noch niemandem gehört, hat kein Zertifikat. Wer das \
                 Netz beherrscht, könnte Ihnen hier die Nummer einer anderen Box zeigen. Geheimes steht nicht darauf.",
    beware_do: [
        "Hat die Box einen Bildschirm, gilt der Bildschirm: Vergleichen Sie alle fünf Gruppen.",
        "Hat sie keinen, verbinden Sie diesen Rechner mit einem Kabel mit der Box, sonst nichts, und öffnen Sie die Seite \
         noch einmal. Die Nummer muss dieselbe sein.",
        "Lesen Sie nie eine Nummer vor, die Ihnen jemand geschickt hat.",
    ],
    specialists: "Für Fachleute",
    request: "Hash der Anfrage",
    pin: "Pin der Aufnahmestelle",
    chip: "Sicherheitschip (SHA-256 des Endorsement Key), wie im Inventar",
};
