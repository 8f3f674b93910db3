// The fleet at each size: the view turns with it, in both themes and at three widths.

import { api, assert, claim, isFull, prove, ready, shoot, until } from "./page.mjs";
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
    // The smallest is looked at in every way, the others where they differ: with so many parts axe takes long.
    const axe = size === 5 ? ["desk-light", "desk-dark", "phone-light"] : isFull ? ["desk-dark"] : [];
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

/** What the rows say that are drawn, once all of them are read; `near` is one of them. */
async function drawn(page, near) {
  return until(`rows about ${near} are there`, async () => {
    const rows = await page.evaluate(() => [...document.querySelectorAll("tr[data-row]")].map((row) => [Number(row.dataset.row), row.querySelector(".row-link")?.textContent]));
    return rows.some(([row]) => row === near) && rows.every(([, name]) => name) ? rows : undefined;
  });
}

/** What is drawn is what the API has there. */
async function expectAsListed(rows) {
  const [[first]] = rows;
  const { satellites } = await api(`/v1/satellites?sort=name&offset=${first}&limit=${rows.length}`);
  assert.deepEqual(rows, satellites.map(({ name }, i) => [first + i, name]));
  assert.ok(rows.length < 100, "only rows in view are drawn");
}

// These are in the registry.
claim("a jump anywhere into 100,000 satellites reads what is there and nothing between", async (visit) => {
  const { total } = await api("/v1/fleet");
  assert.ok(total >= 100_000, `${total}`);
  const page = await visit.page("/console/");
  await ready(page);
  await until("the page is as long as the list", async () => (await page.evaluate(() => document.documentElement.scrollHeight)) > total * 30);
  let asked = [];
  page.on("request", (request) => new URL(request.url()).pathname === "/v1/satellites" && asked.push(request.url()));
  for (const part of [0.5, 0.25, 0.75]) {
    asked = [];
    const middle = await page.evaluate((part) => {
      scrollTo(0, document.documentElement.scrollHeight * part);
      const body = document.querySelector(".rows tbody").getBoundingClientRect();
      return Math.floor((innerHeight / 2 - body.top) / 36);
    }, part);
    const rows = await drawn(page, middle);
    // What is in view comes with what is beside it.
    assert.ok(asked.length <= 2, `${asked.length} pages were read: ${asked.slice(0, 5).join("\n")}`);
    await expectAsListed(rows);
  }
  // The keyboard is as quick, and goes on while rows are being read.
  asked = [];
  await page.locator(".row-link").nth(30).focus();
  await page.keyboard.press("End");
  await expectAsListed(await drawn(page, total - 1));
  await page.keyboard.press("Home");
  await expectAsListed(await drawn(page, 0));
  await until("the first row has the focus", () => page.evaluate(() => document.activeElement?.closest("tr")?.dataset.row === "0"));
  for (let n = 0; n < 60; n += 1) await page.keyboard.down("PageDown");
  await page.keyboard.up("PageDown");
  const row = await until("a row has the focus", () => page.evaluate(() => Number(document.activeElement?.closest("tr")?.dataset.row)));
  assert.equal(row % 60, 0, "no key was lost");
  assert.ok(row >= 600, `${row}`);
  await expectAsListed(await drawn(page, row));
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
