//! What the server said, as data.

use postgres::error::{DbError, ErrorPosition};

use crate::postgres::known_messages;

/// An error or notice of the server, with every field that helps a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`, ...: in English, whatever `lc_messages` is.
    pub severity: String,
    /// The SQLSTATE.
    pub code: String,
    /// The primary message.
    pub message: String,
    /// DETAIL.
    pub detail: Option<String>,
    /// HINT.
    pub hint: Option<String>,
    /// Where it is, if the server knows.
    pub position: Option<Position>,
    /// CONTEXT: the stack of PL/pgSQL functions and the like.
    pub context: Option<String>,
    /// The schema of the object it is about.
    pub schema: Option<String>,
    /// The table it is about.
    pub table: Option<String>,
    /// The column it is about.
    pub column: Option<String>,
    /// The data type it is about.
    pub datatype: Option<String>,
    /// The constraint it is about.
    pub constraint: Option<String>,
}

/// Where an error is. The server counts characters, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// In the text that was sent.
    InStatement(usize),
    /// In a query that the server itself made, inside a function.
    InInternalQuery {
        /// That query.
        query: String,
        /// Where in it.
        position: usize,
    },
}

impl ServerError {
    /// Whether this is the SQLSTATE.
    pub fn is(&self, code: &str) -> bool {
        self.code == code
    }

    /// Whether it is the session's last word.
    pub fn ends_session(&self) -> bool {
        self.severity == "FATAL" || self.severity == "PANIC"
    }

    /// The SQLSTATE that a rejected log-in is judged by. PgBouncer has 08P01 for every error, also of
    /// its server, and other poolers have XX000.
    pub fn meant_code(&self) -> &str {
        let is_vague = self.is_class("08") || self.is("XX000");
        let known = if is_vague { known_messages::find(self) } else { None };
        known.map_or(&self.code, |known| known.meaning)
    }

    /// Whether the server refused what was sent as it read it, before it ran any of it: it points into
    /// that text, and was inside of nothing. What a function, or a DO block, runs has a context.
    pub fn is_before_running(&self) -> bool {
        matches!(self.position, Some(Position::InStatement(_))) && self.context.is_none()
    }

    /// Whether the SQLSTATE is of this class, its first two characters.
    pub fn is_class(&self, class: &str) -> bool {
        self.code.starts_with(class)
    }
}

impl From<&DbError> for ServerError {
    fn from(error: &DbError) -> ServerError {
        let text = |field: Option<&str>| field.map(str::to_owned);
        ServerError {
            severity: match error.parsed_severity() {
                Some(severity) => severity.to_string(),
                None => error.severity().to_owned(),
            },
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: text(error.detail()),
            hint: text(error.hint()),
            position: error.position().map(|position| match position {
                ErrorPosition::Original(position) => Position::InStatement(*position as usize),
                ErrorPosition::Internal { position, query } => {
                    Position::InInternalQuery { query: query.clone(), position: *position as usize }
                }
            }),
            context: text(error.where_()),
            schema: text(error.schema()),
            table: text(error.table()),
            column: text(error.column()),
            datatype: text(error.datatype()),
            constraint: text(error.constraint()),
        }
    }
}
