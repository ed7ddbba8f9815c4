//! Questions at the terminal.
//!
//! Refuses to do: take silence for an answer.

use crate::exit::Failure;
use std::io::{self, BufRead};

/// Asks the person at the terminal, until they say yes or no.
pub fn ask(question: &str) -> Result<bool, Failure> {
    crate::say(&format!("{question} [yes/no] "));
    let mut line = String::new();
    loop {
        line.clear();
        let read = io::stdin().lock().read_line(&mut line);
        match read.map_err(|error| Failure::usage(format!("cannot read the answer: {error}")))? {
            0 => {
                return Err(Failure::usage(
                    "nobody answered: standard input is closed; run it at a terminal, or with --yes"
                        .to_owned(),
                ));
            }
            _ => match line.trim().to_lowercase().as_str() {
                "yes" => return Ok(true),
                "no" => return Ok(false),
                _ => crate::say("Please answer yes or no: "),
            },
        }
    }
}
