CREATE TYPE "public"."document_status" AS ENUM('draft', 'published', 'archived');--> statement-breakpoint
CREATE TABLE "documents" (
	"id" uuid PRIMARY KEY DEFAULT gen_random_uuid() NOT NULL,
	"team_id" uuid NOT NULL,
	"collection_id" uuid,
	"parent_document_id" uuid,
	"title" text DEFAULT '' NOT NULL,
	"text" text DEFAULT '' NOT NULL,
	"status" "document_status" DEFAULT 'draft' NOT NULL,
	"position" text,
	"revision_count" integer DEFAULT 0 NOT NULL,
	"created_by" uuid,
	"updated_by" uuid,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp with time zone DEFAULT now() NOT NULL,
	"published_at" timestamp with time zone,
	"archived_at" timestamp with time zone,
	"deleted_at" timestamp with time zone,
	CONSTRAINT "documents_team_id_id_unique" UNIQUE("team_id","id"),
	CONSTRAINT "documents_title_length" CHECK (char_length("documents"."title") <= 500),
	CONSTRAINT "documents_not_own_parent" CHECK ("documents"."parent_document_id" <> "documents"."id"),
	CONSTRAINT "documents_published_in_collection" CHECK ("documents"."status" <> 'published' or num_nulls("documents"."published_at", "documents"."collection_id") = 0),
	CONSTRAINT "documents_archived_at_set" CHECK (("documents"."status" = 'archived') = ("documents"."archived_at" is not null))
);
--> statement-breakpoint
ALTER TABLE "documents" ADD CONSTRAINT "documents_team_id_teams_id_fk" FOREIGN KEY ("team_id") REFERENCES "public"."teams"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "documents" ADD CONSTRAINT "documents_created_by_users_id_fk" FOREIGN KEY ("created_by") REFERENCES "public"."users"("id") ON DELETE set null ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "documents" ADD CONSTRAINT "documents_updated_by_users_id_fk" FOREIGN KEY ("updated_by") REFERENCES "public"."users"("id") ON DELETE set null ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "documents" ADD CONSTRAINT "documents_collection_fk" FOREIGN KEY ("team_id","collection_id") REFERENCES "public"."collections"("team_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "documents" ADD CONSTRAINT "documents_parent_fk" FOREIGN KEY ("team_id","parent_document_id") REFERENCES "public"."documents"("team_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "documents_recent_idx" ON "documents" USING btree ("team_id","updated_at" DESC NULLS FIRST) WHERE "documents"."deleted_at" is null;--> statement-breakpoint
CREATE INDEX "documents_collection_idx" ON "documents" USING btree ("collection_id","position") WHERE "documents"."deleted_at" is null;--> statement-breakpoint
CREATE INDEX "documents_trash_idx" ON "documents" USING btree ("team_id","deleted_at" DESC NULLS FIRST) WHERE "documents"."deleted_at" is not null;--> statement-breakpoint
CREATE INDEX "documents_parent_idx" ON "documents" USING btree ("parent_document_id");--> statement-breakpoint
CREATE INDEX "documents_created_by_idx" ON "documents" USING btree ("created_by");--> statement-breakpoint
CREATE INDEX "documents_updated_by_idx" ON "documents" USING btree ("updated_by");