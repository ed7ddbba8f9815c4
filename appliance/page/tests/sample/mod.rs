//! Pages as a box might fill them in.

use bulla_page::{Band, Marking, Page, Row, Value};

/// Bytes that no encoding squeezes.
pub fn payload(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let byte = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(byte).collect()
}

/// A page with much on it.
pub fn emergency(length: usize) -> Page {
    let digest = |digit: &str| Value::Digest(digit.repeat(8));
    Page {
        marking: Marking {
            word: "EMERGENCY".into(),
            sentence: "Sealed without any outside authority. Keep this page with the documents of the day.".into(),
            band: Band::Solid,
        },
        title: "Emergency manifest, final".into(),
        subtitle: "Raiffeisenbank Beispiel eG, branch Köln-Süd – outage of 3 March 2026, 09:12 to 11:47 UTC".into(),
        rows: vec![
            Row::new("Box", Value::Literal(format!("bank.example/{}/3", "9f3a07c51e".repeat(4)))),
            Row::text("Attested by", "TPM quote of checkpoint 48,211 (Infineon SLB9672, firmware 15.23)"),
            Row::new("Event log, SHA-256", digest("5e1f0a97")),
            Row::new("Outage", Value::Literal("7c1d-90b2-11aa-48f0".into())),
            Row::text("Began", "2026-03-03 09:12:31 UTC ± 0.4 s (the box's own clock)"),
            Row::text("Ended", "2026-03-03 11:47:05 UTC ± 0.4 s, after 2 h 34 min 34 s"),
            Row::text("TPM clock", "812,330,114 ms, 41 resets, 0 restarts, safe"),
            Row::text("Unreachable", "timestamp.bank.example: connection refused, since 09:11:30"),
            Row::text("", "tsa.example.org: no answer within 10 s (TLS handshake), since 09:11:31"),
            Row::text("", "hub.bank.example: name not resolved within 5 s, since 09:11:32"),
            Row::text("Entries", "48,212 to 48,655 (444 entries, 431 documents)"),
            Row::new("Root over them", digest("c40d11e8")),
            Row::text("Copies", "Köln-Mitte, Bonn (2 of 2 neighbours hold all entries and what they refer to)"),
            Row::text("Approval", "not required by policy"),
        ],
        paragraphs: vec![
            "During the outage named above this box could reach no time-stamp authority. The documents in the range of \
             entries were sealed by the keys of this box alone; their order and their content are fixed by the root above, \
             their time rests on the box’s own clock until an authority has confirmed this manifest."
                .into(),
        ],
        note: "The manifest itself, signed. Read all codes in any order and join them: bulla manifest read. How they are \
               written is in docs/formats.md, “Printed codes”."
            .into(),
        footer: vec![
            Row::text("Wording", "bulla/emergency-wording/en/1"),
            Row::new("Fingerprint", Value::Literal("Q7KD2-MM4XA-90TRV-H3F8P".into())),
        ],
        payload: payload(length),
    }
}

/// A page with little on it.
pub fn drill(length: usize) -> Page {
    let mut page = emergency(length);
    page.marking = Marking {
        word: "DRILL".into(),
        sentence: "An exercise. No authority was unreachable; every entry it touched says so.".into(),
        band: Band::Striped,
    };
    page.title = "Emergency manifest, opened".into();
    page.rows.truncate(7);
    page
}
