import assert from "node:assert/strict";
import { test } from "node:test";
import { runs, spoken, sums } from "../src/fleet/runs.ts";

const at = (second) => new Date(second * 1000).toISOString();
const intervals = [
  { from: at(0), to: at(10), state: "unknown" },
  { from: at(10), to: at(60), state: "up", event: "connected", reason: "connect" },
  { from: at(60), to: at(70), state: "down", event: "heartbeat_lost", reason: "heartbeat_timeout" },
  { from: at(70), to: at(90), state: "up" },
];

test("states are cut to the window, and the last one goes on to its end where the window is live", () => {
  const live = runs(intervals, 5_000, 100_000, true);
  assert.deepEqual([live[0].from, live.at(-1).to, live.length], [5_000, 100_000, 4]);
  assert.equal(runs(intervals, 5_000, 100_000, false).at(-1).to, 90_000);
  assert.equal(runs(intervals, 65_000, 68_000, false).length, 1);
});

test("sums count losses, and unknown time is a sum of its own", () => {
  const list = runs(intervals, 0, 90_000, false);
  assert.deepEqual(sums(list), { up: 70_000, down: 10_000, unknown: 10_000, maintenance: 0, losses: 1 });
  assert.match(spoken(list), /^up 77\.8 %, down 11\.1 %, unknown 11\.1 % of 1 min 30 s; went down once$/);
});

test("a state of a later version is shown as unknown", () => {
  assert.equal(runs([{ from: at(0), to: at(1), state: "asleep" }], 0, 1000, false)[0].state, "unknown");
});
