// What decides: which cases are measured, in which order, how often; and what is said of the figures.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { CASES, choose } from "./cases.mjs";
import { ROUNDS, Schedule, TOO_LONG, order } from "./schedule.mjs";
import { quantile, ratio } from "./stats.mjs";
import { targets } from "./targets.mjs";

const premigrate = { id: "premigrate", name: "premigrate" };
const dbmate = { id: "dbmate", name: "dbmate" };
const plain = { id: "plain", name: "plain" };
const all = [premigrate, dbmate, plain];
const named = (cases) => cases.map(({ setting, pending }) => `${setting.id} ${pending}`);
const far = (pending) => CASES.find((it) => it.setting.id === "50ms" && it.pending === pending);
const near = (pending) => CASES.find((it) => it.setting.id === "local" && it.pending === pending);

test("everything is measured unless a part is named", () => {
  assert.deepEqual(choose(undefined, all), { cases: CASES, rehearsed: [], contenders: all });
});

test("a part is named by conditions, numbers and contenders", () => {
  const { cases, rehearsed, contenders } = choose("50ms, local,200,dbmate", all);
  assert.deepEqual(named(cases), ["local 200", "50ms 200"]);
  assert.deepEqual(named(rehearsed), ["50ms 1", "50ms 20"]);
  assert.deepEqual(contenders, [premigrate, dbmate]);
  assert.deepEqual(named(choose("tls", all).cases), ["tls 0"]);
  assert.deepEqual(named(choose("plain,2000", all).cases), ["local 2000", "10ms 2000", "50ms 2000"]);
});

test("a part that does not exist is refused", () => {
  assert.throws(() => choose("500ms", all), {
    message:
      "nothing is called '500ms'; name some of: local 10ms 50ms scram tls 50ms+tls cold 0 1 20 200 2000 premigrate dbmate plain",
  });
  assert.throws(() => choose("tls,200", all), {
    message: "nothing is measured for 'tls,200': only local, 10ms and 50ms have migrations pending",
  });
});

test("a run is expected to take what it took, or as much more for each migration as with fewer", () => {
  const schedule = new Schedule([far(1), far(20), far(200)], [dbmate]);
  assert.equal(schedule.expected(far(1), dbmate), 0);
  schedule.took(far(1), dbmate, 1);
  schedule.took(far(20), dbmate, 4.8);
  assert.equal(Math.round(schedule.expected(far(200), dbmate)), 41);
  schedule.took(far(200), dbmate, 30);
  assert.equal(schedule.expected(far(200), dbmate), 30);
});

test("who would take too long is left out, and so of what is larger", () => {
  const schedule = new Schedule([far(20), far(200), far(2000)], [premigrate, dbmate]);
  schedule.took(far(20), premigrate, 0.5);
  schedule.took(far(20), dbmate, TOO_LONG / 9);
  assert.deepEqual(schedule.first(far(200)), [premigrate]);
  assert.deepEqual(schedule.leftOut(far(200)), [dbmate]);
  schedule.took(far(200), premigrate, 1);
  assert.deepEqual(schedule.leftOut(far(2000)), [dbmate]);
});

test("a further round is for those who have not had their share, and have time for it", () => {
  const schedule = new Schedule([near(0)], [premigrate, dbmate, plain]);
  schedule.took(near(0), premigrate, 0.1);
  schedule.took(near(0), dbmate, 2);
  assert.deepEqual(schedule.next(near(0), 1, 60), [premigrate]);
  assert.deepEqual(schedule.next(near(0), 4, 60), [premigrate, dbmate]);
  assert.deepEqual(schedule.next(near(0), 4, 1), [premigrate]);
  for (let round = 1; round < ROUNDS; round++) schedule.took(near(0), premigrate, 0.1);
  assert.deepEqual(schedule.next(near(0), 100, 60), [dbmate]);
});

test("a case has as much of a share as it has weight", () => {
  const schedule = new Schedule([near(20), near(200)], [dbmate]);
  for (const it of [near(20), near(200)]) schedule.took(it, dbmate, 2);
  assert.deepEqual(schedule.next(near(20), 1, 60), []);
  assert.deepEqual(schedule.next(near(200), 1, 60), [dbmate]);
});

test("a round begins with another one each time, and those that wait long come last, together", () => {
  const expected = (contender) => (contender === dbmate ? 40 : 1);
  assert.deepEqual(order(near(200), all, 1, expected), { alone: [dbmate, plain, premigrate], together: [] });
  assert.deepEqual(order(far(200), all, 1, expected), { alone: [plain, premigrate], together: [dbmate] });
});

test("quartiles lie between the numbers, and a ratio is of the same rounds", () => {
  assert.equal(quantile([4, 1, 3, 2], 0.25), 1.75);
  assert.equal(quantile([5], 0.75), 5);
  assert.equal(ratio([10, 20, 30], [5, 5]), 3);
  assert.equal(ratio([10, 30], [5, 10, 1]), 2.5);
});

test("each target is said with its value, and whether it is met", () => {
  const figures = JSON.parse(readFileSync(new URL("invented/benchmarks.json", import.meta.url), "utf8"));
  const rename = (runs) =>
    Object.fromEntries(Object.entries(runs).map(([id, of]) => [{ least: "bare", slow: "psql" }[id] ?? id, of]));
  figures.cases = figures.cases.map((it) => ({ ...it, runs: rename(it.runs) }));
  assert.deepEqual(targets(figures), [
    { text: "nothing pending, by the bare driver: 1.16, target at most 1.1", met: false },
    { text: "nothing pending, the fastest other runner by premigrate: 2, target at least 1.7", met: true },
    { text: "nothing pending, MiB of memory: 2.5, target at most 3", met: true },
    { text: "200 pending, by psql: 0.33, target at most 1", met: true },
    { text: "200 pending, the fastest other runner by premigrate: 1.5, target at least 1", met: true },
    { text: "200 pending, 50 ms away, the fastest other runner by premigrate: 57.86, target at least 10", met: true },
    { text: "200 pending, 50 ms away, round trips after the log-in: 8, target at most 8", met: true },
  ]);
});
