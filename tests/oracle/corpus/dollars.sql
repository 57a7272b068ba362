do $$ begin perform 1; end $$; select $a$ $$ ; $b$ $a$, $_ä1$;$_ä1$, a$b$c;
create function f() returns void language plpgsql as $body$ begin execute 'x;' || $q$ y; $q$; end $body$;
select 1$1, $1;
