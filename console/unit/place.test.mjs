import assert from "node:assert/strict";
import { test } from "node:test";
import { asOf, filterCount, read, selection, write } from "../src/place/place.ts";

const round = (address) => {
  const [path, search = ""] = address.split("?");
  return write(read(path, search === "" ? "" : `?${search}`));
};

test("an address that names a place is written as it was read", () => {
  for (const address of [
    "/console/",
    "/console/?status=offline&region=eu-west&q=edge",
    "/console/?tag=tier:gold&tag=rack:7",
    "/console/?span=24h&at=2026-03-01T12:00:00.000Z",
    "/console/?position=4711",
    "/console/?sort=-lastSeenAt&view=table&span=7d",
    "/console/log?event=heartbeat_lost",
    "/console/satellites/4ff1f6cc-3ba7-4a4b-9d25-3b3c14b0f4ba?span=15m",
    "/console/what-if",
    "/console/audit?event=api.refused",
  ]) {
    assert.equal(round(address), address);
  }
});

test("what an address says that is not understood is left out", () => {
  assert.equal(round("/console/?span=3y&view=globe&at=yesterday&position=-1&colour=red"), "/console/");
  assert.deepEqual(read("/console/nothing/here", "").route, { page: "nowhere", path: "/console/nothing/here" });
});

test("a position goes before a moment, as the server takes one of them", () => {
  const place = read("/console/", "?at=2026-03-01T12:00:00Z&position=7");
  assert.equal(asOf(new URLSearchParams(), place).toString(), "position=7");
});

test("filters become the parameters of the API, but for those that are left out", () => {
  const { filters } = read("/console/", "?status=online&region=eu&tag=a:b&neverConnected=true");
  assert.equal(filterCount(filters), 4);
  assert.equal(selection(filters, ["region", "status"]).toString(), "neverConnected=true&tag=a%3Ab");
});
