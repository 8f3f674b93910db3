/**
 * The states of the satellites in view.
 *
 * Rows say which satellite they show and stop saying so when they leave; ids are asked for together, at most 200 at a
 * time. What is there stays until the newer answer has come. An edge of a satellite in view makes its row ask again.
 */

import { asProblem, get, isAbort } from "../api/client.ts";
import type { Problem } from "../api/problem.ts";
import type { Interval, Intervals, Transition } from "../api/types.ts";
import { bounds, type Window } from "../time/window.ts";

const MOST_IDS = 200;

/** Rows that come into view within this time are asked for together. */
const GATHER_MS = 50;

/** Satellites whose states are kept after they left the view. */
const KEPT = 3000;

const LONGEST_PAUSE_MS = 30_000;

interface Known {
  intervals: readonly Interval[];
  /** Of which window; older ones are shown until the newer is there. */
  window: string;
}

export class IntervalsInView {
  #window: Window;
  #key: string;
  #known = new Map<string, Known>();
  #inView = new Map<string, Set<() => void>>();
  #old = new Set<string>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #asked: AbortController | undefined;
  #failures = 0;
  #told: (problem: Problem | undefined) => void;
  #gone = false;

  constructor(window: Window, told: (problem: Problem | undefined) => void) {
    this.#window = window;
    this.#key = keyOf(window);
    this.#told = told;
  }

  get window(): Window {
    return this.#window;
  }

  /** The window moved on, or is another. */
  move(window: Window): void {
    if (keyOf(window) === this.#key) return;
    const isOther = window.to - window.from !== this.#window.to - this.#window.from || window.isLive !== this.#window.isLive;
    this.#window = window;
    this.#key = keyOf(window);
    if (isOther) {
      this.#asked?.abort();
      this.#asked = undefined;
    }
    for (const followers of this.#inView.values()) for (const draw of followers) draw();
    this.#gather(GATHER_MS);
  }

  /** A row is in view; the answer ends that. */
  show(id: string, draw: () => void): () => void {
    const followers = this.#inView.get(id) ?? new Set();
    followers.add(draw);
    this.#inView.set(id, followers);
    if (this.#needs(id)) this.#gather(GATHER_MS);
    return () => {
      followers.delete(draw);
      if (followers.size === 0) this.#inView.delete(id);
    };
  }

  of(id: string): readonly Interval[] | undefined {
    return this.#known.get(id)?.intervals;
  }

  /** What happened makes what is known of a satellite old. */
  apply(edges: readonly Transition[]): void {
    for (const { id } of edges) if (this.#inView.has(id)) this.#old.add(id);
    if (this.#old.size > 0) this.#gather(300);
  }

  end(): void {
    this.#gone = true;
    clearTimeout(this.#timer);
    this.#asked?.abort();
  }

  #needs(id: string): boolean {
    return this.#old.has(id) || this.#known.get(id)?.window !== this.#key;
  }

  #gather(ms: number): void {
    if (this.#gone || this.#asked) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      void this.#ask();
    }, ms);
  }

  async #ask(): Promise<void> {
    const ids = [...this.#inView.keys()].filter((id) => this.#needs(id)).slice(0, MOST_IDS);
    if (ids.length === 0) return;
    const asked = new AbortController();
    this.#asked = asked;
    const key = this.#key;
    for (const id of ids) this.#old.delete(id);
    const query = bounds(this.#window);
    query.set("ids", ids.join(","));
    let pause = GATHER_MS;
    try {
      const answer = await get<Intervals>(`/v1/intervals?${query.toString().replaceAll("%2C", ",")}`, asked.signal);
      this.#failures = 0;
      for (const id of ids) {
        this.#known.delete(id);
        this.#known.set(id, { intervals: answer.intervals[id] ?? [], window: key });
        for (const draw of this.#inView.get(id) ?? []) draw();
      }
      this.#forget();
      this.#told(undefined);
    } catch (error) {
      if (this.#gone || isAbort(error)) return;
      const problem = asProblem(error);
      this.#told(problem);
      if (!problem.isPassing) {
        // Asking the same again gives the same: wait for another window.
        for (const id of ids) this.#known.set(id, { intervals: this.of(id) ?? [], window: key });
      }
      this.#failures += 1;
      pause = problem.retryAfterMs ?? Math.min(LONGEST_PAUSE_MS, 500 * 2 ** this.#failures);
    } finally {
      if (this.#asked === asked) this.#asked = undefined;
    }
    if ([...this.#inView.keys()].some((id) => this.#needs(id))) this.#gather(pause);
  }

  #forget(): void {
    for (const id of this.#known.keys()) {
      if (this.#known.size <= KEPT) return;
      if (!this.#inView.has(id)) this.#known.delete(id);
    }
  }
}

function keyOf(window: Window): string {
  return `${window.from} ${window.to}`;
}
