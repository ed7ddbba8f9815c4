//! Alert rules of hubs: promtool takes them, they say what the page says, and a real hub has every metric they ask for; who
//! may read those.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::alerting::{self, names, promtool};
use bulla_tests::rig::hub::{HubRig, hub_program};
use bulla_tests::rig::site::until;
use bulla_tests::rig::{Keys, Rig, RigOptions, Role};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command};
use std::time::Duration;

const RULES: &str = include_str!("../../docs/monitoring/bulla-hub.rules.yml");
const DASHBOARD: &str = include_str!("../../docs/monitoring/bulla-hub-dashboard.json");
const PAGE: &str = include_str!("../../docs/operating.md");

fn section() -> Result<&'static str> {
    alerting::section(PAGE, "### What to alert on at a hub\n")
}

#[test]
fn promtool_takes_the_rules_and_their_tests() -> Result<()> {
    promtool(&["check", "rules", "bulla-hub.rules.yml"])?;
    promtool(&["test", "rules", "bulla-hub.rules.test.yml"])
}

#[test]
fn every_row_of_the_page_is_a_rule_and_every_rule_is_tested() -> Result<()> {
    let tests = include_str!("../../docs/monitoring/bulla-hub.rules.test.yml");
    let count = alerting::rows_are_rules(section()?, RULES, tests)?;
    ensure!(count > 8, "the rows are found at all: {count}");
    Ok(())
}

#[test]
fn the_dashboard_is_one() -> Result<()> {
    alerting::is_a_dashboard(DASHBOARD, "$hub")
}

#[test]
fn a_hub_has_every_metric_that_is_asked_for() -> Result<()> {
    let mut rig = Rig::start_with(&RigOptions {
        keys: Keys::Software,
        residency: "software",
        ..RigOptions::default()
    })?;
    let origin = rig.client(Role::Scanner).seal(b"deed")?.seal()?.origin;
    let hub = HubRig::create(&[("branch", &origin, &[(&rig, false)])])?;
    let keys = hub.furnish_serve("hub.example/north")?;
    // Leases that the box takes from nobody, because no roster names the hub.
    let text = fs::read_to_string(hub.file("hub.toml"))?;
    fs::write(hub.file("hub.toml"), format!("{text}[leases]\nhours = 1\n"))?;
    let said = hub.lines(&["people", "add", "prometheus", "--role", "monitor"], 0)?;
    let token = said[0]["token"].as_str().context("a token")?.to_owned();
    let agent = keys.agent()?;
    let ask = |path: &str, token: &str| -> Result<(u16, String)> {
        let request = agent.get(format!("{}{path}", keys.url));
        let mut answer = request.header("Authorization", format!("Bearer {token}")).call()?;
        Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
    };
    let number = |text: &str, name: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no {name} in {text}"))?.parse::<f64>()? as u64)
    };
    let serving = hub.serve()?;
    until("a round has ended", || Ok(ask("/metrics", &token)?.1.contains("bulla_hub_round_seconds")))?;
    let (status, text) = ask("/metrics", &token)?;
    ensure!(status == 200, "{status} {text}");
    let shown = names(&text);
    let asked: Vec<String> = [RULES, DASHBOARD, section()?].into_iter().flat_map(names).collect();
    let lacking: Vec<_> = asked.iter().filter(|name| !shown.contains(*name)).collect();
    ensure!(asked.len() > 15 && lacking.is_empty(), "the hub does not have {lacking:?}");
    ensure!(number(&text, "bulla_hub_box_entries{box=\"branch\"}")? > 0, "{text}");
    assert_eq!(number(&text, "bulla_hub_box_behind_entries{box=\"branch\"}")?, 0);
    assert_eq!(number(&text, "bulla_hub_box_lease_left_seconds{box=\"branch\"}")?, 0);
    // They are for somebody whom the hub knows, who may ask for nothing else with that role.
    assert_eq!(ask("/metrics", "bullahub_00")?.0, 401);
    assert_eq!(ask("/v1/status", &token)?.0, 403);
    let text = ask("/metrics", &token)?.1;
    assert_eq!(number(&text, "bulla_hub_problems_total{type=\"hub-forbidden\"}")?, 1);
    ensure!(number(&text, "bulla_hub_http_responses_total{code=\"401\"}")? == 1, "{text}");

    // The box goes: that is told.
    rig.sealer.kill()?;
    let nobody_knows_how_far = || Ok(!ask("/metrics", &token)?.1.contains("bulla_hub_box_behind_entries{"));
    until("the pull fails", nobody_knows_how_far)?;
    let text = ask("/metrics", &token)?.1;
    ensure!(number(&text, "bulla_hub_box_trouble{box=\"branch\"}")? > 0, "{text}");
    // The disk goes: rounds fail, and the hub answers on.
    fs::rename(hub.file("trust.json"), hub.file("away"))?;
    until("rounds fail", || Ok(number(&ask("/metrics", &token)?.1, "bulla_hub_rounds_failed_total")? > 0))?;
    assert_eq!(serving.stop()?, Some(0));
    // The list of queries has what was asked by the role that may not, and no scrape.
    fs::rename(hub.file("away"), hub.file("trust.json"))?;
    let listed = hub.lines(&["audit"], 0)?;
    let asked: Vec<_> = listed.iter().map(|line| line["query"].as_str().unwrap_or_default()).collect();
    assert_eq!(asked, ["status", "audit"]);
    Ok(())
}

/// systemd's side of the socket that it gives a service.
#[test]
fn systemd_is_told_of_the_start_of_every_moment_and_of_the_end() -> Result<()> {
    let rig = Rig::start_with(&RigOptions {
        keys: Keys::Software,
        residency: "software",
        ..RigOptions::default()
    })?;
    let origin = rig.client(Role::Scanner).seal(b"deed")?.seal()?.origin;
    let hub = HubRig::create(&[("branch", &origin, &[(&rig, false)])])?;
    let keys = hub.furnish_serve("hub.example/north")?;
    let path = hub.file("notify");
    let systemd = UnixDatagram::bind(&path)?;
    systemd.set_read_timeout(Some(Duration::from_secs(60)))?;
    let told = || -> Result<String> {
        let mut text = [0; 512];
        let length = systemd.recv(&mut text)?;
        Ok(String::from_utf8(text[..length].to_vec())?.trim_end().to_owned())
    };
    let place = path.to_str().context("a path in UTF-8")?;
    let serving = hub.serve_with(&[("NOTIFY_SOCKET", place), ("WATCHDOG_USEC", "600000")])?;
    assert_eq!(told()?, "READY=1");
    ensure!(keys.agent()?.get(format!("{}/healthz", keys.url)).call()?.status() == 200, "it is not ready");
    for _ in 0..3 {
        assert_eq!(told()?, "WATCHDOG=1");
    }
    assert_eq!(serving.stop()?, Some(0));
    let mut last = told()?;
    while last == "WATCHDOG=1" {
        last = told()?;
    }
    assert_eq!(last, "STOPPING=1");
    Ok(())
}

/// A hub in a mount namespace of its own, where /run/systemd/journal is the test's.
#[test]
fn the_journal_has_the_hubs_lines_with_their_fields() -> Result<()> {
    let rig = Rig::start_with(&RigOptions {
        keys: Keys::Software,
        residency: "software",
        ..RigOptions::default()
    })?;
    let origin = rig.client(Role::Scanner).seal(b"deed")?.seal()?.origin;
    let hub = HubRig::create(&[("branch", &origin, &[(&rig, false)])])?;
    hub.furnish_serve("hub.example/north")?;
    let place = hub.file("journal");
    fs::create_dir(&place)?;
    let journal = UnixDatagram::bind(place.join("socket"))?;
    journal.set_read_timeout(Some(Duration::from_secs(60)))?;
    let (out, err) = (hub.file("out"), hub.file("err"));
    let stderr = fs::File::create(&err)?;
    let known = stderr.metadata()?;
    let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal && \
                  mount --bind \"$1\" /run/systemd/journal && exec \"$2\" serve --config hub.toml";
    let child = Command::new("unshare")
        .args(["--mount", "--propagation", "slave", "sh", "-c", script, "sh"])
        .args([&place, &hub_program()?])
        .current_dir(hub.file(""))
        .env("JOURNAL_STREAM", format!("{}:{}", known.dev(), known.ino()))
        .stdout(fs::File::create(&out)?)
        .stderr(stderr)
        .spawn()
        .context("unshare is needed, and root")?;
    let _killed = Killed(child);
    // A field is `NAME=value`, or the name, a line feed, eight bytes of length and the value.
    let has = |line: &[u8], name: &str, value: &str| {
        let mut long = format!("{name}\n").into_bytes();
        long.extend((value.len() as u64).to_le_bytes());
        long.extend(value.as_bytes());
        let short = format!("{name}={value}");
        let holds = |part: &[u8]| line.windows(part.len()).any(|window| window == part);
        holds(&long) || holds(short.as_bytes())
    };
    let mut wanted = vec![
        // The line of a pull, of a trouble that follows, and what every line has.
        vec![
            ("BOX", "branch"),
            ("COMPLETE", "true"),
            ("SYSLOG_IDENTIFIER", "bulla-hub"),
            ("TARGET", "bulla_hub"),
        ],
        vec![("PRIORITY", "4"), ("SYSLOG_IDENTIFIER", "bulla-hub")],
    ];
    let (mut line, mut stopped) = (vec![0; 1 << 16], Some(rig));
    while !wanted.is_empty() {
        let length = journal.recv(&mut line).with_context(|| {
            format!("{wanted:?} did not come: {}", fs::read_to_string(&err).unwrap_or_default())
        })?;
        wanted.retain(|fields| !fields.iter().all(|(name, value)| has(&line[..length], name, value)));
        if wanted.len() == 1 {
            drop(stopped.take());
        }
    }
    let beside = fs::read_to_string(&out)? + &fs::read_to_string(&err)?;
    ensure!(beside.is_empty(), "some lines went elsewhere: {beside}");
    Ok(())
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
