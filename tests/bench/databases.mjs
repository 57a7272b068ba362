// Databases on the server, and whether a contender has made of one what it should.
import { readFileSync } from "node:fs";
import pg from "pg";

const { DATABASE_URL, POSTGRES_AUTHORITY } = process.env;
const server = new URL(DATABASE_URL);
const ROLE = { name: "bench", password: "correct-horse" };

async function connect(url) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return client;
}

const admin = await connect(server.href);
await admin.query(`create role ${ROLE.name} superuser login password '${ROLE.password}' in role with_password`);

export const close = () => admin.end();
export const serverVersion = async () =>
  (await admin.query("select current_setting('server_version') as version")).rows[0].version.split(" ")[0];

export const address = { host: server.hostname, port: server.port };

// The URL of a database under these conditions, perhaps through another port.
export function urlOf(database, { password, tls }, port = server.port) {
  const url = new URL(server);
  url.port = port;
  url.pathname = `/${database}`;
  if (password) Object.assign(url, { username: ROLE.name, password: ROLE.password });
  // The server's certificate is for this name.
  if (tls) url.hostname = "localhost";
  url.search = tls ? `sslmode=verify-full&sslrootcert=${POSTGRES_AUTHORITY}` : "sslmode=disable";
  return url.href;
}

async function query(database, sql) {
  const client = await connect(urlOf(database, {}));
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

let created = 0;
async function create(options) {
  const name = `database_${created++}`;
  await admin.query(`create database ${name} ${options}`);
  return name;
}
export const drop = (name) => admin.query(`drop database ${name} with (force)`);

// The first connection to a database makes caches on the disk. In one that is empty, all find them.
export async function empty(contender) {
  const name = await create("");
  await query(name, contender.prepare ?? "select");
  return name;
}

// A copy that nobody has connected to.
export const copy = (name) => create(`template ${name}`);

// What the migrations make: all columns, indexes, constraints and sequences, and how many rows are right.
const CONTENT = `select line from (
    select format('%s.%s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
        pg_get_expr(d.adbin, d.adrelid)) as line
      from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
      left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
      where c.relname like 'bench\\_%'
    union all select pg_get_indexdef(indexrelid) from pg_index where indexrelid::regclass::text like 'bench\\_%'
    union all select format('%s %s', conrelid::regclass, pg_get_constraintdef(oid)) from pg_constraint
      where conrelid::regclass::text like 'bench\\_%'
    union all select format('%s %s', relname, query_to_xml(
        format('select count(*) filter (where name = %L), count(*) as of from %I', 'first', relname), false, true, ''))
      from pg_class where relname like 'bench\\_%' and relkind = 'r'
  ) as lines order by line`;
const contentOf = async (database) => (await query(database, CONTENT)).map(({ line }) => line).join("\n");

const expected = new Map();

// What these files make by themselves.
export async function expect(count, files) {
  const database = await create("");
  const names = readFileSync(files.psql, "utf8").matchAll(/^\\i (.*)$/gm);
  await query(database, [...names].map(([, name]) => readFileSync(name, "utf8")).join("\n"));
  expected.set(count, await contentOf(database));
  await drop(database);
}

// A contender that is fast because it does nothing is no contender.
export async function verify(contender, database, count) {
  const [{ recorded }] = await query(database, `select count(*)::int as recorded from ${contender.history}`);
  if (recorded !== count) throw new Error(`${contender.name} recorded ${recorded} migrations of ${count}`);
  if ((await contentOf(database)) !== expected.get(count)) {
    throw new Error(`${contender.name} applied ${count} migrations, and left another schema or other rows`);
  }
}
