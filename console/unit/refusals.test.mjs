// Why a single sign-on came to nothing, and where the next one begins.

import assert from "node:assert/strict";
import { test } from "node:test";
import { begin, refusal } from "../src/shell/refusals.ts";

test("whoever was refused is told why, whatever the word", () => {
  assert.equal(refusal(""), undefined);
  assert.match(refusal("?refused=no-group").detail, /none of your groups/);
  for (const word of ["", "constructor", "__proto__", "<script>"]) assert.equal(refusal(`?refused=${word}`).title, "Nobody was signed in", word);
});

test("a sign-on leads back to where one was, and from the sign-in to the beginning", () => {
  assert.equal(begin("/console/log", "?event=connected&tag=a:b"), "/console/session/oidc?to=%2Fconsole%2Flog%3Fevent%3Dconnected%26tag%3Da%3Ab");
  assert.equal(begin("/console/sign-in", "?refused=no-group"), "/console/session/oidc");
});
