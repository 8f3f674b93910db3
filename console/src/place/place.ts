/**
 * Where the page is: the route, the filters and the time, all of it in the address.
 *
 * Pure: an address goes in and a place comes out, and the other way round.
 */

/** The words by which satellites are selected; the same as the API's parameters. */
export interface Filters {
  status?: string;
  region?: string;
  tag: string[];
  q?: string;
  lastEvent?: string;
  flapping?: string;
  version?: string;
  neverConnected?: string;
  inactiveFor?: string;
}

/** The filters that are one text each. */
export const FILTER_NAMES = [
  "status",
  "region",
  "q",
  "lastEvent",
  "flapping",
  "version",
  "neverConnected",
  "inactiveFor",
] as const;

export type FilterName = (typeof FILTER_NAMES)[number];

/** The spans that strips and charts can have: their word in the address, and milliseconds. */
export const SPANS = {
  "15m": 15 * 60_000,
  "1h": 60 * 60_000,
  "6h": 6 * 60 * 60_000,
  "24h": 24 * 60 * 60_000,
  "7d": 7 * 24 * 60 * 60_000,
  "30d": 30 * 24 * 60 * 60_000,
} as const;

export type Span = keyof typeof SPANS;

export type View = "cards" | "cells" | "table";

export interface Place {
  route: Route;
  filters: Filters;
  sort?: string;
  view?: View;
  span: Span;
  /** The end of the span; now where it is absent. */
  until?: string;
  /** The moment the fleet is shown at; the present where neither this nor the position is there. */
  at?: string;
  position?: number;
  /** The kind of edges that the log shows; of actions, in the audit. */
  event?: string;
}

export type Route =
  | { page: "fleet" }
  | { page: "log" }
  | { page: "satellite"; id: string }
  | { page: "outages" }
  | { page: "maintenance" }
  | { page: "what-if" }
  | { page: "audit" }
  | { page: "sign-in" }
  | { page: "nowhere"; path: string };

const BASE = "/console/";

export const DEFAULT_SPAN: Span = "1h";

/** The place that an address names; what it does not understand is left out. */
export function read(path: string, search: string): Place {
  const given = new URLSearchParams(search);
  const filters: Filters = { tag: given.getAll("tag") };
  for (const name of FILTER_NAMES) {
    const value = given.get(name);
    if (value !== null && value !== "") filters[name] = value;
  }
  const span = given.get("span");
  const place: Place = { route: route(path), filters, span: span !== null && span in SPANS ? (span as Span) : DEFAULT_SPAN };
  const sort = given.get("sort");
  if (sort) place.sort = sort;
  const view = given.get("view");
  if (view === "cards" || view === "cells" || view === "table") place.view = view;
  const until = moment(given.get("until"));
  if (until) place.until = until;
  const position = given.get("position");
  const at = moment(given.get("at"));
  if (position !== null && /^[0-9]{1,15}$/.test(position)) place.position = Number(position);
  else if (at) place.at = at;
  const event = given.get("event");
  if (event) place.event = event;
  return place;
}

/** The address of a place. */
export function write(place: Place): string {
  const given = selection(place.filters);
  if (place.sort) given.set("sort", place.sort);
  if (place.view) given.set("view", place.view);
  if (place.span !== DEFAULT_SPAN) given.set("span", place.span);
  if (place.until) given.set("until", place.until);
  if (place.position !== undefined) given.set("position", String(place.position));
  else if (place.at) given.set("at", place.at);
  if (place.event) given.set("event", place.event);
  const query = given.toString().replaceAll("%3A", ":");
  return pathOf(place.route) + (query === "" ? "" : `?${query}`);
}

/** The filters as parameters of the API. */
export function selection(filters: Filters, without: readonly (FilterName | "tag")[] = []): URLSearchParams {
  const given = new URLSearchParams();
  for (const name of FILTER_NAMES) {
    const value = filters[name];
    if (value !== undefined && !without.includes(name)) given.set(name, value);
  }
  if (!without.includes("tag")) for (const tag of filters.tag) given.append("tag", tag);
  return given;
}

/** How many filters are set. */
export function filterCount(filters: Filters): number {
  return FILTER_NAMES.filter((name) => filters[name] !== undefined).length + filters.tag.length;
}

/** Adds the moment that is looked at. */
export function asOf(given: URLSearchParams, place: Pick<Place, "at" | "position">): URLSearchParams {
  if (place.position !== undefined) given.set("position", String(place.position));
  else if (place.at) given.set("at", place.at);
  return given;
}

/** Whether the past is looked at. */
export function isPast(place: Pick<Place, "at" | "position">): boolean {
  return place.at !== undefined || place.position !== undefined;
}

export function pathOf(route: Route): string {
  switch (route.page) {
    case "fleet":
      return BASE;
    case "satellite":
      return `${BASE}satellites/${route.id}`;
    case "nowhere":
      return route.path;
    default:
      return BASE + route.page;
  }
}

function route(path: string): Route {
  const rest = path.startsWith(BASE) ? path.slice(BASE.length).replace(/\/$/, "") : "";
  if (rest === "") return { page: "fleet" };
  const id = /^satellites\/([0-9a-fA-F-]{36})$/.exec(rest)?.[1];
  if (id !== undefined) return { page: "satellite", id: id.toLowerCase() };
  switch (rest) {
    case "log":
    case "outages":
    case "maintenance":
    case "what-if":
    case "audit":
    case "sign-in":
      return { page: rest };
    default:
      return { page: "nowhere", path };
  }
}

function moment(text: string | null): string | undefined {
  if (text === null) return undefined;
  const at = Date.parse(text);
  return Number.isNaN(at) ? undefined : new Date(at).toISOString();
}
