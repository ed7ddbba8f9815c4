//! A box tells its LAN where it is, a stranger's DNS-SD finds it there, and it takes its leave.

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::lan::Lan;
use bulla_tests::rig::{Keys, Rig, RigOptions, box_program};
use std::path::PathBuf;

/// Browses for ten seconds at most, until a service of the type has come and, if told to wait for that, gone.
const BROWSE: &str = r#"
import sys, time
from zeroconf import ServiceBrowser, Zeroconf
class Listener:
    found, gone = None, False
    def add_service(self, zc, kind, name):
        info = zc.get_service_info(kind, name, timeout=3000)
        if info: self.found = (name, info)
    def update_service(self, zc, kind, name): pass
    def remove_service(self, zc, kind, name): self.gone = True
zc, listener = Zeroconf(interfaces=[sys.argv[1]]), Listener()
ServiceBrowser(zc, "_bulla._tcp.local.", listener)
until = time.time() + 10
while not listener.found and time.time() < until: time.sleep(0.05)
if not listener.found: raise SystemExit("nothing was found")
name, info = listener.found
text = {key.decode(): (value or b"").decode() for key, value in info.properties.items()}
print(name, *info.parsed_addresses(), info.port, info.server, text["origin"], text["ca"], text.get("tsa", "-"), flush=True)
"#;

/// Python with zeroconf: below the target directory, where `cargo xtask setup` puts it; or what `BULLA_ZEROCONF_PYTHON` names.
fn python() -> Result<PathBuf> {
    let python = match std::env::var_os("BULLA_ZEROCONF_PYTHON") {
        Some(path) => PathBuf::from(path),
        None => {
            let test = std::env::current_exe()?;
            let target = test.ancestors().nth(3).context("a test binary is three levels below the target")?;
            target.join("tools/zeroconf/bin/python")
        }
    };
    ensure!(python.is_file(), "{} is missing; run: cargo xtask setup", python.display());
    Ok(python)
}

/// What a member of the LAN finds, or why nothing.
fn browse(lan: &Lan, member: usize) -> Result<Option<String>> {
    let program = python()?;
    let mut command = lan.command(member, program.to_str().context("a path in UTF-8")?);
    let output = command.args(["-c", BROWSE, &lan.address(member).to_string()]).output()?;
    let said = String::from_utf8(output.stdout)?;
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success() || why.contains("nothing was found"), "{why}");
    Ok(output.status.success().then_some(said))
}

#[test]
fn a_box_is_found_on_its_lan_when_told_to_announce_itself() -> Result<()> {
    let lan = Lan::new(2)?;
    let launcher = lan.launcher(0, &box_program()?)?;
    let options = RigOptions {
        keys: Keys::Software,
        residency: "software",
        extra: "[discovery]\nannounce = true\n[tsa]\nenabled = true\n",
        launcher: Some(&launcher),
        ..RigOptions::default()
    };
    let mut rig = Rig::create(&options)?;
    let path = rig.file("box.toml");
    let listen = std::fs::read_to_string(&path)?.replace("listen = \"127.0.0.1:", "listen = \"0.0.0.0:");
    std::fs::write(&path, listen)?;
    lan.publish(0, rig.sealer.port())?;
    rig.sealer.start()?;
    let found = browse(&lan, 1)?.with_context(|| format!("nothing was found\n{}", rig.log()))?;
    let ca = String::from_utf8(rig.run(&["ca", "export", "--out", "again.pem"])?.stdout)?;
    let expected =
        [lan.address(0).to_string(), rig.sealer.port().to_string(), ca.trim().to_owned(), "/tsa".to_owned()];
    for part in &expected {
        ensure!(found.contains(part), "no {part} in {found}");
    }
    ensure!(found.starts_with("Bulla ") && found.contains("._bulla._tcp.local."), "{found}");
    rig.sealer.stop()?;
    ensure!(browse(&lan, 1)?.is_none(), "it has taken its leave");
    Ok(())
}
