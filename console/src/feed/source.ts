/**
 * The one event stream of a browser: connects, goes on behind the last position it has, and says how it stands.
 *
 * It runs in a worker that all tabs share, or in the tab itself where the browser has no such workers. A browser's
 * `EventSource` comes back by itself after a broken connection and sends Last-Event-ID; it gives up after any answer
 * but 200. Then this asks why, waits, and begins a new one behind the same position.
 */

import { problemOf, retryAfter } from "../api/problem.ts";
import type { Transition } from "../api/types.ts";
import type { FeedState, FromFeed } from "./messages.ts";

const STREAM = "/v1/transitions/stream";

/** How many of the newest edges a new tab is told. */
const REMEMBERED = 200;

/** Edges that come within this time are told together. */
const BATCH_MS = 40;

/** A connection that comes back within this time was not worth a word. */
const UNNOTICED_MS = 400;

const LONGEST_PAUSE_MS = 15_000;

export class FeedSource {
  #tell: (message: FromFeed) => void;
  #events: EventSource | undefined;
  #state: FeedState = { is: "connecting" };
  #position: number | undefined;
  #recent: Transition[] = [];
  #waiting: Transition[] = [];
  #batch: ReturnType<typeof setTimeout> | undefined;
  #pause: ReturnType<typeof setTimeout> | undefined;
  #notice: ReturnType<typeof setTimeout> | undefined;
  #failures = 0;

  constructor(tell: (message: FromFeed) => void) {
    this.#tell = tell;
  }

  /** Connects, unless it is connected or about to be. */
  start(): void {
    if (this.#events || this.#pause !== undefined) return;
    this.#state = { is: "connecting" };
    this.#connect();
  }

  /** Connects now instead of after the pause. */
  now(): void {
    if (this.#state.is === "live") return;
    this.#close();
    this.#connect();
  }

  stop(): void {
    this.#close();
    [this.#position, this.#recent, this.#waiting] = [undefined, [], []];
    this.#state = { is: "signed-out" };
  }

  /** What a new tab is told. */
  greeting(): FromFeed[] {
    return [
      { kind: "state", state: this.#state, position: this.#position },
      { kind: "edges", edges: this.#recent },
    ];
  }

  #connect(): void {
    const after = this.#position === undefined ? "" : `?after=${this.#position}`;
    const events = new EventSource(STREAM + after);
    this.#events = events;
    events.onopen = () => {
      this.#failures = 0;
      clearTimeout(this.#notice);
      this.#notice = undefined;
      this.#become({ is: "live" });
    };
    events.onmessage = (event) => this.#take(event);
    events.onerror = () => {
      this.#noticeBreak();
      if (events.readyState === EventSource.CLOSED) void this.#findOut(events);
    };
  }

  #take(event: MessageEvent<string>): void {
    const position = Number(event.lastEventId);
    if (Number.isFinite(position) && event.lastEventId !== "") this.#position = position;
    if (event.data === "") return;
    const edge = JSON.parse(event.data) as Transition;
    this.#position = edge.position;
    this.#waiting.push(edge);
    this.#batch ??= setTimeout(() => this.#flush(), BATCH_MS);
  }

  #flush(): void {
    this.#batch = undefined;
    const edges = this.#waiting;
    this.#waiting = [];
    this.#recent = [...this.#recent, ...edges].slice(-REMEMBERED);
    this.#tell({ kind: "edges", edges });
  }

  #noticeBreak(): void {
    if (this.#state.is === "reconnecting" || this.#notice !== undefined) return;
    const sinceMs = Date.now();
    this.#notice = setTimeout(() => {
      this.#notice = undefined;
      this.#become({ is: "reconnecting", sinceMs });
    }, UNNOTICED_MS);
  }

  /** Why the server did not answer 200: an `EventSource` does not say. */
  async #findOut(events: EventSource): Promise<void> {
    const asked = new AbortController();
    let pause: number | undefined;
    let why: string | undefined;
    try {
      const after = this.#position === undefined ? "" : `?after=${this.#position}`;
      const answer = await fetch(STREAM + after, { signal: asked.signal, headers: { accept: "text/event-stream" } });
      if (!answer.ok) {
        const body = await answer.json().catch(() => undefined);
        const problem = problemOf(answer.status, body, retryAfter(answer.headers.get("retry-after"), Date.now()));
        pause = problem.retryAfterMs;
        why = `${problem.title}. ${problem.detail}`;
        if (problem.status === 401) {
          if (this.#events === events) {
            this.stop();
            this.#tell({ kind: "state", state: this.#state, position: undefined });
          }
          return;
        }
        if (problem.status === 410 || problem.status === 422) {
          // The log no longer has, or never had, what follows: begin with the present.
          this.#position = undefined;
          this.#recent = [];
          this.#tell({ kind: "gap" });
        }
      }
    } catch {
      // No answer: the pause decides.
    } finally {
      asked.abort();
    }
    if (this.#events !== events) return;
    this.#close();
    this.#failures += 1;
    const sinceMs = this.#state.is === "reconnecting" ? this.#state.sinceMs : Date.now();
    this.#become({ is: "reconnecting", sinceMs, ...(why === undefined ? {} : { why }) });
    const growing = Math.min(LONGEST_PAUSE_MS, 500 * 2 ** this.#failures);
    const spread = 0.75 + Math.random() / 2;
    this.#pause = setTimeout(() => {
      this.#pause = undefined;
      this.#connect();
    }, pause ?? growing * spread);
  }

  #become(state: FeedState): void {
    this.#state = state;
    this.#tell({ kind: "state", state, position: this.#position });
  }

  #close(): void {
    this.#events?.close();
    this.#events = undefined;
    clearTimeout(this.#pause);
    clearTimeout(this.#notice);
    [this.#pause, this.#notice] = [undefined, undefined];
  }
}
