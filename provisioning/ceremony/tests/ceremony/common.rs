//! A room for a ceremony: people who keep nothing between two steps but bytes, and a table.

use age::x25519;
use bulla_ceremony::board::Board;
use bulla_ceremony::coordinator::{self, Order};
use bulla_ceremony::custodian::{Custodian, Identity, Progress};
use bulla_ceremony::state::State;
use bulla_ceremony::transcript::Transcript;
use bulla_ceremony::wire::{Card, Duty, Message, Plan, Step};
use bulla_ceremony::{CeremonyError, Result};
use bulla_formats::der::Octets32;
use ed25519_dalek::SigningKey;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::BTreeMap;

/// Keys of nobody: they open the shares of these tests.
const OPENING: [&str; 5] = [
    "AGE-SECRET-KEY-162CZR26L2VAN6MPURMDDWWESP3Z4ZUU40RWHP7X5CNCPCTUT3XQQZTEG7Y",
    "AGE-SECRET-KEY-1Z4U7NZKY5QW98MXLTQS4FW4L4FG5PHERRURLEZWYWP4FX39C8T4S03T4R4",
    "AGE-SECRET-KEY-19M69D8TYS9HZFRDYF8C9SMXRQ2WNANFWYK82KXP6HWJ0G86EJC5QZQJWXP",
    "AGE-SECRET-KEY-1NVL5A2JDU9G9PJCFF2CE7522R8328RDP7622Q97XH55DN5N99WZQC8KKXZ",
    "AGE-SECRET-KEY-19F5VCYX335VKSPWXCS42EYMJ3H9JM6CG9UFSSLFN7KXGM634TA2S9GQLXH",
];
pub const NAMES: [&str; 5] = ["Ada", "Bo", "Cem", "Dilek", "Emre"];

/// Someone with keys and a state.
pub struct Person {
    pub signing: SigningKey,
    pub opening: x25519::Identity,
    pub state: Option<Vec<u8>>,
    rng: ChaCha20Rng,
}

/// A room with people, a table, and nothing else.
pub struct Room {
    pub plan: Plan,
    pub coordinator: SigningKey,
    pub people: Vec<Person>,
    pub table: BTreeMap<String, Vec<u8>>,
    /// Answer of custodian `number` to a question.
    pub agrees: fn(u64, u64) -> bool,
}

impl Room {
    pub fn new(threshold: u64, custodians: usize) -> Self {
        let coordinator = SigningKey::from_bytes(&[200; 32]);
        let people: Vec<Person> = (0..custodians)
            .map(|at| Person {
                signing: SigningKey::from_bytes(&[at as u8 + 1; 32]),
                opening: OPENING[at].parse().unwrap(),
                state: None,
                rng: ChaCha20Rng::from_seed([at as u8 + 50; 32]),
            })
            .collect();
        let card = |(at, person): (usize, &Person)| {
            let recipient = person.opening.to_public().to_string();
            Card::sign(Duty::Custodian, NAMES[at], &person.signing, Some(recipient)).unwrap()
        };
        let plan = Plan {
            version: 1,
            fleet: "bank.example".into(),
            threshold,
            custodians: people.iter().enumerate().map(card).collect(),
            operators_needed: 0,
            operators: Vec::new(),
            coordinator_key: Octets32::new(coordinator.verifying_key().to_bytes()),
            fleet_ca_key: Octets32::new(SigningKey::from_bytes(&[201; 32]).verifying_key().to_bytes()),
            nonce: Octets32::new([9; 32]),
            created_at: 1_790_000_000_000,
        };
        plan.check().unwrap();
        Room { plan, coordinator, people, table: BTreeMap::new(), agrees: |_, _| true }
    }

    pub fn board(&self) -> Result<Board> {
        let mut board = Board::new(self.plan.clone());
        self.table.values().try_for_each(|bytes| board.add(bytes))?;
        Ok(board)
    }

    pub fn custodian(&self, number: usize) -> Result<Custodian> {
        let person = &self.people[number - 1];
        let identity = Identity { signing: person.signing.clone(), opening: person.opening.clone() };
        let state = person.state.as_deref().map(State::decode).transpose()?;
        Custodian::new(self.plan.clone(), identity, state)
    }

    pub fn lay(&mut self, message: &Message) {
        self.table.insert(message.file_name(), message.encode());
    }

    /// One step of a custodian that is forgotten but for its state; `shown`: whether it gets to show what it said.
    pub fn step(&mut self, number: usize, shown: bool) -> Result<Progress> {
        let (board, mut custodian) = (self.board()?, self.custodian(number)?);
        for message in custodian.said()? {
            self.table.entry(message.file_name()).or_insert(message.encode());
        }
        let mut rng = self.people[number - 1].rng.clone();
        let progress = custodian.step(&board, &mut rng)?;
        if let Progress::Asks(question) = &progress {
            let agrees = (self.agrees)(number as u64, question.about);
            custodian.answer(&board, question.about, agrees, &mut rng)?;
        }
        self.people[number - 1].rng = rng;
        self.people[number - 1].state = Some(custodian.state().encode().to_vec());
        if shown {
            for message in custodian.said()? {
                self.table.entry(message.file_name()).or_insert(message.encode());
            }
        }
        Ok(progress)
    }

    pub fn lead(&mut self) -> Result<Order> {
        let order = coordinator::next(&self.board()?, &self.coordinator)?;
        if let Order::Say(message) = &order {
            self.lay(message);
        }
        Ok(order)
    }

    /// Goes round until the minutes are signed.
    pub fn run(&mut self, present: &[usize]) -> Result<Transcript> {
        for _ in 0..60 {
            for number in present {
                self.step(*number, true)?;
            }
            if let Order::Done(transcript) = self.lead()? {
                return Ok(*transcript);
            }
        }
        Err(CeremonyError::refused("the ceremony", "it does not end"))
    }

    /// Until all have a part of the key.
    pub fn make_key(&mut self) {
        while self.board().unwrap().result().unwrap().is_none() {
            for number in 1..=self.people.len() {
                self.step(number, true).unwrap();
            }
        }
    }

    /// Puts a message of custodian `number` on the table in place of what it said.
    pub fn forge<T: rasn::Encode>(&mut self, number: u64, step: Step, request: u64, body: &T) {
        let key = self.people[number as usize - 1].signing.clone();
        self.lay(&Message::sign(&self.plan, number, step, request, body, &key));
    }
}
