set a.b = 'c;'; set local work_mem to '1MB'; set time zone local; set role none; reset all; set names 'utf8';
select pg_catalog.set_config('search_path', '', false); select set_config('a.b', 'c', true);
set standard_conforming_strings = on; set session authorization default; set constraints all deferred;
