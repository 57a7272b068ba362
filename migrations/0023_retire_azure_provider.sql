ALTER TABLE "team_llm_configs" ALTER COLUMN "provider" SET DATA TYPE text;--> statement-breakpoint
UPDATE "team_llm_configs" SET "provider" = 'openai_compatible' WHERE "provider" = 'azure_openai';--> statement-breakpoint
DROP TYPE "public"."llm_provider";--> statement-breakpoint
CREATE TYPE "public"."llm_provider" AS ENUM('anthropic', 'openai', 'openai_compatible');--> statement-breakpoint
ALTER TABLE "team_llm_configs" ALTER COLUMN "provider" SET DATA TYPE "public"."llm_provider" USING "provider"::"public"."llm_provider";