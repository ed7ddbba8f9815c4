//! Actions in words, for whoever is asked to approve them.
//!
//! Refuses to do: leave out anything that is signed and matters; names are printed as they are, which the formats keep
//! free of control characters.

use crate::deed::{Cause, Deed, Row};
use crate::roster::Roster;
use crate::terms::{Anchors, Hub, Policy};
use bulla_approvals::action::Action;
use bulla_approvals::at_box::BoxAction;
use bulla_formats::der::Octets32;
use bulla_formats::hash::sha256;
use bulla_formats::report::utc;
use bulla_formats::retirement::Extent;
use std::fmt::Write;

pub(crate) fn describe(roster: &Roster, action: &Action, deed: &Deed) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut line = |words: std::fmt::Arguments<'_>| {
        let _infallible = text.write_fmt(words);
        text.push('\n');
    };
    line(format_args!("{} in the fleet {}", action.kind.name().to_uppercase(), action.fleet));
    line(format_args!("  because   {}", action.reason));
    if action.overriding {
        line(format_args!(
            "  OVERRIDE  the custodians decide in place of the operators, and that stays on record"
        ));
    }
    line(format_args!("  proposed  {}, open until {}", utc(action.proposed_at), utc(action.not_after)));
    line(format_args!("  acts on   version {} of the roster", action.roster.number));
    line(format_args!("  action    sha256:{}", action.hash()));
    let named = |ek: &Octets32| match roster.inventory().get(ek) {
        Some(listed) => {
            let Row { serial, model, branch, .. } = &listed.row;
            format!("{serial} ({model}, {branch}), {}, ek:sha256:{}", listed.state.name(), hex::encode(**ek))
        }
        None => format!("ek:sha256:{}", hex::encode(**ek)),
    };
    match deed {
        Deed::Import(rows) => {
            line(format_args!("  {} box(es) are expected from now on:", rows.len()));
            for Row { serial, model, branch, ek_spki_sha256 } in rows {
                line(format_args!(
                    "    {serial}  {model}  {branch}  ek:sha256:{}",
                    hex::encode(**ek_spki_sha256)
                ));
            }
        }
        Deed::Enrol(enrolments) | Deed::Stage(enrolments) => {
            if matches!(deed, Deed::Stage(_)) {
                line(format_args!(
                    "  STAGED    each may begin this log by itself, when the one in use is lost"
                ));
            }
            for content in enrolments {
                line(format_args!("  box       {}", named(&content.ek_spki_sha256)));
                line(format_args!("    log       {}", content.origin));
                line(format_args!("    log key   ed25519:{}", hex::encode(*content.log_key)));
            }
        }
        Deed::Quarantine(one) | Deed::Release(one) | Deed::Pardon(one) => {
            line(format_args!("  box       {}", named(&one.ek_spki_sha256)));
        }
        Deed::Revoke(revocation) => {
            line(format_args!("  box       {}", named(&revocation.ek_spki_sha256)));
            let meaning = match revocation.cause {
                Cause::Compromise => "what is not under the last good tree is worth nothing by itself",
                Cause::Retirement | Cause::Replaced => "everything it sealed stays good",
            };
            line(format_args!("  cause     {}: {meaning}", revocation.cause.name()));
            line(format_args!("  from      {}", utc(revocation.invalid_from)));
            for log in &revocation.logs {
                line(format_args!("  log       {}", log.origin));
                match (log.size, revocation.cause) {
                    (0, Cause::Compromise) => line(format_args!("    NOTHING OF IT IS GOOD")),
                    (0, _) => line(format_args!("    last tree not known")),
                    (size, _) => {
                        line(format_args!(
                            "    last good tree: {size} entries, root {}",
                            hex::encode(*log.root)
                        ));
                    }
                }
            }
            if let Some(successor) = &revocation.successor {
                line(format_args!("  successor {}", named(successor)));
            }
        }
        Deed::AtBox(what) => {
            if let Some(target) = &action.target {
                let whose = roster.inventory().of_log(&target.origin);
                line(format_args!(
                    "  box       {}",
                    whose.map_or("?".to_owned(), |listed| named(&listed.row.ek_spki_sha256))
                ));
                line(format_args!("  log       {}", target.origin));
                line(format_args!(
                    "    it has    {} entries, root {}",
                    target.size,
                    hex::encode(*target.root)
                ));
                line(format_args!("    nonce     {}", hex::encode(*target.nonce)));
            }
            let BoxAction::Retire(retire) = what;
            line(format_args!(
                "  RETIRE    the log ends for ever, keys and openings are destroyed, the TPM is cleared"
            ));
            line(format_args!(
                "  entries   {}",
                match retire.extent {
                    Extent::KeepLog => "stay on the box's disk",
                    Extent::Everything => "ARE DESTROYED, TOO",
                }
            ));
            if retire.without_anchors {
                line(format_args!("  even if   NO AUTHORITY HAS ANCHORED the last seals"));
            }
            if retire.without_copies {
                line(format_args!("  even if   NO NEIGHBOUR HOLDS the last seals"));
            }
        }
        Deed::Replace(replacement) => {
            line(format_args!("  box       {}", named(&replacement.ek_spki_sha256)));
            line(format_args!("  successor {}", named(&replacement.successor)));
            line(format_args!(
                "  lost      {}; everything it sealed stays good",
                utc(replacement.invalid_from)
            ));
            // Who vouches is judged with the roster as it is; what does not hold is refused before anybody is asked.
            for (log, held) in
                replacement.logs.iter().zip(roster.inventory().held(replacement).unwrap_or_default())
            {
                line(format_args!("  log       {}", log.origin));
                let Some(held) = held else {
                    line(format_args!("    nobody holds anything of it"));
                    continue;
                };
                let root = hex::encode(*held.tree.root);
                line(format_args!("    last head {} entries, root {root}", held.tree.size));
                for holder in &held.holders {
                    line(format_args!("    cosigned  {holder}"));
                }
            }
        }
        Deed::Cards(cards) => {
            for card in cards {
                let (name, content) = (card.origin().as_str(), card.content());
                let whose = roster.inventory().of_log(name);
                line(format_args!(
                    "  box       {}",
                    whose.map_or("?".to_owned(), |listed| named(&listed.row.ek_spki_sha256))
                ));
                line(format_args!("    log       {name}"));
                line(format_args!("    card      {}, number {}", card.fingerprint(), content.sequence));
                for (what, key) in [
                    ("witness", &content.witness_key),
                    ("mirror", &content.mirror_key),
                    ("wire", &content.transport_key),
                ] {
                    line(format_args!("    {what:<9} ed25519:{}", hex::encode(**key)));
                }
                for address in &content.addresses {
                    line(format_args!("    address   {address}"));
                }
            }
        }
        Deed::Hubs(hubs) => hubs_in_words(&roster.terms().hubs, hubs, &mut line),
        Deed::Anchors(anchors) => {
            let before = roster.terms().anchors.as_ref().map(|(_, anchors)| anchors);
            anchors_in_words(before, anchors, &mut line);
        }
        Deed::Policy(policy) => {
            let before = roster.terms().policy.as_ref().map(|(_, policy)| policy);
            policy_in_words(before, policy, &mut line);
        }
        Deed::Configuration(configured) => {
            for one in configured {
                line(format_args!("  box       {}", named(&one.ek_spki_sha256)));
                let before =
                    roster.inventory().get(&one.ek_spki_sha256).and_then(|listed| listed.configuration);
                if let Some((version, file)) = before {
                    line(format_args!("    goes      sha256:{} of version {version}", hex::encode(*file)));
                }
                match &one.file {
                    Some(file) => line(format_args!("    file      sha256:{}", hex::encode(**file))),
                    None => {
                        line(format_args!("    file      THE ONE THAT LIES ON THE BOX, whatever it says"))
                    }
                }
            }
        }
        Deed::Operators { cards, needed } => {
            if cards.is_empty() {
                line(format_args!("  NO OPERATORS ANY MORE: the custodians decide from then on"));
            } else {
                line(format_args!("  {needed} of these decide from then on:"));
            }
            for card in cards {
                line(format_args!(
                    "    {}  ed25519:{}",
                    card.content.name,
                    hex::encode(*card.content.signing_key)
                ));
            }
        }
    }
    text
}

type Line<'a> = dyn FnMut(std::fmt::Arguments<'_>) + 'a;

/// How something stands to what was there before.
fn mark(known: bool) -> &'static str {
    if known { "   " } else { "NEW" }
}

fn hubs_in_words(before: &[Hub], hubs: &[Hub], line: &mut Line<'_>) {
    for gone in before.iter().filter(|hub| !hubs.iter().any(|other| other.name == hub.name)) {
        line(format_args!("  GOES      {}: boxes shut it out, and take no lease of it", gone.name));
    }
    if hubs.is_empty() {
        line(format_args!("  NO HUBS ANY MORE"));
    }
    for hub in hubs {
        line(format_args!("  hub  {}  {}", mark(before.contains(hub)), hub.name));
        line(format_args!("    witness   ed25519:{}", hex::encode(*hub.witness_key)));
        line(format_args!("    heads     ed25519:{}", hex::encode(*hub.heads_key)));
        line(format_args!(
            "    leases    {}",
            if hub.leases { "boxes take leases of it" } else { "none are taken of it" }
        ));
        for (what, pins) in [("client", &hub.clients), ("server", &hub.servers)] {
            for pin in pins {
                line(format_args!("    {what:<9} spki sha256:{}", hex::encode(**pin)));
            }
        }
        for address in &hub.addresses {
            line(format_args!("    address   {address}"));
        }
    }
}

fn anchors_in_words(before: Option<&Anchors>, anchors: &Anchors, line: &mut Line<'_>) {
    if let Some(before) = before {
        for tsa in
            before.tsas.iter().filter(|tsa| !anchors.tsas.iter().any(|one| one.operator == tsa.operator))
        {
            line(format_args!("  GOES      {}: its time stamps count for nothing", tsa.operator));
        }
        for gone in before.witnesses.iter().filter(|one| !anchors.witnesses.contains(one)) {
            line(format_args!("  GOES      {} of {}", gone.key, gone.operator));
        }
    }
    if anchors.is_empty() {
        line(format_args!("  NOBODY'S TIME IS BELIEVED: no interval has ends"));
    }
    line(format_args!("  {} operator(s) make a bound", anchors.operators));
    for tsa in &anchors.tsas {
        let known = before.and_then(|before| before.tsas.iter().find(|one| one.operator == tsa.operator));
        line(format_args!("  time stamps of {}", tsa.operator));
        if let Some(known) = known {
            for root in known.certificates.iter().filter(|root| !tsa.certificates.contains(root)) {
                line(format_args!("    GOES  root sha256:{}", sha256(&[root])));
            }
        }
        for root in &tsa.certificates {
            let held = known.is_some_and(|known| known.certificates.contains(root));
            line(format_args!("    {}   root sha256:{}", mark(held), sha256(&[root])));
        }
        match tsa.policies.is_empty() {
            true => line(format_args!("          any policy")),
            false => line(format_args!("          policies {}", tsa.policies.join(", "))),
        }
    }
    for witness in &anchors.witnesses {
        let held = before.is_some_and(|before| before.witnesses.contains(witness));
        line(format_args!("  witness of {}", witness.operator));
        line(format_args!("    {}   {}", mark(held), witness.key));
    }
}

fn policy_in_words(before: Option<&Policy>, policy: &Policy, line: &mut Line<'_>) {
    match policy.accept_software {
        true => line(format_args!("  ACCEPTS KEYS WITHOUT A TPM")),
        false => line(format_args!("  keys without a TPM are not accepted")),
    }
    match policy.require_facts.is_empty() {
        true => line(format_args!("  REQUIRES NO FACT")),
        false => line(format_args!("  requires  {}", policy.require_facts.join(", "))),
    }
    if let Some(before) = before {
        for gone in before.boots.iter().filter(|boot| !policy.boots.contains(boot)) {
            line(format_args!("  GOES      the boot {:?} with these values is good no more", gone.name));
        }
    }
    if policy.boots.is_empty() {
        line(format_args!("  NO BOOT IS JUDGED"));
    }
    for boot in &policy.boots {
        let held = before.is_some_and(|before| before.boots.contains(boot));
        line(format_args!("  boot {}  {}", mark(held), boot.name));
        for one in &boot.pcrs {
            line(format_args!("    PCR {:>2}    {}", one.pcr, hex::encode(*one.value)));
        }
    }
}
