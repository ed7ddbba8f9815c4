//! `bulla-console`: shows on the machine's own screen what the box does, and changes its network settings.
//!
//! Refuses: what `bulla_image_console` names. Invariant: an error is one sentence on stderr and a documented exit code.
#![forbid(unsafe_code)]

use anyhow::{Context as _, Result};
use bulla_image_console::app::{App, Deed};
use bulla_image_console::change;
use bulla_image_console::facts::Facts;
use bulla_image_console::networkd::run;
use bulla_image_console::place::Places;
use bulla_image_console::screen::draw;
use clap::{Parser, Subcommand};
use crossterm::event::{self, Event};
use crossterm::terminal::enable_raw_mode;
use ratatui::Terminal;
use ratatui::backend::{Backend as _, ClearType, CrosstermBackend};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const FAILED: u8 = 1;
/// How often the facts are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often everything is written anew: the kernel may have written over it.
const AFRESH: Duration = Duration::from_secs(30);
/// After so long without a key the state of the box is shown.
const ALONE: Duration = Duration::from_secs(300);

/// The console of a box that runs from an image of its own.
#[derive(Parser)]
#[command(
    name = "bulla-console",
    version,
    about,
    after_help = "Exit codes: 0 done; 1 refused or failed; 2 wrong usage."
)]
struct Cli {
    /// Below which directory everything is.
    #[arg(long, global = true, default_value = "/")]
    root: PathBuf,
    #[command(subcommand)]
    command: Line,
}

#[derive(Subcommand)]
enum Line {
    /// Shows the state of the box on this terminal, and takes keys from it; for ever.
    Show {
        /// How long network settings are tried before the former ones come back.
        #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(5..=3600))]
        confirm_within: u64,
    },
    /// Before the network is there: hands the settings that count to systemd-networkd.
    Start,
    /// Takes network settings from a file, for a box that is not in service yet: checks, keeps and applies them.
    Take {
        /// The file, as in docs/image.md.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let Cli { root, command } = Cli::parse();
    let places = Places::below(&root);
    let done = match command {
        Line::Show { confirm_within } => show(&places, confirm_within * 1_000),
        Line::Start => change::start(&places).map(|damage| {
            if let Some(sentence) = damage {
                eprintln!("bulla-console: {sentence}");
            }
        }),
        Line::Take { file } => {
            change::take(&places, &file).map(|settings| println!("network settings taken: {settings}"))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulla-console: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn show(places: &Places, confirm_within: u64) -> Result<()> {
    enable_raw_mode().context("this is no terminal")?;
    let mut terminal =
        Terminal::new(CrosstermBackend::new(io::stdout())).context("the terminal cannot be written")?;
    let mut app = App::default();
    let (mut looked, mut drawn, mut pressed) = (Instant::now(), None::<Instant>, Instant::now());
    let mut facts = Facts::look(places);
    loop {
        if drawn.is_none_or(|at| at.elapsed() >= AFRESH) {
            // Without asking the terminal where its cursor is: whatever is there need not answer.
            terminal.backend_mut().clear_region(ClearType::All).context("the terminal cannot be written")?;
            terminal.swap_buffers();
            drawn = Some(Instant::now());
        }
        terminal.draw(|frame| draw(frame, &app, &facts)).context("the terminal cannot be written")?;
        let wait = LOOK.saturating_sub(looked.elapsed());
        if event::poll(wait).context("the terminal cannot be read")? {
            match event::read().context("the terminal cannot be read")? {
                Event::Key(key) => {
                    pressed = Instant::now();
                    facts = Facts::look(places);
                    if let Some(deed) = app.key(key, &facts, places) {
                        app.note = Some(carry_out(places, deed, confirm_within));
                        facts = Facts::look(places);
                        drawn = None;
                    }
                }
                Event::Resize(..) => drawn = None,
                _ => {}
            }
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            facts = Facts::look(places);
            if facts.trial.is_some() && facts.trial_seconds == 0 {
                app.note = Some(match change::fall_back(places, "nobody confirmed them in time") {
                    Ok(()) => "Nobody confirmed the settings: the former ones are back.".to_owned(),
                    Err(error) => format!("The former settings count again, but: {error:#}"),
                });
                facts = Facts::look(places);
            }
            if facts.trial.is_none() && pressed.elapsed() >= ALONE {
                app.left_alone();
                pressed = Instant::now();
            }
        }
    }
}

/// Does it; gives a sentence on what came of it.
fn carry_out(places: &Places, deed: Deed, confirm_within: u64) -> String {
    let (done, sentence) = match deed {
        Deed::Try(settings) => {
            (change::begin(places, &settings, confirm_within), "The settings are in force, on trial.")
        }
        Deed::Keep => (change::confirm(places), "The settings are kept."),
        Deed::Back => {
            (change::fall_back(places, "taken back at the console"), "The former settings are back.")
        }
        Deed::Restart => (run("systemctl", &["--no-block", "reboot"]), "The machine restarts."),
        Deed::PowerOff => (run("systemctl", &["--no-block", "poweroff"]), "The machine switches itself off."),
    };
    match done {
        Ok(()) => sentence.to_owned(),
        Err(error) => format!("It did not work: {error:#}"),
    }
}
