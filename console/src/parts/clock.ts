/**
 * The present moment, for what is told relative to it: one timer for the whole page.
 *
 * It is the server's: a computer whose clock is wrong would ask for spans that have not begun, and call old what is new.
 */

import { skewOf } from "./skew.ts";
import { Store, useStore } from "./store.ts";

const TICK_MS = 1000;

/** How far the server's clock is ahead of this computer's. */
let skewMs = 0;

/** The present, by the server's clock. */
export const present = () => Date.now() + skewMs;

export const now = new Store(present());

/** Lets it tick, while the page is seen. */
export function startClock(): void {
  const tick = () => {
    if (!document.hidden) now.set(present());
  };
  setInterval(tick, TICK_MS);
  document.addEventListener("visibilitychange", tick);
}

/** An answer came with this header `Date`, to a request that was sent then. */
export function heardTime(header: string | null, sentAt: number): void {
  const heard = skewOf(header, sentAt, Date.now());
  if (heard === undefined || heard === skewMs) return;
  skewMs = heard;
  now.set(present());
}

/** The present, once a second. */
export function useNow(): number {
  return useStore(now);
}

/** The present by this computer's own clock, for what the page itself has measured. */
export function useOwnNow(): number {
  return useStore(now) - skewMs;
}
