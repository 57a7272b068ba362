//! What stands in a file, and what becomes of it here and there.
//!
//! Each table proves its facts on drizzle-orm before it says what premigrate does.

use super::Contents;
use super::Drizzle::{self, V0, V1};
use crate::harness::{Database, premigrate};

/// Files that drizzle-orm applies, by what is peculiar to them.
const APPLIED: &[(&str, &str)] = &[
    ("an empty file", ""),
    ("blanks", " \n\t\r\n"),
    ("a semicolon", ";"),
    ("semicolons", ";; ;\n;"),
    ("an untouched custom file", "-- Custom SQL migration file, put your code below! --"),
    ("another untouched custom file", "-- Custom SQL migration file, put your code below! --"),
    ("a block comment", "/* nothing /* at all */ */"),
    ("a marker", "--> statement-breakpoint"),
    ("markers", "--> statement-breakpoint\n--> statement-breakpoint\n"),
    (
        "as generated",
        "create table a1 (\n\ta int\n);\n--> statement-breakpoint\n\
         create index on a1 (a);--> statement-breakpoint\ncreate table a2 (a int);",
    ),
    (
        "a marker in mid-line",
        "create table b1 (a int);--> statement-breakpointcreate table b2 (a int)",
    ),
    ("a leading marker", "--> statement-breakpoint\ncreate table c1 (a int);"),
    ("a trailing marker", "create table d1 (a int);--> statement-breakpoint"),
    (
        "doubled markers",
        "create table e1 (a int);--> statement-breakpoint--> statement-breakpoint\n\
         create table e2 (a int);\n--> statement-breakpoint\n\n--> statement-breakpoint\n",
    ),
    (
        "no semicolon before a marker",
        "create table f1 (a int)--> statement-breakpoint\ncreate table f2 (a int)\n\
         --> statement-breakpoint\ncreate table f3 (a int)",
    ),
    (
        "a marker in a line comment",
        "create table g1 (a int) -- why --> statement-breakpoint\ncreate table g2 (a int); -- so\n\
         -- it's --> statement-breakpoint create table g3 (a int)",
    ),
    (
        "a marker after a line comment that quotes",
        "create table h1 (a int); -- don't $$ /* \n--> statement-breakpoint\n\
         create table h2 (a int);",
    ),
    (
        "a marker without its blank",
        "create table i1 (a int);-->statement-breakpoint\ncreate table i2 (a int);",
    ),
    (
        "a marker with two blanks",
        "create table j1 (a int);-->  statement-breakpoint\ncreate table j2 (a int);",
    ),
    (
        "a marker in capitals",
        "create table k1 (a int);--> STATEMENT-BREAKPOINT\ncreate table k2 (a int);",
    ),
    (
        "a longer marker",
        "create table l1 (a int);----> statement-breakpoint\ncreate table l2 (a int);",
    ),
    (
        "a comment after a marker",
        "create table m1 (a int);--> statement-breakpoint -- why\ncreate table m2 (a int);\
         --> statement-breakpoint /* why */ create table m3 (a int);",
    ),
    (
        "several statements between markers",
        "create table n1 (a int); create table n2 (a int);--> statement-breakpoint\n\
         create table n3 (a int); insert into n3 values (1), (2);",
    ),
    (
        "CRLF",
        "create table o1 (\r\n\ta int\r\n);\r\n--> statement-breakpoint\r\n\
         create index on o1 (a);\r\n-- why\r\n--> statement-breakpoint\r\n\
         create table o2 (a int);\r\n",
    ),
    ("CR alone", "create table p1 (a int); -- why\rcreate table p2 (a int);"),
    (
        "more characters than ASCII has",
        "create table \"é\" (\"漢字\" text);--> statement-breakpoint\ninsert into \"é\" values ('🐘');",
    ),
    (
        "a body in dollars",
        "create function q1() returns int language plpgsql as $body$ begin /* $$ ; */ \
         return ';'::text = 'it''s'; end $body$;--> statement-breakpoint\n\
         create table q2 (a int);",
    ),
    (
        "a body in SQL",
        "create function r1() returns int language sql begin atomic \
         select 1; select case when true then 2 end; end;--> statement-breakpoint\n\
         create table r2 (a int);",
    ),
    (
        "a rule with two actions",
        "create table s1 (a int); \
         create rule r as on insert to s1 do instead (select 1; select 2);\
         --> statement-breakpoint\ncreate table s2 (a int);",
    ),
    (
        "strings of every kind",
        "create table t1 (a text);--> statement-breakpoint\n\
         insert into t1 values ('it''s; --'), (E'it\\'s; --'), (U&'\\0061;'), ('a'\n'b'), ($$;$$), \
         ($a$ $$ ; $a$), (U&'!0061' uescape '!'), (B'01'::text), ('\\');",
    ),
    (
        "identifiers of every kind",
        "create table \"u;1\" (\"it's\" int, \"a\"\"b\" int, U&\"\\0061\" int, _$1 int);",
    ),
    (
        "what looks like a parameter",
        "create table v1 (a text default '$1 ?');--> statement-breakpoint\n\
         insert into v1 values (':name $2'), (default);",
    ),
    (
        "operators beside comments",
        "create table w1 (a int);--> statement-breakpoint\n\
         insert into w1 select 2*-1--1\n+1; insert into w1 values (2/*;*/+1);",
    ),
    (
        "answers and notices",
        "select generate_series(1, 1000);--> statement-breakpoint\n\
         do $$ begin raise notice 'n'; raise warning 'w'; end $$;--> statement-breakpoint\n\
         select 1;",
    ),
    (
        "savepoints",
        "savepoint a; create table x1 (a int); rollback to a; release a;--> statement-breakpoint\n\
         create table x2 (a int);",
    ),
    (
        "parentheses in parentheses",
        "create table y1 (a int check (((a) > (0)))); \
         create view y2 as (select (a) from (select a from y1) s);",
    ),
    ("a type", "create type mood as enum ('glad');"),
    ("a value more for that type", "alter type mood add value 'sad';"),
    // Must stay the last: in drizzle-orm's one transaction it holds for all that follows.
    (
        "settings of its own",
        "set local search_path = pg_temp, pg_catalog; set local statement_timeout = '1h'; \
         create table public.z1 (a int);",
    ),
];

/// A case's name, as a tag.
fn tag(name: &str) -> String {
    name.replace(' ', "_")
}

fn every_file_it_applies_is_applied_alike(drizzle: Drizzle) {
    let tags: Vec<String> = APPLIED.iter().map(|(name, _)| tag(name)).collect();
    let inserts = (0..1500)
        .map(|number| format!("insert into long values ('{}');\n", number.to_string().repeat(250)));
    let long = format!("create table long (a text);\n{}", inserts.collect::<String>());
    let mut files: Vec<(&str, &[u8])> = vec![("longer_than_a_MiB", long.as_bytes())];
    files.extend(tags.iter().zip(APPLIED).map(|(tag, (_, sql))| (tag.as_str(), sql.as_bytes())));
    let folder = drizzle.folder(&files);

    let (ours, theirs) = (Database::fresh(), Database::fresh());
    drizzle.migrate(&theirs, &folder).exits(0);
    premigrate(&ours, &folder).run().exits(0);
    Contents::of(&ours).equals(&Contents::of(&theirs));
    let up_to_date = format!("up to date, {} applied", files.len());
    premigrate(&theirs, &folder).run().exits(0).says(&[&up_to_date]);
}

#[test]
fn every_file_that_drizzle_orm_0x_applies_is_applied_with_the_same_effect_and_the_same_row() {
    every_file_it_applies_is_applied_alike(V0);
}

#[test]
fn every_file_that_drizzle_orm_1x_applies_is_applied_with_the_same_effect_and_the_same_row() {
    every_file_it_applies_is_applied_alike(V1);
}

/// What a person plainly means, how drizzle-orm refuses it, and what shows that it was applied.
struct Refused {
    what: &'static str,
    files: &'static [&'static str],
    refusal: &'static [&'static str],
    shown_by: &'static str,
}

const REFUSED: &[Refused] = &[
    Refused {
        what: "a byte order mark",
        files: &["\u{feff}create table t (a int)"],
        refusal: &["syntax error at or near \"\u{feff}create\"", "42601"],
        shown_by: "select 'yes' from t having count(*) = 0",
    },
    Refused {
        what: "a marker in the body of a function",
        files: &["create function f() returns text language plpgsql as $$ begin\n\
                  --> statement-breakpoint\nreturn 'yes'; end $$"],
        refusal: &["unterminated dollar-quoted string", "42601"],
        shown_by: "select f()",
    },
    Refused {
        what: "a marker in a string",
        files: &["create table t as select '--> statement-breakpoint' a"],
        refusal: &["unterminated quoted string", "42601"],
        shown_by: "select 'yes' from t where a = '--> statement-breakpoint'",
    },
    Refused {
        what: "a marker in a comment",
        files: &["/* create table s ();\n--> statement-breakpoint */ create table t (a int)"],
        refusal: &["unterminated /* comment", "42601"],
        shown_by: "select 'yes' where to_regclass('t') is not null and to_regclass('s') is null",
    },
    Refused {
        what: "the first migration that `drizzle-kit pull` writes",
        files: &["-- Current sql file was generated after introspecting the database\n\
                  -- If you want to run this migration please uncomment this code before \
                  executing migrations\n\
                  /*\nCREATE TABLE \"t\" (\n\t\"a\" integer\n);\n\
                  --> statement-breakpoint\nCREATE TABLE \"u\" (\n\t\"a\" integer\n);\n*/"],
        refusal: &["unterminated /* comment", "42601"],
        shown_by: "select 'yes' where to_regclass('t') is null",
    },
    Refused {
        what: "a value added to a type by one migration and used by the next",
        files: &[
            "create type mood as enum ('glad')",
            "alter type mood add value 'sad'",
            "create table t as select 'sad'::mood a",
        ],
        refusal: &["unsafe use of new value", "55P04"],
        shown_by: "select 'yes' from t where a = 'sad'",
    },
    Refused {
        what: "a search_path that pg_dump emptied",
        files: &[
            "select pg_catalog.set_config('search_path', '', false)",
            "create table t (a int)",
        ],
        refusal: &["no schema has been selected to create in", "3F000"],
        shown_by: "select 'yes' where to_regclass('public.t') is not null",
    },
    Refused {
        what: "a timeout that was meant for one migration",
        files: &["set local statement_timeout = '50ms'", "select pg_sleep(0.1)"],
        refusal: &["canceling statement due to statement timeout", "57014"],
        shown_by: "select 'yes' from drizzle.__drizzle_migrations having count(*) = 2",
    },
    Refused {
        what: "a deferred constraint, and an ALTER TABLE by the next migration",
        files: &[
            "create table p (a int primary key); \
             create table c (a int references p deferrable initially deferred); \
             insert into c values (1); insert into p values (1)",
            "alter table c add b int",
        ],
        refusal: &["because it has pending trigger events", "55006"],
        shown_by: "select 'yes' from c where b is null",
    },
];

fn what_a_person_plainly_means_works(drizzle: Drizzle) {
    for Refused { what, files, refusal, shown_by } in REFUSED {
        let names = ["0000", "0001", "0002"].map(|number| format!("{number}_{}", tag(what)));
        let files: Vec<(&str, &[u8])> =
            names.iter().zip(*files).map(|(name, sql)| (name.as_str(), sql.as_bytes())).collect();
        let (database, folder) = (Database::fresh(), drizzle.folder(&files));
        drizzle.migrate(&database, &folder).exits(1).says(refusal);
        premigrate(&database, &folder).run().exits(0);
        assert_eq!(database.rows(shown_by), ["yes"]);
    }
}

#[test]
fn what_a_person_plainly_means_works_although_drizzle_orm_0x_refuses_it() {
    what_a_person_plainly_means_works(V0);
}

#[test]
fn what_a_person_plainly_means_works_although_drizzle_orm_1x_refuses_it() {
    what_a_person_plainly_means_works(V1);
}

#[test]
fn what_no_runner_can_make_sense_of_ends_the_run_before_or_without_leaving_anything() {
    let cases: &[(&str, &[u8], &str, i32, &str)] = &[
        (
            "words after a marker",
            b"create table t (a int);--> statement-breakpoint foo",
            "42601",
            70,
            "syntax error at or near \"foo\"",
        ),
        ("a NUL byte", b"create table t (a text);\0", "08P01", 65, "NUL"),
        ("a command of psql's", b"\\set a b\ncreate table t (a int);", "42601", 65, "\\set a b"),
    ];
    for (what, file, refusal, code, says) in cases {
        for drizzle in [V0, V1] {
            let (database, folder) = (Database::fresh(), drizzle.folder(&[(&tag(what), file)]));
            drizzle.migrate(&database, &folder).exits(1).says(&[refusal]);
            premigrate(&database, &folder).run().exits(*code).says(&[&tag(what), says]);
            assert_eq!(database.rows("select relname from pg_class where relname = 't'"), [""; 0]);
            assert_eq!(database.history(), [""; 0]);
        }
    }
}

#[test]
fn a_file_that_is_not_text_is_refused_while_pending_and_recognised_once_drizzle_orm_applied_it() {
    let file = b"create table t (a text default '\xff\xc3(');";
    for drizzle in [V0, V1] {
        let (database, folder) = (Database::fresh(), drizzle.folder(&[("0000_a", file)]));
        premigrate(&database, &folder).run().exits(65).says(&["0000_a", "UTF-8", "32"]);
        drizzle.migrate(&database, &folder).exits(0);
        premigrate(&database, &folder).run().exits(0).says(&["up to date, 1 applied"]);
    }
}

/// What Drizzle's users write that one transaction cannot hold, and whether drizzle-orm applies it.
const OF_ITS_OWN: &[(&str, &str, Option<&str>)] = &[
    (
        "a concurrent index between COMMIT and BEGIN",
        "create table t (a int);--> statement-breakpoint\ncommit;--> statement-breakpoint\n\
         create index concurrently i on t (a);--> statement-breakpoint\nbegin;",
        None,
    ),
    (
        "the same without markers",
        "create table t (a int); commit; create index concurrently i on t (a); begin;",
        Some("CREATE INDEX CONCURRENTLY cannot run inside a transaction block"),
    ),
    ("BEGIN and COMMIT around it all", "begin;\ncreate table t (a int);\ncommit;", None),
    (
        "an isolation level",
        "set transaction isolation level serializable;--> statement-breakpoint\n\
         create table t as select current_setting('transaction_isolation') as a;",
        None,
    ),
    (
        "a concurrent index",
        "create table t (a int);--> statement-breakpoint\ncreate index concurrently i on t (a);",
        Some("CREATE INDEX CONCURRENTLY cannot run inside a transaction block"),
    ),
    (
        "VACUUM",
        "create table t (a int);--> statement-breakpoint\nvacuum t;",
        Some("VACUUM cannot run inside a transaction block"),
    ),
];

#[test]
fn what_one_transaction_cannot_hold_is_applied_with_the_effect_that_drizzle_orm_gives_it() {
    for drizzle in [V0, V1] {
        for (what, file, refusal) in OF_ITS_OWN {
            // Its first pending file is the only one whose isolation level drizzle-orm can take.
            let folder = drizzle.folder(&[(&tag(what), file.as_bytes())]);
            let (ours, theirs) = (Database::fresh(), Database::fresh());
            premigrate(&ours, &folder).run().exits(0).says(&[&tag(what)]);
            let applied = drizzle.migrate(&theirs, &folder);
            match refusal {
                Some(refusal) => drop(applied.exits(1).says(&[refusal, "25001"])),
                None => {
                    applied.exits(0);
                    premigrate(&theirs, &folder).run().exits(0).says(&["up to date, 1 applied"]);
                    Contents::of(&ours).equals(&Contents::of(&theirs));
                }
            }
            let found = "select relname from pg_class where relname = 't'";
            assert_eq!(ours.rows(found), ["t"], "{what}");
        }
    }
}
