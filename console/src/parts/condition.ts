/**
 * How a satellite is, in one word: what its status, its last edge and its marks come to.
 *
 * Each has a word, a shape and a colour, so that none of them carries the meaning alone. Pure.
 */

import type { Satellite, Transition } from "../api/types.ts";

export type Condition = "online" | "lost" | "gone" | "never" | "disabled" | "maintenance" | "unknown";

export const WORDS: Record<Condition, string> = {
  online: "online",
  lost: "lost",
  gone: "disconnected",
  never: "never connected",
  disabled: "disabled",
  maintenance: "in maintenance",
  unknown: "unknown",
};

/** What each means, for the legend. */
export const MEANINGS: Record<Condition, string> = {
  online: "It was heard within its threshold.",
  lost: "It is offline: it fell silent, or its connection broke.",
  gone: "It is offline: it closed its connection.",
  never: "It is registered and has not connected yet.",
  disabled: "It is not let in until it is enabled.",
  maintenance: "It is offline within a planned window.",
  unknown: "Nothing is known: nobody could observe it.",
};

type Shown = Pick<Satellite, "status" | "lastEvent" | "disabled" | "maintenance">;

export function condition(satellite: Shown): Condition {
  if (satellite.status === "online") return "online";
  if (satellite.status !== "offline") return "unknown";
  if (satellite.disabled) return "disabled";
  if (satellite.maintenance) return "maintenance";
  if (satellite.lastEvent === undefined) return "never";
  return satellite.lastEvent === "disconnected" ? "gone" : "lost";
}

/** The words for an edge. */
export const EDGE_WORDS: Record<string, string> = {
  connected: "connected",
  disconnected: "disconnected",
  heartbeat_lost: "heartbeat lost",
  removed: "removed",
};

/** The words for a reason. */
export function reasonWords(reason: string): string {
  return reason.replaceAll("_", " ");
}

/** The condition that an edge leads to. */
export function conditionAfter(edge: Pick<Transition, "event" | "next">): Condition {
  switch (edge.event) {
    case "connected":
      return "online";
    case "disconnected":
      return "gone";
    case "heartbeat_lost":
      return "lost";
    case "removed":
      return "disabled";
    default:
      return edge.next?.status === "online" ? "online" : "unknown";
  }
}

/** A satellite after one of its edges; undefined after its removal. */
export function after(satellite: Satellite, edge: Transition): Satellite | undefined {
  if (edge.next === null) return undefined;
  const next: Satellite = {
    ...satellite,
    name: edge.next.name,
    region: edge.next.region,
    status: edge.next.status,
    lastSeenAt: edge.next.lastSeenAt,
    flapping: edge.next.flapping ?? false,
  };
  if (edge.next.lastEvent !== null) next.lastEvent = edge.next.lastEvent;
  if (edge.reason === "disabled") next.disabled = true;
  // Whoever was let in is not disabled.
  if (edge.event === "connected") delete next.disabled;
  return next;
}
