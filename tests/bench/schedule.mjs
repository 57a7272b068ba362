// Decides what is run next, so that all of it fits into the time, and what is short is repeated the most.
import { median } from "./stats.mjs";

// Seconds. Who would take longer than this is left out of a case.
export const TOO_LONG = 90;
// Over a delay, programs mostly wait: those that take longer than this do so together.
export const WAITS_LONG = 5;
export const ROUNDS = 25;

const sum = (numbers) => numbers.reduce((all, one) => all + one, 0);

export class Schedule {
  // Seconds taken, by case and contender.
  #taken;

  constructor(cases, contenders) {
    this.cases = cases;
    this.#taken = new Map(cases.map((it) => [it, new Map(contenders.map((one) => [one, []]))]));
  }

  took(it, contender, seconds) {
    this.#taken.get(it).get(contender).push(seconds);
  }

  // What a run will take: what it took, or else what one with fewer migrations took, and as much for each
  // further one as the two largest of those say.
  expected(it, contender) {
    const of = (one) => this.#taken.get(one).get(contender);
    if (of(it).length > 0) return median(of(it));
    const fewer = this.cases.filter((other) => other.setting === it.setting && other.pending < it.pending);
    if (fewer.length === 0) return 0;
    const last = fewer.at(-1);
    // It was left out there.
    if (of(last).length === 0) return Infinity;
    const before = fewer.at(-2);
    const [from, start] = before ? [before.pending, median(of(before))] : [0, 0];
    const each = Math.max(median(of(last)) - start, 0) / Math.max(last.pending - from, 1);
    return median(of(last)) + each * (it.pending - last.pending);
  }

  leftOut(it) {
    return [...this.#taken.get(it).keys()].filter((contender) => this.#isTooLong(it, contender));
  }

  // Everyone's first run.
  first(it) {
    return [...this.#taken.get(it).keys()].filter((contender) => !this.#isTooLong(it, contender));
  }

  // One more: of those who have taken less than their share of each case, and have time for it.
  next(it, share, secondsLeft) {
    return [...this.#taken.get(it)]
      .filter(([contender, taken]) => {
        const expected = this.expected(it, contender);
        return (
          taken.length > 0 &&
          taken.length < ROUNDS &&
          sum(taken) + expected <= share * it.weight &&
          expected < secondsLeft
        );
      })
      .map(([contender]) => contender);
  }

  #isTooLong(it, contender) {
    return this.#taken.get(it).get(contender).length === 0 && this.expected(it, contender) > TOO_LONG;
  }
}

// A round begins with another contender each time. Those that wait long come last, and together.
export function order(it, contenders, round, expected) {
  const turned = contenders.map((_, place) => contenders[(place + round) % contenders.length]);
  const waits = (contender) => it.setting.delay > 0 && expected(contender) > WAITS_LONG;
  return { alone: turned.filter((one) => !waits(one)), together: turned.filter(waits) };
}
