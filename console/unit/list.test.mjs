import assert from "node:assert/strict";
import { test } from "node:test";
import { BLOCK, SatelliteList } from "../src/fleet/list.ts";

/** Who is there, by number. */
const fleet = (size) => Array.from({ length: size }, (_, n) => ({ id: `id-${n}`, name: `site-${n}`, status: "online" }));

/** A list over these, the server's answers, and what it was asked. */
function over(satellites) {
  const asked = [];
  const server = { satellites };
  globalThis.fetch = async (path) => {
    const query = new URL(path, "http://pod").searchParams;
    asked.push(`${query.has("cursor") ? "cursor" : "offset"} ${query.get("cursor") ?? query.get("offset") ?? 0} limit ${query.get("limit")}`);
    const begin = Number(query.get("cursor") ?? query.get("offset") ?? 0);
    const end = begin + Number(query.get("limit"));
    const page = { satellites: server.satellites.slice(begin, end), ...(end < server.satellites.length ? { nextCursor: String(end) } : {}) };
    return new Response(JSON.stringify(page), { headers: { "content-type": "application/json" } });
  };
  const list = new SatelliteList(new URLSearchParams(), "name", () => {});
  return { list, asked, server };
}

/** Looks at these rows until they are there, and nothing more is asked for. */
async function look(list, asked, from, to) {
  list.want(from, to);
  let seen;
  do {
    seen = asked.length;
    await new Promise((resolve) => setTimeout(resolve, 5));
  } while (seen !== asked.length || list.isWaitedFor);
}

test("a jump reads what is in view and beside it in one request, and nothing between", async () => {
  const { list, asked } = over(fleet(100_000));
  list.count(100_000);
  await look(list, asked, 0, 40);
  assert.deepEqual(asked.splice(0), ["offset 0 limit 200", "cursor 200 limit 200"]);
  await look(list, asked, 50_010, 50_050);
  assert.equal(list.get(50_030).name, "site-50030");
  assert.deepEqual(asked.splice(0), ["offset 49800 limit 600"]);
  await look(list, asked, 99_960, 100_000);
  assert.equal(list.get(99_999).name, "site-99999");
  assert.equal(list.get(100_000), undefined);
  assert.equal(list.isOld, false);
});

test("rows are read on by cursor", async () => {
  const { list, asked } = over(fleet(1000));
  list.count(1000);
  await look(list, asked, 0, 40);
  await look(list, asked, 0, 1000);
  assert.equal(list.loaded, 1000);
  assert.deepEqual(asked, ["offset 0 limit 200", "cursor 200 limit 200", "cursor 400 limit 600"]);
});

test("where two reads do not fit together the list is old", async () => {
  const { list, asked, server } = over(fleet(1000));
  list.count(1000);
  await look(list, asked, 600, 640);
  assert.equal(list.isOld, false);
  server.satellites = server.satellites.slice(1);
  await look(list, asked, 300, 340);
  assert.equal(list.isOld, true);
  const other = over(fleet(1000));
  other.list.count(1000);
  await look(other.list, other.asked, 600, 640);
  other.list.count(1001);
  assert.equal(other.list.isOld, true);
});

test("a list that is shorter than the count says so, and one that grew is read to its end", async () => {
  const { list, asked } = over(fleet(30));
  list.count(500);
  await look(list, asked, 450, 490);
  assert.equal(list.length, 30);
  const grown = over(fleet(450));
  grown.list.count(300);
  await look(grown.list, grown.asked, 260, 300);
  assert.equal(grown.list.length, 450);
});

test("what is far from the view is let go", async () => {
  const { list, asked } = over(fleet(100_000));
  list.count(100_000);
  for (let from = 0; from < 100_000; from += BLOCK * 5) await look(list, asked, from, from + BLOCK);
  assert.ok(list.loaded <= 100 * BLOCK, `${list.loaded}`);
  assert.equal(list.get(0), undefined);
  list.apply([{ id: "id-99900", event: "disconnected", next: { status: "offline" } }], false);
});

test("what is read again is what is in view", async () => {
  const { list, asked } = over(fleet(100_000));
  list.count(100_000);
  await look(list, asked, 0, 40);
  await look(list, asked, 70_000, 70_040);
  asked.length = 0;
  list.old();
  await list.reread();
  assert.equal(asked[0], "offset 70000 limit 200");
  assert.equal(list.get(70_000).name, "site-70000");
  assert.equal(list.get(0), undefined);
});
