-- A second wall behind the application's own filters. It stands before every role but the tables'
-- owner, who runs the migrations: the application has to log in as another role. By teams, sessions
-- and api_keys a request finds out whose it is, so these stay readable before a team is known.
create function public.current_team_id() returns uuid
language sql stable parallel safe as $$
  select nullif(current_setting('app.team_id', true), '')::uuid
$$;
--> statement-breakpoint
do $$
declare
  owned text;
begin
  foreach owned in array array[
    'users',
    'collections',
    'documents',
    'document_revisions',
    'comments',
    'notifications',
    'audit_events',
    'tags',
    'document_tags',
    'stars',
    'views',
    'backlinks',
    'webhooks',
    'team_llm_configs'
  ] loop
    execute format('alter table public.%I enable row level security', owned);
    execute format(
      'create policy tenant_isolation on public.%I using (team_id = (select public.current_team_id()))',
      owned
    );
  end loop;
end;
$$;
