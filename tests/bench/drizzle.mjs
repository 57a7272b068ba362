// drizzle-orm's own migrator.
// Usage: DATABASE_URL=... node drizzle.mjs FOLDER
import { drizzle } from "drizzle-orm/postgres-js";
import { migrate } from "drizzle-orm/postgres-js/migrator";
import postgres from "postgres";

const client = postgres(process.env.DATABASE_URL, { max: 1, onnotice: () => {} });
await migrate(drizzle({ client }), { migrationsFolder: process.argv[2] });
await client.end();
