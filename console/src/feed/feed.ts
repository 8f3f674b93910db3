/**
 * The live feed as this tab has it: the newest edges without a gap, and how the stream stands.
 *
 * The log's newest page and the shared stream are put together by position. Positions have no gap, so whatever is
 * missing between them shows, and is read from the log.
 */

import { findSession } from "../api/session.ts";
import { ask, asProblem } from "../api/client.ts";
import { Store } from "../parts/store.ts";
import type { Problem } from "../api/problem.ts";
import type { Transition, TransitionPage } from "../api/types.ts";
import type { FeedState, FromFeed, ToFeed } from "./messages.ts";
import { merge } from "./merge.ts";
import { FeedSource } from "./source.ts";

declare const FEED_WORKER: string;

/** How many edges a tab keeps. */
export const KEPT = 500;

/** How many of them are read from the log at first. */
const FIRST_PAGE = 60;

/** More than this is not read to fill a gap: the list begins anew. */
const LARGEST_GAP = 1000;

export interface Feed {
  state: FeedState;
  /** The newest position this tab knows of. */
  position: number | undefined;
  /** The newest first. */
  edges: readonly Transition[];
  /** The positions that came live, to be marked as new. */
  liveFrom: number;
  problem: Problem | undefined;
  /** Whether the log's newest page has come. */
  isRead: boolean;
}

export const feed = new Store<Feed>({
  state: { is: "connecting" },
  position: undefined,
  edges: [],
  liveFrom: Number.POSITIVE_INFINITY,
  problem: undefined,
  isRead: false,
});

type Listener = (edges: readonly Transition[]) => void;
const listeners = new Set<Listener>();
const resets = new Set<() => void>();

/** Calls back with edges that just happened. */
export function onEdges(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Calls back when everything has to be read again. */
export function onGap(listener: () => void): () => void {
  resets.add(listener);
  return () => resets.delete(listener);
}

let send: ((message: ToFeed) => void) | undefined;

/** Joins the stream. */
export function startFeed(): void {
  if (!send) send = connect();
  send({ kind: "hello" });
  void readNewest();
}

/** Leaves it, for all tabs: the session ended. */
export function stopFeed(): void {
  send?.({ kind: "stop" });
  feed.set({ state: { is: "signed-out" }, position: undefined, edges: [], liveFrom: Number.POSITIVE_INFINITY, problem: undefined, isRead: false });
}

/** Connects again at once. */
export function hurryFeed(): void {
  send?.({ kind: "now" });
}

function connect(): (message: ToFeed) => void {
  if (typeof SharedWorker === "function") {
    const { port } = new SharedWorker(FEED_WORKER, { name: "groundstation-feed" });
    port.onmessage = ({ data }: MessageEvent<FromFeed>) => take(data);
    port.start();
    addEventListener("pagehide", () => port.postMessage({ kind: "bye" } satisfies ToFeed));
    addEventListener("pageshow", (event) => {
      // Back from the browser's cache of pages: the worker may be another one by now.
      if (event.persisted) location.reload();
    });
    return (message) => port.postMessage(message);
  }
  const source = new FeedSource(take);
  return (message) => {
    if (message.kind === "hello") {
      source.start();
      source.greeting().forEach(take);
    } else if (message.kind === "now") source.now();
    else source.stop();
  };
}

addEventListener("online", () => hurryFeed());

function take(message: FromFeed): void {
  switch (message.kind) {
    case "state":
      feed.set({ ...feed.value, state: message.state, position: newest(feed.value.position, message.position) });
      // The stream was refused, or somebody signed out in another tab.
      if (message.state.is === "signed-out") void findSession();
      break;
    case "edges":
      takeEdges(message.edges, true);
      break;
    case "gap":
      feed.set({ ...feed.value, position: undefined, edges: [] });
      for (const reset of resets) reset();
      void readNewest();
  }
}

function takeEdges(edges: readonly Transition[], isLive: boolean): void {
  if (edges.length === 0) return;
  const before = feed.value;
  const known = before.edges[0]?.position;
  const fresh = known === undefined ? [] : edges.filter((edge) => edge.position > known);
  const merged = merge(before.edges, edges, KEPT);
  const first = fresh[0]?.position;
  feed.set({
    ...before,
    edges: merged.edges,
    position: newest(before.position, merged.edges[0]?.position),
    liveFrom: isLive && first !== undefined ? Math.min(before.liveFrom, first) : before.liveFrom,
  });
  if (isLive && fresh.length > 0) for (const listener of listeners) listener(fresh);
  if (merged.missingAfter !== undefined) void fill(merged.missingAfter);
}

async function readNewest(): Promise<void> {
  try {
    const { body } = await ask<TransitionPage>(`/v1/transitions?order=desc&limit=${FIRST_PAGE}`);
    feed.set({ ...feed.value, problem: undefined, isRead: true });
    takeEdges([...body.transitions].reverse(), false);
  } catch (error) {
    feed.set({ ...feed.value, problem: asProblem(error) });
  }
}

let filling = false;

/** Reads what is missing behind a position. */
async function fill(after: number): Promise<void> {
  if (filling) return;
  filling = true;
  try {
    const { body } = await ask<TransitionPage>(`/v1/transitions?after=${after}&limit=${LARGEST_GAP}`);
    takeEdges(body.transitions, true);
  } catch (error) {
    feed.set({ ...feed.value, problem: asProblem(error) });
  } finally {
    filling = false;
  }
}

function newest(a: number | undefined, b: number | undefined): number | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return Math.max(a, b);
}
