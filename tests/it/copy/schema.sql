-- Every kind of object that pg_dump writes, with data that is hard to quote.
create schema app;
comment on schema app is 'it''s; a \ "schema" --> statement-breakpoint';
create type app.mood as enum ('sad', 'ok; \.', 'it''s');
create type app.pair as (a int, b text);
create type app.span as range (subtype = float8);
create domain app.positive as int check (value > 0);
create collation app.numeric_order (provider = icu, locale = 'en-u-kn-true');
create sequence app.numbers start 7 increment 3;
create function app.twice(n int) returns int language sql immutable as $_$ select n * 2; $_$;
create function app.atomic(n int) returns int language sql begin atomic select n; select case when n > 1 then 2 end; end;
create function app.slashes() returns text language plpgsql as $body$
begin
  return E'\\.\n' || $$copy t from stdin;
\.
\restrict x
$$ || '\';
end
$body$;
create procedure app.work() language plpgsql as 'begin commit; end';
create aggregate app.total(int) (sfunc = int4pl, stype = int, initcond = '0');
create operator app.### (leftarg = int, rightarg = int, function = int4pl);
create cast (app.pair as text) with inout;
create operator class app.ints for type int using btree as operator 1 <, operator 2 <=, operator 3 =, operator 4 >=,
  operator 5 >, function 1 btint4cmp(int, int);
create text search configuration app.words (copy = simple);
create access method app_btree type index handler bthandler;
create conversion app.conversion for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8;
create table app.people (
  id int generated always as identity primary key,
  name text collate app.numeric_order not null unique,
  mood app.mood default 'ok; \.',
  pair app.pair,
  age app.positive,
  doubled int generated always as (app.twice(3)) stored,
  document jsonb,
  bytes bytea,
  during tstzrange,
  tags text[],
  exclude using gist (during with &&)
);
insert into app.people (name, mood, pair, age, document, bytes, during, tags) values
  (E'tab\tand\nnewline\\', 'sad', '(1,"a,b")', 1, '{"a": "\\."}', '\x00ff5c', '[2026-01-01, 2026-01-02)', '{a,NULL,"b c"}'),
  ('\.', 'ok; \.', null, null, null, null, null, null),
  ('--> statement-breakpoint; $$ '' "', 'it''s', '(,)', 2, 'null', '', 'empty', '{}'),
  (E'\r\n\\N\b\f\v', null, null, null, null, null, null, null),
  ('é日😀', null, null, null, null, null, null, null);
create table app.orders (
  id bigserial, person int references app.people deferrable initially deferred, at date not null, note text
) partition by range (at);
create table app.orders_2026 partition of app.orders for values from ('2026-01-01') to ('2027-01-01');
create table app.orders_rest partition of app.orders default;
insert into app.orders (person, at, note) select 1, date '2026-01-01' + n, 'note ' || n from generate_series(1, 1000) n;
create table app.base (a int, b text);
create table app.derived (c text) inherits (app.base);
insert into app.derived values (1, '', null), (2, null, '\N');
create unlogged table app.cache (key text primary key, value text) with (fillfactor = 70);
create table app."Odd; ""name" ("order" int, "It's" text);
insert into app."Odd; ""name" values (1, 'x');
create table app.no_columns ();
insert into app.no_columns default values;
set constraints all immediate;
create index on app.people using gin (document jsonb_path_ops) where age > 1;
create index on app.orders (at desc nulls last) include (note);
create statistics app.dependent (dependencies) on a, b from app.base;
create view app.adults with (security_barrier) as select id, name from app.people where age > 1 with check option;
create materialized view app.counted as select mood, count(*) from app.people group by mood;
create rule quiet as on delete to app.base do instead nothing;
create function app.stamp() returns trigger language plpgsql as $$ begin return new; end $$;
create trigger stamp before update of note on app.orders for each row when (new.note <> '') execute function app.stamp();
create function app.watch() returns event_trigger language plpgsql as $$ begin null; end $$;
create event trigger app_watch on ddl_command_end when tag in ('CREATE INDEX') execute function app.watch();
alter table app.people enable row level security;
create policy mine on app.people for select to public using (name = current_user);
create foreign data wrapper app_wrapper options (debug 'true');
create server app_server foreign data wrapper app_wrapper;
create user mapping for public server app_server options (password 'it''s');
create foreign table app.far (a int) server app_server options (name 'far; away');
create publication app_publication for table app.people;
grant select on app.people to pg_monitor;
grant update (note) on app.orders to pg_monitor with grant option;
alter default privileges in schema app grant select on tables to pg_monitor;
revoke execute on function app.twice(int) from public;
select lo_from_bytea(4242, '\x5c2e0a');
comment on large object 4242 is 'a large object';
select setval('app.numbers', 100, false);
