CREATE TABLE "backlinks" (
	"team_id" uuid NOT NULL,
	"source_document_id" uuid NOT NULL,
	"target_document_id" uuid NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "backlinks_source_document_id_target_document_id_pk" PRIMARY KEY("source_document_id","target_document_id"),
	CONSTRAINT "backlinks_not_to_self" CHECK ("backlinks"."source_document_id" <> "backlinks"."target_document_id")
);
--> statement-breakpoint
ALTER TABLE "backlinks" ADD CONSTRAINT "backlinks_team_id_teams_id_fk" FOREIGN KEY ("team_id") REFERENCES "public"."teams"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "backlinks" ADD CONSTRAINT "backlinks_source_fk" FOREIGN KEY ("team_id","source_document_id") REFERENCES "public"."documents"("team_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "backlinks" ADD CONSTRAINT "backlinks_target_fk" FOREIGN KEY ("team_id","target_document_id") REFERENCES "public"."documents"("team_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "backlinks_target_idx" ON "backlinks" USING btree ("target_document_id");