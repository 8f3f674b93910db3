// The fleet as it is and as it was: filters, the feed in every tab, the slider through time.

import { Satellite, api, assert, claim, holds, prove, ready, shoot, uniqueName, until, wire } from "./page.mjs";

/** The names that the page shows, whichever way. */
const names = (page) => page.locator(".card-link, .row-link").allTextContents();

claim("filters select the same satellites as the API, and are in the address", async (visit) => {
  const mark = uniqueName("mark");
  const some = [];
  for (const [region, tier] of [["eu-west", "gold"], ["eu-west", "iron"], ["us-east", "gold"]]) {
    some.push(await Satellite.register("filtered", { region, tags: { tier, mark } }));
  }
  const page = await visit.page(`/console/?view=table&tag=mark:${mark}`);
  await until("all three are there", async () => (await names(page)).length === 3);
  await page.getByLabel("Region", { exact: true }).selectOption("eu-west");
  await until("two are left", async () => (await names(page)).length === 2);
  await page.getByRole("button", { name: "More filters" }).click();
  await page.getByLabel("Tag, name:value").fill("tier:gold");
  await page.keyboard.press("Enter");
  await until("one is left", async () => (await names(page)).join() === some[0].name);
  const search = new URL(page.url()).searchParams;
  assert.deepEqual([search.get("region"), search.getAll("tag")], ["eu-west", [`mark:${mark}`, "tier:gold"]]);
  const { total } = await api(`/v1/fleet?region=eu-west&tag=mark:${mark}&tag=tier:gold`);
  await until("the count is the API's", async () => (await page.locator("#satellites-title .tabular").textContent()) === String(total));
  await page.getByRole("button", { name: "Remove the filter region eu-west" }).click();
  await until("two have gold", async () => (await names(page)).length === 2);
  await page.getByLabel("Search by name").fill(some[2].name);
  await until("the search finds one", async () => (await names(page)).join() === some[2].name);
  await page.goBack();
  for (const satellite of some) await satellite.remove();
});

claim("a computer whose clock is wrong sees the same span, and the same ages", async (visit) => {
  const satellite = await Satellite.register("clock");
  await satellite.connect();
  for (const skew of [3_600_000, -3_600_000]) {
    const page = await visit.page("/console/sign-in");
    await page.addInitScript((skew) => {
      const real = Date.now.bind(Date);
      Date.now = () => real() + skew;
    }, skew);
    const asked = page.waitForRequest((request) => request.url().includes("/v1/fleet/timeline"));
    await page.goto(`/console/?view=cards&span=15m&q=${satellite.name}`);
    const since = Date.parse(new URL((await asked).url()).searchParams.get("since"));
    const off = Math.abs(Date.now() - 15 * 60_000 - since);
    assert.ok(off < 60_000, `the span begins ${off} ms off`);
    await ready(page);
    await until("it was heard just now", async () => /now|\d s ago/.test(await page.locator("a.card, .card", { hasText: satellite.name }).first().textContent()));
  }
  await satellite.remove();
});

claim("an edge of a real satellite is in the feed of every tab within a second, and its row follows", async (visit) => {
  const satellite = await Satellite.register("followed");
  const page = await visit.page(`/console/?view=table&q=${satellite.name}`);
  await ready(page);
  const other = await page.context().newPage();
  const streams = [];
  page.context().on("request", (request) => request.url().includes("/transitions/stream") && streams.push(request.url()));
  await other.goto("/console/");
  await ready(other);
  const tabs = [page, other];
  const seen = async (tab, word) => {
    const first = tab.locator(".feed-edge", { hasText: satellite.name }).first();
    await first.filter({ hasText: word }).waitFor();
    return performance.now();
  };
  const step = async (word, act) => {
    const begun = performance.now();
    const sights = tabs.map((tab) => seen(tab, word));
    await act();
    return (await Promise.all(sights)).map((at) => at - begun);
  };
  const delays = [await step("connected", () => satellite.connect())];
  await page.locator("tr[data-row]", { hasText: satellite.name }).getByText("online").waitFor();
  delays.push(await step("disconnected", () => satellite.disconnect()));
  await page.locator("tr[data-row]", { hasText: satellite.name }).getByText("disconnected").waitFor();
  for (let i = 0; i < 4; i += 1) {
    delays.push(await step("connected", () => satellite.connect()));
    delays.push(await step("disconnected", () => satellite.disconnect()));
  }
  // A busy machine may be late now and then; what is promised is what it mostly takes.
  const each = tabs.map((_, tab) => delays.map((both) => both[tab]).sort((a, b) => a - b)[Math.floor(delays.length / 2)]);
  console.log(`     half of the edges are seen within ${each.map((ms) => Math.round(ms)).join(" and ")} ms`);
  assert.ok(each.every((ms) => ms < 1000), `within a second in every tab: ${each}`);
  assert.equal(streams.length, 0, "the second tab opens no stream of its own");
  await satellite.remove();
});

claim("a satellite that falls silent is shown as lost, with its shape and word", async (visit) => {
  const satellite = await Satellite.register("silent", { threshold: 1500 });
  const page = await visit.page(`/console/?view=cards&q=${satellite.name}&span=15m`);
  await ready(page);
  await satellite.connect();
  await page.locator(".card.is-online").waitFor();
  satellite.fallSilent();
  await page.locator(".card.is-lost").getByText("lost").waitFor();
  await page.locator(".feed-edge", { hasText: satellite.name }).filter({ hasText: "heartbeat lost" }).waitFor();
  await until("its strip says that it went down", async () => /went down/.test(await page.locator(".card .strip").getAttribute("aria-label")));
  await satellite.remove();
});

claim("the slider shows the fleet as the API has it at that moment, and says of which position", async (visit) => {
  const satellite = await Satellite.register("moved");
  await satellite.connect();
  satellite.disconnect();
  await until("the log has both edges", async () => (await api(`/v1/satellites/${satellite.id}/transitions`)).transitions.length === 2);
  const [, gone] = (await api(`/v1/satellites/${satellite.id}/transitions`)).transitions;
  const page = await visit.page(`/console/?view=table&span=15m&q=${satellite.name}`);
  await ready(page);
  await page.locator(".slider input").focus();
  await page.keyboard.press("PageDown");
  await until("the address has a moment", () => new URL(page.url()).searchParams.has("at"));
  await page.locator(".as-of.is-past").waitFor();
  const at = () => new URL(page.url()).searchParams.get("at");
  await until("the counts are the API's", async () => {
    const { position } = await api(`/v1/fleet?at=${at()}`);
    return (await page.locator(".as-of strong").textContent()) === `As of position ${position.toLocaleString("en-US")}`;
  });
  await until("the list is the API's", async () => {
    const { satellites } = await api(`/v1/satellites?at=${at()}&q=${satellite.name}&sort=name`);
    return satellites.map(({ name }) => name).join() === (await names(page)).join();
  });
  // Right after its first edge it was online; right after its second it was not.
  await page.goto(`/console/?view=table&q=${satellite.name}&position=${gone.position - 1}`);
  const then = await api(`/v1/satellites?position=${gone.position - 1}&q=${satellite.name}`);
  const word = then.satellites[0].status;
  await page.locator("tr[data-row]", { hasText: satellite.name }).getByText(word, { exact: true }).waitFor();
  await page.getByRole("button", { name: "Later edge" }).click();
  await until("one edge later", async () => (await page.locator(".as-of strong").textContent()) === `As of position ${gone.position.toLocaleString("en-US")}`);
  await page.locator("tr[data-row]", { hasText: satellite.name }).getByText("disconnected").waitFor();
  await holds(page, "the past");
  await shoot(page, "past-light");
  await page.locator(".as-of").getByRole("button", { name: "Now" }).click();
  await until("the present", () => !/position=|at=/.test(page.url()));
  await satellite.remove();
});

claim("a feed that broke says that it reconnects, and has missed nothing when it is back", async (visit) => {
  const satellite = await Satellite.register("unseen");
  const line = await wire();
  try {
    for (const scheme of ["light", "dark"]) {
      const page = await visit.page("/console/", { base: line.base, scheme });
      await ready(page);
      line.cut();
      await page.locator("[data-feed=reconnecting]").waitFor();
      await page.locator(".feed-broken").waitFor();
      await holds(page, `a broken feed, ${scheme}`);
      await shoot(page, `feed-reconnecting-${scheme}`);
      await satellite.connect();
      satellite.disconnect();
      await until("the log has it", async () => (await api(`/v1/satellites/${satellite.id}`)).lastEvent === "disconnected");
      line.mend();
      await page.locator("[data-feed=live]").waitFor();
      const mine = page.locator(".feed-edge", { hasText: satellite.name });
      await mine.filter({ hasText: "disconnected" }).first().waitFor();
      const positions = await page.locator(".feed-edge").evaluateAll((edges) => edges.map((edge) => Number(edge.dataset.position)));
      assert.ok(positions.every((position, i) => i === 0 || position === positions[i - 1] - 1), `positions without a gap: ${positions}`);
      await page.context().close();
    }
  } finally {
    line.end();
    await satellite.remove();
  }
});

claim("time and filters of an address are what its reader sees", async (visit) => {
  const page = await visit.page("/console/?status=offline&span=6h&view=table&sort=-lastSeenAt");
  await ready(page);
  assert.equal(await page.getByLabel("Status", { exact: true }).inputValue(), "offline");
  assert.equal(await page.locator(".spans [aria-pressed=true]").textContent(), "6h");
  assert.equal(await page.locator("th[aria-sort=descending]").count(), (await page.locator("table.rows").count()) === 0 ? 0 : 1);
});

await prove();
