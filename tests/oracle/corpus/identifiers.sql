create table "a;b" ("c""d;" int, U&"\0061;" int, "begin" int, ünïcode int);
select a."b;c", e.f, U&"x!0061" uescape '!' from "a;b" as a;
