//! Registered clients: who may talk to the box, in which role, and how they prove it.
//!
//! `<state>/clients.json` (mode 0600) holds names, roles and hashes of tokens, never tokens. `bulla-box
//! scanner add|revoke` replaces the file atomically under a lock; the running box looks at the file's
//! identity on every authentication and reads it again when it changed, so that a revocation counts at once.
//! Refuses to do: authenticate anybody while the file is unreadable; give a name to a second client, even
//! after revocation, because names are in seals for ever; believe a file whose checksum is not that of its bytes.
//! Invariant: a [`RegisteredClient`] handed out was not revoked when the file was last looked at.

use crate::driver::clock::now_millis;
use crate::list_file::{Fault, ListFile, Stamp};
use crate::people;
use crate::random;
use bulla_formats::body::seal::ClientMethod;
use bulla_formats::body::self_test;
use bulla_formats::checked_json;
use bulla_formats::hash::sha256;
use bulla_formats::report::utc;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use zeroize::Zeroizing;

/// What every token starts with, so that secret scanners find leaked ones.
pub const TOKEN_PREFIX: &str = "bulla_";
/// Format of the file: clients with their limits, closed by a checksum.
const FORMAT: &str = "clients/v2";

/// Why clients cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ClientsError {
    /// The operating system refused.
    #[error("{path}: {source}; check that it exists and that this user may use it")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// The file is there but not understood.
    #[error("{path} is not a list of clients ({reason}); restore it from a copy")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The name has been given.
    #[error("the name {0:?} was given before; names stay in seals for ever, so choose another")]
    Taken(String),
    /// The common name already stands for a client.
    #[error("the common name {common_name:?} already stands for client {client:?}; revoke that one first")]
    TakenCommonName {
        /// The common name.
        common_name: String,
        /// Who has it.
        client: String,
    },
    /// The name cannot be used.
    #[error("{0:?} is not a client name: use 1 to 64 of the characters a-z A-Z 0-9 . _ -")]
    Name(String),
    /// The name is the box's own.
    #[error(
        "the name {0:?} is the box's own: its self-tests and its console seal under such names; choose another"
    )]
    Reserved(String),
    /// The common name cannot be used.
    #[error("a certificate's common name has 1 to 255 characters")]
    CommonName,
    /// No such client.
    #[error("no client is named {0:?}; see `bulla-box scanner list`")]
    Unknown(String),
    /// It was revoked before.
    #[error("client {0:?} is revoked already")]
    Revoked(String),
    /// The operating system has no randomness.
    #[error("no random bytes for a token: {0}")]
    Random(String),
}

impl From<Fault> for ClientsError {
    fn from(Fault { path, source }: Fault) -> Self {
        ClientsError::Io { path, source }
    }
}

/// What a client may do; `docs/api.md` has the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Seals documents, reads its own seals.
    Scanner,
    /// Reads everything, seals nothing.
    Reader,
    /// Reads everything and rotates epochs.
    Operator,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 3] = [Role::Scanner, Role::Reader, Role::Operator];

    /// The name used in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Role::Scanner => "scanner",
            Role::Reader => "reader",
            Role::Operator => "operator",
        }
    }
}

/// How a client proves who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind", deny_unknown_fields)]
pub enum Method {
    /// A bearer token with this SHA-256 (hex).
    Token {
        /// SHA-256 of the token's text.
        sha256: String,
    },
    /// A TLS client certificate with this common name, under `tls.client_ca`.
    Certificate {
        /// Common name of its subject.
        #[serde(rename = "commonName")]
        common_name: String,
    },
}

/// Limits of one client in place of those of the configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClientLimits {
    /// Requests a second; 0: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
    /// Largest document in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_bytes_max: Option<u64>,
}

impl ClientLimits {
    /// Whether the configuration's limits are in force.
    pub fn is_default(&self) -> bool {
        *self == ClientLimits::default()
    }
}

/// One client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RegisteredClient {
    /// Its name; in every seal it makes.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// How it proves who it is.
    pub method: Method,
    /// When it was added (Unix milliseconds).
    pub created_millis: u64,
    /// When it was revoked; absent while it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_millis: Option<u64>,
    /// Limits of its own.
    #[serde(default, skip_serializing_if = "ClientLimits::is_default")]
    pub limits: ClientLimits,
}

impl RegisteredClient {
    /// The method as seals name it.
    pub fn seal_method(&self) -> ClientMethod {
        match self.method {
            Method::Token { .. } => ClientMethod::BearerToken,
            Method::Certificate { .. } => ClientMethod::ClientCertificate,
        }
    }
}

impl fmt::Display for RegisteredClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match &self.method {
            Method::Token { .. } => "token".to_owned(),
            Method::Certificate { common_name } => format!("certificate {common_name:?}"),
        };
        let (name, role, created) = (&self.name, self.role.name(), utc(self.created_millis));
        write!(f, "{name}\t{role}\t{method}\tadded {created}")?;
        if let Some(rate) = self.limits.requests_per_second {
            write!(f, "\trate {rate}")?;
        }
        if let Some(most) = self.limits.document_bytes_max {
            write!(f, "\tmax-bytes {most}")?;
        }
        match self.revoked_millis {
            Some(revoked) => write!(f, "\trevoked {}", utc(revoked)),
            None => Ok(()),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientsFile {
    bulla: String,
    clients: Vec<RegisteredClient>,
}

#[derive(Default)]
struct Snapshot {
    stamp: Option<Stamp>,
    by_token: HashMap<[u8; 32], Arc<RegisteredClient>>,
    by_common_name: HashMap<String, Arc<RegisteredClient>>,
}

/// The clients of one box.
pub struct ClientStore {
    file: ListFile,
    current: RwLock<Arc<Snapshot>>,
}

impl ClientStore {
    /// The clients in `state_dir`; nothing is read yet. No file means no clients.
    pub fn new(state_dir: &Path) -> Self {
        ClientStore { file: ListFile::new(state_dir, "clients"), current: RwLock::default() }
    }

    /// The unrevoked client with this token.
    pub fn by_token(&self, token: &str) -> Result<Option<Arc<RegisteredClient>>, ClientsError> {
        // Looking up the hash, not the token, leaves timing nothing to tell.
        let hash = sha256(&[token.as_bytes()]);
        Ok(self.snapshot()?.by_token.get(&hash.0).cloned())
    }

    /// The unrevoked client of a verified certificate with this common name.
    pub fn by_common_name(&self, name: &str) -> Result<Option<Arc<RegisteredClient>>, ClientsError> {
        Ok(self.snapshot()?.by_common_name.get(name).cloned())
    }

    /// The unrevoked client of this name.
    pub fn by_name(&self, name: &str) -> Result<Option<Arc<RegisteredClient>>, ClientsError> {
        let snapshot = self.snapshot()?;
        let mut all = snapshot.by_token.values().chain(snapshot.by_common_name.values());
        Ok(all.find(|client| client.name == name).cloned())
    }

    /// Whether this registration is still in force.
    pub fn is_current(&self, client: &RegisteredClient) -> Result<bool, ClientsError> {
        let snapshot = self.snapshot()?;
        let current = match &client.method {
            Method::Token { sha256 } => {
                let mut hash = [0; 32];
                hex::decode_to_slice(sha256, &mut hash).ok().and_then(|()| snapshot.by_token.get(&hash))
            }
            Method::Certificate { common_name } => snapshot.by_common_name.get(common_name),
        };
        Ok(current.is_some_and(|current| current.name == client.name))
    }

    /// All clients, revoked ones included, in the order they were added.
    pub fn list(&self) -> Result<Vec<RegisteredClient>, ClientsError> {
        Ok(self.read()?.1)
    }

    /// Registers a client with a new token and returns the token, which is not kept anywhere.
    pub fn add_token(
        &self,
        name: &str,
        role: Role,
        limits: ClientLimits,
    ) -> Result<Zeroizing<String>, ClientsError> {
        let token = new_token()?;
        let sha256 = sha256(&[token.as_bytes()]).to_string();
        self.add(name, role, Method::Token { sha256 }, limits)?;
        Ok(token)
    }

    /// Registers a client that proves itself with a certificate of this common name.
    pub fn add_certificate(
        &self,
        name: &str,
        role: Role,
        common_name: &str,
        limits: ClientLimits,
    ) -> Result<(), ClientsError> {
        if common_name.is_empty() || common_name.len() > 255 {
            return Err(ClientsError::CommonName);
        }
        self.add(name, role, Method::Certificate { common_name: common_name.to_owned() }, limits)
    }

    /// Revokes a client; it is refused from the next request on.
    pub fn revoke(&self, name: &str) -> Result<(), ClientsError> {
        self.change(|clients| {
            let client = clients.iter_mut().find(|client| client.name == name);
            let client = client.ok_or_else(|| ClientsError::Unknown(name.to_owned()))?;
            if client.revoked_millis.is_some() {
                return Err(ClientsError::Revoked(name.to_owned()));
            }
            client.revoked_millis = Some(now_millis());
            Ok(())
        })
    }

    /// Gives a client limits of its own, in place of those it had; they count from its next request on.
    pub fn limit(&self, name: &str, limits: ClientLimits) -> Result<(), ClientsError> {
        self.change(|clients| {
            let client = clients.iter_mut().find(|client| client.name == name);
            let client = client.ok_or_else(|| ClientsError::Unknown(name.to_owned()))?;
            if client.revoked_millis.is_some() {
                return Err(ClientsError::Revoked(name.to_owned()));
            }
            client.limits = limits;
            Ok(())
        })
    }

    fn add(&self, name: &str, role: Role, method: Method, limits: ClientLimits) -> Result<(), ClientsError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
            return Err(ClientsError::Name(name.chars().take(80).collect()));
        }
        if name == self_test::CLIENT || people::is_reserved(name) {
            return Err(ClientsError::Reserved(name.to_owned()));
        }
        self.change(|clients| {
            if clients.iter().any(|client| client.name == name) {
                return Err(ClientsError::Taken(name.to_owned()));
            }
            if let Method::Certificate { common_name } = &method
                && let Some(other) = clients.iter().find(|c| c.method == method && c.revoked_millis.is_none())
            {
                let (common_name, client) = (common_name.clone(), other.name.clone());
                return Err(ClientsError::TakenCommonName { common_name, client });
            }
            let (name, created_millis) = (name.to_owned(), now_millis());
            clients.push(RegisteredClient {
                name,
                role,
                method,
                created_millis,
                revoked_millis: None,
                limits,
            });
            Ok(())
        })
    }

    fn change(
        &self,
        edit: impl FnOnce(&mut Vec<RegisteredClient>) -> Result<(), ClientsError>,
    ) -> Result<(), ClientsError> {
        let lock = self.file.lock()?;
        let (_, mut clients) = self.read()?;
        edit(&mut clients)?;
        let text = text(clients).expect("strings and numbers always serialise");
        Ok(self.file.replace(&lock, text.as_bytes())?)
    }

    /// The stamp is taken before reading: a file replaced in between is read again next time.
    fn read(&self) -> Result<(Option<Stamp>, Vec<RegisteredClient>), ClientsError> {
        let stamp = self.file.stamp()?;
        if stamp.is_none() {
            return Ok((None, Vec::new()));
        }
        let bytes = self.file.read()?;
        let clients = parse(&bytes).map_err(|reason| self.damaged(reason))?;
        Ok((stamp, clients))
    }

    fn damaged(&self, reason: String) -> ClientsError {
        ClientsError::Damaged { path: self.file.path().to_owned(), reason }
    }

    fn snapshot(&self) -> Result<Arc<Snapshot>, ClientsError> {
        let stamp = self.file.stamp()?;
        {
            let current = self.current.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            if current.stamp == stamp {
                return Ok(Arc::clone(&current));
            }
        }
        let (stamp, clients) = self.read()?;
        let mut fresh = Snapshot { stamp, ..Snapshot::default() };
        for client in clients.into_iter().filter(|client| client.revoked_millis.is_none()) {
            let client = Arc::new(client);
            match &client.method {
                Method::Token { sha256 } => {
                    let mut hash = [0; 32];
                    hex::decode_to_slice(sha256, &mut hash).map_err(|_| {
                        self.damaged(format!("the token hash of {:?} is not 64 hex digits", client.name))
                    })?;
                    fresh.by_token.insert(hash, Arc::clone(&client));
                }
                Method::Certificate { common_name } => {
                    fresh.by_common_name.insert(common_name.clone(), Arc::clone(&client));
                }
            }
        }
        let fresh = Arc::new(fresh);
        *self.current.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::clone(&fresh);
        Ok(fresh)
    }
}

/// The clients in the bytes of their file; else what is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<Vec<RegisteredClient>, String> {
    let bytes = checked_json::body(bytes).map_err(|error| error.to_string())?;
    let file: ClientsFile = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if file.bulla != FORMAT {
        return Err(format!("it is of format {:?}", file.bulla));
    }
    Ok(file.clients)
}

/// The text of their file.
pub fn text(clients: Vec<RegisteredClient>) -> Result<String, serde_json::Error> {
    let file = ClientsFile { bulla: FORMAT.to_owned(), clients };
    Ok(checked_json::with_checksum(&serde_json::to_string_pretty(&file)?))
}

/// `bulla_` and 32 random bytes in lower-case base32.
fn new_token() -> Result<Zeroizing<String>, ClientsError> {
    random::text::<32>(TOKEN_PREFIX).map_err(ClientsError::Random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_client_added_by_another_process_counts_at_once_and_a_revoked_one_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let running = ClientStore::new(directory.path());
        let administrator = ClientStore::new(directory.path());
        assert!(running.by_token("bulla_nobody").unwrap().is_none());
        let token = administrator.add_token("mfp-1", Role::Scanner, ClientLimits::default()).unwrap();
        assert_eq!(token.len(), TOKEN_PREFIX.len() + 52);
        let found = running.by_token(&token).unwrap().unwrap();
        assert_eq!((found.name.as_str(), found.role), ("mfp-1", Role::Scanner));
        assert_eq!(found.seal_method(), ClientMethod::BearerToken);
        assert!(running.by_token(&token[..token.len() - 1]).unwrap().is_none());
        administrator
            .add_certificate("mfp-2", Role::Reader, "mfp-2.bank.example", ClientLimits::default())
            .unwrap();
        assert_eq!(running.by_common_name("mfp-2.bank.example").unwrap().unwrap().name, "mfp-2");
        administrator.revoke("mfp-1").unwrap();
        administrator.revoke("mfp-2").unwrap();
        assert!(running.by_token(&token).unwrap().is_none());
        assert!(running.by_common_name("mfp-2.bank.example").unwrap().is_none());
        assert_eq!(administrator.list().unwrap().len(), 2);
    }

    #[test]
    fn names_are_given_once_and_tokens_are_not_stored() {
        let directory = tempfile::tempdir().unwrap();
        let store = ClientStore::new(directory.path());
        let token = store.add_token("desk", Role::Operator, ClientLimits::default()).unwrap();
        store.revoke("desk").unwrap();
        assert!(matches!(store.revoke("desk"), Err(ClientsError::Revoked(_))));
        assert!(matches!(store.revoke("nobody"), Err(ClientsError::Unknown(_))));
        assert!(matches!(
            store.add_token("desk", Role::Reader, ClientLimits::default()),
            Err(ClientsError::Taken(_))
        ));
        for bad in ["", "a b", "ä", &"x".repeat(65)] {
            assert!(
                matches!(
                    store.add_token(bad, Role::Reader, ClientLimits::default()),
                    Err(ClientsError::Name(_))
                ),
                "{bad:?}"
            );
        }
        assert!(matches!(
            store.add_token(self_test::CLIENT, Role::Scanner, ClientLimits::default()),
            Err(ClientsError::Reserved(_))
        ));
        store.add_certificate("a", Role::Scanner, "cn", ClientLimits::default()).unwrap();
        let again = store.add_certificate("b", Role::Scanner, "cn", ClientLimits::default());
        assert!(matches!(again, Err(ClientsError::TakenCommonName { .. })));
        let path = directory.path().join("clients.json");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!fs::read_to_string(path).unwrap().contains(&token[TOKEN_PREFIX.len()..]));
    }

    #[test]
    fn limits_of_a_client_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let (store, path) = (ClientStore::new(directory.path()), directory.path().join("clients.json"));
        let token = store.add_token("gateway", Role::Scanner, ClientLimits::default()).unwrap();
        let first = fs::read_to_string(&path).unwrap();
        assert!(!first.contains("limits"));
        let own = ClientLimits { requests_per_second: Some(0), document_bytes_max: Some(1 << 20) };
        store.limit("gateway", own).unwrap();
        assert_eq!(store.by_token(&token).unwrap().unwrap().limits, own);
        store.limit("gateway", ClientLimits::default()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), first);
        assert!(matches!(store.limit("nobody", own), Err(ClientsError::Unknown(_))));
        store.revoke("gateway").unwrap();
        assert!(matches!(store.limit("gateway", own), Err(ClientsError::Revoked(_))));
    }

    #[test]
    fn a_damaged_file_lets_nobody_in() {
        let directory = tempfile::tempdir().unwrap();
        let store = ClientStore::new(directory.path());
        let token = store.add_token("desk", Role::Operator, ClientLimits::default()).unwrap();
        assert!(store.by_token(&token).unwrap().is_some());
        let path = directory.path().join("clients.json");
        let promoted = fs::read_to_string(&path).unwrap().replace("operator", "scanner");
        for bad in [
            "{".to_owned(),
            promoted,
            "{\"bulla\":\"clients/v2\",\"clients\":[]}".to_owned(),
            checked_json::with_checksum("{\"bulla\":\"clients/v3\",\"clients\":[]}"),
            checked_json::with_checksum("{\"bulla\":\"clients/v2\",\"clients\":[],\"x\":1}"),
        ] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(store.by_token(&token), Err(ClientsError::Damaged { .. })));
        }
    }
}
