//! People who are known to a hub by a certificate: let in by role, named in the list of queries; and whatever is not such a
//! certificate ends at the handshake, or is nobody.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::hash::sha256;
use bulla_tests::rig::hub::{HubKeys, HubRig};
use bulla_tests::rig::{Keys, Rig, RigOptions, Role};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, SystemTime};
use ureq::Agent;
use ureq::tls::{ClientCert, PrivateKey, RootCerts, TlsConfig};

const DAY: Duration = Duration::from_secs(86_400);

/// A CA of people.
struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// What somebody shows: the chain, and the key.
struct Card {
    chain: Vec<Vec<u8>>,
    key: KeyPair,
}

fn ca(name: &str) -> Result<(CertificateParams, KeyPair)> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok((params, KeyPair::generate()?))
}

impl Authority {
    fn new(name: &str) -> Result<Self> {
        let (params, key) = ca(name)?;
        let certificate = params.self_signed(&key)?;
        Ok(Authority { certificate, issuer: Issuer::new(params, key) })
    }

    /// An authority below this one.
    fn below(&self, name: &str) -> Result<Self> {
        let (params, key) = ca(name)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Authority { certificate, issuer: Issuer::new(params, key) })
    }

    fn card(&self, change: impl FnOnce(&mut CertificateParams)) -> Result<Card> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = (SystemTime::now() - DAY).into();
        params.not_after = (SystemTime::now() + DAY).into();
        change(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Card { chain: vec![certificate.der().to_vec()], key })
    }

    fn named(&self, common: &str) -> Result<Card> {
        self.card(|params| params.distinguished_name.push(DnType::CommonName, common))
    }
}

impl Card {
    fn sha256(&self) -> String {
        sha256(&[&self.chain[0]]).to_string()
    }

    fn agent(&self, keys: &HubKeys) -> Result<Agent> {
        let own = ureq::tls::Certificate::from_pem(&fs::read(&keys.certificate)?)?;
        let chain: Vec<_> =
            self.chain.iter().map(|der| ureq::tls::Certificate::from_der(der).to_owned()).collect();
        let key = PrivateKey::from_pem(self.key.serialize_pem().as_bytes())?;
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&[own]))
            .client_cert(Some(ClientCert::new_with_certs(&chain, key)));
        let config = Agent::config_builder().tls_config(tls.build()).http_status_as_error(false).proxy(None);
        Ok(config.timeout_global(Some(Duration::from_secs(60))).build().new_agent())
    }
}

fn ask(agent: &Agent, keys: &HubKeys, path: &str, token: Option<&str>) -> Result<(u16, Value)> {
    let mut request = agent.get(format!("{}{path}", keys.url));
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let mut answer = request.call()?;
    Ok((answer.status().as_u16(), serde_json::from_str(&answer.body_mut().read_to_string()?)?))
}

#[test]
fn people_are_known_by_a_certificate_of_one_ca_and_by_nothing_like_it() -> Result<()> {
    let rig = Rig::start_with(&RigOptions {
        keys: Keys::Software,
        residency: "software",
        ..RigOptions::default()
    })?;
    let seal = rig.client(Role::Scanner).seal(b"deed")?.seal()?;
    let hub = HubRig::create(&[("branch", &seal.origin, &[(&rig, false)])])?;
    hub.pull("branch")?;
    let keys = hub.furnish_serve("hub.example/north")?;
    let without = fs::read_to_string(hub.file("hub.toml"))?;
    let add = ["people", "add", "anna", "--role", "auditor", "--certificate", "Anna Berg"];
    hub.lines(&add, 2).context("nobody vouches for certificates yet")?;
    let people = Authority::new("People of the bank")?;
    let place = hub.file("people-ca.pem");
    fs::write(
        hub.file("hub.toml"),
        without.replace("[serve]\n", &format!("[serve]\nclient_ca = {place:?}\n")),
    )?;
    let refused = hub.run(&["serve"])?;
    let words = String::from_utf8(refused.stderr)?;
    ensure!(refused.status.code() == Some(2) && words.contains("serve.client_ca"), "{words}");
    fs::write(&place, people.certificate.pem())?;
    let said = hub.lines(&add, 0)?;
    ensure!(said[0]["token"].is_null() && said[0]["certificate"] == "Anna Berg", "{}", said[0]);
    hub.lines(&["people", "add", "otto", "--role", "operator", "--certificate", "Otto Amann"], 0)?;
    hub.lines(&["people", "add", "olga", "--role", "operator", "--certificate", "Otto Amann"], 2)?;
    let vera = hub.lines(&["people", "add", "vera", "--role", "supervisor"], 0)?[0]["token"].clone();
    let vera = vera.as_str().context("a token")?;
    let serving = hub.serve()?;

    let find = format!("/v1/find?digest=sha-256:{}", sha256(&[b"deed"]));
    let (anna, otto) = (people.named("Anna Berg")?, people.named("Otto Amann")?);
    let (as_anna, as_otto) = (anna.agent(&keys)?, otto.agent(&keys)?);
    let (status, found) = ask(&as_anna, &keys, &find, None)?;
    ensure!(status == 200 && found["rows"][0]["origin"] == seal.origin.as_str(), "{found}");
    assert_eq!(ask(&as_otto, &keys, "/v1/status", None)?.0, 200);
    // The role is too small.
    let (status, problem) = ask(&as_otto, &keys, &find, None)?;
    ensure!(status == 403 && problem["type"] == "urn:bulla:problem:hub-forbidden", "{problem}");
    // A token decides: for somebody else, and against whom it does not know.
    assert_eq!(ask(&as_otto, &keys, &find, Some(vera))?.0, 200);
    assert_eq!(ask(&as_anna, &keys, &find, Some("bullahub_00"))?.0, 401);
    // A renewed certificate is the same person, one of an authority below as well.
    assert_eq!(ask(&people.named("Anna Berg")?.agent(&keys)?, &keys, &find, None)?.0, 200);
    let office = people.below("Office of the people")?;
    let mut renewed = office.named("Anna Berg")?;
    renewed.chain.push(office.certificate.der().to_vec());
    assert_eq!(ask(&renewed.agent(&keys)?, &keys, &find, None)?.0, 200);

    // Good certificates of nobody: whom the hub does not know; who has no name, or two.
    let nobodies = [
        people.named("anna")?,
        people.named("Anna Berg ")?,
        people.card(|_| ())?,
        people.card(|params| {
            params.distinguished_name.push(DnType::CommonName, "Anna Berg");
            params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "Otto Amann");
        })?,
        people.card(|params| params.distinguished_name.push(DnType::OrganizationName, "Anna Berg"))?,
    ];
    for (at, nobody) in nobodies.iter().enumerate() {
        let (status, problem) = ask(&nobody.agent(&keys)?, &keys, &find, None)?;
        ensure!(
            status == 401 && problem["detail"].as_str().is_some_and(|it| it.contains("registered")),
            "{at}: {problem}"
        );
        assert_eq!(ask(&nobody.agent(&keys)?, &keys, "/v1/status", Some(vera))?.0, 200, "a token needs none");
    }
    // No certificates of these people at all: the connection does not come about.
    let strangers = Authority::new("People of the bank")?;
    let cn = |params: &mut CertificateParams| params.distinguished_name.push(DnType::CommonName, "Anna Berg");
    let alone = CertificateParams::default();
    let key = KeyPair::generate()?;
    let impostors = [
        ("another CA of the same name", strangers.named("Anna Berg")?),
        (
            "expired",
            people.card(|params| {
                cn(params);
                params.not_after = (SystemTime::now() - Duration::from_secs(60)).into();
            })?,
        ),
        (
            "not yet valid",
            people.card(|params| {
                cn(params);
                params.not_before = (SystemTime::now() + Duration::from_secs(3_600)).into();
            })?,
        ),
        (
            "for servers",
            people.card(|params| {
                cn(params);
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            })?,
        ),
        ("of an authority below that is not shown", office.named("Anna Berg")?),
        ("signed by itself", Card { chain: vec![alone.self_signed(&key)?.der().to_vec()], key }),
    ];
    for (what, impostor) in impostors {
        let agent = impostor.agent(&keys)?;
        let refused = [Some(vera), None].iter().all(|token| ask(&agent, &keys, &find, *token).is_err());
        ensure!(refused, "{what} was let in");
    }
    // Without a certificate: the witness and the hub's own log for everybody, queries by token.
    let plain = keys.agent()?;
    assert_eq!(plain.get(format!("{}/heads/checkpoint", keys.url)).call()?.status(), 200);
    let (status, problem) = ask(&plain, &keys, &find, None)?;
    ensure!(
        status == 401 && problem["detail"].as_str().is_some_and(|it| it.contains("--certificate")),
        "{problem}"
    );
    // Removal counts at once, on the connection that is open.
    hub.lines(&["people", "remove", "anna"], 0)?;
    assert_eq!(ask(&as_anna, &keys, &find, None)?.0, 401);

    // Every query with who asked it; whoever was not let in has no line.
    let (_, list) = ask(&plain, &keys, "/v1/audit?limit=1000", Some(vera))?;
    let queries = list["queries"].as_array().context("a list")?;
    let of = |query: &Value| {
        json!([
            query["who"]["person"],
            query["who"]["certificate"],
            query["query"],
            query["asked"]["refused"]
        ])
    };
    let said: Vec<Value> = queries.iter().filter(|query| query["from"] != "cli").map(of).collect();
    for expected in [
        json!(["anna", anna.sha256(), "find", null]),
        json!(["anna", renewed.sha256(), "find", null]),
        json!(["otto", otto.sha256(), "status", null]),
        json!(["otto", otto.sha256(), "find", true]),
        json!(["vera", null, "find", null]),
    ] {
        ensure!(said.contains(&expected), "{expected} is not in {said:?}");
    }
    ensure!(said.iter().filter(|line| line[0] == "anna").count() == 3, "{said:?}");
    assert_eq!(serving.stop()?, Some(0));
    let listed = hub.lines(&["people", "list"], 0)?;
    ensure!(listed[0]["certificate"] == "Anna Berg" && listed[2]["certificate"].is_null(), "{listed:?}");

    // The CA leaves the configuration: nobody is asked for a certificate, and nobody is known by one.
    fs::write(hub.file("hub.toml"), without)?;
    let _serving = hub.serve()?;
    assert_eq!(ask(&otto.agent(&keys)?, &keys, "/v1/status", None)?.0, 401);
    assert_eq!(ask(&otto.agent(&keys)?, &keys, "/v1/status", Some(vera))?.0, 200);
    Ok(())
}
