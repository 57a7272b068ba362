-- One definition for the index and for the queries, which must repeat it to use the index.
-- A tsvector holds at most 1 MB: the end of a very long page is not searched.
create function public.document_search(title text, body text) returns tsvector
language sql immutable parallel safe as $$
  select setweight(to_tsvector('pg_catalog.simple', title), 'A')
      || setweight(to_tsvector('pg_catalog.simple', left(body, 200000)), 'B')
$$;
--> statement-breakpoint
create index documents_search_idx on documents
using gin (public.document_search(title, text))
where deleted_at is null;
--> statement-breakpoint
create index documents_title_trgm_idx on documents
using gin (title gin_trgm_ops)
where deleted_at is null;
