ALTER TYPE "public"."llm_provider" ADD VALUE 'openai_compatible';--> statement-breakpoint
ALTER TYPE "public"."user_role" ADD VALUE 'guest';