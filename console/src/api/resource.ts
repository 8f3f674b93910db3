/**
 * Something read from the server that stays on the page while it is read again.
 *
 * A refresh that fails keeps what is there and says so beside it. What passes (no answer, 429, 503) is asked again
 * after the time the server named, or after a growing pause. Refreshes are never closer together than a few times
 * what one costs, so a slow server is asked less.
 */

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { asProblem, isAbort } from "./client.ts";
import type { Problem } from "./problem.ts";

export interface Resource<T> {
  data: T | undefined;
  problem: Problem | undefined;
  /** Whether the data is of the key that is asked for now. */
  isCurrent: boolean;
  isLoading: boolean;
  /** Asks again: now, or as soon as the pace allows. */
  reload: () => void;
}

export interface Options {
  /** Ask again after so long; not at all without it. */
  everyMs?: number | undefined;
  /** The least time between two answers to `reload`. */
  paceMs?: number;
  /** Wait this long before a new key is asked for: it may change again. */
  settleMs?: number;
}

/** How much longer than a request the pause behind it is. */
const PAUSE_FACTOR = 4;

/** The longest pause behind a request that was answered: the machine was busy, not the server. */
const LONGEST_PACE_MS = 4000;

/** The longest pause before a request that failed is repeated. */
const LONGEST_PAUSE_MS = 30_000;

interface Held<T> {
  key: string;
  data: T;
}

export function useResource<T>(
  key: string | undefined,
  load: (signal: AbortSignal) => Promise<T>,
  { everyMs, paceMs = 1000, settleMs = 0 }: Options = {},
): Resource<T> {
  const [held, setHeld] = useState<Held<T>>();
  const [problem, setProblem] = useState<Problem>();
  const [isLoading, setLoading] = useState(false);
  const loader = useRef(load);
  loader.current = load;
  const wake = useRef<() => void>(() => {});

  useEffect(() => {
    if (key === undefined) return;
    const gone = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let failures = 0;
    let running = false;
    let wanted = false;
    let nextAt = 0;
    const later = (ms: number) => {
      clearTimeout(timer);
      timer = setTimeout(run, ms);
    };
    const run = async () => {
      if (running) return;
      // What nobody looks at is not asked for again.
      if (document.hidden && nextAt > 0) {
        wanted = true;
        return;
      }
      [running, wanted] = [true, false];
      setLoading(true);
      const begun = performance.now();
      let pause: number | undefined;
      try {
        const data = await loader.current(gone.signal);
        if (gone.signal.aborted) return;
        failures = 0;
        setHeld({ key, data });
        setProblem(undefined);
        pause = everyMs;
      } catch (error) {
        if (gone.signal.aborted || isAbort(error)) return;
        const problem = asProblem(error);
        setProblem(problem);
        if (problem.isPassing) {
          failures += 1;
          pause = problem.retryAfterMs ?? Math.min(LONGEST_PAUSE_MS, 500 * 2 ** failures);
        }
      } finally {
        running = false;
        if (!gone.signal.aborted) {
          setLoading(false);
          const cost = performance.now() - begun;
          nextAt = performance.now() + Math.max(paceMs, Math.min(LONGEST_PACE_MS, PAUSE_FACTOR * cost));
          if (wanted) later(nextAt - performance.now());
          else if (pause !== undefined) later(Math.max(pause, nextAt - performance.now()));
        }
      }
    };
    wake.current = () => {
      wanted = true;
      if (!running) later(Math.max(0, nextAt - performance.now()));
    };
    const seen = () => {
      if (!document.hidden && wanted) wake.current();
    };
    document.addEventListener("visibilitychange", seen);
    setProblem(undefined);
    later(settleMs);
    return () => {
      gone.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [key, everyMs, paceMs, settleMs]);

  const reload = useCallback(() => wake.current(), []);
  return { data: held?.data, problem, isCurrent: held !== undefined && held.key === key, isLoading, reload };
}
