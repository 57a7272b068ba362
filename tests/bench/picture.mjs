// The figures that say the most, as bars: a panel for each case, a row for each contender. Axes are linear
// and begin at 0. Pure.
import { pendingText, settingOf } from "./cases.mjs";
import { median } from "./stats.mjs";

const PANELS = [
  { setting: "local", pending: 0 },
  { setting: "local", pending: 200 },
  { setting: "50ms", pending: 200 },
];

export const ALT =
  "How long premigrate and other runners take: on the same machine with nothing pending and with 200 migrations pending, " +
  "and with 200 pending over a network of 50 ms";

const COLORS = {
  light: {
    text: "#1f2328",
    muted: "#59636e",
    grid: "#d1d9e0",
    ours: "#0969da",
    runner: "#818b98",
    reference: "none",
    whisker: "#1f2328",
  },
  dark: {
    text: "#f0f6fc",
    muted: "#9198a1",
    grid: "#3d444d",
    ours: "#4493f8",
    runner: "#656c76",
    reference: "none",
    whisker: "#f0f6fc",
  },
};

const MARGIN = 12;
const NAMES = 148;
const PANEL = 226;
const GAP = 16;
// For the number behind the longest bar.
const NUMBER = 56;
const HEAD = 64;
const ROW = 22;
const BAR = 12;
const GROUP = 12;
const FOOT = 34;

const escape = (text) => text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
const round = (number) => Number(number.toFixed(1));

// Steps of 1, 2 or 5, so that there are three to five of them.
function axis(most) {
  const power = 10 ** Math.floor(Math.log10(most / 3));
  const step = [1, 2, 5, 10].map((it) => it * power).find((it) => most / it <= 4.5);
  return { step, end: Math.ceil(most / step) * step };
}

// Ours, then the others from the fastest to the slowest, then the references.
function inOrder(figures, panels) {
  const last = panels.at(-1).of.runs;
  const time = ({ id }) => (last[id] ? median(last[id].wall) : Infinity);
  const kinds = ["ours", "runner", "reference"];
  return kinds.flatMap((kind) => {
    const group = figures.contenders.filter((it) => it.kind === kind && panels.some(({ of }) => of.runs[it.id]));
    return kind === "ours" ? group : group.sort((a, b) => time(a) - time(b));
  });
}

export function picture(figures, theme) {
  const color = COLORS[theme];
  const panels = PANELS.map((panel) => ({
    ...panel,
    of: figures.cases.find((it) => it.setting === panel.setting && it.pending === panel.pending),
  })).filter(({ of }) => of && Object.keys(of.runs).length > 0);
  const parts = [];
  const text = (x, y, words, { fill = color.text, size = 12, anchor = "start", weight = "normal" } = {}) =>
    parts.push(
      `<text x="${round(x)}" y="${round(y)}" fill="${fill}" font-size="${size}" text-anchor="${anchor}" font-weight="${weight}">${escape(words)}</text>`,
    );

  const rows = panels.length > 0 ? inOrder(figures, panels) : [];
  let y = HEAD;
  const places = rows.map((row, place) => {
    if (place > 0 && row.kind !== rows[place - 1].kind) y += GROUP;
    y += ROW;
    return y - ROW / 2;
  });
  const bottom = y + 4;
  rows.forEach((row, place) =>
    text(MARGIN + NAMES - 8, places[place] + 4, row.name, {
      anchor: "end",
      fill: row.kind === "reference" ? color.muted : color.text,
      weight: row.kind === "ours" ? "600" : "normal",
    }),
  );

  panels.forEach(({ setting, pending, of }, place) => {
    const left = MARGIN + NAMES + place * (PANEL + GAP);
    const all = Object.values(of.runs);
    const isSeconds = Math.max(...all.map(({ wall }) => median(wall))) >= 2000;
    const unit = isSeconds ? 1000 : 1;
    const { step, end } = axis(Math.max(...all.flatMap(({ wall }) => wall)) / unit);
    const at = (time) => left + (time / unit / end) * (PANEL - NUMBER);
    const number = (time) => {
      const value = time / unit;
      return `${value >= 100 ? value.toFixed(0) : Number(value.toPrecision(2 + (value >= 10)))} ${isSeconds ? "s" : "ms"}`;
    };

    text(left, 22, pendingText(pending)[0].toUpperCase() + pendingText(pending).slice(1), { size: 14, weight: "600" });
    text(left, 40, `${settingOf(setting).title}, ${isSeconds ? "seconds" : "milliseconds"}`, { fill: color.muted });
    for (let tick = 0; tick <= end + step / 2; tick += step) {
      const x = round(at(tick * unit));
      parts.push(`<path d="M${x} ${HEAD - 6}V${bottom}" stroke="${color.grid}"/>`);
      text(x, bottom + 16, String(Number(tick.toPrecision(6))), { size: 11, anchor: "middle", fill: color.muted });
    }
    rows.forEach(({ id, kind, name }, index) => {
      const runs = of.runs[id];
      if (!runs) {
        const isLeftOut = of.left_out.includes(id);
        text(left + 4, places[index] + 4, isLeftOut ? `over ${figures.too_long} s expected` : "not run", {
          fill: color.muted,
          size: 11,
        });
        return;
      }
      const middle = median(runs.wall);
      const [least, most] = [Math.min(...runs.wall), Math.max(...runs.wall)];
      const outline = kind === "reference" ? ` stroke="${color.runner}"` : "";
      parts.push(
        `<rect x="${round(left)}" y="${round(places[index] - BAR / 2)}" width="${round(Math.max(at(middle) - left, 1))}" height="${BAR}" ` +
          `fill="${color[kind]}"${outline}><title>${escape(name)}: ${number(middle)}, from ${number(least)} to ${number(most)}, ${runs.wall.length} runs</title></rect>`,
      );
      if (runs.wall.length > 2) {
        parts.push(
          `<path d="M${round(at(least))} ${round(places[index])}H${round(at(most))}" stroke="${color.whisker}"/>`,
        );
      }
      text(Math.max(at(middle), runs.wall.length > 2 ? at(most) : 0) + 5, places[index] + 4, number(middle), {
        fill: kind === "reference" ? color.muted : color.text,
        weight: kind === "ours" ? "600" : "normal",
      });
    });
  });
  text(
    MARGIN,
    bottom + FOOT + 2,
    "Medians, and the least and the most where there are three runs or more. Outlined: what is not a runner of migrations.",
    {
      size: 11,
      fill: color.muted,
    },
  );

  const width = 2 * MARGIN + NAMES + panels.length * PANEL + Math.max(panels.length - 1, 0) * GAP;
  const height = bottom + FOOT + 12;
  const font = "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif";
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" font-family="${font}">`,
    `<title>${escape(ALT)}</title>`,
    ...parts,
    "</svg>\n",
  ].join("\n");
}
