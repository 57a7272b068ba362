//! What the server said, as data.

use postgres::error::{DbError, ErrorPosition};

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
