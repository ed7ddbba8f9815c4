//! What a backup needs of the driver: its entry in the log, a counter that has moved past it, the log key.
//!
//! Refuses to do: let a copy out that could be taken for the newest state.

use super::{Command, SealError, Sealer, stopping};
use bulla_formats::body::operator_action::{OperatorActionBody, Parameter};
use bulla_formats::der;
use bulla_formats::entry::Kind;
use ed25519_dalek::SigningKey;
use tokio::sync::oneshot;

impl Sealer {
    /// Logs that `operator` takes a backup which `recipients` can open; it is in the backup itself.
    pub async fn log_backup(&self, operator: &str, recipients: &[String]) -> Result<u64, SealError> {
        self.shared.may_seal()?;
        let recipients = recipients.iter();
        let action = OperatorActionBody {
            action: "backup".to_owned(),
            parameters: recipients
                .map(|recipient| Parameter { name: "recipient".to_owned(), value: recipient.clone() })
                .collect(),
            reason: operator.to_owned(),
            approvals: Vec::new(),
        };
        let (reply, answer) = oneshot::channel();
        let command = Command::Append(Kind::OperatorAction, der::encode(&action), reply);
        self.queue.send(command).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// Moves the TPM counter, so that every copy made before is an older disk to the rollback rule. A box without TPM
    /// has no counter: what is restored from its backups never seals without an operator's decision.
    pub async fn move_counter(&self) -> Result<(), SealError> {
        let (reply, answer) = oneshot::channel();
        self.attestor.move_counter(reply);
        answer.await.map_err(|_| stopping())?.map_err(|reason| SealError::Locked {
            reason: format!(
                "the TPM counter could not be moved ({reason}), and without that no backup is given out"
            ),
        })
    }

    /// The log key, which signs the backup's manifest.
    pub fn log_key(&self) -> &SigningKey {
        &self.shared.log_key
    }
}
