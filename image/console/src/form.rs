//! The form of the network settings: a line a field, typed at a keyboard of whatever layout.
//!
//! The kernel reads every keyboard as an American one. `&` and `>` stand where `/` and `:` are on a German or Swiss one, and
//! are in no field: they are taken for those. Letters are what they are; whoever types sees them.
//! Refuses to do: let anything pass that [`Settings::from_words`] or the machine refuses.
//! Invariant: a field is printable ASCII and no longer than [`LINE_MAX`].

use crate::networkd;
use crate::place::Places;
use bulla_formats::network::{Fault, Field, Settings, Words};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Longest field.
pub const LINE_MAX: usize = 320;

/// A field: which, its label, and what may stand there.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Which part of the settings.
    pub field: Field,
    /// In front of it.
    pub label: &'static str,
    /// What may stand there.
    pub hint: &'static str,
}

/// The fields from top to bottom.
pub const LINES: [Line; 8] = [
    Line { field: Field::Interface, label: "Port", hint: "a port's name; empty: every port" },
    Line { field: Field::Vlan, label: "VLAN", hint: "1 to 4094; empty: untagged" },
    Line { field: Field::Ipv4, label: "IPv4", hint: "dhcp, off, or an address as in 10.20.30.40/24" },
    Line {
        field: Field::Ipv4Gateway,
        label: "IPv4 gateway",
        hint: "with an address that is set; empty: none",
    },
    Line {
        field: Field::Ipv6,
        label: "IPv6",
        hint: "automatic, off, or an address as in 2001:db8:20::40/64",
    },
    Line {
        field: Field::Ipv6Gateway,
        label: "IPv6 gateway",
        hint: "with an address that is set; empty: none",
    },
    Line {
        field: Field::Dns,
        label: "Name servers",
        hint: "up to three addresses; empty: those the network names",
    },
    Line {
        field: Field::Ntp,
        label: "Time servers",
        hint: "up to three names or addresses; empty: as the network says",
    },
];

/// What is typed.
#[derive(Debug, Clone)]
pub struct Form {
    words: [String; LINES.len()],
    /// Which line.
    pub at: usize,
    /// Where in it.
    pub cursor: usize,
    /// What is wrong, and where.
    pub fault: Option<(usize, String)>,
}

impl Form {
    /// With these settings.
    pub fn new(settings: &Settings) -> Self {
        let of = settings.words();
        let words =
            [of.interface, of.vlan, of.ipv4, of.ipv4_gateway, of.ipv6, of.ipv6_gateway, of.dns, of.ntp];
        let cursor = words[0].len();
        Form { words, at: 0, cursor, fault: None }
    }

    /// The text of a line.
    pub fn text(&self, line: usize) -> &str {
        self.words.get(line).map_or("", String::as_str)
    }

    fn go(&mut self, line: usize) {
        self.at = line.min(LINES.len() - 1);
        self.cursor = self.text(self.at).len();
    }

    /// Types.
    pub fn key(&mut self, key: KeyEvent) {
        let (at, cursor) = (self.at, self.cursor);
        let Some(text) = self.words.get_mut(at) else { return };
        match key.code {
            KeyCode::Up | KeyCode::BackTab => self.go(at.checked_sub(1).unwrap_or(LINES.len() - 1)),
            KeyCode::Down | KeyCode::Tab => self.go(if at + 1 < LINES.len() { at + 1 } else { 0 }),
            KeyCode::Left => self.cursor = cursor.saturating_sub(1),
            KeyCode::Right => self.cursor = (cursor + 1).min(text.len()),
            KeyCode::Home => self.cursor = 0,
            KeyCode::End => self.cursor = text.len(),
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                text.clear();
                self.cursor = 0;
            }
            KeyCode::Char(letter) if key.modifiers.difference(KeyModifiers::SHIFT).is_empty() => {
                let letter = match letter {
                    '&' => '/',
                    '>' => ':',
                    letter => letter,
                };
                if (letter.is_ascii_graphic() || letter == ' ') && text.len() < LINE_MAX {
                    text.insert(cursor, letter);
                    self.cursor = cursor + 1;
                }
            }
            KeyCode::Backspace if cursor > 0 => {
                text.remove(cursor - 1);
                self.cursor = cursor - 1;
            }
            KeyCode::Delete if cursor < text.len() => {
                text.remove(cursor);
            }
            _ => return,
        }
        self.fault = None;
    }

    /// The settings, if all is well; else the form says what is wrong, and stands there.
    pub fn check(&mut self, places: &Places) -> Option<Settings> {
        let [interface, vlan, ipv4, ipv4_gateway, ipv6, ipv6_gateway, dns, ntp] = self.words.clone();
        let words = Words { interface, vlan, ipv4, ipv4_gateway, ipv6, ipv6_gateway, dns, ntp };
        let checked = Settings::from_words(&words).and_then(|settings| {
            let fits = networkd::fits(places, &settings);
            fits.map(|()| settings).map_err(|sentence| Fault { field: Field::Interface, sentence })
        });
        match checked {
            Ok(settings) => Some(settings),
            Err(fault) => {
                let line = LINES.iter().position(|line| line.field == fault.field).unwrap_or_default();
                self.go(line);
                self.fault = Some((line, fault.sentence));
                None
            }
        }
    }
}
