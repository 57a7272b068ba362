// Runs a contender, over a network of its own if there is a delay, and tells what it took.
import { spawn, spawnSync } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import path from "node:path";
import readline from "node:readline";
import { filesOf } from "./contenders.mjs";
import { address, urlOf } from "./databases.mjs";
import { TOO_LONG } from "./schedule.mjs";

const { MEASURE, POSTGRES_AUTHORITY, PROXY } = process.env;

// Milliseconds, kibibytes, and over a delay the number of round trips. It runs in `home`, where its output goes.
export async function run(contender, setting, pending, database, files, home) {
  const proxy = setting.delay > 0 ? await startProxy(setting.delay) : undefined;
  const plain = urlOf(database, setting, proxy?.port);
  const url = contender.url ? contender.url(plain) : plain;
  const context = { url, pending, files, authority: setting.tls ? POSTGRES_AUTHORITY : undefined };
  if (setting.cold) forget(filesOf(contender, context));
  const env = { PATH: process.env.PATH, HOME: home, DATABASE_URL: url, ...contender.variables?.(context) };
  const took = await measure(contender, contender.command(context), env, home);
  return { ...took, ...(await proxy?.end()) };
}

// Drops files from the page cache.
export function forget(files) {
  const forgot = spawnSync(MEASURE, ["forget"], { input: files.join("\n"), encoding: "utf8" });
  if (forgot.status !== 0) throw new Error(forgot.stderr);
}

// All output goes to a file: nobody has to read it meanwhile, and it is there if a run fails.
async function measure(contender, command, env, home) {
  const log = path.join(home, `${contender.id}.log`);
  const output = openSync(log, "w");
  // In a process group of its own, so that all of it can be ended.
  const options = { cwd: home, env, stdio: ["ignore", "pipe", output], detached: true };
  const child = spawn(MEASURE, ["run", ...command], options);
  closeSync(output);
  const tooLong = setTimeout(() => process.kill(-child.pid, "SIGKILL"), 3 * TOO_LONG * 1000);
  const text = (await child.stdout.toArray()).join("");
  clearTimeout(tooLong);
  const { status, ...took } = JSON.parse(text || "{}");
  if (status !== 0) {
    throw new Error(`${contender.name} ended with ${status}; its output:\n${readFileSync(log, "utf8")}`);
  }
  return took;
}

async function startProxy(delay) {
  const options = { stdio: ["pipe", "pipe", "inherit"] };
  const child = spawn(PROXY, [String(delay), `${address.host}:${address.port}`], options);
  const lines = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const { value: port } = await lines.next();
  return {
    port,
    async end() {
      child.stdin.end();
      const counted = JSON.parse((await lines.next()).value);
      return { round_trips: counted.round_trips + counted.connections };
    },
  };
}
