vacuum (full, analyze) t; create unique index concurrently if not exists i on t (a); drop index concurrently i;
reindex (concurrently off, verbose) table t; reindex table concurrently t; reindex schema s; cluster; cluster verbose;
alter table t detach partition p concurrently; alter system set a = 'b'; create database d; drop database d with (force);
discard all; create subscription s connection 'c' publication p with (connect = false);
alter subscription s set publication p with (refresh = false); alter database d set tablespace x;
