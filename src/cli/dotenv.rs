//! `.env` files, by the rules of Node's dotenv, for which Drizzle's users write them.
//!
//! Values are not expanded: a password may contain a `$`, which the well-known crates replace.

/// The variables of a `.env` file, in order. Like dotenv, this ignores lines that set none.
pub fn parse(text: &str) -> Vec<(String, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let mut variables = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let line = rest.split('\n').next().unwrap_or_default();
        let mut used = line.len();
        if let Some((name, value)) = assignment(line) {
            let value_at = line.len() - value.len();
            let value = match quotation(rest.get(value_at..).unwrap_or_default()) {
                // A quoted value may span lines.
                Some((content, length)) => {
                    used = used.max(value_at + length);
                    content
                }
                None => value.split('#').next().unwrap_or_default().trim().to_owned(),
            };
            variables.push((name.to_owned(), value));
        }
        rest = rest.get(used..).and_then(|rest| rest.split_once('\n')).map_or("", |(_, rest)| rest);
    }
    variables
}

fn assignment(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start();
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let (name, value) = line.split_once('=')?;
    let name = name.trim_end();
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    (!name.is_empty() && name.chars().all(is_name)).then_some((name, value.trim_start()))
}

/// The content of the quotes that a value begins with, and its length with the quotes. As in dotenv, a
/// backslash escapes a quote, and only double quotes have `\n`.
fn quotation(value: &str) -> Option<(String, usize)> {
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'))?;
    let inside = value.get(1..)?;
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        if c == quote && !escaped {
            let content = inside.get(..at)?;
            let content = match quote {
                '"' => content.replace("\\n", "\n").replace("\\r", "\r"),
                _ => content.to_owned(),
            };
            return Some((content, at + 2));
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<String> {
        parse(text).into_iter().next().map(|(_, value)| value)
    }

    #[test]
    fn values_are_read_as_nodes_dotenv_reads_them() {
        for (text, expected) in [
            ("A=b", "b"),
            ("  export A = b c  ", "b c"),
            ("A=b # c", "b"),
            ("A='b # c' # d", "b # c"),
            ("A=\"b\\nc\"", "b\nc"),
            ("A='b\\nc'", "b\\nc"),
            ("A=`b'\"c`", "b'\"c"),
            ("A=", ""),
            ("A=pa$word$HOME", "pa$word$HOME"),
            ("A=postgres://u:p=q@h/d?x=1", "postgres://u:p=q@h/d?x=1"),
            ("A='open", "'open"),
            ("\u{feff}A=b\r\n", "b"),
        ] {
            assert_eq!(value(text).as_deref(), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn a_quoted_value_may_span_lines() {
        let variables = parse("A=\"b\nc\nd\" # e\nB=2\n");
        let expected = [("A", "b\nc\nd"), ("B", "2")];
        assert_eq!(variables, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn a_line_without_an_assignment_is_ignored() {
        assert_eq!(parse("# A=b\n\nnonsense\n=x\na b=c"), []);
    }
}
