begin; start transaction isolation level serializable, read only; savepoint a; rollback to savepoint a;
release a; commit and chain; rollback work; abort; end; prepare transaction 'x;'; commit prepared 'x';
rollback prepared 'x'; set transaction read only; set session characteristics as transaction read write;
