/** The theme: as the system has it, or dark or light by choice, kept in the browser. */

import { Store } from "../parts/store.ts";

export type Theme = "system" | "dark" | "light";

const order: readonly Theme[] = ["system", "dark", "light"];

function kept(): Theme {
  const chosen = document.documentElement.dataset["theme"];
  return chosen === "dark" || chosen === "light" ? chosen : "system";
}

/** The chosen theme. */
export const theme = new Store<Theme>(kept());

/** Counts up whenever colours change, for what paints on a canvas. */
export const paints = new Store(0);

const repaint = () => paints.set(paints.value + 1);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

/** Takes the next theme. */
export function nextTheme(): void {
  const next = order[(order.indexOf(theme.value) + 1) % order.length] ?? "system";
  if (next === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = next;
  try {
    localStorage.setItem("theme", next);
  } catch {
    // It holds for as long as the page is open.
  }
  theme.set(next);
  repaint();
}
