// drizzle-orm's own migrator, as the reference that premigrate is compared with.
// Usage: node migrate.mjs FOLDER URL [TABLE [SCHEMA]]
import { drizzle } from "drizzle-orm/postgres-js";
import { migrate } from "drizzle-orm/postgres-js/migrator";
import postgres from "postgres";

const [migrationsFolder, url, migrationsTable, migrationsSchema] = process.argv.slice(2);
if (!migrationsFolder || !url) {
  console.error("usage: node migrate.mjs FOLDER URL [TABLE [SCHEMA]]");
  process.exit(64);
}

const client = postgres(url, { max: 1, onnotice: () => {} });
try {
  await migrate(drizzle({ client }), { migrationsFolder, migrationsTable, migrationsSchema });
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await client.end();
}
