CREATE TABLE "stars" (
	"team_id" uuid NOT NULL,
	"user_id" uuid NOT NULL,
	"document_id" uuid NOT NULL,
	"position" text NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "stars_user_id_document_id_pk" PRIMARY KEY("user_id","document_id")
);
--> statement-breakpoint
CREATE TABLE "views" (
	"team_id" uuid NOT NULL,
	"user_id" uuid NOT NULL,
	"document_id" uuid NOT NULL,
	"count" integer DEFAULT 1 NOT NULL,
	"first_viewed_at" timestamp with time zone DEFAULT now() NOT NULL,
	"last_viewed_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "views_user_id_document_id_pk" PRIMARY KEY("user_id","document_id"),
	CONSTRAINT "views_count_positive" CHECK ("views"."count" > 0),
	CONSTRAINT "views_first_before_last" CHECK ("views"."first_viewed_at" <= "views"."last_viewed_at")
);
--> statement-breakpoint
ALTER TABLE "stars" ADD CONSTRAINT "stars_team_id_teams_id_fk" FOREIGN KEY ("team_id") REFERENCES "public"."teams"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "stars" ADD CONSTRAINT "stars_user_fk" FOREIGN KEY ("team_id","user_id") REFERENCES "public"."users"("team_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "stars" ADD CONSTRAINT "stars_document_fk" FOREIGN KEY ("team_id","document_id") REFERENCES "public"."documents"("team_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "views" ADD CONSTRAINT "views_team_id_teams_id_fk" FOREIGN KEY ("team_id") REFERENCES "public"."teams"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "views" ADD CONSTRAINT "views_user_fk" FOREIGN KEY ("team_id","user_id") REFERENCES "public"."users"("team_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "views" ADD CONSTRAINT "views_document_fk" FOREIGN KEY ("team_id","document_id") REFERENCES "public"."documents"("team_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "stars_document_idx" ON "stars" USING btree ("document_id");--> statement-breakpoint
CREATE INDEX "views_history_idx" ON "views" USING btree ("user_id","last_viewed_at" DESC NULLS FIRST);--> statement-breakpoint
CREATE INDEX "views_document_idx" ON "views" USING btree ("document_id","last_viewed_at" DESC NULLS FIRST);