explain (analyze, format json) create table t as select 1; explain verbose delete from t where a = 1 returning *;
with a as (insert into t values (1) returning *), b as materialized (table a) select * from b for update skip locked;
merge into t using u on t.a = u.a when matched then delete when not matched then insert values (1);
