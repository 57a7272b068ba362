//! Errors and notices of the server, as data.

use postgres::error::{DbError, ErrorPosition};

use crate::postgres::known_messages;

/// An error or notice of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`, ...: in English, whatever `lc_messages` is.
    pub severity: String,
    /// SQLSTATE.
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    pub position: Option<Position>,
    /// CONTEXT: a stack of PL/pgSQL functions and the like.
    pub context: Option<String>,
    pub schema: Option<String>,
    pub table: Option<String>,
    pub column: Option<String>,
    pub datatype: Option<String>,
    pub constraint: Option<String>,
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
