\restrict x
select 1;
\unrestrict x
select (1; select 2); select )3;