// One satellite, the log and the help, in both themes and at three widths.

import { NARROW, Satellite, assert, claim, prove, until } from "./page.mjs";
import { fits, inAllLooks } from "./looks.mjs";

let satellite;

claim("one satellite holds in both themes and at each width", async (visit) => {
  satellite = await Satellite.register("pictured", { tags: { tier: "gold", rack: "7" } });
  for (let i = 0; i < 4; i += 1) {
    await satellite.connect();
    satellite.disconnect();
    await until("it is gone", () => satellite.closed === 1000);
  }
  await satellite.connect();
  const page = await visit.page(`/console/satellites/${satellite.id}?span=15m`);
  await page.getByRole("heading", { name: satellite.name }).waitFor();
  await page.locator("table.edges tbody tr").first().waitFor();
  await inAllLooks(page, "satellite", { axe: ["desk-light", "desk-dark", "phone-light"] });
});

claim("long words and a narrow screen move nothing over anything else", async (visit) => {
  const long = await Satellite.register("W".repeat(120), { region: "R".repeat(60), tags: { [`k${"-long".repeat(9)}`]: "v".repeat(150) } });
  await long.connect();
  const page = await visit.page(`/console/satellites/${long.id}?span=1h`);
  await page.locator("table.edges tbody tr").first().waitFor();
  await page.locator(".stat dd", { hasText: "%)" }).waitFor();
  await fits(page, "a satellite of long words");
  for (const address of [`/console/satellites/${long.id}?span=1h`, "/console/log", "/console/"]) {
    await page.setViewportSize(NARROW);
    await page.goto(address);
    await page.locator("table.edges tbody tr, .card-link, .cell, .row-link").first().waitFor();
    await fits(page, `${address} on a narrow screen`);
    const over = await page.locator(".stat dd").evaluateAll((all) => all.filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.textContent));
    assert.deepEqual(over, [], "no number runs into the next");
  }
  await long.remove();
});

claim("what another threshold would have done is shown", async (visit) => {
  const page = await visit.page("/console/what-if");
  await page.getByRole("rowheader", { name: "all" }).waitFor();
  await page.getByText("what a shorter threshold would have added is at least").waitFor();
  await inAllLooks(page, "what-if");
});

claim("the audit is for administrators, and grows as it is looked at", async (visit) => {
  const page = await visit.page("/console/audit?event=satellite.created");
  await page.getByRole("link", { name: "Audit" }).waitFor();
  await page.locator("table.audit tbody tr", { hasText: satellite.id }).waitFor();
  const made = await Satellite.register("audited");
  const row = page.locator("table.audit tbody tr", { hasText: made.id });
  await row.waitFor();
  await row.getByText("admin token").waitFor();
  await row.locator("summary").click();
  await row.locator("pre", { hasText: made.name }).waitFor();
  await inAllLooks(page, "audit", { axe: ["desk-light", "phone-light"] });
  await made.remove();
  const reader = await visit.page("/console/log", { role: "read" });
  await reader.getByRole("link", { name: "Log" }).waitFor();
  assert.equal(await reader.getByRole("link", { name: "Audit" }).count(), 0);
});

claim("maintenance is planned, seen at the satellite and ended", async (visit) => {
  const page = await visit.page("/console/maintenance");
  await page.getByText("None is planned.").waitFor();
  await page.getByLabel("Region").fill("eu-west");
  await page.getByLabel("For, from now on").fill("2h");
  await page.getByLabel("Reason").fill("new switches");
  await page.getByRole("button", { name: "Plan" }).click();
  const row = page.locator("table tbody tr", { hasText: "new switches" });
  await row.getByText("region eu-west").waitFor();
  await row.getByRole("cell", { name: "2 h now" }).waitFor();
  await inAllLooks(page, "maintenance", { axe: ["desk-light", "phone-light"] });
  const other = await visit.page(`/console/satellites/${satellite.id}`);
  await other.getByText("in maintenance until").waitFor();
  await other.getByText("new switches").waitFor();
  await row.getByRole("button", { name: "End it now" }).click();
  await row.getByText("over", { exact: true }).waitFor();
  assert.equal(await row.getByRole("button").count(), 0);
});

claim("the log holds, and so does the help", async (visit) => {
  const page = await visit.page("/console/log");
  await page.locator("table.edges tbody tr").first().waitFor();
  await inAllLooks(page, "log");
  await page.keyboard.press("?");
  await page.getByRole("dialog").waitFor();
  await inAllLooks(page, "help");
  await satellite.remove();
});

await prove();
