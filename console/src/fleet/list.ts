/**
 * The satellites of a selection, in order, as far as they are read.
 *
 * Pages come by cursor, so they are read from the front; from the back too, in the other order, so that the end of
 * 100,000 is as near as their beginning. Edges change satellites in place. Who no longer belongs to the selection
 * stays until the list is read again: rows do not move under the hand.
 */

import { asProblem, get, isAbort } from "../api/client.ts";
import type { Problem } from "../api/problem.ts";
import type { Satellite, SatellitePage, Transition } from "../api/types.ts";
import { after } from "../parts/condition.ts";

/** The first page is small, to be there at once. */
const FIRST_PAGE = 200;
const PAGE = 1000;
const LONGEST_PAUSE_MS = 15_000;

/** How many may be read again without a word when the selection has changed. */
const QUIETLY_REREAD = 1000;

interface End {
  satellites: Satellite[];
  cursor: string | undefined;
  isDone: boolean;
}

const emptyEnd = (): End => ({ satellites: [], cursor: undefined, isDone: false });

export class SatelliteList {
  problem: Problem | undefined;
  /** Whether something happened that can have changed who is on the list, and in which order. */
  isOld = false;
  /** Satellites that were removed since. */
  readonly removed = new Set<string>();

  #parameters: URLSearchParams;
  #order: string;
  #total: number | undefined;
  #front = emptyEnd();
  #back = emptyEnd();
  #wanted: [number, number] = [0, 0];
  #asked: AbortController | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #failures = 0;
  #changed: () => void;
  #ended = false;

  /** `parameters` select; `order` is the API's `sort`. */
  constructor(parameters: URLSearchParams, order: string, changed: () => void) {
    this.#parameters = parameters;
    this.#order = order;
    this.#changed = changed;
  }

  /** How many there are, as far as is known. */
  get length(): number {
    const { satellites, isDone } = this.#front;
    if (isDone) return satellites.length;
    return Math.max(this.#total ?? 0, satellites.length);
  }

  get isRead(): boolean {
    return this.#front.satellites.length > 0 || this.#front.isDone;
  }

  get isWhole(): boolean {
    return this.#front.isDone || this.#front.satellites.length + this.#back.satellites.length >= this.length;
  }

  get loaded(): number {
    return this.#front.satellites.length + this.#back.satellites.length;
  }

  /** Whether something in view is not read yet. */
  get isWaitedFor(): boolean {
    return this.isRead && this.#next() !== undefined;
  }

  get(index: number): Satellite | undefined {
    return this.#front.satellites[index] ?? this.#back.satellites[this.length - 1 - index];
  }

  /** The count from the server, of the same selection. */
  count(total: number): void {
    if (total === this.#total) return;
    this.#total = total;
    if (this.#front.isDone && this.#front.satellites.length !== total) this.old();
    this.#changed();
  }

  /** These indices are in view. */
  want(from: number, to: number): void {
    this.#wanted = [from, to];
    this.#go();
  }

  /** Takes what happened. */
  apply(edges: readonly Transition[], canMove: boolean): void {
    let isTouched = false;
    for (const edge of edges) {
      const at = this.#find(edge.id);
      if (!at) {
        if (canMove) this.isOld = true;
        continue;
      }
      const [end, i, satellite] = at;
      const next = after(satellite, edge);
      if (next) end.satellites[i] = next;
      else this.removed.add(edge.id);
      isTouched = true;
      if (canMove || !next) this.isOld = true;
    }
    if (isTouched || this.isOld) this.#changed();
  }

  old(): void {
    this.isOld = true;
    this.#changed();
  }

  /** Whether it may be read again by itself. */
  get isQuiet(): boolean {
    return this.#back.satellites.length === 0 && this.#front.satellites.length <= QUIETLY_REREAD;
  }

  /** Reads again what is there, and then shows it in place of the old. */
  async reread(): Promise<void> {
    if (this.#asked || this.#ended) return;
    this.isOld = false;
    const limit = Math.min(PAGE, Math.max(FIRST_PAGE, this.#front.satellites.length + 1));
    const asked = new AbortController();
    this.#asked = asked;
    try {
      const page = await this.#page(undefined, this.#order, limit, asked.signal);
      this.#front = { satellites: page.satellites, cursor: page.nextCursor, isDone: page.nextCursor === undefined };
      this.#back = emptyEnd();
      this.removed.clear();
      this.problem = undefined;
    } catch (error) {
      if (isAbort(error)) return;
      this.isOld = true;
      this.problem = asProblem(error);
    } finally {
      this.#asked = undefined;
      this.#changed();
    }
    this.#go();
  }

  /** Asks again after a problem. */
  retry(): void {
    this.problem = undefined;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#changed();
    this.#go();
  }

  end(): void {
    this.#ended = true;
    clearTimeout(this.#timer);
    this.#asked?.abort();
  }

  #find(id: string): [End, number, Satellite] | undefined {
    for (const end of [this.#front, this.#back]) {
      const i = end.satellites.findIndex((satellite) => satellite.id === id);
      const satellite = end.satellites[i];
      if (satellite) return [end, i, satellite];
    }
    return undefined;
  }

  #go(): void {
    if (this.#ended || this.#asked || this.#timer !== undefined || (this.problem && !this.problem.isPassing)) return;
    const end = this.#next();
    if (end) void this.#read(end);
  }

  /** Which end to go on at, for what is in view; none where that is there. */
  #next(): End | undefined {
    const [front, back] = [this.#front, this.#back];
    if (!this.isRead) return front;
    if (this.isWhole) return undefined;
    const [from, to] = [this.#wanted[0], Math.min(this.#wanted[1], this.length)];
    let first = from;
    while (first < to && this.get(first)) first += 1;
    if (first >= to) return undefined;
    const toFront = first - front.satellites.length;
    const toBack = this.length - back.satellites.length - to;
    return toFront <= Math.max(toBack, 0) || back.isDone ? front : back;
  }

  async #read(end: End): Promise<void> {
    const asked = new AbortController();
    this.#asked = asked;
    const isFront = end === this.#front;
    const order = isFront ? this.#order : inverse(this.#order);
    const limit = end.satellites.length === 0 && isFront ? FIRST_PAGE : PAGE;
    let pause: number | undefined;
    try {
      const page = await this.#page(end.cursor, order, limit, asked.signal);
      end.satellites = end.satellites.concat(page.satellites);
      end.cursor = page.nextCursor;
      end.isDone = page.nextCursor === undefined;
      this.problem = undefined;
      this.#failures = 0;
    } catch (error) {
      if (this.#ended || isAbort(error)) return;
      const problem = asProblem(error);
      this.problem = problem;
      if (problem.isPassing) {
        this.#failures += 1;
        pause = problem.retryAfterMs ?? Math.min(LONGEST_PAUSE_MS, 500 * 2 ** this.#failures);
      }
    } finally {
      this.#asked = undefined;
      if (!this.#ended) this.#changed();
    }
    if (pause === undefined) this.#go();
    else {
      this.#timer = setTimeout(() => {
        this.#timer = undefined;
        this.#go();
      }, pause);
    }
  }

  async #page(cursor: string | undefined, order: string, limit: number, signal: AbortSignal): Promise<SatellitePage> {
    const query = new URLSearchParams(this.#parameters);
    query.set("sort", order);
    query.set("limit", String(limit));
    if (cursor !== undefined) query.set("cursor", cursor);
    return await get<SatellitePage>(`/v1/satellites?${query}`, signal);
  }
}

export function inverse(order: string): string {
  return order.startsWith("-") ? order.slice(1) : `-${order}`;
}
