/** The fleet: counts, the timeline with its slider, filters, the satellites, and the feed beside them. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { get } from "../api/client.ts";
import type { Problem } from "../api/problem.ts";
import { useResource } from "../api/resource.ts";
import type { FleetCounts } from "../api/types.ts";
import { onEdges, onGap } from "../feed/feed.ts";
import { FeedPanel } from "../feed/panel.tsx";
import { asOf, filterCount, isPast, selection, type FilterName, type Place, type View } from "../place/place.ts";
import { change } from "../place/router.ts";
import { count } from "../parts/format.ts";
import { ProblemNote } from "../parts/problem_note.tsx";
import { AsOf, shownPosition, toNow } from "../time/as_of.tsx";
import { usePastMoment } from "../time/past.ts";
import { Timeline } from "../time/timeline.tsx";
import { useWindow, type Window } from "../time/window.ts";
import { RegisterButton } from "../actions/register.tsx";
import { Cards } from "./cards.tsx";
import { Cells } from "./cells.tsx";
import { Numbers, Regions } from "./counts.tsx";
import { FilterBar } from "./filter_bar.tsx";
import { IntervalsInView } from "./intervals.ts";
import type { SatelliteList } from "./list.ts";
import { Rows } from "./rows.tsx";
import { onRegistryChange, useList } from "./use_list.ts";

/** The largest fleets that each view is taken for by itself, and that it can be chosen for. */
const VIEW_LIMITS: Record<View, { byItself: number; most: number }> = {
  cards: { byItself: 60, most: 500 },
  cells: { byItself: 2000, most: 6000 },
  table: { byItself: Number.POSITIVE_INFINITY, most: Number.POSITIVE_INFINITY },
};

/** The filters that the numbers above the list stand for. */
const OF_NUMBERS: readonly FilterName[] = ["status", "lastEvent", "flapping", "neverConnected"];

export function FleetPage({ place }: { place: Place }) {
  const past = isPast(place);
  const facets = useCounts(place, ["region", ...OF_NUMBERS]);
  const isNarrower = place.filters.region !== undefined || OF_NUMBERS.some((name) => place.filters[name] !== undefined);
  const exact = useCounts(place, [], isNarrower);
  const selected = isNarrower ? exact : facets;
  const total = selected.data && selected.isCurrent ? selected.data.total : undefined;
  const view = useView(place, total ?? selected.data?.total);
  const order = place.sort ?? "name";
  const list = useList(place, order, total);
  const window = useWindow(place);
  const position = selected.data && selected.isCurrent ? selected.data.position : undefined;
  useEffect(() => shownPosition.set(position), [position]);
  const at = usePastMoment(place);
  const [problem, setProblem] = useState<Problem>();
  const intervals = useIntervals(place, window, setProblem);
  const regions = useMemo(() => facets.data?.regions.map((each) => each.region) ?? [], [facets.data]);
  const isEmpty = facets.data?.total === 0 && filterCount(place.filters) === 0;
  return (
    <div class="fleet-page">
      <div class="fleet-main">
        <h1 class="sr">Fleet</h1>
        <div class="overview">
          <div class="overview-counts">
            <Numbers counts={facets.data} place={place} />
            <AsOf place={place} position={position} at={at} />
          </div>
          <Timeline place={place} window={window} at={at} />
          <Regions counts={facets.data} place={place} />
        </div>
        {facets.problem && !(isSaidAbove(facets.problem) && facets.data) ? <ProblemNote problem={facets.problem} of="Counts" onRetry={facets.reload} /> : null}
        <section aria-labelledby="satellites-title" class="satellites">
          <header class="satellites-head">
            <h2 id="satellites-title">
              Satellites <span class="muted tabular">{total === undefined ? "" : count(total)}</span>
            </h2>
            <ListState list={list} past={past} />
            <span class="filler" />
            {past || isEmpty ? null : <RegisterButton />}
          </header>
          <FilterBar place={place} regions={regions} view={view} views={viewsFor(total)} />
          {problem && !isSaidAbove(problem) && !list.problem ? <ProblemNote problem={problem} of="States" /> : null}
          <Satellites {...{ place, list, view, intervals, order, at, isEmpty }} isSized={place.view !== undefined || selected.data !== undefined || selected.problem !== undefined} />
        </section>
      </div>
      <FeedPanel place={place} />
    </div>
  );
}

interface SatellitesProps {
  place: Place;
  list: SatelliteList;
  view: View;
  intervals: IntervalsInView;
  order: string;
  at: number | undefined;
  isEmpty: boolean;
  /** Whether it is known how many there are, and so how they are shown. */
  isSized: boolean;
}

function Satellites({ place, list, view, intervals, order, at, isEmpty, isSized }: SatellitesProps) {
  if (list.problem && !list.isRead) {
    return (
      <ProblemNote problem={list.problem} of="Satellites" onRetry={() => list.retry()}>
        <WaysOut problem={list.problem} place={place} />
      </ProblemNote>
    );
  }
  if (!list.isRead || !isSized) return <div class="list-space is-loading" aria-busy="true" />;
  if (list.length === 0) return <Nobody place={place} isEmpty={isEmpty} />;
  return (
    <>
      {list.problem && !isSaidAbove(list.problem) ? <ProblemNote problem={list.problem} of="Satellites" onRetry={() => list.retry()} /> : null}
      {view === "cards" ? (
        <Cards {...{ place, list, at }} view={intervals} />
      ) : view === "cells" ? (
        <Cells {...{ place, list, at }} view={intervals} />
      ) : (
        <Rows {...{ place, list, order, at }} view={intervals} />
      )}
    </>
  );
}

/** What can be done about a question that has no answer. */
function WaysOut({ problem, place }: { problem: Problem; place: Place }) {
  const name = problem.path;
  return (
    <>
      {isPast(place) ? (
        <button type="button" class="small" onClick={toNow}>
          Back to the present
        </button>
      ) : null}
      {name !== undefined && name in place.filters ? (
        <button type="button" class="small" onClick={() => change({ filters: { ...withoutFilter(place, name as FilterName) } })}>
          Remove this filter
        </button>
      ) : null}
    </>
  );
}

/** Whether the banner over the page says it: nothing answers, and what is there stays. */
function isSaidAbove(problem: Problem): boolean {
  return problem.status === 0;
}

function withoutFilter(place: Place, name: FilterName) {
  const filters = { ...place.filters };
  delete filters[name];
  return filters;
}

function Nobody({ place, isEmpty }: { place: Place; isEmpty: boolean }) {
  if (isEmpty && !isPast(place)) {
    return (
      <div class="empty-fleet">
        <svg viewBox="0 0 120 80" width="150" height="100" aria-hidden="true">
          <g fill="none" stroke="currentColor" stroke-width="1.500">
            <ellipse cx="60" cy="62" rx="46" ry="10" opacity=".35" />
            <path d="M36 30a26 26 0 0 0 34 30M36 30a22 22 0 0 0 34 30M53 45l14-13M58 60v8M46 68h24" stroke-width="2" />
            <path d="M78 14a14 14 0 0 1 10 10M77 6a22 22 0 0 1 19 19" opacity=".5" stroke-dasharray="3 3" />
          </g>
        </svg>
        <h3>No satellite is registered yet</h3>
        <p class="muted">Register one, start its agent with the lines you are shown, and it appears here within a second.</p>
        <RegisterButton isPrimary />
      </div>
    );
  }
  return (
    <div class="empty-fleet">
      <h3>No satellite matches</h3>
      <p class="muted">{isPast(place) ? "None was there at that moment, or none that these filters select." : "None of the fleet is selected by these filters."}</p>
      {filterCount(place.filters) > 0 ? (
        <button type="button" onClick={() => change({ filters: { tag: [] } })}>
          Clear the filters
        </button>
      ) : null}
    </div>
  );
}

function ListState({ list, past }: { list: SatelliteList; past: boolean }) {
  if (!past && list.isOld && !list.isQuiet) {
    return (
      <button type="button" class="small" onClick={() => void list.reread()}>
        The list has changed: read it again
      </button>
    );
  }
  if (list.isRead && list.isWaitedFor) {
    return (
      <span class="muted tabular" role="status">
        reading on: {count(list.loaded)} of {count(list.length)}
      </span>
    );
  }
  return null;
}

function viewsFor(total: number | undefined): View[] {
  return (["cards", "cells", "table"] as const).filter((view) => total === undefined || total <= VIEW_LIMITS[view].most);
}

/** The view: as chosen, or as the size of the fleet has it. It does not turn while one goes through time. */
function useView(place: Place, total: number | undefined): View {
  const before = useRef<View | undefined>(undefined);
  const fitting = viewFor(place, total);
  const kept = before.current;
  if (isPast(place) && place.view === undefined && kept !== undefined && (total ?? 0) <= VIEW_LIMITS[kept].most) return kept;
  before.current = total === undefined ? kept : fitting;
  return fitting;
}

function viewFor(place: Place, total: number | undefined): View {
  const size = total ?? Number.POSITIVE_INFINITY;
  if (place.view && (total === undefined || size <= VIEW_LIMITS[place.view].most)) return place.view;
  return (["cards", "cells", "table"] as const).find((view) => size <= VIEW_LIMITS[view].byItself) ?? "table";
}

/** The counts of a selection, without some of its filters; asked for again when something happens. */
function useCounts(place: Place, without: readonly (FilterName | "tag")[], isWanted = true) {
  const query = asOf(selection(place.filters, without), place);
  const past = isPast(place);
  const counts = useResource(isWanted ? `/v1/fleet?${query}` : undefined, (signal) => get<FleetCounts>(`/v1/fleet?${query}`, signal), {
    everyMs: past ? undefined : 10_000,
    paceMs: past ? 100 : 800,
  });
  const { reload } = counts;
  useEffect(() => {
    if (past) return;
    const stops = [onEdges(reload), onGap(reload), onRegistryChange(reload)];
    return () => stops.forEach((stop) => stop());
  }, [past, reload]);
  return counts;
}

function useIntervals(place: Place, window: Window, told: (problem: Problem | undefined) => void): IntervalsInView {
  const intervals = useMemo(() => new IntervalsInView(window, told), [place.span, place.until]);
  useEffect(() => intervals.move(window), [intervals, window.from, window.to]);
  useEffect(() => {
    const stop = onEdges((edges) => intervals.apply(edges));
    return () => {
      stop();
      intervals.end();
    };
  }, [intervals]);
  return intervals;
}
