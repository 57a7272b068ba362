create schema s create table a (b int) create view v as select 1 create index on a (b);
create table t (a int generated always as (1) stored, check (a <> 2), b text default 'x;' collate "C");
alter table t add column c int, drop column if exists d cascade; comment on table t is 'a; b';
