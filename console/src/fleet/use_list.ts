/** The list of the satellites that the place selects, kept up to date. */

import { useEffect, useReducer, useRef } from "preact/hooks";
import { onEdges, onGap } from "../feed/feed.ts";
import { asOf, isPast, selection, type Place } from "../place/place.ts";
import { SatelliteList } from "./list.ts";

/** After an edge the list is read again no sooner than this. */
const REREAD_MS = 2500;

/** Filters and orders that an edge can move a satellite into or out of. */
function canMove(place: Place, order: string): boolean {
  const { status, lastEvent, flapping, neverConnected, inactiveFor } = place.filters;
  return [status, lastEvent, flapping, neverConnected, inactiveFor].some((filter) => filter !== undefined) || order.endsWith("lastSeenAt");
}

export function useList(place: Place, order: string, total: number | undefined): SatelliteList {
  const [, redraw] = useReducer((n: number) => n + 1, 0);
  const query = asOf(selection(place.filters), place);
  const key = `${order} ${query}`;
  const held = useRef<{ key: string; list: SatelliteList; shown: SatelliteList } | undefined>(undefined);

  // What was there stays on the page until the first page of the new list is.
  if (held.current?.key !== key) {
    const before = held.current;
    before?.list.end();
    const list = new SatelliteList(query, order, () => {
      const now = held.current;
      if (now?.list === list && (list.isRead || list.problem)) now.shown = list;
      redraw(undefined as never);
    });
    held.current = { key, list, shown: before && (before.shown.isRead || before.shown.problem) ? before.shown : list };
  }
  const { list, shown } = held.current;

  useEffect(() => {
    list.want(0, 1);
    if (isPast(place)) return () => list.end();
    const moves = canMove(place, order);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const soon = () => {
      timer ??= setTimeout(() => {
        timer = undefined;
        if (list.isOld && list.isQuiet && !document.hidden) void list.reread();
      }, REREAD_MS);
    };
    const stopEdges = onEdges((edges) => {
      list.apply(edges, moves);
      if (list.isOld) soon();
    });
    const stopGap = onGap(() => {
      list.old();
      soon();
    });
    const stopChanges = onRegistryChange(() => {
      list.old();
      void list.reread();
    });
    const watch = setInterval(() => {
      if (list.isOld) soon();
    }, REREAD_MS);
    return () => {
      clearTimeout(timer);
      clearInterval(watch);
      stopEdges();
      stopGap();
      stopChanges();
      list.end();
    };
  }, [list]);

  useEffect(() => {
    if (total !== undefined) list.count(total);
  }, [list, total]);

  return shown;
}

const changes = new Set<() => void>();

/** Calls back when somebody has changed the registry on this page. */
export function onRegistryChange(listener: () => void): () => void {
  changes.add(listener);
  return () => changes.delete(listener);
}

/** Says that the registry was changed on this page. */
export function registryChanged(): void {
  for (const listener of [...changes]) listener();
}

/** Does something when the registry is changed on this page. */
export function useRegistryChange(then: () => void): void {
  useEffect(() => onRegistryChange(then), [then]);
}
