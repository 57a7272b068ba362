select $a$ open; /* select 1; */ -- premigrate: no-transaction
