create temp table t (a int) on commit drop; create temporary table t (a int); create local temp sequence s;
create temp view v as select 1; select 1 into temp t; prepare transaction as select 1; listen c;
declare c cursor with hold for select 1; create function pg_temp.f() returns int language sql return 1;
create type pg_temp.e as enum ('a'); alter type e add value 'b' after 'a';
