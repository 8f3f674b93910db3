/**
 * The states of one satellite over a window, made ready to be drawn and read out. Pure.
 */

import type { Interval } from "../api/types.ts";
import { length, share } from "../parts/format.ts";

export type Run = { from: number; to: number; state: "up" | "down" | "unknown" | "maintenance"; event?: string; reason?: string };

/** Intervals as runs within the window; the last goes on to its end where the window is live. */
export function runs(intervals: readonly Interval[], from: number, to: number, goesOn: boolean): Run[] {
  const found: Run[] = [];
  for (const [i, interval] of intervals.entries()) {
    const isLast = i === intervals.length - 1;
    const begin = Math.max(from, Date.parse(interval.from));
    const end = Math.min(to, isLast && goesOn ? to : Date.parse(interval.to));
    if (end <= begin) continue;
    const run: Run = { from: begin, to: end, state: word(interval.state) };
    if (interval.event !== undefined) run.event = interval.event;
    if (interval.reason !== undefined) run.reason = interval.reason;
    found.push(run);
  }
  return found;
}

/** A state of a later version is one that this page does not know. */
function word(state: string): Run["state"] {
  return state === "up" || state === "down" || state === "maintenance" ? state : "unknown";
}

export interface Sums {
  up: number;
  down: number;
  unknown: number;
  maintenance: number;
  /** How often it went down. */
  losses: number;
}

export function sums(list: readonly Run[]): Sums {
  const sum: Sums = { up: 0, down: 0, unknown: 0, maintenance: 0, losses: 0 };
  let before: Run["state"] | undefined;
  for (const run of list) {
    sum[run.state] += run.to - run.from;
    if (run.state === "down" && before === "up") sum.losses += 1;
    before = run.state;
  }
  return sum;
}

/** What a strip says to who cannot see it. */
export function spoken(list: readonly Run[]): string {
  const sum = sums(list);
  const all = sum.up + sum.down + sum.unknown + sum.maintenance;
  if (all === 0) return "nothing known";
  const parts = (["up", "down", "maintenance", "unknown"] as const)
    .filter((state) => sum[state] > 0)
    .map((state) => `${state} ${share(sum[state], all)}`);
  const losses = sum.losses === 0 ? "" : `; went down ${sum.losses === 1 ? "once" : `${sum.losses} times`}`;
  return `${parts.join(", ")} of ${length(all)}${losses}`;
}
