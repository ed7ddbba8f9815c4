//! A program on a terminal of its own: a real pseudo-terminal, and what a Linux console would show of what is written to it.
//!
//! Method: bytes go through `vt100`, so a test sees letters in their places and no control sequences. `BULLA_SCREENS=DIR`
//! keeps what [`Terminal::keep`] is given, for people.
//! Refuses to do: type faster than a person who reads: [`Terminal::shows`] comes before the next key.

use anyhow::{Context as _, Result, bail};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use std::io::{Read as _, Write};
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(90);

/// The program and its terminal; dropping it ends the program.
pub struct Terminal {
    screen: Arc<Mutex<vt100::Parser>>,
    keyboard: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

fn side(letters: u16) -> NonZeroU16 {
    NonZeroU16::new(letters).unwrap_or(NonZeroU16::MIN)
}

fn size(rows: u16, cols: u16) -> PtySize {
    PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }
}

impl Terminal {
    /// Starts it on a terminal of so many rows and columns.
    pub fn start(
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
        rows: u16,
        cols: u16,
    ) -> Result<Self> {
        let pair = native_pty_system().openpty(size(rows, cols))?;
        let mut command = CommandBuilder::new(program);
        command.args(arguments);
        command.env("TERM", "linux");
        for (name, value) in environment {
            command.env(name, value);
        }
        let child = pair.slave.spawn_command(command)?;
        let mut output = pair.master.try_clone_reader()?;
        let keyboard = pair.master.take_writer()?;
        let screen = Arc::new(Mutex::new(vt100::Parser::new(side(rows), side(cols), 0)));
        let shown = screen.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // It ends with the terminal.
            while let Ok(read) = output.read(&mut bytes) {
                if read == 0 {
                    return;
                }
                shown.lock().unwrap_or_else(PoisonError::into_inner).process(&bytes[..read]);
            }
        });
        Ok(Terminal { screen, keyboard, child, master: pair.master })
    }

    /// What is on the screen, a line a row.
    pub fn text(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen().contents()
    }

    /// The same, with the ends of lines and the blanks after them taken for one blank each: sentences are broken anywhere.
    pub fn prose(&self) -> String {
        self.text().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Waits until these words are on the screen.
    pub fn shows(&self, words: &str) -> Result<()> {
        self.until(words, |prose| prose.contains(words))
    }

    /// Waits until these words are no longer there.
    pub fn shows_no(&self, words: &str) -> Result<()> {
        self.until(&format!("an end of {words}"), |prose| !prose.contains(words))
    }

    fn until(&self, what: &str, there: impl Fn(&str) -> bool) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while !there(&self.prose()) {
            if Instant::now() > until {
                bail!("no {what:?} on the screen:\n{}", self.text());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        self.keyboard.write_all(keys.as_bytes())?;
        self.keyboard.flush().context("the terminal takes no key")
    }

    /// Gives the terminal another size.
    pub fn resize(&mut self, rows: u16, cols: u16) -> Result<()> {
        self.screen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .screen_mut()
            .set_size(side(rows), side(cols));
        self.master.resize(size(rows, cols))
    }

    /// Whether the program still runs.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Kills the program, as a crash would.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Keeps what is on the screen under this name, if somebody wants to look at it.
    pub fn keep(&self, name: &str) -> Result<()> {
        if let Some(directory) = std::env::var_os("BULLA_SCREENS") {
            std::fs::create_dir_all(&directory)?;
            std::fs::write(Path::new(&directory).join(format!("{name}.txt")), self.text())?;
            let screen =
                self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen().contents_formatted();
            std::fs::write(Path::new(&directory).join(format!("{name}.ansi")), screen)?;
        }
        Ok(())
    }
}
