//! A machine for an image to boot on: QEMU without hardware virtualisation, firmware with Secure Boot and our keys, a
//! TPM, a disk, a stick. One directory holds all that stays when the power is off.
//!
//! - Who looks at its screen reads what a monitor shows: pixels, of which [`crate::vga`] makes letters.
//! - The network is QEMU's own and leads nowhere but to this machine's loopback: one port in, to the box.
//! - A reset ends the run, so that a machine that reboots for ever is an answer and not a wait.
//! - Everything waited for has a time-out far beyond what a slow machine needs; what fails shows the serial console.

use std::cell::OnceCell;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use xtask::child::Child;
use xtask::swtpm::Swtpm;

use crate::deb::output;
use crate::image::{Image, inside_tools};
use crate::vga::{self, Font};

/// A first boot takes under a minute on a quiet machine with two cores.
const WITHIN: Duration = Duration::from_secs(900);
const POLL: Duration = Duration::from_millis(250);
/// Between two keys, for a machine that emulates its processor.
const KEY: Duration = Duration::from_millis(200);
/// The owner that the firmware notes beside our keys; any UUID.
pub const KEYS_OWNER: &str = "6c0e9d2a-3a63-4c0f-9c1f-0b6a1f6e7c11";
/// Where the box finds a registrar, in the machine's network.
pub const REGISTRAR: &str = "10.0.2.100:8444";
/// What virt-fw-vars puts into the variable dbx so that it is not empty: a list with the SHA-256 hash of nothing.
#[rustfmt::skip]
pub const FORBIDDEN: [u8; 76] = [
    0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28,
    0x4c, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x30, 0x00, 0x00, 0x00, 0xa3, 0xa8, 0xba, 0xa0,
    0x1d, 0x04, 0xa8, 0x48, 0xbc, 0x87, 0xc3, 0x6d, 0x12, 0x1b, 0x5e, 0x3d, 0xe3, 0xb0, 0xc4, 0x42,
    0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41, 0xe4,
    0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];
/// The firmware's UUID of the machine, which the machine-id is.
const MACHINE: &str = "5b1d3c68-0f4e-4b0a-9d57-3f6f3b1f9a01";
const MEBIBYTE: u64 = 1 << 20;
/// The disk, with room for the data partition.
const DISK: u64 = 3072 * MEBIBYTE;
const STICK: u64 = 16 * MEBIBYTE;
/// Lines of the serial console that a failure shows.
const SERIAL_LINES: usize = 25;

/// A machine whose power is off.
pub struct Machine {
    /// Where its disk, its firmware's variables and its stick are.
    pub directory: PathBuf,
    image_directory: PathBuf,
    os: PathBuf,
    /// On this machine's loopback.
    pub port: u16,
    /// Where a registrar listens on this machine's loopback; the box finds it at [`REGISTRAR`].
    pub registrar: Option<u16>,
    /// Whether it has a screen; a keyboard it always has.
    pub screen: bool,
    /// What the kernel writes on it.
    font: OnceCell<Font>,
}

impl Machine {
    /// Makes a machine in `directory`, which is below the image's: its disk is a copy of the image, its firmware trusts
    /// the image's keys alone, and its stick is empty.
    pub fn make(image: &Image, os: &Path, name: &str, port: u16) -> Result<Self> {
        let directory = image.directory.join(name);
        if directory.exists() {
            fs::remove_dir_all(&directory).with_context(|| format!("cannot wipe {}", directory.display()))?;
        }
        fs::create_dir_all(&directory)?;
        let machine = Self {
            directory,
            image_directory: image.directory.clone(),
            os: os.to_owned(),
            port,
            registrar: None,
            screen: false,
            font: OnceCell::new(),
        };
        output(
            Command::new("cp").arg("--sparse=always").arg(image.file("raw")).arg(machine.path("disk.raw")),
        )?;
        File::options().write(true).open(machine.path("disk.raw"))?.set_len(DISK)?;
        File::create(machine.path("stick.raw"))?.set_len(STICK)?;
        output(Command::new("mkfs.vfat").args(["-n", "BULLA-CONF"]).arg(machine.path("stick.raw")))?;
        let key = |name: &str| format!("/build/keys/{name}.crt");
        output(
            inside_tools(&machine.os, &machine.image_directory)
                .args(["virt-fw-vars", "--loglevel", "error", "--input", "/usr/share/OVMF/OVMF_VARS_4M.fd"])
                .args(["--output", &machine.inside("vars.fd")])
                .args(["--set-pk", KEYS_OWNER, &key("PK"), "--add-kek", KEYS_OWNER, &key("KEK")])
                .args(["--add-db", KEYS_OWNER, &key("db"), "--sb"]),
        )?;
        Ok(machine)
    }

    /// A file of this machine.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The same file, as programs in the tree of tools see it.
    fn inside(&self, name: &str) -> String {
        let machine = self.directory.file_name().unwrap_or_default().to_string_lossy();
        format!("/build/{machine}/{name}")
    }

    /// One port in, and one out if there is a registrar.
    fn network(&self) -> String {
        let inwards = format!("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{}-:8443", self.port);
        match self.registrar {
            None => inwards,
            Some(port) => format!("{inwards},guestfwd=tcp:{REGISTRAR}-cmd:socat - TCP:127.0.0.1:{port}"),
        }
    }

    /// The letters that the image's kernel has in it.
    fn kernels_font(&self) -> Result<Font> {
        let boot = self.image_directory.join("kernel/boot");
        let mut files = fs::read_dir(&boot)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        let kernel = files
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")));
        let kernel = fs::read(kernel.with_context(|| format!("no kernel in {}", boot.display()))?)?;
        fs::write(self.path("kernel.zst"), vga::compressed(&kernel)?)?;
        let whole = inside_tools(&self.os, &self.image_directory)
            .args(["zstd", "--decompress", "--stdout", &self.inside("kernel.zst")])
            .output()?;
        ensure!(whole.status.success(), "the kernel: {}", String::from_utf8_lossy(&whole.stderr));
        vga::font(&whole.stdout)
    }

    /// Where a scanner finds the box.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Writes a file onto the stick.
    pub fn put_on_stick(&self, name: &str, content: &str) -> Result<()> {
        let file = self.path("to-stick");
        fs::write(&file, content)?;
        let to = format!("::/{name}");
        output(Command::new("mcopy").arg("-o").arg("-i").arg(self.path("stick.raw")).arg(&file).arg(to))?;
        Ok(fs::remove_file(&file)?)
    }

    /// Reads a file from the stick, as another computer would.
    pub fn read_from_stick(&self, name: &str) -> Result<String> {
        self.read_from("stick.raw", name)
    }

    /// Reads a file from this stick.
    pub fn read_from(&self, stick: &str, name: &str) -> Result<String> {
        let from = format!("::/{name}");
        output(Command::new("mtype").arg("-i").arg(self.path(stick)).arg(from))
    }

    /// Makes a stick, a file of this machine, that brings this update and nothing else.
    pub fn make_update_stick(&self, name: &str, bundle: &Path) -> Result<()> {
        let stick = self.path(name);
        File::create(&stick)?.set_len(fs::metadata(bundle)?.len() + STICK)?;
        output(Command::new("mkfs.vfat").args(["-F", "32", "-n", "BULLAUPDATE"]).arg(&stick))?;
        output(Command::new("mcopy").arg("-i").arg(&stick).arg(bundle).arg("::/"))?;
        Ok(())
    }

    /// Power on, with the TPM of this directory, and the stick that configures it if it is plugged in.
    pub fn start(&self, tpm: &Path, stick: bool) -> Result<Running<'_>> {
        self.start_with(tpm, stick.then_some("stick.raw"))
    }

    /// Power on, with the TPM of this directory, and this stick.
    pub fn start_with(&self, tpm: &Path, stick: Option<&str>) -> Result<Running<'_>> {
        for left in ["tpm.sock", "qmp.sock", "serial.log"] {
            let _ = fs::remove_file(self.path(left));
        }
        let tpm = Swtpm::serve(tpm, &self.path("tpm.sock"))?;
        let drive = |id: &str, file: &str| {
            format!("if=none,id={id},format=raw,file={},cache=writeback", self.inside(file))
        };
        let flash = |unit: u8, more: &str| format!("if=pflash,format=raw,unit={unit},{more}");
        let mut arguments = vec![
            // The firmware keeps its variables from the operating system by system management mode.
            "-machine q35,smm=on -global driver=cfi.pflash01,property=secure,value=on".to_owned(),
            "-accel tcg,thread=multi,tb-size=512 -cpu max -m 2048 -smp 2".to_owned(),
            format!("-display none -nodefaults -no-reboot -uuid {MACHINE}"),
            format!("-drive {}", flash(0, "readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")),
            format!("-drive {}", flash(1, &format!("file={}", self.inside("vars.fd")))),
            format!("-chardev socket,id=tpm,path={}", self.inside("tpm.sock")),
            "-tpmdev emulator,id=tpm,chardev=tpm -device tpm-crb,tpmdev=tpm".to_owned(),
            format!("-drive {} -device virtio-blk-pci,drive=disk", drive("disk", "disk.raw")),
            "-device virtio-net-pci,netdev=net -device virtio-rng-pci".to_owned(),
            format!("-serial file:{}", self.inside("serial.log")),
            format!("-qmp unix:{},server=on,wait=off", self.inside("qmp.sock")),
        ];
        if self.screen {
            arguments.push("-device VGA".to_owned());
        }
        if let Some(stick) = stick {
            arguments.push(format!(
                "-device qemu-xhci -drive {} -device usb-storage,drive=stick",
                drive("stick", stick)
            ));
        }
        let arguments: Vec<String> =
            [self.image_directory.display().to_string(), "qemu-system-x86_64".to_owned()]
                .into_iter()
                .chain(arguments.iter().flat_map(|words| words.split(' ')).map(str::to_owned))
                // The only argument with blanks in it.
                .chain(["-netdev".to_owned(), self.network()])
                .collect();
        let log = self.path("qemu.log");
        let qemu = Child::spawn("QEMU", &self.os.join("inside"), &arguments, &self.directory, &log)?;
        Ok(Running { machine: self, qemu, _tpm: tpm, since: Instant::now() })
    }
}

/// A machine whose power is on; dropping it pulls the plug.
pub struct Running<'a> {
    machine: &'a Machine,
    qemu: Child,
    _tpm: Child,
    since: Instant,
}

impl Running<'_> {
    /// Waits for the box to take documents; returns the seconds since power-on. Without a CA, for the first time, its
    /// certificate is not looked at.
    pub fn wait_ready(&mut self, ca: Option<&Path>) -> Result<f64> {
        self.wait("the box is ready", |running| Ok(running.answers(ca)))
    }

    /// Waits until the serial console has shown `words`; returns the seconds since power-on.
    pub fn wait_serial(&mut self, words: &str) -> Result<f64> {
        self.wait(&format!("the console says {words:?}"), |running| Ok(running.serial().contains(words)))
    }

    /// Waits until so many more bytes are written to the disk where nothing was before; returns the seconds since power-on.
    pub fn wait_disk_grows(&mut self, bytes: u64) -> Result<f64> {
        let disk = self.machine.path("disk.raw");
        let written = move || -> Result<u64> { Ok(fs::metadata(&disk)?.blocks() * 512) };
        let before = written()?;
        self.wait("its disk has grown", |_| Ok(written()? >= before + bytes))
    }

    /// Waits until the machine has switched itself off or reset itself; returns the seconds since power-on.
    pub fn wait_off(mut self) -> Result<f64> {
        while self.qemu.ended()?.is_none() {
            if self.since.elapsed() > WITHIN {
                bail!("the machine has not switched itself off; its console:\n{}", self.serial_tail());
            }
            sleep(POLL);
        }
        Ok(self.since.elapsed().as_secs_f64())
    }

    /// Presses the power button and waits for the end; returns how long it took in seconds.
    pub fn power_off(self) -> Result<f64> {
        let pressed = Instant::now();
        self.monitor(&[json!({"execute": "system_powerdown"})])?;
        self.wait_off()?;
        Ok(pressed.elapsed().as_secs_f64())
    }

    /// Has QEMU's monitor do these, one after the other.
    fn monitor(&self, commands: &[Value]) -> Result<()> {
        let mut qmp =
            UnixStream::connect(self.machine.path("qmp.sock")).context("QEMU's monitor is not there")?;
        let mut answers = BufReader::new(qmp.try_clone()?).lines();
        answers.next().context("QEMU's monitor says nothing")??;
        for command in [json!({"execute": "qmp_capabilities"})].iter().chain(commands) {
            writeln!(qmp, "{command}")?;
            loop {
                let line = answers.next().context("QEMU's monitor ends")??;
                let answer: Value = serde_json::from_str(&line)?;
                // What is neither is an event.
                ensure!(answer.get("error").is_none(), "QEMU refuses {command}: {answer}");
                if answer.get("return").is_some() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Presses keys, by QEMU's names; two at a time where a `+` is between.
    pub fn press(&self, keys: &str) -> Result<()> {
        for key in keys.split(' ') {
            let held: Vec<Value> =
                key.split('+').map(|code| json!({"type": "qcode", "data": code})).collect();
            self.monitor(&[json!({"execute": "send-key", "arguments": {"keys": held, "hold-time": 60}})])?;
            sleep(KEY);
        }
        Ok(())
    }

    /// Types digits, small letters, dots, slashes and blanks.
    pub fn type_text(&self, text: &str) -> Result<()> {
        for letter in text.chars() {
            match letter {
                '.' => self.press("dot")?,
                '/' => self.press("slash")?,
                ' ' => self.press("spc")?,
                letter => self.press(&letter.to_string())?,
            }
        }
        Ok(())
    }

    /// What is on the screen, in letters.
    pub fn screen(&self) -> Result<String> {
        let file = self.machine.inside("screen.ppm");
        self.monitor(&[json!({"execute": "screendump", "arguments": {"filename": file}})])?;
        let picture = fs::read(self.machine.path("screen.ppm"))?;
        if let Some(font) = self.machine.font.get() {
            return vga::letters(&picture, font);
        }
        let font = self.machine.kernels_font()?;
        vga::letters(&picture, self.machine.font.get_or_init(|| font))
    }

    /// Waits until the screen shows `words`; returns the seconds since power-on.
    pub fn wait_screen(&mut self, words: &str) -> Result<f64> {
        let mut last = String::new();
        let shown = self.wait(&format!("the screen shows {words:?}"), |running| {
            last = running.screen()?;
            Ok(last.split_whitespace().collect::<Vec<_>>().join(" ").contains(words))
        });
        shown.with_context(|| format!("the screen shows:\n{}", last.trim_end()))
    }

    /// Pulls the plug: what the guest has not flushed is lost.
    pub fn cut_power(self) -> Result<()> {
        self.qemu.kill()
    }

    /// Whether the box answers that it is ready.
    pub fn answers(&self, ca: Option<&Path>) -> bool {
        let mut ask = Command::new("curl");
        ask.args(["--silent", "--fail", "--max-time", "5", "--noproxy", "*"]);
        match ca {
            Some(ca) => ask.arg("--cacert").arg(ca),
            None => ask.arg("--insecure"),
        };
        ask.arg(format!("{}/readyz", self.machine.url())).stdout(Stdio::null()).stderr(Stdio::null());
        ask.status().is_ok_and(|status| status.success())
    }

    /// Everything the console has shown in this run.
    pub fn serial(&self) -> String {
        let bytes = fs::read(self.machine.path("serial.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn serial_tail(&self) -> String {
        let text = self.serial();
        let printable = |line: &str| line.chars().filter(|c| !c.is_control()).collect::<String>();
        let lines: Vec<String> = text.lines().map(printable).collect();
        lines[lines.len().saturating_sub(SERIAL_LINES)..].iter().map(|line| format!("    {line}\n")).collect()
    }

    fn wait(&mut self, what: &str, mut done: impl FnMut(&Self) -> Result<bool>) -> Result<f64> {
        while !done(self)? {
            if let Some(status) = self.qemu.ended()? {
                bail!(
                    "the machine ended ({status}) before {what}; QEMU:\n{}its console:\n{}",
                    self.qemu.last_words(),
                    self.serial_tail()
                );
            }
            ensure!(
                self.since.elapsed() < WITHIN,
                "after {} s it does not hold that {what}; the console:\n{}",
                WITHIN.as_secs(),
                self.serial_tail()
            );
            sleep(POLL);
        }
        Ok(self.since.elapsed().as_secs_f64())
    }
}
