import assert from "node:assert/strict";
import { test } from "node:test";
import { ago, count, duration, length, parseDuration, seen, share, when } from "../src/parts/format.ts";

test("lengths of time are told in their two largest units", () => {
  for (const [ms, text] of [[0, "0 s"], [12, "12 ms"], [1000, "1 s"], [61_000, "1 min 1 s"], [3_600_000, "1 h"], [90_061_000, "1 d 1 h"]]) {
    assert.equal(length(ms), text);
  }
  assert.equal(ago(0, 12_400), "12 s ago");
  assert.equal(ago(5, 10), "now");
});

test("a share is never rounded to all or to nothing", () => {
  for (const [part, whole, text] of [[0, 10, "0 %"], [10, 10, "100 %"], [99_999, 100_000, "> 99.99 %"], [1, 100_000, "< 0.01 %"], [1, 2, "50.0 %"], [0, 0, "–"]]) {
    assert.equal(share(part, whole), text);
  }
});

test("durations are written as the API reads them, and read as people write them", () => {
  for (const ms of [500, 90_000, 300_000, 7_200_000]) assert.equal(parseDuration(duration(ms)), ms);
  assert.equal(parseDuration(" 1.5 h "), 5_400_000);
  for (const text of ["", "soon", "5", "5 parsecs"]) assert.equal(parseDuration(text), undefined);
});

test("a moment of today has no day", () => {
  const now = Date.UTC(2026, 2, 1, 12);
  assert.equal(when(now - 3_600_000, now), "11:00:00");
  assert.equal(when(now - 86_400_000, now), "2026-02-28 12:00:00");
  assert.equal(count(1_234_567), "1,234,567");
});

test("what makes a text look like another one is marked, and scripts that need joiners stay", () => {
  assert.equal(seen("1.0\u202e0.9"), "1.0\ufffd0.9");
  assert.equal(seen("a\u0000b\u200bc\n"), "a\ufffdb\ufffdc\ufffd");
  for (const kept of ["1.2.3-rc.1+build", "نسخه\u200cها", "👩\u200d👧", "</script>"]) assert.equal(seen(kept), kept);
});
