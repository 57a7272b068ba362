// Who is measured, and how each is called. scripts/bench gives the paths of the executables.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync, statSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const here = (file) => fileURLToPath(new URL(file, import.meta.url));
const { BARE, DBMATE, NODE, PREMIGRATE, PSQL, REFINERY, SQLX } = process.env;

const DRIZZLES = "drizzle.__drizzle_migrations";
const HISTORY = `create schema drizzle; create table ${DRIZZLES} (id serial primary key, hash text not null, created_at bigint)`;

const packageOf = (name) => here(`node_modules/${name}`);
const versionOf = (name) => JSON.parse(readFileSync(path.join(packageOf(name), "package.json"), "utf8")).version;
const packages =
  (...names) =>
  () =>
    names.map((name) => `${name} ${versionOf(name)}`).join(", ");
const says = (program) => () => spawnSync(program, ["--version"], { encoding: "utf8" }).stdout.match(/\d[\w.-]*/)[0];

// kind: `ours`; a `runner` of migrations; or a `reference`, which does less. The first is what the others are
// compared with. `history` is the table in which it records what it has applied; `prepare` makes that of one
// that does not. `command` is what is run, with the files of folders.mjs.
export const CONTENDERS = [
  {
    id: "premigrate",
    name: "premigrate",
    kind: "ours",
    about: "the migrations inside the executable (`bundle`)",
    version: says(PREMIGRATE),
    history: DRIZZLES,
    command: ({ files }) => [files.bundle],
  },
  {
    id: "premigrate-dir",
    name: "premigrate --dir",
    kind: "ours",
    about: "the migrations in a folder of Drizzle 0.x",
    version: says(PREMIGRATE),
    history: DRIZZLES,
    command: ({ files }) => [PREMIGRATE, "--dir", files.drizzle],
  },
  {
    id: "drizzle-orm",
    name: "drizzle-orm",
    kind: "runner",
    about: "its `migrate` with postgres.js, all migrations in one transaction",
    version: packages("drizzle-orm", "postgres"),
    history: DRIZZLES,
    isNode: true,
    command: ({ files }) => [NODE, here("drizzle.mjs"), files.drizzle],
  },
  {
    id: "drizzle-kit",
    name: "drizzle-kit migrate",
    kind: "runner",
    about: "with pg, all migrations in one transaction",
    version: packages("drizzle-kit", "pg"),
    history: DRIZZLES,
    isNode: true,
    variables: ({ files }) => ({ MIGRATIONS: files.drizzle }),
    command: () => [
      NODE,
      path.join(packageOf("drizzle-kit"), "bin.cjs"),
      "migrate",
      "--config",
      here("drizzle.config.mjs"),
    ],
  },
  {
    id: "node-pg-migrate",
    name: "node-pg-migrate",
    kind: "runner",
    about: "all migrations in one transaction",
    version: packages("node-pg-migrate", "pg"),
    history: "pgmigrations",
    isNode: true,
    command: ({ files }) => [
      NODE,
      path.join(packageOf("node-pg-migrate"), "bin/node-pg-migrate.js"),
      "up",
      "--migrations-dir",
      files.nodePgMigrate,
    ],
  },
  {
    id: "node",
    name: "a runner in Node",
    kind: "runner",
    about: "as teams write it: a query for each file, between BEGIN and COMMIT (`tests/bench/runner.mjs`)",
    version: packages("pg"),
    history: "migrations",
    isNode: true,
    command: ({ files }) => [NODE, here("runner.mjs"), files.drizzle],
  },
  {
    id: "dbmate",
    name: "dbmate",
    kind: "runner",
    about: "without a dump of the schema",
    version: says(DBMATE),
    history: "schema_migrations",
    command: ({ url, files }) => [
      DBMATE,
      "--url",
      url,
      "--migrations-dir",
      files.dbmate,
      "--no-dump-schema",
      "migrate",
    ],
  },
  {
    id: "sqlx-cli",
    name: "sqlx-cli",
    kind: "runner",
    about: "built for PostgreSQL alone, with rustls",
    version: says(SQLX),
    history: "_sqlx_migrations",
    command: ({ url, files }) => [SQLX, "migrate", "run", "--source", files.sqlx, "--database-url", url],
  },
  {
    id: "refinery",
    name: "refinery",
    kind: "runner",
    about: "its command line, built for PostgreSQL alone",
    version: says(REFINERY),
    history: "refinery_schema_history",
    // It knows no other way to name an authority, and verifies with `require`.
    variables: ({ authority }) => (authority ? { SSL_CERT_FILE: authority } : {}),
    url: (url) => url.replace("sslmode=verify-full", "sslmode=require").replace(/&sslrootcert=[^&]*/, ""),
    command: ({ files }) => [REFINERY, "migrate", "-e", "DATABASE_URL", "-p", files.refinery],
  },
  {
    id: "bare",
    name: "the bare driver",
    kind: "reference",
    about:
      "premigrate's driver in the least of programs: a query of the history, then a message for each file " +
      "(`tests/bench/bare.rs`); no lock, no hash, no check, and the history's table is there already",
    version: () => lockedVersion("postgres"),
    prepare: HISTORY,
    history: DRIZZLES,
    command: ({ files }) => [BARE, files.drizzle],
  },
  {
    id: "psql",
    name: "psql",
    kind: "reference",
    about:
      "the same files in one script, each between BEGIN and COMMIT; with nothing pending, a query of the history; the " +
      "history's table is there already",
    version: says(PSQL),
    prepare: HISTORY,
    history: DRIZZLES,
    command: ({ url, files, pending }) => [
      PSQL,
      "--no-psqlrc",
      "--quiet",
      "--set=ON_ERROR_STOP=1",
      url,
      ...(pending ? ["--file", files.psql] : ["--command", `select hash, created_at from ${DRIZZLES} order by id`]),
    ],
  },
];

function lockedVersion(name) {
  const lock = readFileSync(here("../../Cargo.lock"), "utf8");
  return `${name} ${lock.match(new RegExp(`name = "${name}"\nversion = "(.*)"`))[1]}`;
}

// All files that a run may read from the disk: the program, its libraries and packages, and what its
// arguments and variables name.
export function filesOf(contender, context) {
  const [program, ...args] = contender.command(context);
  const libraries = spawnSync("ldd", [program], { encoding: "utf8" }).stdout.match(/\/\S+(?= \(0x)/g) ?? [];
  const named = [...args, ...Object.values(contender.variables?.(context) ?? {})].filter((it) => existsSync(it));
  const packages = contender.isNode ? [here("node_modules")] : [];
  return [program, ...libraries, ...[...named, ...packages].flatMap(filesIn)];
}

function filesIn(place) {
  if (!statSync(place).isDirectory()) return [place];
  const entries = readdirSync(place, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return entries.map((entry) => path.join(entry.parentPath ?? entry.path, entry.name));
}
