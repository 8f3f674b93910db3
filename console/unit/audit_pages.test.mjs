import assert from "node:assert/strict";
import { test } from "node:test";
import { behind, onTop } from "../src/log/audit_pages.ts";

const page = (positions, nextBefore) => ({ entries: positions.map((position) => ({ position })), nextAfter: positions[0] ?? 0, nextBefore });
const positions = (known) => known.entries.map((entry) => entry.position);

test("what comes is put on top once, and older pages behind", () => {
  let known = onTop(undefined, page([5, 4], 4));
  known = behind(known, page([3, 2, 1]));
  assert.deepEqual([positions(known), known.before], [[5, 4, 3, 2, 1], undefined]);
  known = onTop(known, page([6, 5], 5));
  assert.deepEqual([positions(known), known.before], [[6, 5, 4, 3, 2, 1], undefined]);
  assert.equal(onTop(known, page([6, 5], 5)), known);
});

test("where entries are missing in between it begins anew", () => {
  const known = onTop(onTop(undefined, page([5, 4], 4)), page([9, 8], 8));
  assert.deepEqual([positions(known), known.before], [[9, 8], 8]);
});

test("the first entry comes to an empty list", () => {
  assert.deepEqual(positions(onTop(onTop(undefined, page([])), page([1]))), [1]);
});
