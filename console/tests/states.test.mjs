// Each page and state, in both themes and at three widths: nothing keeps anybody out, nothing fails, and each is pictured.

import { DESK, PHONE, Satellite, TABLET, assert, claim, holds, instead, problem, prove, ready, shoot, until } from "./page.mjs";
import { madeUp } from "./made_up.mjs";

const LOOKS = [
  ["desk-light", { size: DESK, scheme: "light" }],
  ["desk-dark", { size: DESK, scheme: "dark" }],
  ["tablet-dark", { size: TABLET, scheme: "dark" }],
  ["phone-light", { size: PHONE, scheme: "light" }],
];

/** The page neither scrolls sideways, nor has anything beyond its edge. */
async function fits(page, where) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(wide <= 0, `${where} is ${wide} pixels too wide`);
}

const strips = (page) => until("the strips are drawn", async () => (await page.locator(".strip[aria-label*='not read yet']").count()) === 0);

for (const [size, view] of [[5, "cards"], [300, "cells"], [5000, "table"]]) {
  claim(`a fleet of ${size} is shown as ${view} by itself`, async (visit) => {
    for (const [look, options] of LOOKS) {
      const page = await visit.page("/console/?span=24h", { ...options, answers: madeUp(size, { blind: size === 300 }) });
      await ready(page);
      await page.locator({ cards: ".card", cells: ".cell", table: "tr[data-row]" }[view]).first().waitFor();
      assert.equal(await page.getByRole("group", { name: "View" }).locator("[aria-pressed=true]").textContent(), { cards: "Cards", cells: "Cells", table: "Table" }[view]);
      if (view === "cells") {
        await until("all are there", async () => (await page.locator(".cell").count()) === size);
        await page.locator(".cell.is-lost").first().hover();
        await page.locator(".peek-name").waitFor();
      }
      await strips(page);
      await page.locator(".chart canvas").waitFor();
      await fits(page, `${size} at ${look}`);
      await holds(page, `a fleet of ${size}, ${look}`);
      await shoot(page, `fleet-${size}-${look}`);
      await page.context().close();
    }
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
  await holds(page, "the end of 100,000");
  await shoot(page, "fleet-100000-end-desk-dark");
  await page.evaluate(() => scrollTo(0, 0));
  await page.locator(".row-link", { hasText: "site-000001" }).waitFor();
});

claim("an empty fleet says how it is filled, and to whom", async (visit) => {
  for (const [look, options] of LOOKS) {
    const page = await visit.page("/console/", { ...options, answers: madeUp(0) });
    await page.getByText("No satellite is registered yet").waitFor();
    await fits(page, `an empty fleet at ${look}`);
    await holds(page, `an empty fleet, ${look}`);
    await shoot(page, `fleet-empty-${look}`);
    await page.context().close();
  }
  const reader = await visit.page("/console/", { role: "read", answers: madeUp(0) });
  await reader.getByText("No satellite is registered yet").waitFor();
  assert.equal(await reader.getByRole("button", { name: "Register a satellite" }).count(), 0);
});

claim("filters that select nobody say so and can be cleared", async (visit) => {
  const page = await visit.page("/console/?q=nobody-has-this-name");
  await page.getByText("No satellite matches").waitFor();
  await holds(page, "nobody");
  await page.getByRole("button", { name: "Clear the filters" }).click();
  await until("no filter", () => !page.url().includes("q="));
});

claim("what the server cannot answer is said with its reason and a way out", async (visit) => {
  const dropped = problem(410, "No longer known", "The log begins at position 9,001: what was before has been dropped.");
  const past = await visit.page("/console/?position=12", { answers: { "/v1/fleet": dropped, "/v1/satellites": dropped } });
  await past.getByText("what was before has been dropped").first().waitFor();
  await holds(past, "a past that was dropped");
  await shoot(past, "error-dropped-light");
  await past.getByRole("button", { name: "Back to the present" }).first().click();
  await until("the present", () => !past.url().includes("position="));

  let isBusy = true;
  const fleet = madeUp(40);
  const busy = problem(503, "Busy", "This pod answers as many questions at once as it can; try again, or another pod.", { "retry-after": "1" });
  const page = await visit.page("/console/", { scheme: "dark", answers: { ...fleet, "/v1/satellites": (route) => (isBusy ? busy(route) : fleet["/v1/satellites"](route)) } });
  await page.getByText("as many questions at once").waitFor();
  await page.getByText("Asked again in 1 s").waitFor();
  await holds(page, "a busy pod");
  await shoot(page, "error-busy-dark");
  isBusy = false;
  await page.locator(".card").first().waitFor();

  const refused = await visit.page("/console/?version=0.5.0&position=12");
  await refused.getByText("does not go with at and position").first().waitFor();
  await refused.getByRole("button", { name: "Remove this filter" }).click();
  await until("without the filter", () => !refused.url().includes("version="));
});

claim("while the network is away what is there stays, and the page says since when", async (visit) => {
  const page = await visit.page("/console/", { answers: madeUp(24) });
  await ready(page);
  await page.locator(".card").first().waitFor();
  await page.unrouteAll();
  await page.route("**/v1/**", (route) => route.abort());
  // An edge makes the page ask again.
  const satellite = await Satellite.register("away");
  await satellite.connect();
  await page.getByText("The server does not answer").waitFor();
  assert.ok((await page.locator(".card").count()) > 0, "what is there stays");
  await holds(page, "no network");
  await shoot(page, "error-away-light");
  await page.unrouteAll();
  await page.getByText("The server does not answer").waitFor({ state: "hidden" });
  await satellite.remove();
});

claim("one satellite and the log hold in both themes and at each width", async (visit) => {
  const satellite = await Satellite.register("pictured", { tags: { tier: "gold", rack: "7" } });
  for (let i = 0; i < 4; i += 1) {
    await satellite.connect();
    satellite.disconnect();
    await until("it is gone", () => satellite.closed === 1000);
  }
  await satellite.connect();
  for (const [look, options] of LOOKS) {
    const page = await visit.page(`/console/satellites/${satellite.id}?span=15m`, options);
    await page.getByRole("heading", { name: satellite.name }).waitFor();
    await page.locator("table.edges tbody tr").first().waitFor();
    await strips(page);
    await fits(page, `a satellite at ${look}`);
    await holds(page, `a satellite, ${look}`);
    await shoot(page, `satellite-${look}`);
    await page.goto("/console/log");
    await page.locator("table.edges tbody tr").first().waitFor();
    await fits(page, `the log at ${look}`);
    await holds(page, `the log, ${look}`);
    await shoot(page, `log-${look}`);
    await page.keyboard.press("?");
    await page.getByRole("dialog").waitFor();
    await holds(page, `the help, ${look}`);
    await shoot(page, `help-${look}`);
    await page.context().close();
  }
  await satellite.remove();
});

claim("parts that the server does not have are not there, and those it has are", async (visit) => {
  const page = await visit.page("/console/", { answers: { "/openapi.json": instead({ paths: {} }) } });
  await ready(page);
  assert.deepEqual(await page.locator(".nav-link").allTextContents(), ["Fleet", "Log"]);
  const scope = { region: "eu-west" };
  const later = await visit.page("/console/", {
    answers: {
      "/openapi.json": instead({ paths: { "/v1/outages": {} } }),
      "/v1/outages": instead({ outages: [{ outageId: "o", scope, late: 40, sessions: 60, startedAt: new Date(Date.now() - 90_000).toISOString(), endedAt: null }] }),
    },
  });
  await later.getByRole("link", { name: "Outages" }).click();
  await later.getByText("region eu-west").waitFor();
  await later.getByText("goes on").waitFor();
  await holds(later, "outages");
});

claim("no address leads nowhere without a word", async (visit) => {
  const page = await visit.page("/console/nothing/of/this/name");
  await page.getByRole("heading", { name: "There is no such page" }).waitFor();
  await holds(page, "an unknown address");
});

await prove();
