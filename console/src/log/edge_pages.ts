/** Pages of the log, the newest first: the live edges on top, older ones on request. */

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { asProblem, get, isAbort } from "../api/client.ts";
import type { Problem } from "../api/problem.ts";
import type { Transition, TransitionPage } from "../api/types.ts";
import { merge } from "../feed/merge.ts";
import { onEdges, onGap } from "../feed/feed.ts";

const PAGE = 50;

/** The most that are kept of the live ones and all pages together. */
const MOST = 5000;

export interface EdgePages {
  edges: readonly Transition[];
  problem: Problem | undefined;
  isRead: boolean;
  isLoading: boolean;
  hasOlder: boolean;
  older: () => void;
  reload: () => void;
}

export function useEdgePages(path: string, parameters: URLSearchParams, wants: (edge: Transition) => boolean): EdgePages {
  const key = `${path}?${parameters}`;
  const [edges, setEdges] = useState<readonly Transition[]>([]);
  const [before, setBefore] = useState<number | undefined>();
  const [problem, setProblem] = useState<Problem>();
  const [isRead, setRead] = useState(false);
  const [isLoading, setLoading] = useState(false);
  const [round, again] = useState(0);
  const wanted = useRef(wants);
  wanted.current = wants;
  const asked = useRef<AbortController | undefined>(undefined);

  const read = useCallback(
    async (from: number | undefined) => {
      asked.current?.abort();
      const mine = new AbortController();
      asked.current = mine;
      setLoading(true);
      const query = new URLSearchParams(parameters);
      query.set("order", "desc");
      query.set("limit", String(PAGE));
      if (from !== undefined) query.set("before", String(from));
      try {
        const page = await get<TransitionPage>(`${path}?${query}`, mine.signal);
        setEdges((known) => merge(from === undefined ? [] : known, page.transitions, MOST).edges);
        setBefore(page.nextBefore);
        setProblem(undefined);
        setRead(true);
      } catch (error) {
        if (isAbort(error)) return;
        setProblem(asProblem(error));
      }
      setLoading(false);
    },
    [key],
  );

  useEffect(() => {
    setRead(false);
    void read(undefined);
    const stop = onEdges((come) => {
      const mine = come.filter((edge) => wanted.current(edge));
      if (mine.length > 0) setEdges((known) => merge(known, mine, MOST).edges);
    });
    const stopGap = onGap(() => again((n) => n + 1));
    return () => {
      stop();
      stopGap();
      asked.current?.abort();
    };
  }, [read, round]);

  useEffect(() => {
    if (!problem?.isPassing) return;
    const timer = setTimeout(() => again((n) => n + 1), problem.retryAfterMs ?? 3000);
    return () => clearTimeout(timer);
  }, [problem]);

  return {
    edges,
    problem,
    isRead,
    isLoading,
    hasOlder: before !== undefined,
    older: () => void read(before),
    reload: () => again((n) => n + 1),
  };
}
