-- Trigrams make title and name lookups fast for any part of a word, not only its beginning.
create extension if not exists pg_trgm;
