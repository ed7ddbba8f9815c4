//! Whole ceremonies in one room: every pace, every interruption, and people who play false.
//!
//! Nothing is kept between two steps but bytes: each custodian's state and the messages laid out, as on disk.

use crate::common::Room;
use age::x25519;
use bulla_ceremony::coordinator::{self, Order};
use bulla_ceremony::state::State;
use bulla_ceremony::transcript::Transcript;
use bulla_ceremony::wire::{
    Card, CommitmentsBody, Duty, Message, NoncesBody, Plan, ResultBody, ShareBody, SharesBody, Step,
};
use bulla_ceremony::{CeremonyError, Result};
use bulla_formats::der::{self, Octets32};
use ed25519_dalek::SigningKey;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

fn accused<T>(outcome: Result<T>) -> (u64, String) {
    match outcome {
        Err(CeremonyError::Accused { number, what, .. }) => (number, what),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("nobody was accused"),
    }
}

#[test]
fn every_size_makes_a_root_that_signs_plain_ed25519() {
    for (threshold, custodians) in [(1, 1), (2, 2), (2, 3), (3, 5), (5, 5)] {
        let mut room = Room::new(threshold, custodians);
        let all: Vec<usize> = (1..=custodians).collect();
        let transcript = room.run(&all).unwrap();
        // Read back from its bytes, it verifies, with the verifier of formats: strict Ed25519.
        assert_eq!(Transcript::decode(&der::encode(&transcript)).unwrap(), transcript);
        let text = transcript.to_text("AAAA-BBBB-CCCC-DDDD-EEEE");
        assert!(text.contains(&hex::encode(*transcript.content.root)), "{text}");
        assert_eq!(text.contains("ONE CUSTODIAN"), custodians == 1, "{text}");
    }
}

#[test]
fn a_threshold_is_enough_and_one_less_is_not() {
    let mut room = Room::new(3, 5);
    room.make_key();
    room.run(&[1, 3, 4]).unwrap();

    let mut room = Room::new(3, 5);
    room.make_key();
    assert!(room.run(&[2, 5]).unwrap_err().to_string().contains("does not end"));
    let Order::Waits(why) = room.lead().unwrap() else { panic!("the coordinator goes on") };
    assert_eq!(why, "waits for 1 more of Ada, Cem, Dilek");
}

#[test]
fn whoever_is_killed_after_any_step_goes_on_and_says_nothing_else() {
    let whole = Room::new(2, 3).run(&[1, 2, 3]).unwrap();
    assert!(whole.check().is_ok());
    // Custodian 2 is killed before it shows what it has said, once at each of its steps.
    for killed_at in 0..12 {
        let (mut room, mut step) = (Room::new(2, 3), 0);
        let mut said: Vec<Vec<u8>> = Vec::new();
        let transcript = loop {
            room.step(1, true).unwrap();
            room.step(2, step != killed_at).unwrap();
            let now: Vec<Vec<u8>> =
                room.custodian(2).unwrap().said().unwrap().iter().map(Message::encode).collect();
            assert_eq!(now[..said.len()], said[..], "it said something else after it was killed");
            said = now;
            step += 1;
            room.step(3, true).unwrap();
            if let Order::Done(transcript) = room.lead().unwrap() {
                break transcript;
            }
            assert!(step < 60);
        };
        transcript.check().unwrap();
    }
}

#[test]
fn a_custodian_who_left_after_agreeing_is_replaced_by_asking_again() {
    let mut room = Room::new(2, 3);
    room.make_key();
    assert!(matches!(room.lead().unwrap(), Order::Say(_)));
    room.step(1, true).unwrap();
    room.step(2, true).unwrap();
    // The quorum is Ada and Bo; Bo leaves.
    assert!(matches!(room.lead().unwrap(), Order::Say(_)));
    room.step(1, true).unwrap();
    assert_eq!(format!("{:?}", room.lead().unwrap()), r#"Waits("waits for the signature share of Bo")"#);
    let again = coordinator::again(&room.board().unwrap(), &room.coordinator).unwrap();
    room.lay(&again);
    room.run(&[1, 3]).unwrap();
}

#[test]
fn who_declines_is_named_and_enough_of_them_end_it() {
    let mut room = Room::new(2, 3);
    room.agrees = |number, about| about == 0 || number == 1;
    let error = room.run(&[1, 2, 3]).unwrap_err().to_string();
    assert!(error.contains("declined by Bo, Cem; 2 must agree"), "{error}");

    // One is not enough to end it.
    let mut room = Room::new(2, 3);
    room.agrees = |number, about| about == 0 || number != 2;
    room.run(&[1, 2, 3]).unwrap();

    // Whoever declines the plan says nothing at all.
    let mut room = Room::new(2, 2);
    room.agrees = |number, _| number == 1;
    assert!(room.run(&[1, 2]).is_err());
    assert!(!room.table.keys().any(|name| name.ends_with("of-2")));
}

#[test]
fn nonces_answer_one_quorum() {
    let mut room = Room::new(2, 3);
    room.make_key();
    room.lead().unwrap();
    for number in [1, 2, 3] {
        room.step(number, true).unwrap();
    }
    room.lead().unwrap();
    room.step(1, true).unwrap();
    let share = room.table["request-1-share-of-1"].clone();
    // Another quorum for the same request: nothing more comes from Ada, nor does she say anything else.
    let request = room.board().unwrap().requests().unwrap()[0].hash;
    let other = bulla_ceremony::wire::QuorumBody { request: Octets32::new(request.0), signers: vec![1, 3] };
    let forged = Message::sign(&room.plan, 0, Step::Quorum, 1, &other, &room.coordinator);
    room.lay(&forged);
    for _ in 0..3 {
        room.step(1, true).unwrap();
    }
    assert_eq!(room.table["request-1-share-of-1"], share);
    // And the state holds no nonces any more.
    let state = State::decode(room.people[0].state.as_deref().unwrap()).unwrap();
    assert!(!format!("{:?}", state.rounds).contains("Nonces"), "{:?}", state.rounds);
}

#[test]
fn a_false_proof_of_the_first_round_is_its_senders() {
    let mut room = Room::new(2, 3);
    for number in [1, 2, 3, 1, 2, 3] {
        room.step(number, true).unwrap();
    }
    assert_eq!(room.table.len(), 3, "commitments and nothing else");
    // Bo shows Cem's commitments as his own: he cannot prove that he knows their secret.
    let of_cem: CommitmentsBody = room.board().unwrap().body(Step::Commitments, 0, 3).unwrap().unwrap();
    room.forge(2, Step::Commitments, 0, &of_cem);
    assert_eq!(accused(room.step(1, true)), (2, "does not prove that it knows its own secret".into()));
    // Bo himself finds that somebody spoke in his name.
    assert_eq!(accused(room.step(2, true)).1, "is impersonated: somebody else signed in its place");
}

/// Everybody has dealt its shares, nobody has read them.
fn dealt() -> Room {
    let mut room = Room::new(2, 3);
    // Agree, commit; then, with all commitments there, share out.
    for number in [1, 2, 3, 1, 2, 3, 1, 2, 3] {
        room.step(number, true).unwrap();
    }
    assert!((1..=3).all(|number| room.table.contains_key(&format!("keygen-2-of-{number}"))));
    room
}

#[test]
fn false_shares_are_their_senders() {
    // A share for Cem, given to Ada: it does not fit what Bo committed to.
    let mut room = dealt();
    let mut body: SharesBody = room.board().unwrap().body(Step::Shares, 0, 2).unwrap().unwrap();
    let for_cem = age::decrypt(&room.people[2].opening, &body.shares[1].ciphertext).unwrap();
    body.shares[0].ciphertext = age::encrypt(&room.people[0].opening.to_public(), &for_cem).unwrap().into();
    room.forge(2, Step::Shares, 0, &body);
    assert_eq!(
        accused(room.step(1, true)),
        (2, "sent a share that does not fit what it committed to".into())
    );

    // Bytes that nobody can open.
    let mut room = dealt();
    let mut body: SharesBody = room.board().unwrap().body(Step::Shares, 0, 2).unwrap().unwrap();
    body.shares[0].ciphertext = body.shares[1].ciphertext.clone();
    room.forge(2, Step::Shares, 0, &body);
    assert_eq!(accused(room.step(1, true)), (2, "sent no share that this custodian can open".into()));

    // Bo says that he saw other commitments: somebody showed him others, or he lies.
    let mut room = dealt();
    let mut body: SharesBody = room.board().unwrap().body(Step::Shares, 0, 2).unwrap().unwrap();
    body.seen = Octets32::new([0; 32]);
    room.forge(2, Step::Shares, 0, &body);
    assert_eq!(accused(room.step(1, true)), (2, "was shown other commitments than this custodian".into()));
}

#[test]
fn another_result_and_a_false_signature_share_are_their_senders() {
    let mut room = Room::new(2, 3);
    room.make_key();
    let mut body: ResultBody = room.board().unwrap().body(Step::Result, 0, 3).unwrap().unwrap();
    let honest = body.clone();
    body.root = Octets32::new(SigningKey::from_bytes(&[77; 32]).verifying_key().to_bytes());
    room.forge(3, Step::Result, 0, &body);
    assert_eq!(accused(room.lead()), (3, "has another result than custodian 1".into()));
    assert_eq!(accused(room.step(1, true)).0, 3);
    room.forge(3, Step::Result, 0, &honest);

    room.lead().unwrap();
    for number in [1, 2] {
        room.step(number, true).unwrap();
    }
    room.lead().unwrap();
    for number in [1, 2] {
        room.step(number, true).unwrap();
    }
    let of_ada: ShareBody = room.board().unwrap().body(Step::Share, 1, 1).unwrap().unwrap();
    room.forge(2, Step::Share, 1, &of_ada);
    assert_eq!(accused(room.lead()), (2, "sent a share of the signature that is wrong".into()));
}

#[test]
fn the_root_signs_only_what_the_plan_announced() {
    let mut room = Room::new(2, 2);
    room.make_key();
    let mut content = bulla_ceremony::transcript::fleet_ca_content(&room.plan);
    content.public_key = Octets32::new(SigningKey::from_bytes(&[66; 32]).verifying_key().to_bytes());
    let body = bulla_ceremony::wire::RequestBody {
        subject: bulla_ceremony::wire::Subject::FleetCertificate,
        content: der::encode(&content).into(),
    };
    let request = Message::sign(&room.plan, 0, Step::Request, 1, &body, &room.coordinator);
    room.lay(&request);
    let error = room.step(1, true).unwrap_err().to_string();
    assert!(error.contains("not the certificate the plan announced"), "{error}");
    // Nor can it be brought to answer without being asked.
    let board = room.board().unwrap();
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    assert!(room.custodian(1).unwrap().answer(&board, 1, true, &mut rng).is_err());
    assert!(!room.table.contains_key("request-1-nonces-of-1"));
}

#[test]
fn messages_of_strangers_and_of_other_ceremonies_are_refused() {
    let mut room = Room::new(2, 3);
    room.make_key();
    let good = room.table["keygen-3-of-1"].clone();
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        assert!(Message::decode(&room.plan, &bytes).is_err(), "byte {at}");
    }
    let mut other = room.plan.clone();
    other.nonce = Octets32::new([8; 32]);
    let error = Message::decode(&other, &good).unwrap_err().to_string();
    assert!(error.contains("another ceremony"), "{error}");
    // A custodian neither asks nor orders, the coordinator makes no key.
    let key = &room.people[0].signing;
    let nonces = NoncesBody { request: Octets32::new([0; 32]), commitments: Vec::new().into() };
    for (from, step, request, key) in [
        (1, Step::Request, 1, key),
        (1, Step::Quorum, 1, key),
        (0, Step::Result, 0, &room.coordinator),
        (1, Step::Nonces, 0, key),
        (1, Step::Result, 1, key),
        (4, Step::Result, 0, key),
    ] {
        let message = Message::sign(&room.plan, from, step, request, &nonces, key);
        assert!(Message::decode(&room.plan, &message.encode()).is_err(), "{from} {step:?} {request}");
    }
}

#[test]
fn plans_that_cannot_be_carried_out_are_refused() {
    let good = Room::new(2, 3).plan;
    let refused = |change: &dyn Fn(&mut Plan), why: &str| {
        let mut plan = good.clone();
        change(&mut plan);
        let error = Plan::decode(&der::encode(&plan)).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    refused(&|plan| plan.threshold = 1, "1 of 3 custodians");
    refused(&|plan| plan.threshold = 4, "4 of 3 custodians");
    refused(&|plan| plan.custodians.truncate(0), "2 of 0 custodians");
    refused(&|plan| plan.fleet = "Bank Example".into(), "fleet");
    refused(&|plan| plan.custodians[2] = plan.custodians[0].clone(), "two of its keys are the same");
    refused(&|plan| plan.coordinator_key = plan.custodians[0].content.signing_key, "two of its keys");
    refused(&|plan| plan.operators_needed = 1, "1 of 0 operators");
    refused(&|plan| plan.version = 2, "version");
    refused(&|plan| plan.custodians[1].content.name = "Bo ".into(), "name");
    refused(&|plan| plan.custodians[1].content.name = "Bob".into(), "not of its own key");
    let namesake = SigningKey::from_bytes(&[91; 32]);
    let recipient = x25519::Identity::generate().to_public().to_string();
    let card = Card::sign(Duty::Custodian, "ada", &namesake, Some(recipient)).unwrap();
    refused(&|plan| plan.custodians[1] = card.clone(), "the same name");
    let operator = Card::sign(Duty::Operator, "Op", &namesake, None).unwrap();
    refused(&|plan| plan.custodians[1] = operator.clone(), "listed as");
}

#[test]
fn no_bit_of_a_transcript_can_change() {
    let bytes = der::encode(&Room::new(2, 2).run(&[1, 2]).unwrap());
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(Transcript::decode(&changed).is_err(), "byte {at}");
    }
}

#[test]
fn a_state_of_another_ceremony_or_person_is_refused() {
    let mut room = Room::new(2, 3);
    room.make_key();
    let state = room.people[0].state.clone();
    room.people[1].state = state;
    assert!(room.step(2, true).unwrap_err().to_string().contains("another custodian"));
    let mut other = Room::new(2, 3);
    other.plan.created_at += 1;
    other.people[0].state = room.people[0].state.clone();
    assert!(other.step(1, true).unwrap_err().to_string().contains("another ceremony"));
}
