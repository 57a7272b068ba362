ALTER TABLE "documents" ALTER COLUMN "url_id" SET NOT NULL;--> statement-breakpoint
ALTER TABLE "documents" ADD CONSTRAINT "documents_team_url_id_unique" UNIQUE("team_id","url_id");--> statement-breakpoint
ALTER TABLE "documents" ADD CONSTRAINT "documents_url_id_format" CHECK ("documents"."url_id" ~ '^[A-Za-z0-9]{8,20}$');