// Runs every contender in every case, round after round, for as long as it may; then writes the figures, the
// page and the pictures, and prints which targets are met. scripts/bench calls it, with the paths of the
// executables in the environment.
// Usage: node bench.mjs FOLDER [--minutes N] [--only PART,...] [--output FOLDER]
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { CASES, UP_TO_DATE, choose, pendingText } from "./cases.mjs";
import { write } from "./folders.mjs";
import { duration, report } from "./report.mjs";
import { Schedule, TOO_LONG, WAITS_LONG, order } from "./schedule.mjs";
import { targets } from "./targets.mjs";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { minutes: { type: "string", default: "10" }, only: { type: "string" }, output: { type: "string" } },
});
const [home] = positionals;
const project = fileURLToPath(new URL("../..", import.meta.url));
const started = performance.now();
const secondsLeft = () => Number(options.minutes) * 60 - (performance.now() - started) / 1000;
if (!(secondsLeft() > 0)) throw new Error(`--minutes ${options.minutes} is not a number of minutes`);
const say = (text) => process.stderr.write(`${text}\n`);

// A Node of their own, which this one does not keep in memory.
mkdirSync(home, { recursive: true });
process.env.NODE = path.join(home, "node");
copyFileSync(process.execPath, process.env.NODE);
const { CONTENDERS } = await import("./contenders.mjs");
const { cases, rehearsed, contenders } = choose(options.only, CONTENDERS);
const schedule = new Schedule(
  CASES.filter((it) => cases.includes(it) || rehearsed.includes(it)),
  contenders,
);

const databases = await import("./databases.mjs");
const { forget, run } = await import("./run.mjs");
const files = new Map();
for (const count of new Set([UP_TO_DATE, ...schedule.cases.map((it) => it.pending).filter((pending) => pending > 0)])) {
  const written = write(home, count);
  const bundle = ["bundle", "--dir", written.drizzle, "--output", written.bundle];
  const bundled = spawnSync(process.env.PREMIGRATE, bundle, { encoding: "utf8" });
  if (bundled.status !== 0) throw new Error(bundled.stderr);
  // Of a file that was just written, the kernel maps far more than is used, and counts that as memory.
  forget([written.bundle]);
  files.set(count, written);
  await databases.expect(count, written);
}

// All are applied, and a second run changes nothing. The first is cold: from then on, everything is in the page
// cache as it was read.
const upToDate = new Map();
say(`checking that every contender leaves the same after ${UP_TO_DATE} migrations`);
for (const contender of contenders) {
  const database = await databases.empty(contender);
  for (const pending of [UP_TO_DATE, 0]) {
    await run(contender, { delay: 0, cold: pending > 0 }, pending, database, files.get(UP_TO_DATE), home);
    await databases.verify(contender, database, UP_TO_DATE);
  }
  upToDate.set(contender, database);
}

async function runOnce({ setting, pending }, contender) {
  const count = pending || UP_TO_DATE;
  const on = (database) => run(contender, setting, pending, database, files.get(count), home);
  if (pending === 0 && !setting.cold) return on(upToDate.get(contender));
  const database = await (pending === 0 ? databases.copy(upToDate.get(contender)) : databases.empty(contender));
  const took = await on(database);
  await databases.verify(contender, database, count);
  await databases.drop(database);
  return took;
}

// By case, and by contender.
const runs = new Map(schedule.cases.map((it) => [it, new Map(contenders.map((contender) => [contender, []]))]));
async function round(it, number, members) {
  const each = async (contender) => {
    const begun = performance.now();
    const took = await runOnce(it, contender);
    schedule.took(it, contender, (performance.now() - begun) / 1000);
    runs.get(it).get(contender).push(took);
    return `${contender.name} ${duration(took.wall)}`;
  };
  const { alone, together } = order(it, members, number, (contender) => schedule.expected(it, contender));
  const said = [];
  for (const contender of alone) said.push(await each(contender));
  // One second apart, so that they do not start at once.
  const others = together.map((contender, place) => sleep(place * 1000).then(() => each(contender)));
  said.push(...(await Promise.all(others)));
  if (said.length > 0) say(`${it.setting.title}, ${pendingText(it.pending)}: ${said.join(", ")}`);
}

for (const it of schedule.cases) await round(it, 0, schedule.first(it));
const leftOut = new Map(cases.map((it) => [it, schedule.leftOut(it)]));
let share = 0.1;
for (let number = 1; secondsLeft() > 0; number++) {
  let members = 0;
  for (const it of cases) {
    const next = schedule.next(it, share, secondsLeft());
    members += next.length;
    await round(it, number, next);
  }
  // Once everyone has had the share, it grows, until nobody is left who has time.
  if (members === 0) {
    if (cases.every((it) => schedule.next(it, Infinity, secondsLeft()).length === 0)) break;
    share *= 1.25;
  }
}
for (const [contender, database] of upToDate) await databases.verify(contender, database, UP_TO_DATE);

// The figures of a contender in a case: a list of each.
function listed(all) {
  const each = (field, digits) => all.map((one) => Number(one[field].toFixed(digits)));
  const lists = { wall: each("wall", 2), cpu: each("cpu", 1), memory: each("memory", 0) };
  return all[0].round_trips === undefined ? lists : { ...lists, round_trips: each("round_trips", 0) };
}

const git = (...args) => spawnSync("git", args, { encoding: "utf8", cwd: project }).stdout.trim();
const system = readFileSync("/etc/os-release", "utf8").match(/^PRETTY_NAME="(.*)"$/m)[1];
const figures = {
  day: new Date().toISOString().slice(0, 10),
  commit:
    git("rev-parse", "--short=12", "HEAD") +
    (git("status", "--porcelain", "--untracked-files=no") ? ", with changes" : ""),
  minutes: Number(options.minutes),
  too_long: TOO_LONG,
  waits_long: WAITS_LONG,
  machine: {
    processor: os.cpus()[0].model,
    cores: os.availableParallelism(),
    memory: Math.round(os.totalmem() / 2 ** 30),
    system: `${system}, Linux ${os.release().replace(/-.*/, "")}, ${os.machine()}`,
  },
  server: `PostgreSQL ${await databases.serverVersion()}`,
  node: process.versions.node,
  contenders: contenders.map(({ id, name, kind, about, version }) => ({ id, name, kind, about, version: version() })),
  cases: cases.map((it) => ({
    setting: it.setting.id,
    pending: it.pending,
    left_out: leftOut.get(it).map((contender) => contender.id),
    runs: Object.fromEntries(
      [...runs.get(it)].filter(([, all]) => all.length > 0).map(([contender, all]) => [contender.id, listed(all)]),
    ),
  })),
};
const output = options.output ?? (options.only === undefined ? path.join(project, "docs") : home);
// A line for each contender of each case.
const json = JSON.stringify(figures, null, 2).replace(
  /\{\s+("wall"[^}]*?)\s+\}/g,
  (_, inside) => `{ ${inside.replace(/\s+/g, " ")} }`,
);
writeFileSync(path.join(output, "benchmarks.json"), `${json}\n`);
for (const [name, text] of Object.entries(report(figures))) writeFileSync(path.join(output, name), text);
say(`\nwritten: ${path.relative(process.cwd(), output)}/benchmarks.{json,md}, -light.svg, -dark.svg\n`);

await databases.close();
const all = targets(figures);
for (const { text, met } of all) console.log(`${met ? "met   " : "MISSED"} ${text}`);
process.exitCode = all.every(({ met }) => met) ? 0 : 1;
