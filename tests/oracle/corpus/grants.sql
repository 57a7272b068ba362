grant select (a), insert on t to r with grant option; revoke all on schema s from public cascade;
alter default privileges in schema s grant select on tables to r; create policy p on t using (a = 1);
