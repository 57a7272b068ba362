//! Whether premigrate reads a text as PostgreSQL does.

use premigrate::migrations::steps::Steps;
use premigrate::sql::{Kind, Script, Statement};

use crate::parser::{Needs, Parsed, parse};

/// How many statements of this text were compared; none where PostgreSQL does not accept it. The
/// error is a difference.
pub fn compare(text: &str) -> Result<Option<usize>, String> {
    let Some(parsed) = parse(text) else { return Ok(None) };
    let script = Script::parse(text);
    let ours = script.statements();
    // What follows COPY ... FROM STDIN is data to us, as it is to psql, and SQL to the parser.
    let is_copy = |statement: &Statement| statement.kind == Kind::CopyFromClient;
    let data = ours.iter().position(is_copy).map(|at| at + 1);
    let theirs = &parsed[..data.unwrap_or(parsed.len()).min(parsed.len())];
    let ours = &ours[..data.unwrap_or(ours.len())];
    for (ours, theirs) in ours.iter().zip(theirs) {
        differs(text, ours, theirs)?;
    }
    if ours.len() != theirs.len() {
        return Err(format!("{} statements, PostgreSQL sees {}", ours.len(), theirs.len()));
    }
    Ok(Some(ours.len()))
}

fn differs(text: &str, ours: &Statement, theirs: &Parsed) -> Result<(), String> {
    let expected = text.get(theirs.range.clone()).unwrap_or_default();
    if (ours.start, ours.text) != (theirs.range.start, expected) {
        return Err(format!(
            "a statement at {}:\n{}\nand PostgreSQL sees one at {}:\n{expected}",
            ours.start, ours.text, theirs.range.start
        ));
    }
    if !fits(ours, theirs.needs) {
        return Err(format!("{:?}, PostgreSQL says {:?}:\n{}", ours.kind, theirs.needs, ours.text));
    }
    Ok(())
}

fn fits(statement: &Statement, needs: Needs) -> bool {
    if needs == Needs::Whatever {
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
        // `set_config` is looked for anywhere in a query, where the tree would have to be walked.
        Kind::Setting => {
            let sets = statement.text.to_ascii_lowercase().contains("set_config");
            needs == Needs::Setting || (needs == Needs::Nothing && sets)
        }
        // Whether SET or SET LOCAL.
        Kind::LexingSetting(_) => matches!(needs, Needs::Setting | Needs::Nothing),
        Kind::SessionBound(_) => needs == Needs::Session,
    }
}

/// What must be true of any text, SQL or not.
pub fn holds_together(text: &str) -> Result<(), String> {
    let script = Script::parse(text);
    let mut end = 0;
    let mut joined = String::new();
    for statement in script.statements() {
        let Statement { text: of, start, piece, .. } = statement;
        if piece.start != end || *start < piece.start || start + of.len() > piece.end {
            return Err(format!("a statement at {start} in the piece {piece:?} behind {end}"));
        }
        if text.get(*start..start + of.len()) != Some(*of) || of.is_empty() {
            return Err(format!("the statement at {start} is not what stands there"));
        }
        joined.push_str(text.get(piece.clone()).ok_or("a piece ends inside a character")?);
        end = piece.end;
    }
    if !script.statements().is_empty() && joined != text {
        return Err("the pieces put together are not the text".to_owned());
    }
    let sent = script.sendable();
    if sent.chars().count() != text.chars().count() {
        return Err("what is sent has other positions".to_owned());
    }
    for limit in [1, 7, 64] {
        let pieces: String = script.pieces(limit).into_iter().map(|it| it.text).collect();
        if pieces != sent {
            return Err(format!("the pieces of {limit} bytes are not what is sent"));
        }
    }
    let again: Vec<_> = script.statements().iter().map(|it| it.text.to_owned()).collect();
    let sent_ones = Script::parse(&sent);
    if sent_ones.statements().len() != again.len() {
        return Err("what is sent has another number of statements".to_owned());
    }
    let _ = (script.ignored_markers(), script.unterminated(), script.no_transaction());
    for statement in script.statements() {
        let _ = (statement.changes(), statement.set_statement(), statement.enum_value());
        let _ = (statement.first_line(), statement.modes(), statement.enum_name());
        let _ = (statement.index(), statement.chains(), statement.may_refuse_transaction_block());
    }
    for step in Steps::split(&script).all() {
        let _ = (step.replay(&script), step.standalone(&script));
    }
    Ok(())
}
