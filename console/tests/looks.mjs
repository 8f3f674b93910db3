// How pages look: both themes and three widths, seen one after the other on one page.

import { DESK, PHONE, TABLET, isFull, keepsNobodyOut, nothingFailed, shoot, until } from "./page.mjs";

const ALL_LOOKS = [
  ["desk-light", DESK, "light"],
  ["desk-dark", DESK, "dark"],
  ["tablet-dark", TABLET, "dark"],
  ["phone-light", PHONE, "light"],
];

/** A plain run sees each theme once, and the widest and the narrowest. */
const LOOKS = ALL_LOOKS.filter(([look]) => isFull || ["desk-dark", "phone-light"].includes(look));

/** Axe looks at each theme; it takes seconds, and sees little more at another width. */
const BOTH_THEMES = ["desk-light", "desk-dark"];

/** The page neither scrolls sideways, nor has anything beyond its edge. The chart takes its new width a moment later. */
export async function fits(page, where) {
  await until(`${where} is not too wide`, () => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
}

/** Waits for the strips in view. */
export const strips = (page) => until("the strips are drawn", async () => (await page.locator(".strip[aria-label*='not read yet']").count()) === 0);

/** Holds the page against all looks, and pictures each. */
export async function inAllLooks(page, name, { settled = async () => {}, axe = BOTH_THEMES } = {}) {
  for (const [look, size, scheme] of LOOKS) {
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
    await page.setViewportSize(size);
    await settled();
    await strips(page);
    await fits(page, `${name} at ${look}`);
    nothingFailed(page, `${name}, ${look}`);
    if (axe.includes(look)) await keepsNobodyOut(page, `${name}, ${look}`);
    await shoot(page, `${name}-${look}`);
  }
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
  await page.setViewportSize(DESK);
}
