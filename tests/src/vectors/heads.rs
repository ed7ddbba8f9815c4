//! Refused for a head: the checkpoint's note and text, inclusion of token and key-epoch entry, the quote.

use super::keys;
use super::log::Log;
use super::plan::{Plan, pcrs, swap};
use super::shapes::{Attest, TpmSignature, Use, certify_info, name_of, quote_info};
use super::{Vector, refused};
use bulla_formats::note::{SignatureLine, SignedNote};
use bulla_formats::seal_file::{Head, SealFile};

pub(super) fn all() -> Vec<Vector> {
    let mut all = texts();
    all.extend(notes());
    all.extend(lines());
    all.extend(inclusion());
    all.extend(epoch_inclusion());
    all.extend(quotes());
    all
}

/// Checkpoint texts, all of them signed by the log key.
fn texts() -> Vec<Vector> {
    let text =
        |what, change: fn(&mut String)| refused("checkpoint", what, Plan::software().checkpoint_text(change));
    vec![
        text("extension-line", |text| text.push_str("extension\n")),
        text("size-with-leading-zero", |text| swap(text, "\n4\n", "\n04\n")),
        text("size-with-plus", |text| swap(text, "\n4\n", "\n+4\n")),
        text("size-in-hex", |text| swap(text, "\n4\n", "\n0x4\n")),
        text("size-negative", |text| swap(text, "\n4\n", "\n-4\n")),
        text("size-with-space", |text| swap(text, "\n4\n", "\n4 \n")),
        text("size-above-the-limit", |text| swap(text, "\n4\n", "\n9223372036854775808\n")),
        text("root-without-padding", |text| swap(text, "=\n", "\n")),
        text("root-of-31-bytes", |text| {
            let start = text.rfind("\n4\n").expect("its size is 4") + 3;
            text.replace_range(start.., &format!("{}\n", bulla_formats::json::base64_encode(&[7; 31])));
        }),
        text("root-with-trailing-bits", |text| {
            let at = text.len() - 3;
            let next = super::packaging::next_base64(&text[at..=at]);
            text.replace_range(at..=at, next);
        }),
        text("without-root", |text| {
            let start = text.rfind("\n4\n").expect("its size is 4") + 3;
            text.truncate(start);
        }),
        text("of-another-log", |text| swap(text, "/1\n", "/2\n")),
        text("with-carriage-returns", |text| *text = text.replace('\n', "\r\n")),
        // A note is split at its last empty line: the checkpoint is the text before it, all of it.
        text("text-with-an-empty-line", |text| text.push_str("\nmore\n")),
    ]
}

/// Notes that are no signed notes.
fn notes() -> Vec<Vector> {
    let note = |what, change: fn(&mut String)| {
        refused(
            "checkpoint",
            what,
            Plan::software().file(move |_, file| change(&mut file.heads[0].checkpoint)),
        )
    };
    let foreign = |count| {
        move |_: &Log<'_>, note: &mut SignedNote| {
            for at in 0..count {
                note.lines.push(SignatureLine {
                    name: "w.example/w".into(),
                    key_id: [at; 4],
                    body: vec![4; 64],
                });
            }
        }
    };
    vec![
        note("note-empty", String::clear),
        note("note-without-final-line-feed", |note| {
            note.pop();
        }),
        note("note-without-empty-line", |note| swap(note, "\n\n", "\n")),
        note("note-with-two-final-line-feeds", |note| note.push('\n')),
        note("note-line-with-hyphen", |note| swap(note, "\u{2014}", "-")),
        note("note-line-with-two-spaces", |note| swap(note, "\u{2014} ", "\u{2014}  ")),
        note("note-empty-line-with-space", |note| swap(note, "=\n\n", "=\n \n")),
        note("note-line-of-three-bytes", |note| note.push_str("\u{2014} w.example/w AAAA\n")),
        note("note-line-lax-base64", |note| note.push_str("\u{2014} w.example/w AAAAAAB=\n")),
        note("note-line-name-with-plus", |note| note.push_str("\u{2014} w+example AAAAAAAA\n")),
        note("note-line-without-name", |note| note.push_str("\u{2014}  AAAAAAAA\n")),
        note("note-with-a-tab", |note| note.push_str("\u{2014} w\texample AAAAAAAA\n")),
        refused("checkpoint", "note-of-17-lines", Plan::software().note(foreign(16))),
        refused("checkpoint", "note-without-lines", Plan::software().note(|_, note| note.lines.clear())),
    ]
}

/// The log's line and the quote's line.
fn lines() -> Vec<Vector> {
    let note = |what, plan: Plan, change: fn(&Log<'_>, &mut SignedNote)| {
        refused("checkpoint", what, plan.note(change))
    };
    vec![
        note("log-line-missing", Plan::quoted(), |_, note| {
            note.lines.remove(0);
        }),
        note("log-line-twice", Plan::software(), |_, note| note.lines.push(note.lines[0].clone())),
        note("log-line-flipped", Plan::software(), |_, note| note.lines[0].body[0] ^= 1),
        note("log-line-too-long", Plan::software(), |_, note| note.lines[0].body.push(0)),
        note("log-line-of-another-name", Plan::software(), |_, note| note.lines[0].name.push('0')),
        note("log-line-of-another-key-id", Plan::software(), |_, note| note.lines[0].key_id[3] ^= 1),
        note("log-line-by-another-key", Plan::software(), |_, note| {
            note.lines[0].body = keys::sign_ed25519(&keys::ed25519("other"), note.text.as_bytes());
        }),
        note("log-line-by-the-sealing-key", Plan::software(), |log, note| {
            note.lines[0].body = log.sealer.sign(note.text.as_bytes());
        }),
        note("log-line-of-another-text", Plan::software(), |log, note| {
            note.lines[0] = log.sign_text(&note.text.replace("\n4\n", "\n5\n"));
        }),
        note("log-line-non-canonical-s", Plan::software(), |_, note| {
            note.lines[0].body = keys::non_canonical_s(&note.lines[0].body);
        }),
        note("quote-line-twice", Plan::quoted(), |_, note| note.lines.push(note.lines[1].clone())),
        note("quote-line-version-2", Plan::quoted(), |_, note| note.lines[1].body[0] = 2),
        note("quote-line-trailing-byte", Plan::quoted(), |_, note| note.lines[1].body.push(0)),
        note("quote-line-truncated", Plan::quoted(), |_, note| {
            note.lines[1].body.pop();
        }),
        note("quote-line-empty", Plan::quoted(), |_, note| note.lines[1].body.clear()),
        refused(
            "checkpoint",
            "second-of-two",
            two_heads(|_, head| swap(&mut head.checkpoint, "\n5\n", "\n6\n")),
        ),
    ]
}

/// Two heads, of sizes 4 and 5; the second is changed.
fn two_heads(change: fn(&Log<'_>, &mut Head)) -> Plan {
    let plan = Plan::tpm().tree(2, 5).heads(vec![(4, Some(pcrs(1))), (5, Some(pcrs(1)))]);
    plan.file(move |log, file| change(log, &mut file.heads[1]))
}

fn inclusion() -> Vec<Vector> {
    let no = |what, plan| refused("inclusion", what, plan);
    let proof = |what, change: fn(&mut Vec<Vec<u8>>)| {
        let plan = Plan::software().second_epoch().tree(4, 7);
        no(what, plan.file(move |_, file| change(&mut file.heads[0].entry_proof)))
    };
    vec![
        proof("proof-truncated", |proof| {
            proof.pop();
        }),
        proof("proof-without-its-first", |proof| {
            proof.remove(0);
        }),
        proof("proof-empty", Vec::clear),
        proof("proof-with-one-more", |proof| proof.push(vec![0; 32])),
        proof("proof-with-one-before", |proof| proof.insert(0, vec![0; 32])),
        proof("proof-reversed", |proof| proof.reverse()),
        proof("proof-flipped", |proof| proof[1][31] ^= 1),
        proof("proof-hash-of-31-bytes", |proof| {
            proof[0].pop();
        }),
        proof("proof-hash-of-33-bytes", |proof| proof[0].push(0)),
        proof("proof-hash-empty", |proof| proof[0].clear()),
        no(
            "proof-of-another-index",
            Plan::software().tree(4, 7).file(|log, file| {
                file.heads[0].entry_proof = log.proof(3, 7);
            }),
        ),
        no(
            "proof-of-another-size",
            Plan::software().tree(4, 7).file(|log, file| {
                file.heads[0].entry_proof = log.proof(4, 6);
            }),
        ),
        no(
            "of-a-token-not-in-the-log",
            Plan::software().file(|log, file| {
                // Genuinely signed, never logged: the same token an hour later.
                let entry = bulla_formats::entry::Entry::decode(&file.entry).expect("it was just made");
                let mut content = entry.content().clone();
                content.time.unix_millis += 3_600_000;
                file.entry = log.entry(&content);
            }),
        ),
        no("of-a-token-with-another-index", Plan::software().content(|content| content.index = 3)),
        no("head-is-older", Plan::software().tree(3, 6).heads(vec![(3, None)])),
        no("head-of-the-empty-tree", Plan::software().heads(vec![(0, None)])),
        no("head-of-one-entry", Plan::software().tree(1, 2).heads(vec![(1, None)])),
        no("size-claims-less", Plan::software().checkpoint_text(|text| swap(text, "\n4\n", "\n2\n"))),
        no("size-claims-more", Plan::software().checkpoint_text(|text| swap(text, "\n4\n", "\n9\n"))),
        no(
            "under-another-root",
            Plan::software().checkpoint_text(|text| {
                let start = text.rfind("\n4\n").expect("its size is 4") + 3;
                text.replace_range(start.., &format!("{}\n", bulla_formats::json::base64_encode(&[7; 32])));
            }),
        ),
        no("second-of-two", two_heads(|_, head| head.entry_proof[0][0] ^= 1)),
    ]
}

fn epoch_inclusion() -> Vec<Vector> {
    let no = |what, plan| refused("epoch-inclusion", what, plan);
    let proof = |what, change: fn(&mut Vec<Vec<u8>>)| {
        let plan = Plan::software().second_epoch().tree(4, 7);
        no(what, plan.file(move |_, file| change(&mut file.heads[0].epoch_proof)))
    };
    vec![
        proof("proof-truncated", |proof| {
            proof.pop();
        }),
        proof("proof-with-one-more", |proof| proof.push(vec![0; 32])),
        proof("proof-flipped", |proof| proof[0][0] ^= 1),
        proof("proof-hash-of-33-bytes", |proof| proof[0].push(0)),
        no(
            "proof-is-the-tokens",
            Plan::software().second_epoch().tree(4, 7).file(|_, file| {
                file.heads[0].epoch_proof = file.heads[0].entry_proof.clone();
            }),
        ),
        no(
            "of-an-entry-not-in-the-log",
            Plan::software().file(|log, file| {
                // Its own key signs the same key-epoch entry for another minute; the endorsement holds.
                let entry = bulla_formats::entry::Entry::decode(&file.epoch).expect("it was just made");
                let mut content = entry.content().clone();
                content.time.unix_millis += 60_000;
                file.epoch = log.entry(&content);
            }),
        ),
        no("second-of-two", two_heads(|log, head| head.epoch_proof = log.proof(1, 5))),
    ]
}

fn quotes() -> Vec<Vector> {
    let no = |what, plan| refused("quote", what, plan);
    let attest = |what, change: fn(&mut Attest)| {
        let only = move |attest: &mut Attest| {
            if attest.purpose == Use::Checkpoint {
                change(attest);
            }
        };
        no(what, Plan::quoted().attest(only))
    };
    let signature = |what, change: fn(&mut TpmSignature)| {
        let only = move |signature: &mut TpmSignature| {
            if signature.purpose == Use::Checkpoint {
                change(signature);
            }
        };
        no(what, Plan::quoted().tpm_signature(only))
    };
    let listed = |what, change: fn(&mut Vec<(u8, [u8; 32])>)| {
        let change = move |_: &Log<'_>, file: &mut SealFile| {
            file.heads[0].pcrs.iter_mut().for_each(change);
        };
        no(what, Plan::quoted().file(change))
    };
    vec![
        no("line-without-pcrs", Plan::quoted().file(|_, file| file.heads[0].pcrs = None)),
        no(
            "pcrs-without-line",
            Plan::quoted().note(|_, note| {
                note.lines.pop();
            }),
        ),
        no("line-of-another-key-id-with-pcrs", Plan::quoted().note(|_, note| note.lines[1].key_id[0] ^= 1)),
        no("pcrs-on-software", Plan::software().file(|_, file| file.heads[0].pcrs = Some(pcrs(1)))),
        no("line-on-software", Plan::software().heads(vec![(4, Some(pcrs(1)))])),
        no(
            "of-another-checkpoint",
            Plan::tpm().tree(2, 5).heads(vec![(4, Some(pcrs(1))), (5, Some(pcrs(1)))]).file(|_, file| {
                let first = SignedNote::parse(&file.heads[0].checkpoint).expect("it was just made");
                let mut second = SignedNote::parse(&file.heads[1].checkpoint).expect("it was just made");
                second.lines[1] = first.lines[1].clone();
                file.heads[1].checkpoint = second.encode();
            }),
        ),
        attest("over-other-data", |attest| attest.extra_data = vec![7; 32]),
        attest("over-the-text-without-claim", |attest| attest.extra_data.clear()),
        attest("by-another-key", |attest| attest.signer = keys::p256("other")),
        attest("magic", |attest| attest.magic = 0),
        attest("is-a-certification", |attest| {
            (attest.kind, attest.attested) = (0x8017, certify_info(&name_of(b"other")));
        }),
        attest("trailing-byte", |attest| attest.tail = vec![0]),
        attest("of-other-pcr-values", |attest| attest.attested = quote_info(&pcrs(2))),
        signature("signature-trailing-byte", |signature| signature.tail = vec![0]),
        signature("signature-flipped", |signature| signature.r[7] ^= 1),
        signature("signature-number-of-33-bytes", |signature| signature.s.insert(0, 0)),
        listed("pcr-value-differs", |pcrs| pcrs[2].1[0] ^= 1),
        listed("pcr-number-differs", |pcrs| pcrs[1].0 = 8),
        listed("pcr-missing", |pcrs| {
            pcrs.pop();
        }),
        listed("pcr-not-quoted", |pcrs| pcrs.push((12, [0; 32]))),
        listed("pcrs-in-another-order", |pcrs| pcrs.reverse()),
        listed("pcr-listed-twice", |pcrs| pcrs.insert(0, pcrs[0])),
        listed("pcrs-empty", Vec::clear),
        no("second-of-two", two_heads(|_, head| head.pcrs.iter_mut().for_each(|pcrs| pcrs[0].1[0] ^= 1))),
    ]
}
