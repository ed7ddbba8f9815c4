//! A mail server that takes alerts: aiosmtpd, with STARTTLS or TLS from the start, and a user with a password.
//!
//! It is a process of its own that a test may end and start again on its port. What it took is kept.
//! Refuses to do: take a mail in the clear, or of a stranger.

use anyhow::{Context, Result, bail, ensure};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Who may send.
pub const USER: &str = "box-17";
/// What it proves itself by.
pub const PASSWORD: &str = "S3CR3T-password";

const SERVER: &str = r#"
import asyncio, email, email.policy, json, ssl, sys
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
certificate, key, mode, port, user, password = sys.argv[1:7]
class Handler:
    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        print(json.dumps({
            "from": envelope.mail_from, "to": envelope.rcpt_tos, "authenticated": bool(session.authenticated),
            "tls": mode == "tls" or session.ssl is not None, "subject": mail["Subject"], "id": mail["Message-ID"],
            "notification": mail["Bulla-Notification"], "automatic": mail["Auto-Submitted"], "text": mail.get_content(),
        }), flush=True)
        return "250 taken"
def known(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and data.login == user.encode() and data.password == password.encode()
    return AuthResult(success=good, handled=good)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
def session():
    starttls = mode == "starttls"
    return SMTP(Handler(), hostname="mail.test", tls_context=context if starttls else None, require_starttls=starttls,
                authenticator=known, auth_required=True, auth_require_tls=starttls)
async def main():
    implicit = context if mode == "tls" else None
    server = await asyncio.get_running_loop().create_server(session, "127.0.0.1", int(port), ssl=implicit)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()
asyncio.run(main())
"#;

/// Python with aiosmtpd: below the target directory, where `cargo xtask setup` puts it; or what `BULLA_SMTP_PYTHON` names.
fn python() -> Result<PathBuf> {
    let python = match std::env::var_os("BULLA_SMTP_PYTHON") {
        Some(path) => PathBuf::from(path),
        None => {
            let test = std::env::current_exe()?;
            let target = test.ancestors().nth(3).context("a test binary is three levels below the target")?;
            target.join("tools/aiosmtpd/bin/python")
        }
    };
    ensure!(python.is_file(), "{} is missing; run: cargo xtask setup", python.display());
    Ok(python)
}

/// The server.
pub struct Mailbox {
    mode: &'static str,
    port: u16,
    running: Option<Child>,
    mails: Arc<Mutex<Vec<Value>>>,
    directory: TempDir,
}

impl Mailbox {
    /// Starts one; `mode` is `starttls` or `tls`.
    pub fn start(mode: &'static str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("bulla-mail-").tempdir()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate()?;
        let ca = params.self_signed(&ca_key)?;
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()])?
            .signed_by(&key, &Issuer::from_params(&params, &ca_key))?;
        for (name, text) in
            [("ca.pem", ca.pem()), ("server.pem", leaf.pem()), ("server.key", key.serialize_pem())]
        {
            std::fs::write(directory.path().join(name), text)?;
        }
        std::fs::write(directory.path().join("password"), format!("{PASSWORD}\n"))?;
        let mut mailbox = Mailbox { mode, port: 0, running: None, mails: Arc::default(), directory };
        mailbox.open()?;
        Ok(mailbox)
    }

    /// Starts it again, on the port that it had.
    pub fn open(&mut self) -> Result<()> {
        let mut child = Command::new(python()?)
            .args(["-c", SERVER, "server.pem", "server.key", self.mode])
            .args([&self.port.to_string(), USER, PASSWORD])
            .current_dir(self.directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start aiosmtpd")?;
        let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        self.running = Some(child);
        let first: Value = serde_json::from_str(&lines.next().context("aiosmtpd does not run")??)?;
        self.port = first["port"].as_u64().and_then(|port| u16::try_from(port).ok()).context("a port")?;
        let mails = self.mails.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mail = serde_json::from_str(&line).unwrap_or_default();
                mails.lock().unwrap_or_else(PoisonError::into_inner).push(mail);
            }
        });
        Ok(())
    }

    /// Ends it; connections are refused from now on.
    pub fn close(&mut self) -> Result<()> {
        if let Some(mut child) = self.running.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Lines of `box.toml` for it.
    pub fn toml(&self, name: &str) -> String {
        let file = |file: &str| self.directory.path().join(file);
        format!(
            "[[alerts.mail]]\nname = {name:?}\nhost = \"127.0.0.1\"\nport = {}\ntls = {:?}\ntls_ca = {:?}\n\
             from = \"Box 17 <box-17@bank.example>\"\nto = [\"it@bank.example\", \"desk@bank.example\"]\n\
             user = {USER:?}\npassword_file = {:?}\n",
            self.port,
            self.mode,
            file("ca.pem"),
            file("password"),
        )
    }

    /// Everything that was taken.
    pub fn mails(&self) -> Vec<Value> {
        self.mails.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The mails, once `holds` says so of them.
    pub fn wait(
        &self,
        what: &str,
        patience: Duration,
        holds: impl Fn(&[Value]) -> bool,
    ) -> Result<Vec<Value>> {
        let until = Instant::now() + patience;
        loop {
            let mails = self.mails();
            if holds(&mails) {
                return Ok(mails);
            }
            if Instant::now() > until {
                bail!("{what}: not within {patience:?}; what came is {mails:#?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let _ = self.close();
    }
}
