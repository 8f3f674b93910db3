/** Whether single letters work as keys: kept in the browser. */

import { Store } from "../parts/store.ts";

const KEPT = "single-keys";

function kept(): boolean {
  try {
    return localStorage.getItem(KEPT) !== "off";
  } catch {
    return true;
  }
}

/** Whether single letters do anything. */
export const singleKeys = new Store(kept());

singleKeys.follow((on) => {
  try {
    localStorage.setItem(KEPT, on ? "on" : "off");
  } catch {
    // It holds for as long as the page is open.
  }
});
