import assert from "node:assert/strict";
import { test } from "node:test";
import { away, problemOf, retryAfter } from "../src/api/problem.ts";

test("a problem has the server's words, and words of its own where it said none", () => {
  const said = problemOf(410, { type: "urn:groundstation:problem:dropped", title: "No longer known", detail: "It was dropped." }, undefined);
  assert.deepEqual([said.title, said.detail, said.isPassing], ["No longer known", "It was dropped.", false]);
  const proxy = problemOf(502, "<html>", undefined);
  assert.match(proxy.title, /502/);
  assert.ok(proxy.detail.length > 0 && proxy.isPassing);
  assert.ok(away().isPassing);
});

test("Retry-After has seconds or a date", () => {
  assert.equal(retryAfter("3", 0), 3000);
  assert.equal(retryAfter("Thu, 01 Jan 1970 00:00:10 GMT", 4000), 6000);
  for (const nothing of [null, "", "soon"]) assert.equal(retryAfter(nothing, 0), undefined);
});
