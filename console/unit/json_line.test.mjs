import assert from "node:assert/strict";
import { test } from "node:test";
import { lineOf } from "../src/satellite/json_line.ts";

const json = `[
  {
    "configId": "a [{ \\" }",
    "config": { "url": "x" }
  },
  {
    "configId": "b",
    "intervalSeconds": 0
  }
]`;

test("a path of the server is found as a line of the text", () => {
  assert.equal(lineOf(json, "assignments[0].configId"), 3);
  assert.equal(lineOf(json, "assignments[0].config.url"), 4);
  assert.equal(lineOf(json, "assignments[1].intervalSeconds"), 8);
  assert.equal(lineOf(json, "assignments[1]"), 6);
});

test("a field that is missing is looked for where it should be", () => {
  assert.equal(lineOf(json, "assignments[1].strategyId"), 9);
  assert.equal(lineOf("nothing", "assignments[0]"), undefined);
});
