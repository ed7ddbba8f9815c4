//! The self-test: a synthetic document goes the whole way that a scanner's goes, from the order to the verified
//! `.seal`, and the result is an entry of the log.
//!
//! It begins behind the listener: TLS and HTTP are what `/readyz` and the scanners themselves test. The verifier is
//! the one that auditors use, with the trust file that this box exports.
//! Refuses to do: keep the document; run twice at a time; stop the box from sealing when it fails, because a box
//! whose self-test fails may still be the only one in the branch. On-call sees it in status and metrics.

use super::checks::SelfTestResult;
use super::clock::{Steady, now_millis};
use super::{Command, Outcome, Receipt, SealOrder, Sealer};
use bulla_formats::body::TEXT_BYTES_MAX;
use bulla_formats::body::seal::{
    Client, ClientMethod, DigestAlgorithm, DocumentDigest, DocumentHasher, Observation,
};
use bulla_formats::body::self_test::{CLIENT, MEDIA_TYPE, SelfTestBody};
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::Hardware;
use bulla_formats::entry::{EntryRef, Kind};
use bulla_formats::report::{Fact, Verdict};
use bulla_formats::seal_file::SealFile;
use bulla_formats::verify::verify;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Bytes of the synthetic document: a page of text.
const DOCUMENT_BYTES: usize = 4_096;
/// Longest pause between a start and the first test.
const FIRST_AFTER_MAX: Duration = Duration::from_secs(300);

/// What a test has found so far.
struct Progress {
    receipt: Option<Receipt>,
    verdict: String,
    sealed: Duration,
    verified: Duration,
    attested: bool,
}

impl Sealer {
    /// Runs self-tests for ever, one every `period`.
    pub async fn self_tests(self, period: Duration, attest_within: Duration) {
        tokio::time::sleep(period.min(FIRST_AFTER_MAX)).await;
        loop {
            let begun = Steady::start();
            self.self_test(attest_within).await;
            tokio::time::sleep(period.saturating_sub(Duration::from_millis(begun.millis()))).await;
        }
    }

    /// One self-test. On a box with a TPM the seal must be attested within `attest_within`.
    pub async fn self_test(&self, attest_within: Duration) -> SelfTestResult {
        let _one_at_a_time = self.self_testing.lock().await;
        let mut progress = Progress {
            receipt: None,
            verdict: "not-sealed".to_owned(),
            sealed: Duration::ZERO,
            verified: Duration::ZERO,
            attested: false,
        };
        let failure = self.whole_way(&mut progress, attest_within).await.err();
        let body = SelfTestBody {
            seal: progress.receipt.as_ref().map(|receipt| EntryRef {
                index: receipt.index,
                leaf_hash: Octets32::new(receipt.leaf_hash.0),
            }),
            verdict: progress.verdict,
            seal_micros: progress.sealed.as_micros() as u64,
            verify_micros: progress.verified.as_micros() as u64,
            attested: progress.attested,
            failure: failure.as_deref().map(clipped),
        };
        let mut result = SelfTestResult {
            passed: body.passed(),
            at_millis: now_millis(),
            seal: progress.receipt.map(|receipt| Self::id(receipt.index, &receipt.leaf_hash)),
            verdict: body.verdict.clone(),
            seal_micros: body.seal_micros,
            verify_micros: body.verify_micros,
            attested: body.attested,
            failure,
        };
        if let Err(reason) = self.log_self_test(&body).await {
            // A log that takes no entry fails the test by itself.
            result.passed = false;
            result.failure.get_or_insert(format!("the result could not be logged: {reason}"));
        }
        match &result.failure {
            None => log::info!("self-test passed: sealed in {} us", result.seal_micros),
            Some(failure) => log::error!("self-test failed: {failure}"),
        }
        self.shared.checks.self_tested(result.clone());
        result
    }

    async fn whole_way(&self, progress: &mut Progress, attest_within: Duration) -> Result<(), String> {
        let digest = synthetic_document()?;
        let begun = Instant::now();
        let outcome = self.seal(order(digest.clone())).await.map_err(|error| error.to_string())?;
        let Outcome::Sealed(receipt) = outcome else {
            return Err("the box does not seal now: the synthetic document was queued".to_owned());
        };
        progress.sealed = begun.elapsed();
        let fresh = receipt.seal.clone();
        let index = receipt.index;
        progress.receipt = Some(*receipt);
        self.judge(progress, fresh, &digest).await?;
        if self.shared.hardware == Hardware::Software {
            return Ok(());
        }
        self.attested(index, attest_within).await.map_err(|error| error.to_string())?;
        let sealer = self.clone();
        let newest = tokio::task::spawn_blocking(move || sealer.seal_file(index, true)).await;
        let newest = newest
            .map_err(|_| "the box is stopping".to_owned())?
            .map_err(|error| format!("the attested seal cannot be put together: {error}"))?;
        self.judge(progress, newest, &digest).await?;
        if progress.attested { Ok(()) } else { Err("the attested seal carries no quote".to_owned()) }
    }

    async fn judge(
        &self,
        progress: &mut Progress,
        seal: SealFile,
        digest: &DocumentDigest,
    ) -> Result<(), String> {
        let (trust, digest) = (self.trust().clone(), digest.clone());
        let begun = Instant::now();
        let judged = tokio::task::spawn_blocking(move || {
            verify(seal.encode().as_bytes(), &trust, Some(&digest)).report
        });
        let report = judged.await.map_err(|_| "the verifier gave up".to_owned())?;
        progress.verified = begun.elapsed();
        progress.verdict = report.verdict.name().to_owned();
        progress.attested = report.facts.contains(&Fact::Attested);
        match (report.verdict, report.failed()) {
            (Verdict::Valid, _) => Ok(()),
            (verdict, Some(check)) => {
                Err(format!("the verifier says {}: {}: {}", verdict.name(), check.name, check.detail))
            }
            (verdict, None) => Err(format!("the verifier says {}", verdict.name())),
        }
    }

    async fn log_self_test(&self, body: &SelfTestBody) -> Result<(), String> {
        body.check().map_err(|error| error.to_string())?;
        let (reply, answer) = oneshot::channel();
        let command = Command::Append(Kind::SelfTest, der::encode(body), reply);
        self.queue.send(command).await.map_err(|_| "the box is stopping".to_owned())?;
        let answer = answer.await.map_err(|_| "the box is stopping".to_owned())?;
        answer.map(drop).map_err(|error| error.to_string())
    }
}

fn order(digest: DocumentDigest) -> SealOrder {
    SealOrder {
        digest,
        media_type: MEDIA_TYPE.to_owned(),
        observation: Observation::BytesObserved,
        client: Client { id: CLIENT.to_owned(), method: ClientMethod::Local },
        transport: "local".to_owned(),
        openings: Vec::new(),
        relations: Vec::new(),
        request: None,
    }
}

fn synthetic_document() -> Result<DocumentDigest, String> {
    let mut document = [0; DOCUMENT_BYTES];
    getrandom::fill(&mut document).map_err(|error| format!("no random bytes: {error}"))?;
    let mut hasher = DocumentHasher::new(DigestAlgorithm::Sha256);
    hasher.update(&document);
    Ok(hasher.finish())
}

/// At most as many bytes as a text in an entry has.
fn clipped(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
