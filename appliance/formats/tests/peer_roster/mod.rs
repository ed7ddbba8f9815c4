//! Vectors of rosters on their way: hints, questions, answers, requests to the registrar, and what logs say of them.

use super::peer_site::Site;
use super::{Vector, changed, damaged, vector};
use bulla_formats::body::revocation::RevocationBody;
use bulla_formats::body::roster::{Came, RosterBody};
use bulla_formats::der::{Octets32, encode};
use bulla_formats::entry::TreeState;
use bulla_formats::hash::{Hash, empty_root};
use bulla_formats::peer::message::{Answer, Asked, Hint, Question, Said};
use bulla_formats::peer::roster::{
    RosterAsked, RosterKnown, RosterRequest, RosterRequestContent, RosterSaid,
};
use bulla_formats::revocation::Cause;
use serde_json::json;

const CHANNEL: [u8; 32] = [0x5c; 32];

fn known(number: u64) -> RosterKnown {
    RosterKnown { number, hash: Octets32::new([7; 32]) }
}

fn messages() -> Vec<Vector> {
    let ask = |known| Question::new(Asked::Roster(RosterAsked { known })).encode();
    let said = RosterSaid {
        founding: None,
        changes: vec![b"a change".to_vec().into(), b"the next".to_vec().into()],
        moved: vec![b"a card".to_vec().into()],
        last: 9,
    };
    let say = |name: &str, change: &dyn Fn(&mut RosterSaid)| {
        vector(name, "answer", Answer::new(Said::Roster(changed(&said, change))).encode())
    };
    vec![
        vector("valid--hint-of-a-roster", "hint", Hint::roster(known(9)).encode()),
        vector("refused--hint-of-a-roster-above-the-limit", "hint", Hint::roster(known(1 << 63)).encode()),
        vector("valid--question-for-a-roster", "question", ask(None)),
        vector("valid--question-for-newer-than-a-roster", "question", ask(Some(known(4)))),
        vector("refused--question-for-a-roster-above-the-limit", "question", ask(Some(known(1 << 63)))),
        say("valid--answer-of-a-roster", &|_| {}),
        say("valid--answer-of-a-whole-roster", &|said| said.founding = Some(b"minutes".to_vec().into())),
        say("valid--answer-of-nothing-newer", &|said| {
            said.changes.clear();
            said.moved.clear();
        }),
        say("refused--answer-of-a-roster-with-an-empty-change", &|said| said.changes[0] = Vec::new().into()),
        say("refused--answer-of-a-roster-with-65-changes", &|said| {
            said.changes = vec![b"a change".to_vec().into(); 65];
        }),
        say("refused--answer-of-a-roster-with-a-change-too-long", &|said| {
            said.changes[0] = vec![0; 1_114_113].into();
        }),
        say("refused--answer-of-a-roster-too-long-together", &|said| {
            said.changes = vec![vec![0; 1_048_577].into(); 2];
        }),
        say("refused--answer-of-a-roster-with-minutes-too-long", &|said| {
            said.founding = Some(vec![0; 524_289].into());
        }),
        say("refused--answer-of-a-roster-with-an-empty-card", &|said| said.moved[0] = Vec::new().into()),
        say("refused--answer-of-a-roster-with-a-card-of-4097-bytes", &|said| {
            said.moved[0] = vec![0; 4_097].into();
        }),
        say("refused--answer-of-a-roster-with-65-cards", &|said| said.moved = vec![b"c".to_vec().into(); 65]),
        say("refused--answer-of-a-roster-above-the-limit", &|said| said.last = 1 << 63),
    ]
}

fn bodies() -> Vec<Vector> {
    let site = Site::new(1);
    let genuine = RosterBody {
        version: 1,
        fleet: "bank.example".into(),
        number: 9,
        hash: Octets32::new([7; 32]),
        came: Came::Neighbour,
        from: site.origin().to_string(),
    };
    let roster = |name: &str, change: &dyn Fn(&mut RosterBody)| {
        vector(name, "roster", encode(&changed(&genuine, change)))
    };
    let unknown = {
        let mut bytes = encode(&genuine);
        let at = bytes.windows(3).position(|three| three == [0x0a, 1, Came::Neighbour as u8]).unwrap();
        bytes[at + 2] = 3;
        bytes
    };
    let mut all = vec![
        roster("valid--roster", &|_| {}),
        roster("valid--roster-from-a-file", &|body| (body.came, body.from) = (Came::File, "olga".into())),
        roster("refused--roster-of-version-2", &|body| body.version = 2),
        roster("refused--roster-of-no-fleet", &|body| body.fleet = "Bank".into()),
        roster("refused--roster-above-the-limit", &|body| body.number = 1 << 63),
        roster("refused--roster-from-nobody", &|body| body.from = String::new()),
        roster("refused--roster-from-257-bytes", &|body| body.from = "a".repeat(257)),
        roster("refused--roster-from-a-line-feed", &|body| body.from = "a\nb".into()),
        vector("refused--roster-that-came-otherwise", "roster", unknown),
    ];
    all.extend(damaged("roster", &all[0]));
    let genuine = RevocationBody {
        version: 1,
        roster: 9,
        origin: site.origin().to_string(),
        cause: Cause::Compromise,
        invalid_from: 1_790_000_000_000,
        good: TreeState::new(5, Hash([9; 32])),
    };
    let revocation = |name: &str, change: &dyn Fn(&mut RevocationBody)| {
        vector(name, "revocation", encode(&changed(&genuine, change)))
    };
    let first = all.len();
    all.extend([
        revocation("valid--revocation", &|_| {}),
        revocation("valid--revocation-of-everything", &|body| body.good = TreeState::new(0, empty_root())),
        revocation("refused--revocation-of-version-2", &|body| body.version = 2),
        revocation("refused--revocation-of-no-origin", &|body| body.origin = "log".into()),
        revocation("refused--revocation-by-a-roster-above-the-limit", &|body| body.roster = 1 << 63),
        revocation("refused--revocation-from-above-the-limit", &|body| body.invalid_from = 1 << 63),
        revocation("refused--revocation-of-a-size-above-the-limit", &|body| body.good.size = 1 << 63),
        revocation("refused--revocation-with-a-root-of-nothing", &|body| body.good.size = 0),
    ]);
    all.extend(damaged("revocation", &all[first]));
    all
}

fn requests() -> Vec<Vector> {
    let (site, other) = (Site::new(1), Site::new(40));
    let genuine = RosterRequestContent {
        version: 1,
        fleet: "bank.example".into(),
        card: site.signed_card(&site.card_content(), |_| {}).into(),
        channel: Octets32::new(CHANNEL),
        known: Some(known(4)),
    };
    let made = |name: &str, content: &RosterRequestContent, signature: Vec<u8>| Vector {
        name: name.to_owned(),
        what: "roster-request",
        bytes: encode(&RosterRequest { content: content.clone(), signature: signature.into() }),
        more: json!({"channel": hex::encode(CHANNEL)}),
    };
    let with = |name: &str, change: &dyn Fn(&mut RosterRequestContent)| {
        let content = changed(&genuine, change);
        let signature = site.by_transport(&content.message());
        made(name, &content, signature)
    };
    let mut all = vec![
        with("valid--roster-request", &|_| {}),
        with("valid--roster-request-of-who-has-none", &|content| content.known = None),
        with("refused--roster-request-of-version-2", &|content| content.version = 2),
        with("refused--roster-request-of-no-fleet", &|content| content.fleet = "Bank".into()),
        with("refused--roster-request-above-the-limit", &|content| content.known = Some(known(1 << 63))),
        with("refused--roster-request-without-card", &|content| content.card = b"no card".to_vec().into()),
        with("refused--roster-request-with-anothers-card", &|content| {
            content.card = other.signed_card(&other.card_content(), |_| {}).into();
        }),
        with("refused--roster-request-through-another-connection", &|content| {
            content.channel = Octets32::new([1; 32]);
        }),
        made("refused--roster-request-signed-by-nobody", &genuine, vec![0; 64]),
        made("refused--roster-request-signed-by-another-box", &genuine, {
            other.by_transport(&genuine.message())
        }),
        made("refused--roster-request-signed-without-label", &genuine, site.by_transport(&encode(&genuine))),
        made("refused--roster-request-with-a-signature-of-63-bytes", &genuine, {
            site.by_transport(&genuine.message())[..63].to_vec()
        }),
    ];
    all.extend(damaged("roster-request", &all[0]));
    all
}

pub fn all() -> Vec<Vector> {
    [messages(), bodies(), requests()].into_iter().flatten().collect()
}
