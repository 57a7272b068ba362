//! The place of an error for which the server sends no position: the name that it is about, where
//! the statement has that name once. Pure.

use crate::postgres::server_error::ServerError;
use crate::sql::name::{self, Occurrence};

use super::advice::function_name;

/// The SQLSTATEs whose messages quote a column, a relation, a type, a schema, a constraint or another
/// object first, in every language.
const QUOTE_THE_OBJECT: [&str; 15] = [
    "3F000", // invalid_schema_name
    "42701", // duplicate_column
    "42703", // undefined_column
    "42704", // undefined_object
    "42710", // duplicate_object
    "42723", // duplicate_function
    "42725", // ambiguous_function
    "42804", // datatype_mismatch
    "42809", // wrong_object_type
    "42830", // invalid_foreign_key
    "42P01", // undefined_table
    "42P06", // duplicate_schema
    "42P07", // duplicate_table
    "42P16", // invalid_table_definition
    "55006", // object_in_use
];

/// The byte offset of the name in the statement, unless that has it more than once.
pub(super) fn offset_of_name(statement: &str, error: &ServerError) -> Option<usize> {
    // What failed inside a function does not stand in the statement.
    if error.position.is_some() || error.context.is_some() {
        return None;
    }
    let fields = [&error.column, &error.constraint, &error.datatype, &error.table];
    let names = fields.into_iter().filter_map(|field| field.as_deref());
    let occurrences = names.chain(name_in_message(statement, error));
    // The column or the constraint says more than its table.
    let found = occurrences
        .map(|name| name::occurrence(statement, name))
        .find(|occurrence| *occurrence != Occurrence::Never);
    match found {
        Some(Occurrence::Once(offset)) => Some(offset),
        _ => None,
    }
}

/// The object that the message is about.
fn name_in_message<'e>(statement: &str, error: &'e ServerError) -> Option<&'e str> {
    let name = match error.code.as_str() {
        // `function f(integer) does not exist`
        "42883" => error.quoted_name().or_else(|| function_name(&error.message)),
        "2BP01" | "42501" => unquoted_name(&error.message),
        code if QUOTE_THE_OBJECT.contains(&code) => error.quoted_name(),
        _ => None,
    }?;
    // Then it may be no identifier, but the label of an enum, for example.
    (!name::is_string(statement, name)).then_some(name)
}

/// The object of `cannot drop column a of table t because ...`, of `must be owner of table t` and of
/// `permission denied for schema s`, which have no quotes.
fn unquoted_name(message: &str) -> Option<&str> {
    let beginnings = ["cannot drop ", "must be owner of ", "permission denied for "];
    let object = beginnings.iter().find_map(|beginning| message.strip_prefix(beginning))?;
    let object = object.split(" because ").next().unwrap_or(object);
    object.split(" of ").next().unwrap_or(object).split(' ').next_back()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::server_error::Position;

    fn error(code: &str, message: &str) -> ServerError {
        ServerError { code: code.to_owned(), message: message.to_owned(), ..ServerError::default() }
    }

    /// An error with a constraint, a table and a column.
    fn fields([constraint, table, column]: [&str; 3]) -> ServerError {
        let field = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        ServerError {
            constraint: field(constraint),
            table: field(table),
            column: field(column),
            ..error("23000", "")
        }
    }

    /// What begins where the caret is put.
    fn at<'s>(statement: &'s str, error: &ServerError) -> Option<&'s str> {
        offset_of_name(statement, error).map(|offset| &statement[offset..])
    }

    #[test]
    fn the_message_names_the_object() {
        for (statement, code, message, expected) in [
            (
                "create index i on documents (titel)",
                "42703",
                "column \"titel\" does not exist",
                Some("titel)"),
            ),
            (
                "alter table t add b int, add A int",
                "42701",
                "column \"a\" of relation \"t\" already exists",
                Some("A int"),
            ),
            (
                "drop table if exists app.a; ",
                "42P01",
                "relation \"app.a\" does not exist",
                Some("a; "),
            ),
            ("create table t ()", "42P07", "relation \"t\" already exists", Some("t ()")),
            ("drop type a, b", "42704", "type \"b\" does not exist", Some("b")),
            ("drop type a, b", "42704", "Typ »b« existiert nicht", Some("b")),
            (
                "create trigger x after insert on t execute function app.f()",
                "42883",
                "function app.f() does not exist",
                Some("f()"),
            ),
            ("drop function f", "42725", "function name \"f\" is not unique", Some("f")),
            (
                "alter table t alter a type int",
                "42804",
                "column \"a\" cannot be cast automatically to type integer",
                Some("a type int"),
            ),
            (
                "alter table t add primary key (id)",
                "42P16",
                "multiple primary keys for table \"t\" are not allowed",
                Some("t add primary key (id)"),
            ),
            ("drop table t", "42501", "must be owner of table t", Some("t")),
            ("create table s.t ()", "42501", "permission denied for schema s", Some("s.t ()")),
            (
                "alter table t drop column a",
                "2BP01",
                "cannot drop column a of table t because other objects depend on it",
                Some("a"),
            ),
            // Nothing is said of the name.
            ("select 1 / zero from \"division\"", "22012", "division by zero", None),
            ("select \"a\"", "22P02", "invalid input syntax for type a: \"a\"", None),
            ("drop table t", "42501", "must be superuser to do that", None),
        ] {
            assert_eq!(at(statement, &error(code, message)), expected, "{statement}");
        }
    }

    #[test]
    fn the_fields_name_the_object_from_the_column_to_the_table() {
        for (statement, names, expected) in [
            ("insert into t (a, b) values (1, null)", ["", "t", "b"], Some("b) values (1, null)")),
            ("insert into t values (1, null)", ["", "t", "b"], Some("t values (1, null)")),
            ("alter table t add constraint c unique (a)", ["c", "t", ""], Some("c unique (a)")),
            ("create unique index u on t (a)", ["u", "t", ""], Some("u on t (a)")),
            ("insert into t (b) select b from s", ["", "t", "b"], None),
            ("select from s", ["c", "t", "a"], None),
        ] {
            assert_eq!(at(statement, &fields(names)), expected, "{statement}");
        }
    }

    #[test]
    fn a_name_that_is_no_identifier_is_not_looked_for() {
        let label = error("42710", "enum label \"mood\" already exists");
        assert_eq!(at("alter type mood add value 'mood'", &label), None);
        let masked = error("42704", "role \"***\" does not exist");
        assert_eq!(at("drop role a", &masked), None);
    }

    #[test]
    fn an_error_that_is_elsewhere_is_not_placed_by_name() {
        let statement = "select f(a) from t";
        let context = Some("SQL function \"f\" statement 1".to_owned());
        let inside = ServerError { context, ..fields(["", "t", "a"]) };
        assert_eq!(at(statement, &inside), None);
        let position = Some(Position::InStatement(1));
        let placed = ServerError { position, ..fields(["", "t", "a"]) };
        assert_eq!(at(statement, &placed), None);
    }
}
