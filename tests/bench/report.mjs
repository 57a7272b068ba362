// Makes the page and the pictures of the figures. Pure: the same figures make the same bytes.
// Usage: node report.mjs FIGURES FOLDER
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { SETTINGS, UP_TO_DATE, pendingText, settingOf } from "./cases.mjs";
import { median, quantile, ratio } from "./stats.mjs";
import { ALT, picture } from "./picture.mjs";

const significant = (number) => (number >= 100 ? number.toFixed(0) : number.toPrecision(3));
export const duration = (ms) => (ms < 999.5 ? `${significant(ms)} ms` : `${significant(ms / 1000)} s`);
const memory = (kibibytes) => `${(kibibytes / 1024).toFixed(1)} MiB`;
const times = (number) => `${number.toFixed(number < 1.995 ? 2 : number < 9.95 ? 1 : 0)}×`;

const heading = ({ setting, pending }) => `${settingOf(setting).title}, ${pendingText(pending)}`;
const capital = (text) => text[0].toUpperCase() + text.slice(1);

// Lines of at most 120 columns.
function wrap(text, indent = "") {
  const lines = [""];
  for (const word of text.split(" ")) {
    const line = lines.at(-1);
    if (line && line.length + 1 + word.length > 120) lines.push(indent + word);
    else lines[lines.length - 1] = line ? `${line} ${word}` : word;
  }
  return lines.join("\n");
}
const paragraphs = (...texts) => texts.map((text) => wrap(text)).join("\n\n");
const list = (...texts) => texts.map((text) => wrap(`- ${text}`, "  ")).join("\n");
const table = (head, rows) =>
  [head, head.map((_, place) => (place === 0 ? "---" : "--:")), ...rows]
    .map((row) => `| ${row.join(" | ")} |`)
    .join("\n");

export function report(figures) {
  const cases = new Map(figures.cases.map((it) => [`${it.setting} ${it.pending}`, it]));
  const find = (setting, pending) => cases.get(`${setting} ${pending}`);
  const ours = figures.contenders[0].id;

  // A row for each contender and a column for each of these cases; a cell is made of a contender's runs.
  // Columns and rows in which nothing was measured are not there.
  function byContender(columns, cell) {
    const measured = columns.filter(({ of }) => of);
    const rows = figures.contenders
      .filter(({ id }) => measured.some(({ of }) => of.runs[id]))
      .map(({ id, name }) => [
        name,
        ...measured.map((column) => (column.of.runs[id] ? (column.cell ?? cell)(column.of, id) : "—")),
      ]);
    return rows.length > 0 ? table(["", ...measured.map(({ title }) => title)], rows) : undefined;
  }

  const wall = (it, id) => {
    const time = duration(median(it.runs[id].wall));
    return id === ours || !it.runs[ours] ? time : `${time} (${times(ratio(it.runs[id].wall, it.runs[ours].wall))})`;
  };
  const section = (title, ...parts) => (parts.every(Boolean) ? [`### ${title}`, ...parts] : []);

  const bySetting = SETTINGS.filter((setting) => setting.counts.length > 1).flatMap((setting) =>
    section(
      capital(setting.title),
      byContender(
        setting.counts.map((count) => ({ title: pendingText(count), of: find(setting.id, count) })),
        wall,
      ),
    ),
  );
  const starts = SETTINGS.filter((setting) => setting.counts.length === 1);
  const others = section(
    "Nothing pending, with a password, with TLS, and cold",
    byContender(
      starts.map((setting) => ({ title: setting.title, of: find(setting.id, 0) })),
      wall,
    ),
  );
  const far = SETTINGS.filter((setting) => setting.delay > 0).at(-2);
  const trips = (it, id) => median(it.runs[id].round_trips).toFixed(0);
  const roundTrips = section(
    "Round trips",
    byContender(
      [
        ...far.counts.map((count) => ({ title: pendingText(count), of: find(far.id, count) })),
        { title: "nothing pending, password and TLS", of: find("50ms+tls", 0) },
      ],
      trips,
    ),
  );
  const cpu = (it, id) => duration(median(it.runs[id].cpu));
  const peak = (it, id) => memory(median(it.runs[id].memory));
  const resources = section(
    "Processor time and memory, on the same machine",
    byContender(
      [0, 200, 2000].flatMap((count) => [
        { title: `${pendingText(count)}: processor`, of: find("local", count), cell: cpu },
        { title: "memory", of: find("local", count), cell: peak },
      ]),
    ),
  );

  // Of at least so many.
  const range = (numbers, many, from, to) =>
    numbers.length < many ? "" : `${duration(from(numbers))} – ${duration(to(numbers))}`;
  const quartiles = (numbers) =>
    range(
      numbers,
      4,
      (all) => quantile(all, 0.25),
      (all) => quantile(all, 0.75),
    );
  const extremes = (numbers) =>
    range(
      numbers,
      2,
      (all) => Math.min(...all),
      (all) => Math.max(...all),
    );
  const compared = (it, id) => (it.runs[ours] ? times(ratio(it.runs[id].wall, it.runs[ours].wall)) : "");
  const all = figures.cases.flatMap((it) => {
    const names = it.left_out.map((id) => figures.contenders.find((one) => one.id === id).name);
    return [
      `### ${capital(heading(it))}`,
      ...(Object.keys(it.runs).length > 0
        ? [
            byContender([
              { title: "median", of: it, cell: (it, id) => duration(median(it.runs[id].wall)) },
              { title: "quartiles", of: it, cell: (it, id) => quartiles(it.runs[id].wall) },
              { title: "least – most", of: it, cell: (it, id) => extremes(it.runs[id].wall) },
              { title: `times ${figures.contenders[0].name}`, of: it, cell: compared },
              { title: "processor", of: it, cell: cpu },
              { title: "memory", of: it, cell: peak },
              ...(settingOf(it.setting).delay > 0 ? [{ title: "round trips", of: it, cell: trips }] : []),
              { title: "runs", of: it, cell: (it, id) => it.runs[id].wall.length },
            ]),
          ]
        : []),
      ...(names.length > 0
        ? [wrap(`Left out, because a run would take longer than ${figures.too_long} s: ${names.join(", ")}.`)]
        : []),
    ];
  });

  const { machine } = figures;
  const page = [
    "<!-- scripts/bench makes this page from benchmarks.json. Do not edit it. -->",
    "# Benchmarks",
    wrap(
      "How long premigrate takes beside other ways to apply the same migrations. `scripts/bench` measured all of it in one " +
        "run, and made this page and its pictures from [the figures](benchmarks.json).",
    ),
    `<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="benchmarks-dark.svg">\n  <img alt="${ALT}" src="benchmarks-light.svg">\n</picture>`,
    "## Results",
    wrap(
      "Times are medians, from the start of the program to its end. In brackets: how many times as long as premigrate, " +
        "which is the median of the ratios in the same round. A dash stands for what would take longer than " +
        `${figures.too_long} seconds, and was not run.`,
    ),
    ...bySetting,
    ...others,
    ...roundTrips,
    ...(roundTrips.length > 0
      ? [
          wrap(
            `Counted ${far.title}, all connections together, each with the one that opens it. Whoever sends without waiting is ` +
              "counted one for each round-trip time that passes meanwhile, so that the number is rather too large.",
          ),
        ]
      : []),
    ...resources,
    ...(resources.length > 0
      ? [
          wrap(
            "Processor time is the program's, in user mode and in the kernel, not the server's. Memory is the peak of what is resident.",
          ),
        ]
      : []),
    "## What was run",
    wrap(
      `On ${figures.day}, at commit ${figures.commit}, in ${figures.minutes} minutes, on ${machine.cores} cores of ` +
        `${machine.processor} with ${machine.memory} GiB of memory, ${machine.system}. The server is ${figures.server} on the ` +
        `same machine; programs for Node run on Node ${figures.node}.`,
    ),
    table(
      ["", "version", "what it does"],
      figures.contenders.map(({ name, version, about }) => [name, version, about]),
    ).replace("| --: | --: |", "| --- | --- |"),
    list(
      "Each migration creates a table with a primary key, creates an index, and inserts a row: three statements. Every " +
        "contender gets the same statements in its own layout. After each run that applies some, the columns, indexes, " +
        "constraints, sequences and rows are compared with what the statements make by themselves, and its history is counted.",
      `With nothing pending, ${UP_TO_DATE} are applied already. With some pending, the database is empty, and a runner creates ` +
        "its history as well.",
      "A round runs everyone once, beginning with another one each time. Who takes long takes part in fewer rounds: the " +
        "number of runs is in each table below.",
      "The network with a delay is a proxy (`tests/bench/proxy.rs`): what arrives leaves half of the round-trip time later, " +
        "however much it is. Opening a connection takes a round trip too. Over it, those that take longer than " +
        `${figures.waits_long} seconds run at the same time, and begin one after the other: they mostly wait.`,
      "A password is checked by SCRAM-SHA-256. With TLS, everyone verifies the server's certificate and its name, and trusts " +
        "one authority, from a file.",
      "Cold: the program, its libraries and modules and the migrations are not in the page cache, but for what other " +
        "programs use as well, and nobody has connected to the database before. Otherwise, both are warm.",
      "Executables start directly, not through npm or a shell.",
    ),
    "## What was not measured",
    list(
      "Migrations that work for long: the server takes that time, whoever sends them.",
      "Writing to the disk: the server does not wait for it (`fsync=off`), so a commit costs less than elsewhere.",
      "A network that loses packets or is narrow; poolers; several runners at once.",
      "What comes before the program: pulling an image, starting a container.",
      "Other runners, among them goose and golang-migrate, whose programs cargo, npm, pip and apt do not bring.",
    ),
    "## How to repeat it",
    wrap(
      `\`scripts/bench --minutes ${figures.minutes}\`, on Debian with a Rust toolchain and Node 20.12 or later. It installs what it ` +
        "compares with, at the versions above. `scripts/bench --only 50ms,200` measures a part, and changes no file here.",
    ),
    "## All figures",
    ...all,
  ];
  return {
    "benchmarks.md": `${page.join("\n\n")}\n`,
    "benchmarks-light.svg": picture(figures, "light"),
    "benchmarks-dark.svg": picture(figures, "dark"),
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [source, folder] = process.argv.slice(2);
  const made = report(JSON.parse(readFileSync(source, "utf8")));
  for (const [name, text] of Object.entries(made)) writeFileSync(path.join(folder, name), text);
}
