//! `POST /v1/backups`: an operator takes a backup of the running box.
//!
//! The answer begins only when the copy is complete and the TPM counter has moved past it; from then on whoever
//! restores it is told that the box went on. Refuses to do: run two at a time; send to recipients that the
//! configuration does not name, so that a stolen operator token reads nothing.

use super::Shared;
use super::access::{Caller, Right};
use crate::backup::gather::{Gathered, gather};
use crate::backup::pack::pack;
use crate::backup::{Recipient, recipient};
use crate::driver::clock::now_millis;
use crate::problem::{Kind, Problem};
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use std::io::{self, BufWriter, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Media type of a backup.
const BACKUP_MEDIA_TYPE: &str = "application/vnd.bulla.backup";
/// Bytes per piece of the answer.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces on their way to the client.
const PIECES: usize = 4;
/// How long a client may take nothing.
const STALL: Duration = Duration::from_secs(60);

/// `POST /v1/backups`.
pub async fn create(State(api): State<Shared>, caller: Caller) -> Result<Response, Problem> {
    caller.need(Right::Backup)?;
    let named = &api.config.backup.recipients;
    let recipients = named.iter().map(|text| recipient(text)).collect::<anyhow::Result<Vec<Recipient>>>();
    let recipients = recipients.map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
    if recipients.is_empty() {
        let detail = "nobody could open a backup of this box: the configuration names no backup.recipients; make a \
                      key with age-keygen and name its public part there";
        return Err(Problem::new(Kind::BackupUnavailable, detail));
    }
    let permit = api.backups.clone().try_acquire_owned().map_err(|_| {
        let detail = "another backup is being made; wait for its end";
        Problem::new(Kind::BackupUnavailable, detail).retry_after(60)
    })?;
    let refused = |error| Problem::of_seal_error(error, &api.sealer);
    api.sealer.log_backup(caller.name(), named).await.map_err(refused)?;
    let copy = api.clone();
    let gathered = tokio::task::spawn_blocking(move || gather(&copy.config, copy.sealer.reader()))
        .await
        .map_err(|_| Problem::new(Kind::Internal, "the copy was interrupted; try again"))??;
    api.sealer.move_counter().await.map_err(refused)?;
    log::info!("operator {} takes a backup of {} entries", caller.name(), gathered.size);
    let name = format!("{}-{}.bulla-backup", gathered.origin.replace('/', "-"), gathered.size);
    let (sender, mut pieces) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        send(&api, &gathered, &recipients, Pieces { sender, runtime });
    });
    let body = Body::from_stream(stream::poll_fn(move |context| pieces.poll_recv(context)));
    let disposition = HeaderValue::from_maybe_shared(format!("attachment; filename=\"{name}\"").into_bytes());
    let disposition = disposition.map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(BACKUP_MEDIA_TYPE)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (CONTENT_DISPOSITION, disposition),
    ];
    Ok((StatusCode::OK, headers, body).into_response())
}

fn send(api: &Shared, gathered: &Gathered, recipients: &[Recipient], out: Pieces) {
    let (sender, runtime) = (out.sender.clone(), out.runtime.clone());
    let made = now_millis();
    let buffered = BufWriter::with_capacity(PIECE_BYTES, out);
    match pack(gathered, recipients, api.sealer.log_key(), made, buffered) {
        Ok(()) => {
            api.metrics.backups.fetch_add(1, Relaxed);
            api.metrics.last_backup_seconds.store(made / 1_000, Relaxed);
            log::info!("the backup is complete");
        }
        Err(error) => {
            log::warn!("the backup was not completed: {error:#}");
            // Ends the answer as broken, so that nobody takes what came for a backup.
            let broken = Err(io::Error::other("the backup was not completed"));
            drop(runtime.block_on(sender.send_timeout(broken, STALL)));
        }
    }
}

struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    runtime: Handle,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        self.runtime
            .block_on(self.sender.send_timeout(Ok(piece), STALL))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone or takes nothing"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
