// Runs every contender in turn, round after round, and prints what they took as medians and ratios. scripts/bench calls
// it, with the executables' paths in the environment.
// Usage: node bench.mjs FOLDER [--rounds N] [--print]      FOLDER as folders.mjs writes it
import { spawn, spawnSync } from "node:child_process";
import { appendFileSync, closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import pg from "pg";
import { HISTORY, MIGRATIONS, layout } from "./folders.mjs";
import { countRoundTrips } from "./round-trips.mjs";

// A start with nothing pending is short, and so wants more rounds.
const STARTS = 4;

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { rounds: { type: "string", default: "15" }, print: { type: "boolean", default: false } },
});
const rounds = Number(options.rounds);
const server = process.env.DATABASE_URL;
const folder = layout(positionals[0]);
const here = (file) => fileURLToPath(new URL(file, import.meta.url));

const drizzles = "drizzle.__drizzle_migrations";
const contenders = [
  {
    name: "premigrate",
    history: drizzles,
    command: () => [process.env.PREMIGRATE],
  },
  {
    name: "premigrate --dir",
    history: drizzles,
    command: () => [process.env.PREMIGRATE, "--dir", folder.drizzle],
  },
  {
    name: "bare driver",
    history: drizzles,
    prepare: HISTORY,
    command: () => [process.env.BARE, folder.drizzle],
  },
  {
    name: "psql",
    history: drizzles,
    prepare: HISTORY,
    command: (url, pending) => [
      process.env.PSQL, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", url,
      ...(pending ? ["--file", folder.psql] : ["--command", `select hash, created_at from ${drizzles} order by id`]),
    ],
  },
  {
    name: "Node runner",
    history: "migrations",
    command: () => [process.execPath, here("runner.mjs"), folder.drizzle],
  },
  {
    name: "drizzle-orm",
    history: drizzles,
    command: () => [process.execPath, here("drizzle.mjs"), folder.drizzle],
  },
  {
    name: "dbmate",
    history: "schema_migrations",
    command: (url) => [
      process.env.DBMATE, "--url", url, "--migrations-dir", folder.dbmate,
      "--no-dump-schema", "migrate",
    ],
  },
];
const [premigrate, withDir, bare, ...peers] = contenders;

// Starts with TLS, of premigrate and the bare driver alone. What `verify-full` measures: a handshake that trusts the roots
// that premigrate carries, and one more, that of the server, since Mozilla's vouch for none here. The bare driver carries
// them too, as DER. premigrate trusts either those or others, so it gets them all from a file, as PEM, which takes a tenth
// longer: with its own it would be no further behind.
const roots = path.join(positionals[0], "roots.pem");
writeFileSync(roots, spawnSync(process.env.BARE, ["roots"]).stdout);
appendFileSync(roots, readFileSync(process.env.POSTGRES_AUTHORITY));
const withTls = ["require", "verify-full"].map((sslmode) => [
  {
    name: `premigrate, ${sslmode}`,
    like: premigrate,
    tls: sslmode === "require" ? { sslmode } : { sslmode, sslrootcert: roots },
    command: () => [process.env.PREMIGRATE],
  },
  {
    name: `bare driver, ${sslmode}`,
    like: bare,
    tls: { sslmode: "require" },
    command: () => [process.env.BARE, folder.drizzle, sslmode, ...(sslmode === "require" ? [] : [process.env.POSTGRES_AUTHORITY])],
  },
]);

const databaseUrl = (name) => Object.assign(new URL(server), { pathname: `/${name}`, search: "sslmode=disable" }).href;
// The server's certificate is for localhost, and it listens on one address only.
const tlsUrl = (url, tls) => {
  const search = new URLSearchParams({ hostaddr: "127.0.0.1", ...tls });
  return Object.assign(new URL(url), { hostname: "localhost", search }).href;
};

async function query(url, sql) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

let created = 0;
async function freshDatabase(contender) {
  const name = `bench_${created++}`;
  await query(server, `create database ${name}`);
  const url = databaseUrl(name);
  if (contender.prepare) await query(url, contender.prepare);
  return url;
}

// All output goes to a file: nobody has to read it meanwhile, and it is there if a run fails.
const log = path.join(positionals[0], "log");
function run(contender, url, pending) {
  const [program, ...args] = contender.command(url, pending);
  const output = openSync(log, "w");
  const env = { PATH: process.env.PATH, DATABASE_URL: contender.tls ? tlsUrl(url, contender.tls) : url };
  const started = process.hrtime.bigint();
  const ended = spawnSync(program, args, { env, stdio: ["ignore", output, output] });
  const took = Number(process.hrtime.bigint() - started) / 1e6;
  closeSync(output);
  if (ended.status !== 0) {
    throw new Error(`${contender.name} ended with ${ended.status ?? ended.error}\n${readFileSync(log, "utf8")}`);
  }
  return took;
}

// A contender that is fast because it does nothing is no contender.
async function verify(contender, url) {
  const [{ recorded, tables, rows }] = await query(
    url,
    `select (select count(*) from ${contender.history})::int as recorded,
       (select count(*) from pg_tables where tablename like 'bench\\_%')::int as tables,
       (select count(*) from bench_${String(MIGRATIONS - 1).padStart(4, "0")})::int as rows`,
  );
  if (recorded !== MIGRATIONS || tables !== MIGRATIONS || rows !== 1) {
    throw new Error(`${contender.name} left ${recorded} rows of history, ${tables} tables, ${rows} rows in the last`);
  }
}

// A round runs everyone once, beginning with another one each time.
async function interleaved(count, all, each) {
  const times = new Map(all.map((contender) => [contender, []]));
  for (let round = 0; round < count; round++) {
    for (let place = 0; place < all.length; place++) {
      const contender = all[(round + place) % all.length];
      times.get(contender).push(await each(contender));
    }
  }
  return times;
}

const median = (numbers) => {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

// The median over the rounds of one contender's time by another's in the same round.
const ratio = (times, one, other) => median(times.get(one).map((time, round) => time / times.get(other)[round]));

function table(title, times) {
  console.log(`\n${title.padEnd(44)} median   x bare driver   x premigrate`);
  for (const contender of [...times.keys()].sort((a, b) => median(times.get(a)) - median(times.get(b)))) {
    console.log(
      `  ${contender.name.padEnd(38)} ${median(times.get(contender)).toFixed(1).padStart(7)} ms` +
        `${ratio(times, contender, bare).toFixed(2).padStart(16)}` +
        `${ratio(times, contender, premigrate).toFixed(2).padStart(15)}`,
    );
  }
}

let missed = 0;
function target(text, value, limit) {
  const met = value <= limit;
  if (!met) missed++;
  console.log(`${met ? "met   " : "MISSED"} ${text}: ${value.toFixed(2)}, target at most ${limit}`);
}

// Each contender's last database, in which all is applied.
const databases = new Map();
const pending = await interleaved(rounds, contenders, async (contender) => {
  const url = await freshDatabase(contender);
  const took = run(contender, url, true);
  await verify(contender, url);
  const last = databases.get(contender);
  if (last) await query(server, `drop database ${new URL(last).pathname.slice(1)}`);
  databases.set(contender, url);
  return took;
});
const start = async (contender) => run(contender, databases.get(contender.like ?? contender), false);
const nothing = await interleaved(rounds * STARTS, contenders, start);
const encrypted = await interleaved(rounds * STARTS, [premigrate, bare, ...withTls.flat()], start);
for (const [contender, url] of databases) await verify(contender, url);

const database = await freshDatabase(premigrate);
const trips = [];
for (const _ of ["pending", "nothing pending"]) {
  trips.push(await countRoundTrips(database, (url) => new Promise((done, failed) => {
    const [program, ...args] = premigrate.command(url);
    spawn(program, args, { env: { DATABASE_URL: url }, stdio: "ignore" })
      .on("error", failed)
      .on("exit", (code) => (code === 0 ? done() : failed(new Error(`premigrate ended with ${code} behind the proxy`))));
  })));
}

table(`nothing pending, ${MIGRATIONS} applied, ${rounds * STARTS} rounds`, nothing);
table(`${MIGRATIONS} pending, three statements each, ${rounds} rounds`, pending);
table(`nothing pending, with TLS and without, ${rounds * STARTS} rounds`, encrypted);
console.log();
const byFastest = (times, one) => Math.max(...peers.map((peer) => ratio(times, one, peer)));
target("nothing pending, by the bare driver", ratio(nothing, premigrate, bare), 1.2);
for (const [ours, theirs] of withTls) {
  target(`nothing pending, ${ours.tls.sslmode}, by the bare driver`, ratio(encrypted, ours, theirs), 1.3);
}
target("nothing pending, by the fastest peer", byFastest(nothing, premigrate), 1);
target("nothing pending, with --dir, by the fastest peer", byFastest(nothing, withDir), 1);
target(`${MIGRATIONS} pending, by the fastest peer`, byFastest(pending, premigrate), 1);
target("round trips with nothing pending", trips[1], 1);
// Two more ask what there is of the history: the table is missing.
target(`round trips with ${MIGRATIONS} pending`, trips[0], MIGRATIONS + 2);
process.exitCode = missed > 0 && !options.print ? 1 : 0;
