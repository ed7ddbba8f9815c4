//! The console of the image, on a real terminal: what a real box says of itself is on the screen; network settings are
//! refused, tried, kept, or come back by themselves; and the box's log has it.
//!
//! Method: `bulla-console` runs below a directory of its own, so that this machine's network stays as it is; `networkctl`,
//! `ip` and `systemctl` are scripts that note how they were called. What systemd-networkd makes of the files,
//! `image_console_networkd.rs` shows. `BULLA_SCREENS=DIR` keeps the screens.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context as _, Result, ensure};
use bulla_formats::body::incident::IncidentBody;
use bulla_formats::body::operator_action::OperatorActionBody;
use bulla_formats::box_status::BoxStatus;
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::network::Settings;
use bulla_formats::network_record::{By, Changes, Event};
use bulla_formats::tile::parse_entries;
use bulla_tests::rig::fleet::Fleet;
use bulla_tests::rig::outage::{software, start as start_with_authorities};
use bulla_tests::rig::terminal::Terminal;
use bulla_tests::rig::tsa::{Knobs, Stamps, Transport};
use bulla_tests::rig::{Rig, RigOptions, Role, box_program, console_program};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(90);
const CONF: &str = "var/lib/bulla-conf";

/// A machine of which nothing is real but the programs under test.
struct Machine {
    root: TempDir,
    path: String,
}

impl Machine {
    fn new() -> Result<Self> {
        let root = tempfile::Builder::new().prefix("bulla-console-").tempdir()?;
        let at = |path: &str| root.path().join(path);
        for folder in ["tools", "run/bulla", "usr/lib", "sys/class/net/enp1s0/device", "sys/class/net/lo"] {
            fs::create_dir_all(at(folder))?;
        }
        fs::write(at("sys/class/net/enp1s0/carrier"), "1\n")?;
        fs::write(at("usr/lib/os-release"), "ID=debian\nIMAGE_ID=bulla\nIMAGE_VERSION=0.9.0\n")?;
        for tool in ["networkctl", "systemctl", "ip"] {
            let said = at("called");
            let refuse = at(&format!("refuse-{tool}"));
            let script = format!(
                "#!/bin/sh\necho \"{tool} $*\" >>{}\nif [ -e {1} ]; then cat {1} >&2; exit 1; fi\n",
                said.display(),
                refuse.display()
            );
            fs::write(at("tools").join(tool), script)?;
            fs::set_permissions(at("tools").join(tool), Permissions::from_mode(0o755))?;
        }
        let path = format!("{}:{}", at("tools").display(), std::env::var("PATH")?);
        Ok(Machine { root, path })
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// The data partition is open; the box is in service or not.
    fn open_data(&self, in_service: bool) -> Result<()> {
        fs::create_dir_all(self.at(CONF))?;
        if in_service {
            fs::write(self.at(CONF).join("box.toml"), "")?;
        }
        Ok(())
    }

    fn show(&self, more: &[&str]) -> Result<Terminal> {
        self.show_in(more, 25, 80)
    }

    fn show_in(&self, more: &[&str], rows: u16, cols: u16) -> Result<Terminal> {
        let root = self.root.path().to_str().context("a path")?;
        let arguments = [&["--root", root, "show"], more].concat();
        Terminal::start(&console_program()?, &arguments, &[("PATH", &self.path)], rows, cols)
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(console_program()?);
        command.arg("--root").arg(self.root.path()).args(arguments).env("PATH", &self.path);
        Ok(command.output()?)
    }

    fn called(&self) -> String {
        fs::read_to_string(self.at("called")).unwrap_or_default()
    }

    /// Files for systemd-networkd: their names, and all their lines.
    fn networkd(&self) -> Result<(Vec<String>, String)> {
        let Ok(listed) = fs::read_dir(self.at("run/systemd/network")) else { return Ok(Default::default()) };
        let mut paths: Vec<PathBuf> = listed.map(|file| Ok(file?.path())).collect::<Result<_>>()?;
        paths.sort();
        let text = paths.iter().map(fs::read_to_string).collect::<std::io::Result<String>>()?;
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((paths.iter().map(name).collect(), text))
    }

    fn settings(&self) -> Result<Settings> {
        Ok(Settings::parse(&fs::read(self.at(CONF).join("network.json"))?)?)
    }

    fn changes(&self) -> Result<Vec<(Event, By, String)>> {
        let Ok(file) = fs::read(self.at(CONF).join("network-changes.json")) else { return Ok(Vec::new()) };
        let changes = Changes::parse(&file).context("the record is none")?;
        Ok(changes.all().iter().map(|each| (each.event, each.by, each.detail.clone())).collect())
    }

    /// What starts a box as the image does.
    fn launcher(&self) -> Result<PathBuf> {
        let launcher = self.at("bulla-box-on-its-image");
        let (status, network) =
            (self.at("run/bulla/status.json"), self.at(CONF).join("network-changes.json"));
        let script = format!(
            "#!/bin/sh\ncase \" $* \" in *' run '*|*' run') set -- \"$@\" --status {} --network {};; esac\nexec {} \"$@\"\n",
            status.display(),
            network.display(),
            box_program()?.display()
        );
        fs::write(&launcher, script)?;
        fs::set_permissions(&launcher, Permissions::from_mode(0o755))?;
        Ok(launcher)
    }
}

fn until(what: &str, done: impl Fn() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !done()? {
        ensure!(begun.elapsed() < PATIENCE, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// What the log says of the network: action or code of each entry, with its words.
fn told(rig: &Rig) -> Result<Vec<(String, String)>> {
    let size = rig.log_size()?;
    ensure!(size < 256, "the log has outgrown its first bundle");
    let bundle = rig.client(Role::Reader).get(&format!("/tile/entries/000.p/{size}"))?.body;
    let mut told = Vec::new();
    for entry in parse_entries(&bundle, size as u16)? {
        let content = Entry::decode(entry)?.content().clone();
        if content.kind == Kind::OperatorAction as u16 {
            let action = OperatorActionBody::decode(&content.body)?;
            let value = |name: &str| {
                action.parameters.iter().find(|each| each.name == name).map(|each| each.value.clone())
            };
            let after = value("after").unwrap_or_default();
            told.push((action.action.clone(), format!("{} {after}", value("by").unwrap_or_default())));
        } else if content.kind == Kind::Incident as u16 {
            let incident = IncidentBody::decode(&content.body)?;
            told.push((incident.code, incident.detail));
        }
    }
    told.retain(|(what, _)| what.starts_with("network-"));
    Ok(told)
}

#[test]
fn the_screen_says_what_a_real_box_does() -> Result<()> {
    let machine = Machine::new()?;
    let mut screen = machine.show(&[])?;
    screen.shows("STARTING")?;
    machine.open_data(false)?;
    screen.shows("NOT IN SERVICE YET")?;
    screen.shows("image 0.9.0")?;
    screen.keep("not-in-service")?;
    machine.open_data(true)?;
    screen.shows("THE BOX DOES NOT RUN")?;

    let launcher = machine.launcher()?;
    let tsa = Stamps::start("Operator A")?;
    let mut rig =
        start_with_authorities(&[&tsa], &RigOptions { launcher: Some(&launcher), ..software() }, "")?;
    screen.shows("IN SERVICE")?;
    rig.client(Role::Scanner).seal(b"a document")?;
    screen.shows("Last anchor 0:0")?;
    let status = rig.client(Role::Reader).get("/v1/status")?.json()?;
    let origin = status["origin"].as_str().context("an origin")?;
    ensure!(screen.text().replace(['\n', ' '], "").contains(origin), "{origin} in\n{}", screen.text());
    for words in ["anchored by 1 operators", "none are configured", "MB beyond the reserve", "no roster says"]
    {
        screen.shows(words)?;
    }
    screen.keep("in-service")?;

    // An outage has its clock, which goes on.
    tsa.set(&Knobs { transport: Transport::Down, ..Knobs::default() })?;
    screen.shows("OUTAGE 0:0")?;
    screen.shows("Documents are sealed all the same")?;
    screen.shows("Outage number 1, 0:00:1")?;
    screen.keep("outage")?;
    tsa.set(&Knobs::default())?;
    screen.shows_no("OUTAGE")?;

    // Somebody locks it, with words that a terminal would take for a command.
    let lock = "{\"reason\": \"audit\\u001b[2J\"}";
    let answer = rig.client(Role::Operator).post("/v1/lock", &[], lock.as_bytes())?;
    ensure!(answer.status == 200, "{}", answer.status);
    screen.shows("LOCKED")?;
    screen.shows("An operator has locked the box: audit")?;
    screen.keep("locked")?;
    let answer = rig.client(Role::Operator).post("/v1/unlock", &[], b"{\"reason\": \"done\"}")?;
    ensure!(answer.status == 200, "{}", answer.status);
    screen.shows("IN SERVICE")?;

    // Any size will do.
    for (rows, cols) in [(3, 20), (1, 1), (60, 200), (25, 40), (25, 80)] {
        screen.resize(rows, cols)?;
        std::thread::sleep(Duration::from_millis(300));
        ensure!(screen.runs()?, "it ended at {cols} columns and {rows} rows");
    }
    screen.shows("IN SERVICE")?;

    // What it said last is no news once it has ended: here nobody takes the file away.
    rig.sealer.stop()?;
    screen.shows("NO NEWS FROM THE BOX")?;
    ensure!(!screen.prose().contains(origin), "old news are shown:\n{}", screen.text());
    screen.keep("no-news")?;
    fs::write(machine.at("run/bulla/status.json"), "{\"bulla\": \"box-status/v1\"}")?;
    screen.shows("What its program says cannot be read")?;
    fs::remove_file(machine.at("run/bulla/status.json"))?;
    screen.shows("THE BOX DOES NOT RUN")?;
    fs::write(machine.at("run/bulla-locked"), "")?;
    screen.shows("DATA DOES NOT OPEN")?;
    Ok(())
}

#[test]
fn settings_are_checked_shown_tried_and_come_back_unless_somebody_keeps_them() -> Result<()> {
    let machine = Machine::new()?;
    machine.open_data(true)?;
    let mut screen = machine.show(&["--confirm-within", "6"])?;
    screen.shows("N network")?;
    screen.press("n")?;
    screen.shows("Network settings")?;
    // Down to IPv4: another network's gateway, as somebody types on a Swiss keyboard.
    screen.press("\t\t\u{15}10.20.30.40&24\t10.20.31.1\r")?;
    screen
        .shows("The gateway 10.20.31.1 cannot be reached from 10.20.30.40/24: it must be in that network.")?;
    screen.keep("refused")?;
    ensure!(machine.called().is_empty() && machine.changes()?.is_empty(), "{}", machine.called());
    screen.press("\u{15}10.20.30.1\t\u{15}off\t\t10.20.30.53\tntp.bank.example\r")?;
    screen.shows("What would change")?;
    screen.shows("10.20.30.40/24 <- was: dhcp")?;
    screen.keep("preview")?;
    ensure!(machine.called().is_empty(), "nothing is done before somebody agrees");

    // Nobody keeps them.
    screen.press("t")?;
    screen.shows("Network settings on trial")?;
    screen.keep("trial")?;
    let (names, text) = machine.networkd()?;
    assert_eq!(names, ["05-bulla-2-lan.network"]);
    ensure!(text.contains("Address=10.20.30.40/24\n") && text.contains("Gateway=10.20.30.1\n"), "{text}");
    ensure!(
        machine.called().contains("networkctl reload\nnetworkctl reconfigure enp1s0\n"),
        "{}",
        machine.called()
    );
    ensure!(!machine.at(CONF).join("network.json").exists(), "kept before somebody agrees");
    screen.shows("Nobody confirmed the settings: the former ones are back.")?;
    ensure!(machine.networkd()?.0.is_empty() && !machine.at("run/bulla-console/trial.json").exists());
    let why = "nobody confirmed them in time".to_owned();
    assert_eq!(machine.changes()?, [(Event::FellBack, By::Console, why.clone())]);

    // Taken back by hand.
    screen.press("n")?;
    screen.shows("Up, Down")?;
    screen.press("\t20\r")?;
    screen.shows("20 <- was: untagged")?;
    screen.press("t")?;
    screen.shows("on trial")?;
    screen.press("xrp")?;
    screen.press("b")?;
    screen.shows("The former settings are back.")?;
    ensure!(!machine.called().contains("systemctl"), "{}", machine.called());

    // Kept; the console is killed meanwhile, and the next one knows what is being tried.
    drop(screen);
    let mut screen = machine.show(&["--confirm-within", "600"])?;
    screen.shows("N network")?;
    screen.press("n")?;
    screen.shows("Up, Down")?;
    screen.press("\t20\t\u{15}10.20.30.40/24\r")?;
    screen.shows("What would change")?;
    screen.press("t")?;
    screen.shows("on trial: 0:0")?;
    screen.kill()?;
    let mut screen = machine.show(&["--confirm-within", "600"])?;
    screen.shows("on trial: 0:0")?;
    screen.press("k")?;
    screen.shows("The settings are kept.")?;
    screen.shows("set at the console or by stick")?;
    screen.keep("kept")?;
    let kept = machine.settings()?;
    ensure!(kept.vlan == Some(20), "{kept}");
    let (names, text) = machine.networkd()?;
    assert_eq!(names, ["05-bulla-1-port.network", "05-bulla-1-vlan.netdev", "05-bulla-2-lan.network"]);
    ensure!(text.contains("Name=vlan20\nKind=vlan\n\n[VLAN]\nId=20\n"), "{text}");
    let last = machine.changes()?.pop().context("a change")?;
    assert_eq!(last, (Event::Changed, By::Console, "confirmed at the console".to_owned()));

    // What systemd-networkd does not take is taken back at once; its words are shown. A VLAN's interface that is not wanted goes.
    fs::create_dir_all(machine.at("sys/class/net/vlan20"))?;
    fs::write(machine.at("refuse-networkctl"), "Failed to reload network settings: no bus\n")?;
    screen.press("n")?;
    screen.shows("Up, Down")?;
    screen.press("\t\u{15}21\r")?;
    screen.shows("21 <- was: 20")?;
    screen.press("t")?;
    screen.shows("It did not work: the settings could not be applied")?;
    screen.keep("not-applied")?;
    ensure!(machine.called().contains("ip link delete dev vlan20\n"), "{}", machine.called());
    fs::remove_file(machine.at("refuse-networkctl"))?;
    ensure!(machine.settings()? == kept && machine.networkd()?.1.contains("Id=20"));

    // Restart and power-off take two keys each.
    screen.press("r")?;
    screen.shows("Restart this machine?")?;
    screen.press("\u{1b}")?;
    screen.shows("N network")?;
    ensure!(!machine.called().contains("systemctl"), "{}", machine.called());
    screen.press("r")?;
    screen.shows("Restart this machine?")?;
    screen.press("r")?;
    screen.shows("The machine restarts.")?;
    screen.press("\u{1b}")?;
    screen.shows("N network")?;
    screen.press("p")?;
    screen.shows("Switch this machine off?")?;
    screen.keep("power-off")?;
    screen.press("p")?;
    screen.shows("The machine switches itself off.")?;
    let called = machine.called();
    ensure!(
        called.contains("systemctl --no-block reboot\n")
            && called.contains("systemctl --no-block poweroff\n"),
        "{called}"
    );
    Ok(())
}

#[test]
fn damaged_settings_are_those_of_a_new_box_and_everything_is_in_the_log() -> Result<()> {
    let machine = Machine::new()?;
    machine.open_data(false)?;
    let stick = |text: &str| -> Result<PathBuf> {
        let path = machine.at("stick-network.json");
        fs::write(&path, text)?;
        Ok(path)
    };
    let take = |text: &str| -> Result<Output> {
        let path = stick(text)?;
        machine.run(&["take", path.to_str().context("a path")?])
    };
    let said = |output: &Output| {
        String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
    };
    for (text, words) in [
        ("{}", "says \"network/v1\""),
        ("{\"bulla\": \"network/v1\", \"ipv4\": {\"address\": \"10.0.0.2\"}}", "address and gateway"),
        (
            "{\"bulla\": \"network/v1\", \"interface\": \"eth7\"}",
            "This machine has no port eth7; it has enp1s0.",
        ),
    ] {
        let refused = take(text)?;
        ensure!(refused.status.code() == Some(1) && said(&refused).contains(words), "{}", said(&refused));
    }
    ensure!(machine.changes()?.is_empty() && machine.called().is_empty());
    // With two ports it has to be said which.
    fs::create_dir_all(machine.at("sys/class/net/enp2s0/device"))?;
    let refused = take("{\"bulla\": \"network/v1\", \"vlan\": 20}")?;
    ensure!(said(&refused).contains("enp1s0, enp2s0: name the one that is meant"), "{}", said(&refused));
    let good =
        "{\"bulla\": \"network/v1\", \"interface\": \"enp1s0\", \"ipv4\": {\"address\": \"10.20.30.40/24\"}}";
    let taken = take(good)?;
    ensure!(taken.status.success(), "{}", said(&taken));
    ensure!(machine.called().contains("networkctl reload"), "{}", machine.called());
    ensure!(machine.networkd()?.1.contains("Address=10.20.30.40/24"));
    // The same stick again is no change.
    ensure!(take(good)?.status.success());
    ensure!(machine.changes()?.len() == 1);

    // Each start hands the settings over, and a damaged file once becomes an entry.
    fs::remove_dir_all(machine.at("run"))?;
    fs::create_dir_all(machine.at("run/bulla"))?;
    ensure!(machine.run(&["start"])?.status.success());
    ensure!(machine.networkd()?.1.contains("Address=10.20.30.40/24"));
    let file = machine.at(CONF).join("network.json");
    let mut bytes = fs::read(&file)?;
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&file, &bytes)?;
    for _ in 0..2 {
        let started = machine.run(&["start"])?;
        ensure!(started.status.success() && said(&started).contains("DHCP is used"), "{}", said(&started));
        ensure!(machine.networkd()?.0.is_empty());
    }
    let events: Vec<Event> = machine.changes()?.into_iter().map(|(event, ..)| event).collect();
    assert_eq!(events, [Event::Changed, Event::Damaged]);
    let mut screen = machine.show(&[])?;
    screen.shows("! The network settings are damaged, and DHCP is used")?;
    screen.keep("damaged")?;

    // The box that goes into service now tells its log, once.
    let launcher = machine.launcher()?;
    let mut rig = Rig::start_with(&RigOptions { launcher: Some(&launcher), ..software() })?;
    until("the entries of two changes", || Ok(told(&rig)?.len() == 2))?;
    screen.shows("IN SERVICE")?;
    screen.press("n")?;
    screen.shows("Up, Down")?;
    screen.press("\t\t\t\tOFF\u{15}off\r")?;
    screen.shows("off <- was: automatic")?;
    screen.press("t")?;
    screen.shows("on trial")?;
    screen.press("k")?;
    screen.shows("The settings are kept.")?;
    screen.shows_no("damaged")?;
    until("the entry of a third", || Ok(told(&rig)?.len() > 2))?;
    rig.sealer.stop()?;
    rig.sealer.start()?;
    fs::remove_dir_all(machine.at("run/systemd"))?;
    ensure!(machine.run(&["start"])?.status.success());
    std::thread::sleep(Duration::from_secs(5));
    let told = told(&rig)?;
    let names: Vec<&str> = told.iter().map(|(what, _)| what.as_str()).collect();
    assert_eq!(names, ["network-change", "network-settings-damaged", "network-change"], "{told:?}");
    ensure!(told[0].1.starts_with("stick {") && told[0].1.contains("10.20.30.40/24"), "{told:?}");
    ensure!(told[2].1.starts_with("console {") && told[2].1.contains("\"ipv6\":\"off\""), "{told:?}");
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

/// What a stock reader finds in the half blocks of a screen, white on black as on a monitor.
fn scanned(machine: &Machine, text: &str) -> Result<String> {
    const MODULE: usize = 6;
    let rows: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
    let width = rows.iter().map(Vec::len).max().unwrap_or_default();
    let mut pixels = Vec::new();
    for row in &rows {
        for half in 0..2 {
            let light = |column: usize| match row.get(column) {
                Some('\u{2588}') => true,
                Some('\u{2580}') => half == 0,
                Some('\u{2584}') => half == 1,
                _ => false,
            };
            let line: Vec<u8> =
                (0..width * MODULE).map(|x| if light(x / MODULE) { 255 } else { 0 }).collect();
            (0..MODULE).for_each(|_| pixels.extend_from_slice(&line));
        }
    }
    let picture = machine.at("screen.pgm");
    let head = format!("P5\n{} {}\n255\n", width * MODULE, rows.len() * 2 * MODULE);
    fs::write(&picture, [head.into_bytes(), pixels].concat())?;
    let read = Command::new("zbarimg")
        .args(["--quiet", "--raw", "-Sdisable", "-Sqrcode.enable"])
        .arg(&picture)
        .output()
        .context("zbarimg; cargo xtask setup fetches it")?;
    Ok(String::from_utf8(read.stdout)?.trim().to_owned())
}

fn row(fleet: &Fleet) -> Result<Value> {
    let all: Value = serde_json::from_str(&fleet.ok(&["enrolments", "list", "--json", "--dir", "fleet"])?)?;
    all["enrolments"].as_array().and_then(|rows| rows.first()).cloned().with_context(|| all.to_string())
}

#[test]
fn a_box_that_waits_shows_what_the_registrar_lists_and_a_phone_can_read_it() -> Result<()> {
    let machine = Machine::new()?;
    machine.open_data(true)?;
    fs::create_dir_all(machine.at("run/bulla-enrolling"))?;
    let file = machine.at("run/bulla-enrolling/status.json");
    let mut fleet = Fleet::found()?;
    let rig = Rig::unborn_on(&RigOptions::default(), Some(Rig::manufacture_tpm()?))?;
    fleet.believe(&rig)?;
    fleet.serve(&[])?;
    let mut enroll = rig.command(&["enroll"])?;
    enroll.args(fleet.registrar()).arg("--status").arg(&file);
    let mut enroll = enroll.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let mut screen = machine.show(&[])?;
    screen.shows("WAITING FOR APPROVAL")?;
    screen.shows("ek-unknown")?;
    let said = BoxStatus::parse(&fs::read(&file)?).and_then(|said| said.enrolling).context("a status")?;
    fleet.list(&said.tpm, "S-1")?;
    screen.shows("The TPM is proven")?;
    screen.keep("enrolling")?;
    let row = row(&fleet)?;
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    screen.shows(&text("claimCode"))?;
    screen.shows(&text("fingerprint"))?;
    let code = format!("bulla-enrol:{}", text("transcript"));
    assert_eq!(scanned(&machine, &screen.text())?, code, "{}", screen.text());
    // On a small screen the words stay.
    screen.resize(20, 60)?;
    screen.shows(&text("fingerprint"))?;
    screen.resize(50, 160)?;
    until("the code on a large screen", || Ok(scanned(&machine, &screen.text())? == code))?;
    enroll.kill()?;
    enroll.wait()?;
    screen.shows("NO NEWS FROM THE BOX")?;
    ensure!(!screen.prose().contains(&text("fingerprint")), "{}", screen.text());
    Ok(())
}
