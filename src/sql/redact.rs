//! Masks passwords in text that we show but did not write: a file, another backend's query, a message
//! of the server. Pure.
//!
//! A password is found by what comes before it, also in text that is not SQL, is truncated, or is
//! quoted once more inside a function body. In doubt, more is masked.

use std::borrow::Cow;

use super::lexer::dollar_tag;

const MASK: &str = "***";

/// Masks the literal after `PASSWORD`, the value of `password=`, and the password in a URL. Newlines
/// stay, so that lines keep their numbers.
pub fn passwords(text: &str) -> Cow<'_, str> {
    let mut masked = String::new();
    let mut done = 0;
    while let Some(Span { start, end, terminator }) = next_password(text, done) {
        masked.push_str(slice(text, done, start));
        masked.push_str(MASK);
        masked.extend(slice(text, start, end).chars().filter(|c| *c == '\n'));
        masked.push_str(terminator);
        done = end;
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    masked.push_str(tail(text, done));
    Cow::Owned(masked)
}

/// The byte range of a password.
struct Span<'a> {
    start: usize,
    end: usize,
    /// The closing quote to add if the text ends inside the password; empty otherwise.
    terminator: &'a str,
}

const WORD: &str = "password";
const SCHEME: &str = "://";

fn next_password(text: &str, from: usize) -> Option<Span<'_>> {
    (from..text.len()).find_map(|at| {
        let rest = text.get(at..)?;
        if rest.get(..WORD.len()).is_some_and(|word| word.eq_ignore_ascii_case(WORD)) {
            after_word(text, at + WORD.len())
        } else if rest.starts_with(SCHEME) {
            in_url(text, at + SCHEME.len())
        } else {
            None
        }
    })
}

/// The literal after the word `password`, or the value in a connection string.
fn after_word(text: &str, at: usize) -> Option<Span<'_>> {
    let rest = tail(text, at);
    if rest.starts_with('\'') {
        // These quotes may end an argument, and the next one is the password.
        let separator = skip_space(text, skip_quotes(text, at));
        match tail(text, separator).chars().next() {
            Some(',') => return literal(text, skip_space(text, separator + 1)),
            Some(')') => return None,
            _ => {}
        }
    }
    let at = at + usize::from(rest.starts_with('"'));
    let spaced = skip_space(text, at);
    let next = tail(text, spaced);
    if let Some(value) = next.strip_prefix(':').filter(|_| rest.starts_with('"')) {
        return json_string(text, text.len() - value.len());
    }
    if is_placeholder(next) {
        return format_arguments(text, spaced);
    }
    let has_equals = next.starts_with('=');
    let has_to = next.get(..3).is_some_and(|word| word.trim_end().eq_ignore_ascii_case("to"));
    let operator_length = if has_equals {
        "=".len()
    } else if has_to {
        "to".len()
    } else {
        0
    };
    let value = skip_space(text, spaced + operator_length);
    if let Some(span) = literal(text, value) {
        return Some(span);
    }
    // An unquoted value, as in a connection string. With spaces it is likely to compare two columns.
    let is_bare = has_equals && value == at + 1;
    let length = tail(text, value).find(|c: char| c.is_whitespace() || "'\"&;)".contains(c));
    let end = length.map_or(text.len(), |length| value + length);
    (is_bare && end > value).then_some(Span { start: value, end, terminator: "" })
}

fn skip_quotes(text: &str, at: usize) -> usize {
    let rest = tail(text, at);
    at + rest.len() - rest.trim_start_matches('\'').len()
}

/// The JSON string after a colon.
fn json_string(text: &str, at: usize) -> Option<Span<'_>> {
    let opening = skip_space(text, at);
    let inner = tail(text, opening).strip_prefix('"')?;
    let start = opening + 1;
    let mut chars = inner.char_indices();
    let end = loop {
        match chars.next() {
            Some((_, '\\')) => drop(chars.next()),
            Some((length, '"')) => break start + length,
            Some(_) => {}
            None => break text.len(),
        }
    };
    Some(Span { start, end, terminator: "" })
}

/// A placeholder of `format`: `%L`, `%s`, `%2$L`.
fn is_placeholder(rest: &str) -> bool {
    let position = |c: char| c.is_ascii_digit() || c == '$';
    let kind = rest.strip_prefix('%').map(|rest| rest.trim_start_matches(position));
    kind.is_some_and(|kind| kind.starts_with(['L', 's', 'I']))
}

/// All arguments of `format`, since any of them may be the password: from the end of its literal to
/// the end of the statement.
fn format_arguments(text: &str, at: usize) -> Option<Span<'_>> {
    let start = skip_quotes(text, at + tail(text, at).find('\'')?);
    let length = tail(text, start).find(';');
    Some(Span { start, end: length.map_or(text.len(), |length| start + length), terminator: "" })
}

/// The content of the literal that begins at this offset.
fn literal(text: &str, value: usize) -> Option<Span<'_>> {
    let rest = tail(text, value);
    let prefix = ["e", "n", "u&"].into_iter().find(|prefix| {
        rest.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            && tail(rest, prefix.len()).starts_with('\'')
    });
    let opening = value + prefix.map_or(0, str::len);
    let rest = tail(text, opening);
    if rest.starts_with('\'') {
        return Some(quoted(text, opening, prefix == Some("e")));
    }
    let tag = dollar_tag(rest)?;
    let start = opening + tag.len();
    let length = tail(text, start).find(tag);
    let end = length.map_or(text.len(), |length| start + length);
    Some(Span { start, end, terminator: if length.is_some() { "" } else { tag } })
}

/// The content between single quotes. Inside another literal, each quote is doubled.
fn quoted(text: &str, opening: usize, has_escapes: bool) -> Span<'_> {
    let rest = tail(text, opening);
    let run = rest.len() - rest.trim_start_matches('\'').len();
    let next = tail(rest, run).chars().next();
    let is_empty = next.is_none_or(|c| c.is_whitespace() || ",;)".contains(c));
    // An odd run opens a literal with one quote; the rest of it are quotes in the content. An even
    // run is an empty literal, or opens one inside another literal.
    let quotes = match run {
        run if run % 2 == 1 => 1,
        _ if is_empty => {
            return Span { start: opening + 1, end: opening + run - 1, terminator: "" };
        }
        _ => 2,
    };
    let start = opening + quotes;
    let mut at = start;
    loop {
        let rest = tail(text, at);
        let Some(c) = rest.chars().next() else {
            let terminator = if quotes == 1 { "'" } else { "''" };
            return Span { start, end: text.len(), terminator };
        };
        let run = rest.len() - rest.trim_start_matches('\'').len();
        if c == '\\' && has_escapes {
            at += 1 + rest.chars().nth(1).map_or(0, char::len_utf8);
        } else if run == 0 {
            at += c.len_utf8();
        } else if run.is_multiple_of(2 * quotes) {
            at += run;
        } else {
            let end = at + (run / (2 * quotes)) * 2 * quotes;
            match continuation(text, at + run) {
                Some(start) => at = start,
                None => return Span { start, end, terminator: "" },
            }
        }
    }
}

/// The start of the content that continues a literal after a newline.
fn continuation(text: &str, at: usize) -> Option<usize> {
    let next = skip_space(text, at);
    let continues = slice(text, at, next).contains('\n') && tail(text, next).starts_with('\'');
    continues.then_some(next + 1)
}

/// The offset after white space and comments.
fn skip_space(text: &str, at: usize) -> usize {
    let rest = tail(text, at);
    let trimmed = rest.trim_start();
    let at = at + rest.len() - trimmed.len();
    let comment = if trimmed.starts_with("--") {
        trimmed.find('\n')
    } else if trimmed.starts_with("/*") {
        trimmed.find("*/").map(|length| length + 2)
    } else {
        None
    };
    comment.map_or(at, |length| skip_space(text, at + length))
}

/// The password in `user:password@host`.
fn in_url(text: &str, at: usize) -> Option<Span<'_>> {
    let rest = tail(text, at);
    let length = rest.find(|c: char| c.is_whitespace() || "'\"<>".contains(c));
    let rest = slice(rest, 0, length.unwrap_or(rest.len()));
    let end = rest.rfind('@')?;
    let start = slice(rest, 0, end).find(':')? + 1;
    Some(Span { start: at + start, end: at + end, terminator: "" })
}

fn tail(text: &str, start: usize) -> &str {
    text.get(start..).unwrap_or_default()
}

fn slice(text: &str, start: usize, end: usize) -> &str {
    text.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_after_password_is_masked_however_it_is_written() {
        for (text, masked) in [
            ("alter role a password 's' login", "alter role a password '***' login"),
            ("ENCRYPTED PassWord\n\t 's'", "ENCRYPTED PassWord\n\t '***'"),
            ("password 'it''s', b 'c'", "password '***', b 'c'"),
            ("password '''s' b", "password '***' b"),
            ("password 's''' b", "password '***' b"),
            (r"password E'it\'s' b", "password E'***' b"),
            (r"password 's\' b", "password '***' b"),
            ("password U&'s' b", "password U&'***' b"),
            ("password $$s'$$ b", "password $$***$$ b"),
            ("password $a$s$$s$a$ b", "password $a$***$a$ b"),
            ("password $€$s$€$ b", "password $€$***$€$ b"),
            ("password 's'\n  's' b", "password '***\n' b"),
            ("password /* it */ 's' -- b", "password /* it */ '***' -- b"),
            ("password -- it\n's' b", "password -- it\n'***' b"),
            ("options (user 'u', \"password\" 's')", "options (user 'u', \"password\" '***')"),
            ("set password = 's' where", "set password = '***' where"),
            ("password 'a\nb' c", "password '***\n' c"),
            ("a password 's' b password 's' c", "a password '***' b password '***' c"),
            ("execute 'password ''s'' b'", "execute 'password ''***'' b'"),
            ("execute 'password ''s'''", "execute 'password ''***'''"),
            ("set app.password to 's'; b", "set app.password to '***'; b"),
        ] {
            assert_eq!(passwords(text), masked, "{text}");
        }
    }

    #[test]
    fn an_argument_that_belongs_to_the_word_is_masked() {
        for (text, masked) in [
            ("set_config('app.password', 's', false)", "set_config('app.password', '***', false)"),
            ("jsonb_build_object('password','s')", "jsonb_build_object('password','***')"),
            ("'set_config(''a.password'', ''s'')'", "'set_config(''a.password'', ''***'')'"),
            (r#"'{"password": "s", "b": 1}'"#, r#"'{"password": "***", "b": 1}'"#),
            (r#"'{"password":"s\"t"}'"#, r#"'{"password":"***"}'"#),
            (
                "format('alter role a password %L b', 's'); c",
                "format('alter role a password %L b'***; c",
            ),
            ("format('a %I password %2$L', 'b',\n's')", "format('a %I password %2$L'***\n"),
            (
                "execute 'format(''password %L'', ''s'')'; c",
                "execute 'format(''password %L''***; c",
            ),
        ] {
            assert_eq!(passwords(text), masked, "{text}");
        }
    }

    #[test]
    fn a_truncated_password_is_masked_to_the_end() {
        for (text, masked) in [
            ("password 's", "password '***'"),
            ("password 's''", "password '***'"),
            ("password '", "password '***'"),
            ("password $$s\n$", "password $$***\n$$"),
            ("execute 'password ''s", "execute 'password ''***''"),
        ] {
            assert_eq!(passwords(text), masked, "{text}");
        }
    }

    #[test]
    fn passwords_of_connection_strings_are_masked() {
        for (text, masked) in [
            ("'postgres://u:s@h:1/d'", "'postgres://u:***@h:1/d'"),
            ("postgres://u:s@s/s@h/d", "postgres://u:***@h/d"),
            ("'host=h password=s dbname=d'", "'host=h password=*** dbname=d'"),
            ("sslpassword=s PGPASSWORD=s", "sslpassword=*** PGPASSWORD=***"),
            ("postgres://h/d?password=s&user=u", "postgres://h/d?password=***&user=u"),
            ("connection 'password=''s'' dbname=d'", "connection 'password=''***'' dbname=d'"),
        ] {
            assert_eq!(passwords(text), masked, "{text}");
        }
    }

    #[test]
    fn other_text_stays() {
        for text in [
            "",
            "password authentication failed for user \"u\"",
            "the server requires a password, but none was given",
            "password null",
            "password_hash 's'; passwords 's'",
            "where a.password = b.password",
            "http://h:1/a http://h/a@b",
            "PASSWORD",
            "password $1",
            "in ('password', b, 'c')",
            "x in ('user', 'password')",
            "like '%password %' and b = 'c'",
            "password to",
        ] {
            assert_eq!(passwords(text), text);
        }
    }

    #[test]
    fn any_text_can_be_masked_and_lines_keep_their_numbers() {
        let pieces = [
            "password", "'", "''", "$$", "$a", "=", "E", "\\", "\n", " ", "é", "://", ":", "@",
            ",", ")", "\"", "%L", "to ", ";",
        ];
        let mut seed: usize = 1;
        for _ in 0..20_000 {
            let mut text = String::from("password ");
            for _ in 0..8 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
                text.push_str(pieces[(seed >> 33) % pieces.len()]);
            }
            let masked = passwords(&text);
            assert_eq!(masked.matches('\n').count(), text.matches('\n').count(), "{text:?}");
        }
    }
}
