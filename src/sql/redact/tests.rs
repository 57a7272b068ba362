use super::*;
use crate::sql::{LineColumn, Script};

#[test]
fn the_contents_of_literals_and_comments_are_masked_where_a_word_occurs() {
    for (sql_text, masked) in [
        ("alter role a password 's' login", "alter role a password '***' login"),
        ("password 'it''s', b 'c'", "password '***', b '***'"),
        (r"password E'it\'s' b", r"password E'***' b"),
        (r"password 's\' b", "password '***' b"),
        ("password U&'s' b", "password U&'***' b"),
        ("password $$s'$$ b", "password $$***$$ b"),
        ("password $a$s$$s$a$ b", "password $a$***$a$ b"),
        ("password $€$s$€$ b", "password $€$***$€$ b"),
        ("password 's'\n  's' b", "password '***'\n  '***' b"),
        ("password 'a\nb' c", "password '***\n' c"),
        ("password -- s\n's' b", "password -- ***\n'***' b"),
        ("password /* s /* s */ */ 's' -- s", "password /* *** */ '***' -- ***"),
        ("-------\npassword '' b", "-------\npassword '' b"),
        ("execute 'password ''s'' b'", "execute '***'"),
        ("password 's", "password '***"),
        ("password $$s\n$", "password $$***\n"),
        ("insert into t (token) values ('s', -1)", "insert into t (token) values ('***', -***)"),
        ("comment on column t.api_key is 's'", "comment on column t.api_key is '***'"),
        ("select json_object('{pwd, s}')", "select json_object('***')"),
        ("select crypt('s', gen_salt('bf'))", "select crypt('***', gen_salt('***'))"),
        (
            "do $$ begin perform f('token', 's'); end $$",
            "do $$ begin perform f('***', '***'); end $$",
        ),
        ("do language plpgsql $$ -- pwd\nf('s') $$", "do language plpgsql $$ -- ***\nf('***') $$"),
        (
            "create function f() as $a$ password $$s$$ $a$",
            "create function f() as $a$ password $$***$$ $a$",
        ),
        ("do $$ token = \"s\" # s $$ language plpython3u", "do $$***$$ language plpython3u"),
    ] {
        assert_eq!(sql(sql_text), masked, "{sql_text}");
    }
}

#[test]
fn what_stands_in_the_place_of_a_value_is_masked_without_quotes_too() {
    for (sql_text, masked) in [
        ("alter role a password s login", "alter role a password *** login"),
        ("alter role a password \"s\"; select s", "alter role a password \"***\"; select s"),
        (
            "create user a encrypted password s!s.s login",
            "create user a encrypted password *** login",
        ),
        ("create user a identified by \"s\"", "create user a identified by \"***\""),
        ("alter role a password null", "alter role a password null"),
        (
            "create user mapping for a server b options (password \"s\")",
            "create user mapping for a server b options (password \"***\")",
        ),
        ("set app.token to s", "set app.token to ***"),
        ("set app.token = \"s\"", "set app.token = \"***\""),
        ("update t set pwd = s where a.id = b.id", "update t set pwd = *** where a.id = b.id"),
        ("f(name => 'token', value => \"s\")", "f(name => '***', value => \"***\")"),
        ("token := s;", "token := ***;"),
        ("set_config('a.token', \"s\", b)", "set_config('***', \"***\", b)"),
        (
            "insert into t (\"token\", b) values (\"s\", s, f(b)), (1) returning b",
            "insert into t (\"token\", b) values (\"***\", ***, f(***)), (***) returning b",
        ),
        ("select crypt(\"s\", gen_salt('bf')), b", "select crypt(\"***\", gen_salt('***')), b"),
        ("password=s.s&b=c", "password=***"),
        ("{\"token\": \"s\", \"b\": 1}", "{\"token\": \"***\", \"b\": 1}"),
    ] {
        assert_eq!(sql(sql_text), masked, "{sql_text}");
    }
}

#[test]
fn tables_with_such_columns_stay_readable() {
    for sql_text in [
        "create table users (password text not null default '')",
        "create table \"users\" (\"id\" serial primary key, \"password\" varchar(255) not null, \
         \"token_id\" uuid references \"public\".\"tokens\"(\"id\"))",
        "create index on \"sessions\" using btree (\"token\",\"user_id\")",
        "alter table users rename column \"password\" to \"password_hash\"",
        "alter table users alter column token set data type text using token::text",
        "create view v as select a.token from a join b on a.token = b.token",
        "grant select (password) on users to app",
        "create extension pgcrypto",
        "alter role token_reader login",
        "select a from t where b = c",
        "insert into t values ('a', \"b\")",
    ] {
        assert_eq!(sql(sql_text), sql_text);
    }
}

#[test]
fn passwords_of_urls_are_masked_everywhere() {
    for (url, masked) in [
        ("'postgres://u:s@h:1/d'", "'postgres://u:***@h:1/d'"),
        ("postgres://u:s@s/s@h/d", "postgres://u:***@h/d"),
        ("redis://:s@h amqp://u:s@h", "redis://:***@h amqp://u:***@h"),
        ("http://h:1/a http://h/a@b ://", "http://h:1/a http://h/a@b ://"),
    ] {
        assert_eq!(sql(url), masked);
        assert_eq!(text(url), masked);
    }
}

#[test]
fn a_text_of_the_server_stays_readable() {
    for same in [
        "",
        "password authentication failed for user \"u\"",
        "the server requires a password, but none was given",
        "column \"password\" of relation \"users\" contains null values",
    ] {
        assert_eq!(text(same), same);
    }
    for (told, masked) in [
        (
            "SQL statement \"alter role \"a\" password 's\"s'\"\nPL/pgSQL",
            "SQL statement \"alter role \"a\" password '***'\"\nPL/pgSQL",
        ),
        ("JSON data: {\"password\": \"s\"}", "JSON data: {\"password\": \"***\"}"),
        ("host=h password=s", "host=*** password=***"),
        ("at or near \"'token s", "at or near \"'***"),
    ] {
        assert_eq!(text(told), masked);
    }
}

/// A passage, and a text of the server about it.
fn words<T>(sql: &str, texts: &[&str], use_words: impl Fn(&Words) -> T) -> T {
    let script = Script::parse(sql);
    use_words(&Words::of(texts, &["users_token_key"], &Passage::whole(&script, false)))
}

#[test]
fn what_a_message_quotes_is_shown_if_it_is_a_name_of_the_passage() {
    let file = "alter role a password 's3cret' \"Login\"; create index i on public.users (tokn); \
                select 's3c.ret'; -- a column that does not exist";
    for (told, masked) in [
        (
            "column \"tokn\" of relation \"users\" does not exist",
            "column \"tokn\" of relation \"users\" does not exist",
        ),
        ("relation \"public.users\" and \"Login\"", "relation \"public.users\" and \"Login\""),
        ("unique constraint \"users_token_key\"", "unique constraint \"users_token_key\""),
        ("integer: \"computed\"", "integer: \"***\""),
        ("near \"\"s3cret\"\" or s3cret.", "near \"\"***\"\" or ***."),
        ("at or near \")\"", "at or near \")\""),
        ("near \"s3cret", "near \"***"),
        ("valeur « computed » : S3CRET", "valeur «***» : ***"),
    ] {
        assert_eq!(words(file, &[told], |words| words.message(told)), masked);
    }
    for (told, masked) in [
        ("Key (tokn)=(s 1) already exists.", "Key (tokn)=(*** ***) already exists."),
        ("Failing row contains (1, null, s3).", "Failing row contains (***, null, ***)."),
        ("Token \"s\" is invalid.", "Token \"***\" is invalid."),
    ] {
        assert_eq!(words(file, &[told], |words| words.detail(told)), masked);
    }
    let context = "SQL statement \"a\nb\"\nPL/pgSQL function f(text) line 3 at RAISE";
    let masked = "***\nPL/pgSQL function f(text) line 3 at RAISE";
    assert_eq!(words(file, &[context], |words| words.context(context)), masked);
}

#[test]
fn the_data_of_a_copy_and_the_words_of_a_psql_command_are_hidden() {
    let shown = |text: &str| {
        let script = Script::parse(text);
        Passage::whole(&script, false).shown(0..text.len(), 0).0
    };
    assert_eq!(
        shown("copy t (token) from stdin;\ns\ts\n\\.\nselect b"),
        "copy t (token) from stdin;\n***\n\\.\nselect b"
    );
    assert_eq!(shown("\\set token s\nselect b"), "\\set***\nselect b");
    let script = Script::parse("\\set token s");
    assert_eq!(statement(&script.statements().get(0).unwrap()), "\\set ***");
}

#[test]
fn any_text_can_be_masked_and_lines_keep_their_numbers() {
    let pieces = [
        "password", "'", "''", "$$", "$a", "=", "E", "\\", "\n", " ", "é", "://", ":", "@", ",",
        ")", "(", "\"", "--", "/*", "*/", "do ", "values", "to ", ";", "s",
    ];
    let mut seed: usize = 1;
    for _ in 0..1_000 {
        let mut random = String::from("password ");
        for _ in 0..8 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
            random.push_str(pieces[(seed >> 33) % pieces.len()]);
        }
        let script = Script::parse(&random);
        let passage = Passage::whole(&script, true);
        for at in 0..=random.len() {
            let (shown, moved) = passage.shown(0..random.len(), at);
            assert!(shown.is_char_boundary(moved) || !random.is_char_boundary(at), "{random:?}");
            assert_eq!(
                LineColumn::at(&shown, shown.len()).line,
                LineColumn::at(&random, random.len()).line
            );
        }
        assert_eq!(text(&random).matches('\n').count(), random.matches('\n').count());
    }
}
