// Who gets in, and what each may see.

import { PHONE, Satellite, assert, claim, holds, problem, prove, ready, shoot, tokens, until } from "./page.mjs";

claim("whoever has no session is asked for a token, and gets in with one", async (visit) => {
  const page = await (await visit.stranger()).newPage();
  await page.goto("/console/?status=offline");
  await page.getByLabel("Token", { exact: true }).waitFor();
  await holds(page, "the sign-in page");
  await shoot(page, "sign-in-light");
  await page.getByLabel("Token", { exact: true }).fill(tokens.admin);
  await page.keyboard.press("Enter");
  await ready(page);
  assert.match(page.url(), /status=offline/, "the page goes on where it was");
  assert.deepEqual(await page.evaluate(() => [document.cookie, Object.values(localStorage).join()]), ["", ""], "the page keeps no token");
});

claim("a wrong token is refused with a reason, and the page says what to send", async (visit) => {
  for (const [scheme, size] of [["light", undefined], ["dark", PHONE]]) {
    const page = await (await visit.stranger({ scheme, ...(size ? { size } : {}) })).newPage();
    await page.goto("/console/");
    await page.getByLabel("Token", { exact: true }).fill("csat_this-token-was-never-given-to-anybody");
    await page.getByRole("button", { name: "Sign in" }).click();
    const alert = page.getByRole("alert");
    await alert.waitFor();
    assert.match(await alert.textContent(), /GROUNDSTATION_ADMIN_TOKEN/);
    await holds(page, `a refused sign-in, ${scheme}`);
    await shoot(page, `sign-in-refused-${size ? "phone" : "desk"}-${scheme}`);
  }
});

claim("a sign-in that comes too often says when to come back", async (visit) => {
  const context = await visit.stranger();
  const page = await context.newPage();
  const refuse = problem(429, "Too many tries", "Too many wrong tokens came from your address.", { "retry-after": "30" });
  await page.route("**/console/session", (route) => (route.request().method() === "POST" ? refuse(route) : route.continue()));
  await page.goto("/console/");
  await page.getByLabel("Token", { exact: true }).fill("x");
  await page.keyboard.press("Enter");
  assert.match(await page.getByRole("alert").textContent(), /again in 30 s/);
});

claim("a sign-in link that was used already says so, and its code does not stay in the address", async (visit) => {
  const page = await (await visit.stranger()).newPage();
  await page.goto("/console/sign-in#was-used-before");
  await page.getByRole("alert").waitFor();
  assert.ok(!page.url().includes("was-used-before"));
});

claim("a sign-in link that is pasted into the open sign-in page is followed, and its code does not stay in the address", async (visit) => {
  const page = await (await visit.stranger()).newPage();
  await page.goto("/console/sign-in#was-used-before");
  assert.match(await page.getByRole("alert").textContent(), /link was used before/);
  const asked = page.waitForRequest((request) => request.method() === "POST" && request.url().endsWith("/console/session"));
  await page.goto("/console/sign-in#the-next-one");
  assert.deepEqual((await asked).postDataJSON(), { code: "the-next-one" });
  await until("the code has left the address", () => !page.url().includes("#"));
});

claim("a sign-in link that is clicked again leads to the session that it began", async (visit) => {
  const page = await visit.page("/console/sign-in#was-used-before");
  await ready(page);
  assert.match(page.url(), /\/console\/$/);
});

claim("a browser that keeps no cookie is told so", async (visit) => {
  const context = await visit.stranger();
  const page = await context.newPage();
  await page.route("**/console/session", async (route) => {
    if (route.request().method() !== "POST") return route.continue();
    await route.fulfill({ status: 204 });
  });
  await page.goto("/console/");
  await page.getByLabel("Token", { exact: true }).fill(tokens.admin);
  await page.keyboard.press("Enter");
  assert.match(await page.getByRole("alert").textContent(), /keeps no cookie/);
  await page.getByRole("button", { name: "Sign in" }).waitFor();
});

claim("the read token is offered nothing that it may not do", async (visit) => {
  const satellite = await Satellite.register("offered");
  const page = await visit.page("/console/", { role: "read" });
  await ready(page);
  assert.equal(await page.getByRole("button", { name: "Register a satellite" }).count(), 0);
  await page.goto(`/console/satellites/${satellite.id}`);
  await page.getByRole("heading", { name: satellite.name }).waitFor();
  await page.getByRole("heading", { name: "Assignments" }).waitFor();
  for (const name of ["Remove it", "Rotate its token", "Edit"]) assert.equal(await page.getByRole("button", { name }).count(), 0, name);
  await satellite.remove();
});

claim("a session that ends leads back to the sign-in, and from there to where one was", async (visit) => {
  const page = await visit.page("/console/log?event=connected");
  await page.locator("[data-feed=live]").waitFor();
  await page.context().clearCookies();
  await page.reload();
  await page.getByLabel("Token", { exact: true }).fill(tokens.read);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Log" }).waitFor();
  assert.match(page.url(), /\/console\/log\?event=connected$/);
});

claim("signing out ends the session of all tabs", async (visit) => {
  const page = await visit.page();
  await ready(page);
  const other = await page.context().newPage();
  await other.goto("/console/");
  await ready(other);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Token", { exact: true }).waitFor();
  await until("the other tab asks for a token", () => other.getByLabel("Token", { exact: true }).isVisible());
});

await prove();
