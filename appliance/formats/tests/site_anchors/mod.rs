//! Vectors of heads anchored together: offers, heads in answer to them, and anchors handed over; and which paths lead.

use super::peer_site::Site;
use super::{Vector, changed, damaged, vector};
use bulla_formats::body::anchor::{AnchorBody, AnchorProof, Cosignature, Evidence};
use bulla_formats::der::Octets32;
use bulla_formats::entry::{EntryRef, TreeState};
use bulla_formats::hash::{Hash, leaf_hash};
use bulla_formats::merkle::{inclusion_proof, root};
use bulla_formats::note::checkpoint_text;
use bulla_formats::peer::message::{Answer, Asked, Question, Said};
use bulla_formats::peer::site::{SiteAnchor, SiteAsked, SiteWish};

/// A batch of three heads, of which the receiver's is the last.
fn anchor() -> SiteAnchor {
    let sites = [Site::new(40), Site::new(60), Site::new(1)];
    let text = |site: &Site| {
        let tree = site.honest();
        checkpoint_text(site.origin().as_str(), tree.size(), &tree.root())
    };
    let leaves: Vec<Hash> = sites.iter().map(|site| leaf_hash(text(site).as_bytes())).collect();
    let path = inclusion_proof(2, 3, &leaves[..]).unwrap();
    let (origin, tree) = (sites[2].origin().to_string(), sites[2].honest());
    let stamp = |authority: &str| AnchorProof {
        authority: authority.into(),
        operator: "Operator A".into(),
        evidence: Evidence::Timestamp(b"a reply".to_vec().into()),
    };
    let body = AnchorBody {
        version: 1,
        batch: TreeState::new(3, root(3, &leaves[..]).unwrap()),
        index: 2,
        path: path.iter().map(|hash| Octets32::new(hash.0)).collect(),
        head: TreeState::new(tree.size(), tree.root()),
        proofs: vec![stamp("tsa-a"), stamp("tsa-b")],
        manifests: Vec::new(),
    };
    SiteAnchor { origin, body }
}

pub fn all() -> Vec<Vector> {
    let ask = |name: &str, anchored| {
        vector(name, "question", Question::new(Asked::Site(SiteAsked { anchored })).encode())
    };
    let hand = |name: &str, change: &dyn Fn(&mut SiteAnchor)| ask(name, Some(changed(&anchor(), change)));
    let site = Site::new(1);
    let wish = SiteWish { origin: site.origin().to_string(), head: site.note(site.honest()).encode() };
    let say = |name: &str, change: &dyn Fn(&mut SiteWish)| {
        vector(name, "answer", Answer::new(Said::Site(changed(&wish, change))).encode())
    };
    let cosigned = |body: &mut AnchorBody| {
        let (name, signature) = ("w".into(), vec![0x5a; 64].into());
        body.proofs[1].evidence = Evidence::Cosignature(Cosignature { name, seconds: 1, signature });
    };
    let manifest = EntryRef { index: 1, leaf_hash: Octets32::new([3; 32]) };
    let mut all = vec![
        ask("valid--question-that-offers-to-anchor", None),
        hand("valid--question-with-an-anchor", &|_| {}),
        hand("refused--question-with-an-anchor-of-no-origin", &|said| said.origin = "log".into()),
        hand("refused--question-with-an-anchor-of-version-2", &|said| said.body.version = 2),
        hand("refused--question-with-an-anchor-without-stamps", &|said| said.body.proofs.clear()),
        hand("refused--question-with-an-anchor-of-nine-stamps", &|said| {
            let stamp = said.body.proofs[0].clone();
            let named = |at: usize| AnchorProof { authority: format!("tsa-{at}"), ..stamp.clone() };
            said.body.proofs = (0..9).map(named).collect();
        }),
        hand("refused--question-with-an-anchor-of-an-empty-reply", &|said| {
            said.body.proofs[0].evidence = Evidence::Timestamp(Vec::new().into());
        }),
        hand("refused--question-with-an-anchor-of-a-reply-too-long", &|said| {
            said.body.proofs[0].evidence = Evidence::Timestamp(vec![0; 16_385].into());
        }),
        hand("refused--question-with-an-anchor-out-of-order", &|said| said.body.proofs.reverse()),
        hand("refused--question-with-an-anchor-by-a-cosignature", &|said| cosigned(&mut said.body)),
        hand("refused--question-with-an-anchor-that-names-a-manifest", &|said| {
            said.body.manifests.push(manifest.clone());
        }),
        hand("refused--question-with-an-anchor-beyond-its-batch", &|said| said.body.index = 3),
        hand("refused--question-with-an-anchor-of-17-hashes", &|said| {
            said.body.path = vec![Octets32::new([1; 32]); 17];
        }),
        hand("refused--question-with-an-anchor-of-nothing", &|said| said.body.head.size = 0),
        hand("refused--question-with-an-anchor-above-the-limit", &|said| said.body.head.size = 1 << 63),
        hand("refused--question-with-an-anchor-too-long", &|said| {
            let stamp = AnchorProof {
                evidence: Evidence::Timestamp(vec![0; 16_384].into()),
                ..said.body.proofs[0].clone()
            };
            let named = |at: usize| AnchorProof { authority: format!("tsa-{at}"), ..stamp.clone() };
            said.body.proofs = (0..4).map(named).collect();
        }),
        say("valid--answer-with-a-head-to-anchor", &|_| {}),
        say("refused--answer-with-a-head-to-anchor-of-no-origin", &|wish| wish.origin = "log".into()),
        say("refused--answer-with-a-head-to-anchor-of-another-log", &|wish| {
            wish.origin = Site::new(40).origin().to_string();
        }),
        say("refused--answer-with-a-head-to-anchor-without-lines", &|wish| {
            wish.head = format!("{}\n", site.note(site.honest()).text);
        }),
        say("refused--answer-with-a-head-to-anchor-that-is-empty", &|wish| {
            wish.head = site.note(&site.honest().at(0)).encode();
        }),
        say("refused--answer-with-a-head-to-anchor-of-text", &|wish| wish.head = "head".into()),
    ];
    let more =
        [damaged("question-with-an-anchor", &all[1]), damaged("answer-with-a-head-to-anchor", &all[16])];
    all.extend(more.into_iter().flatten());
    all
}

#[test]
fn only_the_own_path_leads_from_the_own_head() {
    anchor().leads().unwrap();
    let lies: [fn(&mut SiteAnchor); 8] = [
        |said| said.body.index = 1,
        |said| said.body.batch.size = 4,
        |said| said.body.batch.root = Octets32::new([1; 32]),
        |said| said.body.head.size += 1,
        |said| said.body.head.root = Octets32::new([1; 32]),
        |said| said.body.path[0] = Octets32::new([1; 32]),
        |said| said.body.path.push(Octets32::new([1; 32])),
        |said| said.origin = Site::new(40).origin().to_string(),
    ];
    for lie in lies {
        assert!(changed(&anchor(), lie).leads().is_err());
    }
}
