// The same migrations, three statements each, as each contender wants them.
// Usage: node folders.mjs FOLDER
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

export const MIGRATIONS = 200;

// Drizzle's table, for contenders that do not create one.
export const HISTORY = `create schema drizzle; create table drizzle.__drizzle_migrations
  (id serial primary key, hash text not null, created_at bigint)`;

export const layout = (root) => ({
  drizzle: path.join(root, "drizzle"),
  dbmate: path.join(root, "dbmate"),
  psql: path.join(root, "all.sql"),
});

function write(root) {
  const folder = layout(root);
  rmSync(root, { recursive: true, force: true });
  mkdirSync(path.join(folder.drizzle, "meta"), { recursive: true });
  mkdirSync(folder.dbmate);
  const entries = [];
  const psql = [];
  for (let idx = 0; idx < MIGRATIONS; idx++) {
    const number = String(idx).padStart(4, "0");
    const tag = `${number}_step`;
    const when = 1_700_000_000_000 + idx * 1000;
    const table = `bench_${number}`;
    const statements = [
      `CREATE TABLE "${table}" (
\t"id" serial PRIMARY KEY NOT NULL,
\t"name" text NOT NULL,
\t"at" timestamp with time zone DEFAULT now() NOT NULL
);`,
      `CREATE INDEX "${table}_name_idx" ON "${table}" USING btree ("name");`,
      `INSERT INTO "${table}" ("name") VALUES ('first');`,
    ];
    const file = path.join(folder.drizzle, `${tag}.sql`);
    writeFileSync(file, statements.join("\n--> statement-breakpoint\n"));
    entries.push({ idx, version: "7", when, tag, breakpoints: true });
    writeFileSync(
      path.join(folder.dbmate, `${20_260_101_000_000 + idx}_step.sql`),
      `-- migrate:up\n${statements.join("\n")}\n-- migrate:down\n`,
    );
    psql.push(
      "begin;",
      `\\i ${file}`,
      `insert into drizzle.__drizzle_migrations (hash, created_at) values ('${number}', ${when});`,
      "commit;",
    );
  }
  const journal = { version: "7", dialect: "postgresql", entries };
  writeFileSync(path.join(folder.drizzle, "meta", "_journal.json"), JSON.stringify(journal, null, 2));
  writeFileSync(folder.psql, `${psql.join("\n")}\n`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) write(process.argv[2]);
