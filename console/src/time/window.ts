/**
 * The span that strips and charts show.
 *
 * Its end moves on with the present in steps, so that what is drawn and asked for changes now and then and not each
 * second.
 */

import { SPANS, type Place } from "../place/place.ts";
import { useEffect, useMemo, useReducer } from "preact/hooks";
import { now, present } from "../parts/clock.ts";

export interface Window {
  from: number;
  to: number;
  /** Whether its end is the present. */
  isLive: boolean;
  /** How far it moves at once. */
  stepMs: number;
}

/** Steps in a span; a strip is about this many pixels wide. */
const STEPS = 240;

const LEAST_STEP_MS = 5000;

export function windowOf(place: Pick<Place, "span" | "until">, now: number): Window {
  const span = SPANS[place.span];
  const stepMs = Math.max(LEAST_STEP_MS, Math.round(span / STEPS));
  const until = place.until === undefined ? undefined : Date.parse(place.until);
  if (until !== undefined && until < now) return { from: until - span, to: until, isLive: false, stepMs };
  const to = Math.ceil(now / stepMs) * stepMs;
  return { from: to - span, to, isLive: true, stepMs };
}

/** The window now; the same object until it moves on. */
export function useWindow({ span, until }: Pick<Place, "span" | "until">): Window {
  const [moved, move] = useReducer((n: number) => n + 1, 0);
  const window = useMemo(() => windowOf(until === undefined ? { span } : { span, until }, present()), [span, until, moved]);
  useEffect(
    () =>
      now.follow((moment) => {
        if (window.isLive && (moment > window.to || moment < window.to - 2 * window.stepMs)) move(undefined as never);
      }),
    [window],
  );
  return window;
}

/** The window as parameters: without an end it ends at the database's present. */
export function bounds(window: Window): URLSearchParams {
  const given = new URLSearchParams({ since: new Date(window.from).toISOString() });
  if (!window.isLive) given.set("until", new Date(window.to).toISOString());
  return given;
}
