//! A real S3 server of the test's own: SeaweedFS, all its parts in one process on free ports, its data in a directory that
//! goes with it.
//!
//! Refuses to do: skip; where the program is missing, it says how it is installed.

use super::{authority, free_ports, tool};
use object_store::ObjectStore as _;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer, AwsCredential};
use object_store::client::{HttpClient, HttpRequest};
use object_store::path::Path as Key;
use rcgen::{CertificateParams, KeyPair};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use ureq::http::Request;

pub const KEY: &str = "hub-key-id";
pub const SECRET: &str = "a-secret-that-is-never-said";
const REGION: &str = "us-east-1";

/// A server.
pub struct Weed {
    child: Child,
    pub s3: u16,
    /// The same over TLS, as 127.0.0.1 and under no other name.
    pub https: u16,
    /// The CA that certifies it (PEM).
    pub ca: PathBuf,
    /// Where its files can be had without credentials.
    pub filer: u16,
    runtime: Runtime,
    directory: TempDir,
}

impl Weed {
    /// A running server without buckets.
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("bulla-weed-").tempdir().unwrap();
        let identities = serde_json::json!({"identities": [{"name": "hub",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]});
        std::fs::write(directory.path().join("s3.json"), identities.to_string()).unwrap();
        let (pem, issuer) = authority("CA of the bank's servers");
        let key = KeyPair::generate().unwrap();
        let names = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        let certificate = names.signed_by(&key, &issuer).unwrap().pem();
        let ca = directory.path().join("ca.pem");
        for (name, text) in [("ca.pem", pem), ("s3.pem", certificate), ("s3.key", key.serialize_pem())] {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        std::fs::create_dir(directory.path().join("data")).unwrap();
        let program = tool("seaweedfs/bin/weed");
        // A port that was free a moment ago may be somebody else's by now.
        for _ in 0..5 {
            let ports = free_ports::<9>();
            let mut command = Command::new(&program);
            command.args(["-logtostderr", "server", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]);
            command.args([
                "-filer",
                "-s3",
                "-s3.config=s3.json",
                "-s3.iam=false",
                "-s3.autoCreateBucket=false",
                "-volume.max=40",
            ]);
            command.args(["-s3.cert.file=s3.pem", "-s3.key.file=s3.key"]);
            command.arg(format!("-s3.port.https={}", ports[8]));
            command.args(["-master.volumeSizeLimitMB=64", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
            let names = ["master", "volume", "filer", "s3"];
            for (name, pair) in names.iter().zip(ports[..8].chunks(2)) {
                command.arg(format!("-{name}.port={}", pair[0]));
                command.arg(format!("-{name}.port.grpc={}", pair[1]));
            }
            let log = std::fs::File::create(directory.path().join("log")).unwrap();
            command.current_dir(directory.path()).stdout(Stdio::null()).stderr(log);
            let mut child = command.spawn().unwrap();
            let end = Instant::now() + Duration::from_secs(60);
            while Instant::now() < end && child.try_wait().unwrap().is_none() {
                if answers(ports[6]) && answers(ports[4]) {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    let [.., filer, _, s3, _, https] = ports;
                    return Weed { child, s3, https, ca, filer, runtime, directory };
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("{}", std::fs::read_to_string(directory.path().join("log")).unwrap());
    }

    fn client(&self) -> HttpClient {
        HttpClient::new(reqwest::Client::builder().no_proxy().build().unwrap())
    }

    /// A signed request; returns status and body.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let mut request =
            Request::builder().method(method).uri(format!("http://127.0.0.1:{}{path}", self.s3));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request: HttpRequest = request.body(body.to_owned().into()).unwrap();
        let credential = AwsCredential { key_id: KEY.into(), secret_key: SECRET.into(), token: None };
        AwsAuthorizer::new(&credential, "s3", REGION).authorize(&mut request, None);
        self.runtime.block_on(async {
            let answer = self.client().execute(request).await.unwrap();
            let status = answer.status().as_u16();
            (status, String::from_utf8(answer.into_body().bytes().await.unwrap().to_vec()).unwrap())
        })
    }

    /// Makes a bucket; the server may still be assembling itself.
    pub fn make(&self, bucket: &str, headers: &[(&str, &str)]) {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let (status, said) = self.ask("PUT", &format!("/{bucket}"), headers, "");
            let (put, why) = self.ask("PUT", &format!("/{bucket}/ready"), &[], "x");
            if put == 200 {
                assert_eq!(self.ask("DELETE", &format!("/{bucket}/ready"), &[], "").0, 204);
                return;
            }
            assert!(Instant::now() < end, "{status} {said} {put} {why}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn store(&self, bucket: &str) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_endpoint(format!("http://127.0.0.1:{}", self.s3))
            .with_allow_http(true)
            .with_bucket_name(bucket)
            .with_region(REGION)
            .with_access_key_id(KEY)
            .with_secret_access_key(SECRET)
            .build()
            .unwrap()
    }

    /// Every object below `prefix`, by its name there.
    pub fn contents(&self, bucket: &str, prefix: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        use futures_util::TryStreamExt as _;
        let (store, root) = (self.store(bucket), Key::from(prefix));
        self.runtime.block_on(async {
            let all: Vec<_> = store.list(Some(&root)).try_collect().await.unwrap();
            let mut found = BTreeMap::new();
            for object in all {
                let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
                let name = object.location.to_string();
                found.insert(PathBuf::from(&name[prefix.len() + 1..]), bytes.to_vec());
            }
            found
        })
    }

    /// Puts an object in the place of what is there.
    pub fn put(&self, bucket: &str, key: &str, bytes: Vec<u8>) {
        self.runtime.block_on(self.store(bucket).put(&Key::from(key), bytes.into())).unwrap();
    }

    /// Takes an object away.
    pub fn delete(&self, bucket: &str, key: &str) {
        self.runtime.block_on(self.store(bucket).delete(&Key::from(key))).unwrap();
    }

    /// The section of a hub's configuration for this bucket, by way of this port. Also writes the file of credentials.
    pub fn section(&self, port: u16, bucket: &str, prefix: &str, more: &str) -> String {
        let file = self.directory.path().join("credentials.toml");
        let text = format!("access_key_id = {KEY:?}\nsecret_access_key = {SECRET:?}\n");
        std::fs::write(&file, text).unwrap();
        format!(
            "[s3]\nendpoint = \"http://127.0.0.1:{port}\"\nbucket = {bucket:?}\nprefix = {prefix:?}\n\
             credentials_file = {file:?}\n{more}"
        )
    }

    /// The same over TLS, believing this CA.
    pub fn section_over_tls(&self, host: &str, ca: &Path, prefix: &str, more: &str) -> String {
        let plain = self.section(self.s3, "archive", prefix, more);
        let endpoint = format!("endpoint = \"https://{host}:{}\"\nca = {ca:?}\n", self.https);
        plain.replace(&format!("endpoint = \"http://127.0.0.1:{}\"\n", self.s3), &endpoint)
    }
}

fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    let mut start = [0; 5];
    asked.is_ok() && stream.read_exact(&mut start).is_ok() && &start == b"HTTP/"
}

impl Drop for Weed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
