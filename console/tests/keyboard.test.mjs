// The page with the keyboard alone.

import { Satellite, assert, claim, prove, ready, tokens, uniqueName, until } from "./page.mjs";

const focused = (page) => page.evaluate(() => document.activeElement?.textContent?.trim() || document.activeElement?.id);

claim("signing in, searching, opening a satellite and going back need no pointer", async (visit) => {
  const mark = uniqueName("keys");
  const some = [];
  for (let i = 0; i < 3; i += 1) some.push(await Satellite.register(mark));
  const page = await (await visit.stranger()).newPage();
  await page.goto("/console/?view=table");
  await page.getByLabel("Token", { exact: true }).waitFor();
  await until("the field has the focus", async () => (await focused(page)) === "token");
  await page.keyboard.type(tokens.admin);
  await page.keyboard.press("Enter");
  await ready(page);
  await page.keyboard.press("/");
  await page.keyboard.type(mark);
  await until("three are found", async () => (await page.locator(".row-link").count()) === 3);
  await page.keyboard.press("Escape");
  assert.equal(await page.getByLabel("Search by name").inputValue(), mark, "Escape leads out and empties nothing");
  await page.keyboard.press("g");
  await page.keyboard.press("s");
  const links = await page.locator(".row-link").allTextContents();
  await until("the first row has the focus", async () => (await focused(page)) === links[0]);
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("j");
  await until("the third has it", async () => (await focused(page)) === links[2]);
  await page.keyboard.press("Home");
  await until("the first has it again", async () => (await focused(page)) === links[0]);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: links[0] }).waitFor();
  await page.keyboard.press("g");
  await page.keyboard.press("f");
  await ready(page);
  for (const satellite of some) await satellite.remove();
});

claim("cells are walked in lines and columns", async (visit) => {
  const mark = uniqueName("walked");
  const some = [];
  for (let i = 0; i < 4; i += 1) some.push(await Satellite.register(mark));
  const page = await visit.page(`/console/?view=cells&q=${mark}`);
  await until("four cells", async () => (await page.locator(".cell").count()) === 4);
  await page.locator(".cell").first().focus();
  const label = () => page.evaluate(() => document.activeElement?.getAttribute("aria-label"));
  const first = await label();
  await page.keyboard.press("ArrowRight");
  const second = await label();
  assert.notEqual(first, second);
  await page.locator(".peek-name").filter({ hasText: second.split(",")[0] }).waitFor();
  await page.keyboard.press("End");
  assert.match(await label(), new RegExp(some[3].name));
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: some[3].name }).waitFor();
  for (const satellite of some) await satellite.remove();
});

claim("keys are documented by ?, go through time, and can be switched off", async (visit) => {
  const satellite = await Satellite.register("stepped");
  await satellite.connect();
  satellite.disconnect();
  const page = await visit.page();
  await ready(page);
  await page.keyboard.press("?");
  const dialog = page.getByRole("dialog", { name: "Keys and signs" });
  await dialog.waitFor();
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });
  await until("a position is known", async () => /position [0-9]/.test(await page.locator(".as-of").textContent()));
  await page.keyboard.press(",");
  await until("one edge earlier", () => /position=/.test(page.url()));
  await page.locator(".as-of.is-past").waitFor();
  await page.keyboard.press("n");
  await until("the present", () => !/position=/.test(page.url()));
  await page.keyboard.press("g");
  await page.keyboard.press("l");
  await page.getByRole("heading", { name: "Log" }).waitFor();
  const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
  await page.keyboard.press("t");
  await until("dark", async () => (await theme()) === "dark");
  await page.reload();
  assert.equal(await theme(), "dark", "the theme is kept");
  await page.locator("[data-feed=live]").waitFor();
  await page.keyboard.press("?");
  await page.getByLabel("Single letters work as keys").focus();
  await page.keyboard.press("Space");
  await page.keyboard.press("Escape");
  await page.keyboard.press("t");
  await page.keyboard.press("?");
  await dialog.waitFor();
  assert.equal(await theme(), "dark", "t does nothing any more, and ? still helps");
  await satellite.remove();
});

claim("whatever is reached by Tab shows that it has the focus, and the content is one step away", async (visit) => {
  const page = await visit.page();
  await ready(page);
  await page.keyboard.press("Tab");
  assert.equal(await focused(page), "To the content");
  for (let i = 0; i < 25; i += 1) {
    await page.keyboard.press("Tab");
    const seen = await page.evaluate(() => {
      const element = document.activeElement;
      if (!element || element === document.body) return "nothing";
      const { outlineStyle } = getComputedStyle(element);
      const { outlineStyle: around } = getComputedStyle(element.parentElement?.parentElement ?? element);
      return outlineStyle !== "none" || around !== "none" ? "seen" : `no outline on ${element.className || element.tagName}`;
    });
    assert.ok(["seen", "nothing"].includes(seen), seen);
  }
});

await prove();
