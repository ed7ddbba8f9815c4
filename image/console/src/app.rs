//! What a key does: pages and questions, without a terminal.
//!
//! Keys are letters that every Latin layout has in one place, because the kernel reads all keyboards as American ones.
//! Refuses to do: change anything by one key; anything but trying, keeping and taking back settings, restart, power-off.
//! Invariant: while settings are being tried nothing else can be asked for.

use crate::facts::Facts;
use crate::form::Form;
use crate::place::Places;
use bulla_formats::network::Settings;
use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What is on the screen.
#[derive(Debug, Clone)]
pub enum Page {
    /// What the box does.
    Status,
    /// Network settings.
    Form(Form),
    /// What would change.
    Preview(Settings, Form),
    /// Whether the machine is to start again.
    Restart,
    /// Whether it is to be switched off.
    PowerOff,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Try these settings.
    Try(Settings),
    /// Keep what is being tried.
    Keep,
    /// Take it back.
    Back,
    /// Start the machine again.
    Restart,
    /// Switch it off.
    PowerOff,
}

/// The console.
#[derive(Debug, Clone)]
pub struct App {
    /// What is on the screen.
    pub page: Page,
    /// What came of the last deed.
    pub note: Option<String>,
}

impl Default for App {
    fn default() -> Self {
        App { page: Page::Status, note: None }
    }
}

impl App {
    /// A key was pressed.
    pub fn key(&mut self, key: KeyEvent, facts: &Facts, places: &Places) -> Option<Deed> {
        let altered = key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT);
        let letter = match key.code {
            KeyCode::Char(letter) if !altered => Some(letter.to_ascii_lowercase()),
            _ => None,
        };
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if facts.trial.is_some() {
            self.page = Page::Status;
            return match letter {
                Some('k') => Some(Deed::Keep),
                Some('b') => Some(Deed::Back),
                _ => None,
            };
        }
        if key.code == KeyCode::Esc {
            self.page = match std::mem::replace(&mut self.page, Page::Status) {
                Page::Preview(_, form) => Page::Form(form),
                _ => Page::Status,
            };
            return None;
        }
        match (&mut self.page, letter) {
            (Page::Status, Some(letter)) => {
                self.note = None;
                match letter {
                    'n' => self.page = Page::Form(Form::new(&facts.kept.settings)),
                    'r' => self.page = Page::Restart,
                    'p' => self.page = Page::PowerOff,
                    _ => {}
                }
                None
            }
            (Page::Form(form), _) if key.code == KeyCode::Enter => {
                if let Some(settings) = form.check(places) {
                    self.page = Page::Preview(settings, form.clone());
                }
                None
            }
            (Page::Form(form), _) => {
                form.key(key);
                None
            }
            (Page::Preview(settings, _), Some('t')) => {
                let settings = settings.clone();
                self.page = Page::Status;
                Some(Deed::Try(settings))
            }
            (Page::Restart, Some('r')) => Some(Deed::Restart),
            (Page::PowerOff, Some('p')) => Some(Deed::PowerOff),
            _ => None,
        }
    }

    /// Nobody has pressed a key for a while: whoever comes next sees what the box does.
    pub fn left_alone(&mut self) {
        *self = App::default();
    }
}
