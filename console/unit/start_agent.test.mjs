import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { startAgent } from "../src/actions/start_agent.ts";

test("the lines are those that the command prints", () => {
  const source = readFileSync(new URL("../../src/cli/start_agent.rs", import.meta.url), "utf8");
  const image = /IMAGE: &str = "([^"]+)"/.exec(source)[1];
  const format = /format!\(\s*"\\\n([\s\S]*?)"\s*\)/.exec(source)[1];
  const printed = format.replaceAll("{url}", "https://pods.example").replaceAll("{id}", "ID").replaceAll("{token}", "TOKEN").replaceAll("{IMAGE}", image);
  const lines = startAgent("https://pods.example/", "ID", "TOKEN");
  for (const [name, text] of Object.entries(lines)) assert.ok(printed.includes(text), name);
});
