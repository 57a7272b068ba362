//! Quotes names and values for SQL. The only module that does.
//!
//! In SQL of ours, every name that `search_path` could resolve is qualified: a role that may create an
//! operator or a function in a schema of that path could otherwise act as the role that migrates.

/// The operator `=`. An operator without a schema is looked up in `search_path`, and so are those
/// behind IN, NULLIF, IS DISTINCT FROM, CASE with an operand, and JOIN USING.
pub const EQ: &str = "operator(pg_catalog.=)";

/// SQL of ours for a person to read and type.
pub fn readable(sql: &str) -> String {
    sql.replace(EQ, "=").replace(" pg_catalog.", " ")
}

/// Quotes an identifier, also where `quote_ident` would leave the quotes out.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a string as `quote_literal` does: with the same meaning under either setting of
/// `standard_conforming_strings`.
pub fn literal(value: &str) -> String {
    let quoted = value.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_doubled_and_backslashes_escaped() {
        assert_eq!(ident(r#"my "odd" schema"#), r#""my ""odd"" schema""#);
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\b'c"), r"E'a\\b''c'");
    }
}
