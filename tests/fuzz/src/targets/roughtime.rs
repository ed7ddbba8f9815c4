//! Answers of Roughtime servers.
//!
//! Holds: whatever is taken for the answer to a recorded question says what the recorded answer said; what is taken for a
//! question that somebody asked is kept as it was; bounds are in order.

use super::{seed, split};
use bulla_formats::json::base64_decode;
use bulla_roughtime::{Answer, Question, ServerKey};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

const CHOICES: u8 = 3;

/// One of `tests/vectors-roughtime`.
struct Vector {
    question: Question,
    answer: Vec<u8>,
    says: Answer,
}

static VECTORS: LazyLock<Vec<Vector>> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors-roughtime");
    let all = [
        ("recorded-int08h", "AW5uAoTSTDfG5NfY1bTh08GUnOqlRb+HVhbJ3ODJvsE="),
        ("generated-v1", "GX9rI+FshTLGq8g4+s1ep4m+DHaykgM0A5v6iz02jWE="),
    ];
    all.map(|(name, key)| {
        let file = |kind: &str| fs::read(directory.join(format!("{name}.{kind}"))).expect("it is there");
        let key = base64_decode(key).ok().and_then(|bytes| ServerKey::new(&bytes.try_into().ok()?));
        let question = Question::recorded(key.expect("a key"), &file("request")).expect("a question");
        let answer = file("answer");
        let says = question.read(&answer).expect("the vectors hold");
        Vector { question, answer, says }
    })
    .into()
});

/// The first byte: which vector's question, or a question itself.
pub fn run(data: &[u8]) {
    let Some((choice, rest)) = split(data, CHOICES) else { return };
    match VECTORS.get(usize::from(choice)) {
        Some(vector) => {
            if let Ok(answer) = vector.question.read(rest) {
                assert_eq!(answer, vector.says);
                let (lo, hi) = answer.bounds_millis();
                assert!(lo < hi);
            }
        }
        None => {
            let key = ServerKey::new(&base_point()).expect("a key");
            if let Ok(question) = Question::recorded(key, rest) {
                assert_eq!(question.bytes(), rest);
                assert!(question.read(rest).is_err(), "a question is no answer");
            }
        }
    }
}

/// Ed25519's base point: a key that is well formed.
fn base_point() -> [u8; 32] {
    let mut bytes = [0x66; 32];
    bytes[0] = 0x58;
    bytes
}

/// Both answers, and both questions.
pub fn seeds() -> Vec<Vec<u8>> {
    let answers = VECTORS.iter().enumerate().map(|(at, vector)| seed(at as u8, &vector.answer));
    answers.chain(VECTORS.iter().map(|vector| seed(2, vector.question.bytes()))).collect()
}
