// What an administrator does on the page: register, change, assign, rotate, end sessions, disable, remove.

import { Satellite, api, assert, claim, holds, prove, ready, shoot, uniqueName, until } from "./page.mjs";

claim("a satellite is registered, its token is shown once with the lines that start its agent, and it connects with it", async (visit) => {
  const name = uniqueName("registered");
  const page = await visit.page();
  await ready(page);
  await page.getByRole("button", { name: "Register a satellite" }).first().click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name", { exact: true }).fill(name);
  await dialog.getByLabel("Region").fill("eu-west");
  await dialog.getByLabel("Tags").fill("not a tag");
  await dialog.getByRole("button", { name: "Register" }).click();
  await dialog.getByText(/as name:value/).waitFor();
  await dialog.getByLabel("Tags").fill("tier:gold\nrack: 7");
  await dialog.getByLabel("Offline threshold").fill("2s");
  await holds(page, "the dialog for registering");
  await shoot(page, "register-light");
  await dialog.getByRole("button", { name: "Register" }).click();
  await dialog.getByText("This token is shown once.").waitFor();
  const token = (await dialog.getByLabel("the token", { exact: true }).textContent()).trim();
  for (const [way, words] of [["Environment", `CHECKSTACK_SATELLITE_TOKEN=${token}`], ["Docker", "docker run"], ["systemd", "[Service]"]]) {
    await dialog.getByRole("button", { name: way, exact: true }).click();
    await dialog.getByLabel(`the lines for ${way}`, { exact: true }).getByText(words).waitFor();
  }
  await holds(page, "a token that is shown once");
  await shoot(page, "token-light");
  await page.keyboard.press("Escape");
  assert.ok(await dialog.isVisible(), "Escape does not throw away what is shown once");
  await dialog.getByRole("button", { name: "I have kept the token" }).click();
  const { satellites } = await api(`/v1/satellites?q=${name}`);
  assert.deepEqual([satellites[0].tags, satellites[0].offlineThresholdMs], [{ rack: "7", tier: "gold" }, 2000]);
  const satellite = new Satellite(satellites[0].id, name, token);
  await satellite.connect();
  await page.getByLabel("Search by name").fill(name);
  await page.locator(".card.is-online, .cell.is-online, tr[data-row] .is-online").first().waitFor();
  await satellite.remove();
});

claim("a satellite is changed, and somebody else's change in between is not overwritten", async (visit) => {
  const satellite = await Satellite.register("changed");
  const page = await visit.page(`/console/satellites/${satellite.id}`);
  const open = async () => {
    await page.getByRole("button", { name: /^Change name/ }).click();
    return page.getByRole("dialog");
  };
  let dialog = await open();
  await dialog.getByLabel("Offline threshold").fill("90s");
  await dialog.getByRole("button", { name: "Save" }).click();
  await page.getByText("1 min 30 s").waitFor();
  dialog = await open();
  await dialog.getByLabel("Region").fill("us-east");
  await api(`/v1/satellites/${satellite.id}`, { method: "PATCH", body: { region: "ap-south" } });
  await dialog.getByRole("button", { name: "Save" }).click();
  await dialog.getByText("Changed meanwhile").waitFor();
  await shoot(page, "changed-meanwhile-light");
  await dialog.getByRole("button", { name: "Show what is there now" }).click();
  await page.locator(".facts").getByText("ap-south").waitFor();
  dialog = await open();
  await dialog.getByLabel("Name", { exact: true }).fill("x".repeat(200));
  await dialog.getByLabel("Offline threshold").fill("9000d");
  await dialog.getByRole("button", { name: "Save" }).click();
  await until("the server's error stands at its field", async () => (await dialog.locator("#threshold-error").textContent()) !== "");
  await satellite.remove();
});

claim("assignments are replaced, and what is wrong with them is shown at its line", async (visit) => {
  const satellite = await Satellite.register("assigned");
  const page = await visit.page(`/console/satellites/${satellite.id}`);
  await page.getByRole("button", { name: "Edit", exact: true }).click();
  const text = page.getByLabel(/The whole list as JSON/);
  const save = page.getByRole("button", { name: "Save the list" });
  await text.fill("[{");
  await save.click();
  await page.getByText(/This is not JSON/).waitFor();
  const one = { configId: "c", systemId: "s", strategyId: "http", config: {}, intervalSeconds: 0 };
  await text.fill(JSON.stringify([one], null, 2));
  await save.click();
  await page.locator("#assignments-wrong").getByText(/intervalSeconds/).first().waitFor();
  await shoot(page, "assignments-wrong-light");
  await holds(page, "an editor with an error");
  await text.fill(JSON.stringify([{ ...one, intervalSeconds: 30, configName: "Home" }]));
  await save.click();
  await page.getByRole("cell", { name: "Home" }).waitFor();
  const { assignments } = await api(`/v1/satellites/${satellite.id}/assignments`);
  assert.equal(assignments[0].intervalSeconds, 30);
  await satellite.remove();
});

claim("a rotated token ends the live session, and the new one is shown once", async (visit) => {
  const satellite = await Satellite.register("rotated");
  await satellite.connect();
  const page = await visit.page(`/console/satellites/${satellite.id}`);
  await page.getByRole("button", { name: "Rotate its token" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Rotate the token" }).click();
  await page.getByRole("dialog").getByText("This token is shown once.").waitFor();
  await until("the session is told", () => satellite.shutDown === "token_rotated");
  const token = (await page.getByLabel("the token", { exact: true }).textContent()).trim();
  await page.getByRole("button", { name: "I have kept the token" }).click();
  const again = new Satellite(satellite.id, satellite.name, token);
  await again.connect();
  await page.locator(".satellite-sub .is-online").first().waitFor();
  satellite.disconnect();
  await again.remove();
});

claim("a token that overlaps with the new one keeps the live session", async (visit) => {
  const satellite = await Satellite.register("overlapping");
  await satellite.connect();
  const page = await visit.page(`/console/satellites/${satellite.id}`);
  await page.getByRole("button", { name: "Rotate its token" }).click();
  await page.getByLabel("The present token is void").selectOption("1h");
  await holds(page, "the dialog for rotating");
  await page.getByRole("dialog").getByRole("button", { name: "Rotate the token" }).click();
  const token = (await page.getByLabel("the token", { exact: true }).textContent()).trim();
  await page.getByRole("button", { name: "I have kept the token" }).click();
  assert.equal(satellite.shutDown, undefined);
  const again = new Satellite(satellite.id, satellite.name, token);
  await again.connect();
  await until("the newer session takes over", () => satellite.shutDown !== undefined);
  satellite.disconnect();
  await again.remove();
});

claim("a session is ended and its satellite may come back", async (visit) => {
  const satellite = await Satellite.register("kicked");
  await satellite.connect();
  const page = await visit.page(`/console/satellites/${satellite.id}`);
  await page.locator(".satellite-sub .is-online").first().waitFor();
  await page.getByRole("button", { name: "End its session" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "End the session" }).click();
  await until("the session is told", () => satellite.shutDown === "kicked");
  await page.locator("table.edges").getByText("kicked").first().waitFor();
  satellite.disconnect();
  await satellite.connect();
  await page.locator(".satellite-sub .is-online").first().waitFor();
  await satellite.remove();
});

claim("a satellite is disabled, shown so by word and shape, and enabled again", async (visit) => {
  const satellite = await Satellite.register("disabled");
  await satellite.connect();
  const page = await visit.page(`/console/satellites/${satellite.id}`);
  await page.getByRole("button", { name: "Disable it" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Disable it" }).click();
  await until("the session is told", () => satellite.shutDown === "Satellite is disabled");
  const shown = page.locator(".satellite-sub .condition.is-disabled");
  await shown.getByText("disabled", { exact: true }).waitFor();
  assert.equal(await shown.locator("svg.glyph.is-disabled").count(), 1);
  await shoot(page, "disabled-light");
  await holds(page, "a disabled satellite");
  satellite.disconnect();
  await assert.rejects(satellite.connect(), /Satellite is disabled/);
  await page.getByRole("button", { name: "Enable it" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Enable it" }).click();
  await page.getByRole("button", { name: "Disable it" }).waitFor();
  await satellite.connect();
  await page.locator(".satellite-sub .is-online").first().waitFor();
  await satellite.remove();
});

claim("whoever may only read is offered none of it", async (visit) => {
  const satellite = await Satellite.register("looked-at");
  const page = await visit.page(`/console/satellites/${satellite.id}`, { role: "read" });
  await page.locator(".facts").first().waitFor();
  for (const name of ["End its session", "Disable it", "Enable it", "Rotate its token", "Remove it"]) {
    assert.equal(await page.getByRole("button", { name }).count(), 0, name);
  }
  await satellite.remove();
});

claim("a satellite is removed only by somebody who types its name; its log stays", async (visit) => {
  const satellite = await Satellite.register("removed");
  await satellite.connect();
  const page = await visit.page(`/console/satellites/${satellite.id}`);
  await page.getByRole("button", { name: "Remove it" }).click();
  const dialog = page.getByRole("dialog");
  assert.ok(await dialog.getByRole("button", { name: "Remove it" }).isDisabled());
  await shoot(page, "remove-light");
  await dialog.getByLabel(/Type its name/).fill(satellite.name);
  await dialog.getByRole("button", { name: "Remove it" }).click();
  await page.getByRole("heading", { name: "Satellites" }).waitFor();
  await until("its session ends", () => satellite.closed !== undefined);
  satellite.disconnect();
  await page.goto(`/console/satellites/${satellite.id}`);
  await page.getByText("There is no such satellite now").waitFor();
  await page.locator("table.edges").getByText("removed").first().waitFor();
  await holds(page, "a satellite that was removed");
  await shoot(page, "removed-light");
});

await prove();
