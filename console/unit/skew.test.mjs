import assert from "node:assert/strict";
import { test } from "node:test";
import { skewOf } from "../src/parts/skew.ts";

const SENT = Date.parse("2026-03-01T12:00:00Z");
const date = (ms) => new Date(ms).toUTCString();

test("a clock that is an hour wrong is put right, either way", () => {
  assert.equal(skewOf(date(SENT + 3_600_000), SENT, SENT + 100), 3_600_000);
  assert.equal(skewOf(date(SENT - 3_600_000), SENT, SENT + 100), -3_600_000);
});

test("a clock that is about right is left alone", () => {
  for (const off of [-4000, -1000, 0, 1000, 4000]) assert.equal(skewOf(date(SENT + off), SENT, SENT + 40), 0);
});

test("an answer that took long, or says no time, tells nothing", () => {
  assert.equal(skewOf(date(SENT + 3_600_000), SENT, SENT + 6000), undefined);
  assert.equal(skewOf(date(SENT + 3_600_000), SENT, SENT - 1), undefined);
  assert.equal(skewOf(null, SENT, SENT), undefined);
  assert.equal(skewOf("yesterday", SENT, SENT), undefined);
});
