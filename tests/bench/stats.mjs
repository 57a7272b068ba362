// Medians, quartiles, and ratios of runs in the same round.

export function quantile(numbers, part) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const place = (sorted.length - 1) * part;
  const below = Math.floor(place);
  const above = Math.ceil(place);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}

export const median = (numbers) => quantile(numbers, 0.5);

// The median over the rounds that both took part in. Whoever leaves does not come back, so those are the
// first.
export const ratio = (ones, others) => median(ones.slice(0, others.length).map((one, round) => one / others[round]));
