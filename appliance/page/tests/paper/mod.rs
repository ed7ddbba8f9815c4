//! Paper: a page rasterised and read again by programs that are not ours, and what happens to paper in between.
//!
//! Refuses to do: skip. poppler-utils and zbar-tools come with the set-up of `cargo xtask test`; without them the tests fail.

use std::path::Path;
use std::process::Command;

/// Runs a stock tool; returns what it printed.
pub fn tool(name: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(name).args(arguments).output().unwrap_or_else(|error| {
        panic!("{name}: {error}; install poppler-utils and zbar-tools, or run `cargo xtask setup`")
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {} {said}", output.status);
    output.stdout
}

/// A raster of grey dots.
#[derive(Clone)]
pub struct Raster {
    width: usize,
    height: usize,
    dots: Vec<u8>,
}

impl Raster {
    /// A PDF as a printer of 300 dots an inch, or so many, puts it on paper.
    pub fn of(pdf: &[u8], dots_per_inch: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("page.pdf");
        std::fs::write(&file, pdf).unwrap();
        let resolution = dots_per_inch.to_string();
        Self::parse(&tool("pdftoppm", &["-r", &resolution, "-gray", file.to_str().unwrap()]))
    }

    /// Reads a PGM: `P5`, width, height, 255, then a byte a dot.
    fn parse(pgm: &[u8]) -> Self {
        let mut fields = pgm.splitn(4, |byte| byte.is_ascii_whitespace());
        let mut field = || fields.next().unwrap();
        assert_eq!(field(), b"P5");
        let number = |field: &[u8]| std::str::from_utf8(field).unwrap().parse::<usize>().unwrap();
        let (width, height) = (number(field()), number(field()));
        let dots = field().strip_prefix(b"255\n").unwrap().to_vec();
        assert_eq!(dots.len(), width * height, "one page and no more");
        Raster { width, height, dots }
    }

    /// Dots across and down.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// The texts of the QR codes that a stock reader finds.
    pub fn codes(&self) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("page.pgm");
        self.save(&file);
        let only = ["--quiet", "--raw", "-Sdisable", "-Sqrcode.enable"];
        let printed = tool("zbarimg", &[&only[..], &[file.to_str().unwrap()]].concat());
        String::from_utf8(printed).unwrap().lines().map(str::to_owned).collect()
    }

    /// Writes it as a PGM.
    pub fn save(&self, file: &Path) {
        let header = format!("P5\n{} {}\n255\n", self.width, self.height);
        std::fs::write(file, [header.as_bytes(), &self.dots].concat()).unwrap();
    }

    fn at(&self, x: i64, y: i64) -> f32 {
        let inside = |at: i64, size: usize| usize::try_from(at).ok().filter(|at| *at < size);
        match (inside(x, self.width), inside(y, self.height)) {
            (Some(x), Some(y)) => f32::from(self.dots[y * self.width + x]),
            _ => 255.0,
        }
    }

    fn mapped(&self, dot: impl Fn(i64, i64) -> f32) -> Self {
        let places = (0..self.height as i64).flat_map(|y| (0..self.width as i64).map(move |x| (x, y)));
        Raster { dots: places.map(|(x, y)| dot(x, y).round() as u8).collect(), ..*self }
    }

    /// Put on the glass askew.
    pub fn rotated(&self, degrees: f32) -> Self {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let (middle_x, middle_y) = (self.width as f32 / 2.0, self.height as f32 / 2.0);
        self.mapped(|x, y| {
            let (x, y) = (x as f32 - middle_x, y as f32 - middle_y);
            let (x, y) = (cos * x + sin * y + middle_x, cos * y - sin * x + middle_y);
            let (left, upper) = (x.floor(), y.floor());
            let (right_share, lower_share) = (x - left, y - upper);
            let (left, upper) = (left as i64, upper as i64);
            let row = |y| self.at(left, y) * (1.0 - right_share) + self.at(left + 1, y) * right_share;
            row(upper) * (1.0 - lower_share) + row(upper + 1) * lower_share
        })
    }

    /// Out of focus: each dot is the mean of its neighbourhood, which reaches so far to all sides.
    pub fn blurred(&self, reach: i64) -> Self {
        let share = 1.0 / (2 * reach + 1) as f32;
        let across = self.mapped(|x, y| (x - reach..=x + reach).map(|x| self.at(x, y)).sum::<f32>() * share);
        across.mapped(|x, y| (y - reach..=y + reach).map(|y| across.at(x, y)).sum::<f32>() * share)
    }

    /// A worn copy: grey instead of black and white, with a grain that depends on the place alone.
    pub fn faded(&self) -> Self {
        self.mapped(|x, y| {
            let grain = (x.wrapping_mul(7_919) ^ y.wrapping_mul(104_729)).rem_euclid(41) as f32 - 20.0;
            (70.0 + self.at(x, y) * 0.5 + grain).clamp(0.0, 255.0)
        })
    }

    /// A white spot: its middle and half its width, in dots.
    pub fn spotted(&self, middle: (i64, i64), reach: i64) -> Self {
        self.mapped(|x, y| {
            let (dx, dy) = (x - middle.0, y - middle.1);
            if dx * dx + dy * dy <= reach * reach { 255.0 } else { self.at(x, y) }
        })
    }
}
