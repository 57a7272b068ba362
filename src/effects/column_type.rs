//! The type of a column, and whether a change of it rewrites the table.

/// A type as PostgreSQL calls it, with its numbers: `numeric(10,2)` is `numeric` with 10 and 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ColumnType {
    /// The last part of its name, in lower case.
    pub base: String,
    pub numbers: Vec<u32>,
    is_array: bool,
}

/// What a change of type does to the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TypeChange {
    /// The stored values are those of the new type.
    Nothing,
    /// Those of `timestamp` and `timestamptz` are, where the time zone of the session is UTC.
    UnlessUtc,
    Rewrite,
    /// The old type is not known, and there are types that would not be rewritten.
    Unknown,
}

impl ColumnType {
    /// Reads a type as it is written.
    pub fn read(text: &str) -> ColumnType {
        let text = text.to_lowercase().replace('"', "");
        let numbers = text.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
        let numbers = numbers.map(|(inside, _)| inside).unwrap_or_default();
        let numbers = numbers.split(',').filter_map(|number| number.trim().parse().ok());
        let mut numbers: Vec<u32> = numbers.collect();
        let is_array = text.contains('[') || text.split_whitespace().any(|word| word == "array");
        let mut words = String::new();
        let mut depth = 0usize;
        for c in text.chars() {
            match c {
                '(' | '[' => depth += 1,
                ')' | ']' => depth = depth.saturating_sub(1),
                _ if depth == 0 => words.push(c),
                _ => {}
            }
        }
        let words: Vec<_> = words.split_whitespace().filter(|word| *word != "array").collect();
        let words = words.join(" ");
        let last = words.rsplit('.').next().unwrap_or_default().trim();
        let base = alias(last).to_owned();
        match base.as_str() {
            // The most digits of a second that there are.
            "timestamp" | "timestamptz" | "time" | "timetz" | "interval" if numbers == [6] => {
                numbers.clear();
            }
            "char" | "bit" if numbers.is_empty() => numbers.push(1),
            _ => {}
        }
        ColumnType { base, numbers, is_array }
    }

    /// Whether a column of it gets its values from a sequence.
    pub fn is_serial(&self) -> bool {
        ["serial", "bigserial", "smallserial", "serial2", "serial4", "serial8"]
            .contains(&self.base.as_str())
    }

    pub fn changed_to(old: Option<&ColumnType>, new: &ColumnType) -> TypeChange {
        let Some(old) = old else {
            let may_be_kept = ["text", "varchar", "numeric", "varbit", "timestamp", "timestamptz"];
            let may_be_kept = may_be_kept.contains(&new.base.as_str()) || !is_built_in(&new.base);
            return match may_be_kept && !new.is_array {
                true => TypeChange::Unknown,
                false => TypeChange::Rewrite,
            };
        };
        if old == new {
            return TypeChange::Nothing;
        }
        if old.is_array || new.is_array {
            return TypeChange::Rewrite;
        }
        let keeps = match (old.base.as_str(), new.base.as_str()) {
            ("varchar" | "text", "varchar" | "text") if new.numbers.is_empty() => true,
            ("cidr", "inet") => true,
            // Such as citext, or a domain.
            (old, new) if !is_built_in(old) || !is_built_in(new) => return TypeChange::Unknown,
            ("varchar", "varchar") | ("varbit", "varbit") => {
                new.numbers.is_empty() || (!old.numbers.is_empty() && old.numbers <= new.numbers)
            }
            ("numeric", "numeric") => match (old.numbers.as_slice(), new.numbers.as_slice()) {
                (_, []) => true,
                ([precision, scale @ ..], [wider, new_scale @ ..]) => {
                    let digits = |scale: &[u32]| scale.first().copied().unwrap_or_default();
                    precision <= wider && digits(scale) == digits(new_scale)
                }
                _ => false,
            },
            ("timestamp", "timestamp")
            | ("timestamptz", "timestamptz")
            | ("time", "time")
            | ("timetz", "timetz")
            | ("interval", "interval") => {
                new.numbers.is_empty() || (!old.numbers.is_empty() && old.numbers <= new.numbers)
            }
            ("timestamp", "timestamptz") | ("timestamptz", "timestamp") => {
                return match old.numbers == new.numbers || new.numbers.is_empty() {
                    true => TypeChange::UnlessUtc,
                    false => TypeChange::Rewrite,
                };
            }
            _ => false,
        };
        if keeps { TypeChange::Nothing } else { TypeChange::Rewrite }
    }
}

/// Whether it is a type of PostgreSQL's own that columns commonly have.
fn is_built_in(base: &str) -> bool {
    const BASES: [&str; 36] = [
        "bigint",
        "bigserial",
        "bit",
        "boolean",
        "box",
        "bytea",
        "char",
        "cidr",
        "circle",
        "date",
        "double precision",
        "inet",
        "integer",
        "interval",
        "json",
        "jsonb",
        "line",
        "lseg",
        "macaddr",
        "macaddr8",
        "money",
        "numeric",
        "oid",
        "path",
        "point",
        "polygon",
        "real",
        "serial",
        "smallint",
        "smallserial",
        "text",
        "time",
        "timestamp",
        "timestamptz",
        "uuid",
        "varchar",
    ];
    BASES.contains(&base) || ["timetz", "varbit", "xml", "tsvector", "tsquery"].contains(&base)
}

fn alias(name: &str) -> &str {
    match name {
        "int" | "int4" => "integer",
        "int2" => "smallint",
        "int8" => "bigint",
        "character varying" | "char varying" | "national character varying" => "varchar",
        "character" | "bpchar" | "national character" => "char",
        "bit varying" => "varbit",
        "decimal" | "dec" => "numeric",
        "bool" => "boolean",
        "float4" => "real",
        "float8" | "float" => "double precision",
        "timestamp without time zone" => "timestamp",
        "timestamp with time zone" => "timestamptz",
        "time without time zone" => "time",
        "time with time zone" => "timetz",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_read_as_it_is_written() {
        for (text, base, numbers) in [
            ("character varying ( 30 )", "varchar", &[30][..]),
            ("\"public\".\"mood\"", "mood", &[]),
            ("timestamp (3) with time zone", "timestamptz", &[3]),
            ("NUMERIC(10, 2)", "numeric", &[10, 2]),
            ("int4", "integer", &[]),
        ] {
            let read = ColumnType::read(text);
            assert_eq!((read.base.as_str(), read.numbers.as_slice()), (base, numbers), "{text}");
        }
        assert_ne!(ColumnType::read("text"), ColumnType::read("text[]"));
    }

    #[test]
    fn only_some_changes_rewrite() {
        use TypeChange::{Nothing, Rewrite, Unknown, UnlessUtc};
        for (old, new, change) in [
            ("varchar(10)", "text", Nothing),
            ("text", "varchar", Nothing),
            ("text", "varchar(10)", Rewrite),
            ("varchar(10)", "varchar(20)", Nothing),
            ("varchar(20)", "varchar(10)", Rewrite),
            ("char(10)", "text", Rewrite),
            ("numeric(10, 2)", "numeric(12, 2)", Nothing),
            ("numeric(10, 2)", "numeric(12, 3)", Rewrite),
            ("numeric(10, 2)", "numeric", Nothing),
            ("numeric", "numeric(10, 2)", Rewrite),
            ("integer", "bigint", Rewrite),
            ("int", "integer", Nothing),
            ("timestamp", "timestamptz", UnlessUtc),
            ("timestamp(3)", "timestamp(6)", Nothing),
            ("timestamp(6)", "timestamp(3)", Rewrite),
            ("text", "text[]", Rewrite),
            ("cidr", "inet", Nothing),
            ("citext", "text", Unknown),
            ("timestamp", "timestamp(6)", Nothing),
            ("timestamp(3)", "timestamptz", UnlessUtc),
            ("timestamptz", "timestamp(3)", Rewrite),
            ("interval(3)", "interval", Nothing),
            ("char", "char(1)", Nothing),
        ] {
            let (old, new) = (ColumnType::read(old), ColumnType::read(new));
            assert_eq!(ColumnType::changed_to(Some(&old), &new), change, "{old:?} {new:?}");
        }
    }
}
