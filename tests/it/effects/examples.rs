//! A bad and a good example of each rule about what statements do, on a table with rows.

pub struct Example {
    pub rule: &'static str,
    /// The first version of PostgreSQL that has it all.
    pub since: u32,
    /// What there is when the example runs, beside `t` and `p`.
    pub before: &'static str,
    pub bad: &'static str,
    /// Files, each a migration.
    pub good: &'static [&'static str],
}

/// `t` has rows that refer to `p`.
pub const TABLES: &str = "\
create table p (id int primary key);
insert into p select generate_series(1, 100);
create table t (id int not null, a int, b varchar(20), c text, p int, at timestamptz);
insert into t select n, n, n, n, n, now() from generate_series(1, 100) n;
";

const fn example(
    rule: &'static str,
    before: &'static str,
    bad: &'static str,
    good: &'static [&'static str],
) -> Example {
    Example { rule, since: 13, before, bad, good }
}

impl Example {
    const fn since(self, since: u32) -> Example {
        Example { since, ..self }
    }
}

pub const EXAMPLES: &[Example] = &[
    example(
        "index-locks-writes",
        "",
        "create index i on t (a)",
        &["create index concurrently i on t (a)", "create table n (a int); create index on n (a)"],
    ),
    example(
        "index-locks-writes",
        "",
        "create unique index on only t using btree (lower(c), a) where a > 1",
        &[],
    ),
    example(
        "drop-index-locks",
        "create index i on t (a);",
        "drop index i",
        &["drop index concurrently i"],
    ),
    example(
        "reindex-locks",
        "create index i on t (a);",
        "reindex table t",
        &["reindex table concurrently t"],
    ),
    example(
        "reindex-locks",
        "create index i on t (a);",
        "reindex index i",
        &["reindex index concurrently i"],
    ),
    example(
        "reindex-locks",
        "create index i on t (a);",
        "reindex (concurrently off) index i",
        &["reindex (concurrently) index i"],
    )
    .since(14),
    example(
        "partitioned-index",
        "create table m (a int) partition by range (a);
         create table m1 partition of m for values from (0) to (1000);
         insert into m select generate_series(1, 100);",
        "create index i on m (a)",
        &["create index i on only m (a);
           create index concurrently m1_i on m1 (a);
           alter index i attach partition m1_i"],
    ),
    example(
        "detach-locks",
        "create table m (a int) partition by range (a);
         create table m1 partition of m for values from (0) to (1000);",
        "alter table m detach partition m1",
        &[],
    ),
    example(
        "detach-locks",
        "create table m (a int) partition by range (a);
         create table m1 partition of m for values from (0) to (1000);",
        "alter table m detach partition m1",
        &["alter table m detach partition m1 concurrently"],
    )
    .since(14),
    example(
        "attach-scan",
        "create table m (a int) partition by range (a);
         create table m1 (a int);
         insert into m1 select generate_series(1, 100);",
        "alter table m attach partition m1 for values from (0) to (1000)",
        &[
            "alter table m1 add constraint k check (a is not null and a >= 0 and a < 1000) not valid",
            "alter table m1 validate constraint k;
             alter table m attach partition m1 for values from (0) to (1000)",
        ],
    ),
    example(
        "attach-scan",
        "create table m (a text, b date) partition by list (a);
         create table m1 (a text, b date);
         insert into m1 select 'x', current_date from generate_series(1, 100);",
        "alter table m attach partition m1 for values in ('x', 'y')",
        &["create table n (a text, b date); alter table m attach partition n for values in ('z')"],
    ),
    example(
        "attach-scan",
        "create table m (a timestamptz) partition by range (a);
         create table m1 (a timestamptz);
         insert into m1 values ('2026-01-01');",
        "alter table m attach partition m1 for values from (minvalue) to ('2027-01-01')",
        &[],
    ),
    example(
        "foreign-key-scan",
        "",
        "alter table t add constraint f foreign key (p) references p (id) on delete cascade deferrable",
        &[
            "alter table t add constraint f foreign key (p) references p (id) not valid",
            "alter table t validate constraint f",
        ],
    ),
    example(
        "foreign-key-scan",
        "",
        "alter table t add column q int default 1 references p (id)",
        &["alter table t add column q int references p (id)"],
    ),
    example(
        "check-scan",
        "",
        "alter table t add constraint k check (a > 0)",
        &[
            "alter table t add constraint k check (a > 0) not valid",
            "alter table t validate constraint k",
        ],
    ),
    example("check-scan", "", "alter table t add column k int check (k > 0)", &[]),
    example(
        "check-scan",
        "",
        "do $$ begin alter table t add check (a > 0); exception when duplicate_object then null; end $$",
        &[],
    ),
    example(
        "validate-same-transaction",
        "",
        "alter table t add constraint k check (a > 0) not valid; alter table t validate constraint k",
        &[
            "alter table t add constraint k check (a > 0) not valid",
            "alter table t validate constraint k",
        ],
    ),
    example(
        "validate-same-transaction",
        "",
        "alter table t add constraint f foreign key (p) references p not valid;
         alter table t validate constraint f",
        &[],
    ),
    example(
        "not-null-scan",
        "",
        "alter table t alter column a set not null",
        &[
            "alter table t add constraint n check (a is not null) not valid",
            "alter table t validate constraint n; alter table t alter column a set not null",
        ],
    ),
    example(
        "not-null-scan",
        "",
        "alter table t add constraint n not null a",
        &[
            "alter table t add constraint n not null a not valid",
            "alter table t validate constraint n",
        ],
    )
    .since(18),
    example(
        "validate-same-transaction",
        "",
        "alter table t add constraint n not null a not valid; alter table t validate constraint n",
        &[],
    )
    .since(18),
    example(
        "not-null-scan",
        "alter table t add constraint n not null a not valid;",
        "alter table t alter column a set not null",
        &[],
    )
    .since(18),
    example(
        "unique-locks",
        "",
        "alter table t add constraint u unique (id)",
        &[
            "create unique index concurrently u on t (id); alter table t add constraint u unique using index u",
        ],
    ),
    example("unique-locks", "", "alter table t add column u int unique", &[]),
    example(
        "primary-key-locks",
        "",
        "alter table t add primary key (id)",
        &[
            "create unique index concurrently k on t (id); alter table t add constraint k primary key using index k",
        ],
    ),
    example("primary-key-locks", "", "alter table t add primary key (a)", &[]),
    example(
        "primary-key-locks",
        "create unique index k on t (a);",
        "alter table t add primary key using index k",
        &[],
    ),
    example(
        "exclusion-locks",
        "alter table t add r int4range;",
        "alter table t add exclude using gist (r with &&)",
        &["create table n (r int4range, exclude using gist (r with &&))"],
    ),
    example(
        "type-rewrite",
        "",
        "alter table t alter a type bigint",
        &[
            "alter table t alter b type varchar(30)",
            "alter table t alter b type text",
            "alter table t alter c set data type varchar using c::varchar",
        ],
    ),
    example("type-rewrite", "", "alter table t alter b type varchar(10)", &[]),
    example("type-rewrite", "", "alter table t alter c type varchar(10) using left(c, 10)", &[]),
    example(
        "type-rewrite",
        "set timezone to 'Europe/Berlin';",
        "alter table t alter at type timestamp",
        &[],
    ),
    example(
        "default-rewrite",
        "",
        "alter table t add u uuid not null default gen_random_uuid()",
        &[
            "alter table t add u uuid; alter table t alter u set default gen_random_uuid()",
            "alter table t add v timestamptz not null default now()",
            "alter table t add w int not null default 1",
        ],
    ),
    example(
        "default-rewrite",
        "create function f() returns int language plpgsql as 'begin return 1; end';",
        "alter table t add u int default 1 + f()",
        &[],
    ),
    example(
        "default-rewrite",
        "create function f() returns int language plpgsql as 'begin return 1; end';
         create function g() returns int stable language sql as 'select 1';",
        "alter table t add u int default public.f()",
        &["alter table t add v int default g()"],
    ),
    example(
        "generated-rewrite",
        "",
        "alter table t add g int generated always as (a + 1) stored",
        &[],
    ),
    example(
        "generated-rewrite",
        "",
        "alter table t add g int generated by default as identity",
        &[],
    ),
    example(
        "generated-rewrite",
        "",
        "alter table t add g bigserial",
        &["alter table t add g bigint"],
    ),
    example("rewrite", "", "alter table t set unlogged", &[]),
    example("rewrite", "create index i on t (a);", "cluster t using i", &[]),
    example(
        "rewrite",
        "create access method heap2 type table handler heap_tableam_handler;",
        "alter table t set access method heap2",
        &[],
    )
    .since(15),
    example("rewrite", "", "vacuum full t", &["vacuum (full off) t"]),
    example("rewrite", "", "vacuum (full, analyze) t", &[]),
    example(
        "enum-recreated",
        "create type mood as enum ('a', 'b'); alter table t add m mood default 'a';",
        "alter table t alter column m drop default;
         alter table t alter column m set data type text;
         drop type mood;
         create type mood as enum ('a');
         alter table t alter column m set data type mood using m::mood;
         alter table t alter column m set default 'a'",
        &["alter type mood add value 'c' before 'b'"],
    ),
    example(
        "enum-recreated",
        "create type mood as enum ('a', 'b'); alter table t add m mood;",
        "alter type mood rename to mood_old;
         create type mood as enum ('b', 'a');
         alter table t alter column m type mood using m::text::mood;
         drop type mood_old",
        &[],
    ),
    example(
        "required-column",
        "",
        "alter table t add n int not null",
        &["alter table t add n int", "alter table t add o int not null default 0"],
    ),
    example(
        "breaks-old-version",
        "",
        "alter table t drop column a",
        &["alter table t add n int; alter table t drop column n"],
    ),
    example("breaks-old-version", "", "drop table t", &["create table n (); drop table n"]),
    example("breaks-old-version", "", "alter table t rename column a to z", &[]),
    example("breaks-old-version", "", "alter table t rename to z", &[]),
    example("breaks-old-version", "create schema s;", "alter schema s rename to z", &[]),
    example("breaks-old-version", "create schema s;", "alter table t set schema s", &[]),
    example(
        "breaks-old-version",
        "create type mood as enum ('a', 'b');",
        "alter type mood rename value 'a' to 'z'",
        &["alter type mood add value 'z'"],
    ),
    example("breaks-old-version", "", "alter table t alter id drop not null", &[]),
    example(
        "breaks-old-version",
        "alter table t alter a set default 1;",
        "alter table t alter a drop default",
        &["alter table t alter a drop default; alter table t alter a set default 2"],
    ),
    example(
        "loses-more",
        "alter table t add foreign key (p) references p;",
        "drop table p cascade",
        &["alter table t drop constraint t_p_fkey; drop table p"],
    ),
    example("loses-more", "", "truncate p cascade", &["create table n (); truncate n cascade"]),
    example("loses-more", "create schema s;", "drop schema s cascade", &[]),
    example("loses-more", "create index i on t (a, c);", "alter table t drop column c", &[]),
    example(
        "loses-more",
        "create view v as select c from t;",
        "alter table t drop column c cascade",
        &[],
    ),
    example(
        "lock-held",
        "",
        "alter table t add n int; update t set n = 1 where a > 5",
        &["alter table t add n int", "update t set n = 1 where a > 5"],
    ),
    example("lock-held", "", "alter table t add n int; delete from p where id > 200", &[]),
    example("lock-held", "", "truncate t; insert into p select 1000 + id from p", &[]),
    example(
        "lock-held",
        "alter table t add constraint k check (a > 0) not valid;",
        "alter table t add n int; alter table t validate constraint k",
        &[],
    ),
    example("unbatched-write", "", "update t set a = 1", &["update t set a = 1 where id = 1"]),
    example("unbatched-write", "", "update t set a = 1 where t.a is null", &[]),
    example("unbatched-write", "", "delete from t", &["create table n (); delete from n"]),
    example(
        "trigger-locks",
        "create function g() returns trigger language plpgsql as 'begin return new; end';",
        "create trigger g before insert on t for each row execute function g()",
        &["create table n ();
           create trigger g before insert on n for each row execute function g()"],
    ),
    example("trigger-locks", "", "alter table t disable trigger user", &[]),
    example(
        "fk-without-index",
        "",
        "create table n (p int references p on delete cascade)",
        &[
            "create table n (p int references p on delete cascade); create index on n (p)",
            "create table o (p int references p)",
        ],
    ),
    example(
        "shortened-name",
        "",
        "create index a123456789_123456789_123456789_123456789_123456789_123456789_123456789 on p (id)",
        &["create table a1234567890_123456789_123456789_123456789_123456789_12345678 ()"],
    ),
    example(
        "enum-order",
        "create type mood as enum ('a', 'c', 'd');",
        "alter type mood add value 'b'",
        &["alter type mood add value 'b' before 'c'"],
    ),
    example("replication", "", "alter table t replica identity full", &[]),
    example("replication", "", "alter table t replica identity nothing", &[]),
    example(
        "replication",
        "",
        "alter table t set (autovacuum_enabled = false)",
        &["alter table t set (autovacuum_vacuum_scale_factor = 0.01)"],
    ),
];
