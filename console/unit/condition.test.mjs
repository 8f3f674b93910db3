import assert from "node:assert/strict";
import { test } from "node:test";
import { after, condition, conditionAfter } from "../src/parts/condition.ts";

const satellite = { id: "1", name: "edge", region: "eu", tags: { a: "b" }, capabilities: [], status: "offline", lastSeenAt: null, createdAt: "2026-03-01T12:00:00.000Z" };

test("a satellite's condition is one word of its status and its last edge", () => {
  for (const [part, word] of [
    [{}, "never"],
    [{ lastEvent: "disconnected" }, "gone"],
    [{ lastEvent: "heartbeat_lost" }, "lost"],
    [{ lastEvent: "connected" }, "lost"],
    [{ status: "online", lastEvent: "connected" }, "online"],
    [{ status: "hibernating" }, "unknown"],
    [{ lastEvent: "disconnected", disabled: true }, "disabled"],
  ]) {
    assert.equal(condition({ ...satellite, ...part }), word);
  }
});

test("an edge tells whether its satellite is disabled", () => {
  const gone = { status: "offline", name: "edge", region: "eu", lastSeenAt: null, lastEvent: "disconnected" };
  const here = { ...gone, status: "online", lastEvent: "connected" };
  const disabled = after(satellite, { event: "disconnected", reason: "disabled", next: gone });
  assert.equal(condition(disabled), "disabled");
  assert.equal(condition(after(satellite, { event: "disconnected", reason: "kicked", next: gone })), "gone");
  assert.equal(condition(after(disabled, { event: "connected", reason: "connect", next: here })), "online");
});

test("an edge changes what it tells of, and nothing else", () => {
  const next = { status: "online", name: "edge-2", region: "us", lastSeenAt: "2026-03-01T12:00:00.000Z", lastEvent: "connected" };
  const changed = after(satellite, { event: "connected", next });
  assert.deepEqual([changed.name, changed.status, changed.tags, changed.flapping], ["edge-2", "online", { a: "b" }, false]);
  assert.equal(after(satellite, { event: "removed", next: null }), undefined);
  assert.equal(conditionAfter({ event: "heartbeat_lost", next }), "lost");
});
