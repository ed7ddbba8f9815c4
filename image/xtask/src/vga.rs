//! Letters of a screen that is pixels: a picture of a text console, read with the very letters that the kernel has in it.
//!
//! - A cell is the letter that differs from it in the fewest dots, in either of its two colours.
//! - What is like none is shown as `?`: nothing is guessed.

use anyhow::{Context, Result, ensure};

const WIDTH: usize = 8;
const HEIGHT: usize = 16;
/// A cell that differs from every letter in more dots than this is none.
const DOTS_MAX: u32 = 3;
/// The letter A, by which the font is found.
const LETTER_A: [u8; HEIGHT] = [0, 0, 0x10, 0x38, 0x6c, 0xc6, 0xc6, 0xfe, 0xc6, 0xc6, 0xc6, 0xc6, 0, 0, 0, 0];
/// Half blocks and the whole one, by their places in the font; which half it is, a cell in two colours does not say.
const BLOCKS: [(usize, char); 3] = [(219, '\u{2588}'), (220, '\u{2584}'), (223, '\u{2580}')];

/// Letters and their dots.
pub type Font = Vec<(char, u128)>;

fn dots(rows: &[u8]) -> u128 {
    rows.iter().fold(0, |dots, row| dots << WIDTH | u128::from(*row))
}

/// The kernel itself in a file that boots, as the boot protocol says where it is; without the length that follows it.
pub fn compressed(kernel: &[u8]) -> Result<&[u8]> {
    let number = |at: usize| -> Result<usize> {
        let bytes = kernel.get(at..at + 4).context("this is no kernel")?;
        Ok(u32::from_le_bytes(bytes.try_into()?) as usize)
    };
    let sectors = usize::from(*kernel.get(0x1f1).context("this is no kernel")?);
    let begin = (sectors + 1) * 512 + number(0x248)?;
    let end = (begin + number(0x24c)?).saturating_sub(4);
    kernel.get(begin..end).context("this kernel is cut off")
}

/// The letters in a kernel: 256 of 16 rows each.
pub fn font(kernel: &[u8]) -> Result<Font> {
    // The first row of an A is empty: whoever looks for the third sees fewer places.
    let found = kernel
        .windows(HEIGHT)
        .enumerate()
        .filter(|(_, window)| window[2] == LETTER_A[2] && **window == LETTER_A);
    let begins = found.filter_map(|(at, _)| at.checked_sub(usize::from(b'A') * HEIGHT));
    let letter = |begin: usize, place: usize| {
        kernel.get(begin + place * HEIGHT..begin + (place + 1) * HEIGHT).map(dots)
    };
    let whole = |begin: &usize| letter(*begin, 32) == Some(0) && letter(*begin, 219) == Some(u128::MAX);
    let begin = begins.into_iter().find(whole).context("this kernel has no font of 8 by 16 dots")?;
    let plain = (32..127_u8).map(|letter| (usize::from(letter), char::from(letter)));
    plain
        .chain(BLOCKS)
        .map(|(place, name)| Ok((name, letter(begin, place).context("its font is cut off")?)))
        .collect()
}

/// What is written on a picture (PPM, as QEMU dumps a screen), a line a row.
pub fn letters(picture: &[u8], font: &Font) -> Result<String> {
    let (width, height, pixels) = pixels(picture)?;
    let mut text = String::new();
    for row in 0..height / HEIGHT {
        for column in 0..width / WIDTH {
            let light = |dot: usize| {
                let (x, y) = (column * WIDTH + dot % WIDTH, row * HEIGHT + dot / WIDTH);
                let at = (y * width + x) * 3;
                pixels.get(at..at + 3).map_or(0, |pixel| pixel.iter().map(|part| u32::from(*part)).sum())
            };
            text.push(letter(font, light));
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    Ok(text)
}

fn letter(font: &Font, light: impl Fn(usize) -> u32) -> char {
    let all: Vec<u32> = (0..WIDTH * HEIGHT).map(light).collect();
    let (least, most) = (all.iter().min().copied().unwrap_or(0), all.iter().max().copied().unwrap_or(0));
    if least == most {
        // A cell of one colour is a blank on a dark screen, and a block of a code on a light one.
        return if most > 3 * 200 { '\u{2588}' } else { ' ' };
    }
    let shown = all.iter().fold(0_u128, |dots, light| dots << 1 | u128::from(*light > (least + most) / 2));
    let differs = |dots: u128| (dots ^ shown).count_ones().min((!dots ^ shown).count_ones());
    let nearest = font.iter().map(|(name, dots)| (differs(*dots), *name)).min();
    nearest.filter(|(dots, _)| *dots <= DOTS_MAX).map_or('?', |(_, name)| name)
}

/// Width, height and the bytes of a binary PPM.
fn pixels(picture: &[u8]) -> Result<(usize, usize, &[u8])> {
    let mut rest = picture;
    let mut word = || -> Result<&[u8]> {
        let end = rest.iter().position(u8::is_ascii_whitespace).context("the picture is cut off")?;
        let (word, more) = rest.split_at(end);
        rest = &more[1..];
        Ok(word)
    };
    ensure!(word()? == b"P6", "the picture is no PPM");
    let mut number = || -> Result<usize> { Ok(std::str::from_utf8(word()?)?.parse()?) };
    let (width, height, most) = (number()?, number()?, number()?);
    ensure!(most == 255 && rest.len() >= width * height * 3, "the picture is cut off");
    Ok((width, height, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel whose letters are their own numbers, but for the one by which they are found.
    fn kernel() -> Vec<u8> {
        let mut kernel = [vec![0xff; 7], LETTER_A.to_vec(), vec![3; 5_000]].concat();
        for place in 0..256_usize {
            let own = [place as u8, !(place as u8), (place as u8).rotate_left(3), (place * 7) as u8];
            match (place, BLOCKS.iter().position(|(block, _)| *block == place)) {
                (65, _) => kernel.extend(LETTER_A),
                (32, _) => kernel.extend([0; HEIGHT]),
                (_, Some(0)) => kernel.extend([0xff; HEIGHT]),
                (_, Some(1)) => kernel.extend([[0; 8], [0xff; 8]].concat()),
                (_, Some(_)) => kernel.extend([[0xff; 8], [0; 8]].concat()),
                _ => kernel.extend([own, own, own, own].concat()),
            }
        }
        kernel
    }

    fn picture(text: &[&str], font: &Font, ink: u8, paper: u8) -> Vec<u8> {
        let width = text[0].chars().count() * WIDTH;
        let mut bytes = format!("P6\n{width} {}\n255\n", text.len() * HEIGHT).into_bytes();
        for line in text {
            for row in 0..HEIGHT {
                for letter in line.chars() {
                    let dots = font.iter().find(|(name, _)| *name == letter).unwrap().1;
                    for dot in 0..WIDTH {
                        let on = dots >> (WIDTH * HEIGHT - 1 - (row * WIDTH + dot)) & 1 == 1;
                        bytes.extend([if on { ink } else { paper }; 3]);
                    }
                }
            }
        }
        bytes
    }

    #[test]
    fn a_screen_is_read_in_either_colour_and_with_a_few_wrong_dots() {
        let font = font(&kernel()).unwrap();
        let text = ["IN SERVICE, 10.20.30.40/24", "\u{2588}\u{2580}\u{2584} Box A                b"];
        for (ink, paper) in [(170, 0), (0, 170)] {
            let read = letters(&picture(&text, &font, ink, paper), &font).unwrap();
            let shown: Vec<&str> = read.lines().collect();
            assert_eq!(shown[0], text[0]);
            assert!(shown[1].ends_with("Box A                b"), "{read}");
        }
        let mut smeared = picture(&text, &font, 170, 0);
        let head = 14;
        for pixel in (0..smeared.len() - head).step_by(3 * 61) {
            smeared[head + pixel..head + pixel + 3].copy_from_slice(&[170; 3]);
        }
        assert!(letters(&smeared, &font).unwrap().contains("SERVICE"));
        assert!(super::font(&[0; 5_000]).is_err());
        for bad in [&b""[..], b"P6\n8 16\n255\n", b"P5\n1 1\n255\n\0\0\0"] {
            assert!(letters(bad, &font).is_err());
        }
    }
}
