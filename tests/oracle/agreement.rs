//! Compares how premigrate and PostgreSQL read a text.

use premigrate::migrations::steps::Steps;
use premigrate::sql::{Kind, NewValues, Script, Statement};

use crate::parser::{Needs, Parsed, parse};

/// The number of statements compared; `None` if PostgreSQL does not accept the text. The error is a
/// difference.
pub fn compare(text: &str) -> Result<Option<usize>, String> {
    let Some(parsed) = parse(text) else { return Ok(None) };
    let script = Script::parse(text);
    let ours: Vec<Statement> = script.statements().iter().collect();
    // After COPY ... FROM STDIN, psql and premigrate see data, but the parser sees SQL.
    let is_copy = |statement: &Statement| statement.kind == Kind::CopyFromClient;
    let data = ours.iter().position(is_copy).map(|index| index + 1);
    let theirs = &parsed[..data.unwrap_or(parsed.len()).min(parsed.len())];
    let ours = &ours[..data.unwrap_or(ours.len())];
    for (ours, theirs) in ours.iter().zip(theirs) {
        compare_statements(text, ours, theirs)?;
    }
    if ours.len() != theirs.len() {
        return Err(format!("{} statements, PostgreSQL sees {}", ours.len(), theirs.len()));
    }
    Ok(Some(ours.len()))
}

fn compare_statements(text: &str, ours: &Statement, theirs: &Parsed) -> Result<(), String> {
    let expected = text.get(theirs.range.clone()).unwrap_or_default();
    if (ours.start, ours.text) != (theirs.range.start, expected) {
        return Err(format!(
            "a statement at {}:\n{}\nand PostgreSQL sees one at {}:\n{expected}",
            ours.start, ours.text, theirs.range.start
        ));
    }
    if !agrees(ours, theirs.needs) {
        return Err(format!("{:?}, PostgreSQL says {:?}:\n{}", ours.kind, theirs.needs, ours.text));
    }
    Ok(())
}

fn agrees(statement: &Statement, needs: Needs) -> bool {
    if needs == Needs::Unknown {
        return true;
    }
    match statement.kind {
        Kind::Plain => needs == Needs::Nothing,
        Kind::Begin => needs == Needs::Begin,
        Kind::Commit => needs == Needs::Commit,
        Kind::Rollback => needs == Needs::Rollback,
        Kind::PrepareTransaction => needs == Needs::PrepareTransaction,
        Kind::SetTransaction => needs == Needs::SetTransaction,
        Kind::NoTransactionBlock(_) => needs == Needs::NoTransaction,
        Kind::CopyFromClient => needs == Needs::DataFromClient,
        Kind::CopyToClient => needs == Needs::DataToClient,
        Kind::PsqlCommand => false,
        Kind::AddEnumValue => needs == Needs::EnumValue,
        // The oracle does not search the whole tree of a query for `set_config`.
        Kind::Setting => {
            let sets = statement.text.to_ascii_lowercase().contains("set_config");
            needs == Needs::Setting || (needs == Needs::Nothing && sets)
        }
        // SET or SET LOCAL.
        Kind::LexingSetting(_) => matches!(needs, Needs::Setting | Needs::Nothing),
        Kind::SessionBound(_) => needs == Needs::Session,
    }
}

/// Checks what must be true of any text, SQL or not.
pub fn check_consistency(text: &str) -> Result<(), String> {
    let script = Script::parse(text);
    let mut end = 0;
    let mut joined = String::new();
    for statement in script.statements().iter() {
        let Statement { text: content, start, piece, .. } = &statement;
        if piece.start != end || *start < piece.start || start + content.len() > piece.end {
            return Err(format!("a statement at {start} in the piece {piece:?} after {end}"));
        }
        if text.get(*start..start + content.len()) != Some(*content) || content.is_empty() {
            return Err(format!("the statement at {start} is not the text at that offset"));
        }
        joined.push_str(text.get(piece.clone()).ok_or("a piece ends inside a character")?);
        end = piece.end;
    }
    if !script.statements().is_empty() && joined != text {
        return Err("the pieces put together are not the text".to_owned());
    }
    let chars: Vec<char> = text.chars().collect();
    // With the data of COPY, which is sent apart.
    let joined = |limit| -> String {
        let mut sent = Vec::new();
        for piece in script.pieces(0..script.statements().len(), limit) {
            let before = text.get(..piece.start).unwrap_or_default();
            let first_char = before.chars().count();
            sent.extend(chars.get(sent.len()..first_char).unwrap_or_default());
            sent.extend(piece.text.chars());
        }
        sent.extend(chars.get(sent.len()..).unwrap_or_default());
        sent.into_iter().collect()
    };
    let sent = joined(usize::MAX);
    if sent.chars().count() != text.chars().count() {
        return Err("what is sent has other positions".to_owned());
    }
    for limit in [1, 7, 64] {
        if joined(limit) != sent {
            return Err(format!("the pieces of {limit} bytes are not what is sent"));
        }
    }
    if Script::parse(&sent).statements().len() != script.statements().len() {
        return Err("what is sent has another number of statements".to_owned());
    }
    let _ = (script.ignored_markers(), script.unterminated(), script.no_transaction());
    let mut values = NewValues::of(&script);
    for (index, statement) in script.statements().iter().enumerate() {
        let _ = (statement.changes(), statement.set_statement(), statement.computed_settings());
        let _ = (statement.first_line(), statement.modes(), values.take_used(&statement));
        values.add(index, &statement);
        let _ = (statement.index(), statement.chains(), statement.may_refuse_transaction_block());
    }
    let steps = Steps::split(&script);
    for step in steps.all() {
        let _ = (steps.replay(&script, step, None), &step.saves);
    }
    Ok(())
}
