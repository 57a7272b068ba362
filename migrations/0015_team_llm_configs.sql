CREATE TYPE "public"."llm_provider" AS ENUM('anthropic', 'openai', 'azure_openai');--> statement-breakpoint
CREATE TABLE "team_llm_configs" (
	"id" uuid PRIMARY KEY DEFAULT gen_random_uuid() NOT NULL,
	"team_id" uuid NOT NULL,
	"provider" "llm_provider" NOT NULL,
	"model" text NOT NULL,
	"base_url" text,
	"api_key_ciphertext" "bytea",
	"encryption_key_version" integer,
	"temperature" numeric(3, 2),
	"max_output_tokens" integer,
	"options" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"is_default" boolean DEFAULT false NOT NULL,
	"created_by" uuid,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "team_llm_configs_model_unique" UNIQUE("team_id","provider","model"),
	CONSTRAINT "team_llm_configs_base_url_http" CHECK ("team_llm_configs"."base_url" ~ '^https?://[^[:space:]]+$'),
	CONSTRAINT "team_llm_configs_key_versioned" CHECK (("team_llm_configs"."api_key_ciphertext" is null) = ("team_llm_configs"."encryption_key_version" is null)),
	CONSTRAINT "team_llm_configs_temperature_range" CHECK ("team_llm_configs"."temperature" between 0 and 2),
	CONSTRAINT "team_llm_configs_max_output_tokens_positive" CHECK ("team_llm_configs"."max_output_tokens" > 0)
);
--> statement-breakpoint
ALTER TABLE "team_llm_configs" ADD CONSTRAINT "team_llm_configs_team_id_teams_id_fk" FOREIGN KEY ("team_id") REFERENCES "public"."teams"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "team_llm_configs" ADD CONSTRAINT "team_llm_configs_created_by_users_id_fk" FOREIGN KEY ("created_by") REFERENCES "public"."users"("id") ON DELETE set null ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "team_llm_configs_one_default" ON "team_llm_configs" USING btree ("team_id") WHERE "team_llm_configs"."is_default";--> statement-breakpoint
CREATE INDEX "team_llm_configs_created_by_idx" ON "team_llm_configs" USING btree ("created_by");