// A fleet that is made up: answers of the API for as many satellites as wanted, the same each time.

import { instead } from "./page.mjs";

const REGIONS = ["eu-west", "eu-north", "us-east", "us-west", "ap-south", "sa-east", "af-south"];
const DAY = 24 * 3600_000;

/** A sequence of numbers from 0 to 1 that looks random and is not. */
function dice(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

const idOf = (n) => `00000000-0000-4000-8000-${String(n).padStart(12, "0")}`;

function satellite(n, now) {
  const roll = dice(n * 7919 + 13);
  const kind = roll();
  const region = REGIONS[Math.floor(roll() * REGIONS.length)];
  const seen = (ms) => new Date(now - ms).toISOString();
  const base = {
    id: idOf(n),
    name: `site-${String(n).padStart(6, "0")}`,
    region,
    tags: n % 5 === 0 ? { tier: "gold", rack: String(n % 40) } : { tier: "iron" },
    capabilities: ["http", "script"],
    version: n % 9 === 0 ? "0.5.1" : "0.5.0",
    createdAt: seen(90 * DAY),
  };
  if (kind < 0.95) return { ...base, status: "online", lastEvent: "connected", lastSeenAt: seen(roll() * 15_000), ...(kind < 0.01 ? { flapping: true } : {}) };
  if (kind < 0.975) return { ...base, status: "offline", lastEvent: "heartbeat_lost", lastSeenAt: seen(roll() * 3600_000) };
  if (kind < 0.99) return { ...base, status: "offline", lastEvent: "disconnected", lastSeenAt: null };
  const { version, ...unheard } = base;
  return { ...unheard, status: "offline", lastSeenAt: null };
}

function intervals(id, from, to, blind, isUp) {
  const roll = dice(Number(id.slice(-12)) * 31 + 5);
  const list = [];
  let at = from;
  let state = "up";
  const put = (until, what) => {
    if (until > at) list.push({ from: new Date(at).toISOString(), to: new Date(Math.min(until, to)).toISOString(), state: what });
    at = Math.min(until, to);
  };
  if (roll() < 0.2) put(from + roll() * (to - from) * 0.3, "unknown");
  while (at < to) {
    const left = to - at;
    if (blind && at < blind[0] && at + left > blind[0]) {
      put(blind[0], state);
      put(blind[1], "unknown");
      continue;
    }
    const long = state === "up" ? (0.2 + roll()) * (to - from) * 0.6 : (0.004 + roll() * 0.03) * (to - from);
    put(at + long, state);
    if (at >= to && (state === "up") !== isUp) list.at(-1).state = isUp ? "up" : "down";
    state = state === "up" ? (roll() < 0.1 ? "maintenance" : "down") : "up";
  }
  return list;
}

/** What the API answers of a fleet of this size. `blind` is a part of the window in which nobody could observe. */
export function madeUp(size, { blind = false } = {}) {
  const now = Date.now();
  const all = Array.from({ length: size }, (_, n) => satellite(n + 1, now));
  const order = (sort) => {
    const by = sort.replace("-", "");
    const sorted = [...all].sort((a, b) => String(a[by] ?? "").localeCompare(String(b[by] ?? "")) || a.name.localeCompare(b.name));
    return sort.startsWith("-") ? sorted.reverse() : sorted;
  };
  const orders = new Map();
  const count = (list) => ({
    total: list.length,
    online: list.filter((each) => each.status === "online").length,
    offline: list.filter((each) => each.status !== "online").length,
    neverConnected: list.filter((each) => each.lastEvent === undefined).length,
    flapping: list.filter((each) => each.flapping).length,
    inMaintenance: 0,
  });
  const counts = { ...count(all), regions: REGIONS.map((region) => ({ region, ...count(all.filter((each) => each.region === region)) })).filter((each) => each.total > 0), position: 48_211 };
  const blindIn = (from, to) => (blind ? [from + (to - from) * 0.55, from + (to - from) * 0.68] : undefined);
  return {
    "/v1/fleet": instead(counts),
    "/v1/satellites": instead((asked) => {
      const sort = asked.searchParams.get("sort") ?? "name";
      if (!orders.has(sort)) orders.set(sort, order(sort));
      const begin = Number(asked.searchParams.get("cursor") ?? asked.searchParams.get("offset") ?? 0);
      const end = begin + Number(asked.searchParams.get("limit") ?? 100);
      return { satellites: orders.get(sort).slice(begin, end), ...(end < size ? { nextCursor: String(end) } : {}) };
    }),
    "/v1/intervals": instead((asked) => {
      const from = Date.parse(asked.searchParams.get("since"));
      const to = Date.parse(asked.searchParams.get("until") ?? new Date().toISOString());
      const ids = asked.searchParams.get("ids").split(",");
      return { from: new Date(from).toISOString(), to: new Date(to).toISOString(), intervals: Object.fromEntries(ids.map((id) => [id, intervals(id, from, to, blindIn(from, to), all[Number(id.slice(-12)) - 1]?.status === "online")])) };
    }),
    "/v1/fleet/timeline": instead((asked) => {
      const from = Date.parse(asked.searchParams.get("since"));
      const to = Date.parse(asked.searchParams.get("until") ?? new Date().toISOString());
      const roll = dice(11);
      const dark = blindIn(from, to);
      const points = Array.from({ length: 200 }, (_, i) => {
        const at = from + ((to - from) * i) / 199;
        const unknown = dark && at >= dark[0] && at <= dark[1];
        const storm = Math.exp(-(((i - 60) / 6) ** 2)) * 0.35;
        const offline = Math.round(size * Math.min(1, 0.03 + storm + roll() * 0.02));
        return { at: new Date(at).toISOString(), online: unknown ? 0 : size - offline, offline: unknown ? 0 : offline, unknown: unknown ? size : 0 };
      });
      return { points };
    }),
  };
}
