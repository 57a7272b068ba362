create rule r as on insert to t do also (insert into u values (new.a); delete from v where a = 1;);
create rule r2 as on update to t do instead nothing; select 1
