use super::*;

fn texts(script: &str) -> Vec<&str> {
    Script::parse(script).statements().iter().map(|statement| statement.text).collect()
}

/// What is sent, with the data of COPY in its place.
fn sendable(text: &str) -> String {
    joined(text, usize::MAX)
}

fn joined(text: &str, limit: usize) -> String {
    let script = Script::parse(text);
    let (mut sent, mut end) = (String::new(), 0);
    for piece in script.pieces(0..script.statements().len(), limit) {
        sent.push_str(&text[end..piece.start]);
        sent.push_str(&piece.text);
        // As many characters as of the file, but perhaps not as many bytes.
        let characters = piece.text.chars().count();
        end = piece.start + offset_of(&text[piece.start..], characters + 1);
    }
    sent.push_str(&text[end..]);
    sent
}

/// Each text is one statement, by itself and between two others.
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
        let sent = sendable(script);
        assert_eq!(texts(&sent), *statements, "{sent:?}");
    }
}

#[test]
fn a_semicolon_or_the_end_of_the_file_ends_a_statement() {
    check_split(&[
        ("select 1; select 2 ;\nselect 3", &["select 1", "select 2", "select 3"]),
        ("select 1;select 2;\n", &["select 1", "select 2"]),
    ]);
}

#[test]
fn text_without_tokens_is_not_a_statement() {
    check_split(&[
        ("", &[]),
        (" \t\r\n\x0b\x0c", &[]),
        (";; ;", &[]),
        ("-- only a comment", &[]),
        ("/* only a comment */;", &[]),
        ("select 1;; -- a\n;/* b */; select 2;;", &["select 1", "select 2"]),
    ]);
}

#[test]
fn a_statement_excludes_surrounding_space_comments_and_terminator() {
    let text = "/* a */ -- b\n select /* c */ 1 -- d\n/* e */ ; -- f";
    let script = Script::parse(text);
    assert_eq!(script.statements().len(), 1, "{script:?}");
    let statement = script.statements().first().unwrap();
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
fn an_escape_string_continues_after_a_newline() {
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
    check_whole(&[r#"select 1 as "a;""b;""#, r#"select 1 as U&"a;\""#, r#"select "a'", "b;'""#]);
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
fn a_comment_that_resembles_a_marker_does_not_separate() {
    for comment in [
        "-->statement-breakpoint",
        "-->  statement-breakpoint",
        "--> STATEMENT-BREAKPOINT",
        "--> Statement-breakpoint",
        "---> statement-breakpoint",
        "--> statement breakpoint",
    ] {
        let script = format!("a {comment} b\nc");
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
fn markers_that_do_not_separate_are_reported_with_what_they_are_in() {
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
        ("$$--> statement-breakpoint$$", &[(2, IgnoredMarker::Inside("a dollar-quoted string"))]),
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
        assert_eq!(Script::parse(text).ignored_markers(), ignored_markers, "{text}");
    }
}

#[test]
fn only_markers_that_the_server_would_ignore_are_replaced() {
    for (file, sent) in [
        ("a--> statement-breakpoint\nb", "a\n;                      \nb"),
        ("é -- x --> statement-breakpoint y", "é -- x \n;                       y"),
        ("--> statement-breakpoint a", "\n;                       a"),
        ("\u{feff}a;", " a;"),
        ("\u{feff}", " "),
    ] {
        assert_eq!(sendable(file), sent, "{file:?}");
        assert_eq!(file.chars().count(), sent.chars().count());
    }
    for file in ["", "a;--> statement-breakpoint\nb;\n--> statement-breakpoint \t\r\nc", "a;b"] {
        let script = Script::parse(file);
        let piece = script.pieces(0..script.statements().len(), usize::MAX).remove(0);
        assert!(matches!(piece.text, Cow::Borrowed(text) if text == file), "{file:?}");
    }
}

#[test]
fn a_byte_order_mark_belongs_to_no_statement() {
    let script = Script::parse("\u{feff}select 1; \u{feff}x");
    assert_eq!(script.statements().get(0).unwrap().text, "select 1");
    assert_eq!(script.statements().get(0).unwrap().start, 3);
    assert_eq!(script.statements().get(0).unwrap().piece, 0..12);
    assert_eq!(script.statements().get(1).unwrap().text, "\u{feff}x");
}

#[test]
fn pieces_are_split_between_statements() {
    let split = |text, limit| -> Vec<(String, usize, usize)> {
        let script = Script::parse(text);
        let pieces = script.pieces(0..script.statements().len(), limit).into_iter();
        pieces.map(|piece| (piece.text.into(), piece.start, piece.first_statement)).collect()
    };
    let owned = |pieces: &[(&str, usize, usize)]| -> Vec<(String, usize, usize)> {
        pieces.iter().map(|&(text, start, index)| (text.into(), start, index)).collect()
    };
    let text = "é;bb; /* c */ ccccc;d; -- e";
    assert_eq!(split(text, 1000), owned(&[(text, 0, 0)]));
    let small = [("é;bb;", 0, 0), (" /* c */ ccccc;", 6, 2), ("d; -- e", 21, 3)];
    assert_eq!(split(text, 7), owned(&small));
    assert_eq!(split(text, 6), owned(&small));
    assert_eq!(split(text, 0)[1], ("bb;".into(), 3, 1));
    assert_eq!(split("", 9), owned(&[("", 0, 0)]));
    assert_eq!(split("-- no statement", 9), owned(&[("-- no statement", 0, 0)]));
    assert_eq!(
        split("\u{feff}a--> statement-breakpoint b;", 3),
        owned(&[(" a\n;                      ", 0, 0), (" b;", 28, 1)])
    );
}

#[test]
fn psql_commands_end_with_their_line_and_copy_data_with_its_last_line() {
    check_split(&[
        (
            "\\set a'b \r\nselect 1 \\g\n\\restricted",
            &["\\set a'b", "select 1", "\\g", "\\restricted"],
        ),
        ("\\restrict a'b \r\nselect '\n\\restrict';\n\\unrestrict", &["select '\n\\restrict'"]),
        ("copy t from stdin;\nit's\t(\n\\.\nselect 1;", &["copy t from stdin", "select 1"]),
        ("copy t from stdin; -- a\r\n1\r\n\\.\r\nselect 1;", &["copy t from stdin", "select 1"]),
        ("copy t from stdin--> statement-breakpoint\n'\n\\.\nb", &["copy t from stdin", "b"]),
        ("copy t from stdin;\nselect 1;\n", &["copy t from stdin"]),
        ("copy t from stdin; select 1;\nb;", &["copy t from stdin", "select 1", "b"]),
        ("copy t from '/f';\nb;", &["copy t from '/f'", "b"]),
    ]);
    let script = Script::parse("copy t from stdin;\n1\n\\.\nselect 1;");
    assert_eq!(script.statements().get(0).unwrap().piece, 0..24);
    assert_eq!(script.statements().get(0).unwrap().kind, Kind::CopyFromClient);
}

#[test]
fn the_data_of_copy_is_sent_apart_and_lines_for_psql_as_spaces() {
    let text = "\\restrict é\nselect 1; copy t from stdin; --> statement-breakpoint\n\\restrict\né\n\\.\n\
        select 2;copy u from stdin;\n\\unrestrict";
    let script = Script::parse(text);
    let sent: Vec<_> = script
        .pieces(0..script.statements().len(), 1000)
        .into_iter()
        .map(|piece| (piece.text.into_owned(), piece.data, piece.start, piece.first_statement))
        .collect();
    let first = "           \nselect 1; copy t from stdin; --> statement-breakpoint\n";
    let second = "select 2;copy u from stdin;\n";
    let before = text.find("select 2").unwrap();
    assert_eq!(
        sent,
        [
            (first.to_owned(), Some("\\restrict\né\n"), 0, 0),
            (second.to_owned(), Some("\\unrestrict"), before, 2),
        ]
    );
    assert_eq!(script.copy_line(1, 2).map(|at| LineColumn::at(text, at).line), Some(4));
    assert_eq!(script.copy_line(0, 1), None);
    assert_eq!(script.pieces(2..4, 0).len(), 2);
    let statement = Script::parse("select 1; copy t from stdin;\n1\n\\.\n").pieces(1..2, 0);
    assert_eq!(statement.iter().map(|piece| piece.data).collect::<Vec<_>>(), [Some("1\n")]);
}

#[test]
fn the_data_of_copy_ends_where_psql_ends_it() {
    for (text, data) in [
        ("copy t from stdin;\n\\.\n", Some("")),
        ("copy t from stdin", Some("")),
        ("copy t from stdin;", Some("")),
        ("copy t from stdin;\r\na\r\n\\.\r\nb", Some("a\r\n")),
        ("copy t from stdin;\na\n\\.", Some("a\n")),
        ("copy t from stdin;\n \\.\n\\. \na\\.\nb", Some(" \\.\n\\. \na\\.\nb")),
        ("copy t from stdin csv;\n\"a\n\\.\nb\"", Some("\"a\n")),
        ("copy t from stdin; select 1;\na", None),
        ("copy t from stdin; /* a */\na", None),
        ("copy t from program 'a';\na", None),
    ] {
        assert_eq!(Script::parse(text).copy_data(0), data, "{text:?}");
    }
}

#[test]
fn the_no_transaction_directive_is_a_line_of_its_own() {
    for text in [
        "-- premigrate: no-transaction",
        "\u{feff}-- premigrate: no-transaction\r\nselect 1",
        "select 1;\n  --premigrate:no-transaction \nselect 2",
        "select (1\n-- premigrate: no-transaction\n)",
        "-- premigrate: no-transaction--> statement-breakpoint\nselect 1",
    ] {
        assert!(Script::parse(text).no_transaction(), "{text:?}");
    }
    for text in [
        "",
        "-- -- premigrate: no-transaction",
        "/*\n-- premigrate: no-transaction\n*/",
        "select '\n-- premigrate: no-transaction\n'",
        "-- premigrate runs this",
    ] {
        assert_eq!(Script::parse(text).directives(), [], "{text:?}");
    }
}

#[test]
fn a_comment_that_begins_like_a_directive_and_is_none_is_kept() {
    for (text, comment) in [
        ("-- premigrate: no transaction", "-- premigrate: no transaction"),
        ("--Premigrate: No-Transaction\nselect 1", "--Premigrate: No-Transaction"),
        ("a;\n -- PREMIGRATE:x", "-- PREMIGRATE:x"),
        ("-- premigrate: no-transaction;", "-- premigrate: no-transaction;"),
        ("-- premigrate:", "-- premigrate:"),
        ("-- premigrate : no-transaction", "-- premigrate : no-transaction"),
        ("-- premigrate no_transaction", "-- premigrate no_transaction"),
        ("-- premigrate:: no-transaction", "-- premigrate:: no-transaction"),
        ("select 1; -- premigrate: no-transaction", "-- premigrate: no-transaction"),
        ("/* premigrate: no-transaction */", "/* premigrate: no-transaction */"),
        ("/*\n premigrate: no-transaction\n*/", "/*"),
    ] {
        match Script::parse(text).directives() {
            [(_, Directive::Unknown(unknown))] => assert_eq!(unknown.comment, comment),
            other => panic!("{text:?}: {other:?}"),
        }
    }
}

#[test]
fn an_unterminated_token_takes_the_rest_and_is_named() {
    for (text, statements, unterminated) in [
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
        let script = Script::parse(text);
        assert_eq!(script.statements().len(), statements, "{text}");
        assert_eq!(script.unterminated(), unterminated, "{text}");
    }
}

#[test]
fn positions_are_counted_in_characters_from_one() {
    let text = "\u{feff}aé\r\n😀b\n";
    let position_at = |offset| {
        let LineColumn { line, column } = LineColumn::at(text, offset);
        (line, column)
    };
    let lines: Vec<_> = (1..=9).map(|position| position_at(offset_of(text, position))).collect();
    let expected = [(1, 1), (1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (2, 3), (3, 1)];
    assert_eq!(lines, expected);
    assert_eq!(offset_of(text, 0), 0);
    assert_eq!(offset_of(text, 99), text.len());
    assert_eq!(position_at(99), (3, 1));
    assert_eq!(LineColumn::at("é", 1), LineColumn { line: 1, column: 1 });
}

#[test]
fn an_offset_belongs_to_the_statement_whose_piece_contains_it() {
    let script = Script::parse("a; -- b\nc;;");
    let found: Vec<_> = (0..13).map(|offset| script.statement_at(offset)).collect();
    assert_eq!(found[..2], [Some(0); 2]);
    assert_eq!(found[2..], [Some(1); 11]);
    assert_eq!(Script::parse("-- a").statement_at(0), None);
}

/// Texts of up to 24 tokens that matter to the parser, from a fixed seed.
fn random_texts() -> impl Iterator<Item = String> {
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
fn pieces_tile_any_text_and_contain_their_statements() {
    for text in random_texts() {
        let script = Script::parse(&text);
        let mut end = 0;
        for statement in script.statements().iter() {
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
fn the_text_to_send_keeps_characters_and_statements() {
    for text in random_texts() {
        let script = Script::parse(&text);
        let sent = sendable(&text);
        assert_eq!(sent.chars().count(), text.chars().count(), "{text:?}");
        let sent_script = Script::parse(&sent);
        let statements = |script: &Script| -> Vec<(String, Kind)> {
            let statements = script.statements().iter();
            statements.map(|statement| (statement.text.to_owned(), statement.kind)).collect()
        };
        assert_eq!(statements(&sent_script), statements(&script), "{text:?} sent as {sent:?}");
        assert_eq!(sendable(&sent), sent, "{text:?}");
        for limit in [0, 9, 40] {
            assert_eq!(joined(&text, limit), sent, "{text:?}");
        }
    }
}

#[test]
fn positions_are_found_in_any_order() {
    for text in ["a\né\r\n\nb", "\u{feff}a\n\u{feff}b", ""] {
        let mut positions = Positions::new(text);
        let offsets = (0..=text.len() + 1).chain((0..=text.len()).rev());
        for offset in offsets {
            assert_eq!(positions.at(offset), LineColumn::at(text, offset), "{text:?} {offset}");
        }
    }
}
