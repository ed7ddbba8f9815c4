//! One notification by mail: SMTP with STARTTLS, with TLS from the start, or in the clear where that was asked for.
//!
//! `lettre` speaks the protocol; connections are those of `crate::driver::outage::http`, so that names, refusals and TLS fail
//! in the same words.
//! Refuses to do: send in the clear what was to be encrypted, or a password in the clear; read without a limit; wait without
//! one; repeat what a server says, which may be anything.
//! Invariant: `Message-ID` and `Bulla-Notification` are the notification's, whenever it is sent.

use super::message::Mail;
use super::webhook::{SECRET_BYTES_MAX, read};
use super::{Attempt, Failed};
use crate::config::{AlertMail, MailTls};
use crate::driver::outage::http::{SYSTEM_CAS, Stream, Target};
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, AsyncTokioStream, Certificate, CertificateStore, TlsParameters,
};
use lettre::transport::smtp::extension::ClientId;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a server that are read at most, its certificates included.
const READ_MAX: usize = 256 << 10;

/// Sends it. `hello`: this box's own name.
pub async fn send(config: &AlertMail, hello: &str, id: &str, mail: &Mail, unix_millis: u64) -> Attempt {
    let message = compose(config, id, mail, unix_millis)?;
    let within = Duration::from_secs(config.timeout_seconds);
    // From here on nobody knows whether it arrived, unless the server says no.
    let handed_over = AtomicBool::new(false);
    match tokio::time::timeout(within, exchange(config, hello, &message, within, &handed_over)).await {
        Ok(result) => result,
        Err(_) => Err(Failed {
            words: format!("it did not take the mail within {} s", within.as_secs()),
            surely: !handed_over.load(Relaxed),
            retry_after: None,
        }),
    }
}

fn compose(config: &AlertMail, id: &str, mail: &Mail, unix_millis: u64) -> Result<Message, Failed> {
    let bad = |what: &str| Failed::here(format!("{what} is no mail address"));
    let mailbox = |address: &String| address.parse::<Mailbox>();
    let from = mailbox(&config.from).map_err(|_| bad("alerts.mail.from"))?;
    let domain = from.email.domain().to_owned();
    let raw = |name: &'static str, value: &str| {
        HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
    };
    let mut builder = Message::builder()
        .from(from)
        .date(UNIX_EPOCH + Duration::from_millis(unix_millis))
        .message_id(Some(format!("<{id}@{domain}>")))
        .raw_header(raw("Bulla-Notification", id))
        // RFC 3834: nobody shall answer "I am on holiday" to a box.
        .raw_header(raw("Auto-Submitted", "auto-generated"))
        .subject(mail.subject.clone())
        .header(ContentType::TEXT_PLAIN);
    for to in &config.to {
        builder = builder.to(mailbox(to).map_err(|_| bad("alerts.mail.to"))?);
    }
    builder.body(mail.text.clone()).map_err(|error| Failed::here(format!("no mail can be made: {error}")))
}

async fn exchange(
    config: &AlertMail,
    hello: &str,
    message: &Message,
    within: Duration,
    handed_over: &AtomicBool,
) -> Attempt {
    let cas = config.tls_ca.as_deref().unwrap_or(Path::new(SYSTEM_CAS));
    let here = |error: anyhow::Error| Failed::here(format!("{error:#}"));
    let before = (config.tls == MailTls::Tls).then_some(cas);
    let target = Target::of(&config.host, config.port(), before).map_err(here)?;
    let stream = Capped { stream: target.stream(within).await?, left: READ_MAX };
    let hello = match hello.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => ClientId::Ipv4(address),
        Ok(IpAddr::V6(address)) => ClientId::Ipv6(address),
        Err(_) => ClientId::Domain(hello.to_owned()),
    };
    let connected = AsyncSmtpConnection::connect_with_transport(Box::new(stream), &hello).await;
    let mut connection = connected.map_err(|error| refused("the greeting", &error))?;
    if config.tls == MailTls::StartTls {
        let parameters = tls(&config.host, cas)?;
        connection.starttls(parameters, &hello).await.map_err(|error| refused("STARTTLS", &error))?;
    }
    if let (Some(user), Some(file)) = (&config.user, &config.password_file) {
        let bytes = read(file)?;
        let password = std::str::from_utf8(&bytes).ok().filter(|text| !text.is_empty());
        let words = || {
            format!(
                "{} holds no password: one line of UTF-8, at most {SECRET_BYTES_MAX} bytes",
                file.display()
            )
        };
        let password = password.ok_or_else(|| Failed::here(words()))?;
        let credentials = Credentials::new(user.clone(), password.to_owned());
        let known = connection.auth(DEFAULT_MECHANISMS, &credentials).await;
        known.map_err(|error| refused("the user and the password", &error))?;
    }
    handed_over.store(true, Relaxed);
    let sent = connection.send(message.envelope(), &message.formatted()).await;
    sent.map_err(|error| Failed { surely: error.status().is_some(), ..refused("the mail", &error) })?;
    // It is taken; how the server likes the farewell does not matter.
    let _ = connection.quit().await;
    Ok(())
}

fn tls(host: &str, cas: &Path) -> Result<TlsParameters, Failed> {
    let unusable =
        |what: String| Failed::here(format!("the CAs in {} cannot be used: {what}", cas.display()));
    let pem = std::fs::read(cas).map_err(|error| unusable(error.to_string()))?;
    let roots = Certificate::from_pem(&pem).map_err(|error| unusable(error.to_string()))?;
    TlsParameters::builder(host.to_owned())
        .certificate_store(CertificateStore::None)
        .add_root_certificate(roots)
        .build_rustls()
        .map_err(|error| unusable(error.to_string()))
}

/// What a server refused; its own words are not repeated.
fn refused(what: &str, error: &lettre::transport::smtp::Error) -> Failed {
    let words = match error.status() {
        Some(code) => format!("it refused {what} with {code}"),
        None if error.is_client() => format!("{what}: it does not offer what is needed"),
        None if error.is_response() => format!("{what}: what it said is no SMTP"),
        None => format!("{what}: {error}"),
    };
    Failed { words, surely: true, retry_after: None }
}

/// A connection of which no more than so many bytes are read, and what the last buffer held.
#[derive(Debug)]
struct Capped {
    stream: Box<dyn Stream>,
    left: usize,
}

impl AsyncTokioStream for Capped {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        // lettre asks for it in log lines that are not built in.
        Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
    }
}

impl AsyncRead for Capped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            let what = format!("it has said more than {READ_MAX} bytes");
            return Poll::Ready(Err(io::Error::other(what)));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        // Beyond the limit by one buffer at most.
        self.left = self.left.saturating_sub(buffer.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Capped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
