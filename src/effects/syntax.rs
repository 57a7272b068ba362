//! Reads a statement with PostgreSQL's grammar. The parser descends into what it reads, as does the tree when
//! it is dropped: both the length of a statement and the stack are bounded here.

use std::io;
use std::thread;

use squawk_syntax::ast::{self, AstNode};
use squawk_syntax::{SourceFile, SyntaxElement, SyntaxKind, SyntaxNode};

use super::schema::TableName;
use crate::sql::has_at_most;

/// How many tokens a statement may have: a multiple of what people write. The deepest nesting of as many
/// needs a quarter of the stack, without optimizations.
pub(super) const MOST_TOKENS: usize = 5_000;

const STACK: usize = 64 << 20;

/// Words that the statements begin with of which there is something to know.
pub(super) const BEGINNINGS: [&str; 9] =
    ["alter", "cluster", "create", "delete", "drop", "insert", "reindex", "truncate", "update"];

/// Runs this on a stack that is large enough to parse.
pub(super) fn with_large_stack<T: Send>(read: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, read)?;
        thread.join().map_err(|_| io::Error::other("the thread has panicked"))
    })
}

pub(super) enum Parsed {
    Statement {
        statement: ast::Stmt,
        /// Whether a part of it was not understood.
        has_errors: bool,
    },
    TooLong,
    Nothing,
}

/// One statement.
pub(super) fn parse(statement: &str) -> Parsed {
    if !has_at_most(MOST_TOKENS, statement) {
        return Parsed::TooLong;
    }
    let parse = SourceFile::parse(statement);
    let has_errors = !parse.errors().is_empty();
    match parse.tree().stmts().next() {
        Some(statement) => Parsed::Statement { statement, has_errors },
        None => Parsed::Nothing,
    }
}

/// The name that a node consists of, as far as it is a name with a schema or without.
pub(super) fn name(node: &SyntaxNode) -> Option<TableName> {
    let mut parts = Vec::new();
    for token in node.descendants_with_tokens().filter_map(SyntaxElement::into_token) {
        match token.kind() {
            SyntaxKind::WHITESPACE | SyntaxKind::COMMENT | SyntaxKind::DOT => {}
            SyntaxKind::ONLY_KW | SyntaxKind::STAR => {}
            _ => parts.push(identifier(token.text())),
        }
    }
    let name = parts.pop()?;
    Some(TableName::new(parts.pop(), name))
}

/// The same for a node that may not be there.
pub(super) fn name_of<N: AstNode>(node: Option<N>) -> Option<TableName> {
    name(node?.syntax())
}

/// The name of a column or a constraint.
pub(super) fn word_of<N: AstNode>(node: Option<N>) -> Option<String> {
    name_of(node).map(|name| name.name)
}

/// An identifier as the server folds it.
pub(super) fn identifier(text: &str) -> String {
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => text.to_ascii_lowercase(),
    }
}

/// The first node of a kind inside another.
pub(super) fn find(node: &SyntaxNode, kind: SyntaxKind) -> Option<SyntaxNode> {
    node.descendants().find(|node| node.kind() == kind)
}

pub(super) fn has(node: &SyntaxNode, kind: SyntaxKind) -> bool {
    node.descendants_with_tokens().any(|element| element.kind() == kind)
}

/// Whether a word is there, and is not an option that is switched off, as in `(CONCURRENTLY false)`.
pub(super) fn is_on(node: &SyntaxNode, kind: SyntaxKind) -> bool {
    let mut tokens = node
        .descendants_with_tokens()
        .filter_map(SyntaxElement::into_token)
        .filter(|token| !matches!(token.kind(), SyntaxKind::WHITESPACE | SyntaxKind::COMMENT));
    let is_there = tokens.any(|token| token.kind() == kind);
    let value = tokens.next().map(|token| token.text().trim_matches('\'').to_ascii_lowercase());
    is_there && value.is_none_or(|value| !["false", "off", "0"].contains(&value.as_str()))
}

/// The columns in a list of names.
pub(super) fn columns(list: &SyntaxNode) -> Vec<String> {
    let columns = list.descendants().filter(|node| {
        matches!(node.kind(), SyntaxKind::COLUMN_NAME_REF | SyntaxKind::COLUMN_NAME)
    });
    columns.filter_map(|column| name(&column)).map(|name| name.name).collect()
}

/// The text of a node, and nothing around it.
pub(super) fn text(node: &SyntaxNode) -> String {
    node.text().to_string().trim().to_owned()
}

/// The text of a node from one of its children on.
pub(super) fn text_from(node: &SyntaxNode, kind: SyntaxKind) -> Option<String> {
    let first = node.children_with_tokens().find(|child| child.kind() == kind)?;
    let skipped = usize::from(first.text_range().start() - node.text_range().start());
    Some(node.text().to_string().get(skipped..)?.trim().to_owned())
}

pub(super) fn offset(node: &SyntaxNode) -> usize {
    let first = node
        .descendants_with_tokens()
        .filter_map(SyntaxElement::into_token)
        .find(|token| !matches!(token.kind(), SyntaxKind::WHITESPACE | SyntaxKind::COMMENT));
    first.map_or(0, |token| usize::from(token.text_range().start()))
}

/// The value of a string.
pub(super) fn string(literal: &SyntaxNode) -> String {
    let text = text(literal);
    let inner = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
    inner.map_or(text.clone(), |inner| inner.replace("''", "'"))
}
