// A runner as teams write it: a table of its own, the files in order, a transaction each.
// Usage: DATABASE_URL=... node runner.mjs FOLDER
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import pg from "pg";

const folder = process.argv[2];
const client = new pg.Client({ connectionString: process.env.DATABASE_URL });
await client.connect();
await client.query("CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY, run_at timestamptz DEFAULT now())");
const { rows } = await client.query("SELECT name FROM migrations");
const applied = new Set(rows.map((row) => row.name));
const files = (await readdir(folder)).filter((file) => file.endsWith(".sql")).sort();
for (const file of files.filter((file) => !applied.has(file))) {
  const sql = await readFile(path.join(folder, file), "utf8");
  try {
    await client.query("BEGIN");
    await client.query(sql);
    await client.query("INSERT INTO migrations (name) VALUES ($1)", [file]);
    await client.query("COMMIT");
  } catch (error) {
    await client.query("ROLLBACK");
    throw error;
  }
}
await client.end();
