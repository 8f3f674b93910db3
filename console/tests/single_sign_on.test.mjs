// A person signs in at an identity provider, which is a certified one.

import { assert, claim, holds, prove, ready, shoot, until } from "./page.mjs";

/** The provider's own pages: who one is, and that the page may know it. */
async function atTheProvider(page, name) {
  await page.locator("input[name=login]").fill(name);
  await page.locator("input[name=password]").fill("anything");
  await page.locator("button[type=submit]").click();
  await page.getByRole("button", { name: "Continue" }).click();
}

const signInButton = (page) => page.getByRole("button", { name: "Sign in with Example ID" });

claim("whoever signs in at the provider comes back to where it was, and sees who it is", async (visit) => {
  const page = await (await visit.stranger()).newPage();
  await page.goto("/console/log?event=connected");
  await signInButton(page).waitFor();
  await holds(page, "the sign-in page with a provider");
  await shoot(page, "sign-in-with-provider");
  await signInButton(page).click();
  await atTheProvider(page, "ada");
  await page.getByRole("heading", { name: "Log" }).waitFor();
  assert.match(page.url(), /\/console\/log\?event=connected$/);
  await page.getByText("ada · operator").waitFor();
  assert.deepEqual(await page.evaluate(() => [document.cookie, Object.values(localStorage).join()]), ["", ""], "the page keeps nothing");
  await page.goto("/console/");
  await ready(page);
  await page.getByRole("button", { name: "Register a satellite" }).waitFor();
  await holds(page, "the fleet of somebody who signed in by name");
});

claim("signing out ends the session, also for whoever kept its cookie", async (visit) => {
  const context = await visit.stranger();
  const page = await context.newPage();
  await page.goto("/console/");
  await signInButton(page).click();
  await atTheProvider(page, "ada");
  await ready(page);
  const kept = await context.cookies();
  await page.getByRole("button", { name: "Sign out" }).click();
  await signInButton(page).waitFor();
  await context.addCookies(kept);
  await page.reload();
  await signInButton(page).waitFor();
});

claim("whoever is in none of the groups is told so, once, and can sign in with a token", async (visit) => {
  const page = await (await visit.stranger()).newPage();
  await page.goto("/console/");
  await signInButton(page).click();
  await atTheProvider(page, "mallory");
  const alert = page.getByRole("alert");
  await alert.waitFor();
  assert.match(await alert.textContent(), /none of your groups is let in here/);
  await holds(page, "a refused single sign-on");
  await shoot(page, "sign-in-no-group");
  await until("the reason has left the address", () => !page.url().includes("refused"));
  await page.reload();
  await signInButton(page).waitFor();
  assert.equal(await page.getByRole("alert").count(), 0);
  await page.getByLabel("Token", { exact: true }).waitFor();
});

claim("whoever cancels at the provider is told that nobody was signed in", async (visit) => {
  const page = await (await visit.stranger()).newPage();
  await page.goto("/console/");
  await signInButton(page).click();
  await page.getByRole("link", { name: /Cancel/ }).click();
  assert.match(await page.getByRole("alert").textContent(), /did not sign you in/);
});

await prove();
