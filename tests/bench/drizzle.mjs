// drizzle-orm's own migrator.
// Usage: DATABASE_URL=... node drizzle.mjs FOLDER
import { readFileSync } from "node:fs";
import { drizzle } from "drizzle-orm/postgres-js";
import { migrate } from "drizzle-orm/postgres-js/migrator";
import postgres from "postgres";

// postgres.js would pass what it does not know on to the server.
const url = new URL(process.env.DATABASE_URL);
const authority = url.searchParams.get("sslrootcert");
url.search = "";
const ssl = authority ? { ca: readFileSync(authority) } : false;
const client = postgres(url.href, { max: 1, onnotice: () => {}, ssl });
await migrate(drizzle({ client }), { migrationsFolder: process.argv[2] });
await client.end();
