//! What it takes to log that this box follows another one.
//!
//! Refuses to do: judge that log; `retrieve` has.

use super::{Command, SealError, Sealer, stopping};
use bulla_formats::body::succession::SuccessionBody;
use bulla_formats::der;
use bulla_formats::entry::Kind;
use tokio::sync::oneshot;

impl Sealer {
    /// Logs it; the index of the entry.
    pub async fn log_succession(&self, body: &SuccessionBody) -> Result<u64, SealError> {
        self.shared.may_seal()?;
        let (reply, answer) = oneshot::channel();
        let command = Command::Append(Kind::Succession, der::encode(body), reply);
        self.queue.send(command).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}
