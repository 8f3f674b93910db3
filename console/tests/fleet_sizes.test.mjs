// The fleet at each size: the view turns with it, in both themes and at three widths.

import { assert, claim, prove, ready, shoot, until } from "./page.mjs";
import { inAllLooks, strips } from "./looks.mjs";
import { madeUp } from "./made_up.mjs";

for (const [size, view] of [[5, "cards"], [300, "cells"], [5000, "table"]]) {
  claim(`a fleet of ${size} is shown as ${view} by itself`, async (visit) => {
    const page = await visit.page("/console/?span=24h", { answers: madeUp(size, { blind: size === 300 }) });
    await ready(page);
    await page.locator({ cards: ".card", cells: ".cell", table: "tr[data-row]" }[view]).first().waitFor();
    assert.equal(await page.getByRole("group", { name: "View" }).locator("[aria-pressed=true]").textContent(), { cards: "Cards", cells: "Cells", table: "Table" }[view]);
    if (view === "cells") {
      await until("all are there", async () => (await page.locator(".cell").count()) === size);
      await page.locator(".cell.is-lost").first().hover();
      await page.locator(".peek-name").waitFor();
    }
    // The smallest is looked at in every way, the others where they differ.
    const axe = size === 5 ? ["desk-light", "desk-dark", "phone-light"] : ["desk-dark"];
    await inAllLooks(page, `fleet-${size}`, { settled: () => page.locator(".chart canvas").waitFor(), axe });
  });
}

claim("100,000 satellites are one window of rows; their end is as near as their beginning", async (visit) => {
  const size = 100_000;
  const page = await visit.page("/console/?span=24h", { scheme: "dark", answers: madeUp(size) });
  await ready(page);
  await until("the page is as long as the list", async () => (await page.evaluate(() => document.documentElement.scrollHeight)) > size * 30);
  await page.evaluate(() => scrollTo(0, document.documentElement.scrollHeight));
  await page.locator(".row-link", { hasText: "site-100000" }).waitFor();
  assert.ok((await page.locator("tr[data-row]").count()) < 100, "only rows in view are drawn");
  await strips(page);
  await shoot(page, "fleet-100000-end-desk-dark");
  await page.evaluate(() => scrollTo(0, 0));
  await page.locator(".row-link", { hasText: "site-000001" }).waitFor();
});

claim("an empty fleet says how it is filled, and to whom", async (visit) => {
  const page = await visit.page("/console/", { answers: madeUp(0) });
  await page.getByText("No satellite is registered yet").waitFor();
  await inAllLooks(page, "fleet-empty", { axe: ["desk-light"] });
  const reader = await visit.page("/console/", { role: "read", answers: madeUp(0) });
  await reader.getByText("No satellite is registered yet").waitFor();
  assert.equal(await reader.getByRole("button", { name: "Register a satellite" }).count(), 0);
});

await prove();
