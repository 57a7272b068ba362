//! The server's errors and notices, as data.

use std::borrow::Cow;

use postgres::error::{DbError, ErrorPosition};
use serde::{Serialize, Serializer};

use crate::postgres::known_messages;
use crate::sql::offset_of;
use crate::sql::redact::{self, Passage, Words};

/// An error or notice of the server, with every field that helps a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`, ...: in English, whatever `lc_messages` is.
    pub severity: String,
    /// The SQLSTATE.
    #[serde(rename = "sqlstate")]
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// Where it is, if the server knows.
    #[serde(flatten, serialize_with = "internal_query")]
    pub position: Option<Position>,
    /// CONTEXT: the stack of PL/pgSQL functions and the like.
    #[serde(rename = "where")]
    pub context: Option<String>,
    pub schema: Option<String>,
    pub table: Option<String>,
    /// The column it is about.
    #[serde(rename = "column_name")]
    pub column: Option<String>,
    pub datatype: Option<String>,
    pub constraint: Option<String>,
    /// The function of the server that raised it, whatever `lc_messages` is.
    #[serde(skip)]
    pub routine: Option<String>,
    /// Whether a word beside which secrets stand occurs in it. Its texts are masked, and may not
    /// have that word any more.
    #[serde(skip)]
    pub tells_secret: bool,
}

/// Where an error is, in characters, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    InStatement(usize),
    /// In a query of a function.
    InInternalQuery {
        query: String,
        position: usize,
    },
}

impl ServerError {
    pub fn is(&self, code: &str) -> bool {
        self.code == code
    }

    /// Whether this function of the server raised it.
    pub fn is_from(&self, routine: &str) -> bool {
        self.routine.as_deref() == Some(routine)
    }

    /// The first name that the message quotes, in whatever language, unless it is masked.
    pub fn quoted_name(&self) -> Option<&str> {
        let name = self.quoted_text()?.trim();
        (!name.is_empty() && name != redact::MASK).then_some(name)
    }

    /// What the message quotes first, in whatever language.
    pub fn quoted_text(&self) -> Option<&str> {
        const QUOTES: [(char, char); 6] =
            [('"', '"'), ('«', '»'), ('»', '«'), ('„', '“'), ('“', '”'), ('「', '」')];
        let opening = |(at, c)| {
            let (open, close) = QUOTES.into_iter().find(|(open, _)| *open == c)?;
            Some((at + open.len_utf8(), close))
        };
        let (start, close) = self.message.char_indices().find_map(opening)?;
        let rest = self.message.get(start..)?;
        let text = rest.get(..rest.find(close)?)?;
        // In French, these are a part of the quotes.
        let french = text.strip_prefix('\u{a0}').and_then(|text| text.strip_suffix('\u{a0}'));
        Some(french.unwrap_or(text))
    }

    /// Whether the server closes the connection after it.
    pub fn ends_session(&self) -> bool {
        self.severity == "FATAL" || self.severity == "PANIC"
    }

    /// The SQLSTATE that a rejected login is judged by. PgBouncer has 08P01 for every error, also of
    /// its server, and other poolers have XX000.
    pub fn meant_code(&self) -> &str {
        let is_vague = self.is_class("08") || self.is("XX000");
        match known_messages::find(&self.code, &self.message) {
            Some(known) if is_vague => known.meaning,
            _ => &self.code,
        }
    }

    /// Whether the statement failed before any of it ran: the error has a position in the statement,
    /// and no context, which errors inside functions and DO blocks have.
    pub fn is_before_running(&self) -> bool {
        matches!(self.position, Some(Position::InStatement(_))) && self.context.is_none()
    }

    /// The line of a COPY's data that it is about, from 1. The context ends with
    /// `COPY table, line 2: "..."`, or with the same in the server's language.
    pub fn copy_line(&self) -> Option<usize> {
        self.context.as_deref()?.lines().rev().find_map(|line| {
            let mut parts = line.strip_prefix("COPY ")?.split(", ").skip(1);
            parts.find_map(|part| {
                let number = part.split(':').next()?.rsplit(' ').next()?;
                number.parse().ok()
            })
        })
    }

    /// Masks what it tells of a secret in the passage of the file that it is about.
    pub fn hide_secrets(&mut self, passage: &Passage<'_, '_>) {
        if !passage.is_secret() {
            return;
        }
        let query = match &self.position {
            Some(Position::InInternalQuery { query, position }) => Some((query, *position)),
            Some(Position::InStatement(_)) | None => None,
        };
        let texts = [Some(&self.message), self.detail.as_ref(), self.hint.as_ref()];
        let more = [self.context.as_ref(), query.map(|(query, _)| query)];
        let texts: Vec<&str> =
            texts.into_iter().chain(more).flatten().map(String::as_str).collect();
        let names = [&self.schema, &self.table, &self.column, &self.datatype, &self.constraint];
        let names: Vec<&str> = names.into_iter().flatten().map(String::as_str).collect();
        let words = Words::of(&texts, &names, passage);
        if let Some((query, position)) = query {
            self.position = Some(in_query(words.query(query, offset_of(query, position))));
        }
        self.message = words.message(&self.message);
        self.detail = self.detail.as_deref().map(|detail| words.detail(detail));
        self.hint = self.hint.as_deref().map(|hint| words.prose(hint));
        self.context = self.context.as_deref().map(|context| words.context(context));
        for name in [
            &mut self.schema,
            &mut self.table,
            &mut self.column,
            &mut self.datatype,
            &mut self.constraint,
        ] {
            *name = name.as_deref().map(|name| words.prose(name));
        }
    }

    /// Whether the SQLSTATE is of this class, its first two characters.
    pub fn is_class(&self, class: &str) -> bool {
        self.code.starts_with(class)
    }
}

/// The query inside a function and the position in it, as two fields. A position in the text that
/// was sent means nothing without that text.
fn internal_query<S: Serializer>(
    position: &Option<Position>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Fields<'a> {
        query: Option<&'a str>,
        query_position: Option<usize>,
    }
    let (query, query_position) = match position {
        Some(Position::InInternalQuery { query, position }) => {
            (Some(query.as_str()), Some(*position))
        }
        Some(Position::InStatement(_)) | None => (None, None),
    };
    Fields { query, query_position }.serialize(serializer)
}

impl From<&DbError> for ServerError {
    /// Masks what may be a secret, as far as the error alone shows it.
    fn from(error: &DbError) -> ServerError {
        let text = |field: Option<&str>| field.map(|text| shortened(&redact::text(text)));
        let name = |field: Option<&str>| field.map(shortened);
        let position = error.position();
        let query = match position {
            Some(ErrorPosition::Internal { query, .. }) => Some(query.as_str()),
            Some(ErrorPosition::Original(_)) | None => None,
        };
        let texts = [Some(error.message()), error.detail(), error.hint(), error.where_(), query];
        ServerError {
            severity: match error.parsed_severity() {
                Some(severity) => severity.to_string(),
                None => shortened(error.severity()),
            },
            code: shortened(error.code().code()),
            message: shortened(&redact::text(error.message())),
            detail: text(error.detail()),
            hint: text(error.hint()),
            position: position.map(Position::from),
            context: text(error.where_()),
            schema: name(error.schema()),
            table: name(error.table()),
            column: name(error.column()),
            datatype: name(error.datatype()),
            constraint: name(error.constraint()),
            routine: name(error.routine()),
            tells_secret: texts.into_iter().flatten().any(redact::holds_word),
        }
    }
}

impl From<&ErrorPosition> for Position {
    fn from(position: &ErrorPosition) -> Position {
        match position {
            ErrorPosition::Original(position) => Position::InStatement(*position as usize),
            ErrorPosition::Internal { position, query } => {
                in_query(redact::sql_at(query, offset_of(query, *position as usize)))
            }
        }
    }
}

/// A position in the query of a function, from its byte offset.
fn in_query((query, offset): (Cow<'_, str>, usize)) -> Position {
    let position = query.get(..offset).unwrap_or(&query).chars().count() + 1;
    Position::InInternalQuery { query: query.into_owned(), position }
}

/// The most of a text that is kept, in bytes. A value in it may be of any length.
const MAX_TEXT: usize = 1 << 16;

fn shortened(text: &str) -> String {
    let kept = text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default();
    let dropped = text.len() - kept.len();
    if dropped == 0 { text.to_owned() } else { format!("{kept}... ({dropped} more bytes)") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_is_found_in_the_quotes_of_any_language() {
        for (message, name) in [
            ("column \"a\" of relation \"t\" already exists", Some("a")),
            ("Typ »vector« existiert nicht", Some("vector")),
            ("le type « vector » n'existe pas", Some("vector")),
            ("类型 \"vector\" 不存在", Some("vector")),
            ("an unclosed \"name", None),
            ("division by zero", None),
        ] {
            let error = ServerError { message: message.to_owned(), ..ServerError::default() };
            assert_eq!(error.quoted_name(), name, "{message}");
        }
        let quoted = |message: &str| {
            let error = ServerError { message: message.to_owned(), ..ServerError::default() };
            error.quoted_text().map(str::to_owned)
        };
        assert_eq!(quoted("at or near \"\u{a0}select\""), Some("\u{a0}select".to_owned()));
        assert_eq!(quoted("près de «\u{a0}select\u{a0}»"), Some("select".to_owned()));
    }

    #[test]
    fn a_text_of_any_length_is_shortened() {
        assert_eq!(shortened("é"), "é");
        let long = shortened(&"é".repeat(MAX_TEXT));
        assert!(long.ends_with(&format!("é... ({MAX_TEXT} more bytes)")), "{}", long.len());
    }
}
