//! A headless Chromium, driven over a pipe in the DevTools protocol: what a person would open, asked what it shows.
//!
//! Refuses to do: skip, or listen on a port. Without Chromium it fails and says what is missing.
//! Invariant: every request that a page makes is kept, and so is every complaint of the page or of its policy.

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a page may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// The protocol is spoken on descriptors 3 and 4, which a shell makes of the first two.
const START: &str = "exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
                     --lang=en-GB --hide-scrollbars --remote-debugging-pipe --user-data-dir=\"$1\" \
                     3<&0 4>&1 </dev/null >/dev/null 2>/dev/null";

/// A running browser with one tab.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    last: u64,
    session: Option<String>,
    events: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Starts one, with an empty tab.
    pub fn start() -> Result<Self> {
        let profile = TempDir::new()?;
        let mut child = Command::new("sh")
            .args(["-c", START, "sh"])
            .arg(profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a shell")?;
        let to = child.stdin.take().context("it has no input")?;
        let from = BufReader::new(child.stdout.take().context("it has no output")?);
        let mut browser =
            Browser { child, to, from, last: 0, session: None, events: Vec::new(), _profile: profile };
        let target = browser
            .ask("Target.createTarget", json!({"url": "about:blank"}))
            .context("Chromium does not answer; apt-get install chromium")?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.ask("Target.attachToTarget", attach)?;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Network", "Log", "DOM"] {
            browser.ask(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(browser)
    }

    /// Sends a command and waits for its answer.
    pub fn ask(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.last += 1;
        let mut command = json!({"id": self.last, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = session.clone().into();
        }
        self.to.write_all(command.to_string().as_bytes())?;
        self.to.write_all(&[0])?;
        self.to.flush()?;
        loop {
            let mut answer = self.next()?;
            if answer["id"] == self.last {
                ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return Ok(answer["result"].take());
            }
            self.events.push(answer);
        }
    }

    fn next(&mut self) -> Result<Value> {
        let mut bytes = Vec::new();
        self.from.read_until(0, &mut bytes)?;
        ensure!(bytes.pop() == Some(0), "Chromium has stopped");
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Opens an address and waits until its document is there.
    pub fn open(&mut self, address: &str) -> Result<()> {
        self.ask("Page.navigate", json!({"url": address}))?;
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")
    }

    /// What an expression comes to in the page, promises awaited.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let asked = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut answer = self.ask("Runtime.evaluate", asked)?;
        ensure!(answer["exceptionDetails"].is_null(), "{}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].take())
    }

    /// Waits until an expression is true.
    pub fn until(&mut self, expression: &str) -> Result<()> {
        let begun = Instant::now();
        while self.evaluate(expression)? != Value::Bool(true) {
            if begun.elapsed() > PATIENCE {
                bail!("the page never came to: {expression}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Chooses files in the input that a selector names, as a person does.
    pub fn choose(&mut self, selector: &str, files: &[&Path]) -> Result<()> {
        let root = self.ask("DOM.getDocument", json!({}))?;
        let found = json!({"nodeId": root["root"]["nodeId"], "selector": selector});
        let node = self.ask("DOM.querySelector", found)?;
        self.ask("DOM.setFileInputFiles", json!({"files": files, "nodeId": node["nodeId"]}))?;
        Ok(())
    }

    /// Presses a key.
    pub fn press(&mut self, key: &str, code: u32) -> Result<()> {
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let event =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            self.ask("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }

    /// How large the window is, and whether it is a phone's.
    pub fn resize(&mut self, width: u32, height: u32, phone: bool) -> Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone});
        self.ask("Emulation.setDeviceMetricsOverride", size)?;
        Ok(())
    }

    /// Whether its person wants dark pages.
    pub fn dark(&mut self, dark: bool) -> Result<()> {
        let wanted = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": wanted}]});
        self.ask("Emulation.setEmulatedMedia", features)?;
        Ok(())
    }

    /// A picture of the whole page, as PNG.
    pub fn picture(&mut self) -> Result<Vec<u8>> {
        let shot = json!({"format": "png", "captureBeyondViewport": true});
        let answer = self.ask("Page.captureScreenshot", shot)?;
        Ok(BASE64_STANDARD.decode(answer["data"].as_str().context("no picture")?)?)
    }

    /// Goes to boxes whose CA this browser was never told of.
    pub fn trust_all(&mut self) -> Result<()> {
        self.ask("Security.setIgnoreCertificateErrors", json!({"ignore": true}))?;
        Ok(())
    }

    /// Types into the field that a selector names, in place of what is in it, and lets the page know.
    pub fn write(&mut self, selector: &str, text: &str) -> Result<()> {
        let (selector, text) = (json!(selector), json!(text));
        self.evaluate(&format!(
            "(() => {{ const one = document.querySelector({selector}); one.focus(); one.value = {text};
               one.dispatchEvent(new Event('input', {{ bubbles: true }})); }})()"
        ))?;
        Ok(())
    }

    /// Clicks what a selector names.
    pub fn click(&mut self, selector: &str) -> Result<()> {
        self.evaluate(&format!("document.querySelector({}).click()", json!(selector)))?;
        Ok(())
    }

    /// Everything that axe-core finds wrong with what is shown: an empty list when nothing.
    pub fn violations(&mut self) -> Result<Value> {
        let axe = axe()?;
        self.evaluate(&format!(
            "(async () => {{ if (!globalThis.axe) {{ {axe} }}
               const found = await axe.run(document, {{ resultTypes: ['violations', 'incomplete'] }});
               return found.violations.map((one) => [one.id, one.help, ...one.nodes.map((node) => node.html)]); }})()"
        ))
    }

    /// Keeps a picture under this name in `$BULLA_SCREENS`, when that is set.
    pub fn keep(&mut self, name: &str) -> Result<()> {
        if let Some(directory) = std::env::var_os("BULLA_SCREENS") {
            std::fs::create_dir_all(&directory)?;
            std::fs::write(Path::new(&directory).join(format!("{name}.png")), self.picture()?)?;
        }
        Ok(())
    }

    /// Addresses that were asked for so far.
    pub fn requests(&self) -> Vec<String> {
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.filter_map(|event| event["params"]["request"]["url"].as_str().map(str::to_owned)).collect()
    }

    /// What the page, or the browser about the page, has complained of; not of cables that came or went on this machine, as
    /// they do in the tests beside: Chromium then ends what is open, and pages open it again.
    pub fn complaints(&self) -> Vec<String> {
        let cables = |event: &&Value| {
            event["params"]["entry"]["text"]
                .as_str()
                .is_some_and(|text| text.contains("net::ERR_NETWORK_CHANGED"))
        };
        let complains = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Log.entryAdded") => event["params"]["entry"]["level"] != "verbose",
            Some("Runtime.consoleAPICalled") => event["params"]["type"] == "error",
            _ => false,
        };
        let complaints = self.events.iter().filter(complains).filter(|event| !cables(event));
        complaints.map(|event| event["params"].to_string()).collect()
    }
}

fn axe() -> Result<String> {
    // .../debug/deps/test-binary -> .../tools
    let binary = std::env::current_exe()?;
    let target = binary.ancestors().nth(3).context("a test binary has a target directory")?;
    let path = target.join("tools/axe-core/node_modules/axe-core/axe.min.js");
    std::fs::read_to_string(&path)
        .with_context(|| format!("{}; cargo xtask setup fetches it", path.display()))
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
