//! Where boxes that nobody can reach wait: each has opened connections to the hub, and the hub speaks to it through them.
//!
//! What is spoken is TLS and HTTP as on any other connection to that box, so whoever takes a place here with a stolen token
//! gets nothing but a handshake that fails. A place is a name and a token, both of the configuration.
//! Refuses to do: take a box's word for anything; let more than [`WAITING_MAX`] connections wait in one place.
//! Invariant: a connection is handed out once, and only while it was seen to be alive a moment ago.

use crate::config::DialInConfig;
use crate::exit::Failure;
use bulla_formats::dial::{FULL, GO, GREETING_BYTES_MAX, Greeting, REFUSED, STILL, WAIT, is_token};
use bulla_formats::hash::{Hash, sha256};
use std::collections::{BTreeMap, VecDeque};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::sync::{oneshot, watch};
use tokio::time::{interval, timeout};
use zeroize::Zeroizing;

/// Connections of one box that wait.
const WAITING_MAX: usize = 16;
/// How often a connection that waits is told that the hub is still there.
const STILL_EVERY: Duration = Duration::from_secs(20);
/// How long a box may take to say whose place it takes.
const GREETING_MAX: Duration = Duration::from_secs(10);

/// One that waits: whoever sends it a stream has it.
struct Waiting {
    id: u64,
    take: oneshot::Sender<UnixStream>,
}

struct Place {
    token: Hash,
    waiting: Mutex<VecDeque<Waiting>>,
    arrived: Condvar,
}

impl Place {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, id: u64) {
        self.waiting().retain(|waiting| waiting.id != id);
    }
}

/// All places.
pub struct Room {
    places: BTreeMap<String, Place>,
    ids: AtomicU64,
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").field("places", &self.places.len()).finish()
    }
}

fn token(path: &Path) -> Result<Hash, Failure> {
    let refuse = |why: &str| Failure::usage(format!("serve.dial_in: {} {why}", path.display()));
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = text.map_err(|error| refuse(&format!("cannot be read ({error})")))?;
    let token = text.trim();
    if !is_token(token) {
        return Err(refuse("holds no token of 32 to 128 visible characters"));
    }
    Ok(sha256(&[token.as_bytes()]))
}

impl Room {
    /// Reads the tokens.
    pub fn open(places: &[DialInConfig]) -> Result<Self, Failure> {
        let place = |config: &DialInConfig| {
            let (token, waiting) = (token(&config.token_file)?, Mutex::default());
            Ok((config.name.clone(), Place { token, waiting, arrived: Condvar::new() }))
        };
        let places = places.iter().map(place).collect::<Result<_, Failure>>()?;
        Ok(Room { places, ids: AtomicU64::new(0) })
    }

    /// A stream to the box of that name, once one of its connections is there.
    pub fn take(&self, name: &str, patience: Duration) -> Result<UnixStream, String> {
        let place = self.places.get(name).ok_or_else(|| format!("serve.dial_in names no {name:?}"))?;
        let deadline = Instant::now() + patience;
        let mut waiting = place.waiting();
        loop {
            while let Some(first) = waiting.pop_front() {
                let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
                theirs.set_nonblocking(true).map_err(|error| error.to_string())?;
                // Else it has gone meanwhile.
                if first.take.send(theirs).is_ok() {
                    return Ok(ours);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("no connection of {name:?} waits here; does that box dial this hub?"));
            }
            waiting = place.arrived.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Attends to a connection whose handshake said that it dials. `permit` is held until the box has said who it is.
    pub async fn attend<S>(self: Arc<Self>, mut stream: S, permit: impl Sized, stop: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let greeted = timeout(GREETING_MAX, self.greeted(&mut stream)).await;
        let Ok(Some(place)) = greeted else {
            // It need not hear why the connection ends.
            let _ = timeout(GREETING_MAX, async {
                stream.write_all(&[REFUSED]).await?;
                stream.shutdown().await
            })
            .await;
            return;
        };
        drop(permit);
        // The box is elsewhere already when this fails.
        let _ = self.wait(place, stream, stop).await;
    }

    async fn greeted<S: AsyncRead + Unpin>(&self, stream: &mut S) -> Option<&Place> {
        let mut said = Zeroizing::new(Vec::with_capacity(GREETING_BYTES_MAX));
        while said.last() != Some(&b'\n') {
            if said.len() == GREETING_BYTES_MAX {
                return None;
            }
            said.push(stream.read_u8().await.ok()?);
        }
        let greeting = Greeting::parse(&said)?;
        let place = self.places.get(greeting.name())?;
        // Of hashes, how far two agree tells nothing of what was hashed.
        (sha256(&[greeting.token().as_bytes()]) == place.token).then_some(place)
    }

    async fn wait<S>(
        &self,
        place: &Place,
        mut stream: S,
        mut stop: watch::Receiver<bool>,
    ) -> std::io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (id, (take, mut taken)) = (self.ids.fetch_add(1, Ordering::Relaxed), oneshot::channel());
        // Looked at and taken under one lock: calls that come at once do not all find the last place free.
        let full = {
            let mut waiting = place.waiting();
            let full = waiting.len() >= WAITING_MAX;
            if !full {
                waiting.push_back(Waiting { id, take });
            }
            full
        };
        if full {
            stream.write_all(&[FULL]).await?;
            return stream.shutdown().await;
        }
        place.arrived.notify_all();
        // Whoever takes it now waits until this is said: the stream is spoken to by this task alone.
        let said = async {
            stream.write_all(&[WAIT]).await?;
            stream.flush().await
        };
        if let Err(error) = said.await {
            place.leave(id);
            return Err(error);
        }
        let mut still = interval(STILL_EVERY);
        still.tick().await;
        let mut byte = [0];
        let ended = loop {
            tokio::select! {
                local = &mut taken => match local {
                    Ok(local) => break Ok(Some(local)),
                    Err(_) => break Ok(None),
                },
                // It has nothing to say before it is spoken to: this is its end.
                _ = stream.read(&mut byte) => break Ok(None),
                () = stopped(&mut stop) => break Ok(None),
                _ = still.tick() => {
                    let said = async { stream.write_all(&[STILL]).await?; stream.flush().await };
                    match timeout(STILL_EVERY, said).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => break Err(error),
                        Err(late) => break Err(late.into()),
                    }
                }
            }
        };
        place.leave(id);
        // Taken and ended at once: whoever took it finds it closed.
        let Some(local) = ended? else { return Ok(()) };
        stream.write_all(&[GO]).await?;
        stream.flush().await?;
        let mut local = tokio::net::UnixStream::from_std(local)?;
        tokio::select! {
            copied = copy_bidirectional(&mut stream, &mut local) => copied.map(drop),
            () = stopped(&mut stop) => Ok(()),
        }
    }
}

/// Returns once the hub stops. The guard of the watch must not live across an await.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use tokio::io::duplex;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn room() -> Arc<Room> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{TOKEN}\n")).unwrap();
        let place = DialInConfig { name: "a".to_owned(), token_file: file.path().to_owned() };
        Arc::new(Room::open(&[place]).unwrap())
    }

    #[tokio::test]
    async fn a_connection_is_handed_out_once_and_carries_bytes_both_ways() {
        let (room, (_stop, stopped)) = (room(), watch::channel(false));
        let (mut branch, hub) = duplex(1 << 16);
        let attended = tokio::spawn(room.clone().attend(hub, (), stopped));
        branch.write_all(Greeting::new("a", TOKEN).unwrap().encode().as_bytes()).await.unwrap();
        assert_eq!(branch.read_u8().await.unwrap(), WAIT);
        let asked = room.clone();
        let mut local =
            tokio::task::spawn_blocking(move || asked.take("a", Duration::from_secs(60)).unwrap())
                .await
                .unwrap();
        assert_eq!(branch.read_u8().await.unwrap(), GO);
        assert!(room.take("a", Duration::ZERO).unwrap_err().contains("no connection"));
        branch.write_all(b"up").await.unwrap();
        let local = tokio::task::spawn_blocking(move || {
            let mut read = [0; 2];
            local.read_exact(&mut read).unwrap();
            local.write_all(b"down").unwrap();
            (local, read)
        });
        let (local, read) = local.await.unwrap();
        assert_eq!(&read, b"up");
        let mut read = [0; 4];
        branch.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"down");
        drop((local, branch));
        attended.await.unwrap();
    }

    #[tokio::test]
    async fn strangers_are_refused_and_the_dead_are_not_handed_out() {
        let (room, (stop, stopped)) = (room(), watch::channel(false));
        for said in [
            Greeting::new("b", TOKEN).unwrap().encode(),
            Greeting::new("a", &TOKEN.replace('0', "1")).unwrap().encode(),
            "GET / HTTP/1.1\r\n".to_owned(),
            "x".repeat(GREETING_BYTES_MAX),
        ] {
            let (mut branch, hub) = duplex(1 << 16);
            let attended = tokio::spawn(room.clone().attend(hub, (), stopped.clone()));
            branch.write_all(said.as_bytes()).await.unwrap();
            assert_eq!(branch.read_u8().await.unwrap(), REFUSED, "{said}");
            attended.await.unwrap();
        }
        let mut tasks = Vec::new();
        let mut branches = Vec::new();
        for at in 0..=WAITING_MAX {
            let (mut branch, hub) = duplex(1 << 16);
            tasks.push(tokio::spawn(room.clone().attend(hub, (), stopped.clone())));
            branch.write_all(Greeting::new("a", TOKEN).unwrap().encode().as_bytes()).await.unwrap();
            let expected = if at < WAITING_MAX { WAIT } else { FULL };
            assert_eq!(branch.read_u8().await.unwrap(), expected);
            branches.push(branch);
        }
        branches.clear();
        while !room.places["a"].waiting().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(room.take("a", Duration::ZERO).is_err());
        stop.send_replace(true);
        for task in tasks {
            task.await.unwrap();
        }
    }
}
