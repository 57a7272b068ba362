//! The reader of PostgreSQL scripts: where statements begin and end, what separates them, and what
//! each needs to run. Pure and total: any text is a script, and it never panics and never loops.
//! The server's scanner, psql's rule of where a statement ends, and Drizzle's marker decide.

use std::borrow::Cow;
use std::ops::Range;

use super::lexer::{Lexer, MARKER, Token, TokenKind, is_newline};
use super::redact;
use super::statement_kind::{self, Kind};
use super::statement_target::{self, Change, Index, Modes, SetStatement};

const BOM: char = '\u{feff}';

/// Stands in for a marker, character for character, so that positions stay those of the file. The
/// newline ends the line comment that the marker may stand in.
const TERMINATOR: &str = "\n;                      ";

/// A migration file, read: its statements in order.
#[derive(Debug)]
pub struct Script<'a> {
    text: &'a str,
    statements: Vec<Statement<'a>>,
    /// Where markers stand that must become a `;` for the server, which sees but comments in them.
    breaks: Vec<usize>,
    ignored_markers: Vec<(usize, IgnoredMarker)>,
    no_transaction: bool,
    unterminated: Option<(&'static str, usize)>,
}

/// Why a script is not cut where someone may think that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgnoredMarker {
    /// A marker stands inside of this, whose part it is. Drizzle cuts there all the same.
    Inside(&'static str),
    /// A comment resembles a marker. Nobody cuts there.
    AlmostMarker,
}

/// One statement: what the server answers with one CommandComplete.
#[derive(Debug)]
pub struct Statement<'a> {
    /// From the first token to the last, without the terminator.
    pub text: &'a str,
    /// Where `text` begins in the file, in bytes.
    pub start: usize,
    /// The statement with all before it that belongs to none, and its terminator. The pieces of a
    /// script tile the file; the last takes what follows it too.
    pub piece: Range<usize>,
    /// What it needs to run.
    pub kind: Kind,
}

impl Statement<'_> {
    /// Its beginning, for a message.
    pub fn first_line(&self) -> String {
        let line: String = self.text.lines().next().unwrap_or_default().chars().take(60).collect();
        redact::passwords(&line).into_owned()
    }

    /// What it creates, alters, drops or writes to.
    pub fn changes(&self) -> Vec<Change> {
        statement_target::changes(self.text)
    }

    /// The setting that a statement of [`Kind::Setting`] changes.
    pub fn set_statement(&self) -> Option<SetStatement> {
        statement_target::set_statement(self.text)
    }

    /// The value that a statement of [`Kind::AddEnumValue`] adds, in its quotes.
    pub fn enum_value(&self) -> Option<&str> {
        statement_target::enum_value(self.text)
    }

    /// The isolation level, and whether DEFERRABLE, that a statement of [`Kind::SetTransaction`] or
    /// [`Kind::Begin`] asks for.
    pub fn modes(&self) -> Modes {
        statement_target::modes(self.text)
    }

    /// Whether a statement of [`Kind::Commit`] begins another transaction: `AND CHAIN`.
    pub fn chains(&self) -> bool {
        statement_target::chains(self.text)
    }

    /// The name that a statement of [`Kind::AddEnumValue`] changes, or that `CREATE TYPE ... AS
    /// ENUM` makes, in its parts.
    pub fn enum_name(&self) -> Option<Vec<String>> {
        statement_target::enum_name(self.text)
    }

    /// The index that `CREATE INDEX CONCURRENTLY` makes or `DROP INDEX CONCURRENTLY` drops.
    pub fn index(&self) -> Option<Index> {
        statement_target::index(self.text)
    }

    /// The table and the partition, in their parts, that `ALTER TABLE ... DETACH PARTITION` is about.
    pub fn detached(&self) -> Option<[Vec<String>; 2]> {
        statement_target::detached(self.text)
    }

    /// Whether the server might refuse it in a transaction block although its text does not show
    /// it: a procedure that commits, a partitioned table, an extension's command.
    pub fn may_stand_alone(&self) -> bool {
        statement_kind::may_stand_alone(self.text)
    }
}

/// A part of the text as it is sent, cut between statements.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// What is sent.
    pub text: Cow<'a, str>,
    /// How many characters of the file stand before it.
    pub first_char: usize,
    /// How many statements of the file stand before it.
    pub first_statement: usize,
}

impl<'a> Script<'a> {
    /// Reads any text; a leading byte order mark belongs to no statement.
    pub fn read(text: &'a str) -> Script<'a> {
        Reader::new(text).read()
    }

    /// Exactly those that the server counts: what is empty is none.
    pub fn statements(&self) -> &[Statement<'a>] {
        &self.statements
    }

    /// The text as it is sent: as many characters as the file, and the same meaning to the server
    /// as the file has to us.
    pub fn sendable(&self) -> Cow<'a, str> {
        self.send(0..self.text.len())
    }

    /// The sendable text in pieces of at most `limit` bytes of the file, or of one statement where
    /// that is longer. There is at least one; joined they are `sendable`.
    pub fn pieces(&self, limit: usize) -> Vec<Piece<'a>> {
        self.cut(0..self.text.len(), 0..self.statements.len(), limit)
    }

    /// One statement by itself, without what stands around it.
    pub fn piece(&self, statement: usize) -> Option<Piece<'a>> {
        let it = self.statements.get(statement)?;
        let first_char = chars_before(self.text, it.start);
        Some(Piece { text: it.text.into(), first_char, first_statement: statement })
    }

    /// The same of some statements only, which keep their places in the file; none of no statement.
    pub fn pieces_of(&self, statements: Range<usize>, limit: usize) -> Vec<Piece<'a>> {
        let first = self.statements.get(statements.start).map(|first| first.piece.start);
        let last = statements.end.checked_sub(1).and_then(|last| self.statements.get(last));
        match (first, last) {
            (Some(start), Some(last)) if !statements.is_empty() => {
                self.cut(start..last.piece.end, statements, limit)
            }
            _ => Vec::new(),
        }
    }

    fn cut(&self, bytes: Range<usize>, statements: Range<usize>, limit: usize) -> Vec<Piece<'a>> {
        let mut pieces: Vec<Piece<'a>> = Vec::new();
        let mut part = bytes.start..bytes.start;
        let mut first_char = slice(self.text, 0..bytes.start).chars().count();
        let mut first_statement = statements.start;
        let mut cut = |part: Range<usize>, next_statement: usize| {
            let text = self.send(part);
            let chars = text.chars().count();
            pieces.push(Piece { text, first_char, first_statement });
            first_char += chars;
            first_statement = next_statement;
        };
        let numbered = self.statements.iter().enumerate();
        for (index, statement) in numbered.take(statements.end).skip(statements.start) {
            if !part.is_empty() && statement.piece.end - part.start > limit {
                cut(part.clone(), index);
                part.start = part.end;
            }
            part.end = statement.piece.end;
        }
        cut(part.start..bytes.end, statements.end);
        pieces
    }

    /// Where markers, or what resembles them, do not cut, in bytes.
    pub fn ignored_markers(&self) -> &[(usize, IgnoredMarker)] {
        &self.ignored_markers
    }

    /// Whether the script has the line `-- premigrate: no-transaction`.
    pub fn no_transaction(&self) -> bool {
        self.no_transaction
    }

    /// What is opened and never closed, in PostgreSQL's words, and where in bytes.
    pub fn unterminated(&self) -> Option<(&'static str, usize)> {
        self.unterminated
    }

    /// The index of the statement that a byte offset falls in or comes before; past the end, the
    /// last one.
    pub fn statement_at(&self, offset: usize) -> Option<usize> {
        let index = self.statements.partition_point(|statement| statement.piece.end <= offset);
        self.statements.len().checked_sub(1).map(|last| index.min(last))
    }

    fn send(&self, part: Range<usize>) -> Cow<'a, str> {
        let first = self.breaks.partition_point(|&at| at < part.start);
        let breaks = self.breaks.iter().skip(first).take_while(|&&at| at < part.end);
        let mut sent = String::new();
        let mut done = part.start;
        if done == 0 && self.text.starts_with(BOM) {
            sent.push(' ');
            done = BOM.len_utf8();
        }
        for &at in breaks {
            sent.push_str(slice(self.text, done..at));
            sent.push_str(TERMINATOR);
            done = at + MARKER.len();
        }
        if sent.is_empty() {
            return Cow::Borrowed(slice(self.text, part));
        }
        sent.push_str(slice(self.text, done..part.end));
        Cow::Owned(sent)
    }
}

/// The byte offset of a position as the server counts: in characters, from 1.
pub fn offset_of(text: &str, position: usize) -> usize {
    text.char_indices().nth(position.saturating_sub(1)).map_or(text.len(), |(offset, _)| offset)
}

/// How many characters stand before a byte offset.
pub fn chars_before(text: &str, offset: usize) -> usize {
    slice(text, 0..text.floor_char_boundary(offset)).chars().count()
}

/// Line and column of a byte offset, in characters, from 1, as an editor shows them: a byte order
/// mark has no column.
pub fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = slice(text, 0..text.floor_char_boundary(offset));
    let before = before.strip_prefix(BOM).unwrap_or(before);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

fn slice(text: &str, range: Range<usize>) -> &str {
    text.get(range).unwrap_or_default()
}

/// The state between two tokens.
struct Reader<'a> {
    lexer: Lexer<'a>,
    script: Script<'a>,
    /// Where the last piece ended.
    piece_start: usize,
    /// First byte of the open statement, and the end of its last token.
    open: Option<(usize, usize)>,
    previous: Option<Token<'a>>,
    depth: usize,
    /// Whether the open statement is a CREATE FUNCTION or PROCEDURE; found when first asked.
    routine: Option<bool>,
    in_atomic_body: bool,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        let start = if text.starts_with(BOM) { BOM.len_utf8() } else { 0 };
        Reader {
            lexer: Lexer::new(text, start),
            script: Script {
                text,
                statements: Vec::new(),
                breaks: Vec::new(),
                ignored_markers: Vec::new(),
                no_transaction: false,
                unterminated: None,
            },
            piece_start: 0,
            open: None,
            previous: None,
            depth: 0,
            routine: None,
            in_atomic_body: false,
        }
    }

    fn read(mut self) -> Script<'a> {
        while let Some(token) = self.lexer.next() {
            if !token.closed {
                self.script.unterminated = Some((unterminated(&token), token.start));
            }
            self.ignored_markers(&token);
            match token.kind {
                TokenKind::Space | TokenKind::BlockComment => {}
                TokenKind::LineComment => {
                    self.script.no_transaction |= is_directive(self.script.text, &token);
                }
                TokenKind::Marker => self.marker(&token),
                _ => self.token(token),
            }
        }
        self.finish();
        if let Some(last) = self.script.statements.last_mut() {
            last.piece.end = self.script.text.len();
        }
        self.script
    }

    fn ignored_markers(&mut self, token: &Token<'a>) {
        let inside = match token.kind {
            TokenKind::Space | TokenKind::Marker | TokenKind::Word | TokenKind::Symbol => return,
            TokenKind::LineComment if resembles_marker(token) => {
                return self
                    .script
                    .ignored_markers
                    .push((token.start, IgnoredMarker::AlmostMarker));
            }
            TokenKind::LineComment | TokenKind::BlockComment => "a comment",
            TokenKind::QuotedIdentifier => "a quoted identifier",
            TokenKind::Literal if token.text.starts_with('$') => "a dollar-quoted string",
            TokenKind::Literal => "a string",
        };
        let markers = token.text.match_indices(MARKER);
        self.script
            .ignored_markers
            .extend(markers.map(|(at, _)| (token.start + at, IgnoredMarker::Inside(inside))));
    }

    fn at_top(&self) -> bool {
        self.depth == 0 && !self.in_atomic_body
    }

    /// drizzle-orm splits at every marker. Where that would tear a statement it fails there, so a
    /// marker is then no more than the comment that it looks like.
    fn marker(&mut self, marker: &Token<'a>) {
        if self.open.is_some() && !self.at_top() {
            let inside = if self.depth > 0 { "parentheses" } else { "a BEGIN ATOMIC body" };
            return self.script.ignored_markers.push((marker.start, IgnoredMarker::Inside(inside)));
        }
        self.lexer.separate();
        let rest = self.lexer.rest();
        let blank = rest.trim_start_matches([' ', '\t', '\x0b', '\x0c']);
        if self.open.is_some() || !(blank.is_empty() || blank.starts_with(['\n', '\r'])) {
            self.script.breaks.push(marker.start);
        }
        self.finish();
    }

    fn token(&mut self, token: Token<'a>) {
        let Some((start, _)) = self.open else {
            return self.first_token(token);
        };
        if token.is(";") && self.at_top() {
            return self.finish();
        }
        self.open = Some((start, token.end()));
        if token.is("(") {
            self.depth += 1;
        } else if token.is(")") {
            self.depth = self.depth.saturating_sub(1);
        } else if self.depth == 0 {
            self.atomic_body(start, &token);
        }
        self.previous = Some(token);
    }

    fn first_token(&mut self, token: Token<'a>) {
        if token.is(";") {
            return;
        }
        self.open = Some((token.start, token.end()));
        self.previous = Some(token);
        self.depth = usize::from(token.is("("));
        self.routine = None;
        self.in_atomic_body = false;
        if token.is("\\") {
            let rest = self.lexer.rest();
            let line = rest.split(['\n', '\r']).next().unwrap_or_default();
            self.lexer.advance(line.len());
            self.open = Some((token.start, token.end() + line.trim_end().len()));
            self.finish();
        }
    }

    /// `BEGIN ATOMIC ... END` in a routine. Its statements end in `;` and none begins with END, so
    /// the END that closes it is the one behind a `;` or right behind ATOMIC; CASE has none there,
    /// and a label that is called `end` neither.
    fn atomic_body(&mut self, start: usize, token: &Token<'a>) {
        let previous = |word| self.previous.is_some_and(|previous| previous.is(word));
        if self.in_atomic_body {
            self.in_atomic_body = !(token.is("end") && (previous(";") || previous("atomic")));
        } else if token.is("atomic") && previous("begin") {
            let text = slice(self.script.text, start..token.start);
            self.in_atomic_body =
                *self.routine.get_or_insert_with(|| statement_kind::is_routine(text));
        }
    }

    /// Ends the open statement, if there is one, where the lexer stands.
    fn finish(&mut self) {
        let Some((start, end)) = self.open.take() else { return };
        let text = slice(self.script.text, start..end);
        let kind = statement_kind::classify(text);
        if kind == Kind::CopyFromClient {
            self.lexer.advance(copy_data_length(self.lexer.rest()));
        }
        let piece = self.piece_start..self.lexer.at();
        self.piece_start = piece.end;
        self.script.statements.push(Statement { text, start, piece, kind });
    }
}

fn unterminated(token: &Token) -> &'static str {
    match token.kind {
        TokenKind::BlockComment => "/* comment",
        TokenKind::QuotedIdentifier => "quoted identifier",
        _ if token.text.starts_with('$') => "dollar-quoted string",
        _ => "quoted string",
    }
}

/// Whether a line comment, which is no marker, says nothing but what a marker says.
fn resembles_marker(comment: &Token) -> bool {
    let letters = comment.text.bytes().filter(u8::is_ascii_alphabetic);
    letters.map(|letter| letter.to_ascii_lowercase()).eq(*b"statementbreakpoint")
        && !comment.text.contains(MARKER)
}

/// Whether a line comment is our directive, and alone in its line (a marker may follow).
fn is_directive(text: &str, comment: &Token) -> bool {
    let Some(words) = comment.text.strip_prefix("--") else { return false };
    words
        .trim_start()
        .strip_prefix("premigrate:")
        .is_some_and(|directive| directive.trim() == "no-transaction")
        && slice(text, 0..comment.start)
            .trim_end_matches([' ', '\t', BOM])
            .bytes()
            .next_back()
            .is_none_or(is_newline)
}

/// How far the data of a `COPY ... FROM STDIN` goes that has just ended: as in psql from the next
/// line to the line `\.`, or to the end. Behind more SQL in the same line there is none.
fn copy_data_length(rest: &str) -> usize {
    // Looked at before the line is: a long line of nothing but COPY is to stay linear.
    let remark = rest.trim_start_matches([' ', '\t', '\r']);
    if !(remark.is_empty() || remark.starts_with('\n') || remark.starts_with("--")) {
        return 0;
    }
    let mut lines = rest.split_inclusive('\n');
    let mut length = lines.next().map_or(0, str::len);
    for line in lines {
        length += line.len();
        if line.trim_end_matches(['\n', '\r']) == "\\." {
            break;
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(script: &str) -> Vec<&str> {
        Script::read(script).statements().iter().map(|statement| statement.text).collect()
    }

    /// Each text is one statement as it stands, also between two others.
    fn check_whole(statements: &[&str]) {
        for statement in statements {
            assert_eq!(texts(statement), [*statement]);
            let script = format!("select 1;\n{statement}\n;select 2");
            assert_eq!(texts(&script), ["select 1", statement, "select 2"]);
        }
    }

    fn check_split(cases: &[(&str, &[&str])]) {
        for (script, statements) in cases {
            assert_eq!(texts(script), *statements, "{script:?}");
            let sent = Script::read(script).sendable().into_owned();
            assert_eq!(texts(&sent), *statements, "{sent:?}");
        }
    }

    #[test]
    fn a_semicolon_ends_a_statement_and_the_end_of_the_file_does() {
        check_split(&[
            ("select 1; select 2 ;\nselect 3", &["select 1", "select 2", "select 3"]),
            ("select 1;select 2;\n", &["select 1", "select 2"]),
        ]);
    }

    #[test]
    fn what_holds_no_token_is_no_statement() {
        check_split(&[
            ("", &[]),
            (" \t\r\n\x0b\x0c", &[]),
            (";; ;", &[]),
            ("-- only a remark", &[]),
            ("/* only a remark */;", &[]),
            ("select 1;; -- a\n;/* b */; select 2;;", &["select 1", "select 2"]),
        ]);
    }

    #[test]
    fn a_statement_has_no_space_comment_or_terminator_around_it() {
        let text = "/* a */ -- b\n select /* c */ 1 -- d\n/* e */ ; -- f";
        let script = Script::read(text);
        let [statement] = script.statements() else { panic!("{script:?}") };
        assert_eq!(statement.text, "select /* c */ 1");
        assert_eq!(statement.start, 14);
        assert_eq!(statement.piece, 0..text.len());
    }

    #[test]
    fn a_semicolon_in_a_string_ends_nothing() {
        check_whole(&[
            "select ';'",
            "select 'it''s; so'",
            r"select 'a\', ';'",
            r"select E'a\';\\', e'\\'",
            r"select b';', x';', n';', U&'\0441;', u&'\'",
            "select 'a;'\n';'",
            r"select aE';'",
        ]);
    }

    #[test]
    fn an_escape_string_goes_on_behind_a_newline() {
        check_whole(&[
            r"select E'a\'' -- it's
            '\';'",
            "select e'a'\r'\\';'",
        ]);
        check_split(&[
            (r"select E'a' '\'; select 1", &[r"select E'a' '\'", "select 1"]),
            ("select E'a' /*\n*/\n'\\'; select 1", &["select E'a' /*\n*/\n'\\'", "select 1"]),
            ("select E'a',\n'\\'; select 1", &["select E'a',\n'\\'", "select 1"]),
            (
                "select E'a' --> statement-breakpoint\n'\\'; select 1",
                &["select E'a'", "'\\'", "select 1"],
            ),
        ]);
    }

    #[test]
    fn a_semicolon_in_a_quoted_identifier_ends_nothing() {
        check_whole(&[
            r#"select 1 as "a;""b;""#,
            r#"select 1 as U&"a;\""#,
            r#"select "a'", "b;'""#,
        ]);
    }

    #[test]
    fn a_semicolon_in_a_dollar_quoted_string_ends_nothing() {
        check_whole(&[
            "select $$;$$",
            "select $a$;$b$;$$;$a$",
            "select $a$ $ab$ ; $a$",
            "select $_1$;$_1$, $é$;$é$",
            "select 1$$;$$, 1e5$$;$$, $1$$;$$",
            "do language plpgsql $do$ begin perform 1; end; $do$",
        ]);
    }

    #[test]
    fn a_dollar_in_an_identifier_or_a_parameter_quotes_nothing() {
        check_split(&[
            ("select a$b$; select c$b$", &["select a$b$", "select c$b$"]),
            ("select é$$; select $$a$$", &["select é$$", "select $$a$$"]),
            ("select $1; select $1", &["select $1", "select $1"]),
            ("select $1$; select $1$", &["select $1$", "select $1$"]),
            ("select $; select $a; select $a", &["select $", "select $a", "select $a"]),
        ]);
    }

    #[test]
    fn a_semicolon_in_a_comment_ends_nothing() {
        check_whole(&[
            "select 1 -- ; '\n + 1",
            "select 1 -- ;\r + 1",
            "select 1 /* ; /* ' */ ; $$ */ + 1",
            "select 1 /*/ ; */ + 1",
            "select 1 /**/ + /***/ 1",
            "select 1 +-- ;\n 1",
            "select 1 */* ; */ 1",
            "select 1 @-/* ; */ 1",
        ]);
    }

    #[test]
    fn a_semicolon_in_parentheses_ends_nothing() {
        check_whole(&["create rule r as on insert to t do also (delete from a; delete from b;)"]);
        check_split(&[("select 1); select (2)", &["select 1)", "select (2)"])]);
    }

    #[test]
    fn a_semicolon_in_the_body_of_a_standard_function_ends_nothing() {
        check_whole(&[
            "create function f() returns int begin atomic select 1; select 2; end",
            "create or replace procedure p() BEGIN /* a; */ ATOMIC; END",
            "create function f() begin atomic end",
            "create function f() begin atomic select case when (1; 2) then 1 end; end",
            "create function f() begin atomic select case when a then 1 end, b end; end",
            "create function f() begin atomic select 1 as end, a.case; return 1; END",
        ]);
    }

    #[test]
    fn begin_atomic_is_a_body_only_in_a_routine() {
        check_split(&[
            ("select begin atomic; end", &["select begin atomic", "end"]),
            ("create table begin (atomic int); end", &["create table begin (atomic int)", "end"]),
            (
                "create function begin() returns int as 'begin atomic'; end",
                &["create function begin() returns int as 'begin atomic'", "end"],
            ),
            ("create function f(begin atomic); end", &["create function f(begin atomic)", "end"]),
            (
                "create view v as select begin atomic; end",
                &["create view v as select begin atomic", "end"],
            ),
        ]);
    }

    #[test]
    fn a_marker_ends_a_statement_as_a_semicolon_does() {
        let ab: &[&str] = &["a", "b"];
        check_split(&[
            ("a;--> statement-breakpoint\nb", ab),
            ("a--> statement-breakpoint\nb", ab),
            ("a\n--> statement-breakpoint\r\nb", ab),
            ("a--> statement-breakpoint b", ab),
            ("a; --> statement-breakpoint b;", ab),
            ("a -- a --> statement-breakpoint\nb", ab),
            ("a; -- a --> statement-breakpoint b", ab),
            ("a----> statement-breakpoint b", ab),
            ("a--> statement-breakpoint--> statement-breakpoint\n--> statement-breakpoint b", ab),
            ("--> statement-breakpoint\na;\nb--> statement-breakpoint", ab),
            ("a--> statement-breakpoint -- '\nb", ab),
            ("a--> statement-breakpoint; b", ab),
            ("a) --> statement-breakpoint b", &["a)", "b"]),
            (
                "create function begin --> statement-breakpoint atomic; b",
                &["create function begin", "atomic", "b"],
            ),
        ]);
    }

    #[test]
    fn what_only_resembles_a_marker_is_a_comment() {
        for remark in [
            "-->statement-breakpoint",
            "-->  statement-breakpoint",
            "--> STATEMENT-BREAKPOINT",
            "--> Statement-breakpoint",
            "---> statement-breakpoint",
            "--> statement breakpoint",
        ] {
            let script = format!("a {remark} b\nc");
            assert_eq!(texts(&script), [script.as_str()]);
        }
    }

    #[test]
    fn a_marker_inside_something_is_part_of_it() {
        check_whole(&[
            "select '--> statement-breakpoint'",
            "select E'\\'--> statement-breakpoint'",
            "select \"--> statement-breakpoint\"",
            "select $$--> statement-breakpoint\n;$$",
            "select 1 /* --> statement-breakpoint\n; */ + 1",
            "create table t (--> statement-breakpoint ;\n x int -- a --> statement-breakpoint ;\n)",
            "create function f() begin atomic --> statement-breakpoint ; \n select 1; end",
            "select (E'a' --> statement-breakpoint '\n'\\';')",
        ]);
    }

    #[test]
    fn markers_that_do_not_cut_are_told_with_what_they_stand_in() {
        for (text, ignored_markers) in [
            ("a;--> statement-breakpoint\nb -- c --> statement-breakpoint", &[][..]),
            ("a -->statement-breakpoint", &[(2, IgnoredMarker::AlmostMarker)]),
            ("--> STATEMENT-BREAKPOINT;\na", &[(0, IgnoredMarker::AlmostMarker)]),
            ("-- statement_breakpoint", &[(0, IgnoredMarker::AlmostMarker)]),
            ("-- a statement-breakpoint is meant\n-- >", &[]),
            ("a ---> statement-breakpoint", &[(3, IgnoredMarker::Inside("a comment"))]),
            ("/* --> statement-breakpoint */", &[(3, IgnoredMarker::Inside("a comment"))]),
            ("'--> statement-breakpoint'", &[(1, IgnoredMarker::Inside("a string"))]),
            ("\"--> statement-breakpoint\"", &[(1, IgnoredMarker::Inside("a quoted identifier"))]),
            (
                "$$--> statement-breakpoint$$",
                &[(2, IgnoredMarker::Inside("a dollar-quoted string"))],
            ),
            ("f(--> statement-breakpoint\n)", &[(2, IgnoredMarker::Inside("parentheses"))]),
            (
                "create function f() begin atomic --> statement-breakpoint\nend",
                &[(33, IgnoredMarker::Inside("a BEGIN ATOMIC body"))],
            ),
            (
                "'--> statement-breakpoint --> statement-breakpoint",
                &[(1, IgnoredMarker::Inside("a string")), (26, IgnoredMarker::Inside("a string"))],
            ),
        ] {
            assert_eq!(Script::read(text).ignored_markers(), ignored_markers, "{text}");
        }
    }

    #[test]
    fn only_markers_that_the_server_would_overlook_are_replaced() {
        for (file, sent) in [
            ("a--> statement-breakpoint\nb", "a\n;                      \nb"),
            ("é -- x --> statement-breakpoint y", "é -- x \n;                       y"),
            ("--> statement-breakpoint a", "\n;                       a"),
            ("\u{feff}a;", " a;"),
            ("\u{feff}", " "),
        ] {
            assert_eq!(Script::read(file).sendable(), sent, "{file:?}");
            assert_eq!(file.chars().count(), sent.chars().count());
        }
        for file in ["", "a;--> statement-breakpoint\nb;\n--> statement-breakpoint \t\r\nc", "a;b"]
        {
            let script = Script::read(file);
            assert!(matches!(script.sendable(), Cow::Borrowed(text) if text == file), "{file:?}");
        }
    }

    #[test]
    fn a_byte_order_mark_belongs_to_no_statement() {
        let script = Script::read("\u{feff}select 1; \u{feff}x");
        assert_eq!(script.statements()[0].text, "select 1");
        assert_eq!(script.statements()[0].start, 3);
        assert_eq!(script.statements()[0].piece, 0..12);
        assert_eq!(script.statements()[1].text, "\u{feff}x");
    }

    #[test]
    fn pieces_are_cut_between_statements() {
        let cut = |text, limit| -> Vec<(String, usize, usize)> {
            let pieces = Script::read(text).pieces(limit).into_iter();
            pieces
                .map(|piece| (piece.text.into(), piece.first_char, piece.first_statement))
                .collect()
        };
        let owned = |pieces: &[(&str, usize, usize)]| -> Vec<(String, usize, usize)> {
            pieces.iter().map(|&(text, chars, index)| (text.into(), chars, index)).collect()
        };
        let text = "é;bb; /* c */ ccccc;d; -- e";
        assert_eq!(cut(text, 1000), owned(&[(text, 0, 0)]));
        let small = [("é;bb;", 0, 0), (" /* c */ ccccc;", 5, 2), ("d; -- e", 20, 3)];
        assert_eq!(cut(text, 7), owned(&small));
        assert_eq!(cut(text, 6), owned(&small));
        assert_eq!(cut(text, 0)[1], ("bb;".into(), 2, 1));
        assert_eq!(cut("", 9), owned(&[("", 0, 0)]));
        assert_eq!(cut("-- no statement", 9), owned(&[("-- no statement", 0, 0)]));
        assert_eq!(
            cut("\u{feff}a--> statement-breakpoint b;", 3),
            owned(&[(" a\n;                      ", 0, 0), (" b;", 26, 1)])
        );
    }

    #[test]
    fn psql_commands_take_a_line_and_copy_data_goes_to_its_end() {
        check_split(&[
            (
                "\\restrict a'b \r\nselect 1;\n\\unrestrict",
                &["\\restrict a'b", "select 1", "\\unrestrict"],
            ),
            ("copy t from stdin;\nit's\t(\n\\.\nselect 1;", &["copy t from stdin", "select 1"]),
            (
                "copy t from stdin; -- a\r\n1\r\n\\.\r\nselect 1;",
                &["copy t from stdin", "select 1"],
            ),
            ("copy t from stdin--> statement-breakpoint\n'\n\\.\nb", &["copy t from stdin", "b"]),
            ("copy t from stdin;\nselect 1;\n", &["copy t from stdin"]),
            ("copy t from stdin; select 1;\nb;", &["copy t from stdin", "select 1", "b"]),
            ("copy t from '/f';\nb;", &["copy t from '/f'", "b"]),
        ]);
        let script = Script::read("copy t from stdin;\n1\n\\.\nselect 1;");
        assert_eq!(script.statements()[0].piece, 0..24);
        assert_eq!(script.statements()[0].kind, Kind::CopyFromClient);
    }

    #[test]
    fn the_directive_is_a_line_of_its_own() {
        for text in [
            "-- premigrate: no-transaction",
            "\u{feff}-- premigrate: no-transaction\r\nselect 1",
            "select 1;\n  --premigrate:no-transaction \nselect 2",
            "select (1\n-- premigrate: no-transaction\n)",
            "-- premigrate: no-transaction--> statement-breakpoint\nselect 1",
        ] {
            assert!(Script::read(text).no_transaction(), "{text:?}");
        }
        for text in [
            "",
            "select 1; -- premigrate: no-transaction",
            "-- premigrate: no-transaction please",
            "-- -- premigrate: no-transaction",
            "/*\n-- premigrate: no-transaction\n*/",
            "select '\n-- premigrate: no-transaction\n'",
            "-- premigrate: transaction",
        ] {
            assert!(!Script::read(text).no_transaction(), "{text:?}");
        }
    }

    #[test]
    fn what_is_never_closed_takes_the_rest_and_is_named() {
        for (text, statements, what) in [
            ("a; select 'b; c", 2, Some(("quoted string", 10))),
            ("a; select E'b\\'; c", 2, Some(("quoted string", 10))),
            ("a; select E'b\\", 2, Some(("quoted string", 10))),
            ("a; select \"b; c", 2, Some(("quoted identifier", 10))),
            ("a; select $b$; $c$", 2, Some(("dollar-quoted string", 10))),
            ("a; select 1 /* b; /* */ c", 2, Some(("/* comment", 12))),
            ("a; /* b; c", 1, Some(("/* comment", 3))),
            ("a; select (b; c", 2, None),
            ("a; b", 2, None),
        ] {
            let script = Script::read(text);
            assert_eq!(script.statements().len(), statements, "{text}");
            assert_eq!(script.unterminated(), what, "{text}");
        }
    }

    #[test]
    fn positions_are_counted_in_characters_from_one() {
        let text = "\u{feff}aé\r\n😀b\n";
        let lines: Vec<_> =
            (1..=9).map(|position| line_and_column(text, offset_of(text, position))).collect();
        let expected = [(1, 1), (1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (2, 3), (3, 1)];
        assert_eq!(lines, expected);
        assert_eq!(offset_of(text, 0), 0);
        assert_eq!(offset_of(text, 99), text.len());
        assert_eq!(line_and_column(text, 99), (3, 1));
        assert_eq!(line_and_column("é", 1), (1, 1));
    }

    #[test]
    fn an_offset_is_in_the_statement_whose_piece_has_it() {
        let script = Script::read("a; -- b\nc;;");
        let found: Vec<_> = (0..13).map(|offset| script.statement_at(offset)).collect();
        assert_eq!(found[..2], [Some(0); 2]);
        assert_eq!(found[2..], [Some(1); 11]);
        assert_eq!(Script::read("-- a").statement_at(0), None);
    }

    /// Texts of up to 24 tokens that matter, from a fixed seed.
    fn soups() -> impl Iterator<Item = String> {
        const TOKENS: &[&str] = &[
            " ",
            "\n",
            "\r",
            ";",
            ";",
            "'",
            "\"",
            "$$",
            "$a$",
            "$1",
            "E'",
            "U&'",
            "\\",
            "--",
            "/*",
            "*/",
            "(",
            ")",
            "--> statement-breakpoint",
            "--> statement-breakpoint",
            "-",
            ">",
            "create function",
            "begin atomic",
            "end",
            "case",
            "é",
            "\u{feff}",
            "x",
            "1e",
            ",",
            "\0",
            "copy t from stdin",
            "\\.\n",
            "-- premigrate: no-transaction",
            "reindex (",
            "with (",
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 33) as usize % below
        };
        (0..20_000).map(move |_| (0..random(24)).map(|_| TOKENS[random(TOKENS.len())]).collect())
    }

    #[test]
    fn pieces_tile_any_text_and_statements_lie_in_them() {
        for text in soups() {
            let script = Script::read(&text);
            let mut end = 0;
            for statement in script.statements() {
                let text_end = statement.start + statement.text.len();
                assert_eq!(statement.piece.start, end, "{text:?}");
                assert!(end <= statement.start && text_end <= statement.piece.end, "{text:?}");
                assert_eq!(&text[statement.start..text_end], statement.text, "{text:?}");
                assert!(!statement.text.is_empty(), "{text:?}");
                end = statement.piece.end;
            }
            assert!(end == text.len() || script.statements().is_empty(), "{text:?}");
        }
    }

    #[test]
    fn sending_any_text_keeps_its_characters_and_its_statements() {
        for text in soups() {
            let script = Script::read(&text);
            let sent = script.sendable();
            assert_eq!(sent.chars().count(), text.chars().count(), "{text:?}");
            let again = Script::read(&sent);
            let of = |script: &Script| -> Vec<(String, Kind)> {
                let statements = script.statements().iter();
                statements.map(|statement| (statement.text.to_owned(), statement.kind)).collect()
            };
            assert_eq!(of(&again), of(&script), "{text:?} sent as {sent:?}");
            assert_eq!(again.sendable(), sent, "{text:?}");
            for limit in [0, 9, 40] {
                let joined: String =
                    script.pieces(limit).iter().map(|piece| &*piece.text).collect();
                assert_eq!(joined, sent, "{text:?}");
            }
        }
    }
}
