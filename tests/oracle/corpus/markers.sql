select 1;
--> statement-breakpoint
select 2
--> statement-breakpoint
/* --> statement-breakpoint */ select 3