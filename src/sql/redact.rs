//! Passwords in texts of others: a file, a statement that another backend runs, the server's words.
//! Pure.
//!
//! They are found by what stands before them, in any text, SQL or not: cut off somewhere, quoted
//! once more inside a function. In doubt, more is masked.

use std::borrow::Cow;

/// What is shown instead.
const MASK: &str = "***";

/// The text without passwords: the literal behind `PASSWORD`, the value of `password=`, and what
/// stands in a URL before its host. Line ends stay, so that lines keep their numbers.
pub fn passwords(text: &str) -> Cow<'_, str> {
    let mut masked = String::new();
    let mut done = 0;
    while let Some(Secret { start, end, closed }) = next(text, done) {
        masked.push_str(slice(text, done, start));
        masked.push_str(MASK);
        masked.extend(slice(text, start, end).chars().filter(|c| *c == '\n'));
        masked.push_str(closed);
        done = end;
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    masked.push_str(slice(text, done, text.len()));
    Cow::Owned(masked)
}

/// Where a password stands, in bytes.
struct Secret<'a> {
    start: usize,
    end: usize,
    /// What closes it, where the text ends before that.
    closed: &'a str,
}

const WORD: &str = "password";
const SCHEME: &str = "://";

fn next(text: &str, from: usize) -> Option<Secret<'_>> {
    (from..text.len()).find_map(|at| {
        let rest = text.get(at..)?;
        if rest.get(..WORD.len()).is_some_and(|word| word.eq_ignore_ascii_case(WORD)) {
            behind_word(text, at + WORD.len())
        } else if rest.starts_with(SCHEME) {
            in_authority(text, at + SCHEME.len())
        } else {
            None
        }
    })
}

/// The literal, or the value of a connection string, behind the word.
fn behind_word(text: &str, at: usize) -> Option<Secret<'_>> {
    let rest = slice(text, at, text.len());
    if rest.starts_with('\'') && ends_argument(text, at) {
        return literal(text, next_argument(text, at)?);
    }
    let at = at + usize::from(rest.starts_with('"'));
    let spaced = skip_space(text, at);
    let behind = slice(text, spaced, text.len());
    if let Some(member) = behind.strip_prefix(':').filter(|_| rest.starts_with('"')) {
        return in_json(text, text.len() - member.len());
    }
    if is_placeholder(behind) {
        return arguments(text, spaced);
    }
    let has_sign = behind.starts_with('=');
    let is_set = behind.get(..3).is_some_and(|word| word.trim_end().eq_ignore_ascii_case("to"));
    let value = match (has_sign, is_set) {
        (true, _) => skip_space(text, spaced + 1),
        (false, true) => skip_space(text, spaced + 2),
        (false, false) => spaced,
    };
    if let Some(secret) = literal(text, value) {
        return Some(secret);
    }
    // As libpq takes it; with blanks it is rather a comparison of two columns.
    let is_bare = has_sign && value == at + 1;
    let length =
        slice(text, value, text.len()).find(|c: char| c.is_whitespace() || "'\"&;)".contains(c));
    let end = length.map_or(text.len(), |length| value + length);
    (is_bare && end > value).then_some(Secret { start: value, end, closed: "" })
}

/// Whether the quotes here end an argument, and are not the beginning of a literal.
fn ends_argument(text: &str, at: usize) -> bool {
    let behind = skip_space(text, skip_quotes(text, at));
    slice(text, behind, text.len()).starts_with([',', ')'])
}

/// Where the argument begins that follows the one whose quotes are here.
fn next_argument(text: &str, at: usize) -> Option<usize> {
    let comma = skip_space(text, skip_quotes(text, at));
    slice(text, comma, text.len()).starts_with(',').then(|| skip_space(text, comma + 1))
}

fn skip_quotes(text: &str, at: usize) -> usize {
    let rest = slice(text, at, text.len());
    at + rest.len() - rest.trim_start_matches('\'').len()
}

/// The string that is a member's value, behind its colon.
fn in_json(text: &str, at: usize) -> Option<Secret<'_>> {
    let opening = skip_space(text, at);
    let inner = slice(text, opening, text.len()).strip_prefix('"')?;
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
    Some(Secret { start, end, closed: "" })
}

/// One of `format`'s: `%L`, `%s`, `%2$L`.
fn is_placeholder(rest: &str) -> bool {
    let position = |c: char| c.is_ascii_digit() || c == '$';
    let kind = rest.strip_prefix('%').map(|rest| rest.trim_start_matches(position));
    kind.is_some_and(|kind| kind.starts_with(['L', 's', 'I']))
}

/// What `format` is to put in, any of which may be it: all behind the literal that asks for it.
fn arguments(text: &str, at: usize) -> Option<Secret<'_>> {
    let start = skip_quotes(text, at + slice(text, at, text.len()).find('\'')?);
    let length = slice(text, start, text.len()).find(';');
    Some(Secret { start, end: length.map_or(text.len(), |length| start + length), closed: "" })
}

/// The literal that begins here.
fn literal(text: &str, value: usize) -> Option<Secret<'_>> {
    let rest = slice(text, value, text.len());
    let prefix = ["e", "n", "u&"].into_iter().find(|prefix| {
        rest.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            && slice(rest, prefix.len(), rest.len()).starts_with('\'')
    });
    let opening = value + prefix.map_or(0, str::len);
    let rest = slice(text, opening, text.len());
    if rest.starts_with('\'') {
        return Some(quoted(text, opening, prefix == Some("e")));
    }
    let tag = dollar_tag(rest)?;
    let start = opening + tag.len();
    let length = slice(text, start, text.len()).find(tag);
    let end = length.map_or(text.len(), |length| start + length);
    Some(Secret { start, end, closed: if length.is_some() { "" } else { tag } })
}

/// What stands between single quotes. Inside another literal each of them is doubled.
fn quoted(text: &str, opening: usize, has_escapes: bool) -> Secret<'_> {
    let rest = slice(text, opening, text.len());
    let run = rest.len() - rest.trim_start_matches('\'').len();
    let behind = slice(rest, run, rest.len()).chars().next();
    let is_empty = behind.is_none_or(|c| c.is_whitespace() || ",;)".contains(c));
    // A run of quotes opens a literal, of which the first character may be a quote: two of them.
    let quotes = match run {
        run if run % 2 == 1 => 1,
        _ if is_empty => return Secret { start: opening + 1, end: opening + run - 1, closed: "" },
        _ => 2,
    };
    let start = opening + quotes;
    let mut at = start;
    loop {
        let rest = slice(text, at, text.len());
        let Some(c) = rest.chars().next() else {
            let closed = if quotes == 1 { "'" } else { "''" };
            return Secret { start, end: text.len(), closed };
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
            match continued(text, at + run) {
                Some(more) => at = more,
                None => return Secret { start, end, closed: "" },
            }
        }
    }
}

/// Where a literal goes on: behind a line's end.
fn continued(text: &str, at: usize) -> Option<usize> {
    let next = skip_space(text, at);
    let goes_on =
        slice(text, at, next).contains('\n') && slice(text, next, text.len()).starts_with('\'');
    goes_on.then_some(next + 1)
}

/// `$$` or `$tag$`.
fn dollar_tag(rest: &str) -> Option<&str> {
    let inner = rest.strip_prefix('$')?;
    let length = inner.find(|c: char| !(c.is_alphanumeric() || c == '_'))?;
    slice(inner, length, inner.len()).starts_with('$').then(|| slice(rest, 0, length + 2))
}

/// Behind blanks and comments.
fn skip_space(text: &str, at: usize) -> usize {
    let rest = slice(text, at, text.len());
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
fn in_authority(text: &str, at: usize) -> Option<Secret<'_>> {
    let rest = slice(text, at, text.len());
    let length = rest.find(|c: char| c.is_whitespace() || "'\"<>".contains(c));
    let rest = slice(rest, 0, length.unwrap_or(rest.len()));
    let end = rest.rfind('@')?;
    let start = slice(rest, 0, end).find(':')? + 1;
    Some(Secret { start: at + start, end: at + end, closed: "" })
}

fn slice(text: &str, start: usize, end: usize) -> &str {
    text.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_behind_password_is_masked_however_it_is_written() {
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
    fn a_literal_that_goes_with_the_word_as_an_argument_is_masked() {
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
    fn what_is_cut_off_is_masked_to_its_end() {
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
    fn what_is_no_password_stays() {
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
    fn no_text_is_too_odd_and_lines_keep_their_numbers() {
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
