// What premigrate promises of its speed, and whether the figures keep it. Pure.
import { median, ratio } from "./stats.mjs";

const at = (figures, setting, pending) =>
  figures.cases.find((it) => it.setting === setting && it.pending === pending)?.runs ?? {};

// Of the contenders of this kind, the one that is the fastest: how many times as long it takes.
function byFastest(figures, runs, id, kind) {
  const others = figures.contenders.filter((it) => it.kind === kind && runs[it.id]);
  const ratios = others.map((other) => ratio(runs[other.id].wall, runs[id].wall));
  return ratios.length > 0 ? Math.min(...ratios) : undefined;
}

export function targets(figures) {
  const all = [];
  const check = (text, value, limit, isMet) => {
    if (value !== undefined)
      all.push({ text: `${text}: ${Number(value.toFixed(2))}, target ${limit}`, met: isMet(value) });
  };
  const atMost = (text, value, limit) => check(text, value, `at most ${limit}`, (it) => it <= limit);
  const atLeast = (text, value, limit) => check(text, value, `at least ${limit}`, (it) => it >= limit);
  const by = (runs, one, other) => (runs[one] && runs[other] ? ratio(runs[one].wall, runs[other].wall) : undefined);

  const nothing = at(figures, "local", 0);
  if (nothing.premigrate) {
    atMost("nothing pending, by the bare driver", by(nothing, "premigrate", "bare"), 1.1);
    atMost("nothing pending, with --dir, by the bare driver", by(nothing, "premigrate-dir", "bare"), 1.15);
    atLeast(
      "nothing pending, the fastest other runner by premigrate",
      byFastest(figures, nothing, "premigrate", "runner"),
      1.7,
    );
    atMost("nothing pending, MiB of memory", median(nothing.premigrate.memory) / 1024, 3);
  }
  const encrypted = at(figures, "tls", 0);
  atMost("nothing pending, with TLS, by the bare driver", by(encrypted, "premigrate", "bare"), 1.3);
  const here = at(figures, "local", 200);
  if (here.premigrate) {
    atMost("200 pending, by psql", by(here, "premigrate", "psql"), 1);
    atLeast("200 pending, the fastest other runner by premigrate", byFastest(figures, here, "premigrate", "runner"), 1);
  }
  const far = at(figures, "50ms", 200);
  if (far.premigrate) {
    atLeast(
      "200 pending, 50 ms away, the fastest other runner by premigrate",
      byFastest(figures, far, "premigrate", "runner"),
      10,
    );
    const login = at(figures, "50ms", 0).premigrate;
    // With nothing pending, one follows the log-in.
    if (login) {
      const after = median(far.premigrate.round_trips) - median(login.round_trips) + 1;
      atMost("200 pending, 50 ms away, round trips after the log-in", after, 8);
    }
  }
  return all;
}
