// One satellite, the log and the help, in both themes and at three widths.

import { Satellite, claim, prove, until } from "./page.mjs";
import { inAllLooks } from "./looks.mjs";

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
