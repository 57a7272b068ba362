//! Conflict markers, which git leaves in a file that it could not merge.

use super::lexer::{Lexer, Token, TokenKind, dollar_tag};
use super::script::{BOM, Script};

const MARKERS: [&str; 4] = ["<<<<<<<", "|||||||", "=======", ">>>>>>>"];

/// The first line that is a conflict marker, and its byte offset. In strings and comments, it may be
/// text that is meant so; the code of a function is neither.
pub fn first_in<'a>(script: &Script<'a>) -> Option<(usize, &'a str)> {
    let text = script.text();
    if !MARKERS.iter().any(|marker| text.contains(marker)) {
        return None;
    }
    script.statements().iter().find_map(|statement| {
        let marker =
            Lexer::new(statement.text, 0).find_map(|token| marker_in(statement.text, &token));
        let offset = statement.start + marker?;
        // Not inside of a line, which only the whole file shows.
        is_line_start(text, offset).then(|| (offset, line_at(text, offset)))
    })
}

/// The first line of any text that begins a conflict, and its byte offset.
pub fn first_line_of(text: &str) -> Option<(usize, &str)> {
    let mut offset = 0;
    text.split_inclusive('\n').find_map(|line| {
        let start = offset;
        offset += line.len();
        line.starts_with("<<<<<<< ").then(|| (start, line_at(text, start)))
    })
}

/// The offset of a marker that this token of a statement is, or has in its code.
fn marker_in(statement: &str, token: &Token) -> Option<usize> {
    match token.kind {
        TokenKind::Symbol
            if MARKERS.contains(&token.text) && is_line_start(statement, token.start) =>
        {
            Some(token.start)
        }
        TokenKind::Literal if dollar_tag(token.text).is_some() => {
            let ends = ["\n<<<<<<< ", "\n>>>>>>> "];
            let found = ends.iter().filter_map(|marker| token.text.find(marker)).min()?;
            Some(token.start + found + 1)
        }
        _ => None,
    }
}

fn is_line_start(text: &str, offset: usize) -> bool {
    let before = text.get(..offset).unwrap_or_default().trim_start_matches(BOM);
    before.is_empty() || before.ends_with('\n')
}

/// At most 60 characters, for a message.
fn line_at(text: &str, offset: usize) -> &str {
    let line = text.get(offset..).unwrap_or_default().lines().next().unwrap_or_default().trim_end();
    let end = line.char_indices().nth(60).map_or(line.len(), |(end, _)| end);
    line.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(sql: &str) -> Option<(usize, &str)> {
        first_in(&Script::parse(sql))
    }

    #[test]
    fn a_conflict_marker_in_code_is_found() {
        let sql = "select 1;\n<<<<<<< HEAD\nselect 2;\n=======\nselect 3;\n>>>>>>> b\n";
        assert_eq!(first(sql), Some((10, "<<<<<<< HEAD")));
        let half = "create table a (\n  b int\n=======\n  c int\n);";
        assert_eq!(first(half), Some((half.find("===").unwrap(), "=======")));
        let body = "create function f() returns int language sql as $$\nselect 1\n>>>>>>> b\n$$;";
        assert_eq!(first(body), Some((body.find(">>>").unwrap(), ">>>>>>> b")));
        assert_eq!(first("\u{feff}<<<<<<< HEAD\nselect 1"), Some((3, "<<<<<<< HEAD")));
    }

    #[test]
    fn what_may_be_meant_so_is_no_conflict() {
        for sql in [
            "select 1;\n/*\n=======\n<<<<<<< HEAD\n*/\nselect 2",
            "insert into t values ('\n<<<<<<< HEAD\n=======\n>>>>>>> b\n')",
            "select 1 <<<<<<< 2",
            "select 1 ||||||| 2;\n-- =======\n",
            "select $$\n=======\n$$",
            "copy t from stdin;\n<<<<<<< HEAD\n\\.\n",
        ] {
            assert_eq!(first(sql), None, "{sql}");
        }
    }

    #[test]
    fn a_conflict_in_other_text_begins_a_line() {
        assert_eq!(first_line_of("{\n<<<<<<< HEAD\n=======\n"), Some((2, "<<<<<<< HEAD")));
        assert_eq!(first_line_of("{\"a\": \"<<<<<<< HEAD\"}"), None);
    }
}
