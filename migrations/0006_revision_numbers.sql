-- The update locks the document's row, so two editors never get the same number.
create function public.number_revision() returns trigger
language plpgsql as $$
begin
  update public.documents
     set revision_count = revision_count + 1
   where id = new.document_id and team_id = new.team_id
  returning revision_count into new.number;
  if not found then
    raise exception 'document % is not of this team', new.document_id
      using errcode = 'foreign_key_violation', table = tg_table_name, column = 'document_id';
  end if;
  return new;
end;
$$;
--> statement-breakpoint
create trigger number_revision
before insert on document_revisions
for each row execute function public.number_revision();
--> statement-breakpoint
-- updated_at follows every real change, whichever client makes it.
create function public.touch_updated_at() returns trigger
language plpgsql as $$
begin
  new.updated_at := now();
  return new;
end;
$$;
--> statement-breakpoint
create trigger touch_updated_at
before update on teams
for each row when (old.* is distinct from new.*)
execute function public.touch_updated_at();
--> statement-breakpoint
create trigger touch_updated_at
before update on users
for each row when (old.* is distinct from new.*)
execute function public.touch_updated_at();
--> statement-breakpoint
create trigger touch_updated_at
before update on collections
for each row when (old.* is distinct from new.*)
execute function public.touch_updated_at();
--> statement-breakpoint
-- Counting a revision is no edit: a document is touched by what a reader can see.
create trigger touch_updated_at
before update on documents
for each row when (
  (old.title, old.text, old.status, old.collection_id, old.parent_document_id, old.deleted_at)
  is distinct from
  (new.title, new.text, new.status, new.collection_id, new.parent_document_id, new.deleted_at)
)
execute function public.touch_updated_at();
