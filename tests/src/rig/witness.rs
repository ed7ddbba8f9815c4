//! Witnesses of a test's own, and logs for them to look at.
//!
//! They run inside the test and end with it. They check consistency by another implementation than ours.

pub use bulla_authorities::faults::Quota;
pub use bulla_authorities::gate::Transport;
pub use bulla_authorities::witness::{Answer, Counters, Knobs, Witness};

use anyhow::{Context, Result};
use bulla_formats::body::anchor::Cosignature;
use bulla_formats::witness::WitnessKey;
use bulla_formats::witness::add_checkpoint::{ANSWER_BYTES_MAX, PATH, WitnessRefusal, parse_answer};
use std::time::Duration;

/// Posts a request body to a witness, as a careful client does; what came back is judged for the checkpoint `text`.
pub fn submit(
    witness: &Witness,
    body: &str,
    text: &str,
    patience: Duration,
) -> Result<Result<Cosignature, WitnessRefusal>> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(patience))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .build()
        .new_agent();
    let mut answer = agent.post(format!("{}/{PATH}", witness.url())).send(body).context("no answer")?;
    let status = answer.status().as_u16();
    let limited = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX as u64);
    let bytes = limited.read_to_vec().context("no body")?;
    let key = WitnessKey::parse(&witness.key()).context("its key is a verifier key")?;
    Ok(parse_answer(status, &bytes, text, &key))
}
