// The same migrations, three statements each, as each contender wants them: a folder for each number of them.
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";

export const folders = (root, count) => {
  const home = path.join(root, String(count));
  return {
    drizzle: path.join(home, "drizzle"),
    dbmate: path.join(home, "dbmate"),
    nodePgMigrate: path.join(home, "node-pg-migrate"),
    refinery: path.join(home, "refinery"),
    sqlx: path.join(home, "sqlx"),
    psql: path.join(home, "all.sql"),
    bundle: path.join(home, "premigrate"),
  };
};

const name = (idx) => `bench_${String(idx).padStart(4, "0")}`;

export const statements = (idx) => [
  `CREATE TABLE "${name(idx)}" (
\t"id" serial PRIMARY KEY NOT NULL,
\t"name" text NOT NULL,
\t"at" timestamp with time zone DEFAULT now() NOT NULL
);`,
  `CREATE INDEX "${name(idx)}_name_idx" ON "${name(idx)}" USING btree ("name");`,
  `INSERT INTO "${name(idx)}" ("name") VALUES ('first');`,
];

export function write(root, count) {
  const folder = folders(root, count);
  const put = (home, file, text) => writeFileSync(path.join(home, file), text);
  rmSync(path.join(root, String(count)), { recursive: true, force: true });
  for (const home of ["dbmate", "nodePgMigrate", "refinery", "sqlx"]) mkdirSync(folder[home], { recursive: true });
  mkdirSync(path.join(folder.drizzle, "meta"), { recursive: true });
  const entries = [];
  const psql = [];
  for (let idx = 0; idx < count; idx++) {
    const tag = `${String(idx).padStart(4, "0")}_step`;
    const when = 1_700_000_000_000 + idx * 1000;
    const sql = statements(idx).join("\n");
    put(folder.drizzle, `${tag}.sql`, statements(idx).join("\n--> statement-breakpoint\n"));
    entries.push({ idx, version: "7", when, tag, breakpoints: true });
    const time = 20_260_101_000_000 + idx;
    put(folder.dbmate, `${time}_step.sql`, `-- migrate:up\n${sql}\n-- migrate:down\n`);
    put(folder.nodePgMigrate, `${when}_step.sql`, `-- Up Migration\n${sql}\n`);
    put(folder.refinery, `V${idx + 1}__step.sql`, `${sql}\n`);
    put(folder.sqlx, `${time}_step.sql`, `${sql}\n`);
    psql.push(
      "begin;",
      `\\i ${path.join(folder.drizzle, `${tag}.sql`)}`,
      `insert into drizzle.__drizzle_migrations (hash, created_at) values ('${tag}', ${when});`,
      "commit;",
    );
  }
  const journal = { version: "7", dialect: "postgresql", entries };
  put(folder.drizzle, "meta/_journal.json", JSON.stringify(journal, null, 2));
  writeFileSync(folder.psql, `${psql.join("\n")}\n`);
  return folder;
}
