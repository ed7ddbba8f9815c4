//! Where lines end.
//!
//! Refuses to do: lose a letter. All that vanishes is the one space that a line ends at.

/// What a word too long for a line may be broken after.
const SEAMS: &[u8] = b"/-_.:,;@=";

/// Breaks a text into lines no wider than `limit`; `width` measures a letter in the same unit. A blank text is one line.
pub(crate) fn lines(text: &[u8], limit: f32, width: impl Fn(u8) -> f32) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    let mut rest = text;
    loop {
        let mut used = 0.0;
        let fits = rest
            .iter()
            .take_while(|letter| {
                used += width(**letter);
                used <= limit
            })
            .count();
        if fits == rest.len() {
            lines.push(rest.to_vec());
            return lines;
        }
        let (line, tail) = match rest[..=fits].iter().rposition(|letter| *letter == b' ') {
            Some(space) if space > 0 => (&rest[..space], &rest[space + 1..]),
            _ => {
                let seam = rest[..fits].iter().rposition(|letter| SEAMS.contains(letter));
                // At least one letter a line, however narrow it is.
                let end = seam.map_or(fits, |seam| seam + 1).max(1);
                rest.split_at(end)
            }
        };
        lines.push(line.to_vec());
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn columns(text: &str, limit: u8) -> Vec<String> {
        let lines = lines(text.as_bytes(), f32::from(limit), |_| 1.0);
        lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
    }

    #[test]
    fn lines_end_at_spaces_then_at_seams_then_anywhere() {
        assert_eq!(columns("to be or not", 5), ["to be", "or", "not"]);
        assert_eq!(columns("bank.example/0f0f/1", 10), ["bank.", "example/", "0f0f/1"]);
        assert_eq!(columns("abcdefg", 3), ["abc", "def", "g"]);
        assert_eq!(columns("", 3), [""]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_sticks_out(text in "[a-c /]{0,60}", limit in 1u8..20) {
            let lines = columns(&text, limit);
            prop_assert!(lines.iter().all(|line| line.len() <= usize::from(limit)));
            let all = lines.concat();
            prop_assert_eq!(all.replace(' ', ""), text.replace(' ', ""));
            prop_assert!(text.len() - all.len() < lines.len(), "one space a line end, no more");
        }
    }
}
