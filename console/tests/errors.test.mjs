// What the page says where the server cannot answer, or has nothing to say.

import { Satellite, assert, claim, holds, instead, problem, prove, ready, shoot, until } from "./page.mjs";
import { madeUp } from "./made_up.mjs";

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
