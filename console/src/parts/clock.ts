/** The present moment, for what is told relative to it: one timer for the whole page. */

import { Store, useStore } from "./store.ts";

const TICK_MS = 1000;

export const now = new Store(Date.now());

setInterval(() => {
  if (!document.hidden) now.set(Date.now());
}, TICK_MS);

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) now.set(Date.now());
});

/** The present, once a second. */
export function useNow(): number {
  return useStore(now);
}
