// What is measured: under which conditions, with how many migrations pending. With nothing pending,
// UP_TO_DATE are applied.

export const UP_TO_DATE = 200;
const COUNTS = [0, 1, 20, 200, 2000];

// `delay` is the round-trip time of the network, in milliseconds.
export const SETTINGS = [
  { id: "local", title: "on the same machine", delay: 0, counts: COUNTS },
  { id: "10ms", title: "10 ms away", delay: 10, counts: COUNTS },
  { id: "50ms", title: "50 ms away", delay: 50, counts: COUNTS },
  { id: "scram", title: "with a password (SCRAM)", delay: 0, password: true, counts: [0] },
  { id: "tls", title: "with TLS (verify-full)", delay: 0, tls: true, counts: [0] },
  { id: "50ms+tls", title: "50 ms away, with a password and TLS", delay: 50, password: true, tls: true, counts: [0] },
  { id: "cold", title: "cold", delay: 0, cold: true, counts: [0] },
];

// A case gets time by its weight: more is said of 200 migrations than of fewer, and they take longer.
export const CASES = SETTINGS.flatMap((setting) =>
  setting.counts.map((pending) => ({ setting, pending, weight: pending === 200 ? 5 : 1 })),
);

export const settingOf = (id) => SETTINGS.find((setting) => setting.id === id);
export const pendingText = (pending) => (pending === 0 ? "nothing pending" : `${pending.toLocaleString("en")} pending`);

// `--only 50ms,200`: of settings, numbers and contenders, those that are named; all of a kind of which none
// is. The first contender, with which the others are compared, is always among them.
export function choose(only, contenders) {
  const words = only === undefined ? [] : only.split(",").map((word) => word.trim());
  const kinds = [SETTINGS.map((it) => it.id), COUNTS.map(String), contenders.map((it) => it.id)];
  for (const word of words) {
    if (!kinds.some((kind) => kind.includes(word))) {
      throw new Error(`nothing is called '${word}'; name some of: ${kinds.flat().join(" ")}`);
    }
  }
  const [settings, counts, ids] = kinds.map((kind) => {
    const named = kind.filter((word) => words.includes(word));
    return named.length > 0 ? named : kind;
  });
  const cases = CASES.filter((it) => settings.includes(it.setting.id) && counts.includes(String(it.pending)));
  if (cases.length === 0)
    throw new Error(`nothing is measured for '${only}': only local, 10ms and 50ms have migrations pending`);
  // With a delay, many take long, and how long is known from fewer.
  const isFewer = (it) => cases.some((other) => other.setting === it.setting && other.pending > it.pending);
  const rehearsed = CASES.filter((it) => it.setting.delay > 0 && it.pending > 0 && !cases.includes(it) && isFewer(it));
  return { cases, rehearsed, contenders: contenders.filter((it, place) => place === 0 || ids.includes(it.id)) };
}
