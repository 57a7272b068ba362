create function f(begin int, "end" int) returns int as 'select $1; select $2;' language sql; 
create function atomic() returns int language sql return 1; select begin, atomic from t; select atomic();
create trigger g before insert on t for each row when (new.a = ';') execute function f();
