-- An author column is set to null when its user goes, so it cannot share team_id with a composite
-- foreign key (PostgreSQL before 15 would set team_id to null as well). This closes the gap.
-- Arguments: the columns that name a user.
create function public.require_same_team() returns trigger
language plpgsql as $$
declare
  named text;
  author uuid;
  author_before uuid;
begin
  foreach named in array tg_argv loop
    execute format('select ($1).%I, ($2).%I', named, named) into author, author_before using new, old;
    -- What stays is not asked again: its user may be going in the same statement.
    continue when author is null
      or (author, new.team_id) is not distinct from (author_before, old.team_id);
    if not exists (
      select from public.users where id = author and team_id = new.team_id
    ) then
      raise exception '%.% names no user of this team', tg_table_name, named
        using errcode = 'foreign_key_violation', table = tg_table_name, column = named;
    end if;
  end loop;
  return new;
end;
$$;
--> statement-breakpoint
create trigger require_same_team
before insert or update of team_id, created_by on collections
for each row execute function public.require_same_team('created_by');
--> statement-breakpoint
create trigger require_same_team
before insert or update of team_id, created_by, updated_by on documents
for each row execute function public.require_same_team('created_by', 'updated_by');
--> statement-breakpoint
create trigger require_same_team
before insert or update of team_id, author_id on document_revisions
for each row execute function public.require_same_team('author_id');
--> statement-breakpoint
create trigger require_same_team
before insert or update of team_id, author_id, resolved_by on comments
for each row execute function public.require_same_team('author_id', 'resolved_by');
--> statement-breakpoint
create trigger require_same_team
before insert or update of team_id, actor_id on notifications
for each row execute function public.require_same_team('actor_id');
--> statement-breakpoint
create trigger require_same_team
before insert or update of team_id, created_by on webhooks
for each row execute function public.require_same_team('created_by');
--> statement-breakpoint
create trigger require_same_team
before insert or update of team_id, created_by on team_llm_configs
for each row execute function public.require_same_team('created_by');
--> statement-breakpoint
create function public.refuse_change() returns trigger
language plpgsql as $$
begin
  raise exception '% is append-only', tg_table_name
    using errcode = 'restrict_violation', table = tg_table_name;
end;
$$;
--> statement-breakpoint
-- Rows still leave with their team, and when they are past the time they must be kept.
create trigger append_only
before update on audit_events
for each row execute function public.refuse_change();
--> statement-breakpoint
create trigger touch_updated_at
before update on comments
for each row when (old.* is distinct from new.*)
execute function public.touch_updated_at();
--> statement-breakpoint
create trigger touch_updated_at
before update on webhooks
for each row when (old.* is distinct from new.*)
execute function public.touch_updated_at();
--> statement-breakpoint
create trigger touch_updated_at
before update on team_llm_configs
for each row when (old.* is distinct from new.*)
execute function public.touch_updated_at();
