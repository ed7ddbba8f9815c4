//! What is on the screen, as text: for a Linux virtual terminal of 80 by 25 and for every other size.
//!
//! Letters are ASCII and half blocks, which the kernel's own font has. Colour repeats what words say and adds nothing.
//! Refuses to do: hide the state behind anything else, whatever the size.
//! Invariant: drawing changes nothing and cannot fail.

use crate::app::{App, Page};
use crate::facts::{Facts, Port, Standing};
use crate::form::{Form, LINES};
use bulla_formats::box_status::{Enrolling, Running};
use bulla_formats::network::{Settings, Words};
use qrcode::bits::Bits;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode, Version};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

/// Columns of the labels.
const LABEL: usize = 14;
/// From this width on there is room for a QR code beside the text.
const WIDE: u16 = 78;

/// How it stands, in a word, a sentence, and a colour.
struct State {
    word: String,
    sentence: String,
    color: Color,
}

/// Draws everything.
pub fn draw(frame: &mut Frame, app: &App, facts: &Facts) {
    let [title, _, body, note, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(u16::from(app.note.is_some()) * 2),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let bar = Style::new().add_modifier(Modifier::REVERSED);
    let width = usize::from(title.width);
    let state = state(facts);
    let head = format!(" Bulla   {}   image {}", state.word, facts.image);
    frame.render_widget(Paragraph::new(format!("{head:<width$}")).style(bar), title);
    let help = if facts.trial.is_some() {
        " K keep them   B back to the former ones"
    } else {
        match &app.page {
            Page::Status => " N network   R restart   P power off",
            Page::Form(_) => " Up, Down: line   Enter: check and show what would change   Esc: leave",
            Page::Preview(..) => " T try them   Esc: back",
            Page::Restart => " R restart now   Esc: back",
            Page::PowerOff => " P power off now   Esc: back",
        }
    };
    frame.render_widget(Paragraph::new(format!("{help:<width$}")).style(bar), keys);
    if let Some(text) = &app.note {
        frame.render_widget(Paragraph::new(wrapped(text, width)).style(bold()), note);
    }
    match (&facts.trial, &app.page) {
        (Some(trial), _) => tried(frame, body, facts, &trial.settings),
        (None, Page::Status) => status(frame, body, facts, &state),
        (None, Page::Form(form)) => typed(frame, body, facts, form),
        (None, Page::Preview(settings, _)) => preview(frame, body, facts, settings),
        (None, Page::Restart) => {
            let text = [
                "Restart this machine?",
                "",
                "Sealing stops for a minute or two. Documents on their way are finished first.",
            ];
            frame.render_widget(Paragraph::new(text.map(Line::from).to_vec()), body);
        }
        (None, Page::PowerOff) => {
            let text =
                ["Switch this machine off?", "", "Nothing is sealed until somebody switches it on again."];
            frame.render_widget(Paragraph::new(text.map(Line::from).to_vec()), body);
        }
    }
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn state(facts: &Facts) -> State {
    let state = |word: &str, sentence: &str, color| State {
        word: word.to_owned(),
        sentence: sentence.to_owned(),
        color,
    };
    match &facts.standing {
        Standing::DataClosed => state(
            "DATA DOES NOT OPEN",
            "The data partition does not open with this machine's TPM: docs/image.md, 'When the data does not open'.",
            Color::LightRed,
        ),
        Standing::Starting => state("STARTING", "The data partition is not open yet.", Color::LightYellow),
        Standing::Unclaimed => state(
            "NOT IN SERVICE YET",
            "Nobody has taken this box into service: plug in a stick labelled BULLA-CONF with box.toml on it.",
            Color::LightYellow,
        ),
        Standing::Enrolling(_) => state(
            "WAITING FOR APPROVAL",
            "Read the fingerprint to the person who approves: it must be the one on their screen.",
            Color::LightYellow,
        ),
        Standing::Stopped => state(
            "THE BOX DOES NOT RUN",
            "It was taken into service, or somebody began to, and its program does not run. If this stays, restart; then see \
             result.txt on the stick, or docs/failure-modes.md.",
            Color::LightRed,
        ),
        Standing::Silent(seconds) => State {
            word: "NO NEWS FROM THE BOX".to_owned(),
            sentence: format!(
                "Its program has said nothing for {}; what it said before is not shown.",
                clock(*seconds)
            ),
            color: Color::LightRed,
        },
        Standing::Odd => state(
            "NO NEWS FROM THE BOX",
            "What its program says cannot be read by this one.",
            Color::LightRed,
        ),
        Standing::Running(running) => of_running(running),
    }
}

fn of_running(running: &Running) -> State {
    let why = running.why.as_deref().unwrap_or_default();
    let (word, sentence, color) = match (running.condition.as_str(), running.mode.as_str()) {
        ("sealing", "emergency") => {
            let outage = running.outage.as_ref();
            let word = format!("OUTAGE {}", clock(outage.map_or(0, |outage| outage.seconds)));
            let seals = outage.map_or(0, |outage| outage.seals);
            let sentence = format!(
                "No authority or hub can be reached. Documents are sealed all the same: {seals} so far."
            );
            (word, sentence, Color::LightYellow)
        }
        ("sealing", "degraded") => (
            "IN SERVICE".to_owned(),
            "Some authorities or hubs cannot be reached; documents are sealed.".to_owned(),
            Color::LightGreen,
        ),
        ("sealing", "reconciling") => (
            "IN SERVICE".to_owned(),
            "The outage is over; what it left open is made up for now.".to_owned(),
            Color::LightGreen,
        ),
        ("sealing", _) => ("IN SERVICE".to_owned(), "Documents are sealed.".to_owned(), Color::LightGreen),
        ("locked", _) => {
            ("LOCKED".to_owned(), format!("An operator has locked the box: {why}"), Color::LightRed)
        }
        ("retiring", _) => (
            "RETIRING".to_owned(),
            "It is decided that this box goes; nothing new is sealed.".to_owned(),
            Color::LightYellow,
        ),
        ("disk-full", _) => {
            ("DISK FULL".to_owned(), "Nothing is sealed until there is room.".to_owned(), Color::LightRed)
        }
        ("limited", _) => (
            "STOPPED BY A LIMIT".to_owned(),
            "A limit of emergency operation is reached; it seals again when the outage is over.".to_owned(),
            Color::LightRed,
        ),
        ("rollback-suspected", _) => (
            "ROLLBACK SUSPECTED".to_owned(),
            format!("The disk may be an older copy, and nothing is sealed: {why}"),
            Color::LightRed,
        ),
        (condition, _) => ("NOT SEALING".to_owned(), format!("{condition}: {why}"), Color::LightRed),
    };
    let mut word = word;
    if running.drill {
        word.push_str(" (DRILL)");
    }
    if !running.attention.is_empty() {
        word.push_str(", NEEDS ATTENTION");
    }
    State { word, sentence, color }
}

fn status(frame: &mut Frame, area: Rect, facts: &Facts, state: &State) {
    if let Standing::Enrolling(claim) = &facts.standing {
        return enrolling(frame, area, facts, state, claim);
    }
    let width = usize::from(area.width);
    let mut lines = stated(state, width);
    if let Standing::Running(running) = &facts.standing {
        for reason in &running.attention {
            lines.extend(wrapped(&format!("! {reason}"), width).into_iter().map(|line| line.style(bold())));
        }
        lines.push(Line::default());
        let mut row = |label: &str, text: &str| lines.extend(row(label, text, width));
        row("Branch", running.branch.as_deref().unwrap_or("no roster says"));
        row("Box", &running.origin);
        row("CA", &running.ca);
        row("Program", &format!("{}, up {}", running.version, clock(running.uptime_seconds)));
        let waiting = if running.queued > 0 {
            format!(", {} wait to be sealed", running.queued)
        } else {
            String::new()
        };
        row("Entries", &format!("{}, {} seals since its start{waiting}", running.entries, running.seals));
        row(
            "Outage",
            &match &running.outage {
                None => "none".to_owned(),
                Some(outage) => format!("number {}, {}", outage.number, clock(outage.seconds)),
            },
        );
        row(
            "Last anchor",
            &match &running.anchors {
                None => "no authorities are configured".to_owned(),
                Some(anchors) => {
                    let age = anchors
                        .age_seconds
                        .map_or("none since its start".to_owned(), |age| format!("{} ago", clock(age)));
                    format!("{age}; entries anchored by {} operators: {}", anchors.needed, anchors.anchored)
                }
            },
        );
        row(
            "Neighbours",
            &match &running.neighbours {
                None => "none are configured".to_owned(),
                Some(of) => format!("{} of {} seen", of.connected, of.known),
            },
        );
        row(
            "Disk left",
            &running
                .free_bytes
                .map_or("unknown".to_owned(), |bytes| format!("{} MB beyond the reserve", bytes / 1_000_000)),
        );
    } else {
        lines.push(Line::default());
    }
    lines.extend(network_rows(facts, width));
    frame.render_widget(Paragraph::new(lines), area);
}

fn stated(state: &State, width: usize) -> Vec<Line<'static>> {
    let style = bold().fg(state.color);
    let mut lines = vec![Line::styled(state.word.clone(), style)];
    lines.extend(wrapped(&state.sentence, width));
    lines
}

fn network_rows(facts: &Facts, width: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Some(damage) = &facts.kept.damage {
        let text =
            format!("! The network settings are damaged, and DHCP is used ({damage}) Set them again: N.");
        lines.extend(wrapped(&text, width).into_iter().map(|line| line.style(bold())));
    }
    let settings = if facts.kept.settings == Settings::default() {
        "as delivered (DHCP)"
    } else {
        "set at the console or by stick"
    };
    lines.extend(row("Network", settings, width));
    for port in &facts.ports {
        lines.extend(row("", &port_text(port), width));
    }
    lines
}

fn port_text(port: &Port) -> String {
    let cable = if port.carrier == Some(false) { ", no cable" } else { "" };
    match port.addresses.is_empty() {
        true => format!("{}: no address{cable}", port.name),
        false => format!("{}: {}{cable}", port.name, port.addresses.join(", ")),
    }
}

fn enrolling(frame: &mut Frame, area: Rect, facts: &Facts, state: &State, claim: &Enrolling) {
    let code = smallest(claim.code.as_bytes()).map(|code| {
        let drawn = code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
        drawn.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    let size = code.as_ref().map_or((0, 0), |lines| {
        (lines.first().map_or(0, |line| line.chars().count()) as u16, lines.len() as u16)
    });
    let beside = area.width >= WIDE && size.1 <= area.height;
    let [text, picture] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Length(if beside { size.0 } else { 0 })])
            .spacing(u16::from(beside))
            .areas(area);
    let width = usize::from(text.width);
    let mut lines = vec![Line::styled(state.word.clone(), bold().fg(state.color)), Line::default()];
    for (label, value) in [("Claim code", &claim.claim_code), ("Fingerprint", &claim.fingerprint)] {
        lines.push(Line::from(label));
        lines.extend(wrapped(value, width).into_iter().map(|line| line.style(bold())));
    }
    lines.push(Line::default());
    lines.extend(wrapped(&state.sentence, width));
    lines.push(Line::default());
    lines.extend(wrapped(&claim.progress, width));
    lines.extend(wrapped(&format!("Fleet {}", claim.fleet), width));
    lines.extend(wrapped(&claim.registrar, width));
    for port in &facts.ports {
        lines.extend(wrapped(&port_text(port), width));
    }
    lines.extend(wrapped(&format!("TPM {}", claim.tpm), width));
    frame.render_widget(Paragraph::new(lines), text);
    if let Some(code) = code.filter(|_| beside) {
        let style = Style::new().fg(Color::White);
        frame.render_widget(Paragraph::new(code.join("\n")).style(style), picture);
    }
}

/// The smallest code that holds these bytes, so that it has room on 25 lines: what a phone reads off a screen is undamaged, and
/// needs little correction. The library's own choice of segments may be one size larger.
fn smallest(bytes: &[u8]) -> Option<QrCode> {
    (1..=10).find_map(|version| {
        let mut bits = Bits::new(Version::Normal(version));
        bits.push_byte_data(bytes).ok()?;
        bits.push_terminator(EcLevel::L).ok()?;
        QrCode::with_bits(bits, EcLevel::L).ok()
    })
}

fn typed(frame: &mut Frame, area: Rect, facts: &Facts, form: &Form) {
    let width = usize::from(area.width);
    let mut lines = vec![Line::styled("Network settings", bold()), Line::default()];
    let mut cursor = Position::new(area.x, area.y);
    for (at, line) in LINES.iter().enumerate() {
        let chosen = at == form.at;
        let mark = if chosen { ">" } else { " " };
        // The part around the cursor, when the line is longer than the screen.
        let room = width.saturating_sub(LABEL + 3).max(1);
        let from = if chosen { form.cursor.saturating_sub(room - 1) } else { 0 };
        let shown: String = form.text(at).chars().skip(from).take(room).collect();
        let style = if chosen { Style::new().add_modifier(Modifier::UNDERLINED) } else { Style::new() };
        if chosen {
            let column = (LABEL + 2 + form.cursor - from).min(width.saturating_sub(1));
            cursor = Position::new(area.x + column as u16, area.y + lines.len() as u16);
        }
        lines.push(Line::from(vec![
            Span::raw(format!("{mark} {:<LABEL$}", line.label)),
            Span::styled(if shown.is_empty() && chosen { " ".to_owned() } else { shown }, style),
        ]));
        if chosen {
            lines.push(Line::from(format!("  {:LABEL$}({})", "", line.hint)));
        }
        if let Some((_, sentence)) = form.fault.as_ref().filter(|(line, _)| *line == at) {
            let style = bold().fg(Color::LightRed);
            lines
                .extend(wrapped(&format!("  ! {sentence}"), width).into_iter().map(|line| line.style(style)));
        }
    }
    lines.push(Line::default());
    lines.push(Line::from("Ports of this machine:"));
    lines.extend(facts.ports.iter().map(|port| Line::from(format!("  {}", port_text(port)))));
    lines.push(Line::from("Nothing is changed before you have seen what would change, and agreed."));
    frame.render_widget(Paragraph::new(lines), area);
    if area.contains(cursor) {
        frame.set_cursor_position(cursor);
    }
}

fn differences(before: &Settings, after: &Settings, width: usize) -> Vec<Line<'static>> {
    let texts = |of: Words| {
        let or = |text: String, word: &str| if text.is_empty() { word.to_owned() } else { text };
        [
            or(of.interface, "every port"),
            or(of.vlan, "untagged"),
            of.ipv4,
            or(of.ipv4_gateway, "none"),
            of.ipv6,
            or(of.ipv6_gateway, "none"),
            or(of.dns, "those the network names"),
            or(of.ntp, "as the network says"),
        ]
    };
    let (old, new) = (texts(before.words()), texts(after.words()));
    let mut lines = Vec::new();
    for ((line, old), new) in LINES.iter().zip(old).zip(new) {
        if old == new {
            lines.extend(row(line.label, &new, width));
        } else {
            let changed = row(line.label, &format!("{new}   <- was: {old}"), width);
            lines.extend(changed.into_iter().map(|line| line.style(bold())));
        }
    }
    lines
}

fn preview(frame: &mut Frame, area: Rect, facts: &Facts, settings: &Settings) {
    let width = usize::from(area.width);
    let mut lines = vec![Line::styled("What would change", bold()), Line::default()];
    lines.extend(differences(&facts.kept.settings, settings, width));
    lines.push(Line::default());
    for remark in settings.remarks() {
        lines.extend(wrapped(remark, width));
    }
    let text = "T puts them into force for a trial. If nobody here says within the time shown that they work, the former \
                ones come back by themselves. The change is an entry in the box's log.";
    lines.extend(wrapped(text, width));
    frame.render_widget(Paragraph::new(lines), area);
}

fn tried(frame: &mut Frame, area: Rect, facts: &Facts, settings: &Settings) {
    let width = usize::from(area.width);
    let left = clock(facts.trial_seconds);
    let mut lines = vec![
        Line::styled(format!("Network settings on trial: {left} left"), bold().fg(Color::LightYellow)),
        Line::default(),
    ];
    let text = "Check from another machine that the box answers. K keeps them. B, or no answer until the time is over, brings \
                the former ones back.";
    lines.extend(wrapped(text, width));
    lines.push(Line::default());
    lines.extend(differences(&facts.kept.settings, settings, width));
    lines.push(Line::default());
    for port in &facts.ports {
        lines.extend(wrapped(&port_text(port), width));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// A label and its text, over as many lines as it takes.
fn row(label: &str, text: &str, width: usize) -> Vec<Line<'static>> {
    let room = width.saturating_sub(LABEL).max(8);
    let parts = broken(text, room);
    let label = |at: usize| if at == 0 { label.to_owned() } else { String::new() };
    parts
        .into_iter()
        .enumerate()
        .map(|(at, part)| Line::from(format!("{:<LABEL$}{part}", label(at))))
        .collect()
}

fn wrapped(text: &str, width: usize) -> Vec<Line<'static>> {
    broken(text, width.max(8)).into_iter().map(Line::from).collect()
}

/// Text in lines of so many letters, between words where there are some.
fn broken(text: &str, room: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let used = line.chars().count();
            let blank = usize::from(used > 0);
            if used + blank + word.len() <= room {
                if blank == 1 {
                    line.push(' ');
                }
                line.extend(&word);
                break;
            }
            if used > 0 {
                lines.push(std::mem::take(&mut line));
            } else {
                lines.push(word.drain(..room).collect());
            }
        }
    }
    lines.push(line);
    lines
}

/// A time as people read it off a clock.
pub fn clock(seconds: u64) -> String {
    let (days, hours, minutes, seconds) =
        (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    match days {
        0 => format!("{hours}:{minutes:02}:{seconds:02}"),
        1 => format!("1 day {hours}:{minutes:02}:{seconds:02}"),
        _ => format!("{days} days {hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Kept, Trial};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn facts(standing: Standing) -> Facts {
        let port = Port {
            name: "enp1s0".to_owned(),
            carrier: Some(true),
            addresses: vec!["10.20.30.40/24".to_owned()],
        };
        let kept = Kept { settings: Settings::default(), damage: Some("It is damaged.".to_owned()) };
        Facts { standing, image: "0.1.0".to_owned(), ports: vec![port], kept, trial: None, trial_seconds: 0 }
    }

    fn enrolling() -> Standing {
        Standing::Enrolling(Box::new(Enrolling {
            claim_code: "4711-0815".to_owned(),
            fingerprint: "4711-0815-1234-5678-9012-3456".to_owned(),
            code: "bulla-enrol:f3dd9658db5d5050fe6532c2b6211e4c99350dab9099031ab10e10a3c68dcb12".to_owned(),
            fleet: "demo.bulla.test".to_owned(),
            registrar: "https://10.0.2.100:8444".to_owned(),
            tpm: "ef".repeat(32),
            progress: "Asking the registrar.".to_owned(),
        }))
    }

    fn drawn(app: &App, facts: &Facts, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, app, facts)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let letters: Vec<&str> = buffer.content().iter().map(|cell| cell.symbol()).collect();
        letters.chunks(width.max(1).into()).map(|row| row.concat() + "\n").collect()
    }

    #[test]
    fn every_page_is_drawn_at_every_size() {
        let trial = Trial { settings: Settings::default(), began_millis: 0, until_boottime: 0 };
        let settings = Settings::default();
        let pages = [
            Page::Status,
            Page::Form(Form::new(&settings)),
            Page::Preview(settings.clone(), Form::new(&settings)),
            Page::Restart,
            Page::PowerOff,
        ];
        let standings =
            [Standing::Unclaimed, enrolling(), Standing::Silent(99), Standing::Stopped, Standing::Odd];
        for standing in standings {
            for page in &pages {
                for (width, height) in (0..100).map(|n| (n, n / 3)).chain((0..30).map(|n| (80, n))) {
                    let app = App { page: page.clone(), note: Some("A note.".to_owned()) };
                    let mut facts = facts(standing.clone());
                    drawn(&app, &facts, width, height);
                    facts.trial = Some(trial.clone());
                    drawn(&app, &facts, width, height);
                }
            }
        }
    }

    #[test]
    fn letters_are_those_that_a_linux_console_has() {
        let text = drawn(&App::default(), &facts(enrolling()), 80, 25);
        for letter in text.chars() {
            let known = letter.is_ascii() || ['\u{2580}', '\u{2584}', '\u{2588}'].contains(&letter);
            assert!(known, "{letter:?} in\n{text}");
        }
        assert!(text.contains("4711-0815-1234-5678-9012-3456"), "{text}");
        assert!(text.contains('\u{2588}'), "{text}");
        // Where the code has no room, the words have.
        let text = drawn(&App::default(), &facts(enrolling()), 60, 20);
        assert!(text.contains("4711-0815-1234-5678-9012-3456") && !text.contains('\u{2588}'), "{text}");
    }

    #[test]
    fn words_are_broken_between_and_long_ones_within() {
        assert_eq!(broken("one two three", 8), ["one two", "three"]);
        assert_eq!(broken("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(broken("", 4), [""]);
        assert_eq!(
            (clock(59), clock(3_725), clock(90_061)),
            ("0:00:59".into(), "1:02:05".into(), "1 day 1:01:01".into())
        );
    }
}
