import assert from "node:assert/strict";
import { test } from "node:test";
import { merge } from "../src/feed/merge.ts";

const edges = (...positions) => positions.map((position) => ({ position }));
const positions = (merged) => merged.edges.map((edge) => edge.position);

test("edges of the log and of the stream are each there once, the newest first", () => {
  const merged = merge(edges(5, 4, 3), edges(4, 5, 6, 7), 10);
  assert.deepEqual(positions(merged), [7, 6, 5, 4, 3]);
  assert.equal(merged.missingAfter, undefined);
});

test("a gap is seen at its older end", () => {
  assert.equal(merge(edges(5, 4), edges(9, 10), 10).missingAfter, 5);
  assert.equal(merge([], edges(9, 10), 10).missingAfter, undefined);
});

test("only the newest are kept", () => {
  assert.deepEqual(positions(merge(edges(3, 2, 1), edges(4), 2)), [4, 3]);
});
