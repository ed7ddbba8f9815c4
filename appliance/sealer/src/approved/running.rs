//! What a running box does about approved configurations: ends for the next one, and enters into the log what came of them.
//!
//! Refuses to do: end while requests run; tell the log of the same thing twice, unless the power went in between.

use super::{State, read};
use crate::driver::Sealer;
use crate::list_file::ListFile;
use bulla_formats::body::incident::IncidentBody;
use bulla_formats::body::operator_action::{OperatorActionBody, Parameter};
use bulla_formats::der;
use bulla_formats::entry::{Kind, LocalTime};
use bulla_formats::hash::sha256;
use std::path::PathBuf;
use std::time::Duration;

/// In the control store: SHA-256 of the body of what was entered last, of each of the two kinds.
const LOGGED: [&str; 2] = ["configuration-change", "configuration-refused"];
const LOOK: Duration = Duration::from_secs(2);

/// Ends when a configuration waits for the next start.
pub async fn taken(state_dir: PathBuf) {
    let file = ListFile::new(&state_dir, super::NAME);
    let mut seen = None;
    loop {
        // A look at a name in a directory; the file is read when it is another one.
        if let Ok(stamp) = file.stamp()
            && stamp != seen
        {
            seen = stamp;
            if read(&state_dir).is_ok_and(|state| state.trial.is_some_and(|trial| trial.starts == 0)) {
                return;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What a state has the log say.
fn entries(state: &State) -> [Option<(Kind, Vec<u8>)>; 2] {
    let parameter = |name: &str, value: String| Parameter { name: name.to_owned(), value };
    let changed = (state.in_force.roster > 0).then(|| {
        let file =
            state.in_force.hash().map_or("the one that lies on the box".to_owned(), |hash| hash.to_string());
        let action = OperatorActionBody {
            action: "configuration-change".to_owned(),
            parameters: vec![parameter("roster", state.in_force.roster.to_string()), parameter("file", file)],
            reason: "the fleet's people approved it".to_owned(),
            approvals: Vec::new(),
        };
        (Kind::OperatorAction, der::encode(&action))
    });
    let refused = state.refused.as_ref().map(|refused| {
        let at = LocalTime { unix_millis: refused.at_millis, uncertainty_millis: None };
        let file = refused.file.as_deref().unwrap_or("that lies on the box");
        let incident = IncidentBody {
            code: "configuration-refused".to_owned(),
            began: at,
            ended: Some(at),
            detail: format!(
                "the configuration {file} of version {} of the roster is not gone by: {}",
                refused.roster, refused.why
            ),
        };
        (Kind::Incident, der::encode(&incident))
    });
    [changed, refused]
}

impl Sealer {
    /// Enters what becomes of configurations; for ever.
    pub async fn log_configurations(self, state_dir: PathBuf) {
        let file = ListFile::new(&state_dir, super::NAME);
        let mut told = None;
        loop {
            if let Ok(stamp) = file.stamp()
                && stamp != told
                && let Ok(state) = read(&state_dir)
            {
                match self.log_configuration(&state).await {
                    Ok(()) => told = stamp,
                    Err(error) => log::warn!("what became of a configuration is not logged yet: {error}"),
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn log_configuration(&self, state: &State) -> Result<(), String> {
        for (key, entry) in LOGGED.into_iter().zip(entries(state)) {
            let Some((kind, body)) = entry else { continue };
            let mark = sha256(&[&body]);
            let logged = self.control.get(key).map_err(|error| error.to_string())?;
            if logged.as_deref() == Some(mark.as_bytes().as_slice()) {
                continue;
            }
            let index = self.append_own(kind, body).await.map_err(|error| error.to_string())?;
            self.control.put(key, mark.as_bytes()).map_err(|error| error.to_string())?;
            log::info!(index; "{key}: entry {index}");
        }
        Ok(())
    }
}
