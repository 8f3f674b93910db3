/** Numbers, lengths of time and moments as people read them. Pure, and the same in every browser's language. */

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const grouping = new Intl.NumberFormat("en-US");

/** 4711 → 4,711. */
export function count(n: number): string {
  return grouping.format(n);
}

/** A text of an agent or of a backend, with a mark in place of what makes it look like another one. */
export function seen(text: string): string {
  return text.replace(UNSEEN, "\ufffd");
}

/** As the server has it for names. Joiners are not among them: scripts and emoji need them. */
const UNSEEN = /[\p{Cc}\u200e\u200f\u061c\u202a-\u202e\u00ad\u200b\u2028\u2029\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0001}]/gu;

/** A length of time in its two largest units: `3 d 4 h`, `12 s`. */
export function length(ms: number): string {
  if (ms < SECOND) return ms <= 0 ? "0 s" : `${Math.round(ms)} ms`;
  const parts: [number, string][] = [
    [DAY, "d"],
    [HOUR, "h"],
    [MINUTE, "min"],
    [SECOND, "s"],
  ];
  const first = parts.findIndex(([size]) => ms >= size);
  const [size, unit] = parts[first] ?? [SECOND, "s"];
  const whole = Math.floor(ms / size);
  const next = parts[first + 1];
  const rest = next ? Math.floor((ms - whole * size) / next[0]) : 0;
  return rest > 0 && next ? `${whole} ${unit} ${rest} ${next[1]}` : `${whole} ${unit}`;
}

/** How long ago: `12 s ago`, `now`. */
export function ago(at: number, now: number): string {
  const ms = now - at;
  return ms < SECOND ? "now" : `${length(ms < HOUR ? Math.floor(ms / SECOND) * SECOND : ms)} ago`;
}

const two = (n: number) => String(n).padStart(2, "0");

/** The time of day: `12:03:07`. Times are UTC everywhere, as in the API. */
export function clock(at: number): string {
  const date = new Date(at);
  return `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())}`;
}

/** `2026-03-01 12:03:07`. */
export function moment(at: number): string {
  return `${day(at)} ${clock(at)}`;
}

/** `2026-03-01`. */
export function day(at: number): string {
  const date = new Date(at);
  return `${date.getUTCFullYear()}-${two(date.getUTCMonth() + 1)}-${two(date.getUTCDate())}`;
}

/** The time of day where it is today, and the day with it otherwise. */
export function when(at: number, now: number): string {
  return day(at) === day(now) ? clock(at) : moment(at);
}

/** A part of a whole, never rounded up to all of it nor down to none. */
export function share(part: number, whole: number): string {
  if (whole <= 0) return "–";
  if (part <= 0) return "0 %";
  if (part >= whole) return "100 %";
  const percent = (100 * part) / whole;
  if (percent < 0.01) return "< 0.01 %";
  if (percent > 99.99) return "> 99.99 %";
  return `${percent >= 99 || percent < 1 ? percent.toFixed(2) : percent.toFixed(1)} %`;
}

/** A length of time in words that the API's durations have: `90s`, `5m`, `2h`. */
export function duration(ms: number): string {
  if (ms % HOUR === 0) return `${ms / HOUR}h`;
  if (ms % MINUTE === 0) return `${ms / MINUTE}m`;
  if (ms % SECOND === 0) return `${ms / SECOND}s`;
  return `${ms}ms`;
}

/** The milliseconds of `90s`, `5m`, `2h`, `1d` or `500ms`; undefined for anything else. */
export function parseDuration(text: string): number | undefined {
  const parts = /^\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|min|h|d)\s*$/.exec(text);
  if (!parts?.[1] || !parts[2]) return undefined;
  const sizes: Record<string, number> = { ms: 1, s: SECOND, m: MINUTE, min: MINUTE, h: HOUR, d: DAY };
  return Math.round(Number(parts[1]) * (sizes[parts[2]] ?? 0));
}
