create function f(a int) returns int language sql begin atomic
  select case when a > 0 then 1 else 2 end;
  select 1 as end; select (select 2);
end;
create or replace procedure p() begin atomic insert into t values (1); end; select 1;
create function g() returns int return 1;
