//! Lines of CSV (RFC 4180), as far as lists and load files need them.
//!
//! Refuses to do: fields with line feeds when reading; a list has one document a line.

/// A line of these fields.
pub fn line<'a>(fields: impl IntoIterator<Item = &'a str>) -> String {
    let mut out = String::new();
    for (at, field) in fields.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        if field.contains([',', '"', '\r', '\n']) {
            out.push('"');
            out.push_str(&field.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(field);
        }
    }
    out.push_str("\r\n");
    out
}

/// The fields of a line.
pub fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut letters = line.trim_end_matches(['\r', '\n']).chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        assert_eq!(line(["a", "b,c", "say \"x\"", ""]), "a,\"b,c\",\"say \"\"x\"\"\",\r\n");
        assert_eq!(fields("a,\"b,c\",\"say \"\"x\"\"\",\r\n"), ["a", "b,c", "say \"x\"", ""]);
        assert_eq!(fields(""), [""]);
        assert_eq!(fields("x\"y,z"), ["x\"y", "z"]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(all in prop::collection::vec("[a-c,\" ]{0,6}", 1..5)) {
            prop_assert_eq!(fields(&line(all.iter().map(String::as_str))), all);
        }
    }
}
