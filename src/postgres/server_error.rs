//! The server's errors and notices, as data.

use postgres::error::{DbError, ErrorPosition};
use serde::{Serialize, Serializer};

use crate::sql::redact;

/// An error or notice of the server, with every field that helps a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`, ...: in English, whatever `lc_messages` is.
    pub severity: String,
    /// The SQLSTATE.
    #[serde(rename = "sqlstate")]
    pub code: String,
    /// The primary message.
    pub message: String,
    /// DETAIL.
    pub detail: Option<String>,
    /// HINT.
    pub hint: Option<String>,
    /// Where it is, if the server knows.
    #[serde(flatten, serialize_with = "internal_query")]
    pub position: Option<Position>,
    /// CONTEXT: the stack of PL/pgSQL functions and the like.
    #[serde(rename = "where")]
    pub context: Option<String>,
    /// The schema of the object it is about.
    pub schema: Option<String>,
    /// The table it is about.
    pub table: Option<String>,
    /// The column it is about.
    #[serde(rename = "column_name")]
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

    /// The SQLSTATE by which to judge a refusal to let us in. PgBouncer passes on what its server
    /// said in the server's words, and has 08P01 for all of them.
    pub fn meant_code(&self) -> &str {
        const SERVERS: [(&str, &str, &str); 8] = [
            ("database \"", "does not exist", "3D000"),
            ("role \"", "does not exist", "28000"),
            ("role \"", "is not permitted to log in", "28000"),
            ("permission denied for database", "", "42501"),
            ("pg_hba.conf", "", "28000"),
            ("too many connections for", "", "53300"),
            ("too many clients already", "", "53300"),
            ("remaining connection slots", "", "53300"),
        ];
        let holds = |words| self.message.contains(words);
        let known = || SERVERS.iter().find(|(one, other, _)| holds(one) && holds(other));
        let said = if self.is("08P01") { known() } else { None };
        said.map_or(self.code.as_str(), |(_, _, code)| code)
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
        Some(Position::InInternalQuery { query, position }) => (Some(query.as_str()), *position),
        Some(Position::InStatement(_)) | None => (None, 0),
    };
    Fields { query, query_position: query.map(|_| query_position) }.serialize(serializer)
}

impl From<&DbError> for ServerError {
    /// Masks the passwords in what the server quotes.
    fn from(error: &DbError) -> ServerError {
        let masked = |text: &str| redact::passwords(text).into_owned();
        let text = |field: Option<&str>| field.map(masked);
        let name = |field: Option<&str>| field.map(str::to_owned);
        ServerError {
            severity: match error.parsed_severity() {
                Some(severity) => severity.to_string(),
                None => error.severity().to_owned(),
            },
            code: error.code().code().to_owned(),
            message: masked(error.message()),
            detail: text(error.detail()),
            hint: text(error.hint()),
            position: error.position().map(|position| match position {
                ErrorPosition::Original(position) => Position::InStatement(*position as usize),
                ErrorPosition::Internal { position, query } => {
                    let before: String =
                        query.chars().take((*position as usize).saturating_sub(1)).collect();
                    let position = masked(&before).chars().count() + 1;
                    Position::InInternalQuery { query: masked(query), position }
                }
            }),
            context: text(error.where_()),
            schema: name(error.schema()),
            table: name(error.table()),
            column: name(error.column()),
            datatype: name(error.datatype()),
            constraint: name(error.constraint()),
        }
    }
}
