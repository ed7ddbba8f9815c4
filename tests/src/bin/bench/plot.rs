//! The plot of `docs/performance.svg`: rates of the alternatives on a logarithmic axis, and the log at each size
//! against what was aimed at.
//!
//! Plain SVG with no font or style of its own. Refuses to do: judge; a bar past its aim is a bar past a line.

use crate::figures::{Rate, Sized};
use std::fmt::Write as _;

const WIDTH: f64 = 900.0;
const LABELS: f64 = 370.0;
const ROW: f64 = 26.0;
const OURS: &str = "#1b6ca8";
const OTHERS: &str = "#b8b8b8";
const AIM: &str = "#c0392b";

/// Draws both parts; either may be empty.
pub fn draw(rates: &[Rate], sizes: &[Sized]) -> String {
    let mut body = String::new();
    let mut y = 10.0;
    if !rates.is_empty() {
        y = draw_rates(&mut body, rates, y);
    }
    if !sizes.is_empty() {
        y = draw_sizes(&mut body, sizes, y + 20.0);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y:.0}\" \
         viewBox=\"0 0 {WIDTH} {y:.0}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

fn draw_rates(body: &mut String, rates: &[Rate], top: f64) -> f64 {
    title(body, top, "Documents held to account a second (logarithmic)");
    let mut y = top + 34.0;
    let decades = rates.iter().map(|rate| rate.per_second.max(1.0).log10()).fold(1.0, f64::max).ceil();
    let scale = (WIDTH - LABELS - 80.0) / decades;
    let bottom = y + rates.len() as f64 * ROW;
    for decade in 0..=decades as i32 {
        let x = LABELS + f64::from(decade) * scale;
        line(body, x, y, x, bottom, "#dddddd");
        text(body, x, bottom + 16.0, "middle", &number(10f64.powi(decade)));
    }
    for rate in rates {
        let length = (rate.per_second.max(1.0).log10() * scale).max(2.0);
        text(body, LABELS - 8.0, y + 17.0, "end", &rate.what);
        bar(body, LABELS, y + 4.0, length, if rate.ours { OURS } else { OTHERS });
        text(body, LABELS + length + 6.0, y + 17.0, "start", &number(rate.per_second));
        y += ROW;
    }
    bottom + 30.0
}

fn draw_sizes(body: &mut String, sizes: &[Sized], top: f64) -> f64 {
    title(body, top, "One log as it grows (red: what was aimed at)");
    let mut y = top + 34.0;
    let smallest = sizes[0].batched;
    type Figure = fn(&Sized, f64) -> f64;
    let panels: [(&str, Figure, f64, usize); 5] = [
        ("append rate, % of the smallest", |log, smallest| 100.0 * log.batched / smallest, 90.0, 0),
        ("inclusion proof, p99 in ms", |log, _| log.proof_p99_ms, 1.0, 2),
        ("reopened after kill -9, s", |log, _| log.open_seconds, 5.0, 2),
        ("peak resident memory, MB", |log, _| log.rss_mb, 150.0, 0),
        ("disk bytes for a byte of entry", |log, _| log.disk_bytes / log.entry_bytes, 1.6, 2),
    ];
    for (name, figure, aim, decimals) in panels {
        let most = sizes.iter().map(|log| figure(log, smallest)).fold(aim, f64::max) * 1.05;
        let scale = (WIDTH - LABELS - 80.0) / most;
        let begin = y;
        for log in sizes {
            let value = figure(log, smallest);
            let label = format!("{name}, {} entries", number(log.entries as f64));
            text(body, LABELS - 8.0, y + 17.0, "end", &label);
            bar(body, LABELS, y + 4.0, (value * scale).max(2.0), OURS);
            let shown = format!("{value:.decimals$}");
            text(body, WIDTH - 8.0, y + 17.0, "end", &shown);
            y += ROW;
        }
        line(body, LABELS + aim * scale, begin, LABELS + aim * scale, y, AIM);
        y += 12.0;
    }
    y
}

fn title(body: &mut String, y: f64, words: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(body, "<text x=\"12\" y=\"{:.0}\" font-size=\"16\">{words}</text>", y + 16.0);
}

fn text(body: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _ = writeln!(body, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

fn bar(body: &mut String, x: f64, y: f64, length: f64, colour: &str) {
    let _ = writeln!(
        body,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{}\" fill=\"{colour}\"/>",
        ROW - 8.0
    );
}

fn line(body: &mut String, x: f64, y: f64, to_x: f64, to_y: f64, colour: &str) {
    let _ = writeln!(
        body,
        "<line x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{to_x:.1}\" y2=\"{to_y:.1}\" stroke=\"{colour}\"/>"
    );
}

/// 1,234,567 with commas.
fn number(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}
