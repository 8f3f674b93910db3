/**
 * The satellites of a selection, in order, as far as they are read.
 *
 * They are read in blocks, where somebody looks: by offset where one jumps, and by cursor where the block before is
 * there, so that nobody is passed over or read twice at the seam. Edges change satellites in place. Who no longer
 * belongs to the selection stays until the list is read again: rows do not move under the hand.
 */

import { asProblem, get, isAbort } from "../api/client.ts";
import type { Problem } from "../api/problem.ts";
import type { Satellite, SatellitePage, Transition } from "../api/types.ts";
import { after } from "../parts/condition.ts";

/** Satellites in a block: more than a screen of rows, and there at once. */
export const BLOCK = 200;

/** Blocks in one request, which has at most 1,000 satellites. */
const MOST_BLOCKS = 5;

/** Blocks that are kept; of more, those farthest from the view go. */
const KEPT_BLOCKS = 100;

const LONGEST_PAUSE_MS = 15_000;

/** How many may be read again without a word when the selection has changed. */
const QUIETLY_REREAD = 1000;

/** Satellites that were read together. */
interface Block {
  satellites: Satellite[];
  /** Where the next block begins; none at the end of the list, and within what was read at once. */
  cursor: string | undefined;
}

/** Blocks from `from` to before `to`. */
interface Blocks {
  from: number;
  to: number;
}

export class SatelliteList {
  problem: Problem | undefined;
  /** Whether something happened that can have changed who is on the list, and in which order. */
  isOld = false;
  /** Satellites that were removed since. */
  readonly removed = new Set<string>();

  #parameters: URLSearchParams;
  #order: string;
  #total: number | undefined;
  /** How many there are, where the last one was read. */
  #end: number | undefined;
  /** Behind the farthest that was read. */
  #reach = 0;
  #blocks = new Map<number, Block>();
  #blockOf = new Map<string, number>();
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
    return this.#end ?? Math.max(this.#total ?? 0, this.#reach);
  }

  get isRead(): boolean {
    return this.#blocks.size > 0;
  }

  get loaded(): number {
    return this.#blockOf.size;
  }

  /** Whether something in view is not read yet. */
  get isWaitedFor(): boolean {
    return this.isRead && this.#missing(0) !== undefined;
  }

  get(index: number): Satellite | undefined {
    return this.#blocks.get(Math.floor(index / BLOCK))?.satellites[index % BLOCK];
  }

  /** The count from the server, of the same selection. */
  count(total: number): void {
    if (total === this.#total) return;
    const isOther = this.isRead && total !== (this.#end ?? this.#total ?? total);
    this.#total = total;
    if (isOther) this.isOld = true;
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
      const block = this.#blocks.get(this.#blockOf.get(edge.id) ?? -1);
      const i = block?.satellites.findIndex((satellite) => satellite.id === edge.id) ?? -1;
      const satellite = block?.satellites[i];
      if (!block || !satellite) {
        if (canMove) this.isOld = true;
        continue;
      }
      const next = after(satellite, edge);
      if (next) block.satellites[i] = next;
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
    return this.loaded <= QUIETLY_REREAD && [...this.#blocks.keys()].every((index) => index * BLOCK < QUIETLY_REREAD);
  }

  /** Reads again what is in view, and then shows it in place of the old. */
  async reread(): Promise<void> {
    if (this.#asked || this.#ended) return;
    this.isOld = false;
    const asked = new AbortController();
    this.#asked = asked;
    const { from, to } = this.#inView(0);
    try {
      const page = await this.#page({ from, to: Math.min(Math.max(to, from + 1), from + MOST_BLOCKS) }, undefined, asked.signal);
      this.#blocks.clear();
      this.#blockOf.clear();
      [this.#end, this.#reach] = [undefined, 0];
      this.#take(from, page);
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

  #go(): void {
    // What is asked for is waited for, also where the view has moved on: the server would finish it all the same.
    if (this.#ended || this.#asked || this.#timer !== undefined || (this.problem && !this.problem.isPassing)) return;
    const blocks = this.#next();
    if (blocks) void this.#read(blocks);
  }

  /** What to read next: what is in view, with what is beside it in the same request, and else what is beside it. */
  #next(): Blocks | undefined {
    const inView = this.#missing(0);
    if (!inView) return this.#missing(1);
    let { from, to } = inView;
    // The first one is there sooner alone.
    if (!this.isRead) return { from, to };
    const isMissing = (index: number) => index >= 0 && index < this.#known && !this.#blocks.has(index);
    if (to - from < MOST_BLOCKS && isMissing(to)) to += 1;
    if (to - from < MOST_BLOCKS && isMissing(from - 1)) from -= 1;
    return { from, to };
  }

  /** How many blocks there are, with one more where the list goes on behind them. */
  get #known(): number {
    const isOpen = this.#end === undefined && this.#reach >= this.length;
    return Math.ceil(this.length / BLOCK) + (isOpen ? 1 : 0);
  }

  /** The blocks in view, and so many more on both sides. */
  #inView(more: number): Blocks {
    const [from, to] = this.#wanted;
    const last = Math.max(1, Math.min(this.#known, Math.ceil(to / BLOCK) + more));
    return { from: Math.max(0, Math.min(Math.floor(from / BLOCK) - more, last - 1)), to: last };
  }

  /** The first of them that are not there, as many as go into one request. */
  #missing(more: number): Blocks | undefined {
    const view = this.#inView(more);
    let from = view.from;
    while (from < view.to && this.#blocks.has(from)) from += 1;
    if (from >= view.to) return undefined;
    let to = from + 1;
    while (to < view.to && to - from < MOST_BLOCKS && !this.#blocks.has(to)) to += 1;
    return { from, to };
  }

  async #read(blocks: Blocks): Promise<void> {
    const asked = new AbortController();
    this.#asked = asked;
    let pause: number | undefined;
    try {
      const page = await this.#page(blocks, this.#blocks.get(blocks.from - 1)?.cursor, asked.signal);
      this.#take(blocks.from, page);
      this.#forget();
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

  /** Takes what was read from this block on. */
  #take(from: number, { satellites, nextCursor }: SatellitePage): void {
    const begin = from * BLOCK;
    for (let at = 0; at === 0 || at < satellites.length; at += BLOCK) {
      const [index, block] = [from + at / BLOCK, satellites.slice(at, at + BLOCK)];
      for (const { id } of block) {
        // Somebody came or went before this place since the other block was read.
        if ((this.#blockOf.get(id) ?? index) !== index) this.isOld = true;
        this.#blockOf.set(id, index);
      }
      this.#blocks.set(index, { satellites: block, cursor: at + BLOCK >= satellites.length ? nextCursor : undefined });
    }
    this.#reach = Math.max(this.#reach, begin + satellites.length);
    if (nextCursor === undefined) this.#end = begin + satellites.length;
  }

  /** Lets blocks go that are far from what is looked at. */
  #forget(): void {
    const middle = (this.#wanted[0] + this.#wanted[1]) / 2 / BLOCK;
    const far = [...this.#blocks.keys()].sort((a, b) => Math.abs(b - middle) - Math.abs(a - middle));
    for (const index of far.slice(0, Math.max(0, far.length - KEPT_BLOCKS))) {
      for (const { id } of this.#blocks.get(index)?.satellites ?? []) if (this.#blockOf.get(id) === index) this.#blockOf.delete(id);
      this.#blocks.delete(index);
    }
  }

  /** Reads blocks: on behind this cursor, where there is one. */
  async #page({ from, to }: Blocks, cursor: string | undefined, signal: AbortSignal): Promise<SatellitePage> {
    const query = new URLSearchParams(this.#parameters);
    query.set("sort", this.#order);
    query.set("limit", String((to - from) * BLOCK));
    if (cursor !== undefined) query.set("cursor", cursor);
    else if (from > 0) query.set("offset", String(from * BLOCK));
    return await get<SatellitePage>(`/v1/satellites?${query}`, signal);
  }
}
