//! The exchange directory: where the plan, the messages and the minutes of a ceremony lie for all to read.
//!
//! Refuses to do: believe a name, or read files that are no message (names beginning with a dot are half-written).
//! Invariant: nothing in it is secret but to the recipient it is encrypted to.

use crate::exit::Failure;
use crate::files;
use bulla_ceremony::board::Board;
use bulla_ceremony::transcript::{TRANSCRIPT_BYTES_MAX, Transcript};
use bulla_ceremony::wire::{MESSAGE_BYTES_MAX, Message, PLAN_BYTES_MAX, Plan};
use bulla_formats::der;
use std::fs;
use std::path::{Path, PathBuf};

/// Most files read from it: 16 custodians, some requests, each with a handful of messages.
const FILES_MAX: usize = 4096;

/// An exchange directory.
pub struct Exchange {
    dir: PathBuf,
}

impl Exchange {
    /// The directory `dir`, which must be there.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        if !dir.is_dir() {
            let why = "there is no such directory; is the stick in, and did `bulla-fleet init` make it?";
            return Err(Failure::file("open", dir, why));
        }
        Ok(Exchange { dir: dir.to_owned() })
    }

    /// Makes it if it is not there.
    pub fn make(dir: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(dir).map_err(|error| Failure::file("make", dir, error))?;
        Exchange::open(dir)
    }

    /// The plan, once the coordinator has laid it out.
    pub fn plan(&self) -> Result<Option<Plan>, Failure> {
        let bytes = files::read_if_there(&self.dir.join("plan"), PLAN_BYTES_MAX)?;
        Ok(bytes.map(|bytes| Plan::decode(&bytes)).transpose()?)
    }

    /// Lays out the plan.
    pub fn lay_plan(&self, plan: &Plan) -> Result<(), Failure> {
        files::write(&self.dir.join("plan"), &der::encode(plan))
    }

    /// All messages, checked.
    pub fn board(&self, plan: &Plan) -> Result<Board, Failure> {
        let mut board = Board::new(plan.clone());
        let failed = |error| Failure::file("read", &self.dir, error);
        let mut read = 0;
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if !name.starts_with("keygen-") && !name.starts_with("request-") {
                continue;
            }
            read += 1;
            if read > FILES_MAX {
                let why = format!(
                    "it holds more than {FILES_MAX} messages; one ceremony has a directory of its own"
                );
                return Err(Failure::file("read", &self.dir, why));
            }
            let path = self.dir.join(&name);
            let bytes = files::read(&path, MESSAGE_BYTES_MAX)?;
            board.add(&bytes).map_err(|error| {
                let refused = Failure::from(error);
                Failure::new(refused.exit, format!("{}: {}", path.display(), refused.message))
            })?;
        }
        Ok(board)
    }

    /// Lays out a message unless it lies there.
    pub fn lay(&self, board: &Board, message: &Message) -> Result<bool, Failure> {
        let content = &message.content;
        if board.message(content.step, content.request, content.from).is_some() {
            return Ok(false);
        }
        files::write(&self.dir.join(message.file_name()), &message.encode())?;
        Ok(true)
    }

    /// The signed minutes, once there are any.
    pub fn transcript(&self) -> Result<Option<Transcript>, Failure> {
        let bytes = files::read_if_there(&self.dir.join("transcript"), TRANSCRIPT_BYTES_MAX)?;
        Ok(bytes.map(|bytes| Transcript::decode(&bytes)).transpose()?)
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}
